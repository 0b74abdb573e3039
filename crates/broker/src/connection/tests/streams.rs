//! Streams: every consumer reads everything, from where it likes, as often as it likes.

mod on_disk;

use serde_json::json;
use warren_amqp::method::{EncodeMethod, basic, channel, confirm, exchange, queue, tx};
use warren_amqp::{BasicProperties, FieldTable, FieldValue, Method};

use super::{Client, Seen, Server};

fn arguments() -> FieldTable {
    FieldTable::new().with("x-queue-type", "stream")
}

fn stream(queue: &str, arguments: FieldTable) -> queue::Declare<'_> {
    queue::Declare { queue, durable: true, arguments, ..Default::default() }
}

fn begin(consumer_tag: &str, offset: impl Into<FieldValue>) -> basic::Consume<'_> {
    let arguments = FieldTable::new().with("x-stream-offset", offset);
    basic::Consume { queue: "s", consumer_tag, arguments, ..Default::default() }
}

impl Client {
    fn declare_stream(&mut self, arguments: FieldTable) {
        self.send(1, &stream("s", arguments));
        self.expect(1, &queue::DeclareOk { queue: "s", message_count: 0, consumer_count: 0 });
    }

    fn prefetch(&mut self, channel: u16, prefetch_count: u16) {
        self.send(channel, &basic::Qos { prefetch_count, ..Default::default() });
        self.expect(channel, &basic::QosOk {});
    }

    fn start(&mut self, channel: u16, consume: &basic::Consume<'_>) {
        self.send(channel, consume);
        self.expect(channel, &basic::ConsumeOk { consumer_tag: consume.consumer_tag });
    }

    fn ack(&mut self, delivery_tag: u64) {
        self.send(1, &basic::Ack { delivery_tag, multiple: true });
    }

    fn publish_many(&mut self, range: std::ops::Range<u32>) {
        for number in range {
            self.publish("s", number.to_string().as_bytes());
        }
    }

    /// What was delivered: offset and body.
    fn offsets(&mut self) -> Vec<(i64, String)> {
        let mut seen = Vec::new();
        while let Some(frame) = self.next() {
            let Seen::Method(_, payload) = frame else { panic!("{frame:?}") };
            let Ok(Method::BasicDeliver(deliver)) = Method::decode(&payload) else {
                panic!("{:?}", Method::decode(&payload))
            };
            assert!(!deliver.redelivered);
            let (properties, body) = self.content();
            let offset = properties.header("x-stream-offset").and_then(FieldValue::as_i64);
            seen.push((offset.unwrap(), String::from_utf8(body).unwrap()));
        }
        seen
    }

    /// The bodies `range`, each at the offset of its number.
    #[track_caller]
    fn expect_range(&mut self, range: std::ops::Range<i64>) {
        let want: Vec<_> = range.map(|number| (number, number.to_string())).collect();
        assert_eq!(self.offsets(), want);
    }

    /// A method ends the channel, which is opened again.
    #[track_caller]
    fn refused<M: EncodeMethod>(&mut self, method: &M, text: &str) {
        self.send(1, method);
        let info = method.info();
        let close = channel::Close {
            reply_code: 406,
            reply_text: text,
            class_id: info.class_id,
            method_id: info.method_id,
        };
        self.expect(1, &close);
        self.send(1, &channel::CloseOk {});
        self.open_channel(1);
    }
}

#[test]
fn every_consumer_reads_everything() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare_stream(arguments());
    client.publish_many(0..10);
    let mut others: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for other in &mut others {
        other.prefetch(1, 100);
        other.start(1, &begin("c", "first"));
        other.expect_range(0..10);
        other.ack(0);
    }
    assert_eq!(client.count("s"), 10);
    client.publish_many(10..13);
    for other in &mut others {
        other.expect_range(10..13);
    }
    // Again from the start, on the same channel.
    others[0].start(1, &begin("d", "first"));
    others[0].expect_range(0..13);
}

