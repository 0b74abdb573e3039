//! Connections that are lost and made again, on real sockets.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::run;
use warren_hub::sync::Event;
use warren_reactor::{
    ClientFactory, Connector, ConnectorState, Factory, PeerAddr, Protocol, Reason, ReconnectPolicy,
    Reconnecting, ReconnectingClientFactory, Transport, connect_tcp, connect_unix, listen_tcp,
};

fn quick() -> ReconnectPolicy {
    let mut policy = ReconnectPolicy::default();
    policy.initial_delay = Duration::from_millis(1);
    policy.max_delay = Duration::from_millis(5);
    policy
}

fn localhost() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Closes the first connections, and keeps the others.
struct Server {
    close: bool,
}

impl Protocol for Server {
    fn connection_made(&mut self, transport: &Transport) {
        if self.close {
            transport.lose_connection();
        }
    }
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
    fn connection_lost(&mut self, _reason: &Reason) {}
}

fn server(closes: usize) -> (Box<dyn Factory>, Rc<Cell<usize>>) {
    let accepted = Rc::new(Cell::new(0));
    let count = accepted.clone();
    let factory = move |_: &PeerAddr| {
        count.set(count.get() + 1);
        Some(Box::new(Server { close: count.get() <= closes }) as Box<dyn Protocol>)
    };
    (Box::new(factory), accepted)
}

struct Client;

impl Protocol for Client {
    fn connection_made(&mut self, _transport: &Transport) {}
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
    fn connection_lost(&mut self, _reason: &Reason) {}
}

/// Notes what a client factory hears.
struct Notes {
    log: Rc<RefCell<Vec<&'static str>>>,
    /// Set when so many connections were made or refused.
    wanted: usize,
    done: Rc<Event>,
}

impl Notes {
    fn say(&self, what: &'static str) {
        self.log.borrow_mut().push(what);
        let count = self.log.borrow().iter().filter(|said| **said == what).count();
        if count == self.wanted && what != "lost" {
            self.done.set();
        }
    }
}

impl Factory for Notes {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        self.say("made");
        Some(Box::new(Client))
    }
}

impl ClientFactory for Notes {
    fn client_connection_failed(&mut self, _connector: &Connector, _reason: &Reason) {
        self.say("failed");
    }
    fn client_connection_lost(&mut self, _connector: &Connector, _reason: &Reason) {
        self.say("lost");
    }
}

struct Run {
    log: Rc<RefCell<Vec<&'static str>>>,
    done: Rc<Event>,
    connector: Connector,
    reconnecting: Reconnecting,
}

fn connect(addr: SocketAddr, wanted: usize, policy: ReconnectPolicy) -> Run {
    connect_by(wanted, policy, |factory| connect_tcp(addr, factory))
}

fn connect_by(
    wanted: usize,
    policy: ReconnectPolicy,
    connect: impl FnOnce(Box<dyn ClientFactory>) -> Connector,
) -> Run {
    let (log, done) = (Rc::default(), Rc::new(Event::new()));
    let notes = Notes { log: Rc::clone(&log), wanted, done: done.clone() };
    let factory = ReconnectingClientFactory::with_policy(notes, policy);
    let reconnecting = factory.handle();
    Run { log, done, connector: connect(Box::new(factory)), reconnecting }
}

#[test]
fn a_lost_connection_is_made_again() {
    run(|| {
        let (factory, accepted) = server(3);
        let port = listen_tcp(localhost(), factory).unwrap();
        let PeerAddr::Tcp(addr) = *port.addr() else { panic!("a TCP port") };
        let client = connect(addr, 4, quick());
        client.done.wait();
        assert_eq!(*client.log.borrow(), ["made", "lost", "made", "lost", "made", "lost", "made"]);
        assert_eq!(client.reconnecting.retries(), 3);
        client.reconnecting.reset_delay();
        assert_eq!(client.reconnecting.retries(), 0);
        assert!(accepted.get() >= 3);
        client.reconnecting.stop_trying();
        client.connector.disconnect();
        while client.connector.state() != ConnectorState::Disconnected {
            warren_hub::sleep(Duration::from_millis(1));
        }
        assert_eq!(client.log.borrow().last(), Some(&"lost"));
        assert!(!client.reconnecting.is_trying());
    });
}

#[test]
fn delays_begin_anew_when_a_connection_stands_if_asked_for() {
    run(|| {
        let (factory, _) = server(3);
        let port = listen_tcp(localhost(), factory).unwrap();
        let PeerAddr::Tcp(addr) = *port.addr() else { panic!("a TCP port") };
        let mut policy = quick();
        policy.reset_when_connected = true;
        policy.max_retries = Some(1);
        let client = connect(addr, 4, policy);
        client.done.wait();
        assert_eq!(client.reconnecting.retries(), 0);
        client.reconnecting.stop_trying();
    });
}

#[test]
fn too_many_attempts_end_it() {
    run(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut policy = quick();
        policy.max_retries = Some(2);
        let nobody = folder.path().join("nobody");
        let client = connect_by(3, policy, |factory| connect_unix(&nobody, factory).unwrap());
        client.done.wait();
        warren_hub::yield_now();
        assert_eq!(*client.log.borrow(), ["failed"; 3]);
        assert_eq!(client.connector.state(), ConnectorState::Disconnected);
        assert_eq!(client.reconnecting.retries(), 3);
    });
}

#[test]
fn nothing_is_left_of_a_client_whose_hub_has_ended() {
    let log = run(|| {
        let (factory, _) = server(0);
        let port = listen_tcp(localhost(), factory).unwrap();
        let PeerAddr::Tcp(addr) = *port.addr() else { panic!("a TCP port") };
        let client = connect(addr, 1, quick());
        client.done.wait();
        client.log
    });
    assert_eq!(Rc::strong_count(&log), 1);
}
