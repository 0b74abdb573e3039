//! Deduplication in a queue: of messages that carry the same value in a header it holds one at a time.
//!
//! The names and the rules are those of a plugin for RabbitMQ. A message is a duplicate while an equal one is
//! ready or unacknowledged; when that leaves the queue, by whatever way, the next is welcome. `x-cache-ttl` (an
//! argument, or a header of the message's own) shortens that time, `x-cache-size` bounds how many values are known:
//! the oldest are forgotten first. Messages without the header pass.
//!
//! Values are known by a hash of 128 bits under a key of the process: some fifty bytes a message, however long the
//! value, and nobody who does not know the key finds two that are alike.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use compact_str::CompactString;
use rustc_hash::FxHashMap;
use warren_amqp::{FieldTable, FieldValue, RawProperties};

use crate::exchange::deduplication::{CACHE_TTL, HEADER, milliseconds};
use crate::message::Message;

/// Places of values that are forgotten which are kept until it pays to close the gaps.
const GAPS_MAX: usize = 64;

pub(crate) struct Duplicates {
    header: CompactString,
    size: Option<usize>,
    ttl_ms: Option<u64>,
    values: FxHashMap<u128, Holder>,
    /// Oldest first, if there is a size; those that are forgotten among them.
    order: VecDeque<(u128, u64)>,
    keys: [RandomState; 2],
}

/// The message for whose sake a value is known.
#[derive(Clone, Copy)]
struct Holder {
    message: u64,
    until_ms: u64,
}

/// A value that a queue does not know yet.
pub(crate) struct Fresh {
    value: u128,
    ttl_ms: Option<u64>,
}

impl Duplicates {
    /// `None` when the arguments, which have been checked, do not ask for it.
    pub(crate) fn new(arguments: &FieldTable) -> Option<Box<Self>> {
        if arguments.get("x-message-deduplication").and_then(FieldValue::as_bool) != Some(true) {
            return None;
        }
        let number = |key| arguments.get(key).and_then(FieldValue::as_i64);
        Some(Box::new(Self {
            header: arguments.get(HEADER).and_then(FieldValue::as_str).unwrap_or(HEADER).into(),
            size: number("x-cache-size").and_then(|size| size.try_into().ok()),
            ttl_ms: number(CACHE_TTL).and_then(|ms| ms.try_into().ok()),
            values: FxHashMap::default(),
            order: VecDeque::new(),
            keys: [RandomState::new(), RandomState::new()],
        }))
    }

    /// Whether an equal message is here. If not, what to remember it by; `None` for one that has no value.
    pub(crate) fn check(&self, properties: &[u8], now_ms: u64) -> Result<Option<Fresh>, Duplicate> {
        match self.value(properties) {
            Some(fresh)
                if self.values.get(&fresh.value).is_some_and(|held| now_ms < held.until_ms) =>
            {
                Err(Duplicate)
            }
            fresh => Ok(fresh),
        }
    }

    /// A message is in the queue from `since_ms` on. True if that is for some time only.
    pub(crate) fn remember(&mut self, fresh: &Fresh, message: u64, since_ms: u64) -> bool {
        let until_ms = fresh.ttl_ms.map_or(u64::MAX, |ttl_ms| since_ms.saturating_add(ttl_ms));
        self.values.insert(fresh.value, Holder { message, until_ms });
        if let Some(size) = self.size {
            self.order.push_back((fresh.value, message));
            self.forget_oldest(size);
        }
        fresh.ttl_ms.is_some()
    }

    /// A message of before a restart is there again. Later ones are the holders of what they share.
    pub(crate) fn recover(&mut self, message: &Message) {
        if let Some(fresh) = self.value(message.content.properties()) {
            self.remember(&fresh, message.id, message.published_ms);
        }
    }

    /// A message has left.
    pub(crate) fn forget(&mut self, message: &Message) {
        if let Some(Fresh { value, .. }) = self.value(message.content.properties())
            && self.values.get(&value).is_some_and(|held| held.message == message.id)
        {
            self.values.remove(&value);
            if self.values.len() + GAPS_MAX < self.order.len() / 2 {
                let values = &self.values;
                self.order.retain(|place| is_held(values, *place));
            }
        }
    }

    fn forget_oldest(&mut self, size: usize) {
        while let Some(place) = self.order.front().copied() {
            let is_held = is_held(&self.values, place);
            if is_held && self.values.len() <= size {
                return;
            }
            if is_held {
                self.values.remove(&place.0);
            }
            self.order.pop_front();
        }
    }

