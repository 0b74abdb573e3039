//! What a handle tells of its fiber, and does to it: gevent's `Greenlet`.

mod support;

use std::cell::{Cell, RefCell};
use std::panic::catch_unwind;
use std::rc::Rc;
use std::time::{Duration, Instant};

use support::run;
use warren_hub::{
    JoinError, Options, TimedOut, Timeout, idle, kill_all, no_wait, shield, sleep, spawn,
    spawn_later, spawn_raw, with_timeout, yield_now,
};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(2);

#[test]
fn a_handle_follows_its_fiber() {
    run(|| {
        let fiber = spawn(|| {
            yield_now();
            5
        });
        assert!(!fiber.started() && !fiber.ready() && !fiber.dead() && !fiber.successful());
        yield_now();
        assert!(fiber.started() && !fiber.ready());
        assert_eq!(fiber.value(), None);
        assert_eq!(fiber.get().unwrap(), 5);
        assert!(fiber.ready() && fiber.dead() && fiber.successful());
        assert_eq!((fiber.value(), fiber.exception()), (Some(5), None));
        assert_eq!(fiber.get_timeout(SHORT).unwrap().unwrap(), 5, "as often as one likes");
        assert_eq!(fiber.join().unwrap(), 5);
    });
}

#[test]
fn a_failure_is_told_as_often_as_asked() {
    run(|| {
        let fiber = spawn(|| -> u32 { std::panic::panic_any(String::from("no")) });
        assert_eq!(fiber.get().unwrap_err().message(), Some("no"));
        assert_eq!(fiber.exception().as_deref(), Some("no"));
        assert!(!fiber.successful() && fiber.ready());
        assert_eq!(fiber.value(), None);
        assert_eq!(fiber.join().unwrap_err().message(), Some("no"));
    });
}

#[test]
fn a_kill_is_no_failure() {
    run(|| {
        let fiber = spawn(|| sleep(LONG));
        assert!(fiber.kill_wait(None));
        assert!(fiber.successful() && fiber.dead());
        assert_eq!(fiber.exception(), None);
        assert!(matches!(fiber.get(), Err(JoinError::Killed)));
    });
}

#[test]
fn waiting_with_a_timeout_takes_nothing() {
    run(|| {
        let fiber = spawn(|| {
            sleep(SHORT * 100);
            1
        });
        assert!(!fiber.wait_timeout(SHORT));
        assert!(matches!(fiber.get_timeout(Duration::ZERO), Err(TimedOut)));
        fiber.wait();
        assert_eq!(fiber.join().unwrap(), 1);
    });
}

#[test]
fn links_are_called_in_order_before_those_who_wait() {
    run(|| {
        let notes = Rc::new(RefCell::new(Vec::new()));
        let note = |text: &'static str| {
            let notes = notes.clone();
            move || notes.borrow_mut().push(text)
        };
        let good = spawn(|| 3);
        let (first, second, value, error) = (note("1"), note("2"), note("value"), note("error"));
        good.link(move |ending| {
            assert_eq!(*ending.as_ref().unwrap(), 3);
            first();
        });
        let unlinked = good.link(move |_| second());
        good.link_value(move |got| {
            assert_eq!(got, Some(&3));
            value();
        });
        good.link_exception(move |_| error());
        assert!(good.unlink(unlinked));
        assert!(!good.unlink(unlinked));
        let waiting = spawn({
            let waited = note("waited");
            move || {
                good.wait();
                waited();
                let late = note_late();
                good.link(late.0);
                sleep(SHORT);
                assert!(
                    late.1.get(),
                    "a link to a fiber that has ended is called in the next turn"
                );
            }
        });
        waiting.join().unwrap();
        assert_eq!(*notes.borrow(), ["1", "value", "waited"]);

        let bad = spawn(|| panic!("on purpose"));
        let (value, error) = (note("value"), note("error"));
        bad.link_value(move |_| value());
        bad.link_exception(move |_| error());
        bad.link(|_| panic!("a link that panics harms nobody"));
        bad.wait();
        assert_eq!(notes.borrow().last(), Some(&"error"));
        assert_eq!(notes.borrow().len(), 4);
    });

    type Late = (Box<dyn FnOnce(&Result<i32, JoinError>)>, Rc<Cell<bool>>);
    fn note_late() -> Late {
        let called = Rc::new(Cell::new(false));
        let link = called.clone();
        (Box::new(move |_| link.set(true)), called)
    }
}

