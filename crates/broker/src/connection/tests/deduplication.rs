//! Queues that hold equal messages once.

use warren_amqp::method::{basic, confirm, queue};
use warren_amqp::{BasicProperties, FieldTable};

use super::storing::open;
use super::{Client, Server};

fn asks() -> FieldTable {
    FieldTable::new().with("x-message-deduplication", true)
}

fn declare(client: &mut Client, queue: &str, arguments: FieldTable) {
    client.send(1, &queue::Declare { queue, arguments, no_wait: true, ..Default::default() });
}

/// Publishes a persistent message with the value `value` to the queue `q`.
fn publish(client: &mut Client, value: &str, body: &str) {
    let headers = Some(FieldTable::new().with("x-deduplication-header", value));
    let properties = BasicProperties { headers, ..BasicProperties::persistent() };
    let publish = basic::Publish { routing_key: "q", mandatory: true, ..Default::default() };
    client.publish_with(&publish, &properties, body.as_bytes());
}

#[test]
fn a_duplicate_is_confirmed_and_dropped_while_the_first_is_held() {
    let mut client = Server::new().connect();
    declare(&mut client, "q", asks());
    client.send(1, &confirm::Select { no_wait: true });
    publish(&mut client, "a", "1");
    publish(&mut client, "a", "2");
    client.expect(1, &basic::Ack { delivery_tag: 2, multiple: true });
    assert_eq!(client.count("q"), 1);
    // Unacknowledged, and given back, it is still there.
    client.send(1, &basic::Get { queue: "q", no_ack: false });
    client.skip::<basic::GetOk<'_>>();
    client.content();
    publish(&mut client, "a", "3");
    client.expect(1, &basic::Ack { delivery_tag: 3, multiple: false });
    client.send(1, &basic::Reject { delivery_tag: 1, requeue: true });
    publish(&mut client, "a", "4");
    client.expect(1, &basic::Ack { delivery_tag: 4, multiple: false });
    assert_eq!(client.get("q").as_deref(), Some("1"));
    publish(&mut client, "a", "5");
    client.expect(1, &basic::Ack { delivery_tag: 5, multiple: false });
    assert_eq!(client.get("q").as_deref(), Some("5"));
}

#[test]
fn by_whatever_way_a_message_leaves_the_next_is_welcome() {
    let mut server = Server::new();
    let mut client = server.connect();
    client.declare("dead");
    let arguments = asks().with("x-max-length", 1).with("x-message-ttl", 50);
    let letters = arguments
        .clone()
        .with("x-dead-letter-exchange", "")
        .with("x-dead-letter-routing-key", "dead");
    for (arguments, letters) in [(arguments, 0), (letters, 1)] {
        declare(&mut client, "q", arguments);
        let deads = |client: &mut Client, more: usize| {
            let found = std::iter::from_fn(|| client.get("dead")).count();
            assert_eq!(found, letters * more);
        };
        // Expired.
        publish(&mut client, "a", "1");
        server.pass_ms(50);
        publish(&mut client, "a", "2");
        assert_eq!(client.count("q"), 1);
        // Pushed out.
        publish(&mut client, "b", "3");
        deads(&mut client, 2);
        publish(&mut client, "a", "4");
        assert_eq!(client.count("q"), 1);
        // Rejected.
        client.consume(1, "q", "c");
        let (_, delivery_tag, _, body) = client.delivery();
        assert_eq!(body, "4");
        client.send(1, &basic::Reject { delivery_tag, requeue: false });
        publish(&mut client, "a", "5");
        let (_, delivery_tag, _, body) = client.delivery();
        assert_eq!(body, "5");
        client.send(1, &basic::Cancel { consumer_tag: "c", no_wait: true });
        // Not purged: somebody holds it.
        publish(&mut client, "b", "6");
        client.send(1, &queue::Purge { queue: "q", no_wait: true });
        publish(&mut client, "a", "7");
        assert_eq!(client.count("q"), 0);
        // Purged.
        publish(&mut client, "b", "8");
        assert_eq!(client.count("q"), 1);
        client.send(1, &basic::Ack { delivery_tag, multiple: false });
        deads(&mut client, 2);
        client.send(1, &queue::Delete { queue: "q", no_wait: true, ..Default::default() });
    }
}

#[test]
fn a_fanout_reaches_the_queues_that_do_not_hold_it() {
    let mut client = Server::new().connect();
    for (name, arguments) in [("q", asks()), ("r", asks()), ("all", FieldTable::new())] {
        declare(&mut client, name, arguments);
        let bind = queue::Bind {
            queue: name,
            exchange: "amq.fanout",
            no_wait: true,
            ..Default::default()
        };
        client.send(1, &bind);
    }
    let headers = FieldTable::new().with("x-deduplication-header", 1);
    client.publish_at("amq.fanout", "", headers.clone(), "1");
    assert_eq!(client.get("r").as_deref(), Some("1"));
    client.publish_at("amq.fanout", "", headers, "2");
    let counts = ["q", "r", "all"].map(|queue| client.count(queue));
    assert_eq!(counts, [1, 1, 2]);
}

#[test]
fn what_is_stored_counts_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _news) = open(folder.path());
    let mut client = server.connect();
    let declare = queue::Declare {
        queue: "q",
        durable: true,
        arguments: asks(),
        no_wait: true,
        ..Default::default()
    };
    client.send(1, &declare);
    publish(&mut client, "a", "1");
    publish(&mut client, "b", "2");
    publish(&mut client, "a", "dropped");
    client.silent();
    server.close();

    let (server, _news) = open(folder.path());
    let mut client = server.connect();
    publish(&mut client, "a", "dropped");
    publish(&mut client, "b", "dropped");
    publish(&mut client, "c", "3");
    assert_eq!(client.count("q"), 3);
    assert_eq!(client.get("q").as_deref(), Some("1"));
    publish(&mut client, "a", "4");
    let rest: Vec<_> = std::iter::from_fn(|| client.get("q")).collect();
    assert_eq!(rest, ["2", "3", "4"]);
    server.turn();
    server.close();
}
