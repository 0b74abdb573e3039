//! What the arguments and policies of a stream say, and where its consumers want to begin.

use serde_json::{Map, Value};
use warren_amqp::value::RawTable;
use warren_amqp::{FieldTable, FieldValue};

use super::index::{FILTER_BYTES, FILTER_BYTES_MAX};
use crate::erlang;

/// A segment that has grown to this is followed by a new one, as in RabbitMQ.
const SEGMENT_BYTES: u64 = 500_000_000;
/// No queue may ask for larger segments.
pub(crate) const SEGMENT_BYTES_MAX: i64 = 3_000_000_000;

/// How much of a stream is kept, and in which pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamSettings {
    pub(crate) segment_bytes: u64,
    /// Whole segments go, the oldest first, while more than this is kept.
    pub(crate) bytes_max: Option<u64>,
    /// Whole segments go whose last message came longer ago.
    pub(crate) age_ms_max: Option<u64>,
    /// Octets of the filter of each block.
    pub(crate) filter_bytes: usize,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            bytes_max: None,
            age_ms_max: None,
            filter_bytes: FILTER_BYTES,
        }
    }
}

impl StreamSettings {
    /// The arguments must have been checked. The smaller of argument and policy holds.
    pub(crate) fn new(arguments: &FieldTable, policy: &Map<String, Value>) -> Self {
        let least = |key: &str| {
            let argument = arguments.get(&format!("x-{key}")).and_then(FieldValue::as_i64);
            let policy = policy.get(key).and_then(Value::as_i64);
            [argument, policy].into_iter().flatten().filter_map(|value| value.try_into().ok()).min()
        };
        let argument = arguments.get("x-max-age").and_then(FieldValue::as_str);
        let policy = policy.get("max-age").and_then(Value::as_str);
        let filter_bytes = arguments.get("x-stream-filter-size-bytes").and_then(FieldValue::as_i64);
        Self {
            segment_bytes: least("stream-max-segment-size-bytes").unwrap_or(SEGMENT_BYTES),
            bytes_max: least("max-length-bytes"),
            age_ms_max: [argument, policy].into_iter().flatten().filter_map(parse_age).min(),
            filter_bytes: filter_bytes
                .and_then(|bytes| bytes.try_into().ok())
                .map_or(FILTER_BYTES, |bytes: usize| bytes.clamp(FILTER_BYTES, FILTER_BYTES_MAX)),
        }
    }
}

/// What holds for a queue with these encoded arguments, if it is a stream.
pub(crate) fn of_definition(arguments: &[u8]) -> Option<StreamSettings> {
    let arguments = RawTable::new(arguments).to_table().ok()?;
    let kind = arguments.get("x-queue-type").and_then(FieldValue::as_str);
    (kind == Some("stream")).then(|| StreamSettings::new(&arguments, &Map::new()))
}

/// Milliseconds of an age: a whole number above 0, and one of the units Y, M (30 days), D, h, m and s.
pub(crate) fn parse_age(text: &str) -> Option<u64> {
    const DAY: u64 = 24 * 3600;
    let mut letters = text.chars();
    let seconds = match letters.next_back()? {
        'Y' => 365 * DAY,
        'M' => 30 * DAY,
        'D' => DAY,
        'h' => 3600,
        'm' => 60,
        's' => 1,
        _ => return None,
    };
    let digits = letters.as_str();
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    // As many digits as anybody likes: for ever is long enough.
    let count: u64 = digits.parse().unwrap_or(u64::MAX);
    (0 < count).then(|| count.saturating_mul(seconds).saturating_mul(1000))
}

/// Where a consumer begins (`x-stream-offset`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    First,
    /// With the last message that is there.
    Last,
    Next,
    Offset(u64),
    /// With so many of the last messages.
    FromEnd(u64),
    /// With the first message that came at this time or later, in milliseconds since 1970.
    Time(u64),
}

impl Start {
    /// # Errors
    /// What is wrong, as RabbitMQ says it.
    pub(crate) fn parse(value: Option<&FieldValue>, now_ms: u64) -> Result<Self, String> {
        let Some(value) = value else { return Ok(Start::Next) };
        let refused = |text: String| {
            Err(format!("{{invalid_stream_offset_arg,{{{},{text}}}}}", value.type_name()))
        };
        if let FieldValue::Timestamp(seconds) = value {
            return Ok(Start::Time(seconds.saturating_mul(1000)));
        }
        if let Some(text) = value.as_str() {
            return match text {
                "first" => Ok(Start::First),
                "last" => Ok(Start::Last),
                "next" => Ok(Start::Next),
                interval => match parse_age(interval) {
                    Some(age) => Ok(Start::Time(now_ms.saturating_sub(age))),
                    None => refused(erlang::binary(interval.as_bytes())),
                },
            };
        }
        match value.as_i64() {
            Some(offset) if offset < 0 => Ok(Start::FromEnd(offset.unsigned_abs())),
            Some(offset) => Ok(Start::Offset(offset.unsigned_abs())),
            None => refused(value.as_bool().map_or_else(|| "_".into(), |flag| flag.to_string())),
        }
    }
}

