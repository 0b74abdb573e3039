//! Messages that come back and wait.

use std::time::Duration;

use serde_json::json;
use warren_amqp::method::{basic, queue};
use warren_amqp::{BasicProperties, FieldTable, FieldValue};

use super::storing::{open, open_at};
use super::{Client, Server};

fn delayed(kind: &str, min: i32, max: i32) -> FieldTable {
    FieldTable::new()
        .with("x-delayed-retry-type", kind)
        .with("x-delayed-retry-min", min)
        .with("x-delayed-retry-max", max)
}

fn declare(client: &mut Client, arguments: FieldTable) {
    let declare = queue::Declare { queue: "q", arguments, no_wait: true, ..Default::default() };
    client.send(1, &declare);
}

/// Takes a message of the queue `q`; its number, whether it is marked, and how often it came back.
fn take(client: &mut Client) -> Option<(u64, bool, i64, String)> {
    client.send(1, &basic::Get { queue: "q", no_ack: false });
    match client.next() {
        Some(super::Seen::Method(1, payload)) => {
            let warren_amqp::Method::BasicGetOk(got) =
                warren_amqp::Method::decode(&payload).unwrap()
            else {
                return None;
            };
            let (tag, redelivered) = (got.delivery_tag, got.redelivered);
            let (properties, body) = client.content();
            let headers = properties.headers.unwrap_or_default();
            let count = headers.get("x-delivery-count").and_then(FieldValue::as_i64).unwrap_or(0);
            Some((tag, redelivered, count, String::from_utf8(body).unwrap()))
        }
        other => panic!("{other:?}"),
    }
}

fn reject(client: &mut Client, delivery_tag: u64) {
    client.send(1, &basic::Reject { delivery_tag, requeue: true });
}

fn nack(client: &mut Client, delivery_tag: u64) {
    client.send(1, &basic::Nack { delivery_tag, requeue: true, multiple: false });
}

#[test]
fn a_message_that_comes_back_waits_longer_each_time() {
    let mut server = Server::new();
    let mut client = server.connect();
    declare(&mut client, delayed("all", 100, 250));
    client.publish("q", b"x");
    for (count, wait) in [(0, 100), (1, 200), (2, 250), (3, 250)] {
        let (tag, redelivered, seen, _) = take(&mut client).unwrap();
        assert_eq!((redelivered, seen), (count != 0, count));
        if count % 2 == 0 {
            reject(&mut client, tag)
        } else {
            nack(&mut client, tag)
        }
        server.pass_ms(wait - 1);
        // It is counted as ready, and nobody gets it.
        assert_eq!(client.count("q"), 1);
        assert_eq!(take(&mut client), None);
        server.pass_ms(1);
    }
}

#[test]
fn the_type_says_who_waits() {
    for (kind, failed_waits, returned_waits) in [
        ("all", true, true),
        ("failed", true, false),
        ("returned", false, true),
        ("disabled", false, false),
    ] {
        let mut server = Server::new();
        let mut client = server.connect();
        declare(&mut client, delayed(kind, 100, 100));
        client.publish("q", b"x");
        let waits = |client: &mut Client, server: &mut Server| {
            let waits = match take(client) {
                Some((tag, ..)) => {
                    client.send(
                        1,
                        &basic::Nack { delivery_tag: tag, requeue: true, multiple: false },
                    );
                    false
                }
                None => true,
            };
            server.pass_ms(10_000);
            waits
        };
        let (tag, ..) = take(&mut client).unwrap();
        reject(&mut client, tag);
        assert_eq!(waits(&mut client, &mut server), failed_waits, "{kind}");
        let (tag, ..) = take(&mut client).unwrap();
        nack(&mut client, tag);
        assert_eq!(waits(&mut client, &mut server), returned_waits, "{kind}");
        take(&mut client).unwrap();
        client.send(1, &basic::Recover { requeue: true });
        client.skip::<basic::RecoverOk>();
        assert_eq!(waits(&mut client, &mut server), returned_waits, "{kind}");
        // A client that goes has failed.
        take(&mut client).unwrap();
        client.wire.lose();
        drop(client);
        let mut client = server.connect();
        assert_eq!(waits(&mut client, &mut server), failed_waits, "{kind}");
    }
}

