//! The log over a simulated disk, which tears writes, keeps what was not synced in any order, refuses, and flips bits:
//! thousands of histories, each from a seed, against a plain model.
//!
//! `WARREN_STORE_SEED` repeats one, `WARREN_STORE_HISTORIES` says how many.

pub(super) mod disk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::super::disk::Disk;
use super::super::flusher::Writer;
use super::super::log::Sizes;
use super::super::reader::LogReader;
use super::super::tidy::Work;
use super::super::{Damage, Filler, Recovered, RecoveredPlace, pages, recovery};
use super::{message, writer};
use crate::message::{Spot, Stored};
use disk::{Chance, SimulatedDisk};

const SIZES: Sizes = Sizes { segment: 3000, checkpoint: 5000, shrink_min: 500 };
/// Of the ordinary test.
const HISTORIES: u64 = 400;
const QUEUES: [u64; 3] = [1, 2, 3];

/// What is known of a message in a queue.
#[derive(Clone, Debug)]
struct Place {
    stored: Stored,
    place: u64,
    /// The batches that say that it came, that it has left, and how often it came back.
    came: u64,
    left: Option<u64>,
    counted: Option<(u64, u32)>,
    /// Of those that stand or fall together.
    group: Option<u64>,
    left_group: Option<u64>,
}

/// What happens to a server, and what it was promised.
struct History {
    chance: Chance,
    disk: Arc<SimulatedDisk>,
    writer: Option<Writer>,
    reader: LogReader,
    filler: Filler,
    /// What is being tidied up.
    work: Option<Work>,
    /// By message and queue.
    places: BTreeMap<(u64, u64), Place>,
    last_message: u64,
    last_group: u64,
    /// All batches up to this one are promised, and up to that one are on disk.
    promised: u64,
    synced: u64,
    /// Batches that were handed over: the segment of each, and where it ends.
    ends: Vec<(u64, u32, u64)>,
}

fn body(id: u64, size: usize) -> Vec<u8> {
    vec![id as u8; size]
}

impl History {
    fn new(seed: u64, base: Writer) -> Self {
        let disk = Arc::new(SimulatedDisk::new(seed));
        let Writer { streams, definitions, .. } = base;
        let queues: FxHashSet<u64> = QUEUES.into_iter().collect();
        let (log, _) = recovery::open(disk.clone(), &SIZES, &queues, &mut Vec::new()).unwrap();
        Self {
            chance: Chance(seed),
            reader: LogReader::new(disk.clone(), log.synced()),
            filler: Filler::new(log.number(), &SIZES),
            work: None,
            disk,
            writer: Some(Writer::new(log, streams, definitions)),
            places: BTreeMap::new(),
            last_message: 0,
            last_group: 0,
            promised: 0,
            synced: 0,
            ends: Vec::new(),
        }
    }

    fn publish(&mut self, group: Option<u64>) {
        self.last_message += 1;
        let id = self.last_message;
        let queues: Vec<u64> = QUEUES.into_iter().filter(|_| self.chance.one_in(2)).collect();
        let queues = if queues.is_empty() { vec![1] } else { queues };
        let size = if self.chance.one_in(10) { 700 } else { self.chance.below(60) as usize };
        let mut message = message(id, &body(id, size));
        self.filler.publish(&mut message, &queues);
        let stored = message.stored.unwrap();
        for (place, queue) in (stored.first..).zip(queues) {
            let came = self.filler.batch.number;
            let fresh =
                Place { stored, place, came, left: None, counted: None, group, left_group: None };
            self.places.insert((id, queue), fresh);
        }
    }

    /// Settles a message, or lets it come back.
    fn touch(&mut self, group: Option<u64>) {
        let live = self.places.iter_mut().filter(|(_, place)| place.left.is_none());
        // Consumers take the oldest, mostly.
        let nth = if self.chance.one_in(3) { self.chance.below(30) } else { 0 };
        let Some((_, place)) = live.take(nth as usize + 1).last() else { return };
        let number = self.filler.batch.number;
        if self.chance.one_in(6) {
            let count = place.counted.map_or(1, |(_, count)| count + 1);
            self.filler.counted(place.place, count, 0);
            place.counted = Some((number, count));
        } else {
            self.filler.ack(place.place);
            place.left = Some(number);
            place.left_group = group;
        }
    }