/// Which messages a consumer wants (`x-stream-filter`, `x-stream-match-unfiltered`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) values: Vec<Vec<u8>>,
    /// Those without a value, too.
    pub(crate) unfiltered: bool,
}

impl Filter {
    /// `None`: all of them.
    pub(crate) fn parse(arguments: &FieldTable) -> Option<Self> {
        let values = match arguments.get("x-stream-filter")? {
            FieldValue::Array(values) => {
                values.iter().filter_map(FieldValue::as_bytes).map(<[u8]>::to_vec).collect()
            }
            value => vec![value.as_bytes()?.to_vec()],
        };
        let unfiltered = arguments.get("x-stream-match-unfiltered").and_then(FieldValue::as_bool);
        Some(Self { values, unfiltered: unfiltered == Some(true) })
    }

    pub(crate) fn matches(&self, value: Option<&[u8]>) -> bool {
        match value {
            Some(value) => self.values.iter().any(|wanted| wanted == value),
            None => self.unfiltered,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};
    use warren_amqp::{FieldTable, FieldValue};

    use super::{Filter, Start, StreamSettings, parse_age};

    #[test]
    fn ages_have_a_number_and_a_unit() {
        const DAY: u64 = 24 * 3600 * 1000;
        for (text, want) in [
            ("7D", Some(7 * DAY)),
            ("1Y", Some(365 * DAY)),
            ("2M", Some(60 * DAY)),
            ("1h", Some(3_600_000)),
            ("1m", Some(60_000)),
            ("10s", Some(10_000)),
            ("99999999999999999999Y", Some(u64::MAX)),
            ("0s", None),
            ("7x", None),
            ("D", None),
            ("", None),
            ("-1D", None),
            ("1Y2M", None),
            ("7 D", None),
            ("٣D", None),
        ] {
            assert_eq!(parse_age(text), want, "{text:?}");
        }
    }

    #[test]
    fn the_smaller_of_argument_and_policy_holds() {
        let arguments = FieldTable::new()
            .with("x-max-length-bytes", 5000)
            .with("x-max-age", "1h")
            .with("x-stream-max-segment-size-bytes", 100);
        let policy = json!({"max-length-bytes": 4000, "max-age": "2h",
                            "stream-max-segment-size-bytes": 300});
        let settings = StreamSettings::new(&arguments, policy.as_object().unwrap());
        assert_eq!(settings.bytes_max, Some(4000));
        assert_eq!(settings.age_ms_max, Some(3_600_000));
        assert_eq!(settings.segment_bytes, 100);
        assert_eq!(StreamSettings::new(&FieldTable::new(), &Map::new()), StreamSettings::default());
    }

    #[track_caller]
    fn check(value: impl Into<FieldValue>, want: Result<Start, &str>) {
        let parsed = Start::parse(Some(&value.into()), 1_000_000);
        assert_eq!(parsed, want.map_err(str::to_owned));
    }

    #[test]
    fn a_consumer_says_where_it_begins() {
        assert_eq!(Start::parse(None, 0), Ok(Start::Next));
        check("first", Ok(Start::First));
        check("last", Ok(Start::Last));
        check("next", Ok(Start::Next));
        check(7, Ok(Start::Offset(7)));
        check(-7i64, Ok(Start::FromEnd(7)));
        check(FieldValue::Timestamp(5), Ok(Start::Time(5000)));
        check("10s", Ok(Start::Time(990_000)));
        check("1Y", Ok(Start::Time(0)));
        check("0s", Err("{invalid_stream_offset_arg,{longstr,<<\"0s\">>}}"));
        check("5", Err("{invalid_stream_offset_arg,{longstr,<<\"5\">>}}"));
        check(true, Err("{invalid_stream_offset_arg,{bool,true}}"));
    }

    #[test]
    fn a_filter_is_a_value_or_several() {
        assert_eq!(Filter::parse(&FieldTable::new()), None);
        let one = Filter::parse(&FieldTable::new().with("x-stream-filter", "a")).unwrap();
        assert!(one.matches(Some(b"a")) && !one.matches(Some(b"b")) && !one.matches(None));
        let values = FieldValue::Array(vec!["a".into(), "b".into(), 7.into()]);
        let two = FieldTable::new()
            .with("x-stream-filter", values)
            .with("x-stream-match-unfiltered", true);
        let two = Filter::parse(&two).unwrap();
        assert!(two.matches(Some(b"b")) && two.matches(None) && !two.matches(Some(b"7")));
    }
}
