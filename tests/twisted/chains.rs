//! In which order callbacks are called, and with what. Each callback consumes the Deferred and gives the next link,
//! for values have types here.

use warren_reactor::{
    Deferred, Failure, UnhandledFailures, execute, maybe_deferred, spawn_deferred,
};

use crate::said::{bad, both, deferred, end, fail, failed, give, say_unhandled, show, step};

scenarios! { on_hub:
    callbacks_in_order
    each_takes_what_the_one_before_gave
    one_added_later_is_called_at_once
    a_failure_skips_callbacks
    an_errback_recovers
    a_callback_fails
    an_errback_fails_otherwise
    errbacks_are_skipped_by_values
    a_pair_does_not_hear_itself
    a_pair_chooses
    both_hear_either
    a_failure_goes_through_many
    a_given_deferred_is_waited_for
    a_given_deferred_that_has_fired
    a_given_deferred_that_fails
    a_given_deferred_has_its_own_callbacks_first
    a_given_deferred_that_fires_first
    an_errback_gives_a_deferred
    three_deep
    one_after_another
    firing_within_a_callback
    a_callback_adds_to_another
    chained
    chained_failure
    chained_after_it_fired
    fired_from_the_beginning
    maybe
    paused
    paused_after_it_fired
    an_unhandled_failure_is_reported
    a_handled_failure_is_not_reported
    a_failure_handed_on_is_reported_once
    straight_code_waits
    straight_code_fails
}

fn callbacks_in_order() {
    let (mut deferred, resolver) = deferred();
    for name in ["a", "b", "c"] {
        deferred = deferred.add_callback(step(name));
    }
    say!("added");
    resolver.callback(1);
    end(deferred);
}

fn each_takes_what_the_one_before_gave() {
    let (deferred, resolver) = deferred();
    let deferred = deferred.add_callback(|n| Ok(n + 1)).add_callback(step("a"));
    let deferred = deferred.add_callback(|n| Ok(format!("<{n}>"))).add_callback(step("b"));
    resolver.callback(1);
    end(deferred);
}

fn one_added_later_is_called_at_once() {
    let (deferred, resolver) = deferred();
    let deferred = deferred.add_callback(step("a"));
    resolver.callback(1);
    say!("fired");
    end(deferred.add_callback(step("b")));
}

fn a_failure_skips_callbacks() {
    let (deferred, resolver) = deferred();
    let deferred =
        deferred.add_callback(step("a")).add_errback(failed("failed")).add_callback(step("b"));
    resolver.errback(bad("bad"));
    end(deferred);
}

fn an_errback_recovers() {
    let (deferred, resolver) = deferred();
    let deferred =
        deferred.add_errback(failed("failed")).add_errback(|_| Ok(7)).add_callback(step("a"));
    resolver.errback(bad("bad"));
    end(deferred);
}

fn a_callback_fails() {
    let (deferred, resolver) = deferred();
    let deferred =
        deferred.add_callback(fail("bad")).add_callback(step("a")).add_errback(failed("failed"));
    resolver.callback(1);
    end(deferred);
}

fn an_errback_fails_otherwise() {
    let (deferred, resolver) = deferred();
    let deferred = deferred.add_errback(fail("worse")).add_errback(failed("failed"));
    resolver.errback(bad("bad"));
    end(deferred);
}

fn errbacks_are_skipped_by_values() {
    let (deferred, resolver) = deferred();
    let deferred = deferred
        .add_errback(failed("failed"))
        .add_callback(step("a"))
        .add_errback(failed("failed"));
    resolver.callback(1);
    end(deferred);
}

fn a_pair_does_not_hear_itself() {
    let (deferred, resolver) = deferred();
    let deferred =
        deferred.add_callbacks(fail("bad"), failed("never")).add_errback(failed("failed"));
    resolver.callback(1);
    end(deferred);
}

fn a_pair_chooses() {
    let (deferred, resolver) = deferred();
    let deferred = deferred.add_callbacks(step("value"), |_| Ok(2));
    resolver.errback(bad("bad"));
    end(deferred.add_callbacks(step("value"), failed("never")));
}

