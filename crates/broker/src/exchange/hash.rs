//! Consistent hashing (`x-consistent-hash`): each message goes to one destination, chosen by the hash of its routing
//! key, of a header or of a property; a binding's key is its weight.
//!
//! ```text
//!   score(binding) = -ln(u) / weight,  u in (0, 1) from hash(message) and hash(destination's name)
//!   the lowest score wins
//! ```
//! That is weighted rendezvous hashing. Each destination gets messages exactly in proportion to its weight. Because
//! a binding's score depends on nothing but itself and the message, a binding that comes takes its share of every
//! other, one that goes leaves its messages to the others, and nothing else moves; nor does a restart or another
//! order of binding move anything, which cannot be said of RabbitMQ's numbered buckets. A weight takes no memory,
//! whatever it is. The price is a look at each binding: 10 ns for the logarithm, or 1 ns where all weights are equal,
//! for then the highest `u` has the lowest score.

use std::cmp::Reverse;

use compact_str::CompactString;
use slab::Slab;
use warren_amqp::FieldTable;
use warren_amqp::value::RawValue;

use super::{Binding, Destination, Routed, Router};
use crate::erlang;
use crate::exception::Exception;

/// What of a message is hashed.
enum HashOn {
    Key,
    Header(CompactString),
    MessageId,
    CorrelationId,
    Timestamp,
}

pub(super) struct ConsistentHash {
    on: HashOn,
    places: Slab<Place>,
    /// Not all weights are equal.
    uneven: bool,
}

struct Place {
    seed: u64,
    /// 1 or more.
    weight: f64,
    destination: Destination,
}

impl ConsistentHash {
    pub(super) fn new(arguments: &FieldTable) -> Result<Self, Exception> {
        let text = |name: &str| match arguments.get(name) {
            None => Ok(None),
            Some(value) => match value.as_str() {
                Some(text) => Ok(Some(text)),
                None => Err(Exception::precondition(format!(
                    "Invalid argument {}, '{name}' must be a string",
                    erlang::term(value)
                ))),
            },
        };
        let on = match (text("hash-header")?, text("hash-property")?) {
            (None, None) => HashOn::Key,
            (Some(header), None) => HashOn::Header(header.into()),
            (None, Some("message_id")) => HashOn::MessageId,
            (None, Some("correlation_id")) => HashOn::CorrelationId,
            (None, Some("timestamp")) => HashOn::Timestamp,
            (None, Some(other)) => {
                return Err(Exception::precondition(format!("Unsupported property: {other}")));
            }
            (Some(_), Some(_)) => {
                let text = "hash-header and hash-property are mutually exclusive";
                return Err(Exception::precondition(text));
            }
        };
        Ok(Self { on, places: Slab::new(), uneven: false })
    }

    /// Messages without the header or property share one hash.
    fn hash(&self, message: Routed<'_>) -> u64 {
        let text = |text: Option<&str>| text.map_or(0, |text| hash_bytes(1, text.as_bytes()));
        let properties = message.properties();
        match &self.on {
            HashOn::Key => hash_bytes(1, message.routing_key.as_bytes()),
            HashOn::MessageId => text(properties.message_id()),
            HashOn::CorrelationId => text(properties.correlation_id()),
            HashOn::Timestamp => properties.timestamp().map_or(0, scatter),
            HashOn::Header(name) => {
                match message.headers().and_then(|headers| headers.get(name)) {
                    None => 0,
                    Some(RawValue::LongString(bytes)) => hash_bytes(1, bytes),
                    Some(other) => other.to_value().map_or(0, |value| {
                        let mut bytes = Vec::new();
                        match value.as_i64() {
                            // Clients choose a number's width on their own.
                            Some(number) => bytes.extend_from_slice(&number.to_le_bytes()),
                            None => value.encode(&mut bytes),
                        }
                        hash_bytes(2, &bytes)
                    }),
                }
            }
        }
    }
}

impl Router for ConsistentHash {
    fn add(&mut self, binding: &Binding, name: &str) -> Result<u32, Exception> {
        let weight = weight(&binding.routing_key)?;
        let destination = binding.destination;
        let seed = hash_name(destination, name);
        // Two bindings with one destination are two chances.
        let seed =
            hash_bytes(seed, binding.routing_key.as_bytes()) ^ hash_bytes(3, &binding.arguments);
        let first = self.places.iter().next();
        self.uneven |= first.is_some_and(|(_, first)| first.weight != weight);
        Ok(self.places.insert(Place { seed, weight, destination }) as u32)
    }

    fn remove(&mut self, _binding: &Binding, place: u32) {
        self.places.try_remove(place as usize);
        self.uneven = self.uneven && self.has_uneven_weights();
    }

