//! Corners of producers.

use std::rc::Rc;

use super::{Halves, producer};
use crate::testing::TestConnection;
use crate::{Consumer, Producer, Transport, WriteLimits};

fn small_limits(connection: &TestConnection) -> Transport {
    let transport = connection.transport().clone();
    transport.set_write_buffer_limits(WriteLimits { high_bytes: 3, low_bytes: 1 });
    transport
}

#[test]
fn half_a_close_waits_for_a_producer_and_loses_nothing_of_it() {
    let (mut connection, log) = Halves::connect();
    connection.transport().register_producer(producer(&connection, &log, b"cba"), false);
    connection.transport().lose_write_connection();
    assert_eq!(connection.take_output(), b"abc");
    assert_eq!(*log.borrow(), ["finished", "write lost"]);
    assert!(connection.write_ended());
}

#[test]
fn a_push_producer_that_comes_when_the_water_is_high_is_paused() {
    let (mut connection, log) = Halves::connect();
    let transport = small_limits(&connection);
    connection.stall(true);
    transport.write(b"four");
    connection.stall(true);
    transport.register_producer(producer(&connection, &log, b"r"), true);
    connection.stall(true);
    assert_eq!(*log.borrow(), ["paused"]);
    connection.stall(false);
    assert_eq!(connection.take_output(), b"fourr");
}

#[test]
fn a_protocol_that_looks_at_the_water_does_not_keep_it_from_the_producer() {
    let (mut connection, log) = Halves::connect();
    let transport = small_limits(&connection);
    transport.register_producer(producer(&connection, &log, b""), true);
    connection.stall(true);
    transport.write(b"four");
    assert!(transport.is_full());
    connection.stall(true);
    assert_eq!(*log.borrow(), ["paused"]);
}

#[test]
fn a_pull_producer_is_not_asked_again_before_it_has_written() {
    /// Writes another time.
    struct Later(super::Log);
    impl Producer for Later {
        fn resume_producing(&self) {
            self.0.borrow_mut().push("asked".into());
        }
        fn stop_producing(&self) {}
    }
    let (mut connection, log) = Halves::connect();
    let transport = connection.transport().clone();
    transport.register_producer(Rc::new(Later(log.clone())), false);
    connection.stall(false);
    transport.lose_connection();
    connection.stall(false);
    assert_eq!(*log.borrow(), ["asked"]);
    transport.write(b"late");
    assert_eq!(connection.take_output(), b"late");
    assert_eq!(*log.borrow(), ["asked", "asked"]);
    transport.unregister_producer();
    assert!(connection.is_lost());
}
