//! Our reactor and Twisted over real sockets: each speaks with the other as server and as client, in lines, netstrings,
//! strings with their length before them, in the clear and by TLS.
//!
//! Twisted's half is `peer.py`. Where it is not installed these tests are left out, unless `WARREN_TEST_SERVERS` is set:
//! `cargo xtask test` installs it, and sets that.

mod frames;
mod talk;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use tempfile::TempDir;
use warren_hub::process::Command;
use warren_hub::with_timeout;
use warren_reactor::tls::{
    CertificateOptions, ClientAuth, TlsClientOptions, TlsServerOptions, connect_ssl, listen_ssl,
    options_for_client_tls,
};
use warren_reactor::{PeerAddr, connect_tcp, listen_tcp};

use talk::{END, Kind, Role, Told, answers_expected, protocol};

const REQUIRED: &str = "WARREN_TEST_SERVERS";
const PATIENCE: Duration = Duration::from_secs(60);

/// Two tests for each way of speaking.
macro_rules! peers {
    ($($name:ident: $kind:expr,)*) => {
        $(
            mod $name {
                use crate::talk::Kind;

                #[test]
                fn our_client_and_their_server() {
                    crate::with_python($kind, crate::our_client);
                }

                #[test]
                fn their_client_and_our_server() {
                    crate::with_python($kind, crate::our_server);
                }
            }
        )*
    };
}

peers! {
    echo: Kind::Echo,
    tls: Kind::Tls,
    mutual_tls: Kind::MutualTls,
    start_tls: Kind::StartTls,
    lines: Kind::Lines,
    lines_too_long: Kind::LinesTooLong,
    raw: Kind::Raw,
    netstrings: Kind::Netstrings,
    netstrings_too_long: Kind::NetstringsTooLong,
    int8: Kind::Int8,
    int16: Kind::Int16,
    int32: Kind::Int32,
    int32_too_long: Kind::Int32TooLong,
}

/// What a test has.
struct Place {
    kind: Kind,
    python: PathBuf,
    folder: TempDir,
    server: TlsServerOptions,
    client: TlsClientOptions,
}

fn with_python(kind: Kind, test: fn(&Place)) {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    fs::write(folder.path().join("certificate"), &certificate).unwrap();
    fs::write(folder.path().join("key"), &key).unwrap();
    let mut server = CertificateOptions::from_pem(&certificate, &key);
    let mut client = options_for_client_tls("localhost").roots(&certificate);
    if kind == Kind::MutualTls {
        server = server.client_roots(&certificate, ClientAuth::Required).alpn(&["other", "warren"]);
        client = client.certificate(&certificate, &key).alpn(&["other", "warren"]);
    }
    let (server, client) = (server.build().unwrap(), client.build().unwrap());
    let place = Place { kind, python, folder, server, client };
    warren_hub::run(move || {
        with_timeout(PATIENCE, || test(&place)).expect("an end in time");
    });
}

/// A Python with Twisted.
fn python() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join("target/venv/bin/python");
    let mut command = std::process::Command::new(&python);
    command.args(["-c", "import twisted, OpenSSL, service_identity"]);
    let found = command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    assert!(
        found || std::env::var_os(REQUIRED).is_none(),
        "{} is no Python with Twisted: `cargo xtask test` installs one",
        python.display()
    );
    if !found {
        eprintln!("left out: there is no Python with Twisted");
    }
    found.then_some(python)
}

impl Place {
    /// Twisted as a peer.
    fn peer(&self, role: &str) -> Command {
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/twisted/peers/peer.py");
        let mut command = Command::new(&self.python);
        command.arg(script).args([role, self.kind.name()]).kill_on_drop(true);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn our_server(place: &Place) {
    let told = Rc::<Told>::default();
    let (kind, options, heard) = (place.kind, place.server.clone(), told.clone());
    let factory = Box::new(move |_: &PeerAddr| {
        Some(protocol(kind, Role::Server(options.clone()), heard.clone()))
    });
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let port = match kind {
        Kind::Tls | Kind::MutualTls => listen_ssl(local, factory, &place.server).unwrap(),
        _ => listen_tcp(local, factory).unwrap(),
    };
    let PeerAddr::Tcp(addr) = port.addr() else { unreachable!("it is TCP's") };
    let mut peer = place.peer("client");
    peer.arg(addr.port().to_string()).arg(place.path("certificate")).arg(place.path("key"));
    let output = peer.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let (said, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let expected = format!("answered {}\n{}\n", answers_expected(kind), END);
    assert_eq!((&*said, &*errors), (&*expected, ""));
    told.ended.wait();
}

fn our_client(place: &Place) {
    let mut peer = place.peer("server");
    peer.arg(place.path("certificate")).arg(place.path("key"));
    let mut peer = peer.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(peer.stdout.take().unwrap());
    let mut port = String::new();
    said.read_line(&mut port).unwrap();
    let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port.trim().parse().unwrap()));

    let told = Rc::<Told>::default();
    let (kind, options, heard) = (place.kind, place.client.clone(), told.clone());
    let factory = Box::new(move |_: &PeerAddr| {
        Some(protocol(kind, Role::Client(options.clone()), heard.clone()))
    });
    match kind {
        Kind::Tls | Kind::MutualTls => connect_ssl(addr, factory, &place.client),
        _ => connect_tcp(addr, factory),
    };
    told.ended.wait();
    assert_eq!(told.answered.get(), answers_expected(kind));
    assert_eq!(*told.end.borrow(), END);
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, format!("{}\n", END));
    assert!(peer.wait().unwrap().success());
}
