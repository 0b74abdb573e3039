//! Half-open connections, producers and layers, in memory.

mod producers;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use crate::layer::{Decoded, Layer};
use crate::output::Output;
use crate::testing::{End, TestConnection};
use crate::{Consumer, Producer, Protocol, Reason, Transport, WriteLimits};

type Log = Rc<RefCell<Vec<String>>>;

/// Notes every call. Stays when the peer has ended its output.
struct Halves(Log);

impl Halves {
    fn connect() -> (TestConnection, Log) {
        let log = Log::default();
        (TestConnection::new(Box::new(Self(log.clone()))), log)
    }

    fn note(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }
}

impl Protocol for Halves {
    fn connection_made(&mut self, _transport: &Transport) {}

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.note(format!("data {}", String::from_utf8_lossy(data)));
        if data == b"pause" {
            transport.pause_reading();
        }
    }

    fn handshake_completed(&mut self, transport: &Transport) {
        self.note("handshake");
        if self.0.borrow().first().is_some_and(|first| first == "pause at the handshake") {
            transport.pause_reading();
        }
    }

    fn read_connection_lost(&mut self, _transport: &Transport) {
        self.note("read lost");
    }

    fn write_connection_lost(&mut self, _transport: &Transport) {
        self.note("write lost");
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.note(format!("lost: {reason}"));
    }
}

#[test]
fn the_peer_may_end_first() {
    let (mut connection, log) = Halves::connect();
    connection.half_close();
    connection.transport().write(b"still here");
    assert_eq!(connection.take_output(), b"still here");
    assert_eq!(*log.borrow(), ["read lost"]);
    connection.transport().lose_write_connection();
    assert_eq!(connection.closed(), Some(End::Graceful));
    assert_eq!(*log.borrow(), ["read lost", "write lost", "lost: closed by the peer"]);
}

#[test]
fn we_may_end_first() {
    let (mut connection, log) = Halves::connect();
    connection.stall(true);
    connection.transport().write(b"all of it");
    connection.transport().lose_write_connection();
    connection.transport().write(b"dropped");
    assert!(!connection.write_ended() && !connection.transport().is_closing());
    connection.stall(false);
    assert!(connection.write_ended());
    connection.feed(b"more");
    assert_eq!(connection.take_output(), b"all of it");
    assert_eq!(*log.borrow(), ["write lost", "data more"]);
    connection.half_close();
    assert_eq!(log.borrow()[2..], ["read lost", "lost: closed by the peer"]);
}

/// Notes what it hears; as a pull producer it writes what is left, one byte a time.
struct Source {
    log: Log,
    transport: Transport,
    left: RefCell<Vec<u8>>,
}

impl Producer for Source {
    fn resume_producing(&self) {
        match self.left.borrow_mut().pop() {
            Some(byte) => self.transport.write(&[byte]),
            None => {
                self.log.borrow_mut().push("finished".into());
                self.transport.unregister_producer();
            }
        }
    }

    fn pause_producing(&self) {
        self.log.borrow_mut().push("paused".into());
    }

    fn stop_producing(&self) {
        self.log.borrow_mut().push("stopped".into());
    }
}

fn producer(connection: &TestConnection, log: &Log, bytes: &[u8]) -> Rc<Source> {
    let transport = connection.transport().clone();
    Rc::new(Source { log: log.clone(), transport, left: RefCell::new(bytes.to_vec()) })
}

#[test]
fn a_pull_producer_is_asked_for_each_piece_and_a_close_waits_for_it() {
    let (mut connection, log) = Halves::connect();
    let source = producer(&connection, &log, b"cba");
    connection.transport().register_producer(source, false);
    connection.transport().lose_connection();
    assert!(connection.transport().is_closing());
    connection.feed(b"not heard");
    assert_eq!(connection.take_output(), b"abc");
    assert_eq!(*log.borrow(), ["finished", "lost: closed here"]);
}

#[test]
fn a_push_producer_is_paused_and_resumed_at_the_water_marks() {
    let (mut connection, log) = Halves::connect();
    let transport = connection.transport().clone();
    transport.set_write_buffer_limits(WriteLimits { high_bytes: 3, low_bytes: 1 });
    transport.register_producer(producer(&connection, &log, b"r"), true);
    connection.stall(true);
    transport.write(b"four");
    connection.stall(true);
    assert_eq!(*log.borrow(), ["paused"]);
    connection.stall(false);
    assert_eq!(connection.take_output(), b"fourr");
}

#[test]
fn a_producer_is_stopped_when_the_connection_is_gone() {
    let (connection, log) = Halves::connect();
    let source = producer(&connection, &log, b"");
    connection.transport().register_producer(source.clone(), true);
    connection.transport().abort_connection();
    assert!(connection.is_lost());
    connection.transport().register_producer(source, true);
    assert_eq!(*log.borrow(), ["stopped", "lost: aborted here", "stopped"]);
}

/// A cipher that shifts letters, once the peer has said `!`; `$` ends a direction, `?` is not understood.
#[derive(Default)]
struct Caesar {
    opened: bool,
    ended: bool,
}

impl Layer for Caesar {
    fn is_opening(&self) -> bool {
        !self.opened
    }

    fn decode(&mut self, data: &mut [u8], plain: &mut Vec<u8>) -> Decoded {
        let mut decoded = Decoded::default();
        for &byte in &*data {
            match byte {
                b'!' => {
                    self.opened = true;
                    decoded.opened = true;
                }
                b'$' => {
                    self.ended = true;
                    decoded.end = Some(Ok(()));
                }
                b'?' => decoded.end = Some(Err(io::Error::other("not understood"))),
                _ => plain.push(byte - 1),
            }
        }
        decoded
    }