#[test]
fn a_fiber_may_be_spawned_for_later_and_killed_before() {
    run(|| {
        let started = Instant::now();
        let later = spawn_later(SHORT, move || started.elapsed());
        assert!(!later.started());
        assert!(SHORT <= later.join().unwrap());
        let never = spawn_later(LONG, || unreachable!("killed before"));
        assert!(never.kill_wait(Some(LONG)));
    });
}

#[test]
fn something_thrown_arrives_where_the_fiber_waits() {
    run(|| {
        let fiber = spawn(|| {
            let thrown = catch_unwind(|| sleep(LONG)).unwrap_err();
            *thrown.downcast::<u32>().unwrap()
        });
        yield_now();
        fiber.throw(Box::new(9u32));
        assert_eq!(fiber.join().unwrap(), 9);

        let unstarted = spawn(|| unreachable!("it dies at once"));
        unstarted.throw(Box::new("early"));
        assert_eq!(unstarted.join().unwrap_err().message(), Some("early"));
    });
}

#[test]
fn a_kill_that_is_swallowed_does_not_end_the_fiber() {
    run(|| {
        let fiber = spawn(|| {
            let _ = catch_unwind(|| sleep(LONG));
            yield_now();
            "goes on"
        });
        yield_now();
        fiber.kill();
        assert_eq!(fiber.join().unwrap(), "goes on");
    });
}

#[test]
fn all_are_killed_at_once() {
    run(|| {
        let fibers: Vec<_> = (0..10).map(|_| spawn(|| sleep(LONG))).collect();
        yield_now();
        assert!(kill_all(&fibers, Some(LONG)));
        assert!(fibers.iter().all(|fiber| fiber.dead()));
        let stubborn = [spawn(|| {
            shield(|| sleep(SHORT * 4));
        })];
        yield_now();
        assert!(!kill_all(&stubborn, Some(SHORT)));
        assert!(kill_all(&stubborn, None));
    });
}

#[test]
fn raw_fibers_run_like_others() {
    run(|| {
        let ran = Rc::new(Cell::new(false));
        let told = ran.clone();
        spawn_raw(move || told.set(true));
        spawn_raw(|| std::panic::resume_unwind(Box::new("harms nobody")));
        yield_now();
        assert!(ran.get());
    });
}

#[test]
fn idle_waits_for_all_who_are_ready() {
    run(|| {
        let count = Rc::new(Cell::new(0));
        for _ in 0..5 {
            let count = count.clone();
            spawn(move || {
                for _ in 0..10 {
                    yield_now();
                    count.set(count.get() + 1);
                }
            });
        }
        idle();
        assert_eq!(count.get(), 50);
    });
}

#[test]
fn timeouts_are_told_apart() {
    run(|| {
        let outer = Timeout::start(SHORT);
        let ended = outer.catch(|| {
            let inner = Timeout::start(LONG);
            let _ = inner.catch(|| sleep(LONG));
            unreachable!("the outer one passes through the inner");
        });
        assert_eq!(ended, Err(TimedOut));

        let cancelled = Timeout::start(SHORT);
        assert!(cancelled.pending());
        cancelled.cancel();
        assert!(!cancelled.pending());
        assert_eq!(cancelled.catch(|| sleep(SHORT * 2)), Ok(()));

        // One that has run out, but was dropped before the fiber waited, is never raised.
        let dropped = Timeout::start(Duration::ZERO);
        let began = Instant::now();
        while began.elapsed() < SHORT {}
        drop(dropped);
        sleep(SHORT);
    });
}

