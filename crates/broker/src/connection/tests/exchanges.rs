//! Types of exchanges, and what exchanges do besides choosing among bindings.

use std::collections::BTreeSet;

use warren_amqp::method::{basic, confirm, exchange, queue};
use warren_amqp::{BasicProperties, FieldTable, FieldValue};

use super::{Client, Server};

impl Client {
    pub(super) fn declare_exchange(&mut self, name: &str, kind: &str, arguments: FieldTable) {
        let declare = exchange::Declare {
            exchange: name,
            kind,
            durable: true,
            arguments,
            ..Default::default()
        };
        self.send(1, &declare);
        self.expect(1, &exchange::DeclareOk {});
    }

    pub(super) fn bind(&mut self, queue: &str, exchange: &str, routing_key: &str) {
        self.send(1, &queue::Bind { queue, exchange, routing_key, ..Default::default() });
        self.expect(1, &queue::BindOk {});
    }

    fn lead(&mut self, source: &str, destination: &str) {
        self.send(1, &exchange::Bind { destination, source, ..Default::default() });
        self.expect(1, &exchange::BindOk {});
    }

    pub(super) fn publish_at(
        &mut self,
        exchange: &str,
        routing_key: &str,
        headers: FieldTable,
        body: &str,
    ) {
        let publish = basic::Publish { exchange, routing_key, ..Default::default() };
        let headers = Some(headers).filter(|headers| !headers.is_empty());
        let properties = BasicProperties { headers, ..BasicProperties::new() };
        self.publish_with(&publish, &properties, body.as_bytes());
    }

    /// Everything that is in a queue.
    fn drain(&mut self, queue: &str) -> Vec<String> {
        std::iter::from_fn(|| self.get(queue)).collect()
    }
}

fn none() -> FieldTable {
    FieldTable::new()
}

fn delay(ms: i64) -> FieldTable {
    FieldTable::new().with("x-delay", ms)
}

#[test]
fn each_message_of_a_choosing_exchange_goes_to_one_queue() {
    let mut client = Server::new().connect();
    for kind in ["x-consistent-hash", "x-modulus-hash", "x-random", "x-local-random"] {
        client.declare_exchange(kind, kind, none());
        client.publish_at(kind, "nobody", none(), "lost");
        let queues = ["a", "b", "c"].map(|name| format!("{kind}.{name}"));
        for queue in &queues {
            client.declare(queue);
            client.bind(queue, kind, "1");
        }
        for n in 0..60 {
            client.publish_at(kind, &format!("key.{n}"), none(), "x");
        }
        let counts = queues.each_ref().map(|queue| client.drain(queue).len());
        assert_eq!(counts.iter().sum::<usize>(), 60, "{kind}");
        assert!(counts.iter().all(|count| 5 < *count), "{kind}: {counts:?}");
        if kind.ends_with("hash") {
            (0..5).for_each(|_| client.publish_at(kind, "same", none(), "x"));
            let mut counts = queues.map(|queue| client.drain(&queue).len());
            counts.sort_unstable();
            assert_eq!(counts, [0, 0, 5], "{kind}");
        }
    }
}

#[test]
fn a_hash_is_of_what_the_arguments_say() {
    let mut client = Server::new().connect();
    let kind = "x-consistent-hash";
    client.declare_exchange("x", kind, FieldTable::new().with("hash-header", "id"));
    for queue in ["a", "b"] {
        client.declare(queue);
        client.bind(queue, "x", "1");
    }
    // Widths do not matter, nor does the routing key.
    for (n, id) in
        [FieldValue::I32(7), FieldValue::I64(7), FieldValue::U8(7)].into_iter().enumerate()
    {
        client.publish_at("x", &n.to_string(), FieldTable::new().with("id", id), "x");
    }
    let mut counts = [client.drain("a").len(), client.drain("b").len()];
    counts.sort_unstable();
    assert_eq!(counts, [0, 3]);
    for (arguments, text) in [
        (
            FieldTable::new().with("hash-header", "a").with("hash-property", "message_id"),
            "hash-header and hash-property are mutually exclusive",
        ),
        (FieldTable::new().with("hash-property", "app_id"), "Unsupported property: app_id"),
        (
            FieldTable::new().with("hash-header", 5),
            "Invalid argument 5, 'hash-header' must be a string",
        ),
    ] {
        client.open_channel(2);
        let declare = exchange::Declare { exchange: "y", kind, arguments, ..Default::default() };
        client.send(2, &declare);
        client.channel_2_refused(406, text);
    }
}

