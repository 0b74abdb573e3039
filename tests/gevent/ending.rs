//! Killing fibers. gevent's `kill` waits for the end: ours does with `kill_wait`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use warren_hub::sync::Event;
use warren_hub::{JoinHandle, kill_all, sleep, spawn, yield_now};

use crate::said::{
    FOREVER, SHORT, after, caught, fails, finally, list, optional, swallow, value, yes,
};

scenarios! { on_hub:
    kill_before_the_start_never_runs
    kill_at_a_wait_cleans_up
    kill_waits_for_the_end
    kill_without_waiting_returns_first
    kill_runs_in_its_turn
    kill_of_one_that_has_just_been_woken
    kill_of_a_finished_fiber_changes_nothing
    kill_of_a_failed_fiber_changes_nothing
    kill_twice_unwinds_once
    a_kill_may_be_swallowed
    who_swallowed_a_kill_may_wait_again
    who_swallowed_a_kill_may_be_killed_again
    a_finally_may_wait
    an_exit_raised_inside_is_a_success
    a_kill_of_oneself_comes_at_the_next_wait
    another_exception_may_be_thrown
    what_is_thrown_may_be_caught
    thrown_before_the_start_fails_the_fiber
    kill_all_in_order
    kill_all_with_some_that_never_started
    kill_all_without_waiting
    kill_gives_up_after_its_timeout
    a_killed_waiter_leaves_its_line
    a_killed_joiner_leaves_the_other_alone
    a_fiber_kills_its_killer
}

/// A fiber that says what happens to it.
fn sleeper(name: &'static str) -> JoinHandle<u32> {
    spawn(move || {
        let _finally = finally(format!("{name} cleans up"));
        say!("{name} sleeps");
        sleep(FOREVER);
        say!("{name} is never here");
        0
    })
}

/// A fiber that waits already.
fn started<T: 'static>(body: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    let fiber = spawn(body);
    yield_now();
    fiber
}

fn started_sleeper() -> JoinHandle<u32> {
    let fiber = sleeper("fiber");
    yield_now();
    fiber
}

fn kill_before_the_start_never_runs() {
    let fiber = sleeper("fiber");
    fiber.kill_wait(None);
    yield_now();
    say!("value {} successful {}", value(&fiber), yes(fiber.successful()));
}

fn kill_at_a_wait_cleans_up() {
    let fiber = started_sleeper();
    fiber.kill_wait(None);
    say!("value {}", value(&fiber));
}

fn kill_waits_for_the_end() {
    let fiber = started_sleeper();
    say!("killing");
    fiber.kill_wait(None);
    say!("killed");
}

fn kill_without_waiting_returns_first() {
    let fiber = started_sleeper();
    fiber.kill();
    say!("ready {}", yes(fiber.ready()));
    fiber.wait();
    say!("ready {}", yes(fiber.ready()));
}

fn kill_runs_in_its_turn() {
    let fiber = started_sleeper();
    spawn(|| say!("spawned before the kill"));
    fiber.kill();
    spawn(|| say!("spawned after the kill"));
    yield_now();
    yield_now();
}

fn kill_of_one_that_has_just_been_woken() {
    let event = Rc::new(Event::new());
    let woken = event.clone();
    let fiber = started(move || {
        let _finally = finally("cleans up");
        woken.wait();
        say!("woken");
        sleep(FOREVER);
        0
    });
    event.set();
    fiber.kill_wait(None);
    say!("value {}", value(&fiber));
}

fn kill_of_a_finished_fiber_changes_nothing() {
    let fiber = spawn(after(Duration::ZERO, "value"));
    fiber.wait();
    fiber.kill_wait(None);
    say!("value {}", value(&fiber));
}

fn kill_of_a_failed_fiber_changes_nothing() {
    let fiber = spawn(|| fails::<()>("bad"));
    fiber.wait();
    fiber.kill_wait(None);
    let successful = yes(fiber.successful());
    say!("successful {successful} exception {}", optional(fiber.exception()));
}

fn kill_twice_unwinds_once() {
    let fiber = started_sleeper();
    fiber.kill();
    fiber.kill();
    fiber.wait();
    say!("value {}", value(&fiber));
}

fn a_kill_may_be_swallowed() {
    let fiber = started(|| {
        if swallow(|| sleep(FOREVER)) {
            say!("swallowed");
        }
        "survived"
    });
    fiber.kill_wait(None);
    say!("value {}", value(&fiber));
}

fn who_swallowed_a_kill_may_wait_again() {
    let fiber = started(|| {
        if swallow(|| sleep(FOREVER)) {
            say!("swallowed");
        }
        yield_now();
        say!("waited");
        "survived"
    });
    fiber.kill_wait(None);
    say!("value {}", value(&fiber));
}

fn who_swallowed_a_kill_may_be_killed_again() {
    let fiber = started(|| {
        if swallow(|| sleep(FOREVER)) {
            say!("swallowed");
        }
        sleep(FOREVER);
        say!("never");
        0
    });
    fiber.kill();
    sleep(SHORT);
    say!("ready {}", yes(fiber.ready()));
    fiber.kill_wait(None);
    say!("value {}", value(&fiber));
}

fn a_finally_may_wait() {
    struct Cleanup;
    impl Drop for Cleanup {
        fn drop(&mut self) {
            say!("begins to clean up");
            // A destructor that runs because the fiber unwinds does not wait: this returns at once.
            yield_now();
            say!("has cleaned up");
        }
    }
    let fiber = started(|| {
        let _cleanup = Cleanup;
        sleep(FOREVER);
        0
    });
    fiber.kill_wait(None);
    say!("value {}", value(&fiber));
}