#[test]
fn an_acknowledgement_gives_credit_and_nothing_else() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare_stream(arguments());
    client.publish_many(0..20);
    client.prefetch(1, 3);
    client.start(1, &begin("c", "first"));
    client.expect_range(0..3);
    client.send(1, &basic::Ack { delivery_tag: 1, multiple: false });
    client.expect_range(3..4);
    client.send(1, &basic::Nack { delivery_tag: 3, multiple: true, requeue: true });
    client.expect_range(4..6);
    client.send(1, &basic::Reject { delivery_tag: 4, requeue: false });
    client.expect_range(6..7);
    client.send(1, &basic::Recover { requeue: true });
    client.expect(1, &basic::RecoverOk {});
    client.expect_range(7..10);
    assert_eq!(client.count("s"), 20);
    // Nothing comes after the consumer has gone, and its deliveries can be settled.
    client.send(1, &basic::Cancel { consumer_tag: "c", no_wait: false });
    client.expect(1, &basic::CancelOk { consumer_tag: "c" });
    client.ack(10);
    client.silent();
    client.send(1, &basic::Ack { delivery_tag: 10, multiple: false });
    let text = "PRECONDITION_FAILED - unknown delivery tag 10";
    client.expect_channel_close(406, text, basic::Ack::default());
}

#[test]
fn a_consumer_begins_where_it_wants() {
    let mut server = Server::new();
    let mut client = server.connect();
    client.declare_stream(arguments());
    for number in 0..10 {
        client.publish_many(number..number + 1);
        client.turn();
        server.pass_ms(1000);
    }
    client.prefetch(1, 100);
    // The first came 1,000,000 s after 1970, and one each second since.
    for (offset, from) in [
        (FieldValue::from("first"), 0),
        ("last".into(), 9),
        ("next".into(), 10),
        (0.into(), 0),
        (7.into(), 7),
        ((-2i64).into(), 8),
        ((-200i64).into(), 0),
        (FieldValue::Timestamp(1_000_004), 4),
        (FieldValue::Timestamp(0), 0),
        (FieldValue::Timestamp(1_000_050), 10),
        ("3s".into(), 7),
        ("1h".into(), 0),
    ] {
        client.start(1, &begin("c", offset.clone()));
        let want: Vec<_> = (from..10).map(|number| (number, number.to_string())).collect();
        assert_eq!(client.offsets(), want, "{offset:?}");
        client.send(1, &basic::Cancel { consumer_tag: "c", no_wait: true });
        client.ack(0);
    }
    // Without the argument with the next; beyond the end with that very message.
    client.start(1, &basic::Consume { queue: "s", consumer_tag: "d", ..Default::default() });
    client.start(1, &begin("e", 11));
    client.silent();
    client.publish_many(10..12);
    let mut seen = client.offsets();
    seen.sort();
    assert_eq!(seen.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [10, 11, 11]);
}

#[test]
fn what_streams_do_not_have_is_refused() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare_stream(arguments());
    let what = "queue 's' in vhost '/'";
    let plain = basic::Consume { queue: "s", ..Default::default() };
    let no_ack = basic::Consume { no_ack: true, ..plain.clone() };
    let text = format!("PRECONDITION_FAILED - consumer prefetch count is not set for '{what}'");
    client.refused(&plain, &text);
    client.refused(&no_ack, &text);
    client.send(1, &basic::Qos { prefetch_count: 5, global: true, ..Default::default() });
    client.expect(1, &basic::QosOk {});
    client.refused(&plain, &text);
    for (key, value, text) in [
        (
            "x-priority",
            FieldValue::from(1),
            "invalid arg 'x-priority' for {} of queue type rabbit_stream_queue",
        ),
        (
            "x-cancel-on-ha-failover",
            true.into(),
            "invalid arg 'x-cancel-on-ha-failover' for {} of queue type rabbit_stream_queue",
        ),
        (
            "x-stream-offset",
            "0s".into(),
            "invalid arg 'x-stream-offset' for {}: {invalid_stream_offset_arg,{longstr,<<\"0s\">>}}",
        ),
        (
            "x-stream-offset",
            "junk".into(),
            "invalid arg 'x-stream-offset' for {}: {invalid_stream_offset_arg,{longstr,<<\"junk\">>}}",
        ),
    ] {
        client.prefetch(1, 5);
        let arguments = FieldTable::new().with(key, value);
        let text = format!("PRECONDITION_FAILED - {}", text.replace("{}", what));
        client.refused(&basic::Consume { arguments, ..plain.clone() }, &text);
    }
    let refused_hard = |client: &mut Client, method: &dyn Fn(&mut Client), ids, text: &str| {
        method(client);
        let text = format!("NOT_IMPLEMENTED - {}", text.replace("{}", what));
        client.expect_close(540, &text, ids);
        *client = server.connect();
        client.prefetch(1, 5);
    };
    client.prefetch(1, 5);
    let consume = |client: &mut Client| client.send(1, &no_ack);
    let text = "automatic acknowledgement not supported by stream queues {}";
    refused_hard(&mut client, &consume, (60, 20), text);
    let global = |client: &mut Client| {
        client.send(1, &basic::Qos { prefetch_count: 5, global: true, ..Default::default() });
        client.expect(1, &basic::QosOk {});
        client.send(1, &plain);
    };
    refused_hard(&mut client, &global, (60, 20), "{} does not support global qos");
    let get = |client: &mut Client| client.send(1, &basic::Get { queue: "s", no_ack: true });
    refused_hard(&mut client, &get, (60, 70), "basic.get not supported by stream queues {}");
    let purge = |client: &mut Client| client.send(1, &queue::Purge { queue: "s", no_wait: false });
    refused_hard(&mut client, &purge, (50, 30), "queue.purge not supported by stream queues {}");
}

