//! What a cancellation reaches. What is fired after one is always dropped; Twisted raises an error in the one who
//! fires, unless there was no canceller.

use warren_hub::yield_now;
use warren_reactor::{Deferred, UnhandledFailures, spawn_deferred};

use crate::said::{
    bad, deferred, end, fail, failed, fired_by_cancelling, give, pending, say_unhandled, show, step,
};

scenarios! { on_hub:
    without_a_canceller
    the_canceller_is_called_first
    the_canceller_gives_a_value
    the_canceller_gives_a_failure
    what_is_fired_later_is_dropped
    twice
    after_it_fired
    after_it_failed
    it_goes_down_the_chain
    what_is_waited_for
    what_is_waited_for_three_deep
    what_is_waited_for_gives_a_value
    what_is_not_yet_waited_for
    what_is_waited_for_next
    an_errback_waits_again
    within_its_own_callback
    the_inner_one_by_itself
    the_end_of_a_chain_of_two
    the_beginning_of_a_chain_of_two
    a_callback_cancels_another
    cancelled_and_dropped
    straight_code
    a_failing_callback_behind_it
}

fn without_a_canceller() {
    let (deferred, _resolver) = deferred();
    let deferred = deferred.add_errback(failed("failed"));
    deferred.cancel();
    end(deferred);
}

fn the_canceller_is_called_first() {
    let (deferred, _resolver) = pending("a");
    let deferred = deferred.add_errback(failed("failed"));
    deferred.cancel();
    say!("cancelled");
    end(deferred);
}

fn the_canceller_gives_a_value() {
    let deferred = fired_by_cancelling(|resolver| resolver.callback(7)).add_callback(step("a"));
    deferred.cancel();
    end(deferred);
}

fn the_canceller_gives_a_failure() {
    let deferred = fired_by_cancelling(|resolver| resolver.errback(bad("hung up")));
    deferred.cancel();
    end(deferred);
}

fn what_is_fired_later_is_dropped() {
    let (deferred, resolver) = deferred();
    let deferred = deferred.add_callbacks(step("never"), failed("failed"));
    deferred.cancel();
    resolver.callback(1);
    end(deferred);
}

fn twice() {
    let (deferred, _resolver) = pending("a");
    deferred.cancel();
    deferred.cancel();
    end(deferred);
}

fn after_it_fired() {
    let (deferred, resolver) = pending("a");
    resolver.callback(1);
    deferred.cancel();
    end(deferred);
}

fn after_it_failed() {
    let (deferred, resolver) = pending("a");
    resolver.errback(bad("bad"));
    deferred.cancel();
    end(deferred);
}

fn it_goes_down_the_chain() {
    let (deferred, _resolver) = pending("a");
    let deferred = deferred.add_callback(step("never")).add_errback(failed("failed"));
    let deferred = deferred.add_errback(|_| Ok(1)).add_callback(step("b"));
    deferred.cancel();
    end(deferred);
}

fn what_is_waited_for() {
    let ((outer, fire), (inner, _inner)) = (pending("outer"), pending("inner"));
    let outer = outer.add_callback(give(inner)).add_errback(failed("failed"));
    fire.callback(1);
    outer.cancel();
    end(outer);
}

fn what_is_waited_for_three_deep() {
    let ((first, fire_first), (second, fire_second), (third, _third)) =
        (pending("first"), pending("second"), pending("third"));
    let second = second.add_callback(give(third)).add_errback(failed("second"));
    let first = first.add_callback(give(second)).add_errback(failed("first"));
    fire_first.callback(1);
    fire_second.callback(2);
    first.cancel();
    end(first);
}

fn what_is_waited_for_gives_a_value() {
    let (outer, fire) = pending("outer");
    let inner = fired_by_cancelling(|resolver| resolver.callback(7));
    let outer = outer.add_callback(give(inner)).add_callback(step("a"));
    fire.callback(1);
    outer.cancel();
    end(outer);
}

fn what_is_not_yet_waited_for() {
    let ((outer, _outer), (inner, fire)) = (pending("outer"), pending("inner"));
    let outer = outer.add_callback(give(inner)).add_errback(failed("failed"));
    outer.cancel();
    fire.callback(2);
    end(outer);
}

fn what_is_waited_for_next() {
    let ((outer, fire_outer), (first, fire_first), (second, _second)) =
        (pending("outer"), pending("first"), pending("second"));
    let outer = outer.add_callback(give(first)).add_callback(give(second));
    let outer = outer.add_errback(failed("failed"));
    fire_outer.callback(0);
    fire_first.callback(1);
    outer.cancel();
    end(outer);
}

fn an_errback_waits_again() {
    let ((outer, fire_outer), (first, _first), (second, _second)) =
        (pending("outer"), pending("first"), pending("second"));
    let outer = outer.add_callback(give(first)).add_errback(give(second));
    let outer = outer.add_errback(failed("failed"));
    fire_outer.callback(0);
    outer.cancel();
    say!("cancelled once");
    outer.cancel();
    end(outer);
}

fn within_its_own_callback() {
    let (deferred, resolver) = pending("a");
    let canceller = deferred.canceller();
    let deferred = deferred.add_callback(move |n| {
        canceller.cancel();
        say!("cancelled");
        Ok(n)
    });
    let deferred = deferred.add_callbacks(step("b"), failed("never"));
    resolver.callback(1);
    end(deferred);
}

fn the_inner_one_by_itself() {
    let ((outer, fire), (inner, _inner)) = (pending("outer"), pending("inner"));
    let canceller = inner.canceller();
    let outer = outer.add_callback(give(inner)).add_errback(failed("failed"));
    fire.callback(1);
    canceller.cancel();
    end(outer);
}

fn the_end_of_a_chain_of_two() {
    let ((first, _first), (second, resolver)) = (pending("first"), pending("second"));
    first.chain(resolver);
    let second = second.add_errback(failed("failed"));
    second.cancel();
    end(second);
}

fn the_beginning_of_a_chain_of_two() {
    let ((first, _first), (second, resolver)) = (pending("first"), pending("second"));
    let canceller = first.canceller();
    first.chain(resolver);
    let second = second.add_errback(failed("failed"));
    canceller.cancel();
    end(second);
}

fn a_callback_cancels_another() {
    let ((outer, fire), (other, _other)) = (deferred(), pending("other"));
    let other = other.add_errback(failed("other"));
    let canceller = other.canceller();
    let outer = outer.add_callback(move |n| {
        canceller.cancel();
        Ok(n)
    });
    let outer = outer.add_callback(step("outer"));
    fire.callback(1);
    end(outer);
    end(other);
}

fn cancelled_and_dropped() {
    let unhandled = UnhandledFailures::collect();
    let (deferred, _resolver) = deferred();
    deferred.cancel();
    drop(deferred);
    say_unhandled(&unhandled);
}

fn straight_code() {
    struct CleansUp;
    impl Drop for CleansUp {
        fn drop(&mut self) {
            say!("cleans up");
        }
    }
    let (inner, _resolver) = pending("inner");
    let fiber: Deferred<i64> = spawn_deferred(move || {
        let _clean = CleansUp;
        inner.wait()
    });
    // A coroutine of Twisted's begins at once. Killing a fiber that has not begun runs nothing of it.
    yield_now();
    fiber.cancel();
    yield_now();
    say!("failed {}", show(&fiber.wait().unwrap_err()));
}

fn a_failing_callback_behind_it() {
    let (deferred, _resolver) = pending("a");
    let deferred = deferred.add_errback(fail("worse")).add_errback(failed("failed"));
    deferred.cancel();
    end(deferred);
}
