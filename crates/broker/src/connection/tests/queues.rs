//! Queues with arguments: limits, lifetimes, dead letters, priorities.

use serde_json::json;
use warren_amqp::method::{basic, channel, confirm, queue};
use warren_amqp::{BasicProperties, FieldTable, FieldValue};

use super::{Client, Server};

fn declare_with(client: &mut Client, queue: &str, arguments: FieldTable) {
    client.send(1, &queue::Declare { queue, arguments, ..Default::default() });
    client.expect(1, &queue::DeclareOk { queue, message_count: 0, consumer_count: 0 });
}

fn get_content(client: &mut Client, queue: &str) -> (BasicProperties, Vec<u8>) {
    client.send(1, &basic::Get { queue, no_ack: true });
    client.skip::<basic::GetOk<'_>>();
    client.content()
}

/// A queue `q` whose dead letters go to the queue `dead`.
fn with_dead(client: &mut Client, arguments: FieldTable) {
    client.declare("dead");
    let arguments =
        arguments.with("x-dead-letter-exchange", "").with("x-dead-letter-routing-key", "dead");
    declare_with(client, "q", arguments);
}

#[test]
fn the_head_of_a_queue_that_is_too_long_is_dropped() {
    let mut client = Server::new().connect();
    with_dead(&mut client, FieldTable::new().with("x-max-length", 2));
    for body in ["1", "2", "3"] {
        client.publish("q", body.as_bytes());
    }
    assert_eq!(client.count("q"), 2);
    let (properties, body) = get_content(&mut client, "dead");
    assert_eq!(body, b"1");
    let headers = properties.headers.unwrap();
    assert_eq!(headers.get("x-first-death-reason").and_then(FieldValue::as_str), Some("maxlen"));
    let deaths = headers.get("x-death").and_then(FieldValue::as_array).unwrap();
    let death = deaths[0].as_table().unwrap();
    assert_eq!(death.get("count").and_then(FieldValue::as_i64), Some(1));
    assert_eq!(death.get("queue").and_then(FieldValue::as_str), Some("q"));
    let keys = death.get("routing-keys").and_then(FieldValue::as_array).unwrap();
    assert_eq!(keys[0].as_str(), Some("q"));
}

#[test]
fn a_full_queue_may_refuse() {
    let mut client = Server::new().connect();
    let arguments =
        FieldTable::new().with("x-max-length", 1).with("x-overflow", "reject-publish-dlx");
    with_dead(&mut client, arguments);
    client.send(1, &confirm::Select { no_wait: true });
    client.publish("q", b"1");
    client.expect(1, &basic::Ack { delivery_tag: 1, multiple: false });
    client.publish("q", b"2");
    client.expect(1, &basic::Nack { delivery_tag: 2, multiple: false, requeue: false });
    assert_eq!(client.get("dead").as_deref(), Some("2"));
    assert_eq!(client.get("q").as_deref(), Some("1"));
}

#[test]
fn a_full_queue_lets_its_consumers_take_first() {
    let mut client = Server::new().connect();
    let arguments = FieldTable::new().with("x-max-length", 1).with("x-overflow", "reject-publish");
    declare_with(&mut client, "q", arguments);
    client.consume(1, "q", "c");
    client.send(1, &confirm::Select { no_wait: true });
    // All in one turn, and one over at this very moment.
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    client.publish_with(&publish, &BasicProperties::new().with_expiration("0"), b"1");
    client.publish("q", b"2");
    client.publish("q", b"3");
    for (tag, body) in [(1, "1"), (2, "2"), (3, "3")] {
        assert_eq!(client.delivery(), ("c".into(), tag, false, body.into()));
    }
    client.expect(1, &basic::Ack { delivery_tag: 3, multiple: true });
}

#[test]
fn what_stood_behind_a_message_that_was_fetched_expires_on_time() {
    let mut server = Server::new();
    let mut client = server.connect();
    with_dead(&mut client, FieldTable::new());
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    client.publish("q", b"first");
    client.publish_with(&publish, &BasicProperties::new().with_expiration("0"), b"over");
    client.publish_with(&publish, &BasicProperties::new().with_expiration("50"), b"soon over");
    assert_eq!(client.count("q"), 3);
    assert_eq!(client.get("q").as_deref(), Some("first"));
    // Nobody asks for it.
    assert_eq!(client.get("dead").as_deref(), Some("over"));
    server.pass_ms(50);
    server.turn();
    assert_eq!(client.get("dead").as_deref(), Some("soon over"));
}

