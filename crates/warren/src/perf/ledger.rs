//! The ledger of `--verify`: which messages were published, confirmed and delivered, and what was wrong with any.
//!
//! Messages are numbered within a *lane*: one channel of a producer and one place it publishes to. AMQP promises order
//! within a lane, for one consumer's deliveries that are not flagged as redelivered (§4.7). A message whose confirm has
//! not come when its connection breaks stays *in doubt*: it may be delivered or not. All else must be so:
//!
//! | fault | what was seen |
//! |---|---|
//! | lost | confirmed, and not delivered at the end |
//! | duplicated | delivered before, and not flagged as redelivered |
//! | reordered | not flagged, with a number below one that the same channel of a consumer had before |
//! | damaged | the checksum of the body is wrong |
//! | invented | a number that was never published |

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::body::{Damaged, Numbered};

/// Of each run, faults that are told in words.
const EXAMPLES_MAX: usize = 20;

pub(super) struct Ledger {
    run: u32,
    queues: Vec<String>,
    lanes: RwLock<Vec<Mutex<Lane>>>,
    /// Confirmed and not yet delivered, each queue counted.
    missing: AtomicU64,
    faults: Mutex<Faults>,
    /// Messages of other runs.
    foreign: AtomicU32,
}

/// What was wrong, in numbers and in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// Confirmed, and not delivered.
    pub lost: u64,
    /// Delivered again without the redelivered flag.
    pub duplicated: u64,
    /// Overtaken by later messages.
    pub reordered: u64,
    /// With a wrong checksum.
    pub damaged: u64,
    /// Never published.
    pub invented: u64,
    /// Some of them in words.
    pub examples: Vec<String>,
}

impl Faults {
    /// Whether nothing was wrong.
    pub fn is_empty(&self) -> bool {
        self.lost + self.duplicated + self.reordered + self.damaged + self.invented == 0
    }

    fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }
}

struct Lane {
    published: u64,
    /// Of a lane of an earlier run: it may have published more than its file says.
    is_old: bool,
    confirmed: Bits,
    /// Given back, so that nobody needs to wait for it.
    returned: Bits,
    /// One for each queue that its messages come to.
    arrivals: Vec<Arrival>,
}

struct Arrival {
    queue: usize,
    seen: Bits,
}

/// How a message came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivered {
    /// By its index in the plan.
    pub(super) queue: usize,
    pub(super) redelivered: bool,
}

impl Ledger {
    pub(super) fn new(run: u32, queues: &[String]) -> Self {
        Self {
            run,
            queues: queues.to_vec(),
            lanes: RwLock::default(),
            missing: AtomicU64::new(0),
            faults: Mutex::default(),
            foreign: AtomicU32::new(0),
        }
    }

    pub(super) fn run(&self) -> u32 {
        self.run
    }

    /// A new lane, whose messages come to these queues.
    pub(super) fn add_lane(&self, queues: Vec<usize>) -> u32 {
        let mut lanes = self.lanes.write().expect("nobody panics with the lock");
        let arrivals = queues.into_iter().map(|queue| Arrival { queue, seen: Bits::default() });
        lanes.push(Mutex::new(Lane {
            published: 0,
            is_old: false,
            confirmed: Bits::default(),
            returned: Bits::default(),
            arrivals: arrivals.collect(),
        }));
        lanes.len() as u32 - 1
    }

    fn with_lane<T>(&self, lane: u32, look: impl FnOnce(&mut Lane) -> T) -> Option<T> {
        let lanes = self.lanes.read().expect("nobody panics with the lock");
        let lane = lanes.get(lane as usize)?;
        Some(look(&mut lane.lock().expect("nobody panics with the lock")))
    }

    pub(super) fn published(&self, lane: u32, number: u64) {
        self.with_lane(lane, |lane| lane.published = number + 1);
    }

    pub(super) fn confirmed(&self, lane: u32, number: u64) {
        self.with_lane(lane, |lane| {
            if !lane.returned.has(number) && lane.confirmed.set(number) {
                let unseen = lane.arrivals.iter().filter(|arrival| !arrival.seen.has(number));
                self.missing.fetch_add(unseen.count() as u64, Ordering::Relaxed);
            }
        });
    }

