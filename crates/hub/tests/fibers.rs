//! Spawning, joining, killing, timing.

mod support;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use support::run;
use warren_hub::sync::Event;
use warren_hub::{
    Builder, JoinError, StackSize, TimedOut, call_later, call_soon, current, join_all, sleep,
    spawn, with_timeout, yield_now,
};

const LONG: Duration = Duration::from_secs(60);

/// Notes in its list that it was dropped.
struct Noted(Rc<RefCell<Vec<&'static str>>>, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.borrow_mut().push(self.1);
    }
}

#[test]
fn fibers_take_turns_in_the_order_they_were_spawned() {
    let order = run(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let spawned = (0..3).map(|n| {
            let order = order.clone();
            spawn(move || {
                for round in 0..2 {
                    order.borrow_mut().push((round, n));
                    yield_now();
                }
            })
        });
        join_all(spawned);
        order.take()
    });
    assert_eq!(order, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
}

#[test]
fn ten_thousand_sleepers_sleep_at_the_same_time() {
    let started = Instant::now();
    run(|| {
        for result in join_all((0..10_000).map(|_| spawn(|| sleep(Duration::from_secs(1))))) {
            result.unwrap();
        }
    });
    let took = started.elapsed();
    assert!(Duration::from_secs(1) <= took, "{took:?}");
    // One after the other they would take three hours; the bound leaves room for a busy machine.
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines() {
    let order = run(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        join_all([30, 10, 20].map(|delay| {
            let order = order.clone();
            spawn(move || {
                sleep(Duration::from_millis(delay));
                order.borrow_mut().push(delay);
            })
        }));
        order.take()
    });
    assert_eq!(order, [10, 20, 30]);
}

#[test]
fn a_panic_stays_in_its_fiber() {
    run(|| {
        let fiber = spawn(|| -> u32 { panic!("number {}", 7) });
        let error = fiber.join().unwrap_err();
        assert_eq!(error.message(), Some("number 7"));
        assert_eq!(error.to_string(), "the fiber panicked: number 7");
        assert_eq!(spawn(|| 1).join().unwrap(), 1);
    });
}

#[test]
#[should_panic(expected = "from main")]
fn a_panic_in_main_reaches_the_caller_of_run() {
    run(|| panic!("from main"));
}

#[test]
fn killing_unwinds_from_where_the_fiber_waits() {
    run(|| {
        let drops = Rc::new(RefCell::new(Vec::new()));
        let fiber = spawn({
            let drops = drops.clone();
            move || {
                let _outer = Noted(drops.clone(), "outer");
                let _inner = Noted(drops.clone(), "inner");
                sleep(LONG);
                drops.borrow_mut().push("survived");
            }
        });
        yield_now();
        fiber.kill();
        assert!(!fiber.is_finished());
        assert!(matches!(fiber.join(), Err(JoinError::Killed)));
        assert_eq!(drops.take(), ["inner", "outer"]);
    });
}

#[test]
fn a_fiber_killed_before_it_starts_never_does() {
    run(|| {
        let drops = Rc::new(RefCell::new(Vec::new()));
        let owned = Noted(drops.clone(), "dropped");
        let fiber = spawn(move || owned.0.borrow_mut().push("ran"));
        fiber.kill();
        assert!(matches!(fiber.join(), Err(JoinError::Killed)));
        assert_eq!(drops.take(), ["dropped"]);
    });
}

#[test]
fn a_destructor_does_not_wait_while_its_fiber_unwinds() {
    struct Slow(Rc<Cell<bool>>);
    impl Drop for Slow {
        fn drop(&mut self) {
            sleep(LONG);
            Event::new().wait();
            assert!(!warren_hub::can_wait());
            self.0.set(true);
        }
    }
    run(|| {
        let done = Rc::new(Cell::new(false));
        let slow = Slow(done.clone());
        let fiber = spawn(move || {
            let _slow = slow;
            sleep(LONG);
        });
        yield_now();
        fiber.kill();
        let _ = fiber.join();
        assert!(done.get());
    });
}

