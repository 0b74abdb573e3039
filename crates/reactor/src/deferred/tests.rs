mod groups;
mod lines;
mod model;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use crate::testing::Clock;
use crate::{AnyError, Deferred, Failure, Resolver, UnhandledFailures};

const LINKS: usize = 100_000;

type Log = Rc<RefCell<Vec<String>>>;

fn log() -> (Log, impl Fn(&str) + Clone + 'static) {
    let log = Log::default();
    let into = log.clone();
    (log, move |line: &str| into.borrow_mut().push(line.to_owned()))
}

fn no(text: &str) -> Failure {
    AnyError::new(text).into()
}

#[track_caller]
fn text<T: std::fmt::Debug + 'static>(deferred: Deferred<T>) -> String {
    deferred.wait().unwrap_err().to_string()
}

#[test]
fn a_value_goes_down_the_chain_and_a_failure_to_the_next_errback() {
    let (deferred, resolver) = Deferred::<i32>::pending();
    let (log, say) = log();
    let told = say.clone();
    let end = deferred
        .add_callback(move |n| {
            say(&format!("got {n}"));
            Err::<String, _>(no("odd"))
        })
        .add_callback(|_| -> Result<String, Failure> { unreachable!() })
        .add_errback(move |failure| {
            told(&format!("failed: {failure}"));
            Ok("handled".to_owned())
        })
        .add_callbacks(|text| Ok(text.len()), |_| -> Result<_, Failure> { unreachable!() })
        .add_both(|result| Ok(result.is_ok()));
    assert!(!end.has_fired());
    resolver.callback(3);
    assert_eq!(*log.borrow(), ["got 3", "failed: odd"]);
    assert!(end.wait().unwrap());
}

#[test]
fn a_callback_of_a_fired_one_is_called_at_once() {
    let called = Rc::new(Cell::new(0));
    let seen = called.clone();
    let deferred = Deferred::<i32>::succeed(1).add_callback(move |n| {
        seen.set(n);
        Ok(())
    });
    assert_eq!(called.get(), 1);
    deferred.wait().unwrap();
    let (deferred, resolver) = Deferred::<i32>::pending();
    resolver.callback(2);
    let seen = called.clone();
    let fired = deferred.add_callback(move |n| {
        seen.set(n);
        Ok(())
    });
    assert_eq!(called.get(), 2);
    fired.wait().unwrap();
}

#[test]
fn a_deferred_that_a_callback_gives_is_waited_for() {
    let (outer, fire_outer) = Deferred::<i32>::pending();
    let (inner, fire_inner) = Deferred::<i32>::pending();
    let sum = outer.add_callback(move |n| inner.add_callback(move |m| Ok(n + m)));
    fire_outer.callback(1);
    assert!(!sum.has_fired());
    fire_inner.callback(2);
    assert_eq!(sum.wait().unwrap(), 3);
}

#[test]
fn a_panic_in_a_callback_is_a_failure() {
    let deferred = Deferred::<()>::succeed(())
        .add_callback(|()| -> Result<(), Failure> { panic!("expected by a test") });
    assert_eq!(text(deferred), "panicked: expected by a test");
    let (deferred, resolver) = Deferred::<()>::pending();
    let deferred =
        deferred.add_callback(|()| -> Result<(), Failure> { panic!("expected by a test") });
    resolver.callback(());
    assert_eq!(text(deferred), "panicked: expected by a test");
}

#[test]
fn a_dropped_resolver_fails_it() {
    let (deferred, resolver) = Deferred::<()>::pending();
    drop(resolver);
    assert!(matches!(deferred.wait(), Err(Failure::Dropped)));
}

#[test]
fn cancelling_calls_the_canceller_and_what_comes_later_is_dropped() {
    let cancelled = Rc::new(Cell::new(0));
    let seen = cancelled.clone();
    let (deferred, resolver) =
        Deferred::<i32>::pending_with_canceller(move || seen.set(seen.get() + 1));
    let deferred = deferred.add_callback(|n| Ok(n + 1));
    assert!(resolver.is_wanted());
    deferred.cancel();
    deferred.cancel();
    assert_eq!(cancelled.get(), 1);
    assert!(!resolver.is_wanted());
    resolver.callback(1);
    assert!(deferred.wait().unwrap_err().is_cancelled());
}

