//! Waiting for fibers and other things to end. gevent's `joinall` with a timeout or a count is `wait` here, which
//! gives places instead of fibers.

use std::rc::Rc;
use std::time::Duration;

use warren_hub::sync::{AsyncResult, Event, Semaphore};
use warren_hub::{
    JoinHandle, WaitOptions, Waitable, iwait, join_all, kill_all, sleep, spawn, wait, yield_now,
};

use crate::said::{FOREVER, LONG, SHORT, after, fails, list, optional, value, yes};

scenarios! { on_hub:
    get_gives_the_value
    get_raises_the_failure
    get_of_a_killed_fiber_does_not_raise
    get_gives_up_after_a_timeout
    get_without_waiting
    get_as_often_as_one_likes
    join_gives_up_after_a_timeout
    join_of_a_finished_fiber_does_not_wait
    many_join_one_in_order
    joinall_waits_for_all
    joinall_gives_up_after_a_timeout
    joinall_waits_for_a_count
    joinall_raises_the_first_failure
    joinall_without_raising_keeps_failures
    joinall_of_nothing_returns
    wait_for_things_of_all_kinds
    wait_for_a_count
    wait_gives_up_after_a_timeout
    wait_for_what_is_ready_already
    iwait_gives_each_as_it_ends
    iwait_stops_after_a_count
    iwait_gives_up_after_a_timeout
    iwait_gives_what_is_ready_first
    an_event_wakes_all_in_order
    an_event_that_is_set_is_not_waited_for
    an_event_that_does_not_come
    an_event_cleared_at_once_still_wakes
    an_event_can_be_used_again
    a_result_goes_to_all_who_wait
    a_result_may_be_a_failure
    a_result_that_does_not_come
}

type Fiber = JoinHandle<&'static str>;

fn quick() -> Fiber {
    spawn(after(Duration::ZERO, "value"))
}