#[test]
fn what_stood_behind_a_message_that_was_dropped_expires_at_once() {
    let server = Server::new();
    let mut client = server.connect();
    with_dead(&mut client, FieldTable::new().with("x-max-length", 1));
    let mut doomed = server.connect();
    doomed.consume(1, "q", "c");
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    for expiration in ["50", "0"] {
        let properties = BasicProperties::new().with_expiration(expiration);
        client.publish_with(&publish, &properties, expiration.as_bytes());
    }
    assert_eq!(doomed.bodies(), ["50", "0"]);
    doomed.wire.lose();
    client.silent();
    assert_eq!(client.get("dead").as_deref(), Some("50"));
    assert_eq!(client.get("dead").as_deref(), Some("0"));
}

#[test]
fn messages_expire_in_queues_that_say_so() {
    let mut server = Server::new();
    let mut client = server.connect();
    with_dead(&mut client, FieldTable::new().with("x-message-ttl", 50));
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    client.publish_with(&publish, &BasicProperties::new().with_expiration("80"), b"x");
    assert_eq!(client.count("q"), 1);
    server.pass_ms(50);
    server.turn();
    let (properties, _) = get_content(&mut client, "dead");
    assert_eq!(properties.expiration, None);
    let headers = properties.headers.unwrap();
    let deaths = headers.get("x-death").and_then(FieldValue::as_array).unwrap();
    let death = deaths[0].as_table().unwrap();
    assert_eq!(death.get("reason").and_then(FieldValue::as_str), Some("expired"));
    assert_eq!(death.get("original-expiration").and_then(FieldValue::as_str), Some("80"));
}

#[test]
fn what_goes_round_by_itself_is_dropped() {
    let mut server = Server::new();
    let mut client = server.connect();
    let arguments = FieldTable::new().with("x-message-ttl", 10).with("x-dead-letter-exchange", "");
    declare_with(&mut client, "q", arguments);
    client.publish("q", b"x");
    assert_eq!(client.count("q"), 1);
    server.pass_ms(10);
    server.turn();
    assert_eq!(client.count("q"), 0);
}

#[test]
fn higher_priorities_come_first_and_are_dropped_first() {
    let mut client = Server::new().connect();
    let arguments = FieldTable::new().with("x-max-priority", 5).with("x-max-length", 3);
    declare_with(&mut client, "q", arguments);
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    for (priority, body) in [(1, "low"), (9, "high"), (0, "lowest"), (5, "as high")] {
        let properties = BasicProperties::new().with_priority(priority);
        client.publish_with(&publish, &properties, body.as_bytes());
    }
    let order: Vec<_> = std::iter::from_fn(|| client.get("q")).collect();
    assert_eq!(order, ["as high", "low", "lowest"]);
}

#[test]
fn messages_that_are_given_up_together_keep_their_order() {
    let mut client = Server::new().connect();
    with_dead(&mut client, FieldTable::new().with("x-delivery-limit", 0));
    for body in ["1", "2", "3"] {
        client.publish("q", body.as_bytes());
        client.send(1, &basic::Get { queue: "q", no_ack: false });
        client.skip::<basic::GetOk<'_>>();
        client.content();
    }
    client.send(1, &basic::Nack { delivery_tag: 3, multiple: true, requeue: true });
    client.silent();
    let order: Vec<_> = std::iter::from_fn(|| client.get("dead")).collect();
    assert_eq!(order, ["1", "2", "3"]);
}

#[test]
fn a_channel_that_closes_takes_no_letters_of_its_own_queues() {
    let mut client = Server::new().connect();
    with_dead(&mut client, FieldTable::new().with("x-max-length", 0));
    let arguments = FieldTable::new()
        .with("x-delivery-limit", 0)
        .with("x-dead-letter-exchange", "")
        .with("x-dead-letter-routing-key", "q");
    let (queue, durable, auto_delete) = ("passing", true, true);
    client
        .send(1, &queue::Declare { queue, durable, auto_delete, arguments, ..Default::default() });
    client.expect(1, &queue::DeclareOk { queue, message_count: 0, consumer_count: 0 });
    client.open_channel(2);
    client.consume(2, queue, "c");
    // Whichever of its consumers goes first, some of these are still there.
    for number in 0..16 {
        client.consume(2, "q", &format!("d{number}"));
    }
    client.publish(queue, b"kept");
    assert_eq!(client.delivery().3, "kept");
    client.send(2, &channel::Close { reply_code: 200, ..Default::default() });
    client.expect(2, &channel::CloseOk {});
    assert_eq!(client.get("dead").as_deref(), Some("kept"));
}

