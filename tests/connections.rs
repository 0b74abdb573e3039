//! Connections to `warren serve`: alarms, TLS and users by certificates, proxies.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::certificates::Authority;
use support::{PATIENCE, Program, warren};
use warren::amqp::client::{Connection, Publish, QueueOptions};
use warren::amqp::frame::{self, Frame, FrameReader};
use warren::amqp::method::connection;
use warren::amqp::{BasicProperties, FieldTable, Method};
use warren::hub::net::TcpStream;
use warren::hub::net::tls::{Connector, ConnectorBuilder, TlsStream};
use warren::hub::{run, sleep, spawn};

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
        let later = channel.clone();
        let second = spawn(move || {
            later.basic_publish(Publish::to("", "q"), &BasicProperties::new(), b"2").unwrap();
        });
        // Who consumes goes on.
        let consumer = Connection::open(&url).unwrap();
        let consuming = consumer.channel().unwrap();
        wait_until(|| consuming.basic_get("q", true).unwrap().is_some());
        assert!(consuming.basic_get("q", true).unwrap().is_none(), "the second waits");
        assert!(consumer.blocked().is_none());
        ctl(&data, &["set_disk_free_limit", "0"]);
        wait_until(|| publisher.blocked().is_none());
        second.join().unwrap();
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

/// An authority, and the file in which it stands.
fn authority_in(folder: &Path) -> (Authority, String) {
    let (authority, file) = (Authority::new("authority"), folder.join("ca.pem"));
    fs::write(&file, authority.pem()).unwrap();
    (authority, file.display().to_string())
}

fn trusting(authority: &Authority) -> ConnectorBuilder {
    Connector::builder().roots_pem(&authority.pem())
}

/// A server with TLS whose certificate is for `localhost`, and its port.
fn serve_tls(folder: &Path, authority: &Authority, more: &[&str]) -> (Program, u16) {
    authority.certify_in(folder, "localhost", "localhost", &["localhost"]);
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
    show_certificates("1");
}

#[test]
fn certificates_are_renewed_on_all_hubs() {
    show_certificates("3");
}

fn show_certificates(hubs: &str) {
    let kept = tempfile::tempdir().unwrap();
    let folder = kept.path().to_owned();
    let authority = Authority::new("authority");
    authority.certify_in(&folder, "other.example", "other.example", &["other.example"]);
    let path = |name: &str| folder.join(name).display().to_string();
    let sni = format!("other.example={},{}", path("other.example.pem"), path("other.example.key"));
    let (server, port) = serve_tls(&folder, &authority, &["--tls-sni", &sni, "--hubs", hubs]);
    run(move || {
        let connector = trusting(&authority).build().unwrap();
        let standing = greet(&connector, "localhost", port).unwrap();
        let first = shown(&standing);
        assert_ne!(shown(&greet(&connector, "other.example", port).unwrap()), first);
        let unknown = trusting(&Authority::new("nobody")).build().unwrap();
        assert!(greet(&unknown, "localhost", port).is_err());
        // Nobody has to be told of new files.
        authority.certify_in(&folder, "localhost", "localhost", &["localhost"]);
        let renewed = || shown(&greet(&connector, "localhost", port).unwrap());
        wait_until(|| renewed() != first);
        // Files that are wrong change nothing, and a signal is no end.
        let second = renewed();
        fs::write(folder.join("localhost.pem"), "no certificate").unwrap();
        server.signal(Signal::HUP);
        for _ in 0..20 {
            assert_eq!(renewed(), second);
        }
        authority.certify_in(&folder, "localhost", "localhost", &["localhost"]);
        server.signal(Signal::HUP);
        wait_until(|| renewed() != second);
        drop(standing);
    });
}

