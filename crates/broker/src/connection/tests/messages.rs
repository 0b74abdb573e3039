//! From publishers to consumers.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use warren_amqp::method::{basic, channel, confirm, exchange, queue, tx};
use warren_amqp::{BasicProperties, FieldTable, FieldValue};

use super::{Client, Seen, Server};
use crate::{Existing, Interceptors};

fn publish_numbers(client: &mut Client, queue: &str, count: usize) {
    for number in 0..count {
        client.publish(queue, number.to_string().as_bytes());
    }
}

#[test]
fn a_body_of_any_size_comes_back_as_it_went() {
    let mut client = Server::new().connect();
    client.declare("q");
    for size in [0, 1, 16 * 1024 - 1, 16 * 1024, 131_064, 131_065, 1_000_000] {
        let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let properties = BasicProperties::new().with_header("size", size as i64);
        client.publish_with(
            &basic::Publish { routing_key: "q", ..Default::default() },
            &properties,
            &body,
        );
        client.send(1, &basic::Get { queue: "q", no_ack: true });
        client.skip::<basic::GetOk<'_>>();
        assert!(client.content() == (properties, body), "a body of {size} bytes");
    }
}

#[test]
fn consumers_take_turns() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare("q");
    for tag in ["a", "b", "c"] {
        client.consume(1, "q", tag);
    }
    publish_numbers(&mut client, "q", 6);
    let order: Vec<String> = (0..6).map(|_| client.delivery().0).collect();
    assert_eq!(order, ["a", "b", "c", "a", "b", "c"]);
}

#[test]
fn a_prefetch_holds_for_each_consumer() {
    let mut client = Server::new().connect();
    client.declare("q");
    client.send(1, &basic::Qos { prefetch_count: 2, ..Default::default() });
    client.expect(1, &basic::QosOk {});
    client.consume(1, "q", "a");
    client.consume(1, "q", "b");
    publish_numbers(&mut client, "q", 10);
    assert_eq!(client.bodies(), ["0", "1", "2", "3"]);
    client.send(1, &basic::Ack { delivery_tag: 1, multiple: false });
    // The place is the first consumer's.
    assert_eq!(client.delivery(), ("a".into(), 5, false, "4".into()));
    client.silent();
    client.send(1, &basic::Ack { delivery_tag: 0, multiple: true });
    assert_eq!(client.bodies(), ["5", "6", "7", "8"]);
}

#[test]
fn a_prefetch_may_hold_for_the_channel() {
    let mut client = Server::new().connect();
    client.declare("q");
    client.declare("r");
    client.send(1, &basic::Qos { prefetch_count: 3, global: true, ..Default::default() });
    client.expect(1, &basic::QosOk {});
    client.consume(1, "q", "a");
    client.consume(1, "r", "b");
    publish_numbers(&mut client, "q", 3);
    assert_eq!(client.bodies(), ["0", "1", "2"]);
    client.publish("r", b"waits");
    client.silent();
    client.send(1, &basic::Ack { delivery_tag: 2, multiple: false });
    assert_eq!(client.bodies(), ["waits"]);
    client.send(1, &basic::Qos { prefetch_count: 0, global: true, ..Default::default() });
    client.expect(1, &basic::QosOk {});
    publish_numbers(&mut client, "r", 3);
    assert_eq!(client.bodies().len(), 3);
}

#[test]
fn a_mandatory_message_without_a_queue_is_returned_and_then_confirmed() {
    let mut client = Server::new().connect();
    client.send(1, &confirm::Select { no_wait: false });
    client.expect(1, &confirm::SelectOk {});
    let publish = basic::Publish { routing_key: "nobody", mandatory: true, ..Default::default() };
    client.publish_with(&publish, &BasicProperties::new(), b"x");
    client.publish("nobody", b"lost");
    client.expect(
        1,
        &basic::Return {
            reply_code: 312,
            reply_text: "NO_ROUTE",
            exchange: "",
            routing_key: "nobody",
        },
    );
    assert_eq!(client.content().1, b"x");
    client.expect(1, &basic::Ack { delivery_tag: 2, multiple: true });
    client.silent();
}

#[test]
fn confirms_of_a_turn_are_one() {
    let mut client = Server::new().connect();
    client.declare("q");
    client.send(1, &confirm::Select { no_wait: true });
    publish_numbers(&mut client, "q", 100);
    client.expect(1, &basic::Ack { delivery_tag: 100, multiple: true });
    client.publish("q", b"x");
    client.expect(1, &basic::Ack { delivery_tag: 101, multiple: false });
}

