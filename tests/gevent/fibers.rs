//! Starting fibers, and the order in which they run.

use std::sync::mpsc::channel;

use warren_fiber::fiber_local;
use warren_hub::sync::Event;
use warren_hub::{
    JoinHandle, current, idle, join_all, offload, run, sleep, spawn, spawn_later, spawn_raw,
    yield_now,
};

use crate::said::{FOREVER, LONG, SHORT, after, caught, fails, optional, steps, value, yes};

scenarios! { on_hub:
    spawn_does_not_run_before_the_caller_waits
    spawned_fibers_start_in_order
    sleep_zero_goes_round
    sleep_zero_lets_a_new_fiber_run_first
    a_fiber_spawned_by_a_fiber_runs_after_those_before
    the_caller_sleeps_zero_among_others
    sleepers_wake_by_deadline
    sleep_is_not_woken_by_others_yielding
    spawn_later_starts_later
    spawn_later_in_order_of_time
    spawn_later_killed_before_never_runs
    spawn_raw_runs_in_its_turn
    a_fiber_knows_itself
    states_of_a_fiber_that_returns
    states_of_a_fiber_that_fails
    states_of_a_fiber_that_is_killed
    states_of_a_fiber_killed_before_it_starts
    a_failure_does_not_reach_others
    idle_waits_until_nobody_is_ready
    fiber_locals_are_apart
    a_wait_for_ever_is_reported
    a_blocking_call_on_another_thread_lets_others_run
    a_failure_on_another_thread_comes_back
}

fiber_local! {
    static NAME: &'static str = "";
}

fn spawn_does_not_run_before_the_caller_waits() {
    let fiber = spawn(|| say!("fiber"));
    say!("caller");
    fiber.wait();
    say!("joined");
}

fn spawned_fibers_start_in_order() {
    join_all(["a", "b", "c"].map(|name| spawn(move || say!("{name}"))));
}

fn sleep_zero_goes_round() {
    join_all(["a", "b", "c"].map(|name| spawn(steps(name, 2))));
}

fn sleep_zero_lets_a_new_fiber_run_first() {
    spawn(|| say!("new"));
    yield_now();
    say!("caller");
}

fn a_fiber_spawned_by_a_fiber_runs_after_those_before() {
    spawn(|| {
        say!("parent");
        spawn(|| say!("child"));
    });
    spawn(|| say!("sibling"));
    sleep(SHORT);
}

fn the_caller_sleeps_zero_among_others() {
    let fibers = ["a", "b"].map(|name| spawn(steps(name, 2)));
    yield_now();
    say!("caller");
    yield_now();
    say!("caller");
    join_all(fibers);
}

fn sleepers_wake_by_deadline() {
    let sleeper = |name: &'static str, times: u32| {
        spawn(move || {
            sleep(times * SHORT);
            say!("{name}");
        })
    };
    join_all([sleeper("last", 3), sleeper("first", 1), sleeper("second", 2)]);
}

fn sleep_is_not_woken_by_others_yielding() {
    let fiber = spawn(|| {
        sleep(SHORT);
        say!("slept");
    });
    spawn(steps("other", 2)).wait();
    fiber.wait();
}

fn spawn_later_starts_later() {
    let later = spawn_later(SHORT, || say!("later"));
    spawn(|| say!("now"));
    yield_now();
    say!("ready {}", yes(later.ready()));
    later.wait();
    say!("ready {}", yes(later.ready()));
}

fn spawn_later_in_order_of_time() {
    join_all([spawn_later(2 * SHORT, || say!("second")), spawn_later(SHORT, || say!("first"))]);
}

fn spawn_later_killed_before_never_runs() {
    let later = spawn_later(SHORT, || {
        say!("never");
        0
    });
    later.kill_wait(None);
    say!("ready {}", yes(later.ready()));
    sleep(LONG);
    say!("value {}", value(&later));
}

fn spawn_raw_runs_in_its_turn() {
    spawn(|| say!("first"));
    spawn_raw(|| say!("raw"));
    spawn(|| say!("last"));
    sleep(SHORT);
}

fn a_fiber_knows_itself() {
    let fiber = spawn(current);
    say!("itself {}", yes(fiber.get().unwrap() == Some(fiber.id())));
    say!("the caller {}", yes(current() == Some(fiber.id())));
}

fn states_of_a_fiber_that_returns() {
    let fiber = spawn(after(std::time::Duration::ZERO, 42));
    say_states(&fiber);
    yield_now();
    say_states(&fiber);
    fiber.wait();
    say_states(&fiber);
}

fn states_of_a_fiber_that_fails() {
    let fiber = spawn(|| fails::<u32>("bad"));
    fiber.wait();
    say_states(&fiber);
}

fn states_of_a_fiber_that_is_killed() {
    let fiber = spawn(after(FOREVER, 42));
    yield_now();
    fiber.kill_wait(None);
    say_states(&fiber);
}

fn states_of_a_fiber_killed_before_it_starts() {
    let fiber = spawn(|| {
        say!("never");
        42
    });
    fiber.kill_wait(None);
    say_states(&fiber);
}

fn say_states(fiber: &JoinHandle<u32>) {
    let (ready, successful) = (yes(fiber.ready()), yes(fiber.successful()));
    let (value, exception) = (value(fiber), optional(fiber.exception()));
    say!("ready {ready} successful {successful} value {value} exception {exception}");
}

fn a_failure_does_not_reach_others() {
    spawn(|| fails::<()>("no"));
    let other = spawn(after(std::time::Duration::ZERO, "unharmed"));
    say!("{}", other.get().unwrap());
}

fn idle_waits_until_nobody_is_ready() {
    spawn(steps("busy", 3));
    idle();
    say!("idle");
}

fn fiber_locals_are_apart() {
    NAME.set("caller");
    let body = |name: &'static str| {
        spawn(move || {
            say!("{name} has one already {}", yes(!NAME.get().is_empty()));
            NAME.set(name);
            yield_now();
            say!("{}", NAME.get());
        })
    };
    join_all([body("a"), body("b")]);
    say!("{}", NAME.get());
}

fn a_wait_for_ever_is_reported() {
    // On a thread of its own, as there: a hub reports it where its main fiber waits.
    let forever = || {
        let waited = caught(|| {
            run(|| Event::new().wait());
        });
        if waited.is_some() { "reported" } else { "not reported" }
    };
    let result = offload(forever);
    say!("{result}");
}

fn a_blocking_call_on_another_thread_lets_others_run() {
    let (go, wait) = channel();
    let fiber = spawn(move || {
        let done = offload(move || {
            wait.recv().unwrap();
            "done"
        });
        say!("{done}");
    });
    spawn(steps("meanwhile", 2)).wait();
    go.send(()).unwrap();
    fiber.wait();
}

fn a_failure_on_another_thread_comes_back() {
    let failure = caught(|| offload(|| fails::<()>("over there")));
    say!("failed: {}", optional(failure));
}
