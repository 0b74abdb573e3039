//! What clients make the server hold: it is counted, bounded, and all of it is let go.

use std::sync::mpsc::Receiver;

use warren_amqp::frame::{self, frame_header};
use warren_amqp::method::{basic, channel, connection, exchange, queue, tx};
use warren_amqp::{BasicProperties, FieldTable};
use warren_reactor::testing::ProducerState;

use super::alarms::connect;
use super::storing::open;
use super::{Client, FRAME_MAX, Server};
use crate::alarms::Resource;
use crate::memory::{held, parts};

const MIB: u64 = 1024 * 1024;

/// Lets what is held be all that is used.
fn limit(server: &Server, bytes: u64) {
    let mut engine = server.engine.borrow_mut();
    engine.alarms.memory_bytes_max = Some(bytes);
    engine.budget.measure_by(|| Some(held()));
}

fn has_alarm(server: &Server) -> bool {
    server.engine.borrow().alarms.is_on(Resource::Memory)
}

/// A body that says its number.
fn body(number: usize, bytes: usize) -> Vec<u8> {
    let mut body = format!("{number:08} ").into_bytes();
    body.resize(bytes, b'.');
    body
}

fn number(body: &str) -> usize {
    body[..8].parse().unwrap()
}

fn publish(client: &mut Client, persistent: bool, body: &[u8]) {
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    let properties =
        if persistent { BasicProperties::persistent() } else { BasicProperties::new() };
    client.publish_with(&publish, &properties, body);
}

#[test]
fn all_that_was_held_is_let_go() {
    let server = Server::new();
    let mut client = server.connect();
    let arguments = FieldTable::new()
        .with("x-max-length", 2)
        .with("x-dead-letter-exchange", "")
        .with("x-dead-letter-routing-key", "letters");
    client.declare("letters");
    client.send(1, &queue::Declare { queue: "q", arguments, ..Default::default() });
    client.skip::<queue::DeclareOk<'_>>();
    let fanout = exchange::Declare { exchange: "x", kind: "fanout", ..Default::default() };
    client.send(1, &fanout);
    client.expect(1, &exchange::DeclareOk {});
    for queue in ["q", "letters"] {
        client.send(1, &queue::Bind { queue, exchange: "x", ..Default::default() });
        client.expect(1, &queue::BindOk {});
    }
    for size in [0, 10, 20_000, 300_000] {
        let to_both = basic::Publish { exchange: "x", ..Default::default() };
        client.publish_with(&to_both, &BasicProperties::new(), &vec![b'b'; size]);
        assert_eq!(parts(), 0);
    }
    client.turn();
    // Each body once, but those that died were written anew.
    assert!((320_000..700_000).contains(&held()), "{}", held());
    client.send(2, &channel::Open {});
    client.expect(2, &channel::OpenOk {});
    client.send(2, &tx::Select {});
    client.expect(2, &tx::SelectOk {});
    client.publish_on(2, &basic::Publish::default(), &BasicProperties::new(), b"never committed");
    client.consume(1, "letters", "c");
    client.turn();
    client.send(1, &basic::Recover { requeue: true });
    client.turn();
    client.send(1, &basic::Nack { delivery_tag: 0, multiple: true, requeue: false });
    client.turn();
    client.wire.clear();
    client.wire.lose();
    server.turn();
    let mut client = server.connect();
    for queue in ["q", "letters"] {
        client.send(1, &queue::Purge { queue, no_wait: true });
    }
    client.turn();
    assert_eq!((held(), parts()), (0, 0));
}

#[test]
fn queues_leave_memory_before_publishers_have_to_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _news) = open(folder.path());
    limit(&server, 2 * MIB);
    let mut client = server.connect();
    let queues = ["a", "b", "c", "d"];
    queues.iter().for_each(|queue| client.declare(queue));
    for number in 0..2048 {
        queues.iter().for_each(|queue| client.publish(queue, &body(number, 1024)));
        server.turn();
        assert!(held() < 2 * MIB && !has_alarm(&server));
    }
    assert!(MIB < held(), "what there is room for stays: {}", held());
    for queue in queues {
        for want in 0..2048 {
            assert_eq!(client.get(queue).map(|body| number(&body)), Some(want), "{queue}");
        }
    }
    // They wait for an acknowledgement.
    assert!(held() < 2 * MIB && !has_alarm(&server));
    client.send(1, &basic::Ack { delivery_tag: 0, multiple: true });
    client.silent();
    assert_eq!(held(), 0);
    server.close();
}