    /// No queue has taken it. The confirm that follows means nothing.
    pub(super) fn returned(&self, message: Numbered) {
        if message.run == self.run {
            self.with_lane(message.lane, |lane| lane.returned.set(message.number));
        }
    }

    /// A message has come. `last`: one more than the highest number that this channel of a consumer had of the lane in
    /// this queue without a flag.
    pub(super) fn delivered(
        &self,
        message: Result<Option<Numbered>, Damaged>,
        how: Delivered,
        last: Option<&mut u64>,
    ) {
        let queue = &self.queues[how.queue];
        let message = match message {
            Ok(Some(message)) if message.run == self.run => message,
            Ok(_) => {
                self.foreign.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Err(Damaged) => {
                let mut faults = self.faults();
                faults.damaged += 1;
                return faults.tell(|| format!("damaged: a message of queue {queue}"));
            }
        };
        let number = message.number;
        let name = || format!("lane {} number {number} in queue {queue}", message.lane);
        let first = self.with_lane(message.lane, |lane| {
            if lane.published <= number {
                if !lane.is_old {
                    return None;
                }
                lane.published = number + 1;
            }
            let arrival = lane.arrivals.iter_mut().find(|arrival| arrival.queue == how.queue)?;
            let first = arrival.seen.set(number);
            if first && lane.confirmed.has(number) {
                self.missing.fetch_sub(1, Ordering::Relaxed);
            }
            Some(first)
        });
        let Some(first) = first.flatten() else {
            let mut faults = self.faults();
            faults.invented += 1;
            return faults.tell(|| format!("invented: {}", name()));
        };
        if how.redelivered {
            return;
        }
        if !first {
            let mut faults = self.faults();
            faults.duplicated += 1;
            return faults.tell(|| format!("duplicated without the redelivered flag: {}", name()));
        }
        let Some(last) = last else { return };
        if number < *last {
            let mut faults = self.faults();
            faults.reordered += 1;
            faults.tell(|| format!("reordered: {} came after number {}", name(), *last - 1));
        }
        *last = (number + 1).max(*last);
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.faults.lock().expect("nobody panics with the lock")
    }

    /// Messages confirmed and not delivered yet, each queue counted.
    pub(super) fn missing(&self) -> u64 {
        self.missing.load(Ordering::Relaxed)
    }

    /// Messages that are not of this run and were found in its queues.
    pub(super) fn foreign(&self) -> u32 {
        self.foreign.load(Ordering::Relaxed)
    }

    /// All that was wrong; what is confirmed and has not come by now counts as lost when there were consumers.
    pub(super) fn close(&self, consumed: bool) -> Faults {
        let mut faults = self.faults().clone();
        let lanes = self.lanes.read().expect("nobody panics with the lock");
        for (index, lane) in lanes.iter().enumerate().filter(|_| consumed) {
            let lane = lane.lock().expect("nobody panics with the lock");
            for arrival in &lane.arrivals {
                for (from, to) in lane.confirmed.without(&arrival.seen).ranges() {
                    faults.lost += to - from;
                    faults.tell(|| {
                        let queue = &self.queues[arrival.queue];
                        format!("lost: lane {index} numbers {from} to {} in queue {queue}", to - 1)
                    });
                }
            }
        }
        faults
    }

    /// Writes the ledger to a file, whole or not at all.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let lanes = self.lanes.read().expect("nobody panics with the lock");
        let lanes = lanes.iter().map(|lane| {
            let lane = lane.lock().expect("nobody panics with the lock");
            let arrivals = lane.arrivals.iter().map(|arrival| FileArrival {
                queue: self.queues[arrival.queue].clone(),
                delivered: arrival.seen.ranges(),
            });
            FileLane {
                published: lane.published,
                confirmed: lane.confirmed.ranges(),
                arrivals: arrivals.collect(),
            }
        });
        let file = File { run: self.run, lanes: lanes.collect() };
        let failed = || format!("cannot write the ledger {}", path.display());
        let beside = path.with_extension("new");
        fs::write(&beside, serde_json::to_vec(&file)?).with_context(failed)?;
        fs::File::open(&beside).and_then(|file| file.sync_all()).with_context(failed)?;
        fs::rename(&beside, path).with_context(failed)
    }

