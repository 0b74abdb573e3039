//! Looping calls and cooperating tasks, by a test's clock.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use warren_reactor::testing::Clock;
use warren_reactor::{
    AnyError, Completion, Cooperator, Deferred, Failure, LoopingCall, Resolver, TaskError,
    coiterate, now,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Seconds since the test's start, and counts.
type Log = Rc<RefCell<Vec<(f64, u64)>>>;

/// What a call that notes its times, and its counts if it has any, does; it gives what `give` does.
fn noting<R, G: FnMut() -> R>(log: &Log, mut give: G) -> impl FnMut(u64) -> R + use<R, G> {
    let (log, start) = (log.clone(), now());
    move |count| {
        log.borrow_mut().push(((now() - start).as_secs_f64(), count));
        give()
    }
}

fn state(deferred: &Deferred<()>) -> &'static str {
    if deferred.has_fired() { "stopped" } else { "running" }
}

#[test]
fn calls_come_at_whole_intervals() {
    let clock = Clock::install();
    let log = Log::default();
    let call = LoopingCall::with_count(noting(&log, || ()));
    let stopped = call.start(SECOND, true);
    clock.pump([SECOND / 2; 7]);
    assert_eq!(log.take(), [(0.0, 1), (1.0, 1), (2.0, 1), (3.0, 1)]);
    assert!(call.is_running() && call.stop() && !call.stop() && !call.is_running());
    assert!(stopped.wait().is_ok());
    clock.advance(5 * SECOND);
    assert!(log.borrow().is_empty());
    assert_eq!(clock.delayed_calls(), 0);
}

#[test]
fn the_first_call_can_wait_and_a_stopped_call_starts_again() {
    let clock = Clock::install();
    let log = Log::default();
    let call = LoopingCall::with_count(noting(&log, || ()));
    for start in [0.0, 2.5] {
        let stopped = call.start(SECOND, false);
        assert!(log.borrow().is_empty());
        clock.pump([SECOND, SECOND, SECOND / 2]);
        assert_eq!(log.take(), [(start + 1.0, 1), (start + 2.0, 1)]);
        call.stop();
        assert!(stopped.wait().is_ok());
    }
}

#[test]
fn missed_moments_are_counted_and_the_grid_is_kept() {
    let clock = Clock::install();
    let log = Log::default();
    let call = LoopingCall::with_count(noting(&log, || ()));
    drop(call.start(SECOND / 2, true));
    clock.advance(SECOND / 10);
    // The loop was busy for 2.1 s: its timers fire late.
    clock.jump(2 * SECOND + SECOND / 10);
    clock.advance(SECOND);
    assert_eq!(log.take(), [(0.0, 1), (2.2, 4), (2.5, 1), (3.0, 1)]);
    call.stop();
}

#[test]
fn a_call_waits_for_what_the_function_gives() {
    let clock = Clock::install();
    let (log, given) = (Log::default(), Rc::<RefCell<Vec<Resolver<()>>>>::default());
    let gives = given.clone();
    let call = LoopingCall::with_count(noting(&log, move || {
        let (deferred, resolver) = Deferred::pending();
        gives.borrow_mut().push(resolver);
        deferred
    }));
    let stopped = call.start(SECOND, true);
    clock.advance(3 * SECOND + SECOND / 4);
    assert_eq!(log.take(), [(0.0, 1)]);
    given.take().into_iter().for_each(|resolver| resolver.callback(()));
    clock.advance(SECOND / 2);
    assert!(log.borrow().is_empty(), "not before the next moment");
    clock.advance(SECOND / 4);
    assert_eq!(log.take(), [(4.0, 4)]);
    // Stopped in the middle: that one is waited for.
    assert!(call.stop() && !call.is_running());
    assert_eq!(state(&stopped), "running");
    assert!(call.start(SECOND, true).wait().is_err(), "not before it has stopped");
    given.take().into_iter().for_each(|resolver| resolver.callback(()));
    assert!(stopped.wait().is_ok());
    assert_eq!(clock.delayed_calls(), 0);
}