#[test]
fn clients_show_certificates_where_they_have_to() {
    let kept = tempfile::tempdir().unwrap();
    let folder = kept.path().to_owned();
    let (authority, ca) = authority_in(&folder);
    let (_server, port) =
        serve_tls(&folder, &authority, &["--tls-ca", &ca, "--tls-fail-if-no-peer-cert"]);
    run(move || {
        let (chain, key) = authority.certify("client", &[]);
        let known = trusting(&authority).identity_pem(&chain, &key).build().unwrap();
        greet(&known, "localhost", port).unwrap();
        let silent = trusting(&authority).build().unwrap();
        assert!(greet(&silent, "localhost", port).is_err(), "without a certificate");
        let (chain, key) = Authority::new("nobody").certify("client", &[]);
        let foreign = trusting(&authority).identity_pem(&chain, &key).build().unwrap();
        assert!(greet(&foreign, "localhost", port).is_err(), "of another authority");
    });
}

#[test]
fn revoked_certificates_are_refused_from_when_the_list_says_so() {
    let kept = tempfile::tempdir().unwrap();
    let folder = kept.path().to_owned();
    let (authority, ca) = authority_in(&folder);
    let lists = folder.join("revoked.pem");
    fs::write(&lists, authority.revoke(&[7], 4000)).unwrap();
    let crl = lists.display().to_string();
    let (server, port) = serve_tls(&folder, &authority, &["--tls-ca", &ca, "--tls-crl", &crl]);
    run(move || {
        let of = |number| {
            let (chain, key) = authority.certify_numbered(Some(number), "client", &[]);
            trusting(&authority).identity_pem(&chain, &key).build().unwrap()
        };
        let (revoked, good) = (of(7), of(8));
        let passes = |connector: &Connector| greet(connector, "localhost", port).is_ok();
        assert!(!passes(&revoked));
        assert!(passes(&good));
        assert!(passes(&trusting(&authority).build().unwrap()), "shows none");
        fs::write(&lists, authority.revoke(&[8], 4000)).unwrap();
        server.signal(Signal::HUP);
        wait_until(|| !passes(&good));
        assert!(passes(&revoked), "it is on the list no more");
        fs::write(&lists, authority.revoke(&[], 2021)).unwrap();
        server.signal(Signal::HUP);
        // Nobody knows what a list that is out of date does not tell.
        wait_until(|| !passes(&revoked));
        assert!(!passes(&good));
    });
}

/// Logs in by EXTERNAL. `Ok` when the server goes on, else its text.
fn log_in_by_certificate(connector: &Connector, port: u16) -> Result<(), String> {
    let mut stream =
        connector.connect("localhost", TcpStream::connect(("127.0.0.1", port)).unwrap()).unwrap();
    stream.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
    let mut reader = FrameReader::new(0);
    let capabilities = FieldTable::new().with("authentication_failure_close", true);
    let client_properties = FieldTable::new().with("capabilities", capabilities);
    let mechanism = "EXTERNAL";
    loop {
        let mut data = [0; 4096];
        let count = stream.read(&mut data).unwrap();
        assert_ne!(count, 0, "the server has gone");
        let mut data = &data[..count];
        let Some(Frame::Method { payload, .. }) = reader.next_frame(&mut data).unwrap() else {
            continue;
        };
        match Method::decode(payload).unwrap() {
            Method::ConnectionStart(start) => {
                let offered = String::from_utf8_lossy(start.mechanisms).into_owned();
                assert_eq!(offered, "PLAIN EXTERNAL");
                let start_ok = connection::StartOk {
                    client_properties: client_properties.clone(),
                    mechanism,
                    ..Default::default()
                };
                let mut out = Vec::new();
                frame::write_method(&mut out, 0, &start_ok);
                stream.write_all(&out).unwrap();
            }
            Method::ConnectionTune(_) => return Ok(()),
            Method::ConnectionClose(close) => return Err(close.reply_text.to_owned()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_certificate_says_who_its_client_is() {
    let kept = tempfile::tempdir().unwrap();
    let folder = kept.path().to_owned();
    let (authority, ca) = authority_in(&folder);
    for (from, ann) in [
        (&[][..], "CN=ann,O=Acme\\, Inc."),
        (&["--hubs", "2"], "CN=ann,O=Acme\\, Inc."),
        (&["--tls-cert-login-from", "common_name"], "ann"),
        (&["--tls-cert-login-from", "subject_alternative_name"], "ann"),
    ] {
        let more = ["--tls-ca", &ca, "--auth-mechanisms", "PLAIN,EXTERNAL"];
        let (_server, port) = serve_tls(&folder, &authority, &[&more, from].concat());
        let data = folder.join("data");
        ctl(&data, &["add_user", ann, "unused"]);
        let certified = |name: &str| {
            let (chain, key) = authority.certify(name, &[name]);
            trusting(&authority).identity_pem(&chain, &key).build().unwrap()
        };
        let (ann, bob) = (certified("ann"), certified("bob"));
        let silent = trusting(&authority).build().unwrap();
        run(move || {
            assert_eq!(log_in_by_certificate(&ann, port), Ok(()));
            let refused = "ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL. For details see the broker logfile.";
            assert_eq!(log_in_by_certificate(&bob, port), Err(refused.into()));
            assert_eq!(log_in_by_certificate(&silent, port), Err(refused.into()));
        });
        fs::remove_dir_all(&data).unwrap();
    }
}

/// Forwards connections as a proxy does, which says `header` first. Its port.
fn proxy(to: u16, header: &'static [u8]) -> u16 {
    use std::net::{TcpListener, TcpStream};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    };
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)) else { return };
            if server.write_all(header).is_err() {
                return;
            }
            copy(client.try_clone().unwrap(), server.try_clone().unwrap());
            copy(server, client);
        }
    });
    port
}

