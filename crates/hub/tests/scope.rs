//! Scoped fibers: sound on return, panic, kill and timeout.

mod support;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use support::run;
use warren_hub::sync::Event;
use warren_hub::{
    JoinError, TimedOut, call_soon, no_wait, scope, shield, sleep, spawn, with_timeout, yield_now,
};

const LONG: Duration = Duration::from_secs(60);

/// Counts itself out when dropped.
struct Alive<'a>(&'a Cell<usize>);

impl<'a> Alive<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[test]
fn the_scope_ends_after_its_last_fiber() {
    run(|| {
        let count = Cell::new(0);
        let order = RefCell::new(Vec::new());
        scope(|s| {
            for n in [3, 1, 2] {
                let (count, order) = (&count, &order);
                s.spawn(move || {
                    let _alive = Alive::new(count);
                    sleep(Duration::from_millis(n));
                    order.borrow_mut().push(n);
                });
            }
        });
        assert_eq!(count.get(), 0);
        // Who wakes first is the clock's affair, and that of a loaded machine.
        let mut ended = order.into_inner();
        ended.sort_unstable();
        assert_eq!(ended, [1, 2, 3]);
    });
}

#[test]
fn results_may_borrow_too() {
    run(|| {
        let text = String::from("a b c");
        let words = scope(|s| {
            let words = s.spawn(|| text.split(' ').collect::<Vec<&str>>());
            words.join().unwrap().len()
        });
        assert_eq!(words, 3);
    });
}

#[test]
fn scopes_nest_and_children_spawn_siblings() {
    run(|| {
        let sum = Cell::new(0);
        scope(|s| {
            let sum = &sum;
            s.spawn(move || {
                s.spawn(move || sum.set(sum.get() + 1));
                scope(|inner| {
                    inner.spawn(|| sum.set(sum.get() + 10));
                });
                assert!(sum.get() >= 10);
            });
        });
        assert_eq!(sum.get(), 11);
    });
}

#[test]
fn a_panic_in_the_scope_waits_for_the_fibers() {
    run(|| {
        let count = Cell::new(0);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.spawn(|| {
                    let _alive = Alive::new(&count);
                    sleep(Duration::from_millis(3));
                    // The panic of the parent has been caught for as long as it waits.
                    assert!(!std::thread::panicking());
                });
                yield_now();
                assert_eq!(count.get(), 1);
                panic!("in the scope");
            })
        }));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"in the scope"));
        assert_eq!(count.get(), 0);
    });
}

#[test]
fn a_fibers_panic_reaches_who_joins_it_or_else_the_scope() {
    run(|| {
        scope(|s| {
            let error = s.spawn(|| -> u32 { panic!("joined") }).join().unwrap_err();
            assert_eq!(error.message(), Some("joined"));
        });
        let caught = catch_unwind(|| {
            scope(|s| {
                s.spawn(|| panic!("nobody joins"));
            })
        });
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"a scoped fiber has panicked"));
    });
}

#[test]
fn a_kill_of_the_parent_kills_the_fibers_first() {
    run(|| {
        for in_the_scope in [true, false] {
            let order = Rc::new(RefCell::new(Vec::new()));
            let parent = spawn({
                let order = order.clone();
                move || {
                    struct Last<'a>(&'a RefCell<Vec<&'static str>>, &'static str);
                    impl Drop for Last<'_> {
                        fn drop(&mut self) {
                            self.0.borrow_mut().push(self.1);
                        }
                    }
                    let borrowed = Last(&order, "parent");
                    scope(|s| {
                        s.spawn(|| {
                            let _last = Last(borrowed.0, "child");
                            sleep(LONG);
                        });
                        if in_the_scope {
                            sleep(LONG);
                        }
                    });
                }
            });
            sleep(Duration::from_millis(1));
            parent.kill();
            assert!(matches!(parent.join(), Err(JoinError::Killed)));
            assert_eq!(order.take(), ["child", "parent"]);
        }
    });
}