fn both_hear_either() {
    for result in [Ok(1), Err(bad("bad"))] {
        let (deferred, resolver) = deferred();
        let deferred = deferred.add_both(both("both")).add_both(|_| Ok(2)).add_both(both("both"));
        resolver.resolve(result);
        end(deferred);
    }
}

fn a_failure_goes_through_many() {
    let (deferred, resolver) = deferred();
    let mut deferred = deferred.add_callback(fail("bad"));
    for _ in 0..100 {
        deferred = deferred.add_callback(step("never"));
    }
    resolver.callback(1);
    end(deferred);
}

fn a_given_deferred_is_waited_for() {
    let ((outer, fire_outer), (inner, fire_inner)) = (deferred(), deferred());
    let outer = outer.add_callback(give(inner)).add_callback(step("a"));
    fire_outer.callback(1);
    say!("outer fired");
    fire_inner.callback(2);
    end(outer);
}

fn a_given_deferred_that_has_fired() {
    let (outer, fire) = deferred();
    let outer = outer.add_callback(|_| Deferred::<i64>::succeed(2)).add_callback(step("a"));
    fire.callback(1);
    end(outer);
}

fn a_given_deferred_that_fails() {
    let ((outer, fire_outer), (inner, fire_inner)) = (deferred(), deferred());
    let outer =
        outer.add_callback(give(inner)).add_callback(step("never")).add_errback(failed("failed"));
    fire_outer.callback(1);
    fire_inner.errback(bad("bad"));
    end(outer);
}

fn a_given_deferred_has_its_own_callbacks_first() {
    let ((outer, fire_outer), (inner, fire_inner)) = (deferred(), deferred());
    let inner = inner.add_callback(step("inner")).add_callback(|n| Ok(n + 1));
    let outer = outer.add_callback(give(inner)).add_callback(step("outer"));
    fire_outer.callback(1);
    fire_inner.callback(2);
    end(outer);
}

fn a_given_deferred_that_fires_first() {
    let ((outer, fire_outer), (inner, fire_inner)) = (deferred(), deferred());
    let inner = inner.add_callback(step("inner"));
    let outer =
        outer.add_callback(step("outer")).add_callback(give(inner)).add_callback(step("both"));
    fire_inner.callback(2);
    fire_outer.callback(1);
    end(outer);
}

fn an_errback_gives_a_deferred() {
    let ((outer, fire_outer), (inner, fire_inner)) = (deferred(), deferred());
    let outer = outer.add_errback(give(inner)).add_callback(step("a"));
    fire_outer.errback(bad("bad"));
    say!("outer failed");
    fire_inner.callback(2);
    end(outer);
}

fn three_deep() {
    let ((first, fire_first), (second, fire_second), (third, fire_third)) =
        (deferred(), deferred(), deferred());
    let second = second
        .add_callback(step("second"))
        .add_callback(give(third))
        .add_callback(step("in second"));
    let first =
        first.add_callback(step("first")).add_callback(give(second)).add_callback(step("in first"));
    fire_first.callback(1);
    fire_second.callback(2);
    say!("two fired");
    fire_third.callback(3);
    end(first);
}

fn one_after_another() {
    let ((outer, fire_outer), (first, fire_first), (second, fire_second)) =
        (deferred(), deferred(), deferred());
    let outer = outer.add_callback(give(first)).add_callback(step("a"));
    let outer = outer.add_callback(give(second)).add_callback(step("b"));
    fire_outer.callback(0);
    fire_second.callback(2);
    say!("second fired");
    fire_first.callback(1);
    end(outer);
}

fn firing_within_a_callback() {
    let ((outer, fire_outer), (other, fire_other)) = (deferred(), deferred());
    let other = other.add_callback(step("other"));
    let outer = outer.add_callback(move |n| {
        say!("fires");
        fire_other.callback(2);
        say!("fired");
        Ok(n)
    });
    let outer = outer.add_callback(step("outer"));
    fire_outer.callback(1);
    drop(other);
    end(outer);
}

