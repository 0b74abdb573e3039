//! Limits of time. gevent raises a `Timeout` and Python code catches it by its identity; here `Timeout::catch` and
//! `with_timeout` do, and give an error value.

use std::rc::Rc;
use std::thread;

use warren_hub::sync::Event;
use warren_hub::{Timeout, join_all, sleep, spawn, with_timeout, yield_now};

use crate::said::{FOREVER, LONG, SHORT, caught, fails, finally, optional, swallow, value, yes};

scenarios! { on_hub:
    a_timeout_cuts_a_wait_short
    a_timeout_runs_destructors
    a_timeout_in_time_does_nothing
    a_timeout_that_is_over_does_not_come_later
    a_timeout_needs_a_wait
    the_inner_timeout_first
    the_outer_timeout_passes_the_inner
    timeouts_know_themselves
    a_cancelled_timeout_does_not_come
    a_silent_timeout
    with_timeout_gives_the_value
    with_timeout_gives_another_value
    with_timeout_passes_a_failure_on
    a_timeout_is_for_the_fiber_that_started_it
    a_swallowed_timeout_is_over
    a_kill_passes_timeouts
    a_failure_passes_timeouts
    timeouts_in_a_loop
    many_timeouts_end_in_order
}

fn a_timeout_cuts_a_wait_short() {
    let result = with_timeout(SHORT, || {
        sleep(FOREVER);
        say!("never");
    });
    say!("{}", result.unwrap_err());
}

fn a_timeout_runs_destructors() {
    let result = with_timeout(SHORT, || {
        let _finally = finally("cleans up");
        sleep(FOREVER);
    });
    say!("{}", result.unwrap_err());
}

fn a_timeout_in_time_does_nothing() {
    with_timeout(FOREVER, yield_now).unwrap();
    say!("in time");
}

fn a_timeout_that_is_over_does_not_come_later() {
    with_timeout(SHORT, yield_now).unwrap();
    sleep(LONG);
    say!("in time");
}

fn a_timeout_needs_a_wait() {
    let result = with_timeout(SHORT, || {
        thread::sleep(LONG);
        say!("computed");
        sleep(FOREVER);
        say!("never");
    });
    say!("{}", result.unwrap_err());
}

fn the_inner_timeout_first() {
    let outer = with_timeout(FOREVER, || {
        if with_timeout(SHORT, || sleep(FOREVER)).is_err() {
            say!("inner");
        }
        yield_now();
        say!("goes on");
    });
    if outer.is_err() {
        say!("outer");
    }
}

fn the_outer_timeout_passes_the_inner() {
    let outer = with_timeout(SHORT, || {
        let _ = with_timeout(FOREVER, || sleep(FOREVER));
        say!("never: this is not the inner one's");
    });
    if outer.is_err() {
        say!("outer");
    }
}

fn timeouts_know_themselves() {
    let outer = Timeout::start(SHORT);
    let inner = Timeout::start(FOREVER);
    let mut inner_caught = false;
    let outer_caught = outer.catch(|| inner_caught = inner.catch(|| sleep(FOREVER)).is_err());
    say!("outer {} inner {}", yes(outer_caught.is_err()), yes(inner_caught));
}

fn a_cancelled_timeout_does_not_come() {
    let timeout = Timeout::start(SHORT);
    say!("pending {}", yes(timeout.pending()));
    timeout.cancel();
    say!("pending {}", yes(timeout.pending()));
    sleep(LONG);
    say!("slept");
}

fn a_silent_timeout() {
    let _ = with_timeout(SHORT, || {
        sleep(FOREVER);
        say!("never");
    });
    say!("after");
}

fn with_timeout_gives_the_value() {
    say!("{}", with_timeout(FOREVER, || "value").unwrap());
}

fn with_timeout_gives_another_value() {
    let slow = || {
        sleep(FOREVER);
        "value"
    };
    say!("{}", with_timeout(SHORT, slow).unwrap_or("timed out"));
}

fn with_timeout_passes_a_failure_on() {
    let failure = caught(|| with_timeout(FOREVER, || fails::<()>("bad")));
    say!("failed: {}", optional(failure));
}

fn a_timeout_is_for_the_fiber_that_started_it() {
    let fiber = spawn(|| {
        sleep(LONG);
        say!("the other slept");
    });
    let _ = with_timeout(SHORT, || sleep(FOREVER));
    say!("timed out");
    fiber.wait();
}

fn a_swallowed_timeout_is_over() {
    let result = with_timeout(SHORT, || {
        if swallow(|| sleep(FOREVER)) {
            say!("swallowed");
        }
        sleep(LONG);
        say!("slept");
    });
    assert_eq!(result, Ok(()));
}

fn a_kill_passes_timeouts() {
    let fiber = spawn(|| {
        if with_timeout(FOREVER, || sleep(FOREVER)).is_err() {
            say!("never");
        }
        0
    });
    yield_now();
    fiber.kill_wait(None);
    say!("value {}", value(&fiber));
}

fn a_failure_passes_timeouts() {
    let failure = caught(|| with_timeout(FOREVER, || fails::<()>("bad")));
    say!("failed: {}", optional(failure));
}

fn timeouts_in_a_loop() {
    let event = Rc::new(Event::new());
    for attempt in 0..3 {
        let _ = with_timeout(SHORT, || event.wait());
        say!("attempt {attempt}");
    }
}

fn many_timeouts_end_in_order() {
    let fiber = |name: &'static str, times: u32| {
        spawn(move || {
            let _ = with_timeout(times * SHORT, || sleep(FOREVER));
            say!("{name}");
        })
    };
    join_all([fiber("last", 3), fiber("first", 1), fiber("second", 2)]);
}