#[test]
fn a_stream_is_declared_as_in_rabbitmq() {
    let server = Server::new();
    let mut client = server.connect();
    let refuse = |client: &mut Client, declare: queue::Declare<'_>, text: &str| {
        client.refused(&declare, &format!("PRECONDITION_FAILED - {text}"));
    };
    let plain = stream("t", arguments());
    for (declare, property) in [
        (queue::Declare { durable: false, ..plain.clone() }, "non-durable"),
        (queue::Declare { exclusive: true, ..plain.clone() }, "exclusive-owner"),
        (
            queue::Declare { auto_delete: true, durable: false, exclusive: true, ..plain.clone() },
            "auto-delete",
        ),
    ] {
        let text = format!("invalid property '{property}' for queue 't' in vhost '/'");
        refuse(&mut client, declare, &text);
    }
    for key in [
        "x-message-ttl",
        "x-expires",
        "x-max-length",
        "x-max-priority",
        "x-dead-letter-exchange",
        "x-overflow",
        "x-single-active-consumer",
        "x-queue-mode",
        "x-delivery-limit",
        "x-max-in-memory-length",
        "x-quorum-initial-group-size",
        "x-dead-letter-strategy",
    ] {
        let text = format!(
            "invalid arg '{key}' for queue 't' in vhost '/' of queue type rabbit_stream_queue"
        );
        refuse(&mut client, stream("t", arguments().with(key, 1)), &text);
    }
    for (key, value, why) in [
        ("x-max-age", FieldValue::from("7x"), "invalid_max_age"),
        ("x-max-age", 7.into(), "{unacceptable_type,signedint}"),
        ("x-max-length-bytes", "a".into(), "\"expected integer, got longstr\""),
        ("x-stream-max-segment-size-bytes", (-1).into(), "{value_negative,-1}"),
        ("x-initial-cluster-size", 0.into(), "{value_zero,0}"),
        ("x-queue-leader-locator", "foo".into(), "invalid_queue_locator_arg"),
    ] {
        let text = format!("invalid arg '{key}' for queue 't' in vhost '/': {why}");
        refuse(&mut client, stream("t", arguments().with(key, value)), &text);
    }
    let large = arguments().with("x-stream-max-segment-size-bytes", 3_000_000_001_i64);
    let text = "Exceeded max value for x-stream-max-segment-size-bytes";
    refuse(&mut client, stream("t", large), text);
    let full = arguments()
        .with("x-max-length-bytes", 1_000_000)
        .with("x-max-age", "1D")
        .with("x-stream-max-segment-size-bytes", 5000)
        .with("x-initial-cluster-size", 1)
        .with("x-queue-leader-locator", "client-local");
    client.declare_stream(full.clone());
    client.declare_stream(full.clone());
    let text = "inequivalent arg 'x-max-length-bytes' for queue 's' in vhost '/': received none but current is the \
                value '1000000' of type 'signedint'";
    refuse(&mut client, stream("s", arguments()), text);
    let mut other = full;
    other.insert("x-max-age", "2D");
    let text = "inequivalent arg 'x-max-age' for queue 's' in vhost '/': received '2D' but current is '1D'";
    refuse(&mut client, stream("s", other), text);
    let text = "inequivalent arg 'x-queue-type' for queue 's' in vhost '/': received none but current is the value \
                'stream' of type 'longstr'";
    refuse(&mut client, stream("s", FieldTable::new()), text);
}