/// A fiber that has its own handle.
fn with_own_handle<T: 'static>(
    body: impl FnOnce(&JoinHandle<T>) -> T + 'static,
) -> Rc<JoinHandle<T>> {
    let own = Rc::new(RefCell::new(None::<Rc<JoinHandle<T>>>));
    let place = own.clone();
    let fiber = Rc::new(spawn(move || {
        let own = place.take().expect("set before the fiber runs");
        body(&own)
    }));
    *own.borrow_mut() = Some(fiber.clone());
    fiber
}

fn an_exit_raised_inside_is_a_success() {
    let fiber = with_own_handle(|own| {
        own.kill();
        yield_now();
        say!("never");
        0
    });
    fiber.wait();
    let (value, successful) = (value(&fiber), yes(fiber.successful()));
    say!("value {value} successful {successful} exception {}", optional(fiber.exception()));
}

fn a_kill_of_oneself_comes_at_the_next_wait() {
    let fiber = with_own_handle(|own| {
        own.kill();
        say!("still here");
        yield_now();
        say!("never");
    });
    fiber.wait();
    say!("joined");
}

/// gevent's `kill` with an exception, which waits too.
fn throw<T: 'static>(fiber: &JoinHandle<T>) {
    fiber.throw(Box::new("thrown"));
    fiber.wait();
}

fn another_exception_may_be_thrown() {
    let fiber = started(|| {
        let _finally = finally("cleans up");
        sleep(FOREVER);
    });
    throw(&fiber);
    let successful = yes(fiber.successful());
    say!("successful {successful} exception {}", optional(fiber.exception()));
}

fn what_is_thrown_may_be_caught() {
    let fiber = started(|| format!("caught {}", optional(caught(|| sleep(FOREVER)))));
    throw(&fiber);
    say!("value {}", value(&fiber));
}

fn thrown_before_the_start_fails_the_fiber() {
    let fiber = spawn(|| say!("never"));
    throw(&fiber);
    let successful = yes(fiber.successful());
    say!("successful {successful} exception {}", optional(fiber.exception()));
}

fn kill_all_in_order() {
    let fibers = ["a", "b", "c"].map(sleeper);
    yield_now();
    kill_all(&fibers, None);
    say!("{}", list(fibers.iter().map(value)));
}

fn kill_all_with_some_that_never_started() {
    let started = sleeper("started");
    yield_now();
    let fresh = spawn(|| {
        say!("never");
        0
    });
    kill_all([&started, &fresh], None);
    say!("{} {}", value(&started), value(&fresh));
}

fn kill_all_without_waiting() {
    let fibers = ["a", "b"].map(sleeper);
    yield_now();
    fibers.iter().for_each(JoinHandle::kill);
    say!("ready {}", list(fibers.iter().map(|fiber| yes(fiber.ready()))));
    fibers.iter().for_each(JoinHandle::wait);
    say!("ready {}", list(fibers.iter().map(|fiber| yes(fiber.ready()))));
}

fn kill_gives_up_after_its_timeout() {
    let stop = Rc::new(Cell::new(false));
    let stopped = stop.clone();
    let fiber = started(move || {
        loop {
            if swallow(|| sleep(FOREVER)) {
                say!("swallowed");
                if stopped.get() {
                    return "stopped";
                }
            }
        }
    });
    fiber.kill_wait(Some(SHORT));
    say!("ready {}", yes(fiber.ready()));
    stop.set(true);
    fiber.kill_wait(None);
    say!("value {}", value(&fiber));
}

fn a_killed_waiter_leaves_its_line() {
    let event = Rc::new(Event::new());
    let waiter = |name: &'static str| {
        let event = event.clone();
        spawn(move || {
            event.wait();
            say!("{name} woke");
        })
    };
    let (first, second) = (waiter("first"), waiter("second"));
    yield_now();
    first.kill_wait(None);
    event.set();
    second.wait();
}

fn a_killed_joiner_leaves_the_other_alone() {
    let fiber = Rc::new(spawn(after(SHORT, "value")));
    let joined = fiber.clone();
    let joiner = started(move || {
        joined.wait();
        0
    });
    joiner.kill_wait(None);
    say!("joiner {}", value(&joiner));
    say!("fiber {}", fiber.get().unwrap());
}

fn a_fiber_kills_its_killer() {
    /// Says its end and kills another fiber.
    struct Revenge(&'static str, Rc<RefCell<Option<JoinHandle<()>>>>);
    impl Drop for Revenge {
        fn drop(&mut self) {
            say!("{} ends", self.0);
            if let Some(other) = &*self.1.borrow() {
                other.kill();
            }
        }
    }
    let places = [Rc::default(), Rc::default()];
    let fiber = |name, place: &Rc<RefCell<Option<JoinHandle<()>>>>| {
        let place = place.clone();
        spawn(move || {
            let _revenge = Revenge(name, place);
            sleep(FOREVER);
        })
    };
    let (a, b) = (fiber("a", &places[1]), fiber("b", &places[0]));
    *places[0].borrow_mut() = Some(a);
    *places[1].borrow_mut() = Some(b);
    yield_now();
    let wait = |place: &Rc<RefCell<Option<JoinHandle<()>>>>, kill: bool| {
        let fiber = place.take().expect("set above");
        if kill {
            fiber.kill();
        }
        fiber
    };
    // Taken out of its place, `a` cannot be killed back; it is dead by then.
    wait(&places[0], true).wait();
    wait(&places[1], false).wait();
}