impl Client {
    /// Channel 2 is closed with this code and text.
    #[track_caller]
    fn channel_2_refused(&mut self, code: u16, text: &str) {
        use super::{Method, Seen, channel};
        let Some(Seen::Method(2, payload)) = self.next() else { panic!("no method on channel 2") };
        let Ok(Method::ChannelClose(close)) = Method::decode(&payload) else { panic!("no close") };
        let shown = close.reply_text.split_once(" - ").map(|(_, detail)| detail);
        assert_eq!((close.reply_code, shown), (code, Some(text)));
        self.send(2, &channel::CloseOk {});
    }
}

#[test]
fn a_new_binding_gets_the_recent_history() {
    let mut client = Server::new().connect();
    client.declare_exchange(
        "x",
        "x-recent-history",
        FieldTable::new().with("x-recent-history-length", 2),
    );
    for body in ["0", "1", "2"] {
        client.publish_at("x", "k", none(), body);
    }
    client.publish_at(
        "x",
        "k",
        FieldTable::new().with("x-recent-history-no-store", true),
        "secret",
    );
    client.declare("q");
    client.bind("q", "x", "");
    assert_eq!(client.drain("q"), ["1", "2"]);
    client.bind("q", "x", "");
    assert!(client.drain("q").is_empty());
    client.publish_at("x", "k", none(), "3");
    assert_eq!(client.drain("q"), ["3"]);
    // Through an exchange too.
    client.declare_exchange("f", "fanout", none());
    client.declare("r");
    client.bind("r", "f", "");
    client.lead("x", "f");
    assert_eq!(client.drain("r"), ["2", "3"]);
}

#[test]
fn a_delayed_message_comes_on_time_and_in_order() {
    let mut server = Server::new();
    let mut client = server.connect();
    client.declare_exchange(
        "x",
        "x-delayed-message",
        FieldTable::new().with("x-delayed-type", "topic"),
    );
    client.declare("q");
    client.bind("q", "x", "a.*");
    client.publish_at("x", "a.b", delay(300), "late");
    client.publish_at("x", "a.b", delay(100), "early");
    client.publish_at("x", "a.b", delay(100), "early too");
    client.publish_at("x", "other", delay(100), "for nobody");
    client.publish_at("x", "a.b", delay(0), "now");
    client.publish_at("x", "a.b", delay(-5), "now too");
    client.publish_at("x", "a.b", none(), "at once");
    client.publish_at("x", "a.b", delay(1 << 40), "in years");
    assert_eq!(client.drain("q"), ["now", "now too", "at once"]);
    server.pass_ms(99);
    assert!(client.drain("q").is_empty());
    assert_eq!(server.engine.borrow().next_timer(), Some(1));
    server.pass_ms(1);
    assert_eq!(client.drain("q"), ["early", "early too"]);
    server.pass_ms(200);
    client.send(1, &basic::Get { queue: "q", no_ack: true });
    client.skip::<basic::GetOk<'_>>();
    let (properties, body) = client.content();
    assert_eq!(body, b"late");
    assert_eq!(properties.header("x-delay"), Some(&FieldValue::I32(-300)));
    server.pass_ms((1 << 40) - 301);
    assert!(client.drain("q").is_empty());
    server.pass_ms(1);
    assert_eq!(client.drain("q"), ["in years"]);
}