    fn value(&self, properties: &[u8]) -> Option<Fresh> {
        let headers = RawProperties::new(properties).headers()?;
        let value = headers.get(&self.header)?.to_value().ok()?;
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        let [high, low] = self.keys.each_ref().map(|key| key.hash_one(&bytes[..]));
        let ttl_ms = headers.get(CACHE_TTL).and_then(milliseconds).or(self.ttl_ms);
        Some(Fresh { value: u128::from(high) << 64 | u128::from(low), ttl_ms })
    }
}

fn is_held(values: &FxHashMap<u128, Holder>, (value, message): (u128, u64)) -> bool {
    values.get(&value).is_some_and(|held| held.message == message)
}

/// An equal message is in the queue.
#[derive(Debug)]
pub(crate) struct Duplicate;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use warren_amqp::{BasicProperties, FieldTable};

    use super::Duplicates;
    use crate::message::{Content, Message};

    fn duplicates(arguments: FieldTable) -> Duplicates {
        *Duplicates::new(&arguments.with("x-message-deduplication", true)).unwrap()
    }

    fn message(id: u64, headers: FieldTable) -> Message {
        let properties = BasicProperties { headers: Some(headers), ..BasicProperties::new() };
        Message {
            id,
            exchange: "".into(),
            routing_key: "".into(),
            content: Content::with_properties(&properties, b""),
            expires_ms: u64::MAX,
            published_ms: 0,
            stored: None,
            deduplicated: true,
        }
    }

    fn value(value: i32) -> FieldTable {
        FieldTable::new().with("x-deduplication-header", value)
    }

    /// True when it went in.
    fn enters(duplicates: &mut Duplicates, message: &Message, now_ms: u64) -> bool {
        let Ok(fresh) = duplicates.check(message.content.properties(), now_ms) else {
            return false;
        };
        if let Some(fresh) = fresh {
            duplicates.remember(&fresh, message.id, now_ms);
        }
        true
    }

    #[test]
    fn a_time_to_live_ends_it_while_the_message_is_still_there() {
        let mut queue = duplicates(FieldTable::new().with("x-cache-ttl", 100));
        let (first, second) = (message(1, value(7)), message(2, value(7)));
        assert!(enters(&mut queue, &first, 0));
        assert!(!enters(&mut queue, &second, 99));
        assert!(enters(&mut queue, &second, 100));
        // The value is the second one's now.
        queue.forget(&first);
        assert!(!enters(&mut queue, &message(3, value(7)), 150));
        let own = message(4, value(8).with("x-cache-ttl", 5));
        assert!(enters(&mut queue, &own, 150) && enters(&mut queue, &own, 155));
    }

    #[test]
    fn no_more_values_are_known_than_the_size_says() {
        let mut queue = duplicates(FieldTable::new().with("x-cache-size", 2));
        for id in 1..=3 {
            assert!(enters(&mut queue, &message(id, value(id as i32)), 0));
        }
        assert!(!enters(&mut queue, &message(4, value(2)), 0));
        assert!(enters(&mut queue, &message(4, value(1)), 0));
        for id in 10..1000 {
            let message = message(id, value(id as i32));
            assert!(enters(&mut queue, &message, 0));
            queue.forget(&message);
            assert!(queue.values.len() <= 2 && queue.order.len() <= 2 * super::GAPS_MAX + 8);
        }
    }

    #[test]
    fn the_header_may_have_another_name() {
        let mut queue = duplicates(FieldTable::new().with("x-deduplication-header", "key"));
        let keyed = |key: &str| FieldTable::new().with("key", key);
        assert!(enters(&mut queue, &message(1, keyed("a")), 0));
        assert!(!enters(&mut queue, &message(2, keyed("a")), 0));
        assert!(enters(&mut queue, &message(3, keyed("b")), 0));
        assert!(enters(&mut queue, &message(4, value(1)), 0));
        assert!(enters(&mut queue, &message(5, value(1)), 0));
        for asks in [FieldTable::new(), FieldTable::new().with("x-message-deduplication", false)] {
            assert!(Duplicates::new(&asks).is_none());
        }
    }

    proptest! {
        #[test]
        fn a_value_is_known_while_its_message_is_here(
            steps in prop::collection::vec((0..6i32, any::<bool>()), 0..200),
        ) {
            let mut queue = duplicates(FieldTable::new());
            let mut model = BTreeMap::new();
            for (id, (key, enter)) in steps.into_iter().enumerate() {
                let message = message(id as u64, value(key));
                if enter {
                    prop_assert_eq!(enters(&mut queue, &message, 0), !model.contains_key(&key));
                    model.entry(key).or_insert(message);
                } else if let Some(held) = model.remove(&key) {
                    queue.forget(&held);
                } else {
                    queue.forget(&message);
                }
                prop_assert_eq!(queue.values.len(), model.len());
                prop_assert!(queue.order.is_empty());
            }
        }
    }
}
