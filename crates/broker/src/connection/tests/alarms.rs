//! Publishers wait while memory or disk is short, consumers do not.

use std::sync::mpsc;
use std::time::Duration;

use rustix::io::Errno;
use warren_amqp::FieldTable;
use warren_amqp::frame::PROTOCOL_HEADER;
use warren_amqp::method::{basic, channel, confirm, connection, queue};
use warren_amqp::{BasicProperties, ReplyCode};
use warren_reactor::PeerAddr;
use warren_reactor::testing::End;

use super::storing::open;
use super::{Client, Server};
use crate::alarms::Resource;
use crate::exception::Exception;
use crate::store::Store;

/// A client that wants to hear of alarms, or not.
pub(super) fn connect(server: &Server, notify: bool, heartbeat: u16) -> Client {
    let mut client = server.dial(PeerAddr::Memory);
    client.wire.feed(&PROTOCOL_HEADER);
    client.skip::<connection::Start<'_>>();
    let capabilities = FieldTable::new().with("connection.blocked", notify);
    let client_properties = FieldTable::new().with("capabilities", capabilities);
    let (mechanism, response) = ("PLAIN", &b"\0guest\0guest"[..]);
    let start_ok =
        connection::StartOk { client_properties, mechanism, response, ..Default::default() };
    client.send(0, &start_ok);
    client.tune(heartbeat);
    client.open_channel(1);
    client
}

fn alarm(server: &Server, resource: Resource, on: bool) {
    server.engine.borrow_mut().set_alarm(resource, on);
}

fn states(server: &Server) -> Vec<String> {
    let rows = server.engine.borrow().connection_rows();
    let rows = rows.as_array().unwrap();
    rows.iter().map(|row| row["state"].as_str().unwrap().into()).collect()
}

#[test]
fn who_publishes_during_an_alarm_is_blocked_until_it_ends() {
    let server = Server::new();
    let mut client = connect(&server, true, 0);
    client.declare("q");
    alarm(&server, Resource::Memory, true);
    client.silent();
    assert_eq!(states(&server), ["blocking"]);
    // The message itself is taken, nothing behind it.
    client.publish("q", b"1");
    client.expect(0, &connection::Blocked { reason: "low on memory" });
    assert_eq!(states(&server), ["blocked"]);
    client.publish("q", b"2");
    client.silent();
    assert_eq!(server.engine.borrow().queues.iter().next().unwrap().1.len(), 1);
    alarm(&server, Resource::Disk, true);
    alarm(&server, Resource::Memory, false);
    client.silent();
    alarm(&server, Resource::Disk, false);
    client.expect(0, &connection::Unblocked {});
    assert_eq!(states(&server), ["running"]);
    assert_eq!(client.get("q").as_deref(), Some("1"));
}

#[test]
fn what_came_with_the_publish_is_kept_for_later() {
    let server = Server::new();
    let mut client = connect(&server, true, 0);
    client.declare("q");
    alarm(&server, Resource::Disk, true);
    alarm(&server, Resource::Memory, true);
    let mut bytes = Vec::new();
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    for body in [b"1", b"2", b"3"] {
        warren_amqp::frame::write_method(&mut bytes, 1, &publish);
        let mut properties = Vec::new();
        BasicProperties::new().encode(&mut properties);
        warren_amqp::frame::write_content(&mut bytes, 1, 60, &properties, body, super::FRAME_MAX);
    }
    // Cut within the second message.
    let (now, later) = bytes.split_at(bytes.len() / 2);
    client.wire.feed(now);
    client.wire.feed(later);
    client.expect(0, &connection::Blocked { reason: "low on memory & disk" });
    let ready = || server.engine.borrow().queues.iter().next().unwrap().1.len();
    assert_eq!(ready(), 1);
    alarm(&server, Resource::Memory, false);
    alarm(&server, Resource::Disk, false);
    client.expect(0, &connection::Unblocked {});
    // What the sockets would have held meanwhile, a test connection does not.
    assert_eq!(ready(), 1);
    client.wire.feed(later);
    client.silent();
    assert_eq!(ready(), 3);
}

#[test]
fn a_store_that_cannot_write_blocks_publishers_until_it_can() {
    let server = Server::new();
    let mut publisher = connect(&server, true, 0);
    publisher.declare("q");
    let mut consumer = connect(&server, true, 0);
    consumer.consume(1, "q", "c");
    server.engine.borrow_mut().store_failed();
    assert_eq!(server.engine.borrow().alarms.names(), ["disk"]);
    publisher.publish("q", b"1");
    let reason = "low on disk (the store cannot write)";
    publisher.expect(0, &connection::Blocked { reason });
    let (_, tag, _, body) = consumer.delivery();
    assert_eq!(body, "1");
    consumer.send(1, &basic::Ack { delivery_tag: tag, multiple: false });
    consumer.open_channel(2);
    // There is room, as far as the system knows; that is not enough.
    alarm(&server, Resource::Disk, true);
    alarm(&server, Resource::Disk, false);
    publisher.silent();
    // And the other way round.
    alarm(&server, Resource::Disk, true);
    server.engine.borrow_mut().store_synced(1);
    publisher.silent();
    alarm(&server, Resource::Disk, false);
    publisher.expect(0, &connection::Unblocked {});
    assert_eq!(states(&server), ["running", "running"]);
}

