//! What holds for a queue: its arguments, checked as RabbitMQ checks them, and what policies add to them.

use compact_str::CompactString;
use serde_json::{Map, Value};
use warren_amqp::{FieldTable, FieldValue};

use crate::erlang;
use crate::exception::Exception;
use crate::queue::retries::Retry;
use crate::stream::settings as stream;

/// RabbitMQ's limit for times: ten years, in milliseconds.
const TIME_MS_MAX: i64 = 10 * 365 * 24 * 3600 * 1000;
/// Deliveries that fail before a quorum queue gives up a message, since RabbitMQ 4.0.
const QUORUM_DELIVERY_LIMIT: u32 = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Overflow {
    #[default]
    DropHead,
    RejectPublish,
    RejectPublishDlx,
}

/// What a queue does, its arguments and policies taken together.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Settings {
    pub(crate) message_ttl_ms: Option<u64>,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) length_max: Option<u64>,
    pub(crate) bytes_max: Option<u64>,
    pub(crate) overflow: Overflow,
    pub(crate) dead_letter_exchange: Option<CompactString>,
    pub(crate) dead_letter_routing_key: Option<CompactString>,
    /// A dead letter stays until its targets have taken it. As in RabbitMQ only for quorum queues that refuse
    /// what is too much: what waits here counts, and must not push other messages out.
    pub(crate) dead_letters_stay: bool,
    pub(crate) priority_max: u8,
    pub(crate) single_active: bool,
    /// How long a consumer may hold a message.
    pub(crate) consumer_timeout_ms: Option<u64>,
    /// Messages carry the header `x-delivery-count` when they come again.
    pub(crate) counts_deliveries: bool,
    /// `None`: any number of deliveries may fail.
    pub(crate) delivery_limit: Option<u32>,
    /// How long messages wait that come back.
    pub(crate) retry: Option<Retry>,
}

impl Settings {
    /// The arguments must have passed [`check`]. For numbers the smaller of argument and policy holds, for the
    /// rest the argument.
    pub(crate) fn new(kind: &str, arguments: &FieldTable, policy: &Map<String, Value>) -> Self {
        let number = |key: &str| arguments.get(&format!("x-{key}")).and_then(FieldValue::as_i64);
        let least = |key: &str| {
            let policy = policy.get(key).and_then(Value::as_i64);
            let least = match (number(key), policy) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
            least.and_then(|value| u64::try_from(value).ok())
        };
        let text = |key: &str| {
            let argument = arguments.get(&format!("x-{key}")).and_then(FieldValue::as_str);
            argument.or_else(|| policy.get(key).and_then(Value::as_str)).map(CompactString::from)
        };
        let consumer_timeout_ms = least("consumer-timeout").filter(|ms| *ms != 0);
        if kind == "stream" {
            // The rest is the stream's own.
            return Self { consumer_timeout_ms, ..Self::default() };
        }
        let quorum = kind == "quorum";
        let retry = Retry::new(arguments, policy);
        let limits =
            [number("delivery-limit"), policy.get("delivery-limit").and_then(Value::as_i64)];
        let given = limits.iter().any(Option::is_some);
        let least_limit = limits.into_iter().flatten().filter(|limit| 0 <= *limit).min();
        let default_limit = (quorum && !given).then_some(QUORUM_DELIVERY_LIMIT);
        let overflow = match text("overflow").as_deref() {
            Some("reject-publish") => Overflow::RejectPublish,
            // Quorum queues do not know it, and drop the head.
            Some("reject-publish-dlx") if !quorum => Overflow::RejectPublishDlx,
            _ => Overflow::DropHead,
        };
        Self {
            message_ttl_ms: least("message-ttl"),
            expires_ms: least("expires"),
            length_max: least("max-length"),
            bytes_max: least("max-length-bytes"),
            overflow,
            dead_letter_exchange: text("dead-letter-exchange"),
            dead_letter_routing_key: text("dead-letter-routing-key"),
            dead_letters_stay: quorum
                && overflow == Overflow::RejectPublish
                && text("dead-letter-exchange").is_some()
                && text("dead-letter-strategy").as_deref() == Some("at-least-once"),
            priority_max: number("max-priority").and_then(|max| max.try_into().ok()).unwrap_or(0),
            single_active: arguments.get("x-single-active-consumer").and_then(FieldValue::as_bool)
                == Some(true),
            consumer_timeout_ms,
            counts_deliveries: quorum || given || retry.is_some(),
            delivery_limit: least_limit
                .map(|limit| limit.try_into().unwrap_or(u32::MAX))
                .or(default_limit),
            retry,
        }
    }

