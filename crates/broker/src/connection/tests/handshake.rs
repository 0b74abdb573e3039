//! The first bytes, logging in, limits, heartbeats, the end.

use serde_json::Value;
use warren_amqp::FieldTable;
use warren_amqp::frame::PROTOCOL_HEADER;
use warren_amqp::method::{channel, connection};
use warren_reactor::PeerAddr;
use warren_reactor::testing::End;

use super::{FRAME_MAX, Seen, Server};
use crate::exception::Exception;

const REFUSED: &str = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see \
                       the broker logfile.";

#[test]
fn garbage_is_answered_with_our_header_and_the_end() {
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"AMQP\0\x01\0\0", b"x"] {
        let mut client = Server::new().dial(PeerAddr::Memory);
        client.wire.feed(garbage);
        assert_eq!(client.wire.take_output(), PROTOCOL_HEADER);
        assert_eq!(client.wire.closed(), Some(End::Graceful));
    }
}

#[test]
fn a_header_may_come_in_pieces() {
    let mut client = Server::new().dial(PeerAddr::Memory);
    for byte in PROTOCOL_HEADER {
        client.silent();
        client.wire.feed(&[byte]);
    }
    client.skip::<connection::Start<'_>>();
}

#[test]
fn both_mechanisms_are_understood() {
    let mut client = Server::new().dial(PeerAddr::Memory);
    client.log_in("PLAIN", b"\0guest\0guest");
    client.tune(0);
    let mut response = Vec::new();
    FieldTable::new().with("LOGIN", "guest").with("PASSWORD", "guest").encode(&mut response);
    let mut client = Server::new().dial(PeerAddr::Memory);
    client.log_in("AMQPLAIN", &response[4..]);
    client.tune(0);
}

#[test]
fn a_listing_tells_what_was_agreed_and_what_the_client_calls_itself() {
    let server = Server::new();
    let row = |what: &str| server.engine.borrow().connection_rows()[0][what].clone();
    let mut client = server.dial(PeerAddr::Memory);
    client.wire.feed(&PROTOCOL_HEADER);
    client.skip::<connection::Start<'_>>();
    assert_eq!((row("state"), row("user_provided_name")), ("starting".into(), Value::Null));
    let client_properties = FieldTable::new().with("connection_name", "billing");
    let (mechanism, response) = ("PLAIN", &b"\0guest\0guest"[..]);
    let start_ok =
        connection::StartOk { client_properties, mechanism, response, ..Default::default() };
    client.send(0, &start_ok);
    client.skip::<connection::Tune>();
    client.send(0, &connection::TuneOk { channel_max: 7, frame_max: 8192, heartbeat: 5 });
    client.send(0, &connection::Open { virtual_host: "/" });
    client.expect(0, &connection::OpenOk {});
    assert_eq!(row("user_provided_name"), "billing");
    assert_eq!((row("user"), row("auth_mechanism")), ("guest".into(), "PLAIN".into()));
    assert_eq!((row("channel_max"), row("frame_max")), (7.into(), 8192.into()));
    assert_eq!((row("timeout"), row("state")), (5.into(), "running".into()));
    let key = server.engine.borrow().connections.keys()[0];
    let exception = Exception::new(warren_amqp::ReplyCode::CONNECTION_FORCED, "shutdown");
    server.engine.borrow_mut().force_close(key, &exception);
    assert_eq!(row("state"), "closing");
}

#[test]
fn wrong_logins_are_refused() {
    for response in [
        &b"\0guest\0wrong"[..],
        b"\0other\0guest",
        b"guest",
        b"\0guest\0guest\0",
        b"me\0guest\0guest",
    ] {
        let mut client = Server::new().dial(PeerAddr::Memory);
        client.log_in("PLAIN", response);
        client.expect_close(403, REFUSED, (0, 0));
    }
    let mut client = Server::new().dial(PeerAddr::Memory);
    client.log_in("CRAM-MD5", b"");
    let text = "COMMAND_INVALID - unknown authentication mechanism 'CRAM-MD5'";
    client.expect_close(503, text, (10, 11));
}

#[test]
fn guest_comes_from_this_machine_only() {
    let mut client = Server::new().dial(PeerAddr::Tcp("192.0.2.1:5".parse().unwrap()));
    client.log_in("PLAIN", b"\0guest\0guest");
    client.expect_close(403, REFUSED, (0, 0));
    let mut client = Server::new().dial(PeerAddr::Tcp("127.0.0.1:5".parse().unwrap()));
    client.log_in("PLAIN", b"\0guest\0guest");
    client.tune(0);
}

