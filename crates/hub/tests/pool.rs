//! Groups and pools: what gevent's documentation says of `gevent.pool`.

mod support;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use support::run;
use warren_hub::sync::{Event, Queue};
use warren_hub::{Group, JoinError, Pool, TimedOut, call_soon, join_all, sleep, spawn, yield_now};

const SHORT: Duration = Duration::from_millis(2);
const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_fiber_that_has_ended_leaves_its_group() {
    run(|| {
        let group = Group::new();
        group.join();
        let fibers: Vec<_> = (0..3).map(|n| group.spawn(move || n)).collect();
        assert_eq!((group.len(), group.is_empty(), group.is_full()), (3, false, false));
        assert!(group.contains(&fibers[0]));
        assert_eq!(group.ids(), fibers.iter().map(|fiber| fiber.id()).collect::<Vec<_>>());
        group.join();
        assert!(group.is_empty() && !group.contains(&fibers[0]));
        let values: Vec<_> = join_all(fibers).into_iter().map(Result::unwrap).collect();
        assert_eq!(values, [0, 1, 2]);
    });
}

#[test]
fn a_panic_and_a_kill_before_the_start_end_membership_too() {
    run(|| {
        let group = Group::new();
        let panics = group.spawn(|| panic!("in a group"));
        let killed = group.spawn(|| ());
        killed.kill();
        group.join();
        assert!(panics.join().is_err() && killed.join().is_err());
    });
}

#[test]
fn fibers_can_be_added_and_discarded() {
    run(|| {
        let group = Group::new();
        let event = Rc::new(Event::new());
        let fiber = spawn({
            let event = event.clone();
            move || event.wait()
        });
        group.add(&fiber);
        group.add(&fiber);
        assert_eq!(group.len(), 1);
        assert_eq!(group.join_timeout(SHORT), Err(TimedOut));
        group.discard(&fiber);
        assert!(group.is_empty());
        assert_eq!(group.join_timeout(SHORT), Ok(()));
        event.set();
        fiber.wait();
        // One that has ended leaves as soon as the loop turns.
        group.add(&fiber);
        group.join();
    });
}

#[test]
fn killing_a_group_kills_those_it_starts_meanwhile() {
    struct SpawnsOnce(Group, Rc<Cell<bool>>);
    impl Drop for SpawnsOnce {
        fn drop(&mut self) {
            let killed = self.1.clone();
            self.0.spawn(move || {
                Event::new().wait();
                killed.set(false);
            });
            self.1.set(true);
        }
    }
    run(|| {
        let group = Group::new();
        let spawned = Rc::new(Cell::new(false));
        let guard = SpawnsOnce(group.clone(), spawned.clone());
        let fiber = group.spawn(move || {
            let _guard = guard;
            Event::new().wait();
        });
        yield_now();
        assert!(group.kill_wait(None));
        assert!(spawned.get());
        assert!(matches!(fiber.join(), Err(JoinError::Killed)));
    });
}

#[test]
fn killing_does_not_wait_unless_told_to() {
    run(|| {
        let group = Group::new();
        let release = Rc::new(Event::new());
        let stubborn = group.spawn({
            let release = release.clone();
            move || warren_hub::shield(|| release.wait())
        });
        yield_now();
        group.kill();
        assert!(!group.kill_wait(Some(SHORT)));
        release.set();
        stubborn.join().unwrap();
        let (one, other) = (group.spawn(|| Event::new().wait()), group.spawn(|| ()));
        yield_now();
        group.kill_one(&one);
        group.kill_one(&other);
        group.join();
        assert!(one.join().unwrap_err().is_killed());
    });
}