#[test]
fn what_waits_is_confirmed_and_not_returned() {
    let mut server = Server::new();
    let mut client = server.connect();
    client.declare_exchange(
        "x",
        "x-delayed-message",
        FieldTable::new().with("x-delayed-type", "fanout"),
    );
    client.send(1, &confirm::Select { no_wait: true });
    let publish = basic::Publish { exchange: "x", mandatory: true, ..Default::default() };
    client.publish_with(&publish, &BasicProperties::new().with_header("x-delay", 50), b"x");
    client.expect(1, &basic::Ack { delivery_tag: 1, multiple: false });
    client.declare("q");
    client.bind("q", "x", "");
    server.pass_ms(50);
    assert_eq!(client.drain("q"), ["x"]);
    client.silent();
}

#[test]
fn all_keys_of_a_delayed_message_are_kept() {
    let mut server = Server::new();
    let mut client = server.connect();
    client.declare_exchange(
        "x",
        "x-delayed-message",
        FieldTable::new().with("x-delayed-type", "direct"),
    );
    for queue in ["a", "b", "c"] {
        client.declare(queue);
        client.bind(queue, "x", queue);
    }
    let keys = |key: &str| FieldValue::Array(vec![key.into()]);
    client.publish_at("x", "a", delay(10).with("CC", keys("b")).with("BCC", keys("c")), "x");
    server.pass_ms(10);
    for queue in ["a", "b", "c"] {
        client.send(1, &basic::Get { queue, no_ack: true });
        client.skip::<basic::GetOk<'_>>();
        let (properties, _) = client.content();
        assert_eq!(properties.header("CC"), Some(&keys("b")));
        assert_eq!(properties.header("BCC"), None);
    }
}

#[test]
fn what_waits_goes_with_its_exchange() {
    let mut server = Server::new();
    let mut client = server.connect();
    let arguments = || FieldTable::new().with("x-delayed-type", "fanout");
    client.declare("q");
    for round in 0..2 {
        client.declare_exchange("x", "x-delayed-message", arguments());
        client.bind("q", "x", "");
        if round == 0 {
            client.publish_at("x", "", delay(10), "gone");
            client.send(1, &exchange::Delete { exchange: "x", ..Default::default() });
            client.expect(1, &exchange::DeleteOk {});
        }
    }
    server.pass_ms(1000);
    assert!(client.drain("q").is_empty());
    assert_eq!(server.engine.borrow().next_timer(), None);
}

#[test]
fn a_delayed_exchange_passes_on_what_its_other_type_says() {
    let mut server = Server::new();
    let mut client = server.connect();
    let arguments = FieldTable::new()
        .with("x-delayed-type", "x-consistent-hash")
        .with("alternate-exchange", "other");
    client.declare_exchange("x", "x-delayed-message", arguments);
    client.declare_exchange("other", "fanout", none());
    client.declare("q");
    client.bind("q", "other", "");
    // Nobody is bound: the alternate exchange has it, but not before its time.
    client.publish_at("x", "", delay(10), "alternate");
    assert!(client.drain("q").is_empty());
    server.pass_ms(10);
    assert_eq!(client.drain("q"), ["alternate"]);
    client.open_channel(2);
    client.send(
        2,
        &queue::Bind { queue: "q", exchange: "x", routing_key: "heavy", ..Default::default() },
    );
    client.channel_2_refused(406, "The binding key must be an integer: <<\"heavy\">>");
    for arguments in [none(), FieldTable::new().with("x-delayed-type", "x-delayed-message")] {
        client.open_channel(2);
        let kind = "x-delayed-message";
        client.send(2, &exchange::Declare { exchange: "y", kind, arguments, ..Default::default() });
        client.channel_2_refused(
            406,
            "Invalid argument, 'x-delayed-type' must be an existing exchange type",
        );
    }
}

#[test]
fn an_exchange_that_deduplicates_takes_the_first() {
    let mut server = Server::new();
    let mut client = server.connect();
    let arguments = FieldTable::new()
        .with("x-message-deduplication", true)
        .with("x-cache-ttl", 100)
        .with("x-delayed-type", "fanout");
    client.declare_exchange("x", "x-delayed-message", arguments);
    client.declare("q");
    client.bind("q", "x", "");
    let id = |id: &str| FieldTable::new().with("x-deduplication-header", id);
    for (headers, body) in
        [(id("a"), "1"), (id("a"), "2"), (id("b"), "3"), (none(), "4"), (none(), "5")]
    {
        client.publish_at("x", "", headers, body);
    }
    // What waits is not its own duplicate.
    client.publish_at("x", "", id("c").with("x-delay", 50), "6");
    client.publish_at("x", "", id("c"), "7");
    assert_eq!(client.drain("q"), ["1", "3", "4", "5"]);
    server.pass_ms(100);
    client.publish_at("x", "", id("a"), "8");
    assert_eq!(client.drain("q"), ["6", "8"]);
}

