//! Locks, queues, pools and timeouts in many orders: whoever runs next is drawn by lot, and some are killed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use warren_hub::sim::{self, World};
use warren_hub::sync::{Condvar, Event, Mutex, Queue, RwLock, Semaphore};
use warren_hub::{
    JoinHandle, Pool, TimedOut, Timeout, join_all, sleep, spawn, with_timeout, yield_now,
};

const MS: Duration = Duration::from_millis(1);

/// Counts those inside for as long as it lives.
struct Inside(Rc<Cell<usize>>);

impl Inside {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Kills one of the fibers at some moment of the first 30 ms, and waits for all.
fn kill_one(world: &World, fibers: Vec<JoinHandle<()>>) {
    let victim = world.random().index(fibers.len());
    world.advance(world.random().duration(MS..=30 * MS));
    fibers[victim].kill();
    for ended in join_all(fibers) {
        assert!(ended.is_ok() || ended.is_err_and(|error| error.is_killed()));
    }
}

#[test]
fn a_queue_loses_and_doubles_nothing() {
    sim::check(0..200, |world| {
        let queue = Rc::new(Queue::bounded(1 + world.random().index(4)));
        let taken = Rc::new(RefCell::new(Vec::new()));
        let mut fibers = Vec::new();
        for producer in 0..3 {
            let queue = queue.clone();
            fibers.push(spawn(move || {
                for number in 0..10 {
                    queue.put((producer, number)).unwrap();
                    if sim::buggify(0.2) {
                        yield_now();
                    }
                }
            }));
        }
        for _ in 0..2 {
            let (queue, taken) = (queue.clone(), taken.clone());
            fibers.push(spawn(move || {
                for _ in 0..15 {
                    let item = queue.get().unwrap();
                    taken.borrow_mut().push(item);
                    queue.task_done();
                }
            }));
        }
        join_all(fibers);
        queue.join();
        let mut taken = taken.take();
        taken.sort_unstable();
        let all: Vec<(i32, i32)> =
            (0..3).flat_map(|producer| (0..10).map(move |n| (producer, n))).collect();
        assert_eq!(taken, all);
    });
}

#[test]
fn one_consumer_gets_each_producers_items_in_order() {
    sim::check(0..100, |world| {
        let queue = Rc::new(Queue::bounded(1 + world.random().index(3)));
        for producer in 0..3 {
            let queue = queue.clone();
            spawn(move || (0..10).for_each(|number| queue.put((producer, number)).unwrap()));
        }
        let mut next = [0; 3];
        for _ in 0..30 {
            let (producer, number): (usize, i32) = queue.get().unwrap();
            assert_eq!(number, next[producer]);
            next[producer] += 1;
        }
    });
}

#[test]
fn a_semaphore_lets_no_more_in_than_it_has() {
    sim::check(0..200, |world| {
        let permits = 1 + world.random().index(3);
        let semaphore = Rc::new(Semaphore::new(permits));
        let inside = Rc::new(Cell::new(0));
        let fibers = (0..8).map(|_| {
            let (world, semaphore, inside) = (world.clone(), semaphore.clone(), inside.clone());
            spawn(move || {
                for _ in 0..5 {
                    let got = with_timeout(world.random().duration(MS..=20 * MS), || {
                        let _permit = semaphore.acquire();
                        let _inside = Inside::new(&inside);
                        assert!(inside.get() <= permits);
                        sleep(world.random().duration(MS..=10 * MS));
                    });
                    assert!(matches!(got, Ok(()) | Err(TimedOut)));
                }
            })
        });
        kill_one(world, fibers.collect());
        assert_eq!(inside.get(), 0);
        for _ in 0..permits {
            assert!(semaphore.try_acquire().map(std::mem::forget).is_some(), "a permit is lost");
        }
    });
}

#[test]
fn a_lock_has_one_writer_or_some_readers() {
    sim::check(0..200, |world| {
        let lock = Rc::new(RwLock::new(0));
        let (readers, writers) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let fibers = (0..8).map(|number| {
            let (world, lock) = (world.clone(), lock.clone());
            let (readers, writers) = (readers.clone(), writers.clone());
            spawn(move || {
                for _ in 0..5 {
                    let pause = world.random().duration(MS..=5 * MS);
                    if number % 3 == 0 {
                        let mut value = lock.write();
                        let _inside = Inside::new(&writers);
                        assert!(writers.get() == 1 && readers.get() == 0);
                        let before = *value;
                        sleep(pause);
                        assert_eq!(*value, before);
                        *value += 1;
                    } else {
                        let value = lock.read();
                        let _inside = Inside::new(&readers);
                        assert_eq!(writers.get(), 0);
                        let before = *value;
                        sleep(pause);
                        assert_eq!(*value, before);
                    }
                }
            })
        });
        kill_one(world, fibers.collect());
        assert!(lock.try_write().is_some(), "nobody has it any more");
    });
}

#[test]
fn a_condition_is_true_when_the_wait_for_it_ends() {
    sim::check(0..100, |world| {
        let shared = Rc::new((Mutex::new(0), Condvar::new()));
        let takers: Vec<_> = (0..4)
            .map(|_| {
                let shared = shared.clone();
                spawn(move || {
                    for _ in 0..5 {
                        let guard = shared.0.lock();
                        let mut stock = shared.1.wait_while(guard, |stock| *stock == 0);
                        assert!(*stock > 0);
                        *stock -= 1;
                    }
                })
            })
            .collect();
        let world = world.clone();
        spawn(move || {
            for _ in 0..20 {
                sleep(world.random().duration(Duration::ZERO..=2 * MS));
                *shared.0.lock() += 1;
                shared.1.notify_one();
            }
        });
        for ended in join_all(takers) {
            ended.unwrap();
        }
    });
}

#[test]
fn an_event_wakes_all_who_wait_and_those_who_come_later() {
    sim::check(0..50, |world| {
        let event = Rc::new(Event::new());
        let fibers: Vec<_> = (0..5u64)
            .map(|number| {
                let event = event.clone();
                spawn(move || {
                    sleep(MS * number as u32);
                    event.wait();
                })
            })
            .collect();
        world.advance(world.random().duration(MS..=6 * MS));
        event.set();
        assert!(with_timeout(Duration::from_secs(1), || join_all(fibers)).is_ok());
    });
}

#[test]
fn a_pool_runs_as_many_as_it_may_and_gives_the_results_in_order() {
    sim::check(0..100, |world| {
        let size = 1 + world.random().index(4);
        let pool = Pool::new(size);
        let inside = Rc::new(Cell::new(0));
        let (count, own) = (inside.clone(), world.clone());
        let results = pool.map(
            move |number: u32| {
                let _inside = Inside::new(&count);
                assert!(count.get() <= size);
                sleep(own.random().duration(MS..=10 * MS));
                2 * number
            },
            0..12,
        );
        assert_eq!(results, (0..12).map(|number| 2 * number).collect::<Vec<_>>());
        assert_eq!((inside.get(), pool.free_count()), (0, size));
    });
}

#[test]
fn nested_timeouts_are_told_apart() {
    sim::check(0..200, |world| {
        let random = world.random();
        let (outer, inner) = (random.duration(MS..=30 * MS), random.duration(MS..=30 * MS));
        let began = world.now();
        let timeout = Timeout::start(outer);
        let result = timeout.catch(|| with_timeout(inner, || sleep(20 * MS)));
        let took = world.now() - began;
        match result {
            Ok(Ok(())) => assert!(took >= 20 * MS),
            Ok(Err(TimedOut)) => assert!(took >= inner),
            Err(TimedOut) => assert!(took >= outer),
        }
        assert!(took <= outer.min(inner).min(20 * MS) + 2 * MS, "{took:?}");
    });
}