#[test]
fn a_message_that_keeps_coming_back_is_given_up() {
    let mut client = Server::new().connect();
    with_dead(&mut client, FieldTable::new().with("x-delivery-limit", 1));
    client.publish("q", b"x");
    for _ in 0..2 {
        client.send(1, &basic::Get { queue: "q", no_ack: false });
        client.skip::<basic::GetOk<'_>>();
        let (properties, _) = client.content();
        let counted = properties.header("x-delivery-count").is_some();
        client.send(1, &basic::Nack { delivery_tag: 0, multiple: true, requeue: true });
        assert_eq!(counted, client.count("q") == 0);
    }
    let (properties, _) = get_content(&mut client, "dead");
    let reason = properties.header("x-first-death-reason").and_then(FieldValue::as_str);
    assert_eq!(reason, Some("delivery_limit"));
}

#[test]
fn a_queue_that_nobody_uses_goes() {
    let mut server = Server::new();
    let mut client = server.connect();
    declare_with(&mut client, "q", FieldTable::new().with("x-expires", 50));
    server.pass_ms(40);
    assert_eq!(client.get("q"), None);
    server.pass_ms(40);
    assert_eq!(client.get("q"), None);
    client.consume(1, "q", "c");
    server.pass_ms(100);
    client.send(1, &basic::Cancel { consumer_tag: "c", no_wait: true });
    server.pass_ms(49);
    assert_eq!(server.engine.borrow().queues.len(), 1);
    server.pass_ms(1);
    assert_eq!(server.engine.borrow().queues.len(), 0);
}

#[test]
fn one_consumer_at_a_time() {
    let mut client = Server::new().connect();
    declare_with(&mut client, "q", FieldTable::new().with("x-single-active-consumer", true));
    client.consume(1, "q", "a");
    client.consume(1, "q", "b");
    for _ in 0..2 {
        client.publish("q", b"x");
        assert_eq!(client.delivery().0, "a");
    }
    client.send(1, &basic::Cancel { consumer_tag: "a", no_wait: true });
    client.publish("q", b"x");
    assert_eq!(client.delivery().0, "b");
}

#[track_caller]
fn refused(first: Option<FieldTable>, arguments: FieldTable, why: &str) {
    let mut client = Server::new().connect();
    if let Some(first) = first {
        declare_with(&mut client, "q", first);
    }
    let declare = queue::Declare { queue: "q", arguments, ..Default::default() };
    client.send(1, &declare);
    client.expect_channel_close(406, &format!("PRECONDITION_FAILED - {why}"), declare);
}

#[test]
fn arguments_are_checked_in_rabbitmqs_words() {
    let invalid = |key: &str, value: FieldValue, why: &str| {
        let text = format!("invalid arg '{key}' for queue 'q' in vhost '/': {why}");
        refused(None, FieldTable::new().with(key, value), &text);
    };
    invalid("x-expires", 0.into(), "{value_zero,0}");
    invalid("x-message-ttl", (-1).into(), "{value_negative,-1}");
    invalid("x-max-length", "s".into(), "\"expected integer, got longstr\"");
    invalid("x-max-priority", 256.into(), "{max_value_exceeded,256}");
    invalid("x-overflow", "odd".into(), "invalid_overflow");
    invalid("x-dead-letter-routing-key", "k".into(), "routing_key_but_no_dlx_defined");
    let text =
        "invalid arg 'x-max-age' for queue 'q' in vhost '/' of queue type rabbit_classic_queue";
    refused(None, FieldTable::new().with("x-max-age", "1D"), text);
    let with = |value: i32| FieldTable::new().with("x-message-ttl", value);
    let text = "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': ";
    let differ = format!("{text}received '6' but current is '5'");
    refused(Some(with(5)), with(6), &differ);
    // It differs before it is found to be nonsense.
    let differ = format!("{text}received '5' but current is '5'");
    refused(Some(with(5)), FieldTable::new().with("x-message-ttl", "5"), &differ);
    let missing = format!("{text}received none but current is the value '5' of type 'signedint'");
    refused(Some(with(5)), FieldTable::new(), &missing);
}

