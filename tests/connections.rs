//! Connections to `warren serve`: alarms, TLS.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::Signal;
use support::{PATIENCE, Program, warren};
use warren::amqp::BasicProperties;
use warren::amqp::client::{Connection, Publish, QueueOptions};
use warren::hub::net::TcpStream;
use warren::hub::net::tls::{Connector, ConnectorBuilder, TlsStream};
use warren::hub::{run, sleep};

/// A server with settings of its own, and where it listens.
fn serve(data: &Path, settings: &[&str]) -> (Program, String) {
    let mut command = warren();
    command.args(["serve", "--log", "error", "--data-dir"]).arg(data).args(settings);
    let program = Program::start(&mut command);
    let url = program.line().strip_prefix("listening ").expect("where it listens").to_owned();
    assert_eq!(program.line(), "ready");
    (program, url)
}

#[track_caller]
fn wait_until(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "it does not come");
        sleep(Duration::from_millis(5));
    }
}

fn ctl(data: &Path, words: &[&str]) -> String {
    let mut command: Command = warren();
    let output = command.arg("ctl").args(words).env("WARREN_DATA_DIR", data).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_full_disk_blocks_publishers_and_tells_them_why() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_owned();
    // More than any disk has.
    let listen = ["--listen", "amqp://127.0.0.1:0", "--disk-free-limit", "1000000TB"];
    let (_server, url) = serve(&data, &listen);
    run(move || {
        let publisher = Connection::open(&url).unwrap();
        let channel = publisher.channel().unwrap();
        channel.queue_declare("q", QueueOptions::default()).unwrap();
        assert_eq!(publisher.blocked(), None, "it has not published");
        channel.basic_publish(Publish::to("", "q"), &BasicProperties::new(), b"1").unwrap();
        wait_until(|| publisher.blocked().is_some());
        assert_eq!(publisher.blocked().as_deref(), Some("low on disk"));
        assert!(ctl(&data, &["list_connections", "state"]).contains("blocked"));
        channel.basic_publish(Publish::to("", "q"), &BasicProperties::new(), b"2").unwrap();
        // Who consumes goes on.
        let consumer = Connection::open(&url).unwrap();
        let consuming = consumer.channel().unwrap();
        wait_until(|| consuming.basic_get("q", true).unwrap().is_some());
        assert!(consuming.basic_get("q", true).unwrap().is_none(), "the second was not read");
        assert!(consumer.blocked().is_none());
        ctl(&data, &["set_disk_free_limit", "0"]);
        wait_until(|| publisher.blocked().is_none());
        wait_until(|| consuming.basic_get("q", true).unwrap().is_some());
        publisher.close().unwrap();
        consumer.close().unwrap();
    });
}

#[test]
fn too_much_memory_blocks_publishers() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_owned();
    let (_server, url) = serve(&data, &["--listen", "amqp://127.0.0.1:0", "--memory-limit", "1kB"]);
    run(move || {
        let publisher = Connection::open(&url).unwrap();
        let channel = publisher.channel().unwrap();
        channel.basic_publish(Publish::to("", "q"), &BasicProperties::new(), b"1").unwrap();
        wait_until(|| publisher.blocked().as_deref() == Some("low on memory"));
        ctl(&data, &["set_vm_memory_high_watermark", "0.9"]);
        wait_until(|| publisher.blocked().is_none());
        publisher.close().unwrap();
    });
}

/// An authority, and what it vouches for.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for `name`, and its key.
    fn certify(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// The same in the files `<name>.pem` and `<name>.key`.
    fn certify_in(&self, folder: &Path, name: &str) {
        let (certificate, key) = self.certify(name);
        fs::write(folder.join(format!("{name}.key")), key).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate).unwrap();
    }

    fn trusting(&self) -> ConnectorBuilder {
        Connector::builder().roots_pem(&self.0.pem())
    }
}

/// A server with TLS whose certificate is for `localhost`, and its port.
fn serve_tls(folder: &Path, authority: &Authority, more: &[&str]) -> (Program, u16) {
    authority.certify_in(folder, "localhost");
    let path = |name: &str| folder.join(name).display().to_string();
    let (cert, key) = (path("localhost.pem"), path("localhost.key"));
    let listen = ["--listen", "amqps://127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key];
    let (server, url) = serve(&folder.join("data"), &[&listen, more].concat());
    let port = url.strip_prefix("amqps://127.0.0.1:").expect("an amqps URL").parse().unwrap();
    (server, port)
}

/// Speaks TLS with `host` until the server has sent its first method.
fn greet(connector: &Connector, host: &str, port: u16) -> std::io::Result<TlsStream<TcpStream>> {
    let mut stream = connector.connect(host, TcpStream::connect(("127.0.0.1", port))?)?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    let mut start = [0; 11];
    stream.read_exact(&mut start)?;
    assert_eq!((start[0], &start[7..]), (1, &[0, 10, 0, 10][..]), "connection.start");
    Ok(stream)
}

fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    stream.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn certificates_are_shown_by_name_and_renewed_while_the_server_runs() {
    let kept = tempfile::tempdir().unwrap();
    let folder = kept.path().to_owned();
    let authority = Authority::new("authority");
    authority.certify_in(&folder, "other.example");
    let path = |name: &str| folder.join(name).display().to_string();
    let sni = format!("other.example={},{}", path("other.example.pem"), path("other.example.key"));
    let (server, port) = serve_tls(&folder, &authority, &["--tls-sni", &sni]);
    run(move || {
        let connector = authority.trusting().build().unwrap();
        let standing = greet(&connector, "localhost", port).unwrap();
        let first = shown(&standing);
        assert_ne!(shown(&greet(&connector, "other.example", port).unwrap()), first);
        let unknown = Authority::new("nobody").trusting().build().unwrap();
        assert!(greet(&unknown, "localhost", port).is_err());
        // Nobody has to be told of new files.
        authority.certify_in(&folder, "localhost");
        let renewed = || shown(&greet(&connector, "localhost", port).unwrap());
        wait_until(|| renewed() != first);
        // Files that are wrong change nothing, and a signal is no end.
        let second = renewed();
        fs::write(folder.join("localhost.pem"), "no certificate").unwrap();
        server.signal(Signal::HUP);
        for _ in 0..20 {
            assert_eq!(renewed(), second);
        }
        authority.certify_in(&folder, "localhost");
        server.signal(Signal::HUP);
        wait_until(|| renewed() != second);
        drop(standing);
    });
}

#[test]
fn clients_show_certificates_where_they_have_to() {
    let kept = tempfile::tempdir().unwrap();
    let folder = kept.path().to_owned();
    let authority = Authority::new("authority");
    let ca = folder.join("ca.pem");
    fs::write(&ca, authority.0.pem()).unwrap();
    let ca = ca.display().to_string();
    let (_server, port) =
        serve_tls(&folder, &authority, &["--tls-ca", &ca, "--tls-fail-if-no-peer-cert"]);
    run(move || {
        let (chain, key) = authority.certify("client");
        let known = authority.trusting().identity_pem(&chain, &key).build().unwrap();
        greet(&known, "localhost", port).unwrap();
        let silent = authority.trusting().build().unwrap();
        assert!(greet(&silent, "localhost", port).is_err(), "without a certificate");
        let (chain, key) = Authority::new("nobody").certify("client");
        let foreign = authority.trusting().identity_pem(&chain, &key).build().unwrap();
        assert!(greet(&foreign, "localhost", port).is_err(), "of another authority");
    });
}