#[test]
fn a_timeout_ends_the_scope_with_its_fibers() {
    run(|| {
        let count = Cell::new(0);
        let ended = with_timeout(Duration::from_millis(2), || {
            scope(|s| {
                s.spawn(|| {
                    let _alive = Alive::new(&count);
                    sleep(LONG);
                });
            })
        });
        assert_eq!(ended, Err(TimedOut));
        assert_eq!(count.get(), 0);
    });
}

#[test]
fn a_fiber_that_catches_its_kill_is_waited_for() {
    run(|| {
        let done = Cell::new(false);
        let ended = with_timeout(Duration::from_millis(1), || {
            scope(|s| {
                s.spawn(|| {
                    let _ = catch_unwind(|| sleep(LONG));
                    sleep(Duration::from_millis(3));
                    done.set(true);
                });
            })
        });
        assert_eq!(ended, Err(TimedOut));
        assert!(done.get());
    });
}

#[test]
fn a_shielded_scope_is_left_alone() {
    run(|| {
        let done = Rc::new(Cell::new(false));
        let parent = spawn({
            let done = done.clone();
            move || {
                shield(|| {
                    scope(|s| {
                        s.spawn(|| {
                            sleep(Duration::from_millis(2));
                            done.set(true);
                        });
                    })
                });
                sleep(LONG);
            }
        });
        yield_now();
        parent.kill();
        assert!(matches!(parent.join(), Err(JoinError::Killed)));
        assert!(done.get());
    });
}

#[test]
fn a_fiber_killed_before_it_began_ends_the_scope_too() {
    run(|| {
        let count = Cell::new(0);
        scope(|s| {
            let alive = Alive::new(&count);
            let child = s.spawn(move || {
                let _alive = alive;
                unreachable!("it was killed");
            });
            child.kill();
            assert!(matches!(child.join(), Err(JoinError::Killed)));
        });
        assert_eq!(count.get(), 0);
    });
}

#[test]
fn a_scope_needs_a_fiber_that_may_wait() {
    run(|| {
        let refused = catch_unwind(|| no_wait(|| scope(|_| ()))).unwrap_err();
        assert!(refused.downcast_ref::<&str>().unwrap().contains("must not wait"));
        let event = Rc::new(Event::new());
        let told = event.clone();
        call_soon(move || {
            assert!(catch_unwind(|| scope(|_| ())).is_err());
            told.set();
        });
        event.wait();
    });
}

#[test]
fn fibers_of_a_scope_in_a_killed_main_end_with_the_hub() {
    let count = Rc::new(Cell::new(0));
    run({
        let count = count.clone();
        move || {
            spawn(move || {
                scope(|s| {
                    s.spawn(|| {
                        let _alive = Alive::new(&count);
                        sleep(LONG);
                    });
                })
            });
            sleep(Duration::from_millis(1));
        }
    });
    assert_eq!(count.get(), 0);
}

#[test]
fn thousands_of_random_ends_leave_nobody_behind() {
    // A small generator of chance, so that a failure comes again.
    let mut seed = 7u64;
    let mut next = move || {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        seed >> 33
    };
    run(move || {
        for _ in 0..2000 {
            let count = Rc::new(Cell::new(0));
            let (children, pause, end) = (next() % 4, next() % 3, next() % 4);
            let parent = spawn({
                let count = count.clone();
                move || {
                    let here = Cell::new(0);
                    let _whole = Alive::new(&count);
                    scope(|s| {
                        for n in 0..children {
                            let here = &here;
                            s.spawn(move || {
                                let _alive = Alive::new(here);
                                for _ in 0..n {
                                    yield_now();
                                }
                                if n == 3 && end == 3 {
                                    std::panic::resume_unwind(Box::new("on purpose"));
                                }
                            });
                        }
                        if end == 1 {
                            std::panic::resume_unwind(Box::new("on purpose"));
                        }
                    });
                    assert_eq!(here.get(), 0);
                }
            });
            for _ in 0..pause {
                yield_now();
            }
            if end == 2 {
                parent.kill();
            }
            parent.wait();
            assert_eq!(count.get(), 0);
        }
    });
}
