//! What clients of the fuzzer say: valid methods about few names, with the arguments that make things of every kind.

use warren_amqp::frame::{self, PROTOCOL_HEADER};
use warren_amqp::method::{basic, channel, confirm, connection, exchange, queue, tx};
use warren_amqp::{BasicProperties, FieldTable, FieldValue};

use super::FRAME_MAX;

const QUEUES: [&str; 4] = ["q", "r", "s", "t"];
const EXCHANGES: [&str; 8] =
    ["", "x", "y", "z", "amq.topic", "amq.headers", "amq.rabbitmq.event", "amq.rabbitmq.trace"];
const KEYS: [&str; 8] = ["q", "r", "s", "1", "3", "#", "q.*", ""];
const CONTENT_CLASS: u16 = 60;

/// Everything up to an open virtual host and two channels.
pub(super) fn log_in(virtual_host: &str) -> Vec<u8> {
    let capabilities = FieldTable::new()
        .with("authentication_failure_close", true)
        .with("consumer_cancel_notify", true)
        .with("connection.blocked", true);
    let client_properties = FieldTable::new().with("capabilities", capabilities);
    let mut said = PROTOCOL_HEADER.to_vec();
    let (mechanism, response, locale) = ("PLAIN", &b"\0guest\0guest"[..], "en_US");
    let start_ok = connection::StartOk { client_properties, mechanism, response, locale };
    frame::write_method(&mut said, 0, &start_ok);
    let tune_ok = connection::TuneOk { channel_max: 8, frame_max: FRAME_MAX, heartbeat: 9 };
    frame::write_method(&mut said, 0, &tune_ok);
    frame::write_method(&mut said, 0, &connection::Open { virtual_host });
    for number in [1, 2] {
        frame::write_method(&mut said, number, &channel::Open {});
    }
    said
}

/// One of the things that clients say, on channel 1 or 2, about few queues and exchanges.
pub(super) fn say(out: &mut Vec<u8>, which: usize, about: usize) {
    let number = 1 + (about & 1) as u16;
    let queue = ["", "q", "r", "amq.rabbitmq.reply-to"][about >> 1 & 3];
    let exchange = ["", "x", "amq.topic", "amq.headers"][about >> 3 & 3];
    let (one, two) = (about & 0x20 != 0, about & 0x40 != 0);
    let delivery_tag = (about >> 1 & 7) as u64;
    let consumer_tag = ["", "c"][about >> 7 & 1];
    let arguments = FieldTable::new();
    macro_rules! say {
        ($($method:tt)*) => { frame::write_method(out, number, &$($method)*) };
    }
    match which % 24 {
        0 => say!(channel::Open {}),
        1 => say!(channel::Close { reply_code: 200, ..Default::default() }),
        2 => say!(channel::CloseOk {}),
        3 => {
            let arguments = arguments
                .with("x-max-length", 3)
                .with("x-message-ttl", 100)
                .with("x-dead-letter-exchange", exchange);
            say!(queue::Declare { queue, exclusive: one, arguments, ..Default::default() });
        }
        4 => say!(queue::Declare { queue, auto_delete: one, no_wait: two, ..Default::default() }),
        5 => say!(queue::Delete { queue, if_unused: one, if_empty: two, ..Default::default() }),
        6 => say!(queue::Purge { queue, ..Default::default() }),
        7 => say!(queue::Bind { queue, exchange, routing_key: "#", ..Default::default() }),
        8 => say!(queue::Unbind { queue, exchange, routing_key: "#", ..Default::default() }),
        9 => {
            let kind = if two { "fanout" } else { "topic" };
            say!(exchange::Declare { exchange, kind, auto_delete: one, ..Default::default() });
        }
        10 => say!(exchange::Delete { exchange, if_unused: one, ..Default::default() }),
        11 => say!(exchange::Bind {
            destination: "x",
            source: exchange,
            routing_key: "#",
            ..Default::default()
        }),
        12 => say!(basic::Consume {
            queue,
            consumer_tag,
            no_ack: one,
            exclusive: two,
            ..Default::default()
        }),
        13 => say!(basic::Cancel { consumer_tag, ..Default::default() }),
        14 => say!(basic::Get { queue, no_ack: one }),
        15 => say!(basic::Ack { delivery_tag, multiple: one }),
        16 => say!(basic::Nack { delivery_tag, multiple: one, requeue: two }),
        17 => say!(basic::Qos { prefetch_size: 0, prefetch_count: 2, global: one }),
        18 => say!(confirm::Select::default()),
        19 => say!(tx::Select {}),
        20 if one => say!(tx::Rollback {}),
        20 => say!(tx::Commit {}),
        21 => say!(basic::Recover { requeue: one }),
        _ => {
            say!(basic::Publish { exchange, routing_key: queue, mandatory: one, immediate: two });
            let body = vec![b'b'; about * 64];
            frame::write_content(out, number, CONTENT_CLASS, &[0, 0], &body, FRAME_MAX);
        }
    }
}