/// What happens over a store whose disk refuses with this error.
fn check_refusal(errno: i32) {
    let folder = tempfile::tempdir().unwrap();
    let (sender, news) = mpsc::channel();
    let on_sync = move |outcome| drop(sender.send(outcome));
    let (store, recovered, refusal) = Store::open_refusing(folder.path(), Box::new(on_sync));
    let server = Server::new();
    server.engine.borrow_mut().recover_from(store, recovered);
    let hear = |server: &Server| {
        server.turn();
        match news.recv_timeout(Duration::from_secs(60)).unwrap() {
            Ok(batch) => server.engine.borrow_mut().store_synced(batch),
            Err(_) => server.engine.borrow_mut().store_failed(),
        }
    };
    let mut publisher = connect(&server, true, 0);
    publisher.send(1, &queue::Declare { queue: "q", durable: true, ..Default::default() });
    publisher.send(1, &confirm::Select { no_wait: false });
    hear(&server);
    publisher.skip::<queue::DeclareOk<'_>>();
    publisher.expect(1, &confirm::SelectOk {});
    let publish = |client: &mut Client, body: &[u8]| {
        let publish = basic::Publish { routing_key: "q", ..Default::default() };
        client.publish_with(&publish, &BasicProperties::persistent(), body);
    };
    refusal.set(errno);
    publish(&mut publisher, b"1");
    publisher.silent();
    hear(&server);
    let nack = |delivery_tag| basic::Nack { delivery_tag, multiple: false, requeue: false };
    publisher.expect(1, &nack(1));
    publish(&mut publisher, b"2");
    let reason = "low on disk (the store cannot write)";
    publisher.expect(0, &connection::Blocked { reason });
    publisher.expect(1, &nack(2));
    // Who consumes goes on.
    let mut consumer = connect(&server, true, 0);
    consumer.consume(1, "q", "c");
    assert_eq!(consumer.bodies(), ["1", "2"]);
    consumer.send(1, &basic::Ack { delivery_tag: 2, multiple: true });
    consumer.send(1, &basic::Cancel { consumer_tag: "c", no_wait: true });
    consumer.open_channel(2);
    publisher.silent();
    refusal.set(0);
    while server.engine.borrow().has_failed() {
        hear(&server);
    }
    publisher.expect(0, &connection::Unblocked {});
    assert!(!server.engine.borrow().alarms.any());
    publish(&mut publisher, b"3");
    publisher.silent();
    while server.engine.borrow().awaits_store() {
        hear(&server);
    }
    publisher.expect(1, &basic::Ack { delivery_tag: 3, multiple: false });
    server.close();
    let (server, _news) = open(folder.path());
    let mut client = server.connect();
    assert_eq!((client.get("q").as_deref(), client.get("q")), (Some("3"), None));
    server.close();
}

#[test]
fn a_disk_that_refuses_holds_publishers_back_until_it_writes() {
    // Full, broken, read-only.
    for errno in [Errno::NOSPC, Errno::IO, Errno::ROFS] {
        check_refusal(errno.raw_os_error());
    }
}

#[test]
fn a_consumer_is_never_blocked() {
    let server = Server::new();
    let mut publisher = connect(&server, true, 0);
    publisher.declare("q");
    let mut consumer = connect(&server, true, 0);
    consumer.consume(1, "q", "c");
    alarm(&server, Resource::Memory, true);
    publisher.publish("q", b"1");
    let (_, tag, _, body) = consumer.delivery();
    assert_eq!(body, "1");
    consumer.send(1, &basic::Ack { delivery_tag: tag, multiple: false });
    consumer.open_channel(2);
    consumer.silent();
}

#[test]
fn who_does_not_know_of_alarms_is_held_back_in_silence() {
    let server = Server::new();
    let mut client = connect(&server, false, 0);
    client.declare("q");
    alarm(&server, Resource::Memory, true);
    client.publish("q", b"1");
    client.silent();
    assert_eq!(states(&server), ["blocked"]);
    alarm(&server, Resource::Memory, false);
    client.silent();
    client.send(2, &channel::Open {});
    client.expect(2, &channel::OpenOk {});
}

#[test]
fn a_blocked_client_misses_no_heartbeats() {
    let mut server = Server::new();
    let mut client = connect(&server, false, 2);
    client.declare("q");
    alarm(&server, Resource::Memory, true);
    client.publish("q", b"1");
    server.pass(20);
    assert_eq!(client.wire.closed(), None);
    alarm(&server, Resource::Memory, false);
    server.pass(4);
    assert_eq!(client.wire.closed(), None);
    server.pass(1);
    assert_eq!(client.wire.closed(), Some(End::Abrupt));
}

#[test]
fn a_blocked_connection_can_be_closed() {
    let server = Server::new();
    let mut client = connect(&server, false, 0);
    client.declare("q");
    alarm(&server, Resource::Memory, true);
    client.publish("q", b"1");
    let key = server.engine.borrow().connections.keys()[0];
    let exception = Exception::new(ReplyCode::CONNECTION_FORCED, "enough");
    server.engine.borrow_mut().force_close(key, &exception);
    client.expect_close(320, "CONNECTION_FORCED - enough", (0, 0));
    client.send(0, &connection::CloseOk {});
    client.silent();
    assert_eq!(client.wire.closed(), Some(End::Graceful));
}