    /// Goes on with the ledger of a file, if it is there.
    pub(super) fn load(path: &Path, run: u32, queues: &[String]) -> Result<Self> {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::new(run, queues));
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let file: File = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no ledger of warren perf", path.display()))?;
        let ledger = Self::new(file.run, queues);
        for lane in file.lanes {
            let mut arrivals = Vec::new();
            for arrival in lane.arrivals {
                let queue = queues.iter().position(|name| *name == arrival.queue);
                let queue = queue.with_context(|| {
                    format!(
                        "the ledger {} tells of queue {}, which this run does not use: name the same queues",
                        path.display(),
                        arrival.queue
                    )
                })?;
                arrivals.push(Arrival { queue, seen: Bits::of(&arrival.delivered) });
            }
            let confirmed = Bits::of(&lane.confirmed);
            for arrival in &arrivals {
                let missing = confirmed.without(&arrival.seen).count();
                ledger.missing.fetch_add(missing, Ordering::Relaxed);
            }
            ledger.lanes.write().expect("nobody panics with the lock").push(Mutex::new(Lane {
                published: lane.published,
                is_old: true,
                confirmed,
                returned: Bits::default(),
                arrivals,
            }));
        }
        Ok(ledger)
    }
}

/// The ledger as JSON: ranges `[from, to)` of numbers.
#[derive(Serialize, Deserialize)]
struct File {
    run: u32,
    lanes: Vec<FileLane>,
}

#[derive(Serialize, Deserialize)]
struct FileLane {
    published: u64,
    confirmed: Vec<(u64, u64)>,
    arrivals: Vec<FileArrival>,
}

#[derive(Serialize, Deserialize)]
struct FileArrival {
    queue: String,
    delivered: Vec<(u64, u64)>,
}

