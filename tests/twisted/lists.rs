//! Several Deferreds as one.

use warren_reactor::{
    Deferred, DeferredList, Failure, FailureGroup, Resolver, UnhandledFailures, gather_results,
    race,
};

use crate::said::{bad, deferred, end, list, pending, say_unhandled, show};

scenarios! { here:
    all_in_their_own_order
    all_with_failures
    of_none
    of_fired_ones
    the_first_value
    the_first_failure
    no_failure
    late_failures_are_reported
    late_failures_are_consumed
    cancelled
    cancelled_when_one_had_fired
    gathered
    gathered_with_a_failure
    gathered_and_cancelled
    raced
    raced_by_one_that_had_fired
    raced_and_all_failed
    raced_and_cancelled
}

fn two() -> ([Deferred<i64>; 2], Resolver<i64>, Resolver<i64>) {
    let ((a, fire_a), (b, fire_b)) = (deferred(), deferred());
    ([a, b], fire_a, fire_b)
}

fn two_pending() -> ([Deferred<i64>; 2], Resolver<i64>, Resolver<i64>) {
    let ((a, fire_a), (b, fire_b)) = (pending("a"), pending("b"));
    ([a, b], fire_a, fire_b)
}

fn say_results(all: Deferred<Vec<Result<i64, Failure>>>) {
    let said = all.add_callback(|results| {
        let shown = results.iter().map(|result| match result {
            Ok(value) => value.to_string(),
            Err(failure) => show(failure),
        });
        say!("results {}", list(shown));
        Ok(())
    });
    drop(said);
}

fn say_values(all: Deferred<Vec<i64>>) {
    end(all.add_callback(|values| Ok(list(values))));
}

/// Says the index and the value of a winner, or how all have failed.
fn say_first(first: Deferred<(usize, i64), FailureGroup>) {
    let said = first.add_callbacks(
        |(index, value)| {
            say!("value {}", list([index.to_string(), value.to_string()]));
            Ok(())
        },
        |failure| {
            let FailureGroup(failures) = failure.into_error()?;
            say!("all failed {}", list(failures.iter().map(show)));
            Ok(())
        },
    );
    drop(said);
}

fn all_in_their_own_order() {
    let (both, fire_a, fire_b) = two();
    say_results(DeferredList::new(both).all());
    fire_b.callback(2);
    say!("one fired");
    fire_a.callback(1);
}

fn all_with_failures() {
    let (both, fire_a, fire_b) = two();
    say_results(DeferredList::new(both).consume_errors().all());
    fire_a.errback(bad("bad"));
    fire_b.callback(2);
}

fn of_none() {
    say_results(DeferredList::new([]).all());
    say_values(gather_results([]));
}

fn of_fired_ones() {
    say_results(DeferredList::new([Deferred::succeed(1), Deferred::succeed(2)]).all());
}

fn the_first_value() {
    let (both, fire_a, fire_b) = two();
    let first = DeferredList::new(both).fire_on_one_callback();
    fire_a.errback(bad("bad"));
    say!("one failed");
    fire_b.callback(2);
    let (value, index) = first.wait().unwrap();
    say!("value {value} of {index}");
}

fn the_first_failure() {
    let (both, fire_a, fire_b) = two();
    let first = DeferredList::new(both).consume_errors().fire_on_one_errback();
    fire_a.callback(1);
    fire_b.errback(bad("bad"));
    let error = first.wait().unwrap_err().into_error().unwrap();
    say!("failed {}: {}", error.index, show(&error.failure));
}

fn no_failure() {
    let (both, fire_a, fire_b) = two();
    let first = DeferredList::new(both).fire_on_one_errback();
    fire_a.callback(1);
    fire_b.callback(2);
    say!("results {}", list(first.wait().unwrap()));
}

fn late_failures_are_reported() {
    let unhandled = UnhandledFailures::collect();
    let (both, fire_a, fire_b) = two();
    let first = DeferredList::new(both).fire_on_one_callback();
    fire_a.callback(1);
    fire_b.errback(bad("late"));
    drop(first);
    say_unhandled(&unhandled);
}

fn late_failures_are_consumed() {
    let unhandled = UnhandledFailures::collect();
    let (both, fire_a, fire_b) = two();
    let first = DeferredList::new(both).consume_errors().fire_on_one_callback();
    fire_a.callback(1);
    fire_b.errback(bad("late"));
    drop(first);
    say_unhandled(&unhandled);
}

fn cancelled() {
    let (both, _a, _b) = two_pending();
    let all = DeferredList::new(both).consume_errors().all();
    all.cancel();
    say_results(all);
}

fn cancelled_when_one_had_fired() {
    let (both, fire_a, _b) = two_pending();
    let all = DeferredList::new(both).consume_errors().all();
    fire_a.callback(1);
    all.cancel();
    say_results(all);
}

fn gathered() {
    let (both, fire_a, fire_b) = two();
    let gathered = gather_results(both);
    fire_b.callback(2);
    fire_a.callback(1);
    say_values(gathered);
}

fn gathered_with_a_failure() {
    let (both, fire_a, fire_b) = two();
    let gathered = gather_results(both);
    fire_b.errback(bad("bad"));
    say_values(gathered);
    fire_a.callback(1);
}

fn gathered_and_cancelled() {
    let (both, _a, _b) = two_pending();
    let gathered = gather_results(both);
    gathered.cancel();
    say_values(gathered);
}

fn raced() {
    let ((a, _a), (b, fire), (c, _c)) = (pending("a"), pending("b"), pending("c"));
    let first = race([a, b, c]).add_callback(|(index, value)| {
        say!("first {}", list([index.to_string(), value.to_string()]));
        Ok((index, value))
    });
    fire.callback(2);
    say_first(first);
}

fn raced_by_one_that_had_fired() {
    let (a, _a) = pending("a");
    say_first(race([a, Deferred::succeed(2), Deferred::fail(bad("bad"))]));
}

fn raced_and_all_failed() {
    let (both, fire_a, fire_b) = two();
    let first = race(both);
    fire_b.errback(bad("worse"));
    say!("one failed");
    fire_a.errback(bad("bad"));
    say_first(first);
}

fn raced_and_cancelled() {
    let (both, _a, _b) = two_pending();
    let first = race(both);
    first.cancel();
    say_first(first);
}
