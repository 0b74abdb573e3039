//! Dead letters that stay until their targets have taken them.

use std::collections::BTreeSet;

use serde_json::json;
use warren_amqp::method::{basic, channel, confirm, exchange, queue};
use warren_amqp::{BasicProperties, FieldTable};

use super::storing::{killed, open, open_at};
use super::{Client, Server};
use crate::store::pages::{Pages, Window};

fn declare_with(client: &mut Client, queue: &str, arguments: FieldTable) {
    client.send(1, &queue::Declare { queue, arguments, ..Default::default() });
    client.expect(1, &queue::DeclareOk { queue, message_count: 0, consumer_count: 0 });
}

/// What a queue must be whose dead letters stay until the queue `dead` has taken them.
fn at_least_once() -> FieldTable {
    at_least_once_to("").with("x-dead-letter-routing-key", "dead")
}

fn at_least_once_to(exchange: &str) -> FieldTable {
    FieldTable::new()
        .with("x-queue-type", "quorum")
        .with("x-overflow", "reject-publish")
        .with("x-dead-letter-strategy", "at-least-once")
        .with("x-dead-letter-exchange", exchange)
}

/// Such a queue `q`, of two messages that live for ten milliseconds.
fn declare_brief(client: &mut Client) {
    let arguments = at_least_once().with("x-max-length", 2).with("x-message-ttl", 10);
    client.send(1, &queue::Declare { queue: "q", durable: true, arguments, ..Default::default() });
    client.skip::<queue::DeclareOk<'_>>();
}

/// A queue `q` that is to be what a policy says.
fn declare_quorum(client: &mut Client) {
    let arguments = FieldTable::new().with("x-queue-type", "quorum");
    client.send(1, &queue::Declare { queue: "q", durable: true, arguments, ..Default::default() });
    client.skip::<queue::DeclareOk<'_>>();
}

fn refusing(length: i32) -> FieldTable {
    FieldTable::new().with("x-max-length", length).with("x-overflow", "reject-publish")
}

/// Rejects what comes next in a queue.
fn reject(client: &mut Client, queue: &str) -> String {
    client.send(1, &basic::Get { queue, no_ack: false });
    client.skip::<basic::GetOk<'_>>();
    let body = String::from_utf8(client.content().1).unwrap();
    client.send(1, &basic::Nack { delivery_tag: 0, multiple: true, requeue: false });
    client.silent();
    body
}

/// Dead letters that wait in `q`, and their bytes.
fn staying(server: &Server) -> (u64, u64) {
    let engine = server.engine.borrow();
    let queue = engine.queues.iter().find(|(_, queue)| queue.name == "q");
    queue.unwrap().1.staying
}

#[test]
fn a_dead_letter_waits_for_its_target() {
    let mut server = Server::new();
    let mut client = server.connect();
    declare_brief(&mut client);
    client.send(1, &confirm::Select { no_wait: true });
    for tag in 1..=2 {
        client.publish("q", b"x");
        client.expect(1, &basic::Ack { delivery_tag: tag, multiple: false });
    }
    server.pass_ms(10);
    server.turn();
    // They are dead and still count.
    assert_eq!(client.get("q"), None);
    client.publish("q", b"x");
    client.expect(1, &basic::Nack { delivery_tag: 3, multiple: false, requeue: false });
    client.declare("dead");
    server.pass_ms(1000);
    server.turn();
    assert_eq!(client.count("dead"), 2);
    client.publish("q", b"x");
    client.expect(1, &basic::Ack { delivery_tag: 4, multiple: false });
}

