//! How channels and connections end when the client ends them: what they are owed comes first, and nobody waits for
//! ever for a client that does not take it.

use warren_amqp::BasicProperties;
use warren_amqp::ReplyCode;
use warren_amqp::method::{basic, channel, confirm, connection, tx};
use warren_reactor::PeerAddr;
use warren_reactor::testing::End;

use super::storing::{declare_durable, open};
use super::{Client, Seen, Server};

fn client(server: &Server, heartbeat: u16) -> Client {
    let mut client = server.dial(PeerAddr::Memory);
    client.log_in("PLAIN", b"\0guest\0guest");
    client.tune(heartbeat);
    client.open_channel(1);
    client
}

fn close() -> channel::Close<'static> {
    channel::Close { reply_code: 200, ..Default::default() }
}

fn persistent(client: &mut Client, queue: &str) {
    let publish = basic::Publish { routing_key: queue, ..Default::default() };
    client.publish_with(&publish, &BasicProperties::persistent(), b"x");
}

#[test]
fn confirms_come_before_the_end_of_their_channel() {
    let mut client = client(&Server::new(), 0);
    client.declare("q");
    client.send(1, &confirm::Select { no_wait: true });
    client.publish("q", b"x");
    client.publish("q", b"y");
    client.send(1, &close());
    client.expect(1, &basic::Ack { delivery_tag: 2, multiple: true });
    client.expect(1, &channel::CloseOk {});
    client.open_channel(1);
    assert_eq!(client.count("q"), 2);
}

#[test]
fn the_end_of_a_channel_waits_for_the_disk_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let (server, news) = open(folder.path());
    let mut client = client(&server, 0);
    declare_durable(&server, &mut client, &news);
    client.send(1, &confirm::Select { no_wait: true });
    client.consume(1, "q", "c");
    persistent(&mut client, "q");
    assert_eq!(client.delivery().3, "x");
    client.send(1, &close());
    client.silent();
    // What it held is there for others, and it gets nothing any more.
    client.open_channel(2);
    client.send(2, &basic::Get { queue: "q", no_ack: true });
    client.skip::<basic::GetOk<'_>>();
    client.content();
    // What it says now is not heard.
    client.send(1, &basic::Get { queue: "q", no_ack: true });
    persistent(&mut client, "q");
    client.silent();
    server.sync(&news);
    client.expect(1, &basic::Ack { delivery_tag: 1, multiple: false });
    client.expect(1, &channel::CloseOk {});
    client.open_channel(1);
    assert_eq!(client.count("q"), 0);
    server.close();
}

#[test]
fn a_channel_that_ends_hears_that_the_disk_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let (server, news) = open(folder.path());
    let mut client = client(&server, 0);
    declare_durable(&server, &mut client, &news);
    client.send(1, &confirm::Select { no_wait: true });
    persistent(&mut client, "q");
    client.send(1, &close());
    client.silent();
    server.engine.borrow_mut().store_failed();
    client.expect(1, &basic::Nack { delivery_tag: 1, multiple: false, requeue: false });
    client.expect(1, &channel::CloseOk {});
    server.close();
}

#[test]
fn the_end_of_a_connection_waits_for_all_its_channels() {
    let folder = tempfile::tempdir().unwrap();
    let (server, news) = open(folder.path());
    let mut client = client(&server, 0);
    declare_durable(&server, &mut client, &news);
    client.open_channel(2);
    client.send(2, &confirm::Select { no_wait: true });
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    client.publish_on(2, &publish, &BasicProperties::persistent(), b"x");
    client.send(1, &tx::Select {});
    client.expect(1, &tx::SelectOk {});
    persistent(&mut client, "q");
    client.send(1, &tx::Commit {});
    client.send(2, &close());
    client.send(0, &connection::Close { reply_code: 200, ..Default::default() });
    client.silent();
    assert_eq!(client.wire.closed(), None);
    server.settle(&news);
    // The two channels in any order.
    let mut seen: Vec<_> = (0..3).filter_map(|_| client.next()).collect();
    seen.sort_by_key(|seen| matches!(seen, Seen::Method(2, _)));
    for seen in seen.into_iter().rev() {
        client.frames.push_front(seen);
    }
    client.expect(1, &tx::CommitOk {});
    client.expect(2, &basic::Ack { delivery_tag: 1, multiple: false });
    client.expect(2, &channel::CloseOk {});
    client.expect(0, &connection::CloseOk {});
    assert_eq!(client.wire.closed(), Some(End::Graceful));
    server.close();
}

#[test]
fn a_connection_that_ends_is_answered_when_the_disk_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let (server, news) = open(folder.path());
    let mut client = client(&server, 0);
    declare_durable(&server, &mut client, &news);
    client.send(1, &tx::Select {});
    client.expect(1, &tx::SelectOk {});
    persistent(&mut client, "q");
    client.send(1, &tx::Commit {});
    client.send(0, &connection::Close { reply_code: 200, ..Default::default() });
    client.silent();
    server.engine.borrow_mut().store_failed();
    client.expect(0, &connection::CloseOk {});
    assert_eq!(client.wire.closed(), Some(End::Graceful));
    server.close();
}

/// A client with these heartbeats that does something and then does not read has so many seconds.
#[track_caller]
fn check_patience(heartbeat: u16, seconds: u64, end: impl FnOnce(&Server, &mut Client)) {
    let mut server = Server::new();
    let mut client = client(&server, heartbeat);
    client.wire.stall(true);
    end(&server, &mut client);
    server.turn();
    server.pass(seconds - 1);
    assert_eq!(client.wire.closed(), None);
    server.pass(1);
    assert_eq!(client.wire.closed(), Some(End::Abrupt));
}

#[test]
fn a_client_that_does_not_take_the_last_answer_is_given_up() {
    let end = |_: &Server, client: &mut Client| {
        client.send(0, &connection::Close { reply_code: 200, ..Default::default() });
    };
    check_patience(0, 30, end);
    check_patience(5, 5, end);
    check_patience(600, 30, end);
}

#[test]
fn a_client_that_does_not_answer_the_end_is_given_up() {
    let end = |_: &Server, client: &mut Client| {
        client.send(1, &channel::Open {});
    };
    check_patience(0, 30, end);
    check_patience(5, 5, end);
    check_patience(600, 30, end);
    check_patience(0, 30, |server, _| {
        let key = server.engine.borrow().connections.keys()[0];
        let exception = crate::exception::Exception::new(ReplyCode::CONNECTION_FORCED, "enough");
        server.engine.borrow_mut().force_close(key, &exception);
    });
}

#[test]
fn a_client_that_answers_the_end_and_takes_nothing_has_no_more_time() {
    check_patience(0, 30, |_, client| {
        client.send(1, &channel::Open {});
        client.send(0, &connection::CloseOk {});
    });
}

#[test]
fn octets_without_order_end_in_time_too() {
    check_patience(0, 30, |_, client| client.wire.feed(b"no frame at all"));
}
