//! Locks and queues among fibers that run in random order, are killed and time out at random: a world for each seed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use warren_hub::sync::{
    BaseQueue, Channel, Closed, Condvar, GetError, Mutex, PriorityQueue, Queue, RwLock, Semaphore,
    Storage,
};
use warren_hub::{JoinHandle, SharedSemaphore, channel, sim, sleep, spawn, yield_now};

const SEEDS: u64 = 150;

/// Chance that the seed decides.
#[derive(Clone)]
struct Chance(Rc<sim::Random>);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(Rc::new(sim::Random::new(seed)))
    }

    fn below(&self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    fn pause(&self) {
        match self.below(3) {
            0 => sleep(Duration::from_millis(self.below(4))),
            1 => yield_now(),
            _ => {}
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.below(6))
    }
}

/// Kills about a third of the fibers, at random times; then waits for all of them.
fn kill_some(chance: &Chance, fibers: Vec<JoinHandle<()>>) {
    for fiber in &fibers {
        chance.pause();
        if chance.below(3) == 0 {
            fiber.kill();
        }
    }
    for fiber in fibers {
        if let Err(error) = fiber.join() {
            assert!(error.is_killed(), "{error}");
        }
    }
}

/// Puts and gets in all ways. What was put is got once, by those who were not killed or at the end.
fn check_queue<S: Storage<Item = u32> + 'static>(make: impl Fn() -> BaseQueue<S> + 'static) {
    sim::check(0..SEEDS, move |world| {
        let chance = Chance::new(world.seed());
        let queue = Rc::new(make());
        let (put, got) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
        let putters = (0..4).map(|putter| {
            let (queue, put, chance) = (queue.clone(), put.clone(), chance.clone());
            spawn(move || {
                for n in 0..3 {
                    chance.pause();
                    let item = 10 * putter + n;
                    let done = match chance.below(3) {
                        0 => queue.try_put(item).is_ok(),
                        1 => queue.put_timeout(item, chance.patience()).is_ok(),
                        _ => queue.put(item).is_ok(),
                    };
                    if done {
                        put.borrow_mut().push(item);
                    }
                }
            })
        });
        let getters = (0..3).map(|_| {
            let (queue, got, chance) = (queue.clone(), got.clone(), chance.clone());
            spawn(move || {
                loop {
                    chance.pause();
                    let item = match chance.below(3) {
                        0 => queue.try_get(),
                        1 => queue.get_timeout(chance.patience()),
                        _ => queue.get().map_err(|Closed| GetError::Closed),
                    };
                    got.borrow_mut().extend(item.ok());
                    if queue.is_closed() && item.is_err() {
                        return;
                    }
                }
            })
        });
        let putters: Vec<_> = putters.collect();
        let getters: Vec<_> = getters.collect();
        // Whoever is left to put needs somebody who gets, though all the getters may be killed.
        let last = spawn({
            let (queue, got) = (queue.clone(), got.clone());
            move || {
                sleep(Duration::from_millis(30));
                queue.iter().for_each(|item| got.borrow_mut().push(item));
            }
        });
        let closing = spawn({
            let (chance, queue) = (chance.clone(), queue.clone());
            move || {
                kill_some(&chance, putters);
                queue.close();
            }
        });
        kill_some(&chance, getters);
        closing.join().unwrap();
        last.join().unwrap();
        let (put, mut got) = (put.take(), got.take());
        assert!(put.iter().all(|item| got.contains(item)), "lost: {put:?} {got:?}");
        let count = got.len();
        got.sort_unstable();
        got.dedup();
        assert_eq!(count, got.len(), "twice: {got:?}");
    });
}

#[test]
fn a_queue_loses_nothing_and_gives_nothing_twice() {
    check_queue(|| Queue::bounded(2));
}

#[test]
fn a_sorted_queue_loses_nothing_and_gives_nothing_twice() {
    check_queue(|| PriorityQueue::bounded(3));
}

#[test]
fn a_rendezvous_loses_nothing_and_gives_nothing_twice() {
    check_queue(Channel::new);
}

/// Fibers that come in by `enter`, which tells whether it did, and stay while others run. `enter` gets what counts
/// those inside, and must leave as it was.
fn check_door<S: 'static>(
    make: impl Fn() -> S + 'static,
    most: usize,
    enter: impl Fn(&S, &Chance, &dyn Fn()) + Copy + 'static,
    is_free: impl Fn(&S) -> bool + 'static,
) {
    sim::check(0..SEEDS, move |world| {
        let chance = Chance::new(world.seed());
        let (shared, inside) = (Rc::new(make()), Rc::new(Cell::new(0)));
        let fibers = (0..6).map(|_| {
            let (shared, inside, chance) = (shared.clone(), inside.clone(), chance.clone());
            spawn(move || {
                struct Leave<'a>(&'a Cell<usize>);
                impl Drop for Leave<'_> {
                    fn drop(&mut self) {
                        self.0.set(self.0.get() - 1);
                    }
                }
                for _ in 0..3 {
                    chance.pause();
                    enter(&shared, &chance, &|| {
                        inside.set(inside.get() + 1);
                        let _leave = Leave(&inside);
                        assert!(inside.get() <= most);
                        chance.pause();
                    });
                }
            })
        });
        let fibers = fibers.collect();
        kill_some(&chance, fibers);
        assert!(is_free(&shared) && inside.get() == 0);
    });
}