/// The same of things that few clients say: `about` says about what, `how` how it is.
pub(super) fn say_more(out: &mut Vec<u8>, which: usize, about: usize, how: usize) {
    let number = 1 + (about & 1) as u16;
    let queue = QUEUES[about >> 1 & 3];
    let exchange = EXCHANGES[about >> 3 & 7];
    let routing_key = KEYS[how >> 5 & 7];
    let (one, two) = (about & 0x40 != 0, about & 0x80 != 0);
    let delivery_tag = (how & 0x3f) as u64;
    let consumer_tag = ["", "c", "d", "e"][about >> 6 & 3];
    macro_rules! say {
        ($($method:tt)*) => { frame::write_method(out, number, &$($method)*) };
    }
    match which % 20 {
        0 | 1 => {
            let (durable, arguments) = queue_arguments(how);
            let durable = durable || one;
            say!(queue::Declare { queue, durable, arguments, ..Default::default() });
        }
        2 | 3 => {
            let (kind, arguments) = exchange_arguments(how);
            let (durable, auto_delete) = (one, two);
            let exchange = EXCHANGES[1 + (about >> 3 & 1)];
            say!(exchange::Declare {
                exchange,
                kind,
                durable,
                auto_delete,
                arguments,
                ..Default::default()
            });
        }
        4 => {
            let arguments = binding_arguments(how);
            say!(queue::Bind { queue, exchange, routing_key, arguments, ..Default::default() });
        }
        5 => {
            let arguments = binding_arguments(how);
            say!(queue::Unbind { queue, exchange, routing_key, arguments });
        }
        6 => say!(exchange::Bind {
            destination: EXCHANGES[how & 7],
            source: exchange,
            routing_key,
            ..Default::default()
        }),
        7 => say!(exchange::Unbind {
            destination: EXCHANGES[how & 7],
            source: exchange,
            routing_key,
            ..Default::default()
        }),
        8..=11 => {
            say!(basic::Publish { exchange, routing_key, mandatory: one, immediate: false });
            let mut properties = Vec::new();
            said_of(how).encode(&mut properties);
            let body = vec![b'b'; if two { 5000 } else { how & 0x1f }];
            frame::write_content(out, number, CONTENT_CLASS, &properties, &body, FRAME_MAX);
        }
        12 | 13 => {
            let arguments = consumer_arguments(how);
            let no_ack = one && two;
            say!(basic::Consume { queue, consumer_tag, no_ack, arguments, ..Default::default() });
        }
        14 => {
            say!(basic::Qos { prefetch_size: 0, prefetch_count: how as u16 & 0x1f, global: one })
        }
        15 => say!(basic::Ack { delivery_tag, multiple: one }),
        16 if two => say!(basic::Nack { delivery_tag, multiple: one, requeue: how & 0x80 != 0 }),
        16 => say!(basic::Reject { delivery_tag, requeue: one }),
        17 => say!(channel::Flow { active: one }),
        18 if one => say!(queue::Delete { queue, if_empty: two, ..Default::default() }),
        18 => say!(exchange::Delete { exchange, if_unused: two, ..Default::default() }),
        _ => say!(basic::Get { queue, no_ack: one }),
    }
}