#[test]
fn consumers_get_what_waited_at_its_old_place() {
    let mut server = Server::new();
    let mut client = server.connect();
    declare(&mut client, delayed("failed", 100, 1000));
    for body in ["1", "2", "3", "4"] {
        client.publish("q", body.as_bytes());
    }
    let tags: Vec<u64> = (0..3).map(|_| take(&mut client).unwrap().0).collect();
    for tag in tags {
        reject(&mut client, tag);
    }
    server.pass_ms(100);
    client.consume(1, "q", "c");
    assert_eq!(client.bodies(), ["1", "2", "3", "4"]);
}

#[test]
fn a_consumer_that_waits_is_served_on_time() {
    let mut server = Server::new();
    let mut client = server.connect();
    declare(&mut client, delayed("all", 50, 50));
    client.consume(1, "q", "c");
    client.publish("q", b"x");
    let (_, tag, ..) = client.delivery();
    reject(&mut client, tag);
    client.silent();
    assert_eq!(server.engine.borrow().next_timer(), Some(50));
    server.pass_ms(50);
    let (_, _, redelivered, body) = client.delivery();
    assert!(redelivered && body == "x");
}

#[test]
fn limits_and_purges_count_what_waits() {
    let mut server = Server::new();
    let mut client = server.connect();
    let limited =
        delayed("all", 100, 100).with("x-max-length", 2).with("x-overflow", "reject-publish");
    declare(&mut client, limited);
    client.publish("q", b"1");
    client.publish("q", b"2");
    let (tag, ..) = take(&mut client).unwrap();
    nack(&mut client, tag);
    client.publish("q", b"refused");
    assert_eq!(client.count("q"), 2);
    let delete = queue::Delete { queue: "q", if_empty: true, ..Default::default() };
    let (tag, ..) = take(&mut client).unwrap();
    client.send(1, &basic::Ack { delivery_tag: tag, multiple: false });
    assert_eq!(client.count("q"), 1);
    client.send(1, &queue::Purge { queue: "q", ..Default::default() });
    client.expect(1, &queue::PurgeOk { message_count: 1 });
    server.pass_ms(1000);
    client.send(1, &delete);
    client.expect(1, &queue::DeleteOk { message_count: 0 });

    // The head that is dropped may be one that waits.
    declare(&mut client, delayed("all", 100, 100).with("x-max-length", 1));
    client.publish("q", b"1");
    let (tag, ..) = take(&mut client).unwrap();
    nack(&mut client, tag);
    client.publish("q", b"2");
    server.pass_ms(1000);
    assert_eq!(client.count("q"), 1);
}

#[test]
fn what_waits_dies_of_age_when_its_wait_is_over_and_of_too_many_returns_at_once() {
    let mut server = Server::new();
    let mut client = server.connect();
    client.declare("dead");
    let arguments = delayed("all", 100, 100)
        .with("x-message-ttl", 150)
        .with("x-delivery-limit", 1)
        .with("x-dead-letter-exchange", "")
        .with("x-dead-letter-routing-key", "dead");
    declare(&mut client, arguments);
    client.publish("q", b"limit");
    for wait in [100, 0] {
        let (tag, ..) = take(&mut client).unwrap();
        nack(&mut client, tag);
        server.pass_ms(wait);
    }
    server.turn();
    assert_eq!(client.get("dead").as_deref(), Some("limit"));
    client.publish("q", b"old");
    server.pass_ms(60);
    let (tag, ..) = take(&mut client).unwrap();
    nack(&mut client, tag);
    server.pass_ms(99);
    assert_eq!((client.count("q"), client.count("dead")), (1, 0));
    server.pass_ms(1);
    assert_eq!((client.count("q"), client.get("dead").as_deref()), (0, Some("old")));
}