#[test]
fn a_failure_stops_the_calls() {
    fn check<R: Completion>(fail: impl Fn() -> R + 'static, text: &str) {
        let clock = Clock::install();
        let call = LoopingCall::new(move || fail().completed());
        let stopped = call.start(SECOND, false);
        clock.advance(SECOND);
        assert!(!call.is_running());
        assert_eq!(stopped.wait().unwrap_err().to_string(), text);
        assert_eq!(clock.delayed_calls(), 0);
    }
    check(|| Err::<(), _>(AnyError::new("out of ink")), "out of ink");
    check(|| Err::<(), _>(Failure::<AnyError>::TimedOut(SECOND)), "timed out after 1s");
    check(|| Err::<(), _>(std::io::Error::other("no disk")), "no disk");
    check(|| Deferred::<u32>::fail(AnyError::new("late")), "late");
    let clock = Clock::install();
    let call = LoopingCall::new(|| -> () { panic!("expected by a test") });
    let stopped = call.start(SECOND, true);
    assert_eq!(stopped.wait().unwrap_err().to_string(), "panicked: expected by a test");
    drop(clock);
}

#[test]
fn a_call_may_stop_or_reset_itself() {
    let clock = Clock::install();
    let own = Rc::<RefCell<Option<LoopingCall>>>::default();
    let (inside, count) = (own.clone(), Rc::new(Cell::new(0)));
    let counter = count.clone();
    let call = LoopingCall::new(move || {
        counter.set(counter.get() + 1);
        let inside = inside.borrow();
        let call = inside.as_ref().unwrap();
        assert!(call.reset(), "it runs, and nothing else is changed");
        if counter.get() == 3 {
            assert!(call.stop());
        }
    });
    *own.borrow_mut() = Some(call.clone());
    let stopped = call.start(SECOND, true);
    clock.pump([SECOND; 5]);
    assert_eq!(count.get(), 3);
    assert!(stopped.wait().is_ok());
    own.take();
}

#[test]
fn a_reset_counts_from_anew() {
    let clock = Clock::install();
    let log = Log::default();
    let call = LoopingCall::with_count(noting(&log, || ()));
    assert!(!call.reset());
    drop(call.start(SECOND, true));
    clock.advance(SECOND / 2);
    assert!(call.reset());
    clock.pump([SECOND * 3 / 4; 3]);
    assert_eq!(log.take(), [(0.0, 1), (1.5, 1), (2.5, 1)]);
}

#[test]
fn an_interval_of_zero_means_every_turn() {
    let clock = Clock::install();
    let log = Log::default();
    let (own, seen) = (Rc::<RefCell<Option<LoopingCall>>>::default(), log.clone());
    let inside = own.clone();
    let call = LoopingCall::with_count(noting(&log, move || {
        if seen.borrow().len() == 3 {
            inside.take().map(|call| call.stop());
        }
    }));
    *own.borrow_mut() = Some(call.clone());
    let stopped = call.start(Duration::ZERO, true);
    assert_eq!(log.borrow().len(), 1);
    clock.advance(Duration::ZERO);
    assert_eq!(*log.borrow(), [(0.0, 1); 3]);
    assert!(stopped.wait().is_ok());
}

#[test]
fn cancelling_stops_and_a_dropped_handle_does_not() {
    let clock = Clock::install();
    let log = Log::default();
    let stopped = LoopingCall::with_count(noting(&log, || ())).start(SECOND, false);
    clock.advance(SECOND);
    assert_eq!(log.borrow().len(), 1);
    stopped.cancel();
    clock.advance(SECOND);
    assert_eq!((log.borrow().len(), clock.delayed_calls()), (1, 0));
    assert!(stopped.has_fired());
    drop(stopped);
}