#[test]
fn exchanges_lead_to_exchanges_and_circles_end() {
    let mut client = Server::new().connect();
    client.declare("q");
    for exchange in ["one", "two"] {
        client.send(1, &exchange::Declare { exchange, kind: "fanout", ..Default::default() });
        client.expect(1, &exchange::DeclareOk {});
    }
    for (source, destination) in [("one", "two"), ("two", "one"), ("one", "one")] {
        client.send(1, &exchange::Bind { source, destination, ..Default::default() });
        client.expect(1, &exchange::BindOk {});
    }
    for exchange in ["one", "two"] {
        client.send(1, &queue::Bind { queue: "q", exchange, ..Default::default() });
        client.expect(1, &queue::BindOk {});
    }
    let publish = basic::Publish { exchange: "one", ..Default::default() };
    client.publish_with(&publish, &BasicProperties::new(), b"once");
    assert_eq!((client.get("q").as_deref(), client.get("q")), (Some("once"), None));
    client.send(1, &exchange::Delete { exchange: "one", ..Default::default() });
    client.expect(1, &exchange::DeleteOk {});
    let publish = basic::Publish { exchange: "two", ..Default::default() };
    client.publish_with(&publish, &BasicProperties::new(), b"still");
    assert_eq!(client.get("q").as_deref(), Some("still"));
}

#[test]
fn copies_go_to_further_keys_and_blind_ones_are_not_told() {
    let mut client = Server::new().connect();
    for queue in ["a", "b", "c"] {
        client.declare(queue);
    }
    let keys =
        |keys: &[&str]| FieldValue::Array(keys.iter().map(|key| FieldValue::from(*key)).collect());
    let headers =
        FieldTable::new().with("CC", keys(&["b", "a"])).with("BCC", keys(&["c"])).with("n", 1);
    let properties = BasicProperties::new().with_headers(headers);
    let publish = basic::Publish { routing_key: "a", ..Default::default() };
    client.publish_with(&publish, &properties, b"x");
    for queue in ["a", "b", "c"] {
        client.send(1, &basic::Get { queue, no_ack: true });
        client.skip::<basic::GetOk<'_>>();
        let headers = client.content().0.headers.unwrap();
        assert!(headers.contains_key("CC") && headers.contains_key("n"));
        assert!(!headers.contains_key("BCC"));
        assert_eq!(client.get(queue), None);
    }
}

#[test]
fn messages_expire_at_the_head() {
    let mut server = Server::new();
    let mut client = server.connect();
    client.declare("q");
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    let lifetime = |ms: &str| BasicProperties::new().with_expiration(ms);
    client.publish_with(&publish, &lifetime("0"), b"nobody waits");
    assert_eq!(client.count("q"), 0);
    client.publish_with(&publish, &lifetime("100"), b"short");
    client.publish_with(&publish, &lifetime("10000"), b"long");
    server.pass_ms(99);
    assert_eq!(client.count("q"), 2);
    server.pass_ms(1);
    assert_eq!(client.count("q"), 1);
    server.pass(10);
    assert_eq!(client.get("q"), None);
    client.consume(1, "q", "c");
    client.publish_with(&publish, &lifetime("0"), b"someone waits");
    assert_eq!(client.bodies(), ["someone waits"]);
}

#[test]
fn a_consumer_hears_when_its_queue_goes() {
    let server = Server::new();
    let (mut client, mut other) = (server.connect(), server.connect());
    client.declare("q");
    client.consume(1, "q", "mine");
    other.consume(1, "q", "others");
    client.send(1, &queue::Delete { queue: "q", ..Default::default() });
    client.expect(1, &queue::DeleteOk { message_count: 0 });
    client.expect(1, &basic::Cancel { consumer_tag: "mine", no_wait: true });
    other.expect(1, &basic::Cancel { consumer_tag: "others", no_wait: true });
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let server = Server::new();
    let (mut client, mut other) = (server.connect(), server.connect());
    client.send(1, &queue::Declare { queue: "q", auto_delete: true, ..Default::default() });
    client.skip::<queue::DeclareOk<'_>>();
    client.consume(1, "q", "c");
    other.consume(1, "q", "o");
    other.wire.lose();
    assert_eq!(client.count("q"), 0);
    client.send(1, &basic::Cancel { consumer_tag: "c", no_wait: false });
    client.expect(1, &basic::CancelOk { consumer_tag: "c" });
    client.send(1, &queue::Declare { queue: "q", passive: true, ..Default::default() });
    client.skip::<channel::Close<'_>>();
}

