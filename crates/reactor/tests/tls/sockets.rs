//! Over sockets: the reactor with itself, and with the hub's streams.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::net::tls::{Acceptor, Connector};
use warren_hub::net::{TcpListener, TcpStream};
use warren_hub::{run, sleep, spawn, with_timeout};
use warren_reactor::tls::{connect_ssl, listen_ssl, options_for_client_tls};
use warren_reactor::{
    ClientFactory, Factory, ListeningPort, PeerAddr, Protocol, Reason, Transport, connect_tcp,
    listen_tcp,
};

use crate::support::{Heard, Notes, certificate, identity, options};

pub(crate) fn ip(port: &ListeningPort) -> SocketAddr {
    match port.addr() {
        PeerAddr::Tcp(addr) => *addr,
        other => panic!("no TCP: {other}"),
    }
}

pub(crate) fn localhost() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Lets the loop turn until it is so.
pub(crate) fn until(is_so: impl Fn() -> bool) {
    let waited = with_timeout(Duration::from_secs(60), || {
        while !is_so() {
            sleep(Duration::from_millis(1));
        }
    });
    assert!(waited.is_ok(), "it never came about");
}

/// A factory of protocols that all note in one place.
pub(crate) fn noting<F: Fn(&mut Notes) + 'static>(
    heard: &Heard,
    change: F,
) -> Box<impl ClientFactory + use<F>> {
    let heard = heard.clone();
    Box::new(move |_: &PeerAddr| {
        let mut notes = Notes::new(&heard);
        change(&mut notes);
        Some(Box::new(notes) as Box<dyn Protocol>)
    })
}

#[test]
fn much_flows_in_both_directions() {
    run(|| {
        let (server, client) = options();
        let (at_server, at_client) = (Heard::default(), Heard::default());
        let port =
            listen_ssl(localhost(), noting(&at_server, |notes| notes.echoes = true), &server);
        let port = port.unwrap();
        let bytes: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
        let sent = bytes.clone();
        let factory = noting(&at_client, move |notes| notes.writes = sent.clone());
        connect_ssl(ip(&port), factory, &client);
        until(|| at_client.data().len() == bytes.len());
        assert!(at_client.data() == bytes && at_server.data() == bytes);
        at_client.transport().lose_connection();
        until(|| at_server.has("closed by the peer") && at_client.has("closed here"));
    });
}

#[test]
fn the_hubs_streams_and_the_reactor_understand_each_other() {
    run(|| {
        let identity = identity("localhost");
        let server = certificate(&identity).build().unwrap();
        let heard = Heard::default();
        let port = listen_ssl(localhost(), noting(&heard, |notes| notes.echoes = true), &server);
        let port = port.unwrap();
        let connector = Connector::builder().roots_pem(&identity.root).build().unwrap();
        let stream = TcpStream::connect(ip(&port)).unwrap();
        let stream = connector.connect("localhost", stream).unwrap();
        (&stream).write_all(b"from a fiber").unwrap();
        stream.close().unwrap();
        let mut text = String::new();
        (&stream).read_to_string(&mut text).unwrap();
        assert_eq!(text, "from a fiber");

        let acceptor = Acceptor::builder().identity_pem(&identity.chain, &identity.key);
        let acceptor = acceptor.build().unwrap();
        let listener = TcpListener::bind(localhost()).unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = spawn(move || {
            let mut stream = acceptor.accept(listener.accept().unwrap().0).unwrap();
            let mut text = [0; 5];
            stream.read_exact(&mut text).unwrap();
            stream.write_all(&text).unwrap();
            stream.close().unwrap();
            stream.read(&mut text).unwrap()
        });
        let client = options_for_client_tls("localhost").roots(&identity.root).build().unwrap();
        let heard = Heard::default();
        connect_ssl(addr, noting(&heard, |notes| notes.writes = b"hello".to_vec()), &client);
        until(|| heard.has("closed by the peer"));
        assert_eq!(heard.data(), b"hello");
        assert_eq!(serving.join().unwrap(), 0, "the client said farewell too");
    });
}

