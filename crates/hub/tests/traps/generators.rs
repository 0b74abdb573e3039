//! Generators and greenlets, which are no fiber's and no hub's.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::task::Poll;

use warren_fiber::{Generator, Greenlet, Yielder};
use warren_hub::{future, hub_local, no_wait, run, scope, shield, sleep, spawn, yield_now};

use crate::{Count, LONG, SHORT, numbers, on_the_loop, text};

#[test]
fn a_generator_goes_from_fiber_to_fiber_and_survives_its_hub() {
    let count = Count::default();
    let (here, there, late) = (count.alive(), count.alive(), count.alive());
    let mut survivor = run(move || {
        let mut generator = spawn(move || numbers(here)).join().unwrap();
        assert_eq!(generator.next(), Some(1));
        let (next, mut generator) = spawn(move || (generator.next(), generator)).join().unwrap();
        assert_eq!((next, generator.next()), (Some(2), Some(3)));
        // Dropped by another fiber, and on the loop.
        spawn(move || drop(generator)).join().unwrap();
        let other = numbers(there);
        on_the_loop(move || drop(other));
        numbers(late)
    });
    assert_eq!(count.get(), 1);
    assert_eq!(survivor.next(), Some(1));
    let next = run(move || survivor.next());
    assert_eq!((next, count.get()), (Some(2), 0));
}

#[test]
fn a_generator_that_waits_parks_whichever_fiber_has_resumed_it() {
    run(|| {
        let sleeper = || {
            let mut generator = Generator::new(|g: Yielder<'_, u32>| {
                for n in 0.. {
                    sleep(SHORT);
                    g.yield_(n);
                }
            });
            assert_eq!(generator.next(), Some(0));
            generator
        };
        let mut one = spawn(sleeper).join().unwrap();
        let other = spawn(move || (one.next(), one)).join().unwrap();
        assert_eq!(other.0, Some(1));
        // On the loop it may not, and ends by that.
        let mut one = other.1;
        on_the_loop(move || {
            let refused = catch_unwind(AssertUnwindSafe(|| one.next())).unwrap_err();
            assert!(text(refused).contains("block the event loop"));
            assert!(one.is_finished());
        });
        // A fiber that is killed meanwhile takes it along.
        let mut one = sleeper();
        let killed = spawn(move || {
            sleep(SHORT);
            one.next();
            one.next();
        });
        yield_now();
        assert!(killed.kill_wait(None));
    });
}

#[test]
fn a_greenlet_goes_from_fiber_to_fiber_and_survives_its_hub() {
    let count = Count::default();
    let (here, there, late) = (count.alive(), count.alive(), count.alive());
    let counter = |alive| {
        let counter = Greenlet::new(move |mut n: u32| {
            let _alive = alive;
            loop {
                n = Greenlet::parent_switch(n + 1);
            }
        });
        assert_eq!(counter.switch(1), 2);
        counter
    };
    let survivor = run(move || {
        let greenlet = spawn(move || counter(here)).join().unwrap();
        assert_eq!(greenlet.switch(2), 3);
        let greenlet = spawn(move || {
            assert_eq!(greenlet.switch(3), 4);
            greenlet
        });
        let greenlet = greenlet.join().unwrap();
        spawn(move || drop(greenlet)).join().unwrap();
        let other = counter(there);
        on_the_loop(move || drop(other));
        counter(late)
    });
    assert_eq!((count.get(), survivor.switch(7)), (1, 8));
    drop(survivor);
    assert_eq!(count.get(), 0);
}

#[test]
fn a_greenlet_that_waits_in_one_fiber_is_refused_to_another() {
    run(|| {
        let greenlet = Greenlet::new(|n: u32| {
            sleep(SHORT);
            n + 1
        });
        let waiting = greenlet.clone();
        let fiber = spawn(move || waiting.switch(1));
        yield_now();
        let refused = catch_unwind(AssertUnwindSafe(|| greenlet.switch(2))).unwrap_err();
        assert!(text(refused).contains("running"));
        assert_eq!(fiber.join().unwrap(), 2);
        assert!(greenlet.is_dead());
    });
}

/// A generator that is suspended within `shield`, and so on, and what those keep must not be used when it goes on.
#[test]
fn a_generator_suspended_within_a_call_of_a_hub_outlives_fiber_and_hub() {
    fn shielded() -> Generator<u32> {
        let mut generator = Generator::new(|g: Yielder<'_, u32>| {
            shield(|| g.yield_(1));
            g.yield_(2);
        });
        assert_eq!(generator.next(), Some(1));
        generator
    }
    let survivor = run(|| {
        // The fiber's place is taken by another one, whose shields are its own.
        let mut generator = spawn(shielded).join().unwrap();
        let other = spawn(move || {
            assert_eq!(generator.next(), Some(2));
            sleep(LONG);
        });
        yield_now();
        yield_now();
        assert!(other.kill_wait(None), "it is not shielded");
        shielded()
    });
    drop(survivor);
    let mut survivor = run(shielded);
    assert_eq!(run(move || survivor.next()), Some(2));

    let forbidding = || {
        let mut generator = Generator::new(|g: Yielder<'_, u32>| {
            no_wait(|| g.yield_(1));
        });
        assert_eq!(generator.next(), Some(1));
        generator
    };
    drop(run(forbidding));
    let mut survivor = run(forbidding);
    run(move || {
        assert_eq!(survivor.next(), None);
        yield_now();
    });

    let making = || {
        let mut generator = Generator::new(|g: Yielder<'_, u32>| {
            let made = hub_local(|| {
                g.yield_(1);
                7_u32
            });
            g.yield_(*made);
        });
        assert_eq!(generator.next(), Some(1));
        generator
    };
    drop(run(making));
    let mut survivor = run(making);
    let late = catch_unwind(AssertUnwindSafe(|| survivor.next())).unwrap_err();
    assert!(text(late).contains("no hub runs"));
    let mut survivor = run(making);
    assert_eq!(run(move || survivor.next()), Some(7));
}