    /// When a message expires that came in at a time, which is 0 if none of its queues had a time to live then.
    pub(crate) fn expires_ms(&self, message_ms: u64, published_ms: u64) -> u64 {
        match self.message_ttl_ms {
            // Not of the time to live that the queue has got since.
            Some(ttl_ms) if published_ms != 0 => {
                message_ms.min(published_ms.saturating_add(ttl_ms))
            }
            _ => message_ms,
        }
    }

    /// Whether anything can make a message that comes in push others out, or be refused.
    pub(crate) fn is_limited(&self) -> bool {
        self.length_max.is_some() || self.bytes_max.is_some()
    }

    /// Whether a queue of this size has too much.
    pub(crate) fn is_over(&self, length: u64, bytes: u64) -> bool {
        self.length_max.is_some_and(|max| max < length)
            || self.bytes_max.is_some_and(|max| max < bytes)
    }
}

/// What the value of an argument must be.
enum Rule {
    /// Milliseconds, and whether there may be none.
    Time {
        zero: bool,
    },
    Whole,
    /// Not 0.
    Positive,
    Age,
    Priority,
    Limit,
    Text,
    RoutingKey,
    Bool,
    Version,
    OneOf(&'static [&'static str], fn(&str) -> String),
}

/// In the order in which RabbitMQ compares them.
const RULES: &[(&str, Rule)] = &[
    ("x-expires", Rule::Time { zero: false }),
    ("x-message-ttl", Rule::Time { zero: true }),
    ("x-dead-letter-exchange", Rule::Text),
    ("x-dead-letter-routing-key", Rule::RoutingKey),
    (
        "x-dead-letter-strategy",
        Rule::OneOf(&["at-most-once", "at-least-once"], |_| "invalid_dlx_strategy".into()),
    ),
    ("x-max-length", Rule::Whole),
    ("x-max-length-bytes", Rule::Whole),
    ("x-max-in-memory-length", Rule::Whole),
    ("x-max-in-memory-bytes", Rule::Whole),
    ("x-max-priority", Rule::Priority),
    (
        "x-overflow",
        Rule::OneOf(&["drop-head", "reject-publish", "reject-publish-dlx"], |_| {
            "invalid_overflow".into()
        }),
    ),
    (
        "x-queue-mode",
        Rule::OneOf(&["default", "lazy"], |mode| {
            erlang::quoted(&format!("unsupported queue mode '{mode}'"))
        }),
    ),
    ("x-queue-version", Rule::Version),
    ("x-single-active-consumer", Rule::Bool),
    ("x-consumer-timeout", Rule::Time { zero: true }),
    (
        "x-delayed-retry-type",
        Rule::OneOf(&["disabled", "all", "failed", "returned"], |kind| {
            erlang::quoted(&format!("unsupported delayed retry type '{kind}'"))
        }),
    ),
    ("x-delayed-retry-min", Rule::Whole),
    ("x-delayed-retry-max", Rule::Whole),
    ("x-message-deduplication", Rule::Bool),
    ("x-deduplication-header", Rule::Text),
    ("x-cache-size", Rule::Positive),
    ("x-cache-ttl", Rule::Time { zero: false }),
    ("x-delivery-limit", Rule::Limit),
    ("x-max-age", Rule::Age),
    ("x-stream-max-segment-size-bytes", Rule::Whole),
    ("x-initial-cluster-size", Rule::Positive),
    (
        "x-queue-leader-locator",
        Rule::OneOf(&["client-local", "balanced", "least-leaders", "random"], |_| {
            "invalid_queue_locator_arg".into()
        }),
    ),
];

