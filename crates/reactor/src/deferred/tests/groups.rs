//! Lists, races, locks, queues, calls and fibers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::{Log, no, text};
use crate::testing::Clock;
use crate::{
    AnyError, Deferred, DeferredList, DeferredLock, DeferredQueue, DeferredSemaphore, Failure,
    QueueOverflow, QueueUnderflow, Resolver, UnhandledFailures, defer_later, ensure_deferred,
    execute, gather_results, maybe_deferred, race, spawn_deferred,
};

fn pair() -> (Deferred<i32>, Resolver<i32>) {
    Deferred::pending()
}

#[test]
fn a_list_has_all_results_in_its_own_order() {
    let ((a, fire_a), (b, fire_b)) = (pair(), pair());
    let list = DeferredList::new([a, b, Deferred::succeed(3)]).all();
    fire_b.errback(AnyError::new("b"));
    assert!(!list.has_fired());
    fire_a.callback(1);
    let results = list.wait().unwrap();
    assert_eq!(*results[0].as_ref().unwrap(), 1);
    assert_eq!(results[1].as_ref().unwrap_err().to_string(), "b");
    assert_eq!(results.len(), 3);
    assert!(DeferredList::<i32>::new([]).all().wait().unwrap().is_empty());
}

#[test]
fn a_list_fires_with_the_first_value_or_failure() {
    let unhandled = UnhandledFailures::collect();
    let ((a, fire_a), (b, fire_b), (c, fire_c)) = (pair(), pair(), pair());
    let first = DeferredList::new([a, b, c]).fire_on_one_callback();
    fire_a.errback(AnyError::new("a"));
    fire_b.callback(2);
    assert_eq!(first.wait().unwrap(), (2, 1));
    fire_c.errback(AnyError::new("late"));
    assert_eq!(unhandled.take()[0].failure(), "Error(late)");

    let ((a, fire_a), (b, fire_b), (c, fire_c)) = (pair(), pair(), pair());
    let first = DeferredList::new([a, b, c]).consume_errors().fire_on_one_errback();
    fire_a.callback(1);
    fire_b.errback(AnyError::new("b"));
    let error = first.wait().unwrap_err().into_error().unwrap();
    assert_eq!(error.to_string(), "the Deferred with index 1 has failed: b");
    fire_c.errback(AnyError::new("late"));
    assert!(unhandled.take().is_empty());

    let failing = [Deferred::<i32>::fail(AnyError::new("x")), Deferred::fail(AnyError::new("y"))];
    let failure = DeferredList::new(failing).fire_on_one_callback().wait().unwrap_err();
    assert_eq!(failure.to_string(), "all 2 have failed: x; y");
}

#[test]
fn cancelling_a_list_cancels_what_it_waits_for() {
    let cancelled = Rc::new(Cell::new(0));
    let pending = || {
        let seen = cancelled.clone();
        Deferred::<i32>::pending_with_canceller(move || seen.set(seen.get() + 1))
    };
    let ((a, _a), (b, _b), (c, fire_c)) = (pending(), pending(), pending());
    let list = DeferredList::new([a, b, c]).all();
    fire_c.callback(3);
    list.cancel();
    assert_eq!(cancelled.get(), 2);
    let results = list.wait().unwrap();
    assert!(results[0].as_ref().is_err_and(Failure::is_cancelled));
    assert_eq!(*results[2].as_ref().unwrap(), 3);
}

#[test]
fn gathering_fails_with_the_first_failure() {
    let ((a, fire_a), (b, fire_b)) = (pair(), pair());
    let all = gather_results([a, b]);
    fire_b.callback(2);
    fire_a.callback(1);
    assert_eq!(all.wait().unwrap(), [1, 2]);
    let ((a, _fire_a), (b, fire_b)) = (pair(), pair());
    let all = gather_results([a, b]);
    fire_b.errback(AnyError::new("b"));
    assert_eq!(text(all), "b");
}

#[test]
fn a_race_cancels_the_losers() {
    let cancelled = Rc::<RefCell<Vec<i32>>>::default();
    let runner = |number| {
        let seen = cancelled.clone();
        Deferred::<i32>::pending_with_canceller(move || seen.borrow_mut().push(number))
    };
    let ((a, _a), (b, fire_b), (c, _c)) = (runner(0), runner(1), runner(2));
    let first = race([a, b, c]);
    fire_b.callback(7);
    assert_eq!(*cancelled.borrow(), [0, 2]);
    assert_eq!(first.wait().unwrap(), (1, 7));
    let ((a, _a), (b, _b)) = (runner(3), runner(4));
    let first = race([a, b]);
    first.cancel();
    assert_eq!(cancelled.borrow()[2..], [3, 4]);
    assert_eq!(first.wait().unwrap_err().to_string(), "all 2 have failed: cancelled; cancelled");
}