fn a_callback_adds_to_another() {
    let ((outer, fire_outer), (other, fire_other)) = (deferred(), deferred());
    fire_other.callback(2);
    let outer = outer.add_callback(move |n| {
        drop(other.add_callback(step("other")));
        say!("added");
        Ok(n)
    });
    let outer = outer.add_callback(step("outer"));
    fire_outer.callback(1);
    end(outer);
}

fn chained() {
    let ((first, fire), (second, resolver)) = (deferred(), deferred());
    let second = second.add_callback(step("second"));
    first.add_callback(step("first")).chain(resolver);
    fire.callback(1);
    end(second);
}

fn chained_failure() {
    let ((first, fire), (second, resolver)) = (deferred(), deferred());
    first.chain(resolver);
    let second = second.add_errback(failed("failed"));
    fire.errback(bad("bad"));
    end(second);
}

fn chained_after_it_fired() {
    let ((first, fire), (second, resolver)) = (deferred(), deferred());
    fire.callback(1);
    let second = second.add_callback(step("second"));
    first.chain(resolver);
    end(second);
}

fn fired_from_the_beginning() {
    end(Deferred::<i64>::succeed(1).add_callback(step("a")));
    end(Deferred::<i64>::fail(bad("bad")).add_errback(failed("failed")));
}

fn maybe() {
    end(maybe_deferred(|| Ok::<_, Failure>(1)));
    end(maybe_deferred(|| Deferred::<i64>::succeed(2)));
    end(maybe_deferred(|| fail("bad")(())));
    let (waits, resolver) = deferred();
    end(maybe_deferred(|| waits));
    resolver.callback(3);
    end::<i64, warren_reactor::AnyError>(execute(|| 4));
}

fn paused() {
    let (deferred, resolver) = deferred();
    let (deferred, pause) = deferred.pause();
    let deferred = deferred.add_callback(step("a"));
    resolver.callback(1);
    say!("fired");
    pause.unpause();
    end(deferred);
}

fn paused_after_it_fired() {
    let (deferred, resolver) = deferred();
    let deferred = deferred.add_callback(step("a"));
    resolver.callback(1);
    let (deferred, pause) = deferred.pause();
    let deferred = deferred.add_callback(step("b"));
    say!("added");
    pause.unpause();
    end(deferred);
}

fn an_unhandled_failure_is_reported() {
    let unhandled = UnhandledFailures::collect();
    let (deferred, resolver) = deferred();
    let deferred = deferred.add_callback(step("never"));
    resolver.errback(bad("lost"));
    say_unhandled(&unhandled);
    drop(deferred);
    say_unhandled(&unhandled);
}

fn a_handled_failure_is_not_reported() {
    let unhandled = UnhandledFailures::collect();
    let (deferred, resolver) = deferred();
    resolver.errback(bad("bad"));
    drop(deferred.add_errback(|_| Ok(0)));
    say_unhandled(&unhandled);
}

fn a_failure_handed_on_is_reported_once() {
    let unhandled = UnhandledFailures::collect();
    let ((outer, fire_outer), (inner, fire_inner)) = (deferred(), deferred());
    let outer = outer.add_callback(give(inner));
    fire_outer.callback(1);
    fire_inner.errback(bad("lost"));
    say_unhandled(&unhandled);
    drop(outer);
    say_unhandled(&unhandled);
}

fn straight_code_waits() {
    let ((first, fire_first), (second, fire_second)) = (deferred(), deferred());
    let fiber: Deferred<i64> = spawn_deferred(move || {
        let value = first.wait()?;
        say!("first {value}");
        if let Err(failure) = second.wait() {
            say!("failed {}", show(&failure));
        }
        Ok(value + 1)
    });
    fire_first.callback(1);
    fire_second.errback(bad("bad"));
    // A fiber goes on in a turn of its own, a coroutine of Twisted's within `callback`.
    say!("value {}", fiber.wait().unwrap());
}

fn straight_code_fails() {
    let fiber: Deferred<i64> = spawn_deferred(|| {
        Deferred::<i64>::succeed(1).wait()?;
        Err(bad("bad"))
    });
    say!("failed {}", show(&fiber.wait().unwrap_err()));
}
