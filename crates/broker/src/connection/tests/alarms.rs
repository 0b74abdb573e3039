//! Publishers wait while memory or disk is short, consumers do not.

use warren_amqp::FieldTable;
use warren_amqp::frame::PROTOCOL_HEADER;
use warren_amqp::method::{basic, channel, connection};
use warren_amqp::{BasicProperties, ReplyCode};
use warren_reactor::PeerAddr;
use warren_reactor::testing::End;

use super::{Client, Server};
use crate::alarms::Resource;
use crate::exception::Exception;

/// A client that wants to hear of alarms, or not.
fn connect(server: &Server, notify: bool, heartbeat: u16) -> Client {
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
