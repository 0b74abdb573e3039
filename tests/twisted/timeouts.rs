//! Limits of time, by a clock that stands still.

use std::time::Duration;

use warren_reactor::testing::Clock;
use warren_reactor::{Deferred, Failure, Resolver, defer_later};

use crate::said::{bad, deferred, end, failed, fired_by_cancelling, give, pending, step};

scenarios! { here:
    in_time
    too_late
    the_call_goes_with_the_result
    the_call_goes_with_a_failure
    cancelled_by_hand
    the_canceller_gives_a_value
    the_canceller_gives_a_failure
    an_errback_before_it_sees_a_cancellation
    an_errback_before_it_recovers
    what_is_waited_for
    the_shorter_of_two
    one_that_is_longer_than_what_it_holds
    later
    later_and_cancelled
}

const SECOND: Duration = Duration::from_secs(1);

fn in_time() {
    let clock = Clock::install();
    let (deferred, resolver) = pending("a");
    let deferred = deferred.add_timeout(2 * SECOND).add_callback(step("a"));
    clock.advance(SECOND);
    resolver.callback(1);
    clock.advance(5 * SECOND);
    end(deferred);
}

fn too_late() {
    let clock = Clock::install();
    let (deferred, resolver) = deferred();
    let deferred = deferred.add_timeout(2 * SECOND).add_errback(failed("failed"));
    clock.advance(SECOND);
    say!("a second");
    clock.advance(SECOND);
    resolver.callback(1);
    end(deferred);
}

fn the_call_goes_with_the_result() {
    let clock = Clock::install();
    let (deferred, resolver) = deferred();
    let deferred = deferred.add_timeout(2 * SECOND);
    say!("calls {}", clock.delayed_calls());
    resolver.callback(1);
    say!("calls {}", clock.delayed_calls());
    end(deferred);
}

fn the_call_goes_with_a_failure() {
    let clock = Clock::install();
    let (deferred, resolver) = deferred();
    let deferred = deferred.add_timeout(2 * SECOND);
    resolver.errback(bad("bad"));
    say!("calls {}", clock.delayed_calls());
    end(deferred);
}

fn cancelled_by_hand() {
    let clock = Clock::install();
    let (deferred, _resolver) = deferred();
    let deferred = deferred.add_timeout(2 * SECOND);
    clock.advance(SECOND);
    deferred.cancel();
    say!("calls {}", clock.delayed_calls());
    end(deferred);
}

fn the_canceller_gives_a_value() {
    let clock = Clock::install();
    let cancelled = fired_by_cancelling(|resolver: Resolver<i64>| resolver.callback(1));
    let partial = cancelled.add_callback(|_| Ok("partial")).add_timeout(2 * SECOND);
    clock.advance(2 * SECOND);
    end(partial);
}

fn the_canceller_gives_a_failure() {
    let clock = Clock::install();
    let cancelled = fired_by_cancelling(|resolver| resolver.errback(bad("hung up")));
    let cancelled = cancelled.add_timeout(2 * SECOND);
    clock.advance(2 * SECOND);
    end(cancelled);
}

fn an_errback_before_it_sees_a_cancellation() {
    let clock = Clock::install();
    let (deferred, _resolver) = deferred();
    let deferred = deferred.add_errback(failed("before")).add_timeout(2 * SECOND);
    let deferred = deferred.add_errback(failed("after"));
    clock.advance(2 * SECOND);
    end(deferred);
}

fn an_errback_before_it_recovers() {
    let clock = Clock::install();
    let (deferred, _resolver) = deferred();
    let deferred = deferred.add_errback(|_| Ok(7)).add_timeout(2 * SECOND);
    clock.advance(2 * SECOND);
    end(deferred);
}

fn what_is_waited_for() {
    let clock = Clock::install();
    let ((outer, fire), (inner, _inner)) = (pending("outer"), pending("inner"));
    let outer = outer.add_callback(give(inner)).add_timeout(2 * SECOND);
    fire.callback(1);
    clock.advance(2 * SECOND);
    end(outer);
}

fn the_shorter_of_two() {
    let clock = Clock::install();
    let (deferred, _resolver) = deferred();
    let deferred = deferred.add_timeout(5 * SECOND).add_errback(failed("first"));
    let deferred = deferred.add_timeout(2 * SECOND).add_errback(failed("second"));
    clock.advance(2 * SECOND);
    end(deferred);
    say!("calls {}", clock.delayed_calls());
}

fn one_that_is_longer_than_what_it_holds() {
    let clock = Clock::install();
    let ((outer, fire), (inner, _inner)) = (deferred(), pending("inner"));
    let inner = inner.add_timeout(SECOND);
    let outer = outer.add_callback(give(inner)).add_timeout(3 * SECOND);
    fire.callback(1);
    clock.advance(SECOND);
    end(outer);
    say!("calls {}", clock.delayed_calls());
}

fn later() {
    let clock = Clock::install();
    let deferred: Deferred<i64> = defer_later(2 * SECOND, || Ok(7)).add_callback(step("a"));
    clock.advance(SECOND);
    say!("a second");
    clock.advance(SECOND);
    end(deferred);
}

fn later_and_cancelled() {
    let clock = Clock::install();
    let deferred: Deferred<i64> = defer_later(2 * SECOND, || {
        say!("never");
        Ok::<_, Failure>(7)
    });
    deferred.cancel();
    say!("calls {}", clock.delayed_calls());
    end(deferred);
}