#[test]
fn nobody_sees_another_fibers_panic() {
    // A fiber that unwinds lets nobody run meanwhile: the standard library would take them for panicking too, and
    // poison their locks.
    struct Waits(Rc<warren_hub::sync::Mutex<()>>);
    impl Drop for Waits {
        fn drop(&mut self) {
            yield_now();
            sleep(Duration::from_millis(1));
            assert!(self.0.try_lock().is_some());
        }
    }
    run(|| {
        let lock = std::sync::Arc::new(std::sync::Mutex::new(()));
        let dying = spawn(|| {
            let _waits = Waits(Rc::new(warren_hub::sync::Mutex::new(())));
            sleep(LONG);
        });
        let other = spawn({
            let lock = lock.clone();
            move || {
                for _ in 0..10 {
                    let guard = lock.lock().unwrap();
                    yield_now();
                    assert!(!std::thread::panicking());
                    drop(guard);
                    yield_now();
                }
            }
        });
        yield_now();
        dying.kill();
        other.join().unwrap();
        assert!(!lock.is_poisoned());
    });
}

#[test]
fn fibers_that_outlive_main_are_killed() {
    let drops = Rc::new(RefCell::new(Vec::new()));
    run({
        let drops = drops.clone();
        move || {
            let noted = Noted(drops, "killed");
            spawn(move || {
                let _noted = noted;
                sleep(LONG);
            });
            yield_now();
        }
    });
    assert_eq!(drops.take(), ["killed"]);
}

#[test]
fn joining_with_a_timeout_gives_the_handle_back() {
    run(|| {
        let event = Rc::new(Event::new());
        let fiber = spawn({
            let event = event.clone();
            move || {
                event.wait();
                5
            }
        });
        let fiber = fiber.join_timeout(Duration::from_millis(2)).unwrap_err();
        event.set();
        assert_eq!(fiber.join_timeout(LONG).unwrap().unwrap(), 5);
    });
}

#[test]
fn the_inner_of_two_timeouts_does_not_end_the_outer() {
    run(|| {
        let outer = with_timeout(LONG, || {
            let inner = with_timeout(Duration::from_millis(2), || sleep(LONG));
            assert_eq!(inner, Err(TimedOut));
            "outer goes on"
        });
        assert_eq!(outer, Ok("outer goes on"));
    });
}

#[test]
fn the_outer_of_two_timeouts_ends_both() {
    run(|| {
        let outer = with_timeout(Duration::from_millis(2), || {
            let _ = with_timeout(LONG, || sleep(LONG));
            unreachable!("the outer timeout passes through the inner one");
        });
        assert_eq!(outer, Err::<(), _>(TimedOut));
    });
}

#[test]
fn a_timeout_that_comes_too_late_is_forgotten() {
    run(|| {
        let result = with_timeout(Duration::from_millis(1), || {
            let busy = Instant::now();
            while busy.elapsed() < Duration::from_millis(5) {}
            "computed"
        });
        assert_eq!(result, Ok("computed"));
        sleep(Duration::from_millis(2));
    });
}

#[test]
fn callbacks_run_in_order_and_timers_can_be_cancelled() {
    run(|| {
        let calls = Rc::new(RefCell::new(Vec::new()));
        let note = |name: &'static str| {
            let calls = calls.clone();
            move || calls.borrow_mut().push(name)
        };
        call_later(Duration::from_millis(4), note("second"));
        call_later(Duration::from_millis(2), note("first"));
        let cancelled = call_later(Duration::from_millis(3), note("never"));
        call_soon(note("soon"));
        assert!(cancelled.cancel());
        assert!(!cancelled.cancel());
        sleep(Duration::from_millis(10));
        assert_eq!(*calls.borrow(), ["soon", "first", "second"]);
    });
}