#[test]
fn a_refused_client_that_would_not_understand_is_just_left() {
    let mut client = Server::new().dial(PeerAddr::Memory);
    client.wire.feed(&PROTOCOL_HEADER);
    client.skip::<connection::Start<'_>>();
    let response = b"\0guest\0wrong";
    client.send(0, &connection::StartOk { mechanism: "PLAIN", response, ..Default::default() });
    client.silent();
    assert_eq!(client.wire.closed(), Some(End::Graceful));
}

#[test]
fn limits_are_agreed_within_ours() {
    #[track_caller]
    fn check(channel_max: u16, frame_max: u32, text: &str) {
        let mut client = Server::new().dial(PeerAddr::Memory);
        client.log_in("PLAIN", b"\0guest\0guest");
        client.skip::<connection::Tune>();
        client.send(0, &connection::TuneOk { channel_max, frame_max, heartbeat: 0 });
        client.expect_close(530, &format!("NOT_ALLOWED - negotiated {text}"), (10, 31));
    }
    check(2048, FRAME_MAX, "channel_max = 2048 is higher than the maximum allowed value (2047)");
    check(0, FRAME_MAX, "channel_max = 0 is higher than the maximum allowed value (2047)");
    check(1, 4095, "frame_max = 4095 is lower than the minimum allowed value (4096)");
    check(1, 131_073, "frame_max = 131073 is higher than the maximum allowed value (131072)");
    check(1, 0, "frame_max = 0 is higher than the maximum allowed value (131072)");
}

#[test]
fn an_unknown_virtual_host_is_refused() {
    let mut client = Server::new().dial(PeerAddr::Memory);
    client.log_in("PLAIN", b"\0guest\0guest");
    client.skip::<connection::Tune>();
    client.send(0, &connection::TuneOk { channel_max: 1, frame_max: FRAME_MAX, heartbeat: 0 });
    client.send(0, &connection::Open { virtual_host: "mine" });
    client.expect_close(530, "NOT_ALLOWED - vhost mine not found", (10, 40));
}

#[test]
fn who_does_not_log_in_is_left() {
    let mut server = Server::new();
    let client = server.dial(PeerAddr::Memory);
    server.pass(9);
    assert_eq!(client.wire.closed(), None);
    server.pass(1);
    assert_eq!(client.wire.closed(), Some(End::Abrupt));
    assert_eq!(server.engine.borrow().connections.len(), 0);
}

#[test]
fn heartbeats_go_both_ways() {
    let mut server = Server::new();
    let mut client = server.dial(PeerAddr::Memory);
    client.log_in("PLAIN", b"\0guest\0guest");
    client.tune(4);
    server.pass(2);
    assert_eq!(client.next(), Some(Seen::Heartbeat));
    server.pass(2);
    assert_eq!(client.next(), Some(Seen::Heartbeat));
    // Anything that comes is a sign of life.
    client.open_channel(1);
    server.pass(8);
    assert_eq!(client.wire.closed(), None);
    server.pass(1);
    assert_eq!(client.wire.closed(), Some(End::Abrupt));
}

#[test]
fn a_close_is_answered_and_ends_the_connection() {
    let server = Server::new();
    let mut client = server.connect();
    client.send(0, &connection::Close { reply_code: 200, ..Default::default() });
    client.expect(0, &connection::CloseOk {});
    assert_eq!(client.wire.closed(), Some(End::Graceful));
    assert_eq!(server.engine.borrow().connections.len(), 0);
}

#[test]
fn the_broker_closes_once_and_understands_the_answer() {
    let server = Server::new();
    let mut client = server.connect();
    let exception = Exception::new(warren_amqp::ReplyCode::CONNECTION_FORCED, "shutdown");
    let key = server.engine.borrow().connections.keys()[0];
    server.engine.borrow_mut().force_close(key, &exception);
    server.engine.borrow_mut().force_close(key, &exception);
    client.expect_close(320, "CONNECTION_FORCED - shutdown", (0, 0));
    // What was on its way is ignored.
    client.send(1, &channel::Open {});
    client.silent();
    client.send(0, &connection::CloseOk {});
    client.silent();
    assert_eq!(client.wire.closed(), Some(End::Graceful));
}

#[test]
fn who_does_not_answer_a_close_is_left() {
    let mut server = Server::new();
    let mut client = server.connect();
    client.send(0, &connection::StartOk::default());
    let text = "CHANNEL_ERROR - unexpected method in connection state running";
    client.expect_close(504, text, (10, 11));
    server.pass(30);
    assert_eq!(client.wire.closed(), Some(End::Abrupt));
}