#[test]
fn a_future_that_yields_from_a_generator_while_it_is_polled_does_not_go_on_elsewhere() {
    let polled = || {
        let mut generator = Generator::new(|g: Yielder<'_, u32>| {
            let mut polls = 0;
            future::wait(poll_fn(|cx| {
                polls += 1;
                g.yield_(polls);
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            }));
        });
        assert_eq!(generator.next(), Some(1));
        generator
    };
    drop(run(polled));
    let mut survivor = run(polled);
    run(move || {
        let refused = catch_unwind(AssertUnwindSafe(|| survivor.next())).unwrap_err();
        assert!(text(refused).contains("goes on elsewhere"));
        assert!(survivor.is_finished());
    });
}

#[test]
fn a_scoped_fiber_may_not_yield_for_the_generator_it_borrows_from() {
    run(|| {
        let refused = Rc::new(Cell::new(0));
        let seen = refused.clone();
        let mut generator = Generator::new(move |g: Yielder<'_, u32>| {
            let refusal = |text: String| {
                assert!(text.contains("from its own code only"), "{text}");
                seen.set(seen.get() + 1);
            };
            scope(|s| {
                // While the generator waits in its fiber, and while it is suspended.
                s.spawn(|| {
                    refusal(text(catch_unwind(AssertUnwindSafe(|| g.yield_(7))).unwrap_err()))
                });
                yield_now();
                s.spawn(|| {
                    refusal(text(catch_unwind(AssertUnwindSafe(|| g.yield_(8))).unwrap_err()))
                });
                g.yield_(1);
            });
            g.yield_(2);
        });
        assert_eq!(generator.next(), Some(1));
        yield_now();
        assert_eq!(refused.get(), 2);
        assert_eq!((generator.next(), generator.next()), (Some(2), None));
    });
}

#[test]
fn a_scope_in_a_generator_that_is_dropped_half_way_ends_its_fibers_first() {
    let order = run(|| {
        let order = Rc::new(RefCell::new(Vec::new()));
        let seen = order.clone();
        let mut generator = Generator::new(move |g: Yielder<'_, u32>| {
            let borrowed = crate::OnDrop(|| seen.borrow_mut().push("borrowed"));
            scope(|s| {
                s.spawn(|| {
                    let _borrowed = &borrowed;
                    sleep(SHORT);
                    seen.borrow_mut().push("fiber");
                });
                g.yield_(1);
            });
        });
        assert_eq!(generator.next(), Some(1));
        yield_now();
        // By another fiber than the one it began on.
        spawn(move || drop(generator)).join().unwrap();
        order.take()
    });
    assert_eq!(order, ["fiber", "borrowed"]);
    // When the hub has ended, its fibers have.
    let count = Count::default();
    let alive = count.alive();
    let survivor = run(move || {
        let mut generator = Generator::new(move |g: Yielder<'_, u32>| {
            let alive = alive;
            scope(|s| {
                s.spawn(|| {
                    let _borrowed = &alive;
                    sleep(LONG);
                });
                g.yield_(1);
            });
        });
        generator.next();
        yield_now();
        generator
    });
    drop(survivor);
    assert_eq!(count.get(), 0);
}

#[test]
fn fibers_that_never_end_are_given_up_with_all_that_runs_on_them() {
    thread_local! {
        static GENERATOR: RefCell<Option<Generator<u32>>> = const { RefCell::new(None) };
        static GREENLET: RefCell<Option<Greenlet<u32>>> = const { RefCell::new(None) };
    }
    fn stubborn() -> ! {
        loop {
            let _ = catch_unwind(|| sleep(LONG));
        }
    }
    std::thread::spawn(|| {
        let count = Count::default();
        let (child, generated, switched) = (count.alive(), count.alive(), count.alive());
        run(move || {
            GENERATOR.set(Some(Generator::new(move |_: Yielder<'_, u32>| {
                let _alive = generated;
                stubborn()
            })));
            GREENLET.set(Some(Greenlet::new(move |_| {
                let _alive = switched;
                stubborn()
            })));
            // Both run when their fibers are given up, and their owners outlive those.
            spawn(|| GENERATOR.with_borrow_mut(|generator| generator.as_mut().map(Iterator::next)));
            spawn(|| GREENLET.with_borrow(|greenlet| greenlet.as_ref().map(|one| one.switch(1))));
            spawn(move || {
                scope(|s| {
                    s.spawn(|| {
                        let _borrowed = &child;
                        stubborn()
                    });
                });
            });
            sleep(SHORT);
        });
        assert_eq!(count.get(), 3, "no stack was unwound");
        // Another hub has places and stacks of its own.
        run(|| {
            let fibers: Vec<_> = (0..100).map(|n| spawn(move || n)).collect();
            assert!((0..100).eq(fibers.into_iter().map(|fiber| fiber.join().unwrap())));
        });
    })
    .join()
    .unwrap();
}