#[test]
fn a_pool_starts_no_more_than_it_has_room_for() {
    run(|| {
        let pool = Pool::new(2);
        let (inside, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        for _ in 0..6 {
            let (inside, most) = (inside.clone(), most.clone());
            pool.spawn(move || {
                inside.set(inside.get() + 1);
                most.set(most.get().max(inside.get()));
                yield_now();
                inside.set(inside.get() - 1);
            });
            assert!(pool.len() <= 2);
        }
        pool.join();
        assert_eq!((most.get(), pool.free_count(), pool.is_full()), (2, 2, false));
    });
}

#[test]
fn a_full_pool_says_so() {
    run(|| {
        let pool = Pool::new(1);
        let release = Rc::new(Event::new());
        pool.wait_available();
        let running = pool
            .try_spawn({
                let release = release.clone();
                move || release.wait()
            })
            .unwrap();
        assert!(pool.is_full());
        assert_eq!(pool.try_spawn(|| 7).unwrap_err().0(), 7, "what was to run comes back");
        assert!(pool.spawn_timeout(SHORT, || ()).is_err());
        assert_eq!(pool.wait_available_timeout(SHORT), Err(TimedOut));
        let waiting = spawn({
            let pool = pool.clone();
            move || pool.wait_available()
        });
        yield_now();
        release.set();
        running.join().unwrap();
        waiting.join().unwrap();
        assert_eq!(pool.spawn_timeout(LONG, || 1).unwrap().join().unwrap(), 1);
        assert!(Pool::new(0).try_spawn(|| ()).is_err());
    });
}

#[test]
fn one_who_is_killed_while_it_waits_for_room_takes_none() {
    run(|| {
        let pool = Pool::new(1);
        let release = Rc::new(Event::new());
        let first = pool.spawn({
            let release = release.clone();
            move || release.wait()
        });
        let spawner = || {
            let pool = pool.clone();
            spawn(move || pool.spawn(|| ()).join().unwrap())
        };
        let (dying, next) = (spawner(), spawner());
        yield_now();
        dying.kill();
        release.set();
        first.join().unwrap();
        next.join().unwrap();
        let _ = dying.join();
        pool.join();
        assert_eq!(pool.free_count(), 1);
    });
}

#[test]
fn applying_waits_for_the_result_and_hands_on_the_panic() {
    run(|| {
        let pool = Pool::new(1);
        assert_eq!(pool.apply(|| 1), 1);
        let panic = catch_unwind(AssertUnwindSafe({
            let pool = pool.clone();
            move || pool.apply(|| panic!("applied"))
        }));
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"applied"));
        // A worker of a full pool would wait for itself.
        let inner = pool.clone();
        assert_eq!(pool.apply(move || inner.apply(|| 2)), 2);
        // Never waits, though the pool is full.
        let release = Rc::new(Event::new());
        let held = release.clone();
        let first = pool.apply_async(move || held.wait());
        let second = pool.apply_async(|| 3);
        assert!(pool.contains(&first) && !pool.contains(&second));
        release.set();
        assert_eq!(second.join().unwrap(), 3);
    });
}

#[test]
fn mapping_keeps_the_order_of_the_items() {
    run(|| {
        let pool = Pool::new(2);
        // The first takes longest.
        let f = |n: u32| {
            (n..4).for_each(|_| yield_now());
            10 * n
        };
        assert_eq!(pool.map(f, 0..4), [0, 10, 20, 30]);
        assert_eq!(pool.imap(f, 0..4).collect::<Vec<_>>(), [0, 10, 20, 30]);
        assert_eq!(Group::new().map(f, Vec::new()), [0; 0]);
        assert_eq!(Group::new().imap(f, 0..0).next(), None);
    });
}

#[test]
fn an_unordered_map_gives_results_as_they_come() {
    run(|| {
        let group = Group::new();
        let turns = |n: u32| {
            (0..n).for_each(|_| yield_now());
            n
        };
        assert_eq!(group.imap_unordered(turns, [9, 1, 5]).collect::<Vec<_>>(), [1, 5, 9]);
        assert!(group.is_empty());
    });
}