#[test]
fn a_shield_puts_off_what_comes() {
    run(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let fiber = spawn({
            let order = order.clone();
            move || {
                shield(|| {
                    sleep(SHORT);
                    order.borrow_mut().push("shielded");
                });
                order.borrow_mut().push("still here");
                sleep(LONG);
                order.borrow_mut().push("never");
            }
        });
        yield_now();
        fiber.kill();
        assert!(fiber.kill_wait(None));
        assert_eq!(order.take(), ["shielded", "still here"]);
        assert_eq!(with_timeout(SHORT, || shield(|| sleep(SHORT * 2))), Ok(()));
    });
}

#[test]
fn code_may_forbid_waiting() {
    run(|| {
        let refused = catch_unwind(|| no_wait(|| sleep(SHORT))).unwrap_err();
        assert!(refused.downcast_ref::<&str>().unwrap().contains("must not wait"));
        assert!(warren_hub::can_wait());
        no_wait(|| assert!(!warren_hub::can_wait()));
        sleep(Duration::ZERO);
    });
}

#[test]
fn a_hub_may_be_pinned() {
    std::thread::spawn(|| {
        let core = Options::new().pin_to(0).run(rustix::thread::sched_getcpu).unwrap();
        assert_eq!(core, 0);
        let refused = Options::new().pin_to(1 << 20).run(|| ()).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    })
    .join()
    .unwrap();
}

#[test]
fn each_hub_has_values_of_its_own() {
    let first = run(|| {
        let counter = || warren_hub::hub_local(|| Cell::new(0));
        counter().set(counter().get() + 1);
        counter().get()
    });
    let second = run(|| warren_hub::hub_local(|| Cell::new(0)).get());
    assert_eq!((first, second), (1, 0));
}

#[test]
fn a_hook_hears_of_every_switch() {
    use warren_hub::{FiberId, SwitchHook, on_switch};

    /// A thread-local of another library, saved and restored for each fiber.
    struct Scoped(RefCell<std::collections::BTreeMap<FiberId, u32>>);
    thread_local! {
        static CURRENT: Cell<u32> = const { Cell::new(0) };
    }
    impl SwitchHook for Scoped {
        fn switched_in(&self, fiber: FiberId) {
            CURRENT.set(self.0.borrow().get(&fiber).copied().unwrap_or(0));
        }
        fn switched_out(&self, fiber: FiberId) {
            self.0.borrow_mut().insert(fiber, CURRENT.get());
        }
    }
    run(|| {
        let hook = Rc::new(Scoped(RefCell::default()));
        let guard = on_switch(hook.clone());
        // From the next switch on.
        yield_now();
        let fibers = (1..4).map(|n| {
            spawn(move || {
                CURRENT.set(n);
                for _ in 0..3 {
                    yield_now();
                    assert_eq!(CURRENT.get(), n, "each fiber sees its own");
                }
            })
        });
        for ended in warren_hub::join_all(fibers) {
            ended.unwrap();
        }
        assert!(hook.0.borrow().len() >= 4);
        drop(guard);
        let known = hook.0.borrow().len();
        spawn(|| ()).join().unwrap();
        assert_eq!(hook.0.borrow().len(), known);
    });
}

#[test]
fn a_deep_recursion_grows_its_stack() {
    fn depth(n: u32) -> u32 {
        warren_hub::grow(32 << 10, warren_hub::StackSize::Huge, || {
            let frame = std::hint::black_box([n; 200]);
            if n == 0 {
                // Waiting works on the bigger stack as well.
                sleep(SHORT);
                0
            } else {
                1 + depth(frame[7] - 1)
            }
        })
    }
    run(|| {
        let fiber = spawn(|| depth(2000));
        assert_eq!(fiber.join().unwrap(), 2000);
        // Killed while it waits there, it unwinds through both stacks.
        let killed = spawn(|| depth(2000));
        yield_now();
        assert!(killed.kill_wait(None));
    });
}
