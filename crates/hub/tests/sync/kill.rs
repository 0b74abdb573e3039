//! What is handed to a fiber that is killed or times out before it has it goes to the next.
//!
//! Each case comes twice: the kill comes while the fiber waits, and after it was woken but before it ran.

use std::rc::Rc;
use std::time::Duration;

use super::run;
use warren_hub::sync::{
    Channel, Condvar, GetError, LifoQueue, Mutex, PriorityQueue, Queue, RwLock, Semaphore,
};
use warren_hub::{JoinError, JoinHandle, with_timeout, yield_now};

use super::{LONG, SHORT, start};

/// Kills the first of two waiters, before and after `hand_over` has woken it; the second must get what there is.
#[track_caller]
fn the_second_gets_it<S: 'static, T: 'static>(
    make: impl Fn() -> S + 'static,
    wait: impl Fn(&S) -> T + Copy + 'static,
    hand_over: impl Fn(&S) + 'static,
) {
    run(move || {
        for kill_first in [true, false] {
            let shared = Rc::new(make());
            let dying = start(&shared, move |shared| {
                let _got = wait(&shared);
                // One who does get it dies with it here.
                loop {
                    yield_now();
                }
            });
            let next = start(&shared, move |shared| drop(wait(&shared)));
            if kill_first {
                dying.kill();
                hand_over(&shared);
            } else {
                hand_over(&shared);
                dying.kill();
            }
            with_timeout(LONG, || next.join()).expect("nobody passed it on").unwrap();
            assert_killed(dying);
        }
    });
}

#[track_caller]
fn assert_killed<T: 'static>(handle: JoinHandle<T>) {
    assert!(matches!(handle.join(), Err(JoinError::Killed)));
}

#[test]
fn a_permit_is_passed_on() {
    // The permit of `wait` is kept by being forgotten: were it dropped, anybody would see it come back.
    the_second_gets_it(
        || Semaphore::new(0),
        |semaphore| semaphore.acquire_timeout(LONG).map(drop).unwrap(),
        Semaphore::release,
    );
}

#[test]
fn a_permit_comes_back_when_nobody_else_waits() {
    run(|| {
        for kill_first in [true, false] {
            let semaphore = Rc::new(Semaphore::new(1));
            let permit = semaphore.acquire();
            let dying = start(&semaphore, |semaphore| {
                let _permit = semaphore.acquire();
                yield_now();
            });
            if kill_first {
                dying.kill();
                drop(permit);
            } else {
                drop(permit);
                dying.kill();
            }
            assert_killed(dying);
            assert_eq!(semaphore.available(), 1);
        }
    });
}

#[test]
fn a_lock_is_passed_on() {
    run(|| {
        let lock = Rc::new(Mutex::new(()));
        let held = lock.lock();
        let dying = start(&lock, |lock| {
            let _held = lock.lock();
            loop {
                yield_now();
            }
        });
        let next = start(&lock, |lock| drop(lock.lock()));
        drop(held);
        dying.kill();
        next.join().unwrap();
        assert_killed(dying);
        assert!(!lock.is_locked());
    });
}

#[test]
fn a_turn_to_read_or_write_is_passed_on() {
    run(|| {
        for write in [true, false] {
            let lock = Rc::new(RwLock::new(()));
            let held = lock.write();
            let dying = start(&lock, move |lock| {
                let (_read, _write);
                if write {
                    _write = lock.write();
                } else {
                    _read = lock.read();
                }
                loop {
                    yield_now();
                }
            });
            let next = start(&lock, |lock| drop(lock.write()));
            drop(held);
            dying.kill();
            next.join().unwrap();
            assert_killed(dying);
            assert!(lock.try_write().is_some());
        }
    });
}

#[test]
fn a_notification_is_passed_on() {
    run(|| {
        let shared = Rc::new((Mutex::new(()), Condvar::new()));
        let wait = |shared: Rc<(Mutex<()>, Condvar)>| drop(shared.1.wait(shared.0.lock()));
        let dying = start(&shared, wait);
        let next = start(&shared, wait);
        // Woken, and then it waits for the lock: the notification is still on the way.
        let held = shared.0.lock();
        shared.1.notify_one();
        yield_now();
        dying.kill();
        assert_killed(dying);
        drop(held);
        with_timeout(LONG, || next.join()).expect("nobody passed it on").unwrap();
    });
}