#[test]
fn a_dead_letter_waits_for_room_in_its_target() {
    let mut server = Server::new();
    let mut client = server.connect();
    declare_brief(&mut client);
    declare_with(&mut client, "dead", refusing(1));
    for body in ["1", "2"] {
        client.publish("q", body.as_bytes());
    }
    server.turn();
    server.pass_ms(10);
    server.turn();
    assert_eq!(client.get("dead").as_deref(), Some("1"));
    assert_eq!(client.get("dead"), None);
    server.pass_ms(1000);
    server.turn();
    assert_eq!(client.get("dead").as_deref(), Some("2"));
    server.pass_ms(1000);
    server.turn();
    assert_eq!(client.get("dead"), None);
    assert_eq!(staying(&server), (0, 0));
}

#[test]
fn a_purge_leaves_the_dead_letters_that_stay() {
    let mut server = Server::new();
    let mut client = server.connect();
    declare_brief(&mut client);
    client.publish("q", b"x");
    server.turn();
    server.pass_ms(10);
    server.turn();
    client.publish("q", b"y");
    client.send(1, &queue::Purge { queue: "q", no_wait: false });
    client.expect(1, &queue::PurgeOk { message_count: 1 });
    let rows = server.engine.borrow().queue_rows();
    assert_eq!((&rows[0]["messages"], &rows[0]["messages_ready"]), (&json!(1), &json!(0)));
    assert_eq!((&rows[0]["messages_dlx"], &rows[0]["message_bytes_dlx"]), (&json!(1), &json!(1)));
    client.declare("dead");
    server.pass_ms(1000);
    server.turn();
    assert_eq!(client.get("dead").as_deref(), Some("x"));
    assert_eq!(client.get("dead"), None);
}

#[test]
fn letters_that_wait_leave_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::new();
    let window = Window { entries: 64, bytes: 1 << 20, page_entries: 16, page_bytes: 1 << 20 };
    server.engine.borrow_mut().page_to(Pages::new(folder.path(), window));
    let mut client = server.connect();
    let arguments = at_least_once().with("x-message-ttl", 10);
    client.send(1, &queue::Declare { queue: "q", durable: true, arguments, ..Default::default() });
    client.skip::<queue::DeclareOk<'_>>();
    for round in 0..10 {
        for number in 0..200 {
            client.publish("q", format!("{}", 200 * round + number).as_bytes());
        }
        server.pass_ms(10);
        server.turn();
        let resident = server.engine.borrow().letters_resident();
        assert!(resident <= 32 + 64 + 16, "{resident} letters in memory");
    }
    assert_eq!(staying(&server).0, 2000);
    let key = server.engine.borrow().letters_resident_bytes().next().unwrap().0;
    let before = server.engine.borrow().letters_resident();
    server.engine.borrow_mut().page_letters(key);
    assert!(server.engine.borrow().letters_resident() <= before);
    server.pass_ms(1000);
    assert!(server.engine.borrow().timers() <= 4);
    client.declare("dead");
    server.pass_ms(1000);
    server.turn();
    assert_eq!(staying(&server), (0, 0));
    assert_eq!(server.engine.borrow().letters_resident(), 0);
    for number in 0..2000 {
        assert_eq!(client.get("dead"), Some(number.to_string()));
    }
    assert_eq!(client.get("dead"), None);
}

#[test]
fn every_target_has_a_letter_once_though_one_refuses() {
    let mut server = Server::new();
    let mut client = server.connect();
    let arguments = at_least_once_to("amq.fanout");
    client.send(1, &queue::Declare { queue: "q", durable: true, arguments, ..Default::default() });
    client.skip::<queue::DeclareOk<'_>>();
    for (queue, arguments) in [("a", FieldTable::new()), ("full", refusing(1)), ("b", refusing(9))]
    {
        declare_with(&mut client, queue, arguments);
        client.send(1, &queue::Bind { queue, exchange: "amq.fanout", ..Default::default() });
        client.expect(1, &queue::BindOk {});
    }
    for body in ["1", "2", "3"] {
        client.publish("q", body.as_bytes());
        reject(&mut client, "q");
    }
    for _ in 0..3 {
        server.pass_ms(1000);
        server.turn();
    }
    let counts = |client: &mut Client| ["a", "full", "b"].map(|queue| client.count(queue));
    assert_eq!(counts(&mut client), [3, 1, 3]);
    assert_eq!(staying(&server), (2, 2));
    // One that comes later gets what has waited, as a letter is routed anew.
    client.declare("late");
    client.send(1, &queue::Bind { queue: "late", exchange: "amq.fanout", ..Default::default() });
    client.expect(1, &queue::BindOk {});
    for body in ["1", "2", "3"] {
        assert_eq!(client.get("full").as_deref(), Some(body));
        assert_eq!(client.get("full"), None);
        server.pass_ms(1000);
        server.turn();
    }
    assert_eq!(counts(&mut client), [3, 0, 3]);
    assert_eq!((client.get("late"), client.get("late")), (Some("2".into()), Some("3".into())));
    assert_eq!(staying(&server), (0, 0));
}

