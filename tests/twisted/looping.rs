//! Looping calls, by a clock that stands still.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use warren_reactor::testing::Clock;
use warren_reactor::{Deferred, LoopingCall, Resolver, now};

use crate::said::{bad, end, yes};

scenarios! { here:
    at_once_and_then_at_intervals
    first_after_an_interval
    late_calls_keep_to_the_grid
    missed_intervals_are_counted
    missed_intervals_of_a_later_start
    stopped
    stopped_by_itself
    started_again
    waits_for_a_deferred
    stopped_while_it_waits
    an_error_stops_it
    a_failure_stops_it
    reset
    reset_and_counted
}

const SECOND: Duration = Duration::from_secs(1);

/// Lets time pass as Twisted's clock does: at once.
fn advance(clock: &Clock, seconds: impl IntoIterator<Item = f64>) {
    for amount in seconds {
        clock.jump(Duration::from_secs_f64(amount));
    }
}

/// Tells the tenths of a second since the start.
fn tenths() -> impl Fn() -> u128 {
    let start = now();
    move || (now() - start).as_millis() / 100
}

fn saying() -> LoopingCall {
    let at = tenths();
    LoopingCall::new(move || say!("at {}", at()))
}

fn counting() -> LoopingCall {
    let at = tenths();
    LoopingCall::with_count(move |count| say!("at {} count {count}", at()))
}

/// A value in place of nothing.
fn named(done: Deferred<()>, name: &'static str) -> Deferred<&'static str> {
    done.add_callback(move |()| Ok(name))
}

fn at_once_and_then_at_intervals() {
    let clock = Clock::install();
    let call = saying();
    drop(call.start(SECOND, true));
    advance(&clock, [0.5; 5]);
    call.stop();
    say!("calls {}", clock.delayed_calls());
}

fn first_after_an_interval() {
    let clock = Clock::install();
    drop(saying().start(SECOND, false));
    advance(&clock, [0.5; 5]);
}

fn late_calls_keep_to_the_grid() {
    let clock = Clock::install();
    drop(saying().start(SECOND, true));
    advance(&clock, [0.25, 3.0, 0.5, 0.25, 2.5, 0.5]);
}

fn missed_intervals_are_counted() {
    let clock = Clock::install();
    drop(counting().start(SECOND, true));
    advance(&clock, [0.25, 3.0, 0.5, 0.25, 2.5, 0.5, 1.0]);
}

fn missed_intervals_of_a_later_start() {
    let clock = Clock::install();
    drop(counting().start(SECOND, false));
    advance(&clock, [0.25, 3.0, 0.5, 0.25, 2.5, 0.5, 1.0]);
}

fn stopped() {
    let clock = Clock::install();
    let call = saying();
    let done = named(call.start(SECOND, true), "stopped");
    say!("running {}", yes(call.is_running()));
    call.stop();
    say!("running {}", yes(call.is_running()));
    end(done);
    advance(&clock, [5.0]);
}

fn stopped_by_itself() {
    let clock = Clock::install();
    let own = Rc::<RefCell<Option<LoopingCall>>>::default();
    let (inside, mut seen) = (own.clone(), 0);
    let call = LoopingCall::new(move || {
        say!("tick");
        seen += 1;
        if seen == 3 {
            inside.take().unwrap().stop();
        }
    });
    *own.borrow_mut() = Some(call.clone());
    let done = named(call.start(SECOND, true), "stopped");
    advance(&clock, [1.0; 5]);
    end(done);
}

fn started_again() {
    let clock = Clock::install();
    let call = saying();
    drop(call.start(SECOND, true));
    advance(&clock, [1.5]);
    call.stop();
    advance(&clock, [1.0]);
    drop(call.start(SECOND / 2, false));
    advance(&clock, [0.5, 1.0]);
}

/// What a function has given, to be fired.
type Given = Rc<RefCell<Vec<Resolver<()>>>>;

fn giving(given: &Given) -> impl FnMut() -> Deferred<()> + use<> {
    let given = given.clone();
    move || {
        let (deferred, resolver) = Deferred::pending();
        given.borrow_mut().push(resolver);
        deferred
    }
}

fn waits_for_a_deferred() {
    let clock = Clock::install();
    let (given, at) = (Given::default(), tenths());
    let mut give = giving(&given);
    let call = LoopingCall::with_count(move |count| {
        say!("at {} count {count}", at());
        give()
    });
    drop(call.start(SECOND, true));
    advance(&clock, [3.5]);
    say!("calls {}", clock.delayed_calls());
    let waiting = given.borrow_mut().pop().unwrap();
    waiting.callback(());
    say!("calls {}", clock.delayed_calls());
    advance(&clock, [0.5]);
}

fn stopped_while_it_waits() {
    let clock = Clock::install();
    let given = Given::default();
    let call = LoopingCall::new(giving(&given));
    let done = named(call.start(SECOND, true), "stopped");
    call.stop();
    say!("running {} fired {}", yes(call.is_running()), yes(done.has_fired()));
    given.take().remove(0).callback(());
    end(done);
    say!("calls {}", clock.delayed_calls());
}

fn an_error_stops_it() {
    let clock = Clock::install();
    let call = LoopingCall::new(|| Err::<(), _>(bad("bad")));
    let done = named(call.start(SECOND, false), "stopped");
    advance(&clock, [1.0]);
    say!("running {} calls {}", yes(call.is_running()), clock.delayed_calls());
    end(done);
}

fn a_failure_stops_it() {
    let clock = Clock::install();
    let given = Given::default();
    let call = LoopingCall::new(giving(&given));
    let done = named(call.start(SECOND, true), "stopped");
    advance(&clock, [5.0]);
    given.take().remove(0).errback(bad("bad"));
    say!("running {} calls {}", yes(call.is_running()), clock.delayed_calls());
    end(done);
}

fn reset() {
    let clock = Clock::install();
    let call = saying();
    drop(call.start(SECOND, true));
    advance(&clock, [0.5]);
    call.reset();
    advance(&clock, [0.5; 5]);
}

fn reset_and_counted() {
    let clock = Clock::install();
    let call = counting();
    drop(call.start(SECOND, true));
    advance(&clock, [2.5]);
    call.reset();
    advance(&clock, [1.0, 0.5, 2.0, 1.0]);
}