const NOT_CLASSIC: &[&str] = &[
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-dead-letter-strategy",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-initial-cluster-size",
    "x-queue-leader-locator",
];
const NOT_QUORUM: &[&str] = &[
    "x-max-priority",
    "x-queue-mode",
    "x-queue-version",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-initial-cluster-size",
];
const NOT_STREAM: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-length",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-delivery-limit",
    "x-delayed-retry-type",
    "x-delayed-retry-min",
    "x-delayed-retry-max",
    "x-message-deduplication",
    "x-quorum-initial-group-size",
    "x-queue-master-locator",
];

/// Checks the arguments of a queue to be. Those that nobody knows are kept and mean nothing.
///
/// # Errors
/// In RabbitMQ's words.
pub(crate) fn check(what: &str, kind: &str, arguments: &FieldTable) -> Result<(), Exception> {
    let foreign = match kind {
        "quorum" => NOT_QUORUM,
        "stream" => NOT_STREAM,
        _ => NOT_CLASSIC,
    };
    if let Some((key, _)) = arguments.iter().find(|(key, _)| foreign.contains(key)) {
        return Err(Exception::precondition(format!(
            "invalid arg '{key}' for {} of queue type rabbit_{kind}_queue",
            what
        )));
    }
    for (key, rule) in RULES {
        let Some(value) = arguments.get(key) else { continue };
        if *key == "x-dead-letter-exchange" && value.as_str().is_none() {
            return Err(Exception::precondition(format!(
                "invalid type '{}' for arg '{key}' in {}",
                value.type_name(),
                what
            )));
        }
        rule.check(value, arguments).map_err(|why| {
            Exception::precondition(format!("invalid arg '{key}' for {what}: {why}"))
        })?;
    }
    Ok(())
}

/// What RabbitMQ looks at only when a stream is made.
///
/// # Errors
/// In RabbitMQ's words.
pub(crate) fn check_stream(arguments: &FieldTable) -> Result<(), Exception> {
    let number = |key: &str| arguments.get(key).and_then(FieldValue::as_i64);
    let segment_bytes = number("x-stream-max-segment-size-bytes");
    if segment_bytes.is_some_and(|bytes| stream::SEGMENT_BYTES_MAX < bytes) {
        let text = "Exceeded max value for x-stream-max-segment-size-bytes";
        return Err(Exception::precondition(text));
    }
    if number("x-stream-filter-size-bytes").is_some_and(|bytes| !(16..=255).contains(&bytes)) {
        let text = "Invalid value for  x-stream-filter-size-bytes";
        return Err(Exception::precondition(text));
    }
    Ok(())
}

impl Rule {
    fn check(&self, value: &FieldValue, arguments: &FieldTable) -> Result<(), String> {
        let kind = value.type_name();
        let whole = || {
            value.as_i64().ok_or_else(|| erlang::quoted(&format!("expected integer, got {kind}")))
        };
        let text = || value.as_str().ok_or_else(|| format!("{{unacceptable_type,{kind}}}"));
        match self {
            Rule::Time { zero } => match whole()? {
                0 if !zero => Err("{value_zero,0}".into()),
                ms if ms < 0 => Err(format!("{{value_negative,{ms}}}")),
                ms if TIME_MS_MAX < ms => Err(format!("{{value_too_large,{ms}}}")),
                _ => Ok(()),
            },
            Rule::Age => match stream::parse_age(text()?) {
                Some(_) => Ok(()),
                None => Err("invalid_max_age".into()),
            },
            Rule::Positive if whole()? == 0 => Err("{value_zero,0}".into()),
            Rule::Whole | Rule::Positive | Rule::Priority => match whole()? {
                number if number < 0 => Err(format!("{{value_negative,{number}}}")),
                number if 255 < number && matches!(self, Rule::Priority) => {
                    Err(format!("{{max_value_exceeded,{number}}}"))
                }
                _ => Ok(()),
            },
            Rule::Limit => match whole()? {
                number if number < -1 => Err(format!("{{value_negative,{number}}}")),
                _ => Ok(()),
            },
            Rule::Version => match whole()? {
                1 | 2 => Ok(()),
                other => Err(erlang::quoted(&format!("unsupported queue version '{other}'"))),
            },
            Rule::Bool => match value.as_bool() {
                Some(_) => Ok(()),
                None => Err(format!("{{unacceptable_type,{kind}}}")),
            },
            Rule::Text => text().map(drop),
            Rule::RoutingKey => {
                text()?;
                if arguments.contains_key("x-dead-letter-exchange") {
                    Ok(())
                } else {
                    Err("routing_key_but_no_dlx_defined".into())
                }
            }
            Rule::OneOf(choices, wrong) => {
                let text = text()?;
                if choices.contains(&text) { Ok(()) } else { Err(wrong(text)) }
            }
        }
    }
}