#[test]
fn a_letter_waits_for_its_exchange() {
    let mut server = Server::new();
    let mut client = server.connect();
    let arguments = at_least_once_to("later");
    client.send(1, &queue::Declare { queue: "q", durable: true, arguments, ..Default::default() });
    client.skip::<queue::DeclareOk<'_>>();
    for number in 0..40 {
        client.publish("q", number.to_string().as_bytes());
        reject(&mut client, "q");
    }
    let kind = "fanout";
    client.send(1, &exchange::Declare { exchange: "later", kind, ..Default::default() });
    client.expect(1, &exchange::DeclareOk {});
    server.pass_ms(1000);
    server.turn();
    // Nobody is bound to it.
    assert_eq!(staying(&server).0, 40);
    client.declare("dead");
    client.send(1, &queue::Bind { queue: "dead", exchange: "later", ..Default::default() });
    client.expect(1, &queue::BindOk {});
    server.pass_ms(1000);
    server.turn();
    for number in 0..40 {
        assert_eq!(client.get("dead"), Some(number.to_string()));
    }
    assert_eq!(client.get("dead"), None);
}

#[test]
fn letters_of_a_queue_that_goes_go_with_it() {
    let mut server = Server::new();
    let mut client = server.connect();
    declare_brief(&mut client);
    client.publish("q", b"x");
    server.pass_ms(10);
    server.turn();
    client.open_channel(2);
    let delete = queue::Delete { queue: "q", if_empty: true, ..Default::default() };
    client.send(2, &delete);
    client.skip::<channel::Close<'_>>();
    client.send(1, &queue::Delete { queue: "q", ..Default::default() });
    client.expect(1, &queue::DeleteOk { message_count: 0 });
    declare_brief(&mut client);
    client.declare("dead");
    server.pass_ms(1000);
    server.turn();
    assert_eq!(client.count("dead"), 0);
    assert_eq!(server.engine.borrow().letters_resident(), 0);
}

/// Letters of a queue with one policy that wait while it gets another one.
#[track_caller]
fn check_policy(after: serde_json::Value, dead: u32, stay: u64) {
    let mut server = Server::new();
    let mut client = server.connect();
    let mut policy = json!({
        "dead-letter-strategy": "at-least-once", "overflow": "reject-publish",
        "dead-letter-exchange": "", "dead-letter-routing-key": "nowhere",
    });
    server.set_policy("q", "queues", policy.clone());
    declare_quorum(&mut client);
    client.declare("dead");
    for number in 0..40 {
        client.publish("q", number.to_string().as_bytes());
        reject(&mut client, "q");
    }
    assert_eq!(staying(&server).0, 40);
    for (key, value) in after.as_object().unwrap() {
        policy[key] = value.clone();
    }
    policy.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    server.set_policy("q", "queues", policy);
    // At once, and not with the next attempt.
    server.turn();
    assert_eq!((client.count("dead"), staying(&server).0), (dead, stay));
    client.declare("nowhere");
    server.pass_ms(1000);
    server.turn();
    assert_eq!((client.count("dead"), client.count("nowhere")), (dead, stay as u32));
    assert_eq!(staying(&server), (0, 0));
    assert_eq!(server.engine.borrow().letters_resident(), 0);
}

