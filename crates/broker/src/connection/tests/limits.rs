//! What a server allows a client, where it is told so.

use warren_amqp::method::{basic, channel, connection, queue};
use warren_amqp::{BasicProperties, frame};
use warren_reactor::PeerAddr;
use warren_reactor::testing::End;

use super::{Client, FRAME_MAX, Server};
use crate::limits::Limits;

fn server(limits: Limits) -> Server {
    let server = Server::new();
    server.engine.borrow_mut().limits = limits;
    server
}

fn log_in(server: &Server, peer: PeerAddr) -> Client {
    let mut client = server.dial(peer);
    client.log_in("PLAIN", b"\0guest\0guest");
    client
}

#[test]
fn what_is_proposed_is_what_is_allowed() {
    let limits = Limits { channel_max: 9, frame_max: 8192, heartbeat_s: 7, ..Limits::default() };
    let server = server(limits);
    #[track_caller]
    fn check(server: &Server, channel_max: u16, frame_max: u32, text: &str) {
        let mut client = log_in(server, PeerAddr::Memory);
        client.expect(0, &connection::Tune { channel_max: 9, frame_max: 8192, heartbeat: 7 });
        client.send(0, &connection::TuneOk { channel_max, frame_max, heartbeat: 0 });
        client.expect_close(530, &format!("NOT_ALLOWED - negotiated {text}"), (10, 31));
    }
    check(&server, 10, 8192, "channel_max = 10 is higher than the maximum allowed value (9)");
    check(&server, 9, 8193, "frame_max = 8193 is higher than the maximum allowed value (8192)");
}

#[test]
fn connections_are_counted_when_they_open() {
    let server = server(Limits { connection_max: Some(1), ..Limits::default() });
    let mut first = server.connect();
    let mut second = log_in(&server, PeerAddr::Memory);
    second.answer_tune(0);
    second.send(0, &connection::Open { virtual_host: "/" });
    let text = "NOT_ALLOWED - connection refused: node connection limit (1) is reached";
    second.expect_close(530, text, (10, 40));
    first.open_channel(2);
    first.wire.lose();
    server.connect();
}

#[test]
fn channels_of_all_connections_are_counted() {
    let server = server(Limits { channel_max_per_node: Some(3), ..Limits::default() });
    let mut first = server.connect();
    let mut second = server.connect();
    second.open_channel(2);
    second.send(3, &channel::Open {});
    let text = "NOT_ALLOWED - number of channels opened on node 'warren@localhost' has reached the maximum allowed limit of (3)";
    second.expect_close(530, text, (0, 0));
    // Its channels have gone with it.
    first.open_channel(2);
    first.open_channel(3);
}

#[test]
fn queues_of_all_virtual_hosts_are_counted() {
    let server = server(Limits { queue_max: Some(2), ..Limits::default() });
    let mut client = server.connect();
    client.declare("a");
    client.declare("b");
    // What is there already is no new one.
    client.declare("b");
    let declare = queue::Declare { queue: "c", ..Default::default() };
    client.send(1, &declare);
    let text =
        "PRECONDITION_FAILED - cannot declare queue 'c': queue limit in cluster (2) is reached";
    client.expect_channel_close(406, text, declare);
}

#[test]
fn consumers_of_a_channel_are_counted() {
    let server = server(Limits { consumer_max_per_channel: Some(2), ..Limits::default() });
    let mut client = server.connect();
    client.declare("q");
    client.consume(1, "q", "a");
    client.consume(1, "q", "b");
    client.open_channel(2);
    client.consume(2, "q", "a");
    client.send(1, &basic::Consume { queue: "q", consumer_tag: "c", ..Default::default() });
    let text = "NOT_ALLOWED - reached maximum (2) of consumers per channel";
    client.expect_close(530, text, (60, 20));
}

#[test]
fn a_message_can_be_too_large() {
    let server = server(Limits { message_bytes_max: 10, ..Limits::default() });
    let mut client = server.connect();
    client.declare("q");
    client.publish("q", b"0123456789");
    assert_eq!(client.get("q").as_deref(), Some("0123456789"));
    let mut bytes = Vec::new();
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    frame::write_method(&mut bytes, 1, &publish);
    let mut properties = Vec::new();
    BasicProperties::new().encode(&mut properties);
    frame::write_content(&mut bytes, 1, 60, &properties, b"0123456789a", FRAME_MAX);
    client.wire.feed(&bytes);
    let text = "PRECONDITION_FAILED - message size 11 is larger than configured max size 10";
    client.expect_channel_close(406, text, publish);
}

#[test]
fn a_handshake_may_take_its_time_and_no_more() {
    let mut server = server(Limits { handshake_s: 3, ..Limits::default() });
    let client = server.dial(PeerAddr::Memory);
    server.pass(2);
    assert_eq!(client.wire.closed(), None);
    server.pass(1);
    assert_eq!(client.wire.closed(), Some(End::Abrupt));
}

#[test]
fn guest_may_come_from_anywhere_where_that_is_wanted() {
    let server = server(Limits { loopback_users: Vec::new(), ..Limits::default() });
    log_in(&server, PeerAddr::Tcp("192.0.2.1:5".parse().unwrap())).tune(0);
}
