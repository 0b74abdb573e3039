//! The memory that clients make the server take, and what is done when it is too much.
//!
//! ```text
//!   0 .................. 3/4 ................ the limit
//!      queues have their    what waits goes to    publishers wait until 1/16 less is taken
//!      windows in memory    disk, most first
//! ```
//! What counts is what the process has in memory, without files that are mapped: that is what the system kills for.
//! It is measured once a second and each time clients have made us hold some more, for which every message and every
//! part of one [charges](Charge) its bytes: one count, so a turn asks one number. The count says too what there is to
//! gain by writing to disk, and when so much was freed that it should go back to the system.

mod connections;

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Instant;

use rustix::param::page_size;

use crate::alarms::Resource;
use crate::channel::ChannelKey;
use crate::engine::Engine;
use crate::exchange::ExchangeKey;
use crate::queue::QueueKey;
pub(crate) use connections::{Bodies, OutputShare};

/// What a message costs beside its bytes: itself, its place in a queue, and what the allocator adds.
pub(crate) const MESSAGE_BYTES: usize = 208;
/// What a connection and a channel cost, about.
const CONNECTION_BYTES: u64 = 4096;
/// More held than when it was last looked: it is looked again.
const LOOK_BYTES_MAX: u64 = 32 * 1024 * 1024;
const LOOK_BYTES_MIN: u64 = 256 * 1024;
/// Less held than once: the system has it back, when it stays so for [`CALM_S`].
const RETURN_BYTES_MIN: u64 = 16 * 1024 * 1024;
const CALM_S: u8 = 5;
/// Seconds in which all lists are looked at, whether they are too large.
const SHRINK_S: usize = 8;
/// A list of so many is not too large.
const SHRINK_MIN: usize = 8;
/// Giving back may take one part in so many of the time.
const RELEASE_SHARE: u32 = 20;

thread_local! {
    /// Signed: what one thread has charged, another may discharge.
    static HELD: Cell<i64> = const { Cell::new(0) };
    /// The part of it that belongs to messages which have not come whole.
    static PARTS: Cell<i64> = const { Cell::new(0) };
}

/// Bytes that messages take on this thread's hub.
pub(crate) fn held() -> u64 {
    HELD.get().max(0).cast_unsigned()
}

/// Bytes that are held for as long as this is there.
#[derive(Debug, Default)]
pub(crate) struct Charge(u32);

impl Charge {
    #[inline]
    pub(crate) fn new(bytes: usize) -> Self {
        HELD.set(HELD.get() + bytes as i64);
        Self(bytes as u32)
    }
}

impl Clone for Charge {
    fn clone(&self) -> Self {
        Self::new(self.0 as usize)
    }
}

impl Drop for Charge {
    #[inline]
    fn drop(&mut self) {
        HELD.set(HELD.get() - i64::from(self.0));
    }
}

/// The bytes of a message that has not come whole.
#[derive(Debug, Default)]
pub(crate) struct Part(Charge);

impl Part {
    pub(crate) fn is_some(&self) -> bool {
        self.0.0 != 0
    }

    /// They are so many now.
    pub(crate) fn set(&mut self, bytes: usize) {
        PARTS.set(PARTS.get() + bytes as i64 - i64::from(self.0.0));
        self.0 = Charge::new(bytes);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        PARTS.set(PARTS.get() - i64::from(self.0.0));
    }
}

/// Bytes of all messages that have not come whole.
pub(crate) fn parts() -> u64 {
    PARTS.get().max(0).cast_unsigned()
}

/// Bytes that are charged until the last of those who share them lets them go.
pub(crate) struct Charged {
    bytes: Vec<u8>,
    _charge: Charge,
}

impl Charged {
    pub(crate) fn new(bytes: Vec<u8>, charge: Charge) -> Self {
        Self { bytes, _charge: charge }
    }
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// When to look, and what was seen.
pub(crate) struct Budget {
    /// What the process has in memory.
    measure: fn() -> Option<u64>,
    measured: u64,
    /// Held when it was measured, with what the store was given.
    weight: u64,
    /// From so much more on it is measured again.
    step: u64,
    /// The most that was held since memory was given back.
    peak: u64,
    /// Seconds in a row in which much less was held than once.
    calm: u8,
    /// Not before then is memory given back again.
    release_at: Option<Instant>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            measure: resident_bytes,
            measured: 0,
            weight: 0,
            step: LOOK_BYTES_MIN,
            peak: 0,
            calm: 0,
            release_at: None,
        }
    }
}

impl Budget {
    /// Whether so much has been added since it was looked that it has to be looked again.
    #[inline]
    pub(crate) fn is_due(&self, weight: u64) -> bool {
        self.weight + self.step < weight
    }

    /// What the process had in memory when it was looked last.
    pub(crate) fn measured(&self) -> u64 {
        self.measured
    }

    /// Lets a test say how much is used.
    #[cfg(test)]
    pub(crate) fn measure_by(&mut self, measure: fn() -> Option<u64>) {
        self.measure = measure;
    }

    fn measure(&mut self) -> Option<u64> {
        self.measured = (self.measure)()?;
        Some(self.measured)
    }