fn takes_all_and_settles_nothing(persistent: bool) {
    let folder = tempfile::tempdir().unwrap();
    let (server, news): (Server, Receiver<_>) = open(folder.path());
    limit(&server, 2 * MIB);
    let mut publisher = server.connect();
    let durable = queue::Declare { queue: "q", durable: true, ..Default::default() };
    publisher.send(1, &durable);
    server.sync(&news);
    publisher.skip::<queue::DeclareOk<'_>>();
    let mut consumer = server.connect();
    consumer.consume(1, "q", "c");
    for number in 0..4096 {
        publish(&mut publisher, persistent, &body(number, 1024));
        if number % 64 == 63 {
            server.turn();
            let given = if persistent { Some(news.recv().unwrap().unwrap()) } else { None };
            given.into_iter().for_each(|batch| server.engine.borrow_mut().store_synced(batch));
            server.turn();
            consumer.wire.clear();
            assert!(held() < 2 * MIB && !has_alarm(&server), "{} at {number}", held());
        }
    }
    consumer.send(1, &basic::Ack { delivery_tag: 1, multiple: false });
    consumer.send(1, &basic::Ack { delivery_tag: 100, multiple: true });
    consumer.send(1, &basic::Ack { delivery_tag: 102, multiple: false });
    consumer.send(1, &basic::Reject { delivery_tag: 4000, requeue: false });
    consumer.send(1, &basic::Ack { delivery_tag: 4096, multiple: false });
    consumer.send(1, &basic::Cancel { consumer_tag: "c", no_wait: true });
    consumer.send(1, &basic::Recover { requeue: true });
    consumer.skip::<basic::RecoverOk>();
    let mut want: Vec<usize> = (100..4095).collect();
    want.retain(|number| ![101, 3999].contains(number));
    assert_eq!(consumer.count("q") as usize, want.len());
    for want in want {
        assert_eq!(consumer.get("q").map(|body| number(&body)), Some(want));
    }
    consumer.send(1, &basic::Ack { delivery_tag: 0, multiple: true });
    consumer.silent();
    assert_eq!((consumer.get("q"), held()), (None, 0));
    server.close();
}

#[test]
fn transient_deliveries_leave_memory_until_they_are_settled() {
    takes_all_and_settles_nothing(false);
}

#[test]
fn persistent_deliveries_leave_memory_until_they_are_settled() {
    takes_all_and_settles_nothing(true);
}

#[test]
fn a_channel_keeps_so_many_deliveries_in_memory_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _news) = open(folder.path());
    let mut client = server.connect();
    client.declare("q");
    client.consume(1, "q", "c");
    for number in 0..20_000 {
        client.publish("q", b"16 bytes of body");
        if number % 1000 == 0 {
            server.turn();
            client.wire.clear();
        }
    }
    server.turn();
    let here = held() / 236;
    assert!((8_000..17_500).contains(&here), "{here}");
    client.wire.clear();
    client.send(1, &basic::Nack { delivery_tag: 0, multiple: true, requeue: false });
    client.silent();
    assert_eq!(held(), 0);
}

#[test]
fn publishers_wait_until_there_is_room_again_and_some_more() {
    let server = Server::new();
    limit(&server, MIB);
    let mut client = connect(&server, true, 0);
    client.declare("q");
    let mut count = 0;
    while client.wire.producer_state() == ProducerState::Producing {
        client.publish("q", &body(count, 4096));
        count += 1;
        server.turn();
        server.engine.borrow_mut().watch_memory();
    }
    client.expect(0, &connection::Blocked { reason: "low on memory" });
    assert!(MIB < held() && held() < MIB + 8192 * 2, "{}", held());
    let mut other = server.connect();
    for want in 0..count {
        let was = held();
        assert_eq!(other.get("q").map(|body| number(&body)), Some(want));
        other.send(1, &basic::Ack { delivery_tag: 0, multiple: true });
        server.engine.borrow_mut().watch_memory();
        assert_eq!(has_alarm(&server), MIB - MIB / 16 < held(), "{was}");
    }
    client.expect(0, &connection::Unblocked {});
    client.silent();
    assert_eq!(held(), 0);
}