fn set_default_queue_type(server: &Server, kind: &str) {
    let definitions = json!({"vhosts": [{"name": "/", "default_queue_type": kind}]});
    let request = json!({"op": "import_definitions", "definitions": definitions});
    let request = serde_json::from_value(request).unwrap();
    server.administer(request).unwrap();
}

#[test]
fn a_virtual_host_may_say_what_its_queues_are() {
    let server = Server::new();
    let mut client = server.connect();
    let mut declare = |name: &'static str, durable, exclusive, arguments| {
        let declare =
            queue::Declare { queue: name, durable, exclusive, arguments, ..Default::default() };
        client.send(1, &declare);
        client.expect(1, &queue::DeclareOk { queue: name, message_count: 0, consumer_count: 0 });
    };
    let of_type = |kind: &str| FieldTable::new().with("x-queue-type", kind);
    set_default_queue_type(&server, "quorum");
    declare("durable", true, false, FieldTable::new());
    declare("durable", true, false, of_type("quorum"));
    declare("durable", true, false, FieldTable::new());
    // What cannot be a quorum queue is what it would be without a default.
    declare("transient", false, false, FieldTable::new());
    declare("transient", false, false, of_type("classic"));
    declare("exclusive", true, true, FieldTable::new());
    declare("exclusive", true, true, of_type("classic"));
    declare("classic", true, false, of_type("classic"));
    // It became an argument of the queue: another default does not change it.
    set_default_queue_type(&server, "undefined");
    declare("durable", true, false, of_type("quorum"));
    declare("other", true, false, FieldTable::new());
    declare("other", true, false, of_type("classic"));
}

#[test]
fn a_type_that_is_not_the_default_is_still_compared() {
    let server = Server::new();
    let mut client = server.connect();
    set_default_queue_type(&server, "quorum");
    let declare =
        |arguments| queue::Declare { queue: "q", durable: true, arguments, ..Default::default() };
    client.send(1, &declare(FieldTable::new()));
    client.expect(1, &queue::DeclareOk { queue: "q", message_count: 0, consumer_count: 0 });
    client.send(1, &declare(FieldTable::new().with("x-queue-type", "classic")));
    let text = "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received \
                'classic' but current is 'quorum'";
    client.expect_channel_close(406, text, declare(FieldTable::new()));
}

#[test]
fn a_death_tells_the_keys_of_the_header_cc() {
    let mut client = Server::new().connect();
    with_dead(&mut client, FieldTable::new().with("x-max-length", 0));
    let copies = FieldValue::Array(vec![FieldValue::LongString(b"elsewhere".to_vec())]);
    let properties = BasicProperties {
        headers: Some(FieldTable::new().with("CC", copies)),
        ..Default::default()
    };
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    client.publish_with(&publish, &properties, b"x");
    assert_eq!(client.count("q"), 0);
    let headers = get_content(&mut client, "dead").0.headers.unwrap();
    // The dead letter has a key of its own, and goes nowhere else.
    assert!(!headers.contains_key("CC"));
    let deaths = headers.get("x-death").and_then(FieldValue::as_array).unwrap();
    let keys = deaths[0].as_table().unwrap().get("routing-keys").and_then(FieldValue::as_array);
    let keys: Vec<_> = keys.unwrap().iter().filter_map(FieldValue::as_str).collect();
    assert_eq!(keys, ["q", "elsewhere"]);
}

#[test]
fn a_new_policy_holds_for_what_waits_already() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare("q");
    for body in ["1", "2", "3"] {
        client.publish("q", body.as_bytes());
    }
    assert_eq!(client.count("q"), 3);
    let definitions = json!({"policies": [{
        "vhost": "/", "name": "short", "pattern": "^q$", "apply-to": "queues", "priority": 0,
        "definition": {"max-length": 1},
    }]});
    let request = json!({"op": "import_definitions", "definitions": definitions});
    let request = serde_json::from_value(request).unwrap();
    server.administer(request).unwrap();
    assert_eq!(client.count("q"), 1);
    assert_eq!(client.get("q").as_deref(), Some("3"));
}
