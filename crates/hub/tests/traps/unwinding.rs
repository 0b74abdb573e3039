//! Panics and kills where they are least wanted.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Wake};
use std::time::{Duration, Instant};

use warren_hub::{
    JoinError, call_soon, fiber_local, handle, run, scope, shield, sleep, spawn, spawn_raw,
    yield_now,
};

use crate::{LONG, OnDrop, SHORT, on_the_loop, text};

fiber_local! {
    static MINE: u32 = 0;
}

#[test]
fn a_scope_in_a_destructor_that_unwinds_waits_and_disturbs_nobody() {
    run(|| {
        let done = Rc::new(Cell::new(false));
        let seen = done.clone();
        let broken = spawn(move || {
            let _at_end = OnDrop(|| {
                scope(|s| {
                    s.spawn(|| {
                        sleep(Duration::from_millis(10));
                        seen.set(true);
                    });
                });
            });
            resume_unwind(Box::new("on purpose"))
        });
        yield_now();
        // While it waits there, others wait as ever, and what is thrown into it comes too late to do harm.
        let (before, pause) = (Instant::now(), Duration::from_millis(4));
        sleep(pause);
        assert!(pause <= before.elapsed() && !done.get());
        broken.kill();
        assert!(matches!(broken.join(), Err(JoinError::Panicked(_) | JoinError::Killed)));
        assert!(done.get());
        assert!(!std::thread::panicking());
    });
}

#[test]
fn a_kill_waits_for_the_end_of_every_shield() {
    run(|| {
        let steps = Rc::new(Cell::new(0));
        let seen = steps.clone();
        let fiber = spawn(move || {
            shield(|| {
                shield(|| sleep(SHORT));
                seen.set(1);
                // Still within the outer one, also after a panic within an inner one.
                let _ = catch_unwind(|| shield(|| resume_unwind(Box::new("inside"))));
                sleep(SHORT);
                seen.set(2);
            });
            sleep(LONG);
            seen.set(3);
        });
        yield_now();
        fiber.kill();
        assert!(fiber.kill_wait(None));
        assert_eq!(steps.get(), 2);
    });
}

#[test]
fn a_kill_that_is_swallowed_leaves_a_fiber_that_can_be_killed_again() {
    run(|| {
        let fiber = spawn(|| {
            for _ in 0..3 {
                let swallowed = catch_unwind(|| sleep(LONG));
                assert!(swallowed.is_err());
                assert!(!std::thread::panicking());
            }
            7
        });
        for _ in 0..3 {
            yield_now();
            fiber.kill();
            yield_now();
        }
        assert_eq!(fiber.join().unwrap(), 7);
    });
}

/// A panic in what is called at a fiber's end is not the loop's, which would go on with the fiber's locals.
#[test]
fn a_panic_at_the_very_end_of_a_fiber_stays_there() {
    struct Broken;
    impl Wake for Broken {
        fn wake(self: Arc<Self>) {
            panic!("a waker");
        }
    }
    struct BreaksLater;
    impl Drop for BreaksLater {
        fn drop(&mut self) {
            panic!("when it is dropped");
        }
    }
    run(|| {
        MINE.set(1);
        let fiber = spawn(|| {
            MINE.set(2);
            yield_now();
        });
        {
            let waker = Arc::new(Broken).into();
            let mut fiber = pin!(fiber);
            assert!(fiber.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            sleep(SHORT);
            assert!(fiber.is_finished());
        }
        spawn_raw(|| {
            MINE.set(3);
            resume_unwind(Box::new(BreaksLater))
        });
        yield_now();
        // What a killed one that never began would have run is dropped by the loop.
        let never = spawn(|| ());
        never.link(|_| panic!("a link"));
        never.kill();
        never.wait();
        assert_eq!(MINE.get(), 1);
        on_the_loop(|| assert_eq!(MINE.get(), 0));
    });
    assert_eq!(MINE.get(), 0);
}

#[test]
fn a_panic_on_the_loop_ends_the_hub_and_those_who_wait_for_it_elsewhere() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let broken = std::thread::spawn(move || {
        let ended = catch_unwind(AssertUnwindSafe(|| {
            run(move || {
                MINE.set(1);
                spawn(|| sleep(LONG));
                sender.send(handle()).unwrap();
                // When the other thread has asked for something.
                let asked = warren_hub::handle();
                spawn(move || drop(asked));
                sleep(Duration::from_millis(20));
                call_soon(|| panic!("on the loop"));
                sleep(LONG);
            })
        }));
        assert_eq!(text(ended.unwrap_err()), "on the loop");
        // Nothing of it is left on the thread.
        assert!(!warren_hub::is_running() && MINE.get() == 0);
        run(|| spawn(|| 7).join().unwrap())
    });
    let hub = receiver.recv().unwrap();
    let waits = hub.spawn(|| sleep(LONG)).unwrap();
    assert_eq!(broken.join().unwrap(), 7);
    assert!(hub.spawn(|| ()).is_err(), "it takes nothing more");
    // Its fiber was given up with its stack, and so never says anything; asking does no harm.
    assert!(!waits.is_finished());
}