/// A set of numbers that is dense.
#[derive(Clone, Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn of(ranges: &[(u64, u64)]) -> Self {
        let mut bits = Self::default();
        for number in ranges.iter().flat_map(|&(from, to)| from..to) {
            bits.set(number);
        }
        bits
    }

    /// Adds a number; gives whether it is new.
    fn set(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    fn has(&self, number: u64) -> bool {
        self.0.get((number / 64) as usize).is_some_and(|word| word & 1 << (number % 64) != 0)
    }

    fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    /// Those that are not in `other`.
    fn without(&self, other: &Self) -> Self {
        let others = other.0.iter().copied().chain(std::iter::repeat(0));
        Self(self.0.iter().zip(others).map(|(word, other)| word & !other).collect())
    }

    /// Runs of neighbours, as `[from, to)`.
    fn ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (index, &word) in self.0.iter().enumerate().filter(|(_, word)| **word != 0) {
            for bit in (0..64).filter(|bit| word & 1 << bit != 0) {
                let number = index as u64 * 64 + bit;
                match ranges.last_mut() {
                    Some((_, to)) if *to == number => *to += 1,
                    _ => ranges.push((number, number + 1)),
                }
            }
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ledger with a lane to both of its queues, of which so many are published and confirmed.
    fn ledger(published: u64, confirmed: u64) -> Ledger {
        let ledger = Ledger::new(7, &["a".into(), "b".into()]);
        assert_eq!(ledger.add_lane(vec![0, 1]), 0);
        (0..published).for_each(|number| ledger.published(0, number));
        (0..confirmed).for_each(|number| ledger.confirmed(0, number));
        ledger
    }

    fn deliver(ledger: &Ledger, queue: usize, number: u64, redelivered: bool, last: &mut u64) {
        let message = Numbered { run: 7, lane: 0, number };
        ledger.delivered(Ok(Some(message)), Delivered { queue, redelivered }, Some(last));
    }

    #[test]
    fn what_is_confirmed_must_come_and_what_is_in_doubt_may() {
        let ledger = ledger(100, 90);
        let (mut a, mut b) = (0, 0);
        (0..95).for_each(|number| deliver(&ledger, 0, number, false, &mut a));
        (0..88).for_each(|number| deliver(&ledger, 1, number, false, &mut b));
        assert_eq!(ledger.missing(), 2);
        let faults = ledger.close(true);
        assert_eq!((faults.lost, faults.duplicated, faults.reordered), (2, 0, 0));
        assert_eq!(faults.examples, ["lost: lane 0 numbers 88 to 89 in queue b"]);
        assert!(ledger.close(false).is_empty());
    }

    #[test]
    fn what_comes_again_or_late_must_be_flagged() {
        let ledger = ledger(10, 0);
        let mut last = 0;
        for (number, redelivered) in [(0, false), (2, false), (0, true), (1, true), (3, false)] {
            deliver(&ledger, 0, number, redelivered, &mut last);
        }
        assert!(ledger.close(true).is_empty());
        deliver(&ledger, 0, 3, false, &mut last);
        deliver(&ledger, 0, 5, false, &mut last);
        deliver(&ledger, 0, 4, false, &mut last);
        deliver(&ledger, 0, 10, false, &mut last);
        ledger.delivered(Err(Damaged), Delivered { queue: 0, redelivered: false }, None);
        let faults = ledger.close(true);
        let found = [faults.duplicated, faults.reordered, faults.invented, faults.damaged];
        assert_eq!(found, [1, 1, 1, 1], "{faults:?}");
        assert_eq!(faults.examples[1], "reordered: lane 0 number 4 in queue a came after number 5");
    }

    #[test]
    fn what_was_given_back_need_not_come() {
        let ledger = ledger(1, 0);
        ledger.returned(Numbered { run: 7, lane: 0, number: 0 });
        ledger.confirmed(0, 0);
        assert_eq!((ledger.missing(), ledger.close(true).lost), (0, 0));
    }

    #[test]
    fn messages_of_others_are_counted_and_nothing_else() {
        let ledger = ledger(1, 0);
        let message = Numbered { run: 8, lane: 0, number: 0 };
        let how = Delivered { queue: 0, redelivered: false };
        ledger.delivered(Ok(Some(message)), how, None);
        ledger.delivered(Ok(None), how, None);
        assert_eq!(ledger.foreign(), 2);
        assert!(ledger.close(true).is_empty());
    }

    #[test]
    fn a_ledger_is_saved_and_goes_on_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let queues = ["a".to_owned(), "b".to_owned()];
        assert_eq!(Ledger::load(&path, 9, &queues).unwrap().run(), 9);
        let before = ledger(300, 200);
        (0..150).for_each(|number| deliver(&before, 0, number, false, &mut 0));
        before.save(&path).unwrap();
        let after = Ledger::load(&path, 9, &queues).unwrap();
        assert_eq!((after.run(), after.missing()), (7, 50 + 200));
        // It may have published more after its file was written.
        (150..301).for_each(|number| deliver(&after, 0, number, false, &mut 0));
        (0..200).for_each(|number| deliver(&after, 1, number, false, &mut 0));
        assert_eq!((after.missing(), after.close(true)), (0, Faults::default()));
        assert!(Ledger::load(&path, 9, &queues[..1]).is_err());
        fs::write(&path, "{}").unwrap();
        assert!(Ledger::load(&path, 9, &queues).is_err());
    }

    #[test]
    fn sets_of_numbers() {
        let bits = Bits::of(&[(0, 3), (63, 66), (200, 201)]);
        assert_eq!(bits.ranges(), [(0, 3), (63, 66), (200, 201)]);
        assert_eq!(bits.count(), 7);
        assert!(bits.has(64) && !bits.has(66) && !bits.has(100_000));
        assert_eq!(bits.without(&Bits::of(&[(1, 64)])).ranges(), [(0, 1), (64, 66), (200, 201)]);
    }
}
