//! Being told of a fiber's end.

use std::rc::Rc;
use std::time::Duration;

use warren_hub::sync::AsyncResult;
use warren_hub::{JoinHandle, sleep, spawn, yield_now};

use crate::said::{FOREVER, after, fails, optional, value};

scenarios! { on_hub:
    links_run_in_order
    links_run_after_the_fiber_not_within
    link_value_hears_successes_only
    link_exception_hears_failures_only
    a_kill_is_a_success_to_links
    a_kill_before_the_start_is_heard_too
    unlink_takes_a_link_back
    a_link_made_after_the_end_runs_soon
    links_and_joiners_are_served_in_order
    a_link_that_fails_does_not_stop_the_next
    a_link_may_start_fibers
    a_result_may_be_linked_to_a_fiber
}

fn good() -> JoinHandle<&'static str> {
    spawn(after(Duration::ZERO, "value"))
}

fn bad() -> JoinHandle<&'static str> {
    spawn(|| fails("bad"))
}

/// Of a killed fiber gevent's links hear a `GreenletExit`, ours no value.
fn or_killed(value: Option<&&'static str>) -> &'static str {
    value.copied().unwrap_or("killed")
}

fn links_run_in_order() {
    let fiber = good();
    fiber.link(|ended| say!("first {}", ended.as_ref().unwrap()));
    fiber.link(|ended| say!("second {}", ended.as_ref().unwrap()));
    fiber.wait();
    yield_now();
}

fn links_run_after_the_fiber_not_within() {
    let fiber = spawn(|| say!("fiber ends"));
    fiber.link(|_| say!("link"));
    yield_now();
    yield_now();
}

fn link_value_hears_successes_only() {
    let fibers = [good(), bad()];
    for fiber in &fibers {
        fiber.link_value(|value| say!("link_value {}", or_killed(value)));
    }
    fibers.iter().for_each(JoinHandle::wait);
    yield_now();
}

fn link_exception_hears_failures_only() {
    let fibers = [good(), bad()];
    for fiber in &fibers {
        fiber.link_exception(|error| say!("link_exception {}", optional(error.message())));
    }
    fibers.iter().for_each(JoinHandle::wait);
    yield_now();
}

fn a_kill_is_a_success_to_links() {
    let fiber = spawn(after(FOREVER, "value"));
    fiber.link_value(|value| say!("link_value {}", or_killed(value)));
    fiber.link_exception(|_| say!("link_exception"));
    yield_now();
    fiber.kill_wait(None);
    yield_now();
}

fn a_kill_before_the_start_is_heard_too() {
    let fiber = spawn(|| {
        say!("never");
        "value"
    });
    fiber.link(|ended| say!("link {}", or_killed(ended.as_ref().ok())));
    fiber.kill_wait(None);
    yield_now();
}

fn unlink_takes_a_link_back() {
    let fiber = good();
    let link = fiber.link(|_| say!("never"));
    fiber.link(|_| say!("stays"));
    fiber.unlink(link);
    fiber.wait();
    yield_now();
}

fn a_link_made_after_the_end_runs_soon() {
    let fiber = good();
    fiber.wait();
    fiber.link(|ended| say!("link {}", ended.as_ref().unwrap()));
    say!("linked");
    yield_now();
}

fn links_and_joiners_are_served_in_order() {
    let fiber = good();
    fiber.link(|_| say!("link"));
    fiber.wait();
    say!("joiner");
}

fn a_link_that_fails_does_not_stop_the_next() {
    let fiber = good();
    fiber.link(|_| fails("no"));
    fiber.link(|_| say!("next"));
    fiber.wait();
    yield_now();
    say!("value {}", value(&fiber));
}

fn a_link_may_start_fibers() {
    let fiber = good();
    fiber.link(|ended| {
        let value = *ended.as_ref().unwrap();
        spawn(move || say!("started by a link {value}"));
    });
    fiber.wait();
    yield_now();
    yield_now();
}

fn a_result_may_be_linked_to_a_fiber() {
    let result = Rc::new(AsyncResult::<&str>::new());
    let place = result.clone();
    good().link_value(move |value| place.set(or_killed(value)).unwrap());
    say!("{}", result.get().unwrap());
    // Nobody is left that could be heard.
    sleep(Duration::ZERO);
}