#[test]
fn server_named_queues_have_names_of_their_own() {
    let mut client = Server::new().connect();
    let mut names = Vec::new();
    for _ in 0..2 {
        client.send(1, &queue::Declare { exclusive: true, ..Default::default() });
        let Some(Seen::Method(1, payload)) = client.next() else { panic!("no answer") };
        let Ok(warren_amqp::Method::QueueDeclareOk(answer)) = warren_amqp::Method::decode(&payload)
        else {
            panic!("another answer")
        };
        assert!(answer.queue.starts_with("amq.gen-") && answer.queue.len() == 30);
        names.push(answer.queue.to_owned());
    }
    assert_ne!(names[0], names[1]);
    // No name is the last one's.
    client.send(1, &queue::Bind { exchange: "amq.direct", ..Default::default() });
    client.expect(1, &queue::BindOk {});
    let publish =
        basic::Publish { exchange: "amq.direct", routing_key: &names[1], ..Default::default() };
    client.publish_with(&publish, &BasicProperties::new(), b"x");
    assert_eq!(client.get("").as_deref(), Some("x"));
}

#[test]
fn who_does_not_read_gets_no_more_than_the_limit_and_the_rest_later() {
    let server = Server::new();
    let mut client = server.connect();
    let mut publisher = server.connect();
    client.declare("q");
    client.send(
        1,
        &basic::Consume { queue: "q", consumer_tag: "c", no_ack: true, ..Default::default() },
    );
    client.expect(1, &basic::ConsumeOk { consumer_tag: "c" });
    client.wire.stall(true);
    for _ in 0..200 {
        publisher.publish("q", &[0; 10_000]);
        server.turn();
    }
    let waiting = client.wire.transport().buffered();
    assert!((512 * 1024..1024 * 1024).contains(&waiting), "{waiting} bytes wait");
    assert!(publisher.count("q") > 100);
    client.wire.stall(false);
    let mut count = 0;
    while client.next().is_some() {
        count += 1;
    }
    assert_eq!(count, 3 * 200);
}

#[test]
fn who_asks_and_does_not_read_is_not_heard_until_it_reads() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare("q");
    client.wire.stall(true);
    let mut turns = 0;
    // 4 MiB are asked for in each turn and not taken.
    while client.wire.transport().buffered() < 8 << 20 {
        for _ in 0..4 {
            client.publish("q", &vec![0; 1 << 20]);
            client.send(1, &basic::Get { queue: "q", no_ack: true });
        }
        turns += 1;
        assert!(turns < 10);
    }
    let waiting = client.wire.transport().buffered();
    for _ in 0..4 {
        client.publish("q", &vec![0; 1 << 20]);
        client.send(1, &basic::Get { queue: "q", no_ack: true });
    }
    assert_eq!(client.wire.transport().buffered(), waiting);
    client.wire.stall(false);
    while client.next().is_some() {}
    assert_eq!(client.get("q"), None);
}

#[test]
fn a_message_lives_from_when_it_comes_and_not_from_the_turn_before() {
    let server = Server::new();
    let time = Rc::new(Cell::new(server.now));
    let wall = time.clone();
    server.engine.borrow_mut().tell_time_by(Rc::new(move || wall.get()));
    // What the hub does at the end of a turn, and then it sleeps.
    let sleep = |ms| {
        server.turn();
        server.engine.borrow_mut().set_now(time.get());
        server.engine.borrow_mut().let_time_pass();
        time.set(time.get() + Duration::from_millis(ms));
    };
    let mut client = server.connect();
    client.declare("q");
    sleep(900);
    let properties = BasicProperties { expiration: Some("150".into()), ..Default::default() };
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    client.publish_with(&publish, &properties, b"x");
    client.publish_with(&publish, &properties, b"y");
    sleep(149);
    assert_eq!(client.get("q").as_deref(), Some("x"));
    sleep(1);
    assert_eq!(client.get("q"), None);
}

#[test]
fn a_server_may_write_into_messages_when_they_came_and_where() {
    let server = Server::new();
    let existing = Some(Existing::Keep);
    server.engine.borrow_mut().interceptors =
        Interceptors { timestamp: existing, routing_node: existing };
    let mut client = server.connect();
    client.declare("q");
    // In a transaction it is the time of the publish.
    client.send(1, &tx::Select {});
    client.expect(1, &tx::SelectOk {});
    client.publish("q", b"x");
    client.send(1, &tx::Commit {});
    client.expect(1, &tx::CommitOk {});
    client.send(1, &basic::Get { queue: "q", no_ack: true });
    client.skip::<basic::GetOk<'_>>();
    let (properties, body) = client.content();
    assert_eq!((&body[..], properties.timestamp), (&b"x"[..], Some(1_000_000)));
    let came = properties.header("timestamp_in_ms").and_then(FieldValue::as_i64);
    assert_eq!(came, Some(1_000_000_000));
    assert!(properties.header("x-routed-by").is_some());
}