#[test]
fn a_callback_must_not_wait() {
    let text = run(|| {
        let text = Rc::new(RefCell::new(String::new()));
        call_soon({
            let text = text.clone();
            move || {
                let caught = std::panic::catch_unwind(|| sleep(LONG)).unwrap_err();
                *text.borrow_mut() = caught.downcast_ref::<&str>().unwrap().to_string();
            }
        });
        sleep(Duration::from_millis(1));
        text.take()
    });
    assert!(text.contains("would block the event loop"), "{text}");
}

#[test]
#[should_panic(expected = "waits for ever")]
fn a_wait_that_nothing_can_end_is_reported() {
    run(|| Event::new().wait());
}

#[test]
#[should_panic(expected = "a hub already runs on this thread")]
fn hubs_do_not_nest() {
    run(|| run(|| ()));
}

#[test]
fn current_is_the_fiber_that_runs() {
    assert_eq!(current(), None);
    run(|| {
        let fiber = spawn(current);
        let id = fiber.id();
        assert_eq!(fiber.join().unwrap(), Some(id));
        assert_ne!(current(), Some(id));
    });
}

#[test]
fn a_big_stack_carries_a_deep_recursion() {
    fn depth(n: u32) -> u32 {
        let frame = std::hint::black_box([n; 100]);
        if n == 0 { 0 } else { 1 + depth(frame[7] - 1) }
    }
    run(|| {
        let deep = Builder::new().name("deep").stack_size(StackSize::Huge).spawn(|| depth(5000));
        assert_eq!(deep.unwrap().join().unwrap(), 5000);
    });
}

#[test]
fn a_wait_inside_a_generator_parks_the_whole_fiber() {
    run(|| {
        let mut slow = warren_fiber::Generator::<u32>::new(|g| {
            for n in 0..3 {
                sleep(Duration::from_millis(1));
                g.yield_(n);
            }
        });
        let ticks = Rc::new(Cell::new(0));
        let ticking = spawn({
            let ticks = ticks.clone();
            move || loop {
                ticks.set(ticks.get() + 1);
                yield_now();
            }
        });
        assert_eq!(slow.by_ref().collect::<Vec<_>>(), [0, 1, 2]);
        assert!(ticks.get() > 0);
        ticking.kill();
    });
}

#[test]
fn a_kill_passes_through_a_generator() {
    run(|| {
        let drops = Rc::new(RefCell::new(Vec::new()));
        let fiber = spawn({
            let drops = drops.clone();
            move || {
                let _outside = Noted(drops.clone(), "outside");
                let mut generator = warren_fiber::Generator::<u32>::new(move |_| {
                    let _inside = Noted(drops, "inside");
                    sleep(LONG);
                });
                generator.next();
            }
        });
        yield_now();
        fiber.kill();
        assert!(matches!(fiber.join(), Err(JoinError::Killed)));
        assert_eq!(drops.take(), ["inside", "outside"]);
    });
}

#[test]
fn every_fiber_is_a_root_for_its_greenlets() {
    use warren_fiber::Greenlet;
    run(|| {
        let fibers = (0..3).map(|n| {
            spawn(move || {
                let greenlet = Greenlet::new(|mut n: u32| {
                    for _ in 0..3 {
                        // Parks the fiber while a greenlet of it runs; others switch theirs meanwhile.
                        sleep(Duration::from_millis(1));
                        n = Greenlet::parent_switch(n + 1);
                    }
                    n
                });
                let mut value = 10 * n;
                for _ in 0..3 {
                    value = greenlet.switch(value);
                    assert!(Greenlet::<u32>::current().is_none());
                }
                greenlet.switch(value)
            })
        });
        let values: Vec<u32> = join_all(fibers).into_iter().map(Result::unwrap).collect();
        assert_eq!(values, [3, 13, 23]);
    });
}

#[test]
fn a_body_may_own_much() {
    run(|| {
        let much = [7u8; 3_000];
        let sum = spawn(move || much.iter().map(|n| u64::from(*n)).sum::<u64>());
        assert_eq!(sum.join().unwrap(), 21_000);
    });
}