#[test]
fn an_item_of_a_queue_stays_for_the_next() {
    run(|| {
        let queue = Rc::new(Queue::unbounded());
        let dying = start(&queue, |queue| queue.get());
        dying.kill();
        queue.put(1).unwrap();
        assert_killed(dying);
        assert_eq!(queue.try_get(), Ok(1));
    });
}

#[test]
fn a_wake_up_of_a_queue_is_passed_on() {
    // Two items are there, so whoever of the two goes on finds one.
    the_second_gets_it(
        Queue::unbounded,
        |queue| queue.get_timeout(LONG).unwrap(),
        |queue| (0..2).for_each(|n| queue.put(n).unwrap()),
    );
    the_second_gets_it(
        LifoQueue::unbounded,
        |queue| queue.get().unwrap(),
        |queue| (0..2).for_each(|n| queue.put(n).unwrap()),
    );
    the_second_gets_it(
        PriorityQueue::unbounded,
        |queue| queue.peek().unwrap(),
        |queue| queue.put(1).unwrap(),
    );
}

#[test]
fn a_putter_that_dies_takes_its_item_back() {
    run(|| {
        let queue = Rc::new(Queue::bounded(1));
        queue.put(1).unwrap();
        let dying = start(&queue, |queue| queue.put(2));
        let next = start(&queue, |queue| queue.put(3));
        dying.kill();
        assert_killed(dying);
        assert_eq!((queue.get(), queue.get()), (Ok(1), Ok(3)));
        next.join().unwrap().unwrap();
        assert_eq!((queue.try_get(), queue.len()), (Err(GetError::Empty), 0));
    });
}

#[test]
fn an_item_of_a_channel_that_was_taken_is_not_put_again() {
    run(|| {
        let channel = Rc::new(Channel::new());
        let dying = start(&channel, |channel| channel.put(1));
        assert_eq!(channel.get(), Ok(1));
        dying.kill();
        let _ = dying.join();
        assert_eq!(channel.try_get(), Err(GetError::Empty));
        // Killed while it offers: nobody gets the item.
        let dying = start(&channel, |channel| channel.put(2));
        dying.kill();
        assert_killed(dying);
        assert_eq!(channel.get_timeout(SHORT), Err(GetError::Empty));
    });
}

#[test]
fn a_timeout_around_a_wait_passes_on_as_a_kill_does() {
    run(|| {
        let semaphore = Rc::new(Semaphore::new(0));
        let timing_out = start(&semaphore, |semaphore| {
            with_timeout(Duration::ZERO, || semaphore.acquire().forget()).is_ok()
        });
        semaphore.release();
        let taken = timing_out.join().unwrap();
        assert_eq!(semaphore.available(), usize::from(!taken));
    });
}

/// While a fiber that unwinds waits for a lock, the thread counts as panicking; the others wait as ever.
#[test]
fn a_destructor_that_waits_for_a_lock_does_not_disturb_the_waits_of_others() {
    struct Locks(Rc<Mutex<()>>);
    impl Drop for Locks {
        fn drop(&mut self) {
            drop(self.0.lock());
        }
    }
    run(|| {
        let lock = Rc::new(Mutex::new(()));
        let held = lock.lock();
        let dying = start(&lock, |lock| {
            let _locks = Locks(lock);
            loop {
                yield_now();
            }
        });
        dying.kill();
        yield_now();
        let queue = Rc::new(Queue::unbounded());
        let getting = start(&queue, |queue| queue.get());
        assert!(!getting.is_finished());
        queue.put(1).unwrap();
        assert_eq!(getting.join().unwrap(), Ok(1));
        // Killed once more while it unwinds: it must not unwind twice.
        dying.kill();
        yield_now();
        assert!(!dying.is_finished());
        drop(held);
        assert_killed(dying);
    });
}