    /// Gives memory back if at least `bytes` were freed since it was done last.
    fn release(&mut self, held: u64, bytes: u64) {
        self.peak = self.peak.max(held);
        let begin = Instant::now();
        if self.peak - held < bytes || self.release_at.is_some_and(|at| begin < at) {
            return;
        }
        warren_reactor::drop_pooled_buffers();
        warren_hub::release_memory();
        (self.peak, self.calm) = (held, 0);
        self.release_at = Some(begin + begin.elapsed() * RELEASE_SHARE);
    }
}

/// Gives the memory of a list back that is far shorter than it was.
pub(crate) fn shrink_list<T>(list: &mut VecDeque<T>) {
    if SHRINK_MIN < list.capacity() && list.len() < list.capacity() / 4 {
        list.shrink_to(2 * list.len());
    }
}

/// What can be written to disk.
#[derive(Clone, Copy)]
enum Holder {
    Queue(QueueKey),
    /// Its dead letters.
    Letters(QueueKey),
    Channel(ChannelKey),
    Exchange(ExchangeKey),
}

impl Engine {
    /// What grows as clients make us hold more. Not what is taken: what the store was given it has written soon.
    #[inline]
    pub(crate) fn memory_weight(&self) -> u64 {
        held() + self.store_given()
    }

    /// Measures, makes room if there is little, and tells publishers to wait if there is none.
    pub(crate) fn watch_memory(&mut self) {
        let Some(limit) = self.alarms.memory_bytes_max else { return };
        let Some(mut used) = self.budget.measure() else { return };
        let held_before = held();
        self.budget.peak = self.budget.peak.max(held_before);
        let step = (limit / 64).clamp(LOOK_BYTES_MIN, LOOK_BYTES_MAX);
        let page_from = limit / 4 * 3;
        if page_from <= used {
            self.page_out(used - page_from + limit / 16);
            self.budget.release(held(), step);
            used = self.budget.measure().unwrap_or(used);
        }
        self.budget.step = step;
        self.budget.weight = self.memory_weight();
        let from = if self.alarms.is_on(Resource::Memory) { limit - limit / 16 } else { limit };
        let short = from < used;
        if self.set_alarm(Resource::Memory, short) && short {
            tracing::warn!(
                used,
                limit,
                "memory alarm: publishers are blocked until consumers have made room; consume, purge queues, or raise --memory-limit"
            );
        }
    }

    /// Once a second: shares room among connections, and gives memory back that was freed and is not wanted again.
    pub(crate) fn tend_memory(&mut self) {
        self.share_output();
        self.watch_bodies();
        self.shrink();
        let now = held() + CONNECTION_BYTES * (self.connections.len() + self.channels.len()) as u64;
        let budget = &mut self.budget;
        budget.peak = budget.peak.max(now);
        if budget.peak - now < RETURN_BYTES_MIN {
            budget.calm = 0;
            return;
        }
        budget.calm += 1;
        if CALM_S <= budget.calm {
            budget.release(now, RETURN_BYTES_MIN);
        }
    }

    /// Lets lists that were long be no larger than they have to be: a share of all channels and queues.
    fn shrink(&mut self) {
        let turn = self.clock as usize % SHRINK_S;
        for channel in self.channels.iter_mut().skip(turn).step_by(SHRINK_S) {
            channel.shrink();
        }
        for queue in self.queues.iter_mut().skip(turn).step_by(SHRINK_S) {
            queue.ready.shrink();
        }
    }

    /// Writes what waits to disk until `bytes` less are held: most of what holds most, first.
    fn page_out(&mut self, bytes: u64) {
        let goal = held().saturating_sub(bytes);
        let queues = self.queues.iter();
        let mut holders: Vec<(u64, Holder)> =
            queues.map(|(key, queue)| (queue.resident_bytes(), Holder::Queue(key))).collect();
        holders.extend(
            self.letters_resident_bytes().map(|(key, bytes)| (bytes, Holder::Letters(key))),
        );
        let channels = self.channels.iter();
        holders.extend(
            channels.map(|(key, channel)| (channel.resident_bytes(), Holder::Channel(key))),
        );
        holders.extend(
            self.exchanges
                .iter()
                .filter_map(|(key, exchange)| Some((exchange.delays()?, key)))
                .map(|(delays, key)| (delays.schedule.resident_bytes(), Holder::Exchange(key))),
        );
        holders.retain(|(bytes, _)| *bytes != 0);
        holders.sort_unstable_by_key(|(bytes, _)| std::cmp::Reverse(*bytes));
        for (_, holder) in holders {
            if held() <= goal {
                return;
            }
            match holder {
                Holder::Queue(key) => {
                    if let Some(queue) = self.queues.get_mut(key) {
                        queue.page_out();
                    }
                }
                Holder::Letters(key) => self.page_letters(key),
                Holder::Channel(key) => self.page_unacked(key, 0),
                Holder::Exchange(key) => {
                    if let Some(delays) = self.exchanges.get_mut(key).and_then(|of| of.delays_mut())
                    {
                        delays.schedule.page_out();
                    }
                }
            }
        }
    }
}

/// What this process has in memory now, without files that are mapped: those the system can drop.
fn resident_bytes() -> Option<u64> {
    let numbers = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut numbers = numbers.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(resident.saturating_sub(shared) * page_size() as u64)
}
