//! What is counted while the load runs. Each worker has a meter of its own, which the reporter reads once per interval.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;

use super::clock::SECOND;

/// Latencies over this are counted as this: an hour.
const LATENCY_MAX: u64 = 3600 * SECOND;
/// Of a latency: a thousandth of it is as exact as any clock here.
const DIGITS: u8 = 3;

/// Counters of one worker; the sum of all is what the run has done.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) published: AtomicU64,
    pub(super) published_bytes: AtomicU64,
    pub(super) confirmed: AtomicU64,
    pub(super) nacked: AtomicU64,
    pub(super) returned: AtomicU64,
    pub(super) consumed: AtomicU64,
    pub(super) consumed_bytes: AtomicU64,
    pub(super) redelivered: AtomicU64,
    latencies: Mutex<Option<Latencies>>,
}

/// What has been counted, of one worker or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages handed to the server.
    pub published: u64,
    /// Bytes of their bodies.
    pub published_bytes: u64,
    /// Messages that the server has confirmed.
    pub confirmed: u64,
    /// Messages that it has refused to take.
    pub nacked: u64,
    /// Messages that it has given back, for no queue took them.
    pub returned: u64,
    /// Messages delivered.
    pub consumed: u64,
    /// Bytes of their bodies.
    pub consumed_bytes: u64,
    /// Of those delivered, the ones flagged as delivered before.
    pub redelivered: u64,
}

/// Latencies in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    /// From the time a message was to be sent to its confirm.
    pub(super) confirm: Histogram<u64>,
    /// From the time a message was to be sent to its delivery.
    pub(super) deliver: Histogram<u64>,
}

impl Latencies {
    pub(super) fn new() -> Self {
        let histogram = || {
            Histogram::new_with_bounds(1, LATENCY_MAX, DIGITS)
                .expect("bounds and digits are within what a histogram takes")
        };
        Self { confirm: histogram(), deliver: histogram() }
    }

    pub(super) fn add(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.confirm.add(&other.confirm);
        let _ = self.deliver.add(&other.deliver);
    }
}

/// What one turn of a worker has found, before it goes to the meter.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    pub(super) confirms: Vec<u64>,
    pub(super) deliveries: Vec<u64>,
}

impl Meter {
    /// Takes what a turn has found.
    pub(super) fn take(&self, tally: &mut Tally) {
        let counts = std::mem::take(&mut tally.counts);
        for (counter, count) in self.counters().into_iter().zip(counts.in_order()) {
            if count != 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
        if tally.confirms.is_empty() && tally.deliveries.is_empty() {
            return;
        }
        let mut latencies = self.latencies.lock().expect("nobody panics with the lock");
        let latencies = latencies.get_or_insert_with(Latencies::new);
        for latency in tally.confirms.drain(..) {
            latencies.confirm.saturating_record(latency);
        }
        for latency in tally.deliveries.drain(..) {
            latencies.deliver.saturating_record(latency);
        }
    }

    /// All that was counted so far.
    pub(super) fn counts(&self) -> Counts {
        let [
            published,
            published_bytes,
            confirmed,
            nacked,
            returned,
            consumed,
            consumed_bytes,
            redelivered,
        ] = self.counters().map(|counter| counter.load(Ordering::Relaxed));
        Counts {
            published,
            published_bytes,
            confirmed,
            nacked,
            returned,
            consumed,
            consumed_bytes,
            redelivered,
        }
    }

    /// Moves the latencies since the last call into `sum`.
    pub(super) fn drain_latencies(&self, sum: &mut Latencies) {
        if let Some(latencies) = &mut *self.latencies.lock().expect("nobody panics with the lock") {
            sum.add(latencies);
            latencies.confirm.reset();
            latencies.deliver.reset();
        }
    }

    fn counters(&self) -> [&AtomicU64; 8] {
        [
            &self.published,
            &self.published_bytes,
            &self.confirmed,
            &self.nacked,
            &self.returned,
            &self.consumed,
            &self.consumed_bytes,
            &self.redelivered,
        ]
    }
}

impl Counts {
    fn in_order(self) -> [u64; 8] {
        [
            self.published,
            self.published_bytes,
            self.confirmed,
            self.nacked,
            self.returned,
            self.consumed,
            self.consumed_bytes,
            self.redelivered,
        ]
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.with(other, |a, b| a + b)
    }

    pub(super) fn minus(self, earlier: Self) -> Self {
        self.with(earlier, |a, b| a - b)
    }

    fn with(self, other: Self, op: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            published: op(self.published, other.published),
            published_bytes: op(self.published_bytes, other.published_bytes),
            confirmed: op(self.confirmed, other.confirmed),
            nacked: op(self.nacked, other.nacked),
            returned: op(self.returned, other.returned),
            consumed: op(self.consumed, other.consumed),
            consumed_bytes: op(self.consumed_bytes, other.consumed_bytes),
            redelivered: op(self.redelivered, other.redelivered),
        }
    }
}
