//! What dead letters say of their deaths: `x-death`, the newest first, and the headers beside it.
//!
//! The headers are written anew out of those that are there: what stays is copied as it is encoded, and nothing is
//! decoded into values of its own.

use compact_str::CompactString;
use warren_amqp::value::{RawArray, RawTable, RawValue, put_array, put_entry, put_key, put_table};
use warren_amqp::{DecodeError, RawProperties};

use crate::message::Message;

const DEATHS: &str = "x-death";
/// What is written, in the order in which it is added. The first three belong to the first death.
const OURS: [&str; 7] = [
    "x-first-death-reason",
    "x-first-death-queue",
    "x-first-death-exchange",
    "x-last-death-reason",
    "x-last-death-queue",
    "x-last-death-exchange",
    DEATHS,
];
const LATER: usize = 3;

/// How a message left a queue.
pub(super) struct Death<'a> {
    pub(super) message: &'a Message,
    pub(super) queue: &'a str,
    pub(super) reason: &'a str,
    /// In seconds since 1970.
    pub(super) time: u64,
    /// The letter has a key of its own, and goes nowhere else.
    pub(super) new_key: bool,
}

impl Death<'_> {
    /// Appends the properties of the letter: those of the message with this death, and without its expiration.
    ///
    /// # Errors
    /// When its headers are none.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        self.properties().encode_lasting(out, |headers, out| self.write_headers(headers, out))
    }

    fn properties(&self) -> RawProperties<'_> {
        RawProperties::new(self.message.content.properties())
    }

    fn write_headers(&self, headers: RawTable<'_>, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let before = deaths(headers);
        let mut missing = [true; OURS.len()];
        if before.is_some() {
            missing[..LATER].fill(false);
        }
        for entry in headers.entries() {
            let (key, _, octets) = entry?;
            match OURS.iter().position(|ours| *ours == key) {
                Some(at) if std::mem::take(&mut missing[at]) => self.write(at, before, out),
                _ if self.new_key && key == "CC" => {}
                _ => out.extend_from_slice(octets),
            }
        }
        for at in (0..OURS.len()).filter(|at| missing[*at]) {
            self.write(at, before, out);
        }
        Ok(())
    }

    fn write(&self, at: usize, before: Option<RawArray<'_>>, out: &mut Vec<u8>) {
        let values = [self.reason, self.queue, &self.message.exchange];
        if OURS[at] == DEATHS {
            put_key(out, DEATHS);
            return put_array(out, |out| self.write_deaths(before, out));
        }
        put_entry(out, OURS[at], text(values[at % values.len()]));
    }

    /// This one, and those before it. One of the same queue and reason is counted.
    fn write_deaths(&self, before: Option<RawArray<'_>>, out: &mut Vec<u8>) {
        let before = || items(before);
        let same = before().position(|(death, _)| {
            field(death, "queue") == Some(self.queue) && field(death, "reason") == Some(self.reason)
        });
        match same.and_then(|at| before().nth(at)) {
            Some((RawValue::Table(death), _)) => put_table(out, |out| count(death, out)),
            _ => put_table(out, |out| self.write_first(out)),
        }
        for (at, (_, octets)) in before().enumerate() {
            if same != Some(at) {
                out.extend_from_slice(octets);
            }
        }
    }

    fn write_first(&self, out: &mut Vec<u8>) {
        let properties = self.properties();
        put_entry(out, "count", RawValue::I64(1));
        put_entry(out, "reason", text(self.reason));
        put_entry(out, "queue", text(self.queue));
        put_entry(out, "time", RawValue::Timestamp(self.time));
        put_entry(out, "exchange", text(&self.message.exchange));
        put_key(out, "routing-keys");
        put_array(out, |out| {
            text(&self.message.routing_key).encode(out);
            copies(properties.headers()).for_each(|key| text(key).encode(out));
        });
        if let Some(expiration) = properties.expiration() {
            put_entry(out, "original-expiration", text(expiration));
        }
    }
}

/// A death that has come once more.
fn count(death: RawTable<'_>, out: &mut Vec<u8>) {
    let mut counted = false;
    for (key, value, octets) in death.entries().map_while(Result::ok) {
        if key == "count" && !std::mem::replace(&mut counted, true) {
            let count = value.to_value().ok().and_then(|value| value.as_i64()).unwrap_or(0);
            put_entry(out, key, RawValue::I64(count.saturating_add(1)));
        } else {
            out.extend_from_slice(octets);
        }
    }
    if !counted {
        put_entry(out, "count", RawValue::I64(1));
    }
}

/// A letter has come to this queue before, and nobody rejected it since: it would go round for ever.
pub(super) fn is_cycle(queue: &str, letter: RawProperties<'_>) -> bool {
    for (death, _) in items(letter.headers().and_then(deaths)) {
        if field(death, "reason") == Some("rejected") {
            return false;
        }
        if field(death, "queue") == Some(queue) {
            return true;
        }
    }
    false
}

/// The routing keys of the header `CC`.
pub(super) fn copies(headers: Option<RawTable<'_>>) -> impl Iterator<Item = &str> {
    let keys = match headers.and_then(|headers| headers.get("CC")) {
        Some(RawValue::Array(keys)) => Some(keys),
        _ => None,
    };
    items(keys).filter_map(|(key, _)| as_text(key))
}

/// The same, to be kept.
pub(super) fn copied_keys(headers: Option<RawTable<'_>>) -> Vec<CompactString> {
    copies(headers).map(Into::into).collect()
}

/// Each with its octets.
fn items<'a>(array: Option<RawArray<'a>>) -> impl Iterator<Item = (RawValue<'a>, &'a [u8])> {
    let array = array.unwrap_or_default();
    array.items().map_while(Result::ok)
}