    fn encode(&mut self, plain: &mut Output, wire: &mut Output) -> io::Result<()> {
        if self.opened {
            wire.tail().extend(plain.take().iter().map(|byte| byte + 1));
        }
        Ok(())
    }

    fn finish(&mut self, wire: &mut Output) {
        wire.tail().push(b'$');
    }

    fn input_ended(&mut self) -> io::Result<()> {
        if self.ended { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

fn layered() -> (TestConnection, Log) {
    let (connection, log) = Halves::connect();
    connection.transport().write(b"plain:");
    connection.transport().add_layer(Box::new(Caesar::default()), b"").unwrap();
    connection.transport().write(b"abc");
    (connection, log)
}

#[test]
fn a_layer_changes_what_passes_after_it_was_added() {
    let (mut connection, log) = layered();
    assert_eq!(connection.take_output(), b"plain:");
    assert_eq!(connection.transport().buffered(), 3);
    connection.feed(b"!ifmmp");
    assert_eq!(connection.take_output(), b"bcd");
    connection.transport().lose_connection();
    assert_eq!(connection.take_output(), b"$");
    assert_eq!(*log.borrow(), ["handshake", "data hello", "lost: closed here"]);
}

#[test]
fn bytes_that_came_before_the_layer_was_added_pass_through_it() {
    let (mut connection, log) = Halves::connect();
    connection.transport().add_layer(Box::new(Caesar::default()), b"!if").unwrap();
    assert!(connection.transport().add_layer(Box::new(Caesar::default()), b"").is_none());
    connection.feed(b"mmp");
    assert_eq!(*log.borrow(), ["handshake", "data hello"]);
}

#[test]
fn a_paused_protocol_gets_what_was_decoded_when_it_resumes() {
    let (mut connection, log) = layered();
    log.borrow_mut().push("pause at the handshake".into());
    connection.feed(b"!ifmmp$");
    assert_eq!(log.borrow()[1..], ["handshake"]);
    connection.transport().resume_reading();
    connection.take_output();
    assert_eq!(log.borrow()[1..], ["handshake", "data hello", "read lost"]);
}

#[test]
fn a_layer_that_does_not_understand_ends_the_connection() {
    let (mut connection, log) = layered();
    connection.feed(b"!ifmmp?");
    assert!(connection.is_lost());
    assert_eq!(*log.borrow(), ["handshake", "data hello", "lost: not understood"]);
}

#[test]
fn a_layer_knows_an_end_from_a_cut() {
    let (mut connection, log) = layered();
    connection.feed(b"!");
    connection.half_close();
    assert!(connection.is_lost());
    assert_eq!(*log.borrow(), ["handshake", "lost: unexpected end of file"]);
}

/// Takes one letter at a time and hands the rest back; `p` pauses, `t` starts the cipher.
struct Letters(Log);

impl Protocol for Letters {
    fn connection_made(&mut self, _transport: &Transport) {}

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.0.borrow_mut().push(format!("{} of {}", char::from(data[0]), data.len()));
        match data[0] {
            b'p' => transport.pause_reading(),
            b'q' => transport.lose_connection(),
            b't' => transport.add_layer(Box::new(Caesar::default()), b"").unwrap(),
            _ => {}
        }
        transport.unread(data.len() - 1);
    }

    fn read_connection_lost(&mut self, _transport: &Transport) {
        self.0.borrow_mut().push("read lost".into());
    }

    fn connection_lost(&mut self, _reason: &Reason) {}
}

fn letters() -> (TestConnection, Log) {
    let log = Log::default();
    (TestConnection::new(Box::new(Letters(log.clone()))), log)
}

#[test]
fn what_is_handed_back_is_told_again_before_anything_else() {
    let (mut connection, log) = letters();
    connection.feed(b"apb");
    connection.half_close();
    assert_eq!(*log.borrow(), ["a of 3", "p of 2"]);
    connection.transport().push_input(b"c");
    connection.transport().resume_reading();
    connection.feed(b"d");
    connection.half_close();
    assert_eq!(log.borrow()[2..], ["b of 3", "c of 2", "d of 1", "read lost"]);
}

#[test]
fn the_end_of_the_input_waits_for_what_was_handed_back() {
    let log = Log::default();
    let mut connection = TestConnection::new(Box::new(Letters(log.clone())));
    connection.transport().add_layer(Box::new(Caesar::default()), b"").unwrap();
    connection.feed(b"!bqc$");
    assert_eq!(*log.borrow(), ["a of 3", "p of 2"]);
    connection.transport().resume_reading();
    assert!(!connection.is_lost());
    assert_eq!(log.borrow()[2..], ["b of 1", "read lost"]);
}

#[test]
fn what_is_handed_back_by_a_protocol_that_closes_is_dropped() {
    let (mut connection, log) = letters();
    connection.feed(b"qa");
    assert!(connection.is_lost());
    assert_eq!(*log.borrow(), ["q of 2"]);
}

#[test]
fn what_is_handed_back_when_a_layer_was_added_is_decoded() {
    let (mut connection, log) = letters();
    connection.feed(b"at!bc");
    connection.feed(b"d");
    assert_eq!(*log.borrow(), ["a of 5", "t of 4", "a of 2", "b of 1", "c of 1"]);
    // The same when it was added while reading was paused.
    let (mut connection, log) = letters();
    connection.feed(b"p!bc");
    connection.transport().add_layer(Box::new(Caesar::default()), b"").unwrap();
    connection.transport().resume_reading();
    assert!(!connection.is_lost());
    assert_eq!(*log.borrow(), ["p of 4", "a of 2", "b of 1"]);
}