#[test]
fn letters_that_are_not_to_stay_any_more_are_dropped() {
    check_policy(json!({"dead-letter-strategy": "at-most-once"}), 0, 0);
    check_policy(json!({"dead-letter-strategy": null}), 0, 0);
    check_policy(json!({"overflow": "drop-head"}), 0, 0);
    check_policy(json!({"overflow": null}), 0, 0);
    check_policy(json!({"dead-letter-exchange": null, "dead-letter-routing-key": null}), 0, 0);
}

#[test]
fn letters_that_wait_go_where_they_go_now() {
    check_policy(json!({"dead-letter-routing-key": "dead"}), 40, 0);
    check_policy(json!({"max-length": 1}), 0, 40);
}

#[test]
fn the_next_letters_go_as_the_policy_says_then() {
    let server = Server::new();
    let mut client = server.connect();
    declare_quorum(&mut client);
    client.publish("q", b"1");
    client.publish("q", b"2");
    client.publish("q", b"3");
    reject(&mut client, "q");
    let policy = |strategy: &str| {
        json!({
            "dead-letter-strategy": strategy, "overflow": "reject-publish",
            "dead-letter-exchange": "", "dead-letter-routing-key": "dead",
        })
    };
    server.set_policy("q", "queues", policy("at-least-once"));
    reject(&mut client, "q");
    assert_eq!(staying(&server), (1, 1));
    server.set_policy("q", "queues", policy("at-most-once"));
    reject(&mut client, "q");
    assert_eq!(staying(&server), (0, 0));
    client.declare("dead");
    server.turn();
    assert_eq!(client.get("dead"), None);
}

#[test]
fn a_kill_loses_no_letter_wherever_it_comes() {
    const COUNT: usize = 100;
    let folder = tempfile::tempdir().unwrap();
    let (mut server, news) = open(folder.path());
    let mut client = server.connect();
    let durable = true;
    client.send(
        1,
        &queue::Declare { queue: "q", durable, arguments: at_least_once(), ..Default::default() },
    );
    server.settle(&news);
    client.skip::<queue::DeclareOk<'_>>();
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    for number in 0..COUNT {
        let body = number.to_string();
        client.publish_with(&publish, &BasicProperties::persistent(), body.as_bytes());
    }
    server.settle(&news);
    let mut taken = BTreeSet::new();
    // What is on disk is what a kill leaves. Whoever comes then finds every letter in one of the two queues.
    let check = |server: &Server, taken: &BTreeSet<String>, least_dead: usize| {
        let copied = killed(folder.path());
        let (again, _news) = open_at(copied.path(), server.now);
        let mut client = again.connect();
        let mut found = taken.clone();
        if least_dead != 0 {
            let dead: Vec<String> = std::iter::from_fn(|| client.get("dead")).collect();
            assert!(least_dead <= dead.len());
            found.extend(dead);
        }
        found.extend(std::iter::from_fn(|| client.get("q")));
        assert_eq!(found.len(), COUNT);
        again.close();
    };
    for _ in 0..COUNT / 2 {
        reject(&mut client, "q");
    }
    server.settle(&news);
    check(&server, &taken, 0);
    let arguments = refusing(10);
    client.send(1, &queue::Declare { queue: "dead", durable, arguments, ..Default::default() });
    server.settle(&news);
    client.skip::<queue::DeclareOk<'_>>();
    while taken.len() < COUNT / 2 {
        server.pass_ms(1000);
        server.settle(&news);
        check(&server, &taken, 10);
        for _ in 0..10 {
            taken.extend(client.get("dead"));
        }
        server.settle(&news);
        check(&server, &taken, 0);
    }
    assert_eq!(client.get("dead"), None);
    assert_eq!((client.count("q"), staying(&server)), (COUNT as u32 / 2, (0, 0)));
    server.close();
}
