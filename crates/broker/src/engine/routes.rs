//! Where messages have gone before.
//!
//! The queues of an exchange and a key stay the same until a binding or an exchange changes. Until then they are found
//! here by one look, whatever lies between: patterns, exchanges behind exchanges, an alternate exchange. Not so for
//! exchanges that look at more than the key or choose anew each time, and for messages with several keys.
//!
//! A route has one place, by its hash, from which the next with the same place drives it out: so this is as large as it
//! is, whatever keys are used, and what has changed is never searched for.

use std::hash::Hasher;

use compact_str::CompactString;
use rustc_hash::FxHasher;

use crate::exchange::ExchangeKey;
use crate::queue::QueueKey;

const PLACES: usize = 512;
/// Longer lists are not kept: to fill them in costs more than to find them.
const QUEUES_MAX: usize = 256;

struct Route {
    exchange: ExchangeKey,
    routing_key: CompactString,
    queues: Vec<QueueKey>,
    /// It holds while nothing has changed since.
    changes: u64,
}

#[derive(Default)]
pub(super) struct Routes {
    /// Empty until the first is kept.
    places: Vec<Route>,
    changes: u64,
}

impl Routes {
    /// Something has changed that leads messages on.
    pub(super) fn change(&mut self) {
        self.changes += 1;
    }

    /// The queues, if they are known.
    #[inline]
    pub(super) fn find(&self, exchange: ExchangeKey, routing_key: &str) -> Option<&[QueueKey]> {
        let route = self.places.get(place(exchange, routing_key))?;
        let holds = route.changes == self.changes
            && route.exchange == exchange
            && route.routing_key == routing_key;
        holds.then_some(&route.queues)
    }

    pub(super) fn keep(&mut self, exchange: ExchangeKey, routing_key: &str, queues: &[QueueKey]) {
        if QUEUES_MAX < queues.len() {
            return;
        }
        self.places.resize_with(PLACES, || Route {
            exchange: ExchangeKey::nothing(),
            routing_key: CompactString::default(),
            queues: Vec::new(),
            changes: 0,
        });
        let route = &mut self.places[place(exchange, routing_key)];
        route.exchange = exchange;
        route.routing_key.clear();
        route.routing_key.push_str(routing_key);
        route.queues.clear();
        route.queues.extend_from_slice(queues);
        route.changes = self.changes;
    }
}

fn place(exchange: ExchangeKey, routing_key: &str) -> usize {
    let mut hasher = FxHasher::default();
    std::hash::Hash::hash(&exchange, &mut hasher);
    hasher.write(routing_key.as_bytes());
    hasher.finish() as usize % PLACES
}