#[test]
fn a_lock_is_had_in_order_and_given_back_by_failures_too() {
    let lock = DeferredLock::new();
    let log = Log::default();
    let job = |name: &'static str, end: Deferred<i32>| {
        let log = log.clone();
        lock.run(move || {
            log.borrow_mut().push(name.to_owned());
            end
        })
    };
    let ((a, fire_a), (c, fire_c)) = (pair(), pair());
    let first = job("a", a);
    let second = job("b", Deferred::fail(AnyError::new("b")));
    let third = job("c", c);
    assert_eq!((lock.is_locked(), lock.waiting()), (true, 2));
    fire_a.callback(1);
    assert_eq!(*log.borrow(), ["a", "b", "c"]);
    assert_eq!((first.wait().unwrap(), text(second)), (1, "b".to_owned()));
    fire_c.callback(3);
    assert_eq!(third.wait().unwrap(), 3);
    assert!(!lock.is_locked());
    let panics: Deferred<()> = lock.run(|| -> Result<(), Failure> { panic!("expected by a test") });
    assert_eq!(text(panics), "panicked: expected by a test");
    assert!(!lock.is_locked());
}

#[test]
fn one_that_waits_for_a_permit_can_be_cancelled() {
    let semaphore = DeferredSemaphore::new(1);
    let held = semaphore.acquire().wait().unwrap();
    let (waiting, next) = (semaphore.acquire(), semaphore.acquire());
    waiting.cancel();
    assert_eq!(semaphore.waiting(), 1);
    assert!(waiting.wait().unwrap_err().is_cancelled());
    held.release();
    drop(next.wait().unwrap());
    assert_eq!((semaphore.tokens(), semaphore.limit()), (1, 1));
}

#[test]
fn many_who_wait_for_a_permit_need_no_stack() {
    let semaphore = DeferredSemaphore::new(1);
    let held = semaphore.acquire().wait().unwrap();
    let done = Rc::new(Cell::new(0));
    for _ in 0..100_000 {
        let done = done.clone();
        let run: Deferred<()> = semaphore.run(move || {
            done.set(done.get() + 1);
            Ok(())
        });
        drop(run);
    }
    held.release();
    assert_eq!((done.get(), semaphore.tokens()), (100_000, 1));
}

#[test]
fn a_permit_that_nobody_takes_goes_to_the_next() {
    let semaphore = DeferredSemaphore::new(1);
    let held = semaphore.acquire().wait().unwrap();
    drop(semaphore.acquire());
    let next = semaphore.acquire();
    held.release();
    assert!(next.has_fired());
}

#[test]
fn a_queue_has_limits_both_ways() {
    let queue = DeferredQueue::with_limits(Some(1), Some(1));
    queue.put(1).unwrap();
    assert_eq!(queue.put(2), Err(QueueOverflow(2)));
    assert_eq!(queue.get().unwrap().wait().unwrap(), 1);
    let waiting = queue.get().unwrap();
    assert_eq!(queue.get().unwrap_err(), QueueUnderflow);
    assert_eq!(queue.backlog(), 1);
    waiting.cancel();
    assert!(waiting.wait().unwrap_err().is_cancelled());
    let next = queue.get().unwrap();
    queue.put(3).unwrap();
    assert_eq!((next.wait().unwrap(), queue.len()), (3, 0));
}

#[test]
fn calls_become_deferreds() {
    assert_eq!(maybe_deferred(|| Deferred::<i32>::succeed(1)).wait().unwrap(), 1);
    assert_eq!(text(maybe_deferred(|| Err::<(), _>(no("no")))), "no");
    assert_eq!(
        text(execute::<(), _>(|| panic!("expected by a test"))),
        "panicked: expected by a test"
    );
    let clock = Clock::install();
    let called = defer_later(Duration::from_secs(1), || Ok(1));
    let cancelled =
        defer_later(Duration::from_secs(1), || -> Result<(), Failure> { unreachable!() });
    cancelled.cancel();
    assert!(cancelled.wait().unwrap_err().is_cancelled());
    assert_eq!(clock.delayed_calls(), 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(Deferred::<i32>::wait(called).unwrap(), 1);
}

#[test]
fn a_fibers_result_is_a_deferred() {
    warren_hub::run(|| {
        let value: Deferred<i32> = warren_hub::spawn(|| 5).into();
        assert_eq!(value.wait().unwrap(), 5);
        let panic: Deferred<()> = spawn_deferred(|| panic!("expected by a test"));
        assert_eq!(text(panic), "panicked: expected by a test");
        let failure: Deferred<()> = spawn_deferred(|| Err(no("no")));
        assert_eq!(text(failure), "no");
        let future: Deferred<i32> = ensure_deferred(async { Deferred::<i32>::succeed(1).await });
        assert_eq!(future.wait().unwrap(), 1);
        let (inner, resolver) = pair();
        let waiting: Deferred<i32> = spawn_deferred(move || Ok(inner.wait()? + 1));
        warren_hub::yield_now();
        waiting.cancel();
        assert!(waiting.wait().unwrap_err().is_cancelled());
        // The fiber has been killed, and so has cancelled what it waited for.
        warren_hub::yield_now();
        assert!(!resolver.is_wanted());
        let killed = warren_hub::spawn(|| warren_hub::sleep(Duration::from_secs(60)));
        killed.kill();
        assert!(Deferred::<()>::from(killed).wait().unwrap_err().is_cancelled());
    });
}
