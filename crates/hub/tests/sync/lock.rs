//! Mutexes, recursive locks and condition variables.

use std::rc::Rc;

use super::run;
use warren_hub::sync::{Condvar, Mutex, RLock};
use warren_hub::{JoinError, TimedOut, join_all, sleep, spawn, yield_now};

use super::{LONG, Log, SHORT, start};

#[test]
fn a_mutex_keeps_its_value_whole_across_waits() {
    run(|| {
        let value = Rc::new(Mutex::new(0));
        join_all((0..10).map(|_| {
            let value = value.clone();
            spawn(move || {
                let mut value = value.lock();
                let seen = *value;
                yield_now();
                *value = seen + 1;
            })
        }));
        assert_eq!(*value.lock(), 10);
        let held = value.lock();
        assert!(value.is_locked() && value.try_lock().is_none());
        assert_eq!(value.lock_timeout(SHORT).map(drop), Err(TimedOut));
        drop(held);
        assert!(value.try_lock().is_some());
        assert_eq!(value.lock_timeout(LONG).map(|value| *value), Ok(10));
    });
}

#[test]
fn a_panic_or_a_kill_with_the_lock_held_releases_it() {
    run(|| {
        let value = Rc::new(Mutex::new(0));
        let panicking = start(&value, |value| {
            *value.lock() = 1;
            let _held = value.lock();
            panic!("with the lock held");
        });
        assert_eq!(panicking.join().unwrap_err().message(), Some("with the lock held"));
        let killed = start(&value, |value| {
            let mut value = value.lock();
            *value = 2;
            loop {
                yield_now();
            }
        });
        killed.kill();
        assert!(matches!(killed.join(), Err(JoinError::Killed)));
        assert_eq!(value.try_lock().map(|value| *value), Some(2));
    });
}

#[test]
fn the_owner_of_a_recursive_lock_takes_it_again() {
    run(|| {
        let lock = Rc::new(RLock::new());
        let outer = lock.acquire();
        let inner = lock.try_acquire().unwrap();
        let other = start(&lock, |lock| {
            assert!(lock.try_acquire().is_none());
            let in_vain = lock.acquire_timeout(SHORT).map(drop);
            let _held = lock.acquire();
            (in_vain, lock.is_owned())
        });
        sleep(2 * SHORT);
        drop(outer);
        assert!(lock.locked() && lock.is_owned());
        yield_now();
        assert!(!other.is_finished());
        drop(inner);
        assert!(!lock.is_owned());
        assert_eq!(other.join().unwrap(), (Err(TimedOut), true));
        assert!(!lock.locked());
    });
}

#[test]
fn a_killed_owner_of_a_recursive_lock_releases_all_its_holds() {
    run(|| {
        let lock = Rc::new(RLock::new());
        let owner = start(&lock, |lock| {
            let _holds = (lock.acquire(), lock.acquire());
            loop {
                yield_now();
            }
        });
        let waiting = start(&lock, |lock| drop(lock.acquire()));
        owner.kill();
        waiting.join().unwrap();
        assert!(!lock.locked());
    });
}

#[test]
fn notifications_go_to_those_who_wait_in_turn() {
    run(|| {
        let shared = Rc::new((Mutex::new(0), Condvar::new()));
        let order: Log<u32> = Log::default();
        let waiting: Vec<_> = (0..3)
            .map(|n| {
                let order = order.clone();
                start(&shared, move |shared| {
                    let _guard = shared.1.wait(shared.0.lock());
                    order.borrow_mut().push(n);
                })
            })
            .collect();
        shared.1.notify_one();
        while order.borrow().is_empty() {
            yield_now();
        }
        assert_eq!(*order.borrow(), [0]);
        shared.1.notify_all();
        join_all(waiting);
        assert_eq!(order.take(), [0, 1, 2]);
        // One that nobody waits for is not kept.
        shared.1.notify_one();
        let (_guard, timed_out) = shared.1.wait_timeout(shared.0.lock(), SHORT);
        assert!(timed_out);
    });
}

#[test]
fn waiting_while_a_condition_holds_looks_again_each_time() {
    run(|| {
        let shared = Rc::new((Mutex::new(0), Condvar::new()));
        let waiting = start(&shared, |shared| {
            let (value, holds) =
                shared.1.wait_timeout_while(shared.0.lock(), LONG, |value| *value < 3);
            (*value, holds)
        });
        for _ in 0..3 {
            *shared.0.lock() += 1;
            shared.1.notify_one();
            yield_now();
        }
        assert_eq!(waiting.join().unwrap(), (3, false));
        let value = shared.1.wait_while(shared.0.lock(), |value| *value < 3);
        let (value, holds) = shared.1.wait_timeout_while(value, SHORT, |value| *value < 4);
        assert_eq!((*value, holds), (3, true));
    });
}