/// Notes how its connections end.
struct Losses(Rc<RefCell<Vec<String>>>, Heard);

impl Factory for Losses {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        Some(Box::new(Notes::new(&self.1)))
    }
}

impl ClientFactory for Losses {
    fn client_connection_lost(&mut self, _: &warren_reactor::Connector, reason: &Reason) {
        self.0.borrow_mut().push(reason.to_string());
    }
}

#[test]
fn a_client_factory_hears_why_the_handshake_failed() {
    run(|| {
        let (server, _) = options();
        let (_, stranger) = options();
        let heard = Heard::default();
        let port = listen_ssl(localhost(), noting(&heard, |_| {}), &server).unwrap();
        let (losses, at_client) = (Rc::default(), Heard::default());
        let factory = Losses(Rc::clone(&losses), at_client.clone());
        connect_ssl(ip(&port), Box::new(factory), &stranger);
        until(|| !losses.borrow().is_empty() && !heard.events().is_empty());
        assert!(losses.borrow()[0].contains("no trusted authority"), "{losses:?}");
        assert!(heard.last().contains("does not trust"), "{}", heard.last());
        assert!(!at_client.has("handshake"));
    });
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    run(|| {
        let server = certificate(&identity("localhost"));
        let server = server.handshake_timeout(Some(Duration::from_millis(20))).build().unwrap();
        let heard = Heard::default();
        let port = listen_ssl(localhost(), noting(&heard, |_| {}), &server).unwrap();
        let mut silent = TcpStream::connect(ip(&port)).unwrap();
        assert_eq!(silent.read(&mut [0; 9]).unwrap(), 0);
        until(|| heard.last().starts_with("TimedOut"));
    });
}

/// Starts TLS when the other side wants it to, or has agreed.
struct Upgrades<O> {
    notes: Notes,
    options: Option<O>,
    asks: bool,
}

impl<O: warren_reactor::tls::TlsOptions> Protocol for Upgrades<O> {
    fn connection_made(&mut self, transport: &Transport) {
        self.notes.connection_made(transport);
        if self.asks {
            transport.write(b"STARTTLS\n");
        }
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let Some(options) = self.options.take() else {
            return self.notes.data_received(transport, data);
        };
        let line = data.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        if !self.asks {
            transport.write(b"GO\n");
        }
        transport.start_tls(&options, &data[line..]).unwrap();
        transport.write(if self.asks { b"question" } else { b"welcome " });
    }

    fn handshake_completed(&mut self, transport: &Transport) {
        self.notes.handshake_completed(transport);
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.notes.connection_lost(reason);
    }
}

#[test]
fn a_connection_in_the_clear_becomes_a_secret_one() {
    run(|| {
        let (server, client) = options();
        let (at_server, at_client) = (Heard::default(), Heard::default());
        let (heard, options) = (at_server.clone(), server);
        let accept = move |_: &PeerAddr| {
            let mut notes = Notes::new(&heard);
            notes.echoes = true;
            let options = Some(options.clone());
            Some(Box::new(Upgrades { notes, options, asks: false }) as Box<dyn Protocol>)
        };
        let port = listen_tcp(localhost(), Box::new(accept)).unwrap();
        let heard = at_client.clone();
        let connect = move |_: &PeerAddr| {
            let notes = Notes::new(&heard);
            let options = Some(client.clone());
            Some(Box::new(Upgrades { notes, options, asks: true }) as Box<dyn Protocol>)
        };
        connect_tcp(ip(&port), Box::new(connect));
        until(|| at_client.data() == b"welcome question");
        assert_eq!(at_server.data(), b"question");
        assert!(at_server.transport().tls_info().is_some());
        at_server.transport().lose_connection();
        until(|| at_client.has("closed by the peer"));
    });
}
