//! rustls, as written for blocking sockets, on both sides.

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};
use warren_hub::net::{TcpListener, TcpStream};
use warren_hub::{join_all, run, spawn};

use super::noise;

fn configs() -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

#[test]
fn many_clients_talk_tls_at_once() {
    run(|| {
        let (server, client) = configs();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let accepting = spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(server.clone()).unwrap();
                spawn(move || {
                    let mut stream = StreamOwned::new(connection, stream);
                    let mut size = [0; 4];
                    stream.read_exact(&mut size).unwrap();
                    let mut data = vec![0; u32::from_be_bytes(size) as usize];
                    stream.read_exact(&mut data).unwrap();
                    stream.write_all(&data).unwrap();
                    stream.conn.send_close_notify();
                    stream.flush().unwrap();
                });
            }
        });
        let clients = (0..8).map(|number| {
            let client = client.clone();
            spawn(move || {
                let name = ServerName::try_from("localhost").unwrap();
                let connection = ClientConnection::new(client, name).unwrap();
                let stream = TcpStream::connect(addr).unwrap();
                let mut stream = StreamOwned::new(connection, stream);
                let sent = noise(100_000 + number);
                stream.write_all(&(sent.len() as u32).to_be_bytes()).unwrap();
                stream.write_all(&sent).unwrap();
                let mut got = Vec::new();
                stream.read_to_end(&mut got).unwrap();
                assert!(sent == got);
            })
        });
        for ended in join_all(clients) {
            ended.unwrap();
        }
        accepting.kill();
    });
}

#[test]
fn a_client_that_does_not_trust_the_certificate_says_so() {
    run(|| {
        let (server, _) = configs();
        let (_, client) = configs();
        let (one, other) = super::connected();
        let serving = spawn(move || {
            let connection = ServerConnection::new(server).unwrap();
            let mut stream = StreamOwned::new(connection, one);
            stream.read(&mut [0; 1]).unwrap_err()
        });
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(client, name).unwrap();
        let refused = StreamOwned::new(connection, other).write_all(b"x").unwrap_err();
        assert!(refused.to_string().contains("certificate"), "{refused}");
        assert!(serving.join().unwrap().to_string().contains("alert"));
    });
}