    fn route(&mut self, message: Routed<'_>, each: &mut impl FnMut(Destination)) {
        if self.places.is_empty() {
            return;
        }
        let hash = self.hash(message);
        let bits = |place: &Place| scatter(hash ^ place.seed) >> 11;
        let places = self.places.iter().map(|(_, place)| place);
        let best = if self.uneven {
            let score = |place: &Place| {
                // The middle of one of 2^53 parts: never 0, never 1.
                let part = bits(place) as f64 + 0.5;
                -(part / (1u64 << 53) as f64).ln() / place.weight
            };
            let scores = places.map(|place| (score(place), place));
            let best = scores.min_by(|one, other| {
                one.0.total_cmp(&other.0).then_with(|| one.1.seed.cmp(&other.1.seed))
            });
            best.map(|(_, place)| place)
        } else {
            places.max_by_key(|place| (bits(place), Reverse(place.seed)))
        };
        best.into_iter().for_each(|place| each(place.destination));
    }
}

impl ConsistentHash {
    fn has_uneven_weights(&self) -> bool {
        let mut weights = self.places.iter().map(|(_, place)| place.weight);
        let first = weights.next();
        weights.any(|weight| Some(weight) != first)
    }
}

/// A binding's weight, from its key.
fn weight(key: &str) -> Result<f64, Exception> {
    let digits = key.strip_prefix(['+', '-']).unwrap_or(key);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let key = erlang::binary(key.as_bytes());
        let text = format!("The binding key must be an integer: {key}");
        return Err(Exception::precondition(text));
    }
    match digits.parse::<f64>() {
        Ok(weight) if 1.0 <= weight && !key.starts_with('-') => Ok(weight),
        _ => Err(Exception::precondition("The binding key must be greater than 0")),
    }
}

/// What a destination is called, as a number that a restart does not change.
pub(super) fn hash_name(destination: Destination, name: &str) -> u64 {
    let kind = match destination {
        Destination::Queue(_) => 4,
        Destination::Exchange(_) => 5,
    };
    hash_bytes(kind, name.as_bytes())
}

/// FNV-1a, scattered. Written down here because where messages go must not change with a library's version.
pub(super) fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ scatter(seed);
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    scatter(bytes.iter().fold(start, hash))
}

/// Numbers near one another come out far apart: the output function of SplitMix64.
pub(super) fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use warren_amqp::FieldTable;

    use super::{ConsistentHash, weight};
    use crate::exchange::{Binding, Destination, Routed, Router};
    use crate::table::Table;

    const KEYS: usize = 20_000;

    fn route(exchange: &mut ConsistentHash, key: &str) -> Option<Destination> {
        let mut found = None;
        let message = Routed { routing_key: key, more_keys: &[], properties: &[0, 0] };
        exchange.route(message, &mut |destination| {
            assert_eq!(found.replace(destination), None, "one destination each");
        });
        found
    }

    fn all(exchange: &mut ConsistentHash) -> Vec<Option<Destination>> {
        (0..KEYS).map(|n| route(exchange, &format!("key.{n}"))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn shares_follow_weights_and_only_shares_move(
            weights in prop::collection::vec(1..6u32, 2..8),
            gone in any::<prop::sample::Index>(),
        ) {
            let mut table = Table::default();
            let mut exchange = ConsistentHash::new(&FieldTable::new()).unwrap();
            let mut places = Vec::new();
            for (index, weight) in weights.iter().enumerate() {
                let binding = Binding {
                    destination: Destination::Queue(table.insert_for_test()),
                    routing_key: weight.to_string().into(),
                    arguments: [].into(),
                };
                let place = exchange.add(&binding, &format!("queue{index}")).unwrap();
                places.push((binding, place));
            }
            let before = all(&mut exchange);
            let total: u32 = weights.iter().sum();
            for ((binding, _), weight) in places.iter().zip(&weights) {
                let share = before.iter().filter(|one| **one == Some(binding.destination)).count();
                let want = KEYS as f64 * f64::from(*weight) / f64::from(total);
                // Six standard deviations of a binomial distribution, and less.
                prop_assert!((share as f64 - want).abs() < 6.0 * want.sqrt(), "{share} of {want}");
            }
            let (binding, place) = &places[gone.index(places.len())];
            exchange.remove(binding, *place);
            let after = all(&mut exchange);
            for (before, after) in before.iter().zip(&after) {
                if *before == Some(binding.destination) {
                    prop_assert!(after.is_some() && after != before);
                } else {
                    prop_assert_eq!(before, after);
                }
            }
            exchange.add(binding, &format!("queue{}", gone.index(places.len()))).unwrap();
            prop_assert_eq!(all(&mut exchange), before);
        }
    }

    #[test]
    fn a_weight_is_a_whole_number() {
        for (key, want) in
            [("1", 1.0), ("+7", 7.0), ("010", 10.0), ("99999999999", 99_999_999_999.0)]
        {
            assert_eq!(weight(key).unwrap(), want);
        }
        for key in ["", "x", " 1", "1.5", "1e3", "+"] {
            assert!(weight(key).unwrap_err().text.contains("must be an integer: <<"), "{key}");
        }
        for key in ["0", "-1", "-0", "000"] {
            assert!(weight(key).unwrap_err().text.ends_with("must be greater than 0"), "{key}");
        }
    }
}