    /// A turn of the hub.
    fn turn(&mut self) -> Vec<super::super::batch::Batch> {
        for _ in 0..self.chance.below(12) {
            if self.filler.is_full() {
                break;
            }
            if self.chance.one_in(5) {
                self.last_group += 1;
                let group = Some(self.last_group);
                self.filler.begin_group();
                for _ in 0..self.chance.below(4) {
                    if self.chance.one_in(3) { self.touch(group) } else { self.publish(group) }
                }
                self.filler.end_group();
            } else if self.chance.one_in(2) {
                self.touch(None);
            } else {
                self.publish(None);
            }
        }
        let batch = self.filler.take();
        if let Some(batch) = &batch {
            let end = batch.offset + batch.records.len() as u64;
            self.ends.push((batch.number, batch.segment, end));
        }
        batch.into_iter().collect()
    }

    /// Turns that the store's thread writes together.
    fn step(&mut self) {
        let batches: Vec<_> = (0..=self.chance.below(3)).flat_map(|_| self.turn()).collect();
        let last = self.ends.last().map_or(0, |(number, ..)| *number);
        let writer = self.writer.as_mut().unwrap();
        if writer.write(batches).is_ok() {
            self.promised = last;
            self.tidy();
        }
        let writer = self.writer.as_mut().unwrap();
        let synced = writer.log.synced();
        for (number, segment, end) in &self.ends {
            if synced.covers(u64::from(*segment) << 32, Spot { offset: *end, bytes: 0 }) {
                self.synced = self.synced.max(*number);
            }
        }
        self.read();
    }

    /// The other thread does what it was given, sooner or later.
    fn tidy(&mut self) {
        let Some(writer) = self.writer.as_mut() else { return };
        let mut may_plan = true;
        if let Some(work) = self.work.take() {
            if self.chance.one_in(3) {
                self.work = Some(work);
                return;
            }
            may_plan = writer.finish(work.run(&*self.disk));
        }
        if may_plan {
            self.work = writer.plan();
        }
    }

    /// Messages that were promised, and that nobody has settled, can be read.
    fn read(&mut self) {
        let live: Vec<_> = self
            .places
            .iter()
            .filter(|(_, place)| place.left.is_none() && place.came <= self.promised)
            .map(|((id, _), place)| (*id, place.stored))
            .collect();
        if live.is_empty() || self.disk.refuses() {
            return;
        }
        let (id, stored) = live[self.chance.below(live.len() as u64) as usize];
        let message = pages::message(&self.reader, stored.first, stored.spot);
        let message =
            message.unwrap_or_else(|| panic!("message {id} at {stored:?} cannot be read"));
        assert_eq!(message.routing_key.as_str(), id.to_string());
    }

    /// The machine dies, and comes up again.
    fn crash(&mut self) {
        let Some(Writer { streams, definitions, log, .. }) = self.writer.take() else { return };
        drop(log);
        self.work = None;
        self.disk.crash();
        let queues: FxHashSet<u64> = QUEUES.into_iter().collect();
        let mut damage = Vec::new();
        let (log, messages) =
            recovery::open(self.disk.clone(), &SIZES, &queues, &mut damage).unwrap();
        self.reader = LogReader::new(self.disk.clone(), log.synced());
        let found = self.found(messages);
        self.check(&found, &damage);
        self.filler = Filler::new(log.number(), &SIZES);
        self.writer = Some(Writer::new(log, streams, definitions));
        // What was found is what is so.
        let old = std::mem::take(&mut self.places);
        for (key, place) in found {
            let stored = Stored { first: place.message, spot: place.spot };
            let counted = (place.delivery_count != 0).then_some((0, place.delivery_count));
            assert_eq!(old[&key].place, place.place);
            let place = place.place;
            let found = Place {
                stored,
                place,
                came: 0,
                left: None,
                counted,
                group: None,
                left_group: None,
            };
            self.places.insert(key, found);
        }
        (self.promised, self.synced) = (0, 0);
        self.ends.clear();
    }

    fn found(&self, messages: recovery::RecoveredMessages) -> BTreeMap<(u64, u64), RecoveredPlace> {
        let (mut found, mut last) = (BTreeMap::new(), 0);
        messages.for_each(|place| {
            let message = pages::message(&self.reader, place.message, place.spot);
            let message = message.unwrap_or_else(|| panic!("{place:?} is not there"));
            let id: u64 = message.routing_key.parse().unwrap();
            assert_eq!(message.content.body(), body(id, message.content.body().len()));
            assert!(last <= id, "{id} comes behind {last}");
            last = id;
            let before = found.insert((id, place.queue), place);
            assert!(before.is_none(), "{id} is in {} twice", place.queue);
        });
        found
    }

