//! Random operations on a queue, a semaphore and a lock, beside what they must amount to: fibers that wait are killed
//! and time out at random, and at the end nothing is lost, nobody waits in vain, and all were served in turn.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use warren_hub::sync::{Event, Queue, RwLock, Semaphore};
use warren_hub::{JoinHandle, sleep, spawn, yield_now};

use super::{Log, run};

const SHORT: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
enum Op {
    /// Starts a fiber that puts, or asks to be let in for writing.
    Put,
    /// Starts a fiber that gets, or asks to be let in for reading.
    Get,
    /// As `Put`, with a timeout.
    PutShortly,
    /// As `Get`, with a timeout.
    GetShortly,
    /// As `Put` and `Get`, from the main fiber, without waiting.
    TryPut,
    TryGet,
    /// Kills one of the fibers.
    Kill(usize),
    /// Lets one of those that are in go.
    Go(usize),
    /// Lets the others run until they wait.
    Turn,
    /// Lets timeouts run out.
    Sleep,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        4 => Just(Op::Put),
        4 => Just(Op::Get),
        1 => Just(Op::PutShortly),
        1 => Just(Op::GetShortly),
        1 => Just(Op::TryPut),
        1 => Just(Op::TryGet),
        3 => any::<usize>().prop_map(Op::Kill),
        3 => any::<usize>().prop_map(Op::Go),
        3 => Just(Op::Turn),
        1 => Just(Op::Sleep),
    ];
    prop::collection::vec(op, 1..40)
}

fn cases() -> ProptestConfig {
    ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() }
}

/// Lets everything that can happen happen, timeouts too.
fn settle() {
    sleep(2 * SHORT);
    // More turns than there are fibers to hand something on.
    (0..100).for_each(|_| yield_now());
}

#[derive(Default)]
struct QueueLog {
    /// Items in the order in which somebody began to put them.
    begun: RefCell<Vec<u32>>,
    put: RefCell<Vec<u32>>,
    got: RefCell<Vec<u32>>,
}

fn use_queue(capacity: usize, ops: Vec<Op>) {
    let queue = Rc::new(Queue::bounded(capacity));
    let log = Rc::new(QueueLog::default());
    let (mut putters, mut getters): (Vec<JoinHandle<()>>, Vec<JoinHandle<()>>) = Default::default();
    for (item, op) in (0..).zip(ops) {
        let (q, l) = (queue.clone(), log.clone());
        match op {
            Op::Put | Op::PutShortly => putters.push(spawn(move || {
                l.begun.borrow_mut().push(item);
                let put = match op {
                    Op::Put => q.put(item).is_ok(),
                    _ => q.put_timeout(item, SHORT).is_ok(),
                };
                if put {
                    l.put.borrow_mut().push(item);
                }
            })),
            Op::Get | Op::GetShortly => getters.push(spawn(move || {
                let got = match op {
                    Op::Get => q.get().ok(),
                    _ => q.get_timeout(SHORT).ok(),
                };
                l.got.borrow_mut().extend(got);
            })),
            Op::TryPut => {
                l.begun.borrow_mut().push(item);
                if q.try_put(item).is_ok() {
                    l.put.borrow_mut().push(item);
                }
            }
            Op::TryGet => l.got.borrow_mut().extend(q.try_get().ok()),
            Op::Kill(which) => {
                let all: Vec<_> = putters.iter().chain(&getters).collect();
                if !all.is_empty() {
                    all[which % all.len()].kill();
                }
            }
            Op::Go(_) | Op::Turn => yield_now(),
            Op::Sleep => sleep(2 * SHORT),
        }
        assert!(queue.len() <= capacity);
    }
    settle();
    let waits = |fibers: &[JoinHandle<()>]| fibers.iter().any(|fiber| !fiber.is_finished());
    assert!(!waits(&getters) || queue.is_empty(), "a getter waits before a queue with items");
    assert!(!waits(&putters) || queue.is_full(), "a putter waits before a queue with room");
    queue.close();
    log.got.borrow_mut().extend(queue.iter());
    settle();
    assert!(!waits(&getters) && !waits(&putters), "somebody waits at a closed queue");
    let put = log.put.take();
    // Who is killed as its item is taken does not get to say so; the item has been put all the same.
    let got = log.got.take();
    assert!(put.iter().all(|item| got.contains(item)), "lost: put {put:?}, got {got:?}");
    let in_order: Vec<u32> =
        log.begun.take().into_iter().filter(|item| got.contains(item)).collect();
    assert_eq!(got, in_order, "not in turn, or twice");
}

/// One who asked to be let in.
struct Guest {
    handle: JoinHandle<()>,
    /// Told to leave.
    go: Rc<Event>,
    number: usize,
}

#[derive(Default)]
struct Door {
    /// In the order in which they asked, and were let in.
    asked: Log<usize>,
    entered: Log<usize>,
    inside: Log<usize>,
}

