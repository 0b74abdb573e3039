//! Calls at a time to come, by a clock that stands still. Where it is advanced over several calls, each sees
//! its own time here, and the last one in Twisted: so it is advanced by seconds.

use std::time::{Duration, Instant};

use warren_reactor::testing::Clock;
use warren_reactor::{DelayedCall, call_later, now};

use crate::said::yes;

scenarios! { here:
    in_the_order_of_their_times
    at_once
    cancelled
    cancelled_after_it_was_made
    cancelled_by_another
    put_off_and_brought_forward
    reset_from_now
    a_call_asks_for_another
}

const SECOND: Duration = Duration::from_secs(1);

/// A clock, and when it began.
struct Time {
    clock: Clock,
    began: Instant,
}

fn time() -> Time {
    let clock = Clock::install();
    let began = clock.now();
    Time { clock, began }
}

impl Time {
    fn at(&self, seconds: u32, name: &'static str) -> DelayedCall {
        let began = self.began;
        call_later(seconds * SECOND, move || say!("{name} at {}", seconds_since(began)))
    }

    fn seconds(&self, count: usize) {
        self.clock.pump([SECOND].repeat(count));
    }
}

fn seconds_since(began: Instant) -> u64 {
    (now() - began).as_secs()
}

fn in_the_order_of_their_times() {
    let time = time();
    for (name, seconds) in [("c", 3), ("a", 1), ("b", 1), ("d", 5)] {
        time.at(seconds, name);
    }
    time.seconds(4);
    say!("waiting {}", time.clock.delayed_calls());
}

fn at_once() {
    let time = time();
    time.at(0, "a");
    say!("asked");
    time.clock.advance(Duration::ZERO);
}

fn cancelled() {
    let time = time();
    let call = time.at(1, "never");
    say!("active {}", yes(call.is_active()));
    call.cancel();
    say!("active {}", yes(call.is_active()));
    say!("again {}", yes(call.cancel()));
    time.seconds(2);
}

fn cancelled_after_it_was_made() {
    let time = time();
    let call = time.at(1, "a");
    time.seconds(1);
    say!("active {} cancelled {}", yes(call.is_active()), yes(call.cancel()));
}

fn cancelled_by_another() {
    let time = time();
    let never = time.at(2, "never");
    call_later(SECOND, move || {
        never.cancel();
    });
    time.at(2, "a");
    time.seconds(2);
}

fn put_off_and_brought_forward() {
    let time = time();
    let (late, early, twice) = (time.at(2, "late"), time.at(2, "early"), time.at(2, "twice"));
    late.delay(2 * SECOND);
    early.reset(SECOND);
    twice.reset(5 * SECOND);
    twice.reset(3 * SECOND);
    time.seconds(5);
}

fn reset_from_now() {
    let time = time();
    let call = time.at(3, "a");
    time.seconds(2);
    call.reset(3 * SECOND);
    time.seconds(1);
    say!("not yet");
    time.seconds(2);
}

fn a_call_asks_for_another() {
    let time = time();
    let began = time.began;
    call_later(SECOND, move || {
        call_later(SECOND, move || say!("b at {}", seconds_since(began)));
    });
    time.seconds(1);
    say!("one made");
    time.seconds(1);
}