fn deaths(headers: RawTable<'_>) -> Option<RawArray<'_>> {
    match headers.get(DEATHS) {
        Some(RawValue::Array(deaths)) => Some(deaths),
        _ => None,
    }
}

fn field<'a>(death: RawValue<'a>, key: &str) -> Option<&'a str> {
    let RawValue::Table(death) = death else { return None };
    as_text(death.get(key)?)
}

fn as_text(value: RawValue<'_>) -> Option<&str> {
    match value {
        RawValue::LongString(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}

fn text(text: &str) -> RawValue<'_> {
    RawValue::LongString(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use warren_amqp::{BasicProperties, FieldTable, FieldValue, RawProperties};

    use super::{Death, is_cycle};
    use crate::message::{Content, Message};

    /// The same by values.
    fn plainly(properties: &mut BasicProperties, death: &Death<'_>) -> Vec<FieldValue> {
        let headers = properties.headers.get_or_insert_default();
        let exchange = &*death.message.exchange;
        let mut deaths = match headers.get("x-death").and_then(FieldValue::as_array) {
            Some(deaths) => deaths.to_vec(),
            None => {
                headers.insert("x-first-death-reason", death.reason);
                headers.insert("x-first-death-queue", death.queue);
                headers.insert("x-first-death-exchange", exchange);
                Vec::new()
            }
        };
        let same = deaths.iter().position(|other| {
            field(other, "queue") == Some(death.queue)
                && field(other, "reason") == Some(death.reason)
        });
        let newest = match same.map(|at| deaths.remove(at)) {
            Some(FieldValue::Table(mut other)) => {
                let count = other.get("count").and_then(FieldValue::as_i64).unwrap_or(0);
                other.insert("count", FieldValue::I64(count.saturating_add(1)));
                other
            }
            _ => {
                let copies = headers.get("CC").and_then(FieldValue::as_array).unwrap_or_default();
                let copies = copies.iter().filter_map(FieldValue::as_str);
                let keys = std::iter::once(&*death.message.routing_key).chain(copies);
                let keys: Vec<FieldValue> = keys.map(Into::into).collect();
                let mut newest = FieldTable::new()
                    .with("count", FieldValue::I64(1))
                    .with("reason", death.reason)
                    .with("queue", death.queue)
                    .with("time", FieldValue::Timestamp(death.time))
                    .with("exchange", exchange)
                    .with("routing-keys", keys);
                if let Some(expiration) = &properties.expiration {
                    newest.push("original-expiration", expiration.as_str());
                }
                newest
            }
        };
        deaths.insert(0, FieldValue::Table(newest));
        headers.insert("x-last-death-reason", death.reason);
        headers.insert("x-last-death-queue", death.queue);
        headers.insert("x-last-death-exchange", exchange);
        headers.insert("x-death", deaths.clone());
        if death.new_key {
            headers.remove("CC");
        }
        properties.expiration = None;
        deaths
    }

    fn field<'a>(death: &'a FieldValue, key: &str) -> Option<&'a str> {
        death.as_table()?.get(key)?.as_str()
    }

    fn value() -> impl Strategy<Value = FieldValue> {
        let keys = prop::collection::vec(prop_oneof![Just("a"), Just("b.c")], 0..3);
        prop_oneof![
            Just(FieldValue::Void),
            any::<i64>().prop_map(FieldValue::I64),
            Just("text".into()),
            Just(FieldValue::LongString(vec![0xff])),
            keys.prop_map(|keys| {
                let keys: Vec<FieldValue> = keys.into_iter().map(Into::into).collect();
                keys.into()
            }),
        ]
    }

    fn headers() -> impl Strategy<Value = Vec<(&'static str, FieldValue)>> {
        let names = prop::sample::select(vec![
            "CC",
            "BCC",
            "other",
            "x-death",
            "x-first-death-queue",
            "x-last-death-reason",
        ]);
        prop::collection::vec((names, value()), 0..4)
    }

    fn deaths() -> impl Strategy<Value = Vec<(&'static str, &'static str, bool)>> {
        let queue = prop::sample::select(vec!["q", "r", "s"]);
        let reason = prop::sample::select(vec!["rejected", "expired", "maxlen"]);
        prop::collection::vec((queue, reason, any::<bool>()), 1..6)
    }

    proptest! {
        #[test]
        fn deaths_are_written_as_values_would_be(
            headers in prop::option::of(headers()),
            expiration in prop::option::of(Just("60000")),
            deaths in deaths(),
        ) {
            let properties = BasicProperties {
                headers: headers.map(|headers| headers.into_iter().collect()),
                expiration: expiration.map(Into::into),
                priority: Some(3),
                app_id: Some("app".into()),
                ..BasicProperties::persistent()
            };
            let mut message = Message::new("key".into(), Content::with_properties(&properties, b"body"));
            message.exchange = "exchange".into();
            let mut plain = properties;
            for (queue, reason, new_key) in deaths {
                let death = Death { message: &message, queue, reason, time: 7, new_key };
                let mut bytes = Vec::new();
                death.encode(&mut bytes).unwrap();
                let list = plainly(&mut plain, &death);
                prop_assert_eq!(&BasicProperties::decode(&bytes).unwrap(), &plain);
                for queue in ["q", "r", "s", "t"] {
                    let at = list.iter().position(|death| field(death, "queue") == Some(queue));
                    let want = at.is_some_and(|at| {
                        list[..=at].iter().all(|death| field(death, "reason") != Some("rejected"))
                    });
                    prop_assert_eq!(is_cycle(queue, RawProperties::new(&bytes)), want);
                }
                message.content = Content::with_properties(&plain, b"body");
            }
        }
    }
}