#[test]
fn an_exchange_that_goes_before_the_content_is_missed() {
    use super::frame;
    let mut client = Server::new().connect();
    client.open_channel(2);
    client.declare_exchange("x", "fanout", none());
    let begin = |client: &mut Client| {
        client.send(2, &basic::Publish { exchange: "x", ..Default::default() });
        client.send(1, &exchange::Delete { exchange: "x", ..Default::default() });
        client.expect(1, &exchange::DeleteOk {});
    };
    let content = || {
        let mut bytes = Vec::new();
        frame::write_content(&mut bytes, 2, 60, &[0, 0], b"x", super::FRAME_MAX);
        bytes
    };
    begin(&mut client);
    client.declare_exchange("x", "fanout", none());
    client.declare("q");
    client.bind("q", "x", "");
    client.wire.feed(&content());
    assert_eq!(client.drain("q"), ["x"], "another of the same name takes it");
    begin(&mut client);
    client.wire.feed(&content());
    client.channel_2_refused(404, "no exchange 'x' in vhost '/'");
}

#[test]
fn a_long_chain_of_exchanges_deletes_itself() {
    let server = Server::new();
    let mut client = server.connect();
    let count = 5_000;
    for n in 0..=count {
        let name = format!("x{n}");
        let kind = "fanout";
        let declare = exchange::Declare {
            exchange: &name,
            kind,
            auto_delete: true,
            no_wait: true,
            ..Default::default()
        };
        client.send(1, &declare);
        if 0 < n {
            let source = format!("x{}", n - 1);
            let bind = exchange::Bind {
                destination: &name,
                source: &source,
                no_wait: true,
                ..Default::default()
            };
            client.send(1, &bind);
        }
    }
    let before = server.engine.borrow().exchanges.len();
    client.send(1, &exchange::Delete { exchange: &format!("x{count}"), ..Default::default() });
    client.expect(1, &exchange::DeleteOk {});
    assert_eq!(server.engine.borrow().exchanges.len(), before - count - 1);
}

#[test]
fn bindings_come_and_go_in_any_number() {
    let server = Server::new();
    let mut client = server.connect();
    let count = 10_000;
    for kind in ["direct", "fanout", "topic", "headers", "x-consistent-hash"] {
        client.declare_exchange(kind, kind, none());
        client.declare("q");
        let argument = |n: usize| FieldTable::new().with("n", n as i64);
        for n in 0..count {
            let (arguments, key) = (argument(n), (n + 1).to_string());
            let bind = queue::Bind {
                queue: "q",
                exchange: kind,
                routing_key: &key,
                no_wait: true,
                arguments,
            };
            client.send(1, &bind);
        }
        let queue = server.engine.borrow().queues.keys()[0];
        let bindings =
            || server.engine.borrow().queues.get(queue).map_or(0, |queue| queue.bindings.len());
        assert_eq!(bindings(), count, "{kind}");
        // From the middle outwards: nothing is at an end where it could be found by luck.
        for n in (0..count / 2).rev() {
            let (arguments, key) = (argument(n), (n + 1).to_string());
            client.send(
                1,
                &queue::Unbind { queue: "q", exchange: kind, routing_key: &key, arguments },
            );
            client.expect(1, &queue::UnbindOk {});
        }
        assert_eq!(bindings(), count / 2, "{kind}");
        client.send(1, &exchange::Delete { exchange: kind, ..Default::default() });
        client.expect(1, &exchange::DeleteOk {});
        assert_eq!(bindings(), 0, "{kind}");
    }
}

