//! A write-ahead log that is cut off at any moment: what it has confirmed is there when it is back.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use warren_hub::fs::{self, File};
use warren_hub::sim::{self, World};
use warren_hub::{sleep, spawn};

const PATH: &str = "/log/records";

/// What a log may get wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// A record is confirmed before it is on the disk.
    NoSync,
    /// The file's name is not.
    NoDirSync,
    /// A record is taken for whole without looking.
    NoChecksum,
}

/// Records of a number each, with a checksum: 16 bytes.
struct Log {
    file: File,
    end: u64,
    bug: Bug,
}

fn checksum(number: u64) -> u64 {
    (number ^ 0x5bd1_e995).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Log {
    /// Opens the log, and gives the records that are whole; what follows the first that is not is cut off.
    fn open(bug: Bug) -> io::Result<(Self, Vec<u64>)> {
        fs::create_dir_all("/log")?;
        let file = File::options().read(true).write(true).create(true).open(PATH)?;
        if bug != Bug::NoDirSync {
            fs::sync_dir("/log")?;
            fs::sync_dir("/")?;
        }
        let bytes = fs::read(PATH)?;
        let records = bytes.chunks_exact(16).map_while(|record| {
            let (number, sum) = record.split_at(8);
            let number = u64::from_le_bytes(number.try_into().ok()?);
            let whole = sum == checksum(number).to_le_bytes();
            (whole || bug == Bug::NoChecksum).then_some(number)
        });
        let records: Vec<u64> = records.collect();
        let end = 16 * records.len() as u64;
        file.set_len(end)?;
        file.sync_data()?;
        Ok((Self { file, end, bug }, records))
    }

    /// On the disk when this returns.
    fn append(&mut self, number: u64) -> io::Result<()> {
        let record = [number.to_le_bytes(), checksum(number).to_le_bytes()].concat();
        self.file.write_all_at(&record, self.end)?;
        self.end += record.len() as u64;
        if self.bug != Bug::NoSync {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// Cuts the power of a node that appends numbers, at ten moments; each time all that was confirmed must be there, in
/// order, and nothing that was never written.
fn crash_and_recover(world: &World, bug: Bug) {
    let confirmed = Rc::new(Cell::new(0));
    let node = world.machine("log");
    for _ in 0..10 {
        let count = confirmed.clone();
        node.start(move || {
            let (mut log, records) = Log::open(bug).unwrap();
            let want: Vec<u64> = (0..records.len() as u64).collect();
            assert_eq!(records, want, "records that were never written");
            assert!(count.get() <= records.len() as u64, "confirmed records are gone");
            for number in records.len() as u64.. {
                log.append(number).unwrap();
                count.set(number + 1);
            }
        });
        world.advance(Duration::from_micros(world.random().below(100_000)));
        node.crash();
    }
}

#[test]
fn a_log_recovers_from_a_crash_at_any_point() {
    sim::check(0..200, |world| crash_and_recover(world, Bug::None));
}

/// How many seeds it takes to find a bug.
fn seeds_to_find(bug: Bug) -> u64 {
    let found = (0..100).find(|&seed| {
        let run = || sim::run(seed, move |world| crash_and_recover(world, bug));
        catch_unwind(AssertUnwindSafe(run)).is_err()
    });
    found.expect("a simulation finds it") + 1
}

#[test]
fn a_log_that_does_not_sync_is_found_out() {
    assert!(seeds_to_find(Bug::NoSync) <= 10);
}

#[test]
fn a_log_that_does_not_sync_its_name_is_found_out() {
    assert!(seeds_to_find(Bug::NoDirSync) <= 20);
}

#[test]
fn a_log_that_trusts_its_tail_is_found_out() {
    assert!(seeds_to_find(Bug::NoChecksum) <= 40);
}

/// A failed sync must end the log: a second try that succeeds proves nothing.
#[test]
fn a_log_that_syncs_again_after_a_failure_is_found_out() {
    let run = |seed, again: bool| {
        sim::run(seed, move |world| {
            let node = world.machine("log");
            let confirmed = Rc::new(RefCell::new(0));
            node.disk().failing_syncs(0.05);
            for _ in 0..10 {
                let count = confirmed.clone();
                node.start(move || {
                    let Ok((mut log, records)) = Log::open(Bug::None) else { return };
                    assert!(*count.borrow() <= records.len(), "confirmed records are gone");
                    for number in records.len().. {
                        let mut done = log.append(number as u64);
                        if done.is_err() && again {
                            done = log.file.sync_data();
                        }
                        if done.is_err() {
                            return;
                        }
                        *count.borrow_mut() = number + 1;
                    }
                });
                world.advance(Duration::from_millis(200));
                node.crash();
            }
        })
    };
    for seed in 0..100 {
        run(seed, false);
    }
    let found = (0..50).any(|seed| catch_unwind(AssertUnwindSafe(|| run(seed, true))).is_err());
    assert!(found, "a sync that succeeds after one that failed is believed");
}

#[test]
fn several_writers_share_a_log_and_its_syncs() {
    sim::check(0..50, |world| {
        let node = world.machine("log");
        let confirmed = Rc::new(RefCell::new(Vec::new()));
        for _ in 0..3 {
            let all = confirmed.clone();
            node.start(move || {
                let file = File::options().read(true).append(true).create(true).open("/f");
                let file = Rc::new(file.unwrap());
                fs::sync_dir("/").unwrap();
                let bytes = fs::read("/f").unwrap();
                for byte in &*all.borrow() {
                    assert!(bytes.contains(byte), "{byte} was confirmed");
                }
                let begin = all.borrow().iter().max().map_or(1, |max| max + 1);
                for byte in begin..begin + 5 {
                    let (file, all) = (file.clone(), all.clone());
                    spawn(move || {
                        use std::io::Write;
                        (&*file).write_all(&[byte]).unwrap();
                        file.sync_data().unwrap();
                        all.borrow_mut().push(byte);
                    });
                }
                sleep(Duration::from_secs(60));
            });
            world.advance(Duration::from_micros(world.random().below(60_000)));
            node.crash();
        }
    });
}