impl Door {
    /// Within the fiber of a guest that has been let in.
    fn stay(&self, number: usize, go: &Event) {
        struct Inside<'a>(&'a Door, usize);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                self.0.inside.borrow_mut().retain(|other| *other != self.1);
            }
        }
        self.entered.borrow_mut().push(number);
        self.inside.borrow_mut().push(number);
        let _inside = Inside(self, number);
        go.wait();
    }

    /// Of two of whom one must be alone, the one that asked first was in first. Who may be in together may also
    /// begin in any order: one is let in, and another comes before it has its turn to run.
    fn check_order(&self, alone: impl Fn(usize) -> bool) {
        let (asked, entered) = (self.asked.take(), self.entered.take());
        let asked_at = |guest: &usize| asked.iter().position(|other| other == guest);
        for (at, later) in entered.iter().enumerate() {
            for earlier in &entered[..at] {
                let matters = alone(*earlier) || alone(*later);
                assert!(!matters || asked_at(earlier) < asked_at(later), "{asked:?} {entered:?}");
            }
        }
    }
}

/// Runs the operations that semaphores and locks have in common; `enter` starts a guest's stay.
fn use_door(
    ops: Vec<Op>,
    door: &Rc<Door>,
    enter: impl Fn(Op, &Door, usize, &Event) + Clone + 'static,
    check: impl Fn(),
) -> Vec<Guest> {
    let mut guests: Vec<Guest> = Vec::new();
    for op in ops {
        match op {
            Op::Put | Op::Get | Op::PutShortly | Op::GetShortly => {
                let (number, go) = (guests.len(), Rc::new(Event::new()));
                let handle = spawn({
                    let (door, go, enter) = (door.clone(), go.clone(), enter.clone());
                    move || {
                        door.asked.borrow_mut().push(number);
                        enter(op, &door, number, &go);
                    }
                });
                guests.push(Guest { handle, go, number });
            }
            Op::Kill(which) if !guests.is_empty() => guests[which % guests.len()].handle.kill(),
            Op::Go(which) => {
                let inside = door.inside.borrow().clone();
                if !inside.is_empty() {
                    guests[inside[which % inside.len()]].go.set();
                }
            }
            Op::Turn => yield_now(),
            Op::Sleep => sleep(2 * SHORT),
            Op::Kill(_) | Op::TryPut | Op::TryGet => {}
        }
        check();
    }
    settle();
    guests
}

/// Those that still wait to be let in.
fn waiting(guests: &[Guest], door: &Door) -> usize {
    let inside = door.inside.borrow();
    guests
        .iter()
        .filter(|guest| !guest.handle.is_finished() && !inside.contains(&guest.number))
        .count()
}

fn use_semaphore(permits: usize, ops: Vec<Op>) {
    let semaphore = Rc::new(Semaphore::new(permits));
    let door = Rc::new(Door::default());
    let enter = {
        let semaphore = semaphore.clone();
        move |op: Op, door: &Door, number: usize, go: &Event| {
            let permit = match op {
                Op::Put | Op::Get => Some(semaphore.acquire()),
                _ => semaphore.acquire_timeout(SHORT).ok(),
            };
            if permit.is_some() {
                door.stay(number, go);
            }
        }
    };
    let check = || assert!(door.inside.borrow().len() + semaphore.available() <= permits);
    let guests = use_door(ops, &door, enter, check);
    let inside = door.inside.borrow().len();
    assert_eq!(semaphore.available() + inside, permits, "a permit is lost, or one too many");
    assert!(waiting(&guests, &door) == 0 || semaphore.available() == 0, "one waits in vain");
    guests.iter().for_each(|guest| guest.go.set());
    settle();
    assert!(guests.iter().all(|guest| guest.handle.is_finished()));
    assert_eq!(semaphore.available(), permits);
    door.check_order(|_| permits == 1);
}

fn use_rwlock(ops: Vec<Op>) {
    let lock = Rc::new(RwLock::new(()));
    let door = Rc::new(Door::default());
    let writing: Log<usize> = Log::default();
    let enter = {
        let (lock, writing) = (lock.clone(), writing.clone());
        move |op: Op, door: &Door, number: usize, go: &Event| {
            let (mut _read, mut _write) = (None, None);
            match op {
                Op::Put => _write = Some(lock.write()),
                Op::PutShortly => _write = lock.write_timeout(SHORT).ok(),
                Op::Get => _read = Some(lock.read()),
                _ => _read = lock.read_timeout(SHORT).ok(),
            }
            if _write.is_some() {
                writing.borrow_mut().push(number);
            }
            if _write.is_some() || _read.is_some() {
                door.stay(number, go);
            }
        }
    };
    let check = || {
        let (inside, writing) = (door.inside.borrow(), writing.borrow());
        let writers = inside.iter().filter(|number| writing.contains(number)).count();
        assert!(writers == 0 || inside.len() == 1, "a writer is not alone");
    };
    let guests = use_door(ops, &door, enter, check);
    check();
    if door.inside.borrow().is_empty() {
        assert_eq!(waiting(&guests, &door), 0, "one waits for nobody");
        assert!(lock.try_write().is_some());
    }
    guests.iter().for_each(|guest| guest.go.set());
    settle();
    assert!(guests.iter().all(|guest| guest.handle.is_finished()));
    assert!(lock.try_write().is_some());
    door.check_order(|number| writing.borrow().contains(&number));
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_queue_is_a_list_of_items_in_the_order_they_came(capacity in 1usize..4, ops in ops()) {
        run(move || use_queue(capacity, ops));
    }

    #[test]
    fn a_semaphore_is_a_count_and_a_line(permits in 1usize..4, ops in ops()) {
        run(move || use_semaphore(permits, ops));
    }

    #[test]
    fn a_lock_is_one_writer_or_some_readers_and_a_line(ops in ops()) {
        run(move || use_rwlock(ops));
    }
}