#[test]
fn a_deleted_stream_says_so_to_its_consumers() {
    let server = Server::new();
    let mut client = server.connect();
    let mut other = server.connect();
    client.declare_stream(arguments());
    client.publish_many(0..3);
    other.prefetch(1, 1);
    other.start(1, &begin("c", "first"));
    other.expect_range(0..1);
    // RabbitMQ looks at neither condition, and does not count.
    let delete = queue::Delete { queue: "s", if_unused: true, if_empty: true, no_wait: false };
    client.send(1, &delete);
    client.expect(1, &queue::DeleteOk { message_count: 0 });
    other.expect(1, &basic::Cancel { consumer_tag: "c", no_wait: true });
    other.ack(1);
    other.silent();
    client.declare_stream(arguments());
    assert_eq!(client.count("s"), 0);
}

#[test]
fn two_exclusive_consumers_are_none_in_each_others_way() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare_stream(arguments());
    client.prefetch(1, 10);
    for tag in ["a", "b"] {
        client.start(1, &basic::Consume { exclusive: true, ..begin(tag, "first") });
    }
    client.publish_many(0..1);
    assert_eq!(client.offsets().len(), 2);
    let passive = queue::Declare { passive: true, ..stream("s", FieldTable::new()) };
    client.send(1, &passive);
    client.expect(1, &queue::DeclareOk { queue: "s", message_count: 1, consumer_count: 0 });
}

#[test]
fn messages_come_as_they_were_published() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare_stream(arguments());
    client.declare("q");
    let exchange = exchange::Declare { exchange: "x", kind: "fanout", ..Default::default() };
    client.send(1, &exchange);
    client.expect(1, &exchange::DeclareOk {});
    for queue in ["s", "q"] {
        client.send(1, &queue::Bind { queue, exchange: "x", ..Default::default() });
        client.expect(1, &queue::BindOk {});
    }
    let properties = BasicProperties::new()
        .with_content_type("text/plain")
        .with_expiration("60000")
        .with_priority(3)
        .with_header("h", "v")
        .with_header("x-stream-offset", "mine");
    let publish = basic::Publish { exchange: "x", routing_key: "k", ..Default::default() };
    client.publish_with(&publish, &properties, b"both");
    assert_eq!(client.get("q").as_deref(), Some("both"));
    client.prefetch(1, 10);
    client.start(1, &begin("c", "first"));
    client.expect(
        1,
        &basic::Deliver {
            consumer_tag: "c",
            delivery_tag: 2,
            redelivered: false,
            exchange: "x",
            routing_key: "k",
        },
    );
    let mut want = properties;
    let headers = FieldTable::new().with("x-stream-offset", 0_i64).with("h", "v");
    want.headers = Some(headers);
    assert_eq!(client.content(), (want, b"both".to_vec()));
}

#[test]
fn a_filter_chooses_messages_by_their_value() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare_stream(arguments());
    for number in 0..30 {
        let mut properties = BasicProperties::new();
        if let Some(value) = [None, Some("a"), Some("b")][number % 3] {
            properties = properties.with_header("x-stream-filter-value", value);
        }
        let publish = basic::Publish { routing_key: "s", ..Default::default() };
        client.publish_with(&publish, &properties, number.to_string().as_bytes());
        if number % 5 == 0 {
            client.turn();
        }
    }
    client.prefetch(1, 100);
    let array = FieldValue::Array(vec!["a".into(), "b".into()]);
    for (filter, unfiltered, wanted) in [
        (FieldValue::from("a"), false, &[1][..]),
        ("b".into(), true, &[0, 2]),
        (array, false, &[1, 2]),
        ("c".into(), false, &[]),
    ] {
        let arguments = FieldTable::new()
            .with("x-stream-offset", "first")
            .with("x-stream-filter", filter)
            .with("x-stream-match-unfiltered", unfiltered);
        client.start(1, &basic::Consume { arguments, ..begin("c", "first") });
        let want: Vec<i64> = (0..30).filter(|number| wanted.contains(&(number % 3))).collect();
        let seen: Vec<i64> = client.offsets().into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(seen, want);
        client.send(1, &basic::Cancel { consumer_tag: "c", no_wait: true });
        client.ack(0);
    }
}

