//! Deduplication: of messages that carry the same value in a header, an exchange takes the first.
//!
//! It remembers values for a time (`x-cache-ttl`, or the message's own header of that name) and not more of them than
//! `x-cache-size`; the oldest go first. Messages without the header pass. What is remembered is in memory alone.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use compact_str::CompactString;
use warren_amqp::value::{RawTable, RawValue};
use warren_amqp::{FieldTable, FieldValue};

use super::positive;
use crate::erlang;
use crate::exception::Exception;

const CACHE_SIZE: u64 = 128;
pub(crate) const CACHE_TTL: &str = "x-cache-ttl";
pub(crate) const HEADER: &str = "x-deduplication-header";

pub(crate) struct Deduplication {
    header: CompactString,
    size: u64,
    ttl_ms: Option<u64>,
    /// By when each value is forgotten, in milliseconds since 1970, and which of the places below is its. Values come from
    /// clients, so the hashes are keyed.
    values: HashMap<Rc<[u8]>, (u64, u64)>,
    /// Oldest first; a value that was forgotten and came again stands here twice, its first place for nothing.
    order: VecDeque<(u64, Rc<[u8]>)>,
    last_place: u64,
}

impl Deduplication {
    /// `None` when the arguments do not ask for it.
    pub(super) fn new(arguments: &FieldTable) -> Result<Option<Self>, Exception> {
        if arguments.get("x-message-deduplication").and_then(FieldValue::as_bool) != Some(true) {
            return Ok(None);
        }
        let header = match arguments.get(HEADER) {
            None => HEADER,
            Some(value) => value.as_str().ok_or_else(|| {
                let value = erlang::term(value);
                let text = format!("Invalid argument {value}, '{HEADER}' must be a string");
                Exception::precondition(text)
            })?,
        };
        Ok(Some(Self {
            header: header.into(),
            size: positive(arguments, "x-cache-size")?.unwrap_or(CACHE_SIZE),
            ttl_ms: positive(arguments, CACHE_TTL)?,
            values: HashMap::new(),
            order: VecDeque::new(),
            last_place: 0,
        }))
    }

    /// Whether a message was here before; from now on it was.
    pub(crate) fn is_duplicate(&mut self, headers: Option<RawTable<'_>>, now_ms: u64) -> bool {
        let Some(headers) = headers else { return false };
        let Some(value) = headers.get(&self.header) else { return false };
        let Ok(value) = value.to_value() else { return false };
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        if self.values.get(&bytes[..]).is_some_and(|(until_ms, _)| now_ms < *until_ms) {
            return true;
        }
        let ttl_ms = headers.get(CACHE_TTL).and_then(milliseconds).or(self.ttl_ms);
        let until_ms = ttl_ms.map_or(u64::MAX, |ttl_ms| now_ms.saturating_add(ttl_ms));
        self.last_place += 1;
        let value: Rc<[u8]> = bytes.into();
        self.values.insert(value.clone(), (until_ms, self.last_place));
        self.order.push_back((self.last_place, value));
        self.forget(now_ms);
        false
    }

    fn forget(&mut self, now_ms: u64) {
        while let Some((place, value)) = self.order.front() {
            let entry = self.values.get(value).filter(|(_, other)| other == place);
            let many = self.size < self.values.len() as u64;
            match entry {
                Some((until_ms, _)) if !many && now_ms < *until_ms => return,
                Some(_) => drop(self.values.remove(value)),
                None => {}
            }
            self.order.pop_front();
        }
    }
}

/// What a message's own `x-cache-ttl` says.
pub(crate) fn milliseconds(value: RawValue<'_>) -> Option<u64> {
    value.to_value().ok()?.as_i64().filter(|ms| 0 < *ms).map(|ms| ms as u64)
}

#[cfg(test)]
mod tests {
    use warren_amqp::FieldTable;
    use warren_amqp::value::RawTable;

    use super::Deduplication;

    fn cache(arguments: FieldTable) -> Deduplication {
        Deduplication::new(&arguments.with("x-message-deduplication", true)).unwrap().unwrap()
    }

    fn seen(cache: &mut Deduplication, headers: FieldTable, now_ms: u64) -> bool {
        let mut bytes = Vec::new();
        headers.encode(&mut bytes);
        cache.is_duplicate(Some(RawTable::new(&bytes[4..])), now_ms)
    }

    fn id(id: i32) -> FieldTable {
        FieldTable::new().with("x-deduplication-header", id)
    }

    #[test]
    fn the_first_passes_until_it_is_forgotten() {
        let mut cache = cache(FieldTable::new().with("x-cache-ttl", 100));
        assert!(!seen(&mut cache, id(1), 0));
        assert!(seen(&mut cache, id(1), 99));
        assert!(!seen(&mut cache, id(2), 99));
        assert!(!seen(&mut cache, id(1), 100));
        assert!(seen(&mut cache, id(1), 150));
        assert!(!seen(&mut cache, id(3).with("x-cache-ttl", 1000), 150));
        assert!(seen(&mut cache, id(3), 1000));
        assert!(!seen(&mut cache, FieldTable::new(), 0) && !seen(&mut cache, FieldTable::new(), 0));
        assert!(!cache.is_duplicate(None, 0));
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut cache = cache(FieldTable::new().with("x-cache-size", 2));
        for n in [1, 2, 3] {
            assert!(!seen(&mut cache, id(n), 0));
        }
        assert!(seen(&mut cache, id(2), 0) && seen(&mut cache, id(3), 0));
        assert!(!seen(&mut cache, id(1), 0));
        assert_eq!((cache.values.len(), cache.order.len()), (2, 2));
    }

    #[test]
    fn it_is_asked_for_by_true_alone() {
        for arguments in
            [FieldTable::new(), FieldTable::new().with("x-message-deduplication", "true")]
        {
            assert!(Deduplication::new(&arguments).unwrap().is_none());
        }
        let arguments =
            FieldTable::new().with("x-message-deduplication", true).with("x-cache-size", 0);
        assert!(Deduplication::new(&arguments).is_err());
    }
}