#[test]
fn a_policy_lets_messages_wait() {
    let mut server = Server::new();
    let mut client = server.connect();
    declare(&mut client, FieldTable::new().with("x-delivery-limit", 9));
    let definition = json!({"delayed-retry-type": "all", "delayed-retry-min": 70});
    server.set_policy("^q$", "classic_queues", definition);
    client.publish("q", b"x");
    let (tag, ..) = take(&mut client).unwrap();
    nack(&mut client, tag);
    assert_eq!(take(&mut client), None);
    server.pass_ms(70);
    assert!(take(&mut client).is_some());
}

#[test]
fn a_wait_goes_on_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, _news) = open(folder.path());
    let mut client = server.connect();
    let arguments = delayed("all", 1000, 5000);
    let declare = queue::Declare {
        queue: "q",
        durable: true,
        arguments,
        no_wait: true,
        ..Default::default()
    };
    client.send(1, &declare);
    for body in ["1", "2"] {
        let publish = basic::Publish { routing_key: "q", ..Default::default() };
        client.publish_with(&publish, &BasicProperties::persistent(), body.as_bytes());
    }
    let (tag, ..) = take(&mut client).unwrap();
    nack(&mut client, tag);
    server.pass_ms(400);
    server.turn();
    let now = server.now;
    server.close();

    let (mut server, _news) = open_at(folder.path(), now + Duration::from_millis(500));
    let mut client = server.connect();
    assert_eq!(client.count("q"), 2);
    let (_, redelivered, count, body) = take(&mut client).unwrap();
    assert_eq!((redelivered, count, body.as_str()), (false, 0, "2"));
    assert_eq!(take(&mut client), None);
    assert_eq!(server.engine.borrow().next_timer(), Some(100));
    server.pass_ms(100);
    let (tag, redelivered, count, body) = take(&mut client).unwrap();
    assert_eq!((redelivered, count, body.as_str()), (true, 1, "1"));
    client.send(1, &basic::Ack { delivery_tag: tag, multiple: false });
    assert_eq!(take(&mut client), None);
    server.turn();
    server.close();
    // What was acknowledged does not come again, and what is due already does not wait.
    let (server, _news) = open_at(folder.path(), now + Duration::from_secs(100));
    let mut client = server.connect();
    assert_eq!(take(&mut client).map(|(.., body)| body).as_deref(), Some("2"));
    assert_eq!(take(&mut client), None);
    server.close();
}

/// As many as one likes wait for one timer, outside memory.
#[test]
fn many_wait_for_one_timer() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::new();
    let window = crate::store::pages::Window {
        entries: 64,
        bytes: 1 << 20,
        page_entries: 16,
        page_bytes: 1 << 20,
    };
    let pages = crate::store::pages::Pages::new(folder.path(), window);
    server.engine.borrow_mut().page_to(pages);
    let mut client = server.connect();
    declare(&mut client, delayed("all", 100, 100));
    const COUNT: usize = 10_000;
    for number in 0..COUNT {
        client.publish("q", number.to_string().as_bytes());
    }
    client.consume(1, "q", "c");
    while !client.bodies().is_empty() {}
    client.send(1, &basic::Cancel { consumer_tag: "c", no_wait: true });
    // In another order than they came in.
    let odd = (0..COUNT).filter(|number| number % 2 == 1);
    for number in odd.chain((0..COUNT).filter(|number| number % 2 == 0)) {
        nack(&mut client, number as u64 + 1);
    }
    assert_eq!(client.count("q"), COUNT as u32);
    assert_eq!(client.get("q"), None);
    assert_eq!(server.engine.borrow().timers(), 1);
    server.pass_ms(100);
    server.pass_ms(1);
    server.pass_ms(1);
    assert_eq!(server.engine.borrow().timers(), 0);
    let all = std::iter::from_fn(|| client.get("q"));
    assert!(all.eq((0..COUNT).map(|number| number.to_string())));
}
