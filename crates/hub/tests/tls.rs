//! TLS between fibers, with rustls' own client on a thread, and with openssl's programs where they are installed.
#![cfg(feature = "tls")]

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use warren_hub::net::tls::rustls;
use warren_hub::net::tls::{
    Acceptor, AcceptorBuilder, ClientAuth, Connector, TlsStream, TlsVersion,
};
use warren_hub::net::{Duplex, TcpListener, TcpStream, UnixStream};
use warren_hub::{JoinError, join_all, offload, run, spawn, yield_now};

const SHORT: Duration = Duration::from_millis(20);

/// An authority, and a certificate and key that it vouches for.
#[derive(Clone)]
struct Pem {
    root: String,
    chain: String,
    key: String,
}

fn identity(name: &str) -> Pem {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    // No two authorities have the same name.
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    params.distinguished_name.push(DnType::CommonName, format!("authority {number}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let certificate = made.signed_by(&key, &authority).unwrap();
    Pem { root: authority.pem(), chain: certificate.pem(), key: key.serialize_pem() }
}

fn acceptor(pem: &Pem) -> AcceptorBuilder {
    Acceptor::builder().identity_pem(&pem.chain, &pem.key)
}

fn connector(pem: &Pem) -> Connector {
    Connector::builder().roots_pem(&pem.root).build().unwrap()
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

type Ends<S> = (io::Result<TlsStream<S>>, io::Result<TlsStream<S>>);

/// Makes the handshake on both ends: the client's and the server's.
fn shake<S: Duplex + 'static>(
    ends: (S, S),
    connector: &Connector,
    acceptor: &Acceptor,
    host: &str,
) -> Ends<S> {
    let acceptor = acceptor.clone();
    let (client, server) = ends;
    let server = spawn(move || acceptor.accept(server));
    let client = connector.connect(host, client);
    (client, server.join().unwrap())
}

fn pair(pem: &Pem) -> (TlsStream, TlsStream) {
    let acceptor = acceptor(pem).build().unwrap();
    let (client, server) = shake(tcp_pair(), &connector(pem), &acceptor, "localhost");
    (client.unwrap(), server.unwrap())
}

#[test]
fn both_directions_flow_at_once() {
    run(|| {
        let (client, server) = pair(&identity("localhost"));
        let bytes = |seed: u32| -> Vec<u8> {
            (0..1_500_000u32).map(|n| ((n ^ seed) % 251) as u8).collect()
        };
        let ends = [(client, 1, 2), (server, 2, 1)].map(|(stream, sends, receives)| {
            let stream = Rc::new(stream);
            let writer = spawn({
                let stream = stream.clone();
                move || {
                    (&*stream).write_all(&bytes(sends)).unwrap();
                    stream.close().unwrap();
                }
            });
            let reader = spawn(move || {
                let mut got = Vec::new();
                (&*stream).read_to_end(&mut got).unwrap();
                assert!(got == bytes(receives));
            });
            [writer, reader]
        });
        for result in join_all(ends.into_iter().flatten()) {
            result.unwrap();
        }
    });
}

#[test]
fn a_reader_that_waits_keeps_no_writer_waiting() {
    run(|| {
        let (client, server) = pair(&identity("localhost"));
        let (mut reader, mut writer) = client.into_split();
        let reading = spawn(move || {
            let mut answer = [0; 4];
            reader.read_exact(&mut answer).map(|()| answer)
        });
        yield_now();
        writer.write_all(b"ping").unwrap();
        let mut request = [0; 4];
        (&server).read_exact(&mut request).unwrap();
        assert_eq!(&request, b"ping");
        (&server).write_all(b"pong").unwrap();
        assert_eq!(&reading.join().unwrap().unwrap(), b"pong");
        // The half that is dropped says so to the peer.
        drop(writer);
        assert_eq!((&server).read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn the_certificate_is_chosen_by_the_name_asked_for() {
    run(|| {
        let (main, wild) = (identity("localhost"), identity("*.example.org"));
        let acceptor = acceptor(&main).identity_pem_for("*.Example.org", &wild.chain, &wild.key);
        let acceptor = acceptor.build().unwrap();
        let check = |pem: &Pem, host: &str, good: bool| {
            let (client, _) = shake(tcp_pair(), &connector(pem), &acceptor, host);
            assert_eq!(client.is_ok(), good, "{host}");
        };
        check(&main, "localhost", true);
        check(&wild, "a.example.org", true);
        check(&wild, "A.EXAMPLE.ORG", true);
        // One label only, and not none; the main certificate is not made out to these.
        check(&main, "b.a.example.org", false);
        check(&main, "example.org", false);
        check(&main, "127.0.0.1", true);
    });
}

#[test]
fn the_oldest_version_can_be_chosen() {
    run(|| {
        let pem = identity("localhost");
        let old = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        let made = rustls::pki_types::CertificateDer::pem_slice_iter(pem.root.as_bytes());
        roots.add_parsable_certificates(made.map(Result::unwrap));
        let old = old.with_root_certificates(roots).with_no_client_auth();
        let old = Connector::new(Arc::new(old));
        let acceptor_12 = acceptor(&pem).build().unwrap();
        let (client, _) = shake(tcp_pair(), &old, &acceptor_12, "localhost");
        assert_eq!(client.unwrap().protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
        let acceptor_13 = acceptor(&pem).min_version(TlsVersion::Tls13).build().unwrap();
        let (client, server) = shake(tcp_pair(), &old, &acceptor_13, "localhost");
        let told = client.unwrap_err().to_string();
        assert!(told.contains("no version, cipher or algorithm in common"), "{told}");
        assert!(server.is_err());
    });
}

#[test]
fn what_was_agreed_can_be_asked_for() {
    run(|| {
        let pem = identity("localhost");
        let acceptor = acceptor(&pem).alpn(&["warren", "other"]).build().unwrap();
        let offers =
            |names: &[&str]| Connector::builder().roots_pem(&pem.root).alpn(names).build().unwrap();
        let connector = offers(&["none", "other"]);
        let (client, server) = shake(tcp_pair(), &connector, &acceptor, "localhost");
        let (client, server) = (client.unwrap(), server.unwrap());
        assert_eq!(client.alpn_protocol().as_deref(), Some(&b"other"[..]));
        assert_eq!(server.alpn_protocol(), client.alpn_protocol());
        assert_eq!(server.server_name().as_deref(), Some("localhost"));
        assert_eq!(client.peer_certificates().unwrap().len(), 1);
        assert_eq!(server.peer_certificates(), None);
        assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
        assert!(server.session(|session| session.negotiated_cipher_suite().is_some()));
        assert!(client.get_ref().peer_addr().is_ok());
        // Nothing in common.
        let (client, server) = shake(tcp_pair(), &offers(&["strange"]), &acceptor, "localhost");
        assert_eq!(client.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(server.unwrap_err().kind(), io::ErrorKind::InvalidData);
        // Nothing offered.
        let (client, _server) = shake(tcp_pair(), &offers(&[]), &acceptor, "localhost");
        assert_eq!(client.unwrap().alpn_protocol(), None);
    });
}

#[test]
fn certificates_must_be_trusted_and_made_out_to_the_host() {
    run(|| {
        let (pem, stranger) = (identity("localhost"), identity("localhost"));
        let acceptor = acceptor(&pem).build().unwrap();
        let (client, server) = shake(tcp_pair(), &connector(&stranger), &acceptor, "localhost");
        assert!(client.unwrap_err().to_string().contains("UnknownIssuer"));
        assert!(server.unwrap_err().to_string().contains("alert"), "the server was told");
        let (client, _server) = shake(tcp_pair(), &connector(&pem), &acceptor, "elsewhere");
        assert_eq!(client.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (client, _server) = shake(tcp_pair(), &connector(&pem), &acceptor, "127.0.0.1");
        assert!(client.is_ok(), "an address may stand in a certificate");
        let error = connector(&pem).connect("no name", tcp_pair().0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn a_client_may_trust_anybody_and_name_nobody() {
    run(|| {
        let pem = identity("localhost");
        let acceptor = acceptor(&pem).build().unwrap();
        for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
            let careless = Connector::builder().verify(false).min_version(version);
            let careless = careless.send_server_name(false).build().unwrap();
            let (client, server) = shake(tcp_pair(), &careless, &acceptor, "elsewhere");
            assert_eq!(client.unwrap().peer_certificates().unwrap().len(), 1);
            assert_eq!(server.unwrap().server_name(), None);
        }
    });
}

#[test]
fn clients_may_have_to_show_a_certificate() {
    run(|| {
        let (pem, member) = (identity("localhost"), identity("member"));
        let known = Connector::builder()
            .roots_pem(&pem.root)
            .identity_pem(&member.chain, &member.key)
            .build()
            .unwrap();
        for auth in [ClientAuth::Required, ClientAuth::Optional] {
            let acceptor = acceptor(&pem).client_roots_pem(&member.root, auth).build().unwrap();
            let (client, server) = shake(tcp_pair(), &known, &acceptor, "localhost");
            client.unwrap();
            assert_eq!(server.unwrap().peer_certificates().unwrap().len(), 1);
            let (client, server) = shake(tcp_pair(), &connector(&pem), &acceptor, "localhost");
            assert_eq!(server.is_ok(), auth == ClientAuth::Optional);
            // In TLS 1.3 the client hears of it with its first read only.
            let read = client.and_then(|client| {
                drop(server);
                (&client).read(&mut [0])
            });
            assert!(read.is_err());
        }
    });
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let (one, other) = (identity("localhost"), identity("localhost"));
    let refused = |builder: AcceptorBuilder| {
        assert_eq!(builder.build().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    };
    refused(Acceptor::builder());
    refused(Acceptor::builder().identity_pem("", &one.key));
    refused(Acceptor::builder().identity_pem(&one.chain, "no key"));
    refused(Acceptor::builder().identity_pem(&one.chain, &other.key));
    let connector = Connector::builder().roots_pem("nothing").build();
    assert_eq!(connector.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert!(!format!("{:?}", acceptor(&one)).contains("PRIVATE"));
}

#[test]
fn a_handshake_has_its_time_and_must_be_one() {
    run(|| {
        let pem = identity("localhost");
        let acceptor = acceptor(&pem).handshake_timeout(Some(SHORT)).build().unwrap();
        let (silent, server) = tcp_pair();
        assert_eq!(acceptor.accept(server).unwrap_err().kind(), io::ErrorKind::TimedOut);
        drop(silent);
        let (mut rude, server) = tcp_pair();
        rude.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(acceptor.accept(server).unwrap_err().kind(), io::ErrorKind::InvalidData);
        // It was answered by an alert.
        let mut answer = Vec::new();
        rude.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.first(), Some(&21));
        let (gone, server) = tcp_pair();
        drop(gone);
        assert_eq!(acceptor.accept(server).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_handshake_can_be_killed() {
    run(|| {
        let pem = identity("localhost");
        let acceptor = acceptor(&pem).build().unwrap();
        let (mut client, server) = tcp_pair();
        let shaking = spawn(move || acceptor.accept(server));
        yield_now();
        shaking.kill();
        assert!(matches!(shaking.join(), Err(JoinError::Killed)));
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "its socket was closed");
        let (client, mut server) = tcp_pair();
        let connector = connector(&pem);
        let shaking = spawn(move || connector.connect("localhost", client));
        // Within the handshake: it has sent its greeting.
        server.read_exact(&mut [0; 16]).unwrap();
        shaking.kill();
        assert!(matches!(shaking.join(), Err(JoinError::Killed)));
    });
}

#[test]
fn an_end_that_was_not_said_is_a_truncation() {
    run(|| {
        let pem = identity("localhost");
        let (client, server) = pair(&pem);
        (&server).write_all(b"all of it").unwrap();
        server.close().unwrap();
        let mut text = String::new();
        (&client).read_to_string(&mut text).unwrap();
        assert_eq!(text, "all of it");
        // The other direction goes on.
        (&client).write_all(b"more").unwrap();
        assert_eq!((&server).read(&mut [0; 8]).unwrap(), 4);

        let (client, server) = pair(&pem);
        (&server).write_all(b"half of").unwrap();
        drop(server);
        let error = (&client).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn waits_can_be_killed_and_time_out_without_harm() {
    run(|| {
        let (client, server) = pair(&identity("localhost"));
        let client = Rc::new(client);
        let reading = spawn({
            let client = client.clone();
            move || (&*client).read(&mut [0])
        });
        yield_now();
        reading.kill();
        assert!(matches!(reading.join(), Err(JoinError::Killed)));
        client.get_ref().set_read_timeout(Some(SHORT));
        assert_eq!((&*client).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::TimedOut);
        client.get_ref().set_read_timeout(None);
        (&server).write_all(b"x").unwrap();
        assert_eq!((&*client).read(&mut [0]).unwrap(), 1);
        // A writer without a reader: repeats what was not accepted, and nothing comes twice.
        client.get_ref().set_write_timeout(Some(SHORT));
        let mut sent = 0u32;
        let mut refusals = 0;
        while refusals < 3 {
            match (&*client).write(&sent.to_le_bytes().repeat(4000)) {
                Ok(count) => {
                    assert_eq!(count, 16_000);
                    sent += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                    refusals += 1;
                }
            }
        }
        client.get_ref().set_write_timeout(None);
        let reading = spawn(move || {
            let mut got = Vec::new();
            (&server).read_to_end(&mut got).unwrap();
            got
        });
        client.close().unwrap();
        let expected: Vec<u8> = (0..sent).flat_map(|n| n.to_le_bytes().repeat(4000)).collect();
        assert!(reading.join().unwrap() == expected);
    });
}

#[test]
fn a_killed_writer_leaves_whole_records() {
    run(|| {
        let (client, server) = pair(&identity("localhost"));
        let client = Rc::new(client);
        let writing = spawn({
            let client = client.clone();
            move || (&*client).write_all(&[7; 20_000_000])
        });
        yield_now();
        writing.kill();
        assert!(matches!(writing.join(), Err(JoinError::Killed)));
        let reading = spawn(move || io::copy(&mut &server, &mut io::sink()));
        (&*client).write_all(b"after it").unwrap();
        client.close().unwrap();
        assert!(reading.join().unwrap().unwrap() > 8);
    });
}

#[test]
fn many_fibers_write_and_read_in_turn() {
    run(|| {
        let (client, server) = pair(&identity("localhost"));
        let (client, server) = (Rc::new(client), Rc::new(server));
        let writers: Vec<_> = (0..8u8)
            .map(|n| {
                let client = client.clone();
                spawn(move || (0..20).for_each(|_| (&*client).write_all(&[n]).unwrap()))
            })
            .collect();
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let server = server.clone();
                spawn(move || {
                    let mut bytes = vec![0; 40];
                    (&*server).read_exact(&mut bytes).unwrap();
                    bytes
                })
            })
            .collect();
        join_all(writers);
        let mut all: Vec<u8> =
            join_all(readers).into_iter().flat_map(|bytes| bytes.unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, (0..8).flat_map(|n| [n; 20]).collect::<Vec<u8>>());
    });
}

#[test]
fn any_stream_will_do() {
    run(|| {
        let pem = identity("localhost");
        let acceptor = acceptor(&pem).build().unwrap();
        let ends = UnixStream::pair().unwrap();
        let (client, server) = shake(ends, &connector(&pem), &acceptor, "localhost");
        // And one in another.
        let ends = (client.unwrap(), server.unwrap());
        let (client, server) = shake(ends, &connector(&pem), &acceptor, "localhost");
        let (client, server) = (client.unwrap(), server.unwrap());
        (&client).write_all(b"deep").unwrap();
        assert_eq!((&server).read(&mut [0; 8]).unwrap(), 4);
    });
}

/// Echoes what one client sends.
fn serve_one(acceptor: Acceptor) -> (std::net::SocketAddr, warren_hub::JoinHandle<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = spawn(move || {
        let stream = acceptor.accept(listener.accept().unwrap().0).unwrap();
        let count = io::copy(&mut &stream, &mut &stream).unwrap();
        stream.close().unwrap();
        count
    });
    (addr, serving)
}

#[test]
fn a_client_of_rustls_on_a_thread_is_served() {
    run(|| {
        let pem = identity("localhost");
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let (addr, serving) = serve_one(acceptor(&pem).build().unwrap());
            let root = pem.root.clone();
            offload(move || {
                use rustls::pki_types::{CertificateDer, pem::PemObject};
                let mut roots = rustls::RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = rustls::ClientConfig::builder_with_provider(provider)
                    .with_protocol_versions(&[version])
                    .unwrap()
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                let name = "localhost".try_into().unwrap();
                let session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
                let socket = std::net::TcpStream::connect(addr).unwrap();
                let mut stream = rustls::StreamOwned::new(session, socket);
                stream.write_all(b"from a thread").unwrap();
                let mut answer = [0; 13];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(&answer, b"from a thread");
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            });
            assert_eq!(serving.join().unwrap(), 13);
        }
    });
}

fn has_openssl() -> bool {
    Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_ok()
}

#[test]
fn openssl_is_served() {
    if !has_openssl() {
        return;
    }
    run(|| {
        let pem = identity("localhost");
        let (addr, serving) = serve_one(acceptor(&pem).build().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root.pem");
        std::fs::write(&root, &pem.root).unwrap();
        let text = offload(move || {
            let mut client = Command::new("openssl")
                .args(["s_client", "-quiet", "-verify_return_error", "-servername", "localhost"])
                .arg("-connect")
                .arg(addr.to_string())
                .arg("-CAfile")
                .arg(root)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            client.stdin.take().unwrap().write_all(b"from openssl\n").unwrap();
            let mut text = vec![0; 13];
            client.stdout.take().unwrap().read_exact(&mut text).unwrap();
            client.kill().unwrap();
            client.wait().unwrap();
            text
        });
        assert_eq!(text, b"from openssl\n");
        // Killed, it says no goodbye: the copy above fails, which is a panic of that fiber.
        let _ = serving.join();
    });
}

#[test]
fn openssl_serves_us() {
    if !has_openssl() {
        return;
    }
    run(|| {
        let pem = identity("localhost");
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("chain.pem"), &pem.chain).unwrap();
        std::fs::write(path("key.pem"), &pem.key).unwrap();
        let mut server = Command::new("openssl")
            // Answers each line reversed.
            .args(["s_server", "-rev", "-naccept", "1", "-accept", "127.0.0.1:0"])
            .arg("-cert")
            .arg(path("chain.pem"))
            .arg("-key")
            .arg(path("key.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = io::BufReader::new(server.stdout.take().unwrap());
        let addr = offload(move || {
            let lines = io::BufRead::lines(output);
            let line = lines.map(Result::unwrap).find(|line| line.starts_with("ACCEPT"));
            line.unwrap().split(' ').nth(1).unwrap().to_owned()
        });
        let stream = TcpStream::connect(addr.as_str()).unwrap();
        let stream = connector(&pem).connect("localhost", stream).unwrap();
        (&stream).write_all(b"hello\n").unwrap();
        let mut answer = [0; 6];
        (&stream).read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"olleh\n");
        stream.close().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    });
}