#[test]
fn a_canceller_may_fire_it() {
    let place = Rc::<Cell<Option<Resolver<i32>>>>::default();
    let own = place.clone();
    let (deferred, resolver) = Deferred::pending_with_canceller(move || {
        own.take().unwrap().callback(7);
    });
    place.set(Some(resolver));
    deferred.cancel();
    assert_eq!(deferred.wait().unwrap(), 7);
}

#[test]
fn cancelling_reaches_the_deferred_that_is_waited_for() {
    let (outer, fire_outer) = Deferred::<i32>::pending_with_canceller(|| unreachable!());
    let (middle, fire_middle) = Deferred::<i32>::pending();
    let cancelled = Rc::new(Cell::new(false));
    let seen = cancelled.clone();
    let (inner, fire_inner) = Deferred::<i32>::pending_with_canceller(move || seen.set(true));
    let deferred = outer.add_callback(|_| middle.add_callback(|_| inner));
    let handle = deferred.canceller();
    let deferred = deferred.add_errback(|failure| Ok(if failure.is_cancelled() { -1 } else { 0 }));
    fire_outer.callback(1);
    fire_middle.callback(1);
    handle.cancel();
    assert!(cancelled.get());
    fire_inner.callback(5);
    assert_eq!(deferred.wait().unwrap(), -1);
}

#[test]
fn cancelling_one_that_has_fired_does_nothing() {
    let (deferred, resolver) = Deferred::<i32>::pending_with_canceller(|| unreachable!());
    resolver.callback(1);
    deferred.cancel();
    assert_eq!(deferred.wait().unwrap(), 1);
}

#[test]
fn a_callback_that_cancels_its_own_chain_changes_nothing() {
    let (deferred, resolver) = Deferred::<i32>::pending_with_canceller(|| unreachable!());
    let own = deferred.canceller();
    let deferred = deferred.add_callback(move |n| {
        own.cancel();
        Ok(n)
    });
    resolver.callback(1);
    assert_eq!(deferred.wait().unwrap(), 1);
}