/// Whether it has to be durable, and what it is.
fn queue_arguments(how: usize) -> (bool, FieldTable) {
    let arguments = FieldTable::new();
    let dead = |exchange: &str, key: Option<&str>| {
        let table = FieldTable::new().with("x-dead-letter-exchange", exchange);
        key.map_or(table.clone(), |key| table.with("x-dead-letter-routing-key", key))
    };
    match how % 16 {
        0 | 1 => {
            let stream = arguments
                .with("x-queue-type", "stream")
                .with("x-stream-max-segment-size-bytes", 2000)
                .with("x-max-length-bytes", 6000);
            (true, if how & 0x10 != 0 { stream.with("x-max-age", "1s") } else { stream })
        }
        2 | 3 => {
            let careful = dead(["", "x"][how & 1], Some("r"))
                .with("x-queue-type", "quorum")
                .with("x-dead-letter-strategy", "at-least-once")
                .with("x-overflow", "reject-publish")
                .with("x-delivery-limit", 2);
            (true, if how & 0x10 != 0 { careful.with("x-max-length", 2) } else { careful })
        }
        4 => (false, arguments.with("x-max-priority", 3)),
        5 => (false, dead("", Some("q")).with("x-max-priority", 2).with("x-max-length-bytes", 60)),
        6 => (
            false,
            dead("x", None).with("x-overflow", "reject-publish-dlx").with("x-max-length", 1),
        ),
        7 => (false, arguments.with("x-single-active-consumer", true).with("x-expires", 50)),
        8 => (false, arguments.with("x-message-deduplication", true).with("x-cache-size", 2)),
        9 => {
            let retry = arguments.with("x-delayed-retry-type", "all");
            let retry = retry.with("x-delayed-retry-min", 10).with("x-delayed-retry-max", 30);
            (false, if how & 0x10 != 0 { retry.with("x-delivery-limit", 1) } else { retry })
        }
        10 => (false, dead("", Some("r")).with("x-message-ttl", how as i32 & 0x10)),
        11 => (false, dead("", Some("q")).with("x-message-ttl", 5).with("x-delivery-limit", 0)),
        12 => (true, arguments.with("x-queue-type", "quorum").with("x-max-length", 0)),
        13 => (false, arguments.with("x-consumer-timeout", 1000)),
        14 => (false, arguments.with("x-max-length", -1)),
        _ => (false, arguments),
    }
}

fn exchange_arguments(how: usize) -> (&'static str, FieldTable) {
    let arguments = match how >> 4 & 3 {
        0 => FieldTable::new(),
        1 => FieldTable::new().with("alternate-exchange", EXCHANGES[how & 7]),
        2 => FieldTable::new().with("x-message-deduplication", true).with("x-cache-ttl", 20),
        _ => FieldTable::new().with("x-message-deduplication", true).with("x-cache-size", 1),
    };
    let delayed = |kind: &str| arguments.clone().with("x-delayed-type", kind);
    match how & 15 {
        0 => ("x-delayed-message", delayed("direct")),
        1 => ("x-delayed-message", delayed("topic")),
        2 => ("x-delayed-message", delayed("x-consistent-hash")),
        3 => ("x-consistent-hash", arguments),
        4 => ("x-consistent-hash", arguments.with("hash-header", "a")),
        5 => ("x-consistent-hash", arguments.with("hash-property", "message_id")),
        6 => ("x-random", arguments),
        7 => ("x-local-random", arguments),
        8 => ("x-recent-history", arguments.with("x-recent-history-length", 2)),
        9 => ("x-modulus-hash", arguments),
        10 => ("headers", arguments),
        11 => ("fanout", arguments),
        12 => ("topic", arguments),
        _ => ("direct", arguments),
    }
}

fn binding_arguments(how: usize) -> FieldTable {
    let arguments = FieldTable::new();
    match how & 7 {
        0 => arguments.with("x-match", "all").with("a", 1),
        1 => arguments.with("x-match", "any").with("a", 1).with("b", "two"),
        2 => arguments.with("x-match", "any-with-x").with("x-delay", 5),
        3 => arguments.with("x-match", "neither"),
        4 => arguments.with("b", FieldValue::Void),
        _ => arguments,
    }
}

fn consumer_arguments(how: usize) -> FieldTable {
    let from = |offset: FieldValue| FieldTable::new().with("x-stream-offset", offset);
    match how & 15 {
        0 => from("first".into()),
        1 => from("last".into()),
        2 => from("next".into()),
        3 => from(FieldValue::I64((how >> 4) as i64)),
        4 => from(FieldValue::I64(-((how >> 4) as i64))),
        5 => from(FieldValue::Timestamp(1_000_000 + (how >> 4) as u64)),
        6 => from("1s".into()),
        7 => from("first".into()).with("x-stream-filter", "f"),
        8 => from("first".into())
            .with("x-stream-filter", "g")
            .with("x-stream-match-unfiltered", true),
        9 => FieldTable::new().with("x-priority", (how >> 4) as i32 - 8),
        10 => FieldTable::new().with("x-consumer-timeout", 500),
        _ => FieldTable::new(),
    }
}