#[test]
fn a_call_on_a_hub_goes_with_it() {
    let held = Rc::new(());
    let inside = held.clone();
    warren_hub::run(move || {
        let done = Rc::new(warren_hub::sync::Event::new());
        let (flag, mut count) = (done.clone(), 0);
        let call = LoopingCall::new(move || {
            let _held = &inside;
            count += 1;
            if count == 3 {
                flag.set();
            }
        });
        drop(call.start(MS, true));
        done.wait();
    });
    assert_eq!(Rc::strong_count(&held), 1);
}

#[test]
fn a_fiber_is_waited_for() {
    let calls = warren_hub::run(|| {
        let (running, most, count) =
            (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (inside, deepest, counter) = (running.clone(), most.clone(), count.clone());
        let done = Rc::new(warren_hub::sync::Event::new());
        let flag = done.clone();
        let call = LoopingCall::new(move || {
            let (inside, deepest, counter) = (inside.clone(), deepest.clone(), counter.clone());
            let flag = flag.clone();
            warren_hub::spawn(move || {
                inside.set(inside.get() + 1);
                deepest.set(deepest.get().max(inside.get()));
                warren_hub::sleep(3 * MS);
                inside.set(inside.get() - 1);
                counter.set(counter.get() + 1);
                if counter.get() == 3 {
                    flag.set();
                }
            })
        });
        let stopped = call.start(MS, true);
        done.wait();
        call.stop();
        stopped.wait().unwrap();
        (most.get(), count.get())
    });
    assert_eq!(calls, (1, 3));
}

fn says(log: &Rc<RefCell<String>>, name: char, steps: usize) -> impl Iterator<Item = ()> + use<> {
    let log = log.clone();
    (0..steps).map(move |_| log.borrow_mut().push(name))
}

#[test]
fn tasks_take_their_steps_in_turn_and_a_turn_has_an_end() {
    let log = warren_hub::run(|| {
        let log = Rc::<RefCell<String>>::default();
        let (cooperator, turns) = (Cooperator::with_steps(4), log.clone());
        let done = cooperator.coiterate(says(&log, 'a', 5));
        drop(cooperator.coiterate(says(&log, 'b', 2)));
        fn turn(log: Rc<RefCell<String>>) {
            log.borrow_mut().push('|');
            if log.borrow().len() < 14 {
                warren_hub::call_soon(move || turn(log));
            }
        }
        turn(turns);
        done.wait().unwrap();
        coiterate(says(&log, 'c', 2)).wait().unwrap();
        log.take()
    });
    assert!(log.starts_with("|abab|aaa|"), "{log}");
    assert!(log.ends_with("cc"), "{log}");
}

#[test]
fn a_task_can_be_paused_resumed_and_stopped() {
    let clock = Clock::install();
    let log = Rc::<RefCell<String>>::default();
    let cooperator = Cooperator::new();
    let task = cooperator.cooperate(says(&log, 'a', 3));
    let other = cooperator.cooperate(says(&log, 'b', usize::MAX).take(2));
    assert!(matches!(task.resume(), Err(TaskError::NotPaused)));
    task.pause().unwrap();
    task.pause().unwrap();
    clock.advance(Duration::ZERO);
    assert_eq!(log.take(), "bb");
    assert!(matches!(other.stop(), Err(TaskError::Done)));
    task.resume().unwrap();
    clock.advance(Duration::ZERO);
    assert_eq!(log.take(), "");
    let (first, second) = (task.when_done(), task.when_done());
    task.stop().unwrap();
    for done in [first, second, task.when_done()] {
        assert!(matches!(done.wait(), Err(Failure::Error(TaskError::Stopped))));
    }
    assert!(matches!(task.pause(), Err(TaskError::Stopped)));
    assert!(matches!(task.resume(), Err(TaskError::Stopped)));
    clock.advance(Duration::ZERO);
    assert_eq!((log.take(), clock.delayed_calls()), (String::new(), 0));
}

#[test]
fn a_task_waits_for_its_step() {
    let clock = Clock::install();
    let given = Rc::<RefCell<Vec<Resolver<()>>>>::default();
    let gives = given.clone();
    let step = move |_| {
        let (deferred, resolver) = Deferred::pending();
        gives.borrow_mut().push(resolver);
        deferred
    };
    let cooperator = Cooperator::new();
    let task = cooperator.cooperate((0..3).map(step));
    clock.advance(Duration::ZERO);
    assert_eq!(given.borrow().len(), 1);
    task.pause().unwrap();
    given.take().into_iter().for_each(|resolver| resolver.callback(()));
    clock.advance(Duration::ZERO);
    assert!(given.borrow().is_empty(), "it is paused as well");
    task.resume().unwrap();
    clock.advance(Duration::ZERO);
    let done = task.when_done();
    given.take().into_iter().for_each(|resolver| resolver.errback(AnyError::new("full")));
    match done.wait() {
        Err(Failure::Error(TaskError::Failed(failure))) => assert_eq!(failure.to_string(), "full"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_step_that_panics_ends_its_task_only() {
    let clock = Clock::install();
    let log = Rc::<RefCell<String>>::default();
    let cooperator = Cooperator::new();
    let bad = cooperator.coiterate((0..3).map(|n| assert_ne!(n, 1, "expected by a test")));
    let good = cooperator.coiterate(says(&log, 'a', 3));
    clock.advance(Duration::ZERO);
    let text = bad.wait().unwrap_err().to_string();
    assert!(text.contains("panicked") && text.contains("expected by a test"), "{text}");
    assert!(good.wait().is_ok());
    assert_eq!(log.take(), "aaa");
}

#[test]
fn a_cooperator_that_is_stopped_ends_its_tasks_and_can_start_again() {
    let clock = Clock::install();
    let (held, cooperator) = (Rc::new(()), Cooperator::new());
    let inside = held.clone();
    let task = cooperator.cooperate((0..3).map(move |_| drop(inside.clone())));
    let ended = |done: Deferred<(), TaskError>| {
        assert!(matches!(done.wait(), Err(Failure::Error(TaskError::CooperatorStopped))));
    };
    cooperator.stop();
    assert!(!cooperator.is_running());
    ended(task.when_done());
    ended(cooperator.coiterate([(), ()]));
    clock.advance(Duration::ZERO);
    assert_eq!(Rc::strong_count(&held), 1, "what a task that has ended works on is dropped");
    cooperator.start();
    let done = cooperator.coiterate([(), ()]);
    clock.advance(Duration::ZERO);
    assert!(done.wait().is_ok());
}

proptest! {
    /// Whatever the loop is busy with: calls keep to the grid, and the counts add up to the moments that have passed.
    #[test]
    fn counts_add_up(
        interval_ms in 1..50_u64,
        run_now: bool,
        steps in proptest::collection::vec(0..200_u64, 1..50),
    ) {
        let clock = Clock::install();
        let interval = Duration::from_millis(interval_ms);
        let (sum, last) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(None)));
        let (total, seen, start) = (sum.clone(), last.clone(), now());
        let call = LoopingCall::with_count(move |count| {
            assert!(count > 0);
            total.set(total.get() + count);
            seen.set(Some((now() - start).as_millis() as u64));
        });
        drop(call.start(interval, run_now));
        let mut passed = 0;
        for (number, step) in steps.into_iter().enumerate() {
            passed += step;
            let step = Duration::from_millis(step);
            if number % 2 == 0 { clock.advance(step) } else { clock.jump(step) }
            let moments = passed / interval_ms + u64::from(run_now);
            prop_assert_eq!(sum.get(), moments);
            if let Some(last) = last.get() {
                prop_assert!(passed - last < interval_ms || number % 2 == 1);
            }
        }
        call.stop();
    }
}
