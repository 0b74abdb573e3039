//! Timers: a hierarchical wheel, so that setting and cancelling one costs the same among ten as among a
//! million (Varghese and Lauck).
//!
//! ```text
//!   level 0:  64 slots of 1 tick       deadline within the next 64 ticks
//!   level 1:  64 slots of 64 ticks     ... 4096
//!   level 2:  64 slots of 4096 ticks   ...
//! ```
//! An entry lies at the level of the highest group of six bits in which its deadline differs from the present
//! tick. When time reaches a slot of a higher level, its entries move down (they cascade); at level 0 they
//! fire. A bit set per level tells which slots hold anything.

use slab::Slab;

const LEVELS: usize = 6;
const SLOT_BITS: usize = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// The farthest a deadline lies ahead: with ticks of 1 ms, 2.1 years. What is later fires then. One slot less
/// than a whole round of the highest level: what is a round away must not share a slot with what is next.
const TICKS_MAX: u64 = (SLOTS as u64 - 1) << (SLOT_BITS * (LEVELS - 1));
const NONE: u32 = u32::MAX;

/// Names an entry. Stays invalid for ever once the entry has fired or been cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    serial: u64,
}

struct Entry<T> {
    deadline: u64,
    serial: u64,
    previous: u32,
    next: u32,
    level: u8,
    slot: u8,
    value: T,
}

/// Values with deadlines, counted in ticks.
pub(crate) struct Wheel<T> {
    /// All entries have a later deadline than this.
    tick: u64,
    heads: [[u32; SLOTS]; LEVELS],
    /// Bit `n`: slot `n` of the level is not empty.
    occupied: [u64; LEVELS],
    entries: Slab<Entry<T>>,
    last_serial: u64,
    /// The entries of the slot that fires, reused.
    firing: Vec<u32>,
}

impl<T> Wheel<T> {
    pub(crate) fn new() -> Self {
        Self {
            tick: 0,
            heads: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            entries: Slab::new(),
            last_serial: 0,
            firing: Vec::new(),
        }
    }

    /// Entries that wait.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Lets `value` fire at `deadline`, or at the next tick when that has passed.
    pub(crate) fn insert(&mut self, deadline: u64, value: T) -> Key {
        let deadline = deadline.clamp(self.tick + 1, self.tick + TICKS_MAX);
        self.last_serial += 1;
        let serial = self.last_serial;
        let index = self.entries.insert(Entry {
            deadline,
            serial,
            previous: NONE,
            next: NONE,
            level: 0,
            slot: 0,
            value,
        }) as u32;
        self.link(index);
        Key { index, serial }
    }

    /// Whether an entry waits.
    pub(crate) fn contains(&self, key: Key) -> bool {
        self.entries.get(key.index as usize).is_some_and(|entry| entry.serial == key.serial)
    }

    /// Takes an entry back, unless it has fired.
    pub(crate) fn cancel(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get(key.index as usize)?;
        if entry.serial != key.serial {
            return None;
        }
        self.unlink(key.index);
        Some(self.entries.remove(key.index as usize).value)
    }

    /// The tick at which [`advance`](Self::advance) has something to do: not after the first deadline.
    pub(crate) fn next_tick(&self) -> Option<u64> {
        self.first_slot().map(|(_, _, tick)| tick)
    }

    /// Moves time on to `now` and appends what fires, in the order of the deadlines.
    pub(crate) fn advance(&mut self, now: u64, fired: &mut Vec<T>) {
        while let Some((level, slot, tick)) = self.first_slot() {
            if now < tick {
                break;
            }
            self.tick = tick;
            let mut index = std::mem::replace(&mut self.heads[level][slot], NONE);
            self.occupied[level] &= !(1 << slot);
            // Lists are last in, first out: collected first, to fire in the order of insertion.
            let mut indices = std::mem::take(&mut self.firing);
            while index != NONE {
                indices.push(index);
                index = self.entries[index as usize].next;
            }
            for index in indices.drain(..).rev() {
                if self.entries[index as usize].deadline <= tick {
                    fired.push(self.entries.remove(index as usize).value);
                } else {
                    self.link(index);
                }
            }
            self.firing = indices;
        }
        self.tick = self.tick.max(now);
    }