#[test]
fn a_timeout_cancels_and_says_so() {
    let clock = Clock::install();
    let (slow, _slow) = Deferred::<()>::pending();
    let (fast, fire) = Deferred::<()>::pending();
    let (slow, fast) =
        (slow.add_timeout(Duration::from_secs(2)), fast.add_timeout(Duration::from_secs(2)));
    clock.advance(Duration::from_secs(1));
    fire.callback(());
    assert_eq!(clock.delayed_calls(), 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(text(slow), "timed out after 2s");
    fast.wait().unwrap();
    let (cancelled, _resolver) = Deferred::<()>::pending();
    let cancelled = cancelled.add_timeout(Duration::from_secs(2));
    cancelled.cancel();
    assert!(cancelled.wait().unwrap_err().is_cancelled());
    assert_eq!(clock.delayed_calls(), 0);
}

#[test]
fn chaining_fires_the_other() {
    let (first, fire) = Deferred::<i32>::pending();
    let (second, resolver) = Deferred::<i32>::pending();
    first.chain(resolver);
    let second = second.add_callback(|n| Ok(n + 1));
    fire.callback(1);
    assert_eq!(second.wait().unwrap(), 2);
}

#[test]
fn one_that_would_wait_for_itself_is_dropped() {
    let (deferred, resolver) = Deferred::<i32>::pending();
    deferred.add_callback(Ok).add_errback(|_| Ok(0)).chain(resolver);
}

#[test]
fn long_chains_need_no_stack() {
    let (deferred, resolver) = Deferred::<usize>::pending();
    let chain = (0..LINKS).fold(deferred, |chain, _| chain.add_callback(|n| Ok(n + 1)));
    resolver.callback(0);
    assert_eq!(chain.wait().unwrap(), LINKS);
    let (deferred, resolver) = Deferred::<usize>::pending();
    let chain = (0..LINKS).fold(deferred, |chain, _| chain.add_callback(|n| Ok(n + 1)));
    drop(resolver);
    assert!(matches!(chain.wait(), Err(Failure::Dropped)));
    let (deferred, resolver) = Deferred::<usize>::pending();
    drop((0..LINKS).fold(deferred, |chain, _| chain.add_callback(|n| Ok(n + 1))));
    resolver.callback(0);
    let (deferred, _resolver) = Deferred::<usize>::pending();
    let chain = (0..LINKS).fold(deferred, |chain, _| chain.add_callback(|n| Ok(n + 1)));
    chain.cancel();
    assert!(chain.wait().unwrap_err().is_cancelled());
}

#[test]
fn deep_nesting_needs_no_stack() {
    // Each waits for the one made before it.
    let (first, resolver) = Deferred::<usize>::pending();
    let deferred = (0..LINKS).fold(first, |inner, _| {
        let (outer, fire) = Deferred::<usize>::pending();
        let outer = outer.add_callback(move |_| inner).add_callback(|n| Ok(n + 1));
        fire.callback(0);
        outer
    });
    resolver.callback(0);
    assert_eq!(deferred.wait().unwrap(), LINKS);
    let (first, _resolver) = Deferred::<usize>::pending();
    let deferred = (0..LINKS).fold(first, |inner, _| {
        let (outer, fire) = Deferred::<usize>::pending();
        let outer = outer.add_callback(move |_| inner);
        fire.callback(0);
        outer
    });
    deferred.cancel();
    assert!(deferred.wait().unwrap_err().is_cancelled());
    // Each fires the next.
    let (first, resolver) = Deferred::<usize>::pending();
    let deferred = (0..LINKS).fold(first, |deferred, _| {
        let (next, fire) = Deferred::pending();
        deferred.chain(fire);
        next
    });
    resolver.callback(1);
    assert_eq!(deferred.wait().unwrap(), 1);
}

#[test]
fn a_failure_that_nobody_takes_is_reported() {
    let unhandled = UnhandledFailures::collect();
    let (deferred, resolver) = Deferred::<()>::pending();
    let deferred = deferred.add_callback(|()| Ok(()));
    resolver.errback(AnyError::new("lost"));
    assert!(unhandled.take().is_empty());
    drop(deferred);
    let (handled, resolver) = Deferred::<()>::pending();
    drop(handled.add_errback(|_| Ok(())));
    resolver.errback(AnyError::new("handled"));
    let (early, resolver) = Deferred::<()>::pending();
    drop(early);
    resolver.errback(AnyError::new("early"));
    let taken = unhandled.take();
    let failures: Vec<&str> = taken.iter().map(|one| one.failure()).collect();
    assert_eq!(failures, ["Error(lost)", "Error(early)"]);
    assert!(taken[0].created().file().ends_with("tests.rs"), "{}", taken[0]);
}

#[test]
fn a_fiber_waits_and_a_killed_one_cancels() {
    let unhandled = UnhandledFailures::collect();
    warren_hub::run(|| {
        let (deferred, resolver) = Deferred::<i32>::pending();
        let fiber = warren_hub::spawn(move || deferred.wait());
        warren_hub::yield_now();
        resolver.callback(5);
        assert_eq!(fiber.join().unwrap().unwrap(), 5);
        let cancelled = Rc::new(Cell::new(false));
        let seen = cancelled.clone();
        let (deferred, _resolver) = Deferred::<i32>::pending_with_canceller(move || seen.set(true));
        let fiber = warren_hub::spawn(move || deferred.wait());
        warren_hub::yield_now();
        fiber.kill_wait(None);
        assert!(cancelled.get());
    });
    assert!(unhandled.take().is_empty());
}

#[test]
fn callbacks_must_not_wait() {
    warren_hub::run(|| {
        let deferred = Deferred::<()>::succeed(()).add_callback(|()| {
            warren_hub::sleep(Duration::from_secs(1));
            Ok(())
        });
        assert!(matches!(deferred.wait(), Err(Failure::Panicked(_))));
    });
}
