//! Readers and writers.

use std::rc::Rc;

use super::run;
use warren_hub::sync::RwLock;
use warren_hub::{TimedOut, join_all, yield_now};

use super::{LONG, Log, SHORT, start};

#[test]
fn many_read_or_one_writes() {
    run(|| {
        let lock = Rc::new(RwLock::new(1));
        let (first, second) = (lock.read(), lock.try_read().unwrap());
        assert!(lock.try_write().is_none());
        assert_eq!(lock.write_timeout(SHORT).map(drop), Err(TimedOut));
        drop((first, second));
        let mut writing = lock.write();
        *writing = 2;
        assert!(lock.try_read().is_none() && lock.try_write().is_none());
        assert_eq!(lock.read_timeout(SHORT).map(drop), Err(TimedOut));
        drop(writing);
        assert_eq!(lock.read_timeout(LONG).map(|value| *value), Ok(2));
        assert_eq!(lock.write_timeout(LONG).map(|value| *value), Ok(2));
    });
}

/// Starts a fiber that takes the lock, notes its name, and ends.
fn note(
    lock: &Rc<RwLock<()>>,
    log: &Log<&'static str>,
    name: &'static str,
) -> warren_hub::JoinHandle<()> {
    let log = log.clone();
    start(lock, move |lock| {
        let (_read, _write);
        if name.starts_with('r') {
            _read = lock.read();
        } else {
            _write = lock.write();
        }
        log.borrow_mut().push(name);
        yield_now();
    })
}

#[test]
fn all_are_served_in_turn_so_that_no_writer_starves() {
    run(|| {
        let lock = Rc::new(RwLock::new(()));
        let log = Log::default();
        let held = lock.read();
        let names = ["w1", "r1", "r2", "w2", "r3"];
        let waiting: Vec<_> = names.iter().map(|name| note(&lock, &log, name)).collect();
        assert!(log.borrow().is_empty(), "r1 must not overtake w1");
        assert!(lock.try_read().is_none());
        drop(held);
        join_all(waiting);
        assert_eq!(log.take(), names);
    });
}

#[test]
fn a_writer_that_gives_up_lets_the_readers_behind_it_in() {
    run(|| {
        let lock = Rc::new(RwLock::new(()));
        let log = Log::default();
        let _held = lock.read();
        let writer = start(&lock, |lock| lock.write_timeout(SHORT).map(drop));
        let reader = note(&lock, &log, "r1");
        assert!(log.borrow().is_empty());
        assert_eq!(writer.join().unwrap(), Err(TimedOut));
        reader.join().unwrap();
        let killed = start(&lock, |lock| drop(lock.write()));
        let reader = note(&lock, &log, "r2");
        killed.kill();
        reader.join().unwrap();
        assert_eq!(log.take(), ["r1", "r2"]);
    });
}

#[test]
fn a_writer_that_goes_on_reading_lets_readers_in_and_no_writer() {
    run(|| {
        let lock = Rc::new(RwLock::new(()));
        let log = Log::default();
        let writing = lock.write();
        let waiting: Vec<_> = ["r1", "w1"].map(|name| note(&lock, &log, name)).into();
        let reading = writing.downgrade();
        yield_now();
        yield_now();
        yield_now();
        assert_eq!(*log.borrow(), ["r1"]);
        drop(reading);
        join_all(waiting);
        assert_eq!(log.take(), ["r1", "w1"]);
    });
}