/// Compares what a queue is declared to be with what it is.
///
/// # Errors
/// For the first argument that differs.
pub(crate) fn check_equivalent(
    what: &str,
    received: &FieldTable,
    current: &FieldTable,
) -> Result<(), Exception> {
    for (key, _) in RULES {
        if let Some(difference) = difference(received.get(key), current.get(key)) {
            return Err(Exception::inequivalent(key, what, &difference));
        }
    }
    Ok(())
}

/// How an argument differs from what it is, in RabbitMQ's words; numbers of several types may be the same.
pub(crate) fn difference(
    received: Option<&FieldValue>,
    current: Option<&FieldValue>,
) -> Option<String> {
    match (received, current) {
        (None, None) => None,
        (Some(one), Some(other)) => {
            let same = one == other || (one.as_i64().is_some() && one.as_i64() == other.as_i64());
            let differ = || format!("received '{}' but current is '{}'", shown(one), shown(other));
            (!same).then(differ)
        }
        (Some(one), None) => Some(format!("received {} but current is none", described(one))),
        (None, Some(other)) => Some(format!("received none but current is {}", described(other))),
    }
}

fn described(value: &FieldValue) -> String {
    format!("the value '{}' of type '{}'", shown(value), value.type_name())
}

fn shown(value: &FieldValue) -> String {
    match (value.as_str(), value.as_i64(), value.as_bool()) {
        (Some(text), ..) => text.to_owned(),
        (_, Some(number), _) => number.to_string(),
        (.., Some(truth)) => truth.to_string(),
        _ => format!("{value:?}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use warren_amqp::FieldTable;

    use super::Settings;

    fn settings(kind: &str, arguments: &FieldTable, policy: Value) -> Settings {
        let Value::Object(policy) = policy else { panic!("no object") };
        Settings::new(kind, arguments, &policy)
    }

    #[test]
    fn the_stricter_number_and_the_arguments_text_hold() {
        let arguments = FieldTable::new()
            .with("x-max-length", 10)
            .with("x-message-ttl", 5)
            .with("x-dead-letter-exchange", "mine");
        let policy = json!({"max-length": 3, "message-ttl": 9, "dead-letter-exchange": "theirs"});
        let settings = settings("classic", &arguments, policy);
        assert_eq!((settings.length_max, settings.message_ttl_ms), (Some(3), Some(5)));
        assert_eq!(settings.dead_letter_exchange.as_deref(), Some("mine"));
    }

    #[test]
    fn quorum_queues_give_up_after_twenty_deliveries_unless_told() {
        let none = FieldTable::new();
        assert_eq!(settings("quorum", &none, json!({})).delivery_limit, Some(20));
        assert_eq!(settings("classic", &none, json!({})).delivery_limit, None);
        let unlimited = FieldTable::new().with("x-delivery-limit", -1);
        assert_eq!(settings("quorum", &unlimited, json!({})).delivery_limit, None);
        assert_eq!(
            settings("quorum", &unlimited, json!({"delivery-limit": 2})).delivery_limit,
            Some(2)
        );
    }
}