#[test]
fn permits_are_neither_lost_nor_doubled() {
    check_door(
        || Semaphore::new(2),
        2,
        |semaphore, chance, stay| {
            let permit = match chance.below(3) {
                0 => semaphore.try_acquire(),
                1 => semaphore.acquire_timeout(chance.patience()).ok(),
                _ => Some(semaphore.acquire()),
            };
            permit.iter().for_each(|_| stay());
        },
        |semaphore| semaphore.available() == 2,
    );
}

#[test]
fn permits_for_several_hubs_are_neither_lost_nor_doubled() {
    check_door(
        || SharedSemaphore::new(2),
        2,
        |semaphore, chance, stay| {
            let permit = match chance.below(3) {
                0 => semaphore.try_acquire(),
                1 => semaphore.acquire_timeout(chance.patience()).ok(),
                _ => Some(semaphore.acquire()),
            };
            permit.iter().for_each(|_| stay());
        },
        |semaphore| semaphore.available() == 2,
    );
}

#[test]
fn a_writer_is_alone_and_the_lock_is_free_at_the_end() {
    check_door(
        || RwLock::new(0),
        6,
        |lock, chance, stay| match chance.below(4) {
            0 => lock.read_timeout(chance.patience()).iter().for_each(|_| stay()),
            1 => {
                let _reading = lock.read();
                stay();
            }
            2 => lock.write_timeout(chance.patience()).iter_mut().for_each(|value| **value += 1),
            _ => {
                let mut value = lock.write();
                let seen = *value;
                chance.pause();
                assert_eq!(*value, seen);
                *value += 1;
                let value = value.downgrade();
                stay();
                assert_eq!(*value, seen + 1);
            }
        },
        |lock| lock.try_write().is_some(),
    );
}

#[test]
fn every_notification_reaches_one_who_can_use_it() {
    sim::check(0..SEEDS, |world| {
        let chance = Chance::new(world.seed());
        // A count of what may be taken: each `notify_one` stands for one more.
        let shared = Rc::new((Mutex::new(0), Condvar::new(), Cell::new(0)));
        let takers = (0..6).map(|_| {
            let (shared, chance) = (shared.clone(), chance.clone());
            spawn(move || {
                let (count, more, taken) = &*shared;
                chance.pause();
                let guard = count.lock();
                let (mut guard, none) = match chance.below(2) {
                    0 => more.wait_timeout_while(guard, chance.patience(), |count| *count == 0),
                    _ => (more.wait_while(guard, |count| *count == 0), false),
                };
                if !none {
                    *guard -= 1;
                    taken.set(taken.get() + 1);
                }
            })
        });
        let takers: Vec<_> = takers.collect();
        let giver = spawn({
            let (shared, chance) = (shared.clone(), chance.clone());
            move || {
                for _ in 0..6 {
                    chance.pause();
                    *shared.0.lock() += 1;
                    shared.1.notify_one();
                }
            }
        });
        // Joins them all: six were given, so nobody who lives waits for ever.
        kill_some(&chance, takers);
        giver.join().unwrap();
        assert_eq!(*shared.0.lock() + shared.2.get(), 6);
    });
}

#[test]
fn a_channel_between_hubs_loses_nothing_on_one() {
    sim::check(0..SEEDS, |world| {
        let chance = Chance::new(world.seed());
        let (sender, receiver) = channel(chance.below(3) as usize);
        let (sent, got) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let senders = (0..3).map(|_| {
            let (sender, sent, chance) = (sender.clone(), sent.clone(), chance.clone());
            spawn(move || {
                for _ in 0..3 {
                    chance.pause();
                    if sender.send_timeout((), chance.patience()).is_ok() {
                        sent.set(sent.get() + 1);
                    }
                }
            })
        });
        let senders: Vec<_> = senders.collect();
        drop(sender);
        let receivers = (0..2).map(|_| {
            let (receiver, got) = (receiver.clone(), got.clone());
            spawn(move || receiver.iter().for_each(|()| got.set(got.get() + 1)))
        });
        let receivers: Vec<_> = receivers.collect();
        let killing = spawn({
            let chance = chance.clone();
            move || kill_some(&chance, receivers)
        });
        kill_some(&chance, senders);
        let here = receiver.iter().count();
        killing.join().unwrap();
        // One that is killed as its item is taken does not get to say so.
        assert!(sent.get() <= here + got.get(), "{} of {}", here + got.get(), sent.get());
        assert_eq!(receiver.try_recv(), Err(GetError::Closed), "it was over before");
    });
}