/// What a message says of itself.
fn said_of(how: usize) -> BasicProperties {
    let properties =
        if how & 1 != 0 { BasicProperties::persistent() } else { BasicProperties::new() };
    let carbon = |keys: &[&str]| FieldValue::Array(keys.iter().map(|key| (*key).into()).collect());
    match how >> 1 & 15 {
        0 => properties.with_header("x-delay", 5),
        1 => properties.with_header("x-delay", i64::from(u32::MAX) + how as i64),
        2 => properties.with_header("x-delay", 0).with_header("x-deduplication-header", "a"),
        3 => properties.with_header("x-deduplication-header", how as i32 >> 5),
        4 => properties.with_header("a", 1).with_header("b", "two"),
        5 => properties.with_header("CC", carbon(&["q", "r", "#"])),
        6 => properties.with_header("BCC", carbon(&["s", "q"])).with_header("x-delay", 3),
        7 => properties.with_header("x-stream-filter-value", ["f", "g"][how >> 5 & 1]),
        8 => BasicProperties { priority: Some((how >> 5) as u8), ..properties },
        9 => BasicProperties { expiration: Some((how >> 5).to_string()), ..properties },
        10 => BasicProperties { expiration: Some("soon".into()), ..properties },
        11 => BasicProperties { reply_to: Some("amq.rabbitmq.reply-to".into()), ..properties },
        12 => {
            BasicProperties { user_id: Some(["guest", "other"][how >> 5 & 1].into()), ..properties }
        }
        13 => BasicProperties { message_id: Some("m".into()), ..properties },
        _ => properties,
    }
}

/// What an operator asks for.
pub(super) fn request(which: usize, how: usize) -> serde_json::Value {
    use serde_json::json;
    let name = ["p", "o"][how & 1];
    let vhost = ["/", "v"][how >> 1 & 1];
    let pattern = ["", "q"][how >> 6 & 1];
    let kind = ["classic", "stream"][how & 1];
    let write = ["^x", ".*"][how >> 2 & 1];
    let definition = match how >> 2 & 15 {
        0 => json!({"max-length": 1}),
        1 => json!({"max-length": 2, "overflow": "reject-publish"}),
        2 => json!({"max-length-bytes": 10, "overflow": "reject-publish-dlx"}),
        3 => json!({"message-ttl": 5}),
        4 => json!({"dead-letter-exchange": "", "dead-letter-routing-key": "r"}),
        5 => json!({"dead-letter-exchange": "x", "max-length": 0}),
        6 => json!({"expires": 20}),
        7 => json!({"alternate-exchange": "y"}),
        8 => json!({"delivery-limit": 1}),
        9 => json!({"max-age": "1s", "max-length-bytes": 1}),
        10 => json!({"delayed-retry-type": "all", "delayed-retry-min": 7, "delayed-retry-max": 9}),
        11 => json!({"dead-letter-strategy": "at-least-once"}),
        12 => json!({"consumer-timeout": 100}),
        _ => json!({"message-ttl": 0, "max-length": 3}),
    };
    let (queue, operator) = (QUEUES[how >> 2 & 3], how & 1 != 0);
    match which % 12 {
        0..=3 => json!({
            "op": "set_policy", "vhost": vhost, "name": name, "pattern": pattern, "definition": definition,
            "priority": how >> 4, "apply_to": "all", "operator": operator && which.is_multiple_of(4),
        }),
        4 | 5 => json!({"op": "clear_policy", "vhost": vhost, "name": name}),
        6 => json!({"op": "delete_queue", "vhost": vhost, "name": queue}),
        7 => json!({"op": "purge_queue", "vhost": vhost, "name": queue}),
        8 => json!({"op": "delete_vhost", "name": "v"}),
        9 => {
            json!({"op": "add_vhost", "name": "v", "default_queue_type": kind})
        }
        10 => json!({"op": "list_queues"}),
        _ => json!({
            "op": "set_permissions", "user": "guest", "vhost": vhost, "configure": ".*", "write": write,
            "read": ".*",
        }),
    }
}