#[test]
fn a_panic_in_a_map_reaches_the_caller() {
    run(|| {
        let f = |n: i32| if n == 1 { panic!("at one") } else { n };
        let group = Group::new();
        let mapping = spawn({
            let group = group.clone();
            move || group.map(f, 0..3)
        });
        assert_eq!(mapping.join().unwrap_err().message(), Some("at one"));
        for ordered in [true, false] {
            let group = group.clone();
            let stepping = spawn(move || {
                let mut results: Box<dyn Iterator<Item = i32>> = match ordered {
                    true => Box::new(group.imap(f, 0..3)),
                    false => Box::new(group.imap_unordered(f, 0..3)),
                };
                assert_eq!(results.next(), Some(0));
                let panic = catch_unwind(AssertUnwindSafe(|| results.next())).unwrap_err();
                assert_eq!(panic.downcast_ref(), Some(&"at one"));
                // The others are not lost.
                assert_eq!((results.next(), results.next()), (Some(2), None));
            });
            stepping.join().unwrap();
        }
    });
}

#[test]
fn a_panic_of_the_items_reaches_the_caller_after_the_results() {
    run(|| {
        let items = (0..3).map(|n| if n == 2 { panic!("no more") } else { n });
        let mut results = Group::new().imap(|n| n, items);
        assert_eq!((results.next(), results.next()), (Some(0), Some(1)));
        let panic = catch_unwind(AssertUnwindSafe(|| results.next())).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"no more"));
        assert_eq!(results.next(), None);
    });
}

#[test]
fn a_killed_fiber_of_a_map_is_told_to_the_caller() {
    run(|| {
        let group = Group::new();
        let mapping = spawn({
            let group = group.clone();
            move || group.imap_unordered(|()| Event::new().wait(), [(), ()]).count()
        });
        while group.len() < 2 {
            yield_now();
        }
        group.kill();
        assert!(mapping.join().unwrap_err().message().unwrap().contains("was killed"));
    });
}

#[test]
fn a_bounded_map_runs_no_further_ahead_than_allowed() {
    run(|| {
        let started = Rc::new(Cell::new(0));
        let count = started.clone();
        let f = move |n: u32| {
            count.set(count.get() + 1);
            n
        };
        let mut results = Group::new().imap(f, 0..10).maxsize(3);
        for n in 0..10 {
            sleep(SHORT);
            assert_eq!(started.get(), (3 + n).min(10));
            assert_eq!(results.next(), Some(n));
        }
        assert_eq!(results.next(), None);
    });
}

/// gevent: the fibers of a `map` are the group's and not the caller's.
#[test]
fn a_caller_that_is_killed_leaves_the_fibers_it_started() {
    run(|| {
        let group = Group::new();
        let done: Rc<RefCell<Vec<i32>>> = Rc::default();
        let mapping = spawn({
            let (group, done) = (group.clone(), done.clone());
            move || {
                let f = move |n| {
                    yield_now();
                    done.borrow_mut().push(n);
                };
                group.map(f, 0..3)
            }
        });
        yield_now();
        mapping.kill();
        assert!(mapping.join().is_err());
        group.join();
        assert_eq!(done.take(), [0, 1, 2]);
        // An iterator that is dropped starts no more.
        let queue = Rc::new(Queue::unbounded());
        let pool = Pool::new(1);
        let told = queue.clone();
        let mut results = pool.imap(move |n| told.put(n).unwrap(), 0..9);
        results.next();
        drop(results);
        pool.join();
        assert!(queue.len() < 9);
    });
}

#[test]
fn a_callback_can_start_fibers_in_a_group_and_not_in_a_full_pool() {
    run(|| {
        let (group, pool) = (Group::new(), Pool::new(1));
        pool.spawn(|| ());
        let (g, p) = (group.clone(), pool.clone());
        let tried = Rc::new(Cell::new(false));
        let told = tried.clone();
        call_soon(move || {
            g.spawn(|| ());
            p.apply_async(|| ());
            told.set(true);
        });
        while !tried.get() {
            yield_now();
        }
        group.join();
        pool.join();
    });
}