#[test]
fn a_message_for_very_many_queues_reaches_each_once() {
    let server = Server::new();
    let mut client = server.connect();
    for (name, kind) in [("f", "fanout"), ("t", "topic"), ("d", "direct")] {
        client.declare_exchange(name, kind, none());
    }
    client.lead("f", "t");
    client.lead("t", "d");
    // In a circle.
    client.lead("d", "f");
    let names: Vec<String> = (0..1_000).map(|n| format!("q{n}")).collect();
    for name in &names {
        client.declare(name);
        for exchange in ["f", "t", "d"] {
            client.bind(name, exchange, "");
        }
    }
    client.publish_at("f", "", none(), "x");
    let counts: BTreeSet<u32> = names.iter().map(|name| client.count(name)).collect();
    assert_eq!(counts, BTreeSet::from([1]));
}

#[test]
fn types_and_arguments_are_checked_as_rabbitmq_checks_them() {
    for (kind, text) in [
        ("nope", "COMMAND_INVALID - unknown exchange type 'nope'"),
        ("", "COMMAND_INVALID - invalid exchange type ''"),
        ("x-jms-topic", "COMMAND_INVALID - unknown exchange type 'x-jms-topic'"),
    ] {
        let mut client = Server::new().connect();
        client.send(1, &exchange::Declare { exchange: "x", kind, ..Default::default() });
        client.expect_close(503, text, (40, 10));
    }
    let mut client = Server::new().connect();
    // What is not known is kept, and not compared.
    client.declare_exchange("x", "direct", FieldTable::new().with("x-foo", 1).with("bar", none()));
    client.declare_exchange("x", "direct", none());
    client.open_channel(2);
    let arguments = FieldTable::new().with("alternate-exchange", FieldValue::Void);
    client.send(
        2,
        &exchange::Declare { exchange: "y", kind: "direct", arguments, ..Default::default() },
    );
    client.channel_2_refused(
        406,
        "invalid type 'void' for arg 'alternate-exchange' in exchange 'y' in vhost '/'",
    );
}

#[test]
fn a_route_is_found_anew_when_something_has_changed() {
    #[track_caller]
    fn check(client: &mut Client, want: &[&str]) {
        // Found, kept, and found again.
        (0..3).for_each(|_| client.publish_at("t", "a.b", none(), "x"));
        for queue in ["q", "behind", "other"] {
            let count = if want.contains(&queue) { 3 } else { 0 };
            assert_eq!(client.drain(queue).len(), count, "{queue}");
        }
    }
    let mut client = Server::new().connect();
    client.declare_exchange("t", "topic", none().with("alternate-exchange", "rest"));
    for queue in ["q", "behind", "other"] {
        client.declare(queue);
    }
    check(&mut client, &[]);
    client.declare_exchange("rest", "fanout", none());
    check(&mut client, &[]);
    client.bind("other", "rest", "");
    check(&mut client, &["other"]);
    client.bind("q", "t", "a.*");
    check(&mut client, &["q"]);
    client.declare_exchange("d", "direct", none());
    let bind =
        exchange::Bind { destination: "d", source: "t", routing_key: "#", ..Default::default() };
    client.send(1, &bind);
    client.expect(1, &exchange::BindOk {});
    check(&mut client, &["q"]);
    client.bind("behind", "d", "a.b");
    check(&mut client, &["q", "behind"]);
    let unbind =
        queue::Unbind { queue: "q", exchange: "t", routing_key: "a.*", ..Default::default() };
    client.send(1, &unbind);
    client.expect(1, &queue::UnbindOk {});
    check(&mut client, &["behind"]);
    client.send(1, &queue::Delete { queue: "behind", ..Default::default() });
    client.expect(1, &queue::DeleteOk { message_count: 0 });
    // The exchange before it still takes them.
    client.declare("behind");
    check(&mut client, &[]);
    client.send(1, &exchange::Delete { exchange: "d", ..Default::default() });
    client.expect(1, &exchange::DeleteOk {});
    check(&mut client, &["other"]);
    client.send(1, &exchange::Delete { exchange: "rest", ..Default::default() });
    client.expect(1, &exchange::DeleteOk {});
    check(&mut client, &[]);
}