    /// The occupied slot that time reaches first. A lower level always comes before a higher one: its slots
    /// lie within the present slot of the next level.
    fn first_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&bits| bits != 0)?;
        let shift = SLOT_BITS * level;
        let present = (self.tick >> shift) as usize % SLOTS;
        let ahead = self.occupied[level].rotate_right(present as u32).trailing_zeros() as usize;
        let slot = (present + ahead) % SLOTS;
        let round = SLOTS as u64 * (1 << shift);
        let mut tick = (self.tick & !(round - 1)) + slot as u64 * (1 << shift);
        if tick <= self.tick {
            // Only at the highest level, which wraps.
            tick += round;
        }
        Some((level, slot, tick))
    }

    fn link(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let differing = (entry.deadline ^ self.tick) | (SLOTS as u64 - 1);
        let level = ((63 - differing.leading_zeros() as usize) / SLOT_BITS).min(LEVELS - 1);
        let slot = (entry.deadline >> (SLOT_BITS * level)) as usize % SLOTS;
        (entry.level, entry.slot) = (level as u8, slot as u8);
        entry.previous = NONE;
        entry.next = std::mem::replace(&mut self.heads[level][slot], index);
        let next = entry.next;
        if next != NONE {
            self.entries[next as usize].previous = index;
        }
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, index: u32) {
        let entry = &self.entries[index as usize];
        let (previous, next) = (entry.previous, entry.next);
        let (level, slot) = (entry.level as usize, entry.slot as usize);
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
        } else {
            self.heads[level][slot] = next;
            if next == NONE {
                self.occupied[level] &= !(1 << slot);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{TICKS_MAX, Wheel};

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64),
        Cancel(usize),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Every magnitude as likely as the others: otherwise the low levels are never met.
        let ticks = (0u32..37, any::<u64>()).prop_map(|(bits, n)| n & ((1 << bits) - 1));
        prop_oneof![
            4 => ticks.clone().prop_map(Step::Insert),
            1 => any::<usize>().prop_map(Step::Cancel),
            3 => ticks.prop_map(Step::Advance),
        ]
    }

    proptest! {
        #[test]
        fn fires_what_a_sorted_map_fires(steps in prop::collection::vec(step(), 1..80)) {
            let mut wheel = Wheel::new();
            let mut model = BTreeMap::new();
            let mut keys = Vec::new();
            let mut now = 0u64;
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(after) => {
                        let deadline = now + after.clamp(1, TICKS_MAX);
                        keys.push((deadline, number, wheel.insert(now + after, number)));
                        model.insert((deadline, number), ());
                    }
                    Step::Cancel(n) if !keys.is_empty() => {
                        let (deadline, number, key) = keys[n % keys.len()];
                        let there = model.remove(&(deadline, number)).is_some();
                        prop_assert_eq!(wheel.cancel(key), there.then_some(number));
                    }
                    Step::Cancel(_) => {}
                    Step::Advance(by) => {
                        now += by;
                        let mut fired = Vec::new();
                        wheel.advance(now, &mut fired);
                        let later = model.split_off(&(now + 1, 0));
                        let mut due: Vec<_> = std::mem::replace(&mut model, later).into_keys().collect();
                        let mut deadlines: Vec<_> = fired
                            .iter()
                            .map(|&number| keys.iter().find(|key| key.1 == number).unwrap().0)
                            .collect();
                        prop_assert!(deadlines.is_sorted());
                        deadlines.clear();
                        due.sort_by_key(|&(_, number)| number);
                        fired.sort_unstable();
                        prop_assert_eq!(fired, due.into_iter().map(|key| key.1).collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                match (wheel.next_tick(), model.first_key_value()) {
                    (Some(tick), Some(((deadline, _), ()))) => {
                        prop_assert!(now < tick && tick <= *deadline, "{tick} for {deadline}");
                    }
                    (tick, first) => prop_assert!(tick.is_none() && first.is_none()),
                }
            }
        }
    }

    #[test]
    fn equal_deadlines_fire_in_the_order_of_insertion() {
        let mut wheel = Wheel::new();
        for n in 0..5 {
            wheel.insert(1000, n);
        }
        let mut fired = Vec::new();
        wheel.advance(1000, &mut fired);
        assert_eq!(fired, [0, 1, 2, 3, 4]);
    }
}