    fn check(&self, found: &BTreeMap<(u64, u64), RecoveredPlace>, damage: &[Damage]) {
        let mut groups = BTreeMap::<u64, BTreeSet<bool>>::new();
        for (key, place) in &self.places {
            let is_there = found.contains_key(key);
            let what = || format!("message {} of queue {}: {place:?}; {damage:?}", key.0, key.1);
            match place.left {
                None if place.came <= self.promised => {
                    assert!(is_there, "promised and lost: {}", what());
                }
                Some(left) if left <= self.synced => assert!(!is_there, "it is back: {}", what()),
                _ => {}
            }
            if let Some((batch, count)) = place.counted
                && let Some(found) = found.get(key)
                && batch <= self.synced
            {
                assert_eq!(found.delivery_count, count, "{}", what());
            }
            // Of a group that may have been torn: whether what it says is so, where nothing else has a say in it.
            if let Some(group) = place.group
                && place.left.is_none()
            {
                groups.entry(group).or_default().insert(is_there);
            }
            if let Some(group) = place.left_group
                // Else the message itself may be what is missing: it is not written at all if it is settled at once.
                && place.came <= self.promised.min(self.synced)
                && place.group != Some(group)
            {
                groups.entry(group).or_default().insert(!is_there);
            }
        }
        let torn: Vec<_> = groups.iter().filter(|(_, outcomes)| outcomes.len() != 1).collect();
        assert!(torn.is_empty(), "groups that are there in part: {torn:?}; {damage:?}");
        let unknown = found.keys().find(|key| !self.places.contains_key(key));
        assert_eq!(unknown, None, "nobody published that");
    }
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("WARREN_STORE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WARREN_STORE_HISTORIES").unwrap_or(default),
    }
}

/// Names the seed of a history that fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("WARREN_STORE_SEED={} repeats this history", self.0);
        }
    }
}

/// Runs histories one after the other; what they all share is made once.
fn run(histories: u64, history: impl Fn(&mut History)) {
    let folder = tempfile::tempdir().unwrap();
    let mut base = writer(folder.path(), &mut Recovered::default());
    for seed in seeds(histories) {
        let _named = Named(seed);
        let mut one = History::new(seed, base);
        history(&mut one);
        base = one.writer.take().unwrap();
    }
}

#[test]
fn no_promise_is_broken_by_crashes() {
    run(HISTORIES, |history| {
        for _ in 0..1 + history.chance.below(4) {
            for _ in 0..history.chance.below(30) {
                history.step();
            }
            history.crash();
        }
    });
}

/// The machine dies in the middle of whatever it does.
#[test]
fn no_promise_is_broken_by_a_crash_between_two_calls() {
    run(HISTORIES, |history| {
        for _ in 0..1 + history.chance.below(4) {
            for _ in 0..history.chance.below(30) {
                history.step();
            }
            let calls = 1 + history.chance.below(40);
            history.disk.die_in(calls);
            for _ in 0..3 {
                history.step();
            }
            history.crash();
        }
    });
}

#[test]
fn no_promise_is_broken_by_a_disk_that_refuses() {
    run(HISTORIES, |history| {
        for _ in 0..1 + history.chance.below(3) {
            for _ in 0..history.chance.below(30) {
                let refuses = history.chance.one_in(4);
                history.disk.refuse(refuses);
                history.step();
            }
            history.disk.refuse(false);
            if history.chance.one_in(2) {
                // It writes again, and nothing is missing.
                history.step();
                assert_eq!(history.promised, history.ends.last().map_or(0, |(number, ..)| *number));
            }
            history.crash();
        }
    });
}

/// One bit that is wrong costs a message, or brings some back; never more, and never without a word.
#[test]
fn a_bit_that_flips_costs_one_record() {
    run(HISTORIES, |history| {
        for _ in 0..5 + history.chance.below(30) {
            history.step();
        }
        let writer = history.writer.as_mut().unwrap();
        writer.log.checkpoint().unwrap();
        let Some(name) = history.disk.flip_bit() else { return };
        let queues: FxHashSet<u64> = QUEUES.into_iter().collect();
        let mut damage = Vec::new();
        let opened =
            recovery::open(history.disk.clone() as Arc<dyn Disk>, &SIZES, &queues, &mut damage);
        let (log, messages) = match opened {
            Ok(opened) => opened,
            // The header of a segment says what it is.
            Err(error) => return assert!(error.to_string().contains(&name), "{error}"),
        };
        let reader = LogReader::new(history.disk.clone(), log.synced());
        let mut found = BTreeSet::new();
        messages.for_each(|place| {
            if pages::message(&reader, place.message, place.spot).is_some() {
                found.insert(place.place);
            }
        });
        let live = history.places.values().filter(|place| place.left.is_none());
        let live: Vec<_> = live.filter(|place| !found.contains(&place.place)).collect();
        let lost: BTreeSet<u64> = live.iter().map(|place| place.stored.first).collect();
        assert!(lost.len() <= 1, "in {name}: lost {lost:?}; {damage:?}");
    });
}
