//! Who of several consumers gets a message, and how long it may keep it.

use warren_amqp::method::{basic, channel, queue};
use warren_amqp::{BasicProperties, FieldTable, Method};

use super::{Client, Seen, Server};

fn consume_with(client: &mut Client, consumer_tag: &str, arguments: FieldTable) {
    let consume = basic::Consume { queue: "q", consumer_tag, arguments, ..Default::default() };
    client.send(1, &consume);
    client.expect(1, &basic::ConsumeOk { consumer_tag });
}

fn prefer(client: &mut Client, consumer_tag: &str, priority: i64) {
    consume_with(client, consumer_tag, FieldTable::new().with("x-priority", priority));
}

fn tags(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| client.delivery().0).collect()
}

#[test]
fn the_higher_priority_is_served_while_it_has_room() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare("q");
    client.send(1, &basic::Qos { prefetch_count: 2, ..Default::default() });
    client.expect(1, &basic::QosOk {});
    client.consume(1, "q", "plain");
    prefer(&mut client, "low", -1);
    prefer(&mut client, "high", 5);
    prefer(&mut client, "high too", 5);
    for _ in 0..7 {
        client.publish("q", b"m");
    }
    let seen = tags(&mut client, 7);
    let mut first = seen[..4].to_vec();
    first.sort();
    assert_eq!(first, ["high", "high", "high too", "high too"]);
    // Equals take turns.
    assert_ne!(seen[0], seen[1]);
    assert_eq!(seen[4..], ["plain", "plain", "low"]);
    client.send(1, &basic::Ack { delivery_tag: 1, multiple: false });
    client.publish("q", b"m");
    assert_eq!(client.delivery().0, seen[0]);
}

#[test]
fn a_priority_is_a_whole_number() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare("q");
    let arguments = FieldTable::new().with("x-priority", "high");
    let consume = basic::Consume { queue: "q", arguments, ..Default::default() };
    client.send(1, &consume);
    let text = "PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'q' in vhost '/': \
                \"expected integer, got longstr\"";
    client.expect_channel_close(406, text, consume);
}

#[test]
fn the_next_single_active_consumer_is_the_preferred_one() {
    let server = Server::new();
    let mut client = server.connect();
    let arguments = FieldTable::new().with("x-single-active-consumer", true);
    client.send(1, &queue::Declare { queue: "q", arguments, ..Default::default() });
    client.expect(1, &queue::DeclareOk { queue: "q", message_count: 0, consumer_count: 0 });
    prefer(&mut client, "first", 0);
    prefer(&mut client, "second", 0);
    prefer(&mut client, "preferred", 3);
    client.publish("q", b"m");
    assert_eq!(client.delivery().0, "first");
    client.send(1, &basic::Cancel { consumer_tag: "first", no_wait: true });
    client.publish("q", b"m");
    client.publish("q", b"m");
    assert_eq!(tags(&mut client, 2), ["preferred", "preferred"]);
}

#[test]
fn the_next_single_active_consumer_gets_what_waits_already() {
    let server = Server::new();
    let mut client = server.connect();
    let arguments = FieldTable::new().with("x-single-active-consumer", true);
    client.send(1, &queue::Declare { queue: "q", arguments, ..Default::default() });
    client.expect(1, &queue::DeclareOk { queue: "q", message_count: 0, consumer_count: 0 });
    client.send(1, &basic::Qos { prefetch_count: 1, ..Default::default() });
    client.expect(1, &basic::QosOk {});
    client.consume(1, "q", "first");
    client.consume(1, "q", "second");
    client.publish("q", b"held");
    client.publish("q", b"waits");
    assert_eq!(client.delivery().0, "first");
    client.silent();
    client.send(1, &basic::Cancel { consumer_tag: "first", no_wait: true });
    assert_eq!(client.delivery(), ("second".into(), 2, false, "waits".into()));
}

#[test]
fn a_consumer_that_keeps_a_message_too_long_loses_its_channel() {
    let mut server = Server::new();
    let mut client = server.connect();
    client.declare("q");
    consume_with(&mut client, "slow", FieldTable::new().with("x-consumer-timeout", 3000));
    client.publish("q", b"m");
    client.delivery();
    server.pass(2);
    client.silent();
    server.pass(1);
    let close = channel::Close {
        reply_code: 406,
        reply_text: "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: \
                     3000 ms. This timeout value can be configured, see consumers doc guide to learn more",
        class_id: 0,
        method_id: 0,
    };
    client.expect(1, &close);
    // What the client sent meanwhile is passed over; then the number is free again.
    client.send(1, &basic::Ack { delivery_tag: 1, multiple: false });
    client.send(1, &channel::CloseOk {});
    client.open_channel(1);
    client.consume(1, "q", "again");
    let (_, _, redelivered, body) = client.delivery();
    assert_eq!((redelivered, body.as_str()), (true, "m"));
    // Without a timeout there is none.
    server.pass(3600);
    client.silent();
}

#[test]
fn an_immediate_message_is_taken_at_once_or_given_back() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare("q");
    let publish = basic::Publish { routing_key: "q", immediate: true, ..Default::default() };
    let give_back = |client: &mut Client| {
        client.publish_with(&publish, &BasicProperties::new(), b"now");
        let text = "NO_CONSUMERS";
        client.expect(
            1,
            &basic::Return { reply_code: 313, reply_text: text, exchange: "", routing_key: "q" },
        );
        assert_eq!(client.content().1, b"now");
    };
    give_back(&mut client);
    assert_eq!(client.count("q"), 0);
    client.send(1, &basic::Qos { prefetch_count: 1, ..Default::default() });
    client.expect(1, &basic::QosOk {});
    client.consume(1, "q", "c");
    client.publish_with(&publish, &BasicProperties::new(), b"now");
    assert_eq!(client.delivery().3, "now");
    // The consumer has no room, and then there is one that waits before it.
    give_back(&mut client);
    client.publish("q", b"later");
    give_back(&mut client);
    match client.next() {
        None => {}
        Some(Seen::Method(_, payload)) => panic!("{:?}", Method::decode(&payload)),
        Some(other) => panic!("{other:?}"),
    }
}

#[test]
fn a_client_may_pause_its_deliveries() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare("q");
    client.consume(1, "q", "c");
    client.send(1, &channel::Flow { active: false });
    client.expect(1, &channel::FlowOk { active: false });
    client.publish("q", b"m");
    client.silent();
    client.send(1, &channel::Flow { active: true });
    client.expect(1, &channel::FlowOk { active: true });
    assert_eq!(client.delivery().3, "m");
}
