//! Semaphores and locks. Ours are given back by dropping a permit; gevent's `acquire` without `with` is `forget`.

use std::rc::Rc;

use warren_hub::sync::{BoundedSemaphore, RLock, Semaphore};
use warren_hub::{JoinHandle, join_all, kill_all, sleep, spawn, yield_now};

use crate::said::{FOREVER, SHORT, fails, list, yes};

scenarios! { on_hub:
    a_semaphore_serves_in_order
    a_semaphore_lets_as_many_in_as_it_has
    a_semaphore_without_waiting
    a_semaphore_that_stays_taken
    a_waiter_that_gave_up_takes_no_permit
    a_killed_waiter_takes_no_permit
    a_holder_that_is_killed_gives_back
    a_holder_that_fails_gives_back
    releases_add_up
    two_releases_wake_two
    a_bounded_semaphore_refuses_a_release_too_many
    an_rlock_is_taken_again_by_its_owner
    an_rlock_refuses_another_fiber
    an_rlock_serves_in_order
}

/// Fibers that are in and out, with a wait in between.
fn workers(permits: usize) {
    let semaphore = Rc::new(Semaphore::new(permits));
    join_all(["a", "b", "c"].map(|name| {
        let semaphore = semaphore.clone();
        spawn(move || {
            let _permit = semaphore.acquire();
            say!("{name} in");
            yield_now();
            say!("{name} out");
        })
    }));
}

/// Takes a permit for good if there is one.
fn try_acquire(semaphore: &Semaphore) -> bool {
    semaphore.try_acquire().map(|permit| permit.forget()).is_some()
}

fn acquires(semaphore: &Rc<Semaphore>) -> JoinHandle<()> {
    let semaphore = semaphore.clone();
    spawn(move || semaphore.acquire().forget())
}

fn a_semaphore_serves_in_order() {
    workers(1);
}

fn a_semaphore_lets_as_many_in_as_it_has() {
    workers(2);
}

fn a_semaphore_without_waiting() {
    let semaphore = Semaphore::new(1);
    let (first, second) = (try_acquire(&semaphore), try_acquire(&semaphore));
    say!("{} {}", yes(first), yes(second));
    semaphore.release();
    say!("{}", yes(try_acquire(&semaphore)));
}

fn a_semaphore_that_stays_taken() {
    let semaphore = Semaphore::new(0);
    say!("{}", yes(semaphore.acquire_timeout(SHORT).is_ok()));
    semaphore.release();
    say!("{}", yes(semaphore.acquire_timeout(SHORT).is_ok()));
}

fn a_waiter_that_gave_up_takes_no_permit() {
    let semaphore = Rc::new(Semaphore::new(0));
    let (one, other) = (semaphore.clone(), semaphore.clone());
    let hasty = spawn(move || say!("hasty {}", yes(one.acquire_timeout(SHORT).is_ok())));
    let patient = spawn(move || {
        other.acquire().forget();
        say!("patient");
    });
    hasty.wait();
    semaphore.release();
    patient.wait();
    say!("left {}", semaphore.available());
}

fn a_killed_waiter_takes_no_permit() {
    let semaphore = Rc::new(Semaphore::new(0));
    let (first, second) = (acquires(&semaphore), acquires(&semaphore));
    yield_now();
    first.kill_wait(None);
    semaphore.release();
    second.wait();
    say!("left {}", semaphore.available());
}

fn a_holder_that_is_killed_gives_back() {
    let semaphore = Rc::new(Semaphore::new(1));
    let held = semaphore.clone();
    let fiber = spawn(move || {
        let _permit = held.acquire();
        sleep(FOREVER);
    });
    yield_now();
    say!("locked {}", yes(semaphore.locked()));
    fiber.kill_wait(None);
    say!("locked {}", yes(semaphore.locked()));
}

fn a_holder_that_fails_gives_back() {
    let semaphore = Rc::new(Semaphore::new(1));
    let held = semaphore.clone();
    let fiber = spawn(move || {
        let _permit = held.acquire();
        fails::<()>("no");
    });
    fiber.wait();
    say!("locked {}", yes(semaphore.locked()));
    let _permit = semaphore.acquire();
    say!("taken again");
}

fn releases_add_up() {
    let semaphore = Semaphore::new(0);
    for _ in 0..3 {
        semaphore.release();
    }
    say!("{}", semaphore.available());
    say!("{}", list((0..4).map(|_| yes(try_acquire(&semaphore)))));
}

fn two_releases_wake_two() {
    let semaphore = Rc::new(Semaphore::new(0));
    let fibers = ["a", "b", "c"].map(|name| {
        let semaphore = semaphore.clone();
        spawn(move || {
            semaphore.acquire().forget();
            say!("{name}");
        })
    });
    yield_now();
    semaphore.release();
    semaphore.release();
    sleep(SHORT);
    say!("ready {}", list(fibers.iter().map(|fiber| yes(fiber.ready()))));
    kill_all(&fibers, None);
}

fn a_bounded_semaphore_refuses_a_release_too_many() {
    let semaphore = BoundedSemaphore::new(1);
    semaphore.acquire().forget();
    semaphore.release().unwrap();
    if semaphore.release().is_err() {
        say!("too many");
    }
    say!("{}", semaphore.available());
}

fn an_rlock_is_taken_again_by_its_owner() {
    let lock = Rc::new(RLock::new());
    let outer = lock.acquire();
    let inner = lock.acquire();
    say!("twice");
    let fiber = spawn({
        let lock = lock.clone();
        move || {
            let _guard = lock.acquire();
            say!("other in");
        }
    });
    yield_now();
    drop(inner);
    say!("still taken");
    yield_now();
    drop(outer);
    say!("free");
    fiber.wait();
}

fn an_rlock_refuses_another_fiber() {
    let lock = Rc::new(RLock::new());
    let _guard = lock.acquire();
    let tried = lock.clone();
    let other = spawn(move || tried.try_acquire().is_some());
    say!("other {}", yes(other.join().unwrap()));
    say!("owner {}", yes(lock.try_acquire().is_some()));
}

fn an_rlock_serves_in_order() {
    let lock = Rc::new(RLock::new());
    join_all(["a", "b", "c"].map(|name| {
        let lock = lock.clone();
        spawn(move || {
            let _outer = lock.acquire();
            let _inner = lock.acquire();
            say!("{name} in");
            yield_now();
            say!("{name} out");
        })
    }));
}