/// Fibers that end after a time, each with its name.
fn fibers<const N: usize>(of: [(&'static str, Duration); N]) -> [Fiber; N] {
    of.map(|(name, time)| spawn(after(time, name)))
}

fn objects<W: Waitable>(of: &[W]) -> Vec<&dyn Waitable> {
    of.iter().map(|object| object as &dyn Waitable).collect()
}

/// The values of those that are at these places.
fn values(fibers: &[Fiber], places: impl IntoIterator<Item = usize>) -> String {
    list(places.into_iter().map(|place| value(&fibers[place])))
}

fn within(timeout: Duration) -> WaitOptions {
    WaitOptions { timeout: Some(timeout), ..WaitOptions::default() }
}

fn only(count: usize) -> WaitOptions {
    WaitOptions { count: Some(count), ..WaitOptions::default() }
}

fn get_gives_the_value() {
    say!("{}", quick().get().unwrap());
}

fn get_raises_the_failure() {
    let error = spawn(|| fails::<()>("bad")).get().unwrap_err();
    say!("failed: {}", optional(error.message()));
}

fn get_of_a_killed_fiber_does_not_raise() {
    let fiber = spawn(after(FOREVER, "value"));
    yield_now();
    fiber.kill_wait(None);
    // An error value here, of which one can see that it is no failure.
    say!("{}", if fiber.get().unwrap_err().is_killed() { "killed" } else { "failed" });
}

fn get_gives_up_after_a_timeout() {
    let fiber = spawn(after(LONG, "value"));
    if let Err(timed_out) = fiber.get_timeout(SHORT) {
        say!("{timed_out}");
    }
    say!("ready {}", yes(fiber.ready()));
    say!("{}", fiber.get().unwrap());
}

fn get_without_waiting() {
    let fiber = quick();
    say!("{}", fiber.value().unwrap_or("not yet"));
    fiber.wait();
    say!("{}", fiber.value().unwrap_or("not yet"));
}

fn get_as_often_as_one_likes() {
    let fiber = quick();
    let (first, second) = (fiber.get().unwrap(), fiber.get().unwrap());
    say!("{first} {second} {}", value(&fiber));
}

fn join_gives_up_after_a_timeout() {
    let fiber = spawn(after(LONG, "value"));
    fiber.wait_timeout(SHORT);
    say!("ready {}", yes(fiber.ready()));
    fiber.wait();
    say!("ready {}", yes(fiber.ready()));
}

fn join_of_a_finished_fiber_does_not_wait() {
    let fiber = quick();
    fiber.wait();
    spawn(|| say!("others run"));
    fiber.wait();
    say!("joined");
    yield_now();
}

fn many_join_one_in_order() {
    let fiber = Rc::new(spawn(after(SHORT, "value")));
    join_all(["a", "b", "c"].map(|name| {
        let fiber = fiber.clone();
        spawn(move || {
            fiber.wait();
            say!("{name}");
        })
    }));
}

fn joinall_waits_for_all() {
    let fibers = fibers([("a", LONG), ("b", Duration::ZERO), ("c", SHORT)]);
    let ended = join_all(fibers);
    say!("{}", list(ended.iter().map(|ending| *ending.as_ref().unwrap())));
    say!("{}", ended.len());
}

fn joinall_gives_up_after_a_timeout() {
    let fibers = fibers([("a", FOREVER), ("b", Duration::ZERO)]);
    let done = wait(&objects(&fibers), within(SHORT));
    say!("{}", values(&fibers, done));
    kill_all(&fibers, None);
}

fn joinall_waits_for_a_count() {
    let fibers = fibers([("a", FOREVER), ("b", SHORT), ("c", Duration::ZERO)]);
    let done = wait(&objects(&fibers), only(2));
    say!("{}", values(&fibers, done));
    kill_all(&fibers, None);
}

fn joinall_raises_the_first_failure() {
    let fibers = [spawn(after(FOREVER, "a")), spawn(|| fails("bad"))];
    let failure = iwait(&objects(&fibers), WaitOptions::default())
        .find_map(|place| fibers[place].exception());
    say!("failed: {}", optional(failure));
    say!("the other is ready {}", yes(fibers[0].ready()));
    kill_all(&fibers, None);
}

fn joinall_without_raising_keeps_failures() {
    let fibers = [spawn(after(Duration::ZERO, "a")), spawn(|| fails("bad"))];
    wait(&objects(&fibers), WaitOptions::default());
    say!("{}", list(fibers.iter().map(|fiber| yes(fiber.successful()))));
}

fn joinall_of_nothing_returns() {
    say!("{}", join_all(Vec::<Fiber>::new()).len());
}

fn wait_for_things_of_all_kinds() {
    let (event, result) = (Rc::new(Event::new()), Rc::new(AsyncResult::<&str>::new()));
    let semaphore = Rc::new(Semaphore::new(0));
    let fiber = spawn(after(SHORT, "fiber"));
    let (to_set, to_give, to_release) = (event.clone(), result.clone(), semaphore.clone());
    spawn(move || {
        to_release.release();
        yield_now();
        to_give.set("value").unwrap();
        yield_now();
        to_set.set();
    });
    let names = ["event", "result", "semaphore", "fiber"];
    let done = wait(&[&*event, &*result, &*semaphore, &fiber], WaitOptions::default());
    let mut done: Vec<_> = done.into_iter().map(|place| names[place]).collect();
    done.sort_unstable();
    say!("{}", list(done));
}

fn events<const N: usize>() -> [Rc<Event>; N] {
    std::array::from_fn(|_| Rc::default())
}

fn sets(event: &Rc<Event>) {
    let event = event.clone();
    spawn(move || event.set());
}

fn event_objects(events: &[Rc<Event>]) -> Vec<&dyn Waitable> {
    events.iter().map(|event| &**event as &dyn Waitable).collect()
}

fn wait_for_a_count() {
    let events = events::<3>();
    sets(&events[2]);
    say!("{}", list(wait(&event_objects(&events), only(1))));
}

fn wait_gives_up_after_a_timeout() {
    let events = events::<2>();
    sets(&events[1]);
    say!("{}", list(wait(&event_objects(&events), within(SHORT))));
}

fn wait_for_what_is_ready_already() {
    let events = events::<2>();
    events[0].set();
    say!("{}", list(wait(&event_objects(&events), only(1))));
}

fn iwait_gives_each_as_it_ends() {
    let fibers = fibers([("a", 3 * SHORT), ("b", SHORT), ("c", 2 * SHORT)]);
    for place in iwait(&objects(&fibers), WaitOptions::default()) {
        say!("{}", value(&fibers[place]));
    }
}

fn iwait_stops_after_a_count() {
    let fibers = fibers([("a", FOREVER), ("b", SHORT), ("c", Duration::ZERO)]);
    say!("{}", values(&fibers, iwait(&objects(&fibers), only(2))));
    kill_all(&fibers, None);
}

fn iwait_gives_up_after_a_timeout() {
    let fibers = fibers([("a", FOREVER), ("b", Duration::ZERO)]);
    for place in iwait(&objects(&fibers), within(SHORT)) {
        say!("{}", value(&fibers[place]));
    }
    say!("over");
    kill_all(&fibers, None);
}

fn iwait_gives_what_is_ready_first() {
    let fibers = fibers([("late", SHORT), ("early", Duration::ZERO)]);
    fibers[1].wait();
    say!("{}", values(&fibers, iwait(&objects(&fibers), WaitOptions::default())));
}

fn an_event_wakes_all_in_order() {
    let event = Rc::new(Event::new());
    let fibers = ["a", "b", "c"].map(|name| {
        let event = event.clone();
        spawn(move || {
            event.wait();
            say!("{name}");
        })
    });
    yield_now();
    event.set();
    say!("set {}", yes(event.is_set()));
    join_all(fibers);
}

fn an_event_that_is_set_is_not_waited_for() {
    let event = Event::new();
    event.set();
    spawn(|| say!("others run"));
    event.wait();
    say!("{}", yes(event.is_set()));
    yield_now();
}

fn an_event_that_does_not_come() {
    let event = Event::new();
    say!("{}", yes(event.wait_timeout(SHORT).is_ok()));
    say!("set {}", yes(event.is_set()));
}

fn an_event_cleared_at_once_still_wakes() {
    let event = Rc::new(Event::new());
    let waited = event.clone();
    let fiber = spawn(move || {
        waited.wait();
        say!("woken, set {}", yes(waited.is_set()));
    });
    yield_now();
    event.set();
    event.clear();
    fiber.wait_timeout(LONG);
    say!("ready {}", yes(fiber.ready()));
}

fn an_event_can_be_used_again() {
    let event = Rc::new(Event::new());
    event.set();
    event.clear();
    let waited = event.clone();
    let fiber = spawn(move || waited.wait());
    yield_now();
    say!("ready {}", yes(fiber.ready()));
    event.set();
    fiber.wait();
    say!("ready {}", yes(fiber.ready()));
}

fn a_result_goes_to_all_who_wait() {
    let result = Rc::new(AsyncResult::<&str>::new());
    let fibers = ["a", "b"].map(|name| {
        let result = result.clone();
        spawn(move || say!("{name} {}", result.get().unwrap()))
    });
    yield_now();
    result.set("value").unwrap();
    join_all(fibers);
    say!("later {}", result.get().unwrap());
}

fn a_result_may_be_a_failure() {
    let result = Rc::new(AsyncResult::<&str, &str>::new());
    let failing = result.clone();
    spawn(move || failing.set_exception("bad"));
    say!("failed: {}", result.get().unwrap_err());
    let (ready, successful) = (yes(result.ready()), yes(result.successful()));
    say!("ready {ready} successful {successful} value {}", optional(result.value()));
}

fn a_result_that_does_not_come() {
    let result = AsyncResult::<&str>::new();
    if let Err(timed_out) = result.get_timeout(SHORT) {
        say!("{timed_out}");
    }
    let waited = || {
        let _ = result.wait_timeout(Duration::ZERO);
        format!("ready {} wait {}", yes(result.ready()), optional(result.value()))
    };
    if result.try_get().is_none() {
        say!("not yet");
    }
    say!("{}", waited());
    result.set("value").unwrap();
    say!("{}", waited());
    sleep(Duration::ZERO);
}