const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 4242 5672\r\n";

#[test]
fn behind_a_proxy_the_real_peer_counts() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_owned();
    // The header is read on another hub.
    let listen = ["--listen", "amqp://127.0.0.1:0?proxy_protocol=true", "--hubs", "2"];
    let (_server, url) = serve(&data, &listen);
    let port: u16 = url.strip_prefix("amqp://127.0.0.1:").unwrap().parse().unwrap();
    ctl(&data, &["add_user", "ann", "secret"]);
    ctl(&data, &["set_permissions", "ann", ".*", ".*", ".*"]);
    run(move || {
        let through = proxy(port, LINE);
        // Guest would have to come from this machine, and so does the proxy alone.
        let error = Connection::open(&format!("amqp://127.0.0.1:{through}")).unwrap_err();
        assert!(error.to_string().contains("ACCESS_REFUSED"), "{error}");
        let ann = Connection::open(&format!("amqp://ann:secret@127.0.0.1:{through}")).unwrap();
        let rows =
            ctl(&data, &["list_connections", "user", "name", "peer_host", "peer_port", "port"]);
        assert!(rows.contains("ann\t203.0.113.7:4242\t203.0.113.7\t4242\t5672"), "{rows}");
        ann.close().unwrap();
        // A proxy that speaks for itself.
        let itself = proxy(port, b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0");
        Connection::open(&format!("amqp://127.0.0.1:{itself}")).unwrap().close().unwrap();
        // Without a header nobody is served.
        Connection::open(&url).unwrap_err();
    });
}

#[test]
fn a_proxy_speaks_before_tls_does() {
    let kept = tempfile::tempdir().unwrap();
    let folder = kept.path().to_owned();
    let authority = Authority::new("authority");
    authority.certify_in(&folder, "localhost", "localhost", &["localhost"]);
    let path = |name: &str| folder.join(name).display().to_string();
    let (cert, key) = (path("localhost.pem"), path("localhost.key"));
    let listen = "amqps://127.0.0.1:0?proxy_protocol=127.0.0.0/8";
    let settings = ["--listen", listen, "--tls-cert", &cert, "--tls-key", &key];
    let (_server, url) = serve(&folder.join("data"), &settings);
    let port: u16 = url.strip_prefix("amqps://127.0.0.1:").unwrap().parse().unwrap();
    run(move || {
        let connector = trusting(&authority).build().unwrap();
        greet(&connector, "localhost", proxy(port, LINE)).unwrap();
        assert!(greet(&connector, "localhost", port).is_err(), "this machine is a proxy's");
    });
}