#[test]
fn a_transaction_and_a_dead_letter_end_in_a_stream() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare_stream(arguments());
    client.send(1, &tx::Select {});
    client.expect(1, &tx::SelectOk {});
    client.publish_many(0..2);
    client.send(1, &tx::Rollback {});
    client.expect(1, &tx::RollbackOk {});
    client.publish_many(0..2);
    client.send(1, &tx::Commit {});
    client.expect(1, &tx::CommitOk {});
    assert_eq!(client.count("s"), 2);
    let mut other = server.connect();
    let dead = FieldTable::new()
        .with("x-dead-letter-exchange", "")
        .with("x-dead-letter-routing-key", "s")
        .with("x-max-length", 0);
    other.send(1, &queue::Declare { queue: "q", arguments: dead, ..Default::default() });
    other.expect(1, &queue::DeclareOk { queue: "q", message_count: 0, consumer_count: 0 });
    other.send(1, &confirm::Select { no_wait: false });
    other.expect(1, &confirm::SelectOk {});
    let publish = basic::Publish { routing_key: "q", mandatory: true, ..Default::default() };
    other.publish_with(&publish, &BasicProperties::new(), b"2");
    other.expect(1, &basic::Ack { delivery_tag: 1, multiple: false });
    other.prefetch(1, 10);
    other.start(1, &begin("c", "first"));
    other.expect_range(0..3);
}

#[test]
fn what_is_too_much_or_too_old_goes_by_segments() {
    let mut server = Server::new();
    let mut client = server.connect();
    let small = arguments()
        .with("x-stream-max-segment-size-bytes", 1000)
        .with("x-max-length-bytes", 3000)
        .with("x-max-age", "10s");
    client.declare_stream(small);
    for number in 0..200 {
        client.publish_many(number..number + 1);
        client.turn();
    }
    let kept = client.count("s");
    assert!((20..60).contains(&kept), "{kept}");
    client.prefetch(1, 1);
    client.start(1, &begin("c", "first"));
    let first = 200 - i64::from(kept);
    client.expect_range(first..first + 1);
    // Without traffic, too.
    server.pass(5);
    assert_eq!(client.count("s"), kept);
    server.pass(10);
    assert_eq!(client.count("s"), 0);
    // A consumer that stood in what has gone goes on behind it.
    client.publish_many(200..202);
    client.ack(1);
    client.expect_range(200..201);
}

#[test]
fn a_policy_says_how_much_is_kept() {
    let mut server = Server::new();
    let mut client = server.connect();
    client.declare_stream(arguments());
    client.publish_many(0..5);
    server.pass(20);
    assert_eq!(client.count("s"), 5);
    let request = json!({
        "op": "set_policy", "name": "short", "pattern": "^s$", "apply_to": "streams",
        "definition": {"max-age": "10s"},
    });
    let request = serde_json::from_value(request).unwrap();
    server.administer(request).unwrap();
    assert_eq!(client.count("s"), 0);
    client.publish_many(5..7);
    assert_eq!(client.count("s"), 2);
    server.pass(20);
    assert_eq!(client.count("s"), 0);
}

#[test]
fn who_does_not_read_is_not_read_for_and_others_have_their_turn() {
    let server = Server::new();
    let mut client = server.connect();
    client.declare_stream(arguments());
    client.declare("q");
    let body = "x".repeat(10_000);
    for _ in 0..500 {
        client.publish("s", body.as_bytes());
        client.turn();
    }
    let mut slow = server.connect();
    let mut fast = server.connect();
    for other in [&mut slow, &mut fast] {
        other.prefetch(1, 1000);
        other.start(1, &basic::Consume { no_wait: false, ..begin("c", "first") });
        other.send(1, &basic::Cancel { consumer_tag: "c", no_wait: true });
        assert!(other.offsets().len() <= 500);
    }
    slow.wire.stall(true);
    slow.send(1, &begin("d", "first"));
    slow.turn();
    let held = slow.wire.transport().buffered();
    assert!((500_000..900_000).contains(&held), "{held}");
    client.publish("q", b"classic");
    assert_eq!(client.get("q").as_deref(), Some("classic"));
    fast.start(1, &begin("d", 490));
    assert_eq!(fast.offsets().len(), 10);
    slow.wire.stall(false);
    slow.expect(1, &basic::ConsumeOk { consumer_tag: "d" });
    assert_eq!(slow.offsets().len(), 500);
}
