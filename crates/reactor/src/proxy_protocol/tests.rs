//! Connections through proxies, in memory.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::{ProxyFactory, ProxyOptions};
use crate::testing::{Clock, End, TestConnection, cut_everywhere};
use crate::{Factory, PeerAddr, Protocol, Reason, Transport};

/// Notes what it is told.
struct Notes(Rc<RefCell<Vec<String>>>);

impl Protocol for Notes {
    fn connection_made(&mut self, transport: &Transport) {
        self.0.borrow_mut().push(format!("{} -> {}", transport.peer(), transport.host()));
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        self.0.borrow_mut().push(String::from_utf8_lossy(data).into_owned());
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.0.borrow_mut().push(reason.to_string());
    }
}

fn dial(options: &ProxyOptions, peer: &str) -> (TestConnection, Rc<RefCell<Vec<String>>>) {
    let notes = Rc::<RefCell<Vec<String>>>::default();
    let noted = notes.clone();
    let build = move |peer: &PeerAddr| {
        noted.borrow_mut().push(format!("for {peer}"));
        Some(Box::new(Notes(noted.clone())) as Box<dyn Protocol>)
    };
    let mut factory = ProxyFactory::new(Box::new(build), options.clone());
    let peer = PeerAddr::Tcp(peer.parse().unwrap());
    let protocol = factory.build_protocol(&peer).unwrap();
    (TestConnection::with_peer(protocol, peer), notes)
}

#[test]
fn the_real_ends_are_told_and_what_is_behind_the_header_is_the_protocols() {
    let lines: [&[u8]; 2] = [
        b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 5672\r\nAMQP",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x16\x28\x04\0\0AMQP",
    ];
    for bytes in lines {
        let (first, told) = cut_everywhere(bytes, |pieces| {
            let (mut connection, notes) = dial(&ProxyOptions::default(), "127.0.0.1:9");
            for piece in pieces {
                connection.feed(piece);
            }
            let notes = notes.borrow();
            (notes[..2].to_vec(), notes[2..].concat())
        });
        assert_eq!(first, ["for 192.0.2.1:56324", "192.0.2.1:56324 -> 198.51.100.1:5672"]);
        assert_eq!(told, "AMQP");
    }
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_peer() {
    let (mut connection, notes) = dial(&ProxyOptions::default(), "127.0.0.1:9");
    connection.feed(b"PROXY UNKNOWN\r\n");
    assert_eq!(*notes.borrow(), ["for 127.0.0.1:9", "127.0.0.1:9 -> memory"]);
}

#[test]
fn without_a_header_the_connection_ends_and_its_protocol_is_never_built() {
    for bytes in [&b"AMQP\0\0\x09\x01"[..], b"PROXY TCP4 x\r\n"] {
        let (mut connection, notes) = dial(&ProxyOptions::default(), "127.0.0.1:9");
        connection.feed(bytes);
        assert_eq!(connection.closed(), Some(End::Abrupt));
        assert!(notes.borrow().is_empty());
    }
}

#[test]
fn a_header_that_does_not_come_is_not_waited_for_for_ever() {
    let clock = Clock::install();
    let (mut connection, notes) = dial(&ProxyOptions::default(), "127.0.0.1:9");
    connection.feed(b"PROXY TCP4 192.0.2.1 ");
    clock.advance(Duration::from_millis(9_999));
    assert_eq!(connection.closed(), None);
    clock.advance(Duration::from_millis(1));
    assert!(connection.is_lost() && notes.borrow().is_empty());
    // One that has come ends the wait.
    let (mut connection, notes) = dial(&ProxyOptions::default(), "127.0.0.1:9");
    connection.feed(b"PROXY UNKNOWN\r\n");
    clock.advance(Duration::from_secs(100));
    assert!(!connection.is_lost() && notes.borrow().len() == 2);
}

#[test]
fn only_those_who_are_named_send_headers() {
    let options =
        ProxyOptions { sources: vec!["10.0.0.0/8".parse().unwrap()], ..ProxyOptions::default() };
    let (mut connection, notes) = dial(&options, "192.0.2.7:9");
    connection.feed(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n");
    assert_eq!(notes.borrow()[..2], ["for 192.0.2.7:9", "192.0.2.7:9 -> memory"]);
    assert_eq!(notes.borrow()[2], "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n");
    let (mut connection, notes) = dial(&options, "10.1.1.1:9");
    connection.feed(b"AMQP");
    assert!(connection.is_lost() && notes.borrow().is_empty());
}
