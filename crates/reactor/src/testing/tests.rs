use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use bytes::Bytes;

use super::{End, ProducerState, TestConnection};
use crate::{Consumer, Protocol, Reason, Transport, WriteLimits};

/// Notes every call; answers as the first byte says.
#[derive(Default)]
struct Recorder(Rc<RefCell<Vec<String>>>);

impl Recorder {
    fn connect() -> (TestConnection, Rc<RefCell<Vec<String>>>) {
        let calls = Rc::<RefCell<Vec<String>>>::default();
        (TestConnection::new(Box::new(Recorder(calls.clone()))), calls)
    }
}

impl Protocol for Recorder {
    fn connection_made(&mut self, transport: &Transport) {
        self.0.borrow_mut().push("made".into());
        transport.write(b"hi ");
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.0.borrow_mut().push(format!("data {}", data.len()));
        match data[0] {
            b'q' => {
                transport.write(b"bye");
                transport.lose_connection();
                transport.write(b"never sent");
            }
            b'a' => {
                transport.write(b"never sent");
                transport.abort_connection();
            }
            b'p' => transport.pause_reading(),
            _ => transport.write(data),
        }
    }

    fn pause_producing(&mut self, _transport: &Transport) {
        self.0.borrow_mut().push("pause".into());
    }

    fn resume_producing(&mut self, _transport: &Transport) {
        self.0.borrow_mut().push("resume".into());
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.0.borrow_mut().push(format!("lost: {reason}"));
    }
}

#[test]
fn losing_flushes_first_and_drops_what_comes_later() {
    let (mut connection, calls) = Recorder::connect();
    connection.feed(b"q");
    connection.feed(b"too late");
    assert_eq!(connection.take_output(), b"hi bye");
    assert_eq!(connection.closed(), Some(End::Graceful));
    assert_eq!(*calls.borrow(), ["made", "data 1", "lost: closed here"]);
}

#[test]
fn losing_waits_for_a_peer_that_does_not_read() {
    let (mut connection, calls) = Recorder::connect();
    connection.stall(true);
    connection.feed(b"q");
    assert_eq!(connection.closed(), None);
    assert!(connection.transport().is_closing());
    connection.stall(false);
    assert_eq!(connection.take_output(), b"hi bye");
    assert_eq!(calls.borrow().last().unwrap(), "lost: closed here");
}

#[test]
fn aborting_drops_the_output() {
    let (mut connection, calls) = Recorder::connect();
    connection.take_output();
    connection.feed(b"a");
    assert_eq!(connection.take_output(), b"");
    assert_eq!(connection.closed(), Some(End::Abrupt));
    assert_eq!(calls.borrow().last().unwrap(), "lost: aborted here");
}

#[test]
fn aborting_overrides_a_close_that_waits() {
    let (mut connection, calls) = Recorder::connect();
    connection.stall(true);
    connection.feed(b"q");
    connection.transport().abort_connection();
    assert!(connection.is_lost());
    assert_eq!(calls.borrow().last().unwrap(), "lost: aborted here");
}

#[test]
fn a_producer_is_paused_above_high_water_and_resumed_at_low_water() {
    let (mut connection, calls) = Recorder::connect();
    connection.take_output();
    connection.transport().set_write_buffer_limits(WriteLimits { high_bytes: 10, low_bytes: 0 });
    connection.stall(true);
    connection.feed(&[b'x'; 10]);
    assert!(!connection.transport().is_full());
    connection.feed(b"x");
    assert!(connection.transport().is_full());
    connection.transport().write(b"more");
    connection.stall(true);
    connection.stall(false);
    assert_eq!(connection.take_output().len(), 15);
    assert_eq!(calls.borrow()[1..], ["data 10", "data 1", "pause", "resume"]);
}

#[test]
fn a_producer_hears_of_room_that_was_made_right_after_reading() {
    let (mut connection, calls) = Recorder::connect();
    connection.take_output();
    connection.stall(true);
    connection.transport().write(&[b'x'; 100_000]);
    connection.stall(true);
    assert_eq!(calls.borrow().last().unwrap(), "pause");
    // There is room, of which no news has come: only reading makes use of it.
    connection.shared.stalled.set(false);
    connection.transport.answered();
    assert_eq!(connection.take_output().len(), 100_000);
    assert_eq!(calls.borrow().last().unwrap(), "resume");
}

#[test]
fn a_failed_write_is_told_once() {
    let (mut connection, calls) = Recorder::connect();
    connection.fail_writes(io::ErrorKind::BrokenPipe);
    connection.feed(b"x");
    connection.feed(b"x");
    connection.lose();
    assert_eq!(*calls.borrow(), ["made", "data 1", "lost: broken pipe"]);
    assert!(connection.is_lost());
}

#[test]
fn an_early_write_that_fails_is_told_at_the_end_of_the_turn() {
    let (mut connection, calls) = Recorder::connect();
    connection.fail_writes(io::ErrorKind::ConnectionReset);
    connection.transport().write_bytes(Bytes::from(vec![0; 300 * 1024]));
    assert_eq!(*calls.borrow(), ["made"]);
    assert!(connection.is_lost());
    assert_eq!(*calls.borrow(), ["made", "lost: connection reset"]);
}

#[test]
fn a_paused_protocol_receives_nothing() {
    let (mut connection, calls) = Recorder::connect();
    connection.feed(b"p");
    connection.feed(b"x");
    connection.transport().resume_reading();
    connection.feed(b"yy");
    assert_eq!(*calls.borrow(), ["made", "data 1", "data 2"]);
}

#[test]
fn shared_bodies_keep_their_place_between_small_writes() {
    let (mut connection, _) = Recorder::connect();
    connection.take_output();
    connection.transport().write(b"<");
    connection.transport().write_bytes(Bytes::from(vec![b'b'; 5000]));
    connection.transport().write(b">");
    let output = connection.take_output();
    assert_eq!(output.len(), 5002);
    assert_eq!((output[0], output[5000], output[5001]), (b'<', b'b', b'>'));
}

#[test]
fn a_test_sees_how_the_transport_stands() {
    let (mut connection, _) = Recorder::connect();
    assert_eq!((connection.value(), connection.value()), (b"hi ".to_vec(), b"hi ".to_vec()));
    connection.clear();
    assert!(connection.value().is_empty() && !connection.disconnecting());
    assert_eq!(connection.producer_state(), ProducerState::Producing);
    connection.feed(b"p");
    assert_eq!(connection.producer_state(), ProducerState::Paused);
    connection.transport().resume_reading();
    assert_eq!(connection.producer(), None);
    let transport = connection.transport().clone();
    transport.register_producer(Rc::new(transport.clone()), true);
    assert_eq!(connection.producer(), Some(true));
    connection.feed(b"q");
    // The close waits for the producer, and takes what is written until then.
    assert_eq!(connection.value(), b"byenever sent");
    assert!(connection.disconnecting() && !connection.is_lost());
    assert_eq!(connection.producer_state(), ProducerState::Stopped);
    transport.unregister_producer();
    assert!(connection.is_lost());
}