/// The frames of a publish to `q`, and of its body's first pieces.
fn pieces(number: usize, bytes: usize) -> Vec<Vec<u8>> {
    let body = body(number, bytes);
    let (mut first, mut raw) = (Vec::new(), Vec::new());
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    frame::write_method(&mut first, 1, &publish);
    BasicProperties::new().encode(&mut raw);
    frame::write_content_header(&mut first, 1, 60, &raw, bytes as u64);
    let frames = body.chunks(FRAME_MAX as usize - 8).map(|piece| {
        let header = frame_header(3, 1, piece.len() as u32);
        [&header, piece, &[warren_amqp::constants::FRAME_END]].concat()
    });
    [first].into_iter().chain(frames).collect()
}

#[test]
fn half_sent_bodies_are_bounded_and_all_of_them_come() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, _news) = open(folder.path());
    limit(&server, 2 * MIB);
    let mut clients: Vec<_> = (0..8).map(|_| connect(&server, true, 0)).collect();
    clients[0].declare("q");
    let mut rest: Vec<_> = (0..8).map(|number| pieces(number, MIB as usize).into_iter()).collect();
    // The first goes on so far and then says nothing for a while.
    for _ in 0..4 {
        let piece = rest[0].next().unwrap();
        clients[0].wire.feed(&piece);
    }
    let mut rounds = 0;
    while server.engine.borrow().queues.iter().next().unwrap().1.len() < 7 {
        for (client, pieces) in clients.iter_mut().zip(&mut rest).skip(1) {
            if client.wire.producer_state() == ProducerState::Producing
                && let Some(piece) = pieces.next()
            {
                client.wire.feed(&piece);
            }
            // A quarter, and the one that goes on.
            assert!(parts() < 2 * MIB, "{}", parts());
        }
        server.turn();
        server.pass(1);
        let mut engine = server.engine.borrow_mut();
        engine.watch_memory();
        engine.tend_memory();
        rounds += 1;
        assert!(rounds < 500, "nobody goes on");
    }
    assert!(clients[1..].iter_mut().any(|client| {
        let blocked = connection::Blocked { reason: "low on memory" };
        let mut bytes = Vec::new();
        frame::write_method(&mut bytes, 0, &blocked);
        client.wire.take_output().starts_with(&bytes)
    }));
    for piece in rest[0].by_ref() {
        clients[0].wire.feed(&piece);
    }
    server.turn();
    assert_eq!(server.engine.borrow().queues.iter().next().unwrap().1.len(), 8);
    assert_eq!(parts(), 0);
    server.close();
}

#[test]
fn a_client_that_fetches_and_does_not_read_is_not_heard() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare("q");
    let count = 40;
    (0..count).for_each(|number| client.publish("q", &body(number, MIB as usize)));
    client.wire.stall(true);
    let mut bytes = Vec::new();
    for _ in 0..count {
        frame::write_method(&mut bytes, 1, &basic::Get { queue: "q", no_ack: true });
    }
    client.wire.feed(&bytes);
    server.turn();
    assert!(client.wire.transport().buffered() < 10 * MIB as usize);
    client.wire.stall(false);
    for want in 0..count {
        client.skip::<basic::GetOk<'_>>();
        let got = String::from_utf8(client.content().1).unwrap();
        assert_eq!(number(&got), want);
    }
    assert_eq!(held(), 0);
}

#[test]
fn a_client_that_does_not_read_leaves_messages_in_their_queue() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare("q");
    let consume = basic::Consume { queue: "q", no_ack: true, ..Default::default() };
    client.send(1, &consume);
    client.skip::<basic::ConsumeOk<'_>>();
    client.wire.stall(true);
    let mut publisher = server.connect();
    for number in 0..4096 {
        publisher.publish("q", &body(number, 1024));
        server.turn();
    }
    assert!(client.wire.transport().buffered() < 600 * 1024);
    assert!(3400 < server.engine.borrow().queues.iter().next().unwrap().1.len());
}
