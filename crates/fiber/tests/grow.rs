//! More stack in the middle of a call, wherever the call is.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use warren_fiber::{
    Generator, Greenlet, RawFiber, StackPool, StackSize, Yielder, grow, remaining_stack,
};

const RED_ZONE: usize = 24 << 10;

/// Far more than the stack that it starts on holds.
fn deep(levels: u32) -> u64 {
    let frame = std::hint::black_box([u64::from(levels); 100]);
    if levels == 0 {
        return 0;
    }
    grow(RED_ZONE, StackSize::Large, || deep(levels - 1)) + frame[7] / u64::from(levels)
}

fn live() -> usize {
    StackPool::local().stats().live
}

struct Noted(Rc<Cell<u32>>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn nothing_changes_while_there_is_room() {
    let before = live();
    assert_eq!(grow(1024, StackSize::Huge, live), before);
    assert_eq!(grow(usize::MAX, StackSize::Small, live), before + 1);
    assert_eq!(live(), before);
}

#[test]
fn what_is_left_is_known_on_every_kind_of_stack() {
    let own = remaining_stack();
    assert!(0 < own && remaining_stack() < 64 << 20, "{own}");
    let generator = Generator::<usize>::with_stack_size(StackSize::Small, |g| {
        let left = remaining_stack();
        g.yield_(left);
        g.yield_(grow(usize::MAX, StackSize::Large, remaining_stack));
        g.yield_(left - remaining_stack());
    });
    let left: Vec<usize> = generator.collect();
    assert!((40 << 10..64 << 10).contains(&left[0]), "{left:?}");
    assert!((1000 << 10..1024 << 10).contains(&left[1]), "{left:?}");
    assert!(left[2] < 4096, "{left:?}");
    assert!(remaining_stack().abs_diff(own) < 4096);
    // A call deeper there is less.
    #[inline(never)]
    fn deeper(calls: usize) -> usize {
        if calls == 0 { remaining_stack() } else { std::hint::black_box(deeper(calls - 1)) }
    }
    assert!(deeper(1000) + 8000 < own);
}

#[test]
fn recursion_goes_on_and_on() {
    // On the thread's own stack, in a thread with little.
    let small = std::thread::Builder::new().stack_size(64 << 10);
    assert_eq!(small.spawn(|| deep(20_000)).unwrap().join().unwrap(), 20_000);
    // On a generator's, and on a greenlet's.
    let mut generator = Generator::<u64>::with_stack_size(StackSize::Small, |g| {
        g.yield_(deep(20_000));
    });
    assert_eq!(generator.next(), Some(20_000));
    let greenlet = Greenlet::with_stack_size(StackSize::Small, |levels: u64| deep(levels as u32));
    assert_eq!(greenlet.switch(20_000), 20_000);
    drop(generator);
    assert_eq!(live(), 0);
}

#[test]
fn a_panic_passes_through() {
    for on_generator in [false, true] {
        let broken = || {
            grow(usize::MAX, StackSize::Small, || {
                grow(usize::MAX, StackSize::Small, || -> u8 { resume_unwind(Box::new("broken")) })
            })
        };
        let caught = if on_generator {
            let mut generator = Generator::<u8>::new(move |g| {
                g.yield_(broken());
            });
            catch_unwind(AssertUnwindSafe(|| generator.next())).unwrap_err()
        } else {
            catch_unwind(broken).unwrap_err()
        };
        assert_eq!(caught.downcast_ref(), Some(&"broken"));
        assert_eq!(live(), 0);
    }
}

#[test]
fn a_generator_yields_from_a_grown_stack() {
    let mut generator = Generator::new(|g: Yielder<'_, u32, u32>| {
        let mut sum = 0;
        grow(usize::MAX, StackSize::Small, || {
            for n in 0..3 {
                sum += g.yield_(n).unwrap_or(0);
                grow(usize::MAX, StackSize::Large, || sum += g.yield_(10 + n).unwrap_or(0));
            }
        });
        g.yield_(sum);
    });
    assert_eq!(generator.next(), Some(0));
    let seen: Vec<u32> = (1..=6).map(|n| generator.send(n).unwrap()).collect();
    assert_eq!(seen, [10, 1, 11, 2, 12, 21]);
}

#[test]
fn many_suspended_there_do_not_disturb_each_other() {
    let mut generators: Vec<Generator<usize>> = (0..100)
        .map(|index| {
            Generator::with_stack_size(StackSize::Small, move |g| {
                grow(usize::MAX, StackSize::Small, || {
                    let words = std::hint::black_box([index; 500]);
                    for (n, word) in words.iter().enumerate().take(5) {
                        g.yield_(n + word);
                    }
                });
            })
        })
        .collect();
    for n in 0..5 {
        for (index, generator) in generators.iter_mut().enumerate() {
            assert_eq!(generator.next(), Some(index + n));
        }
    }
    // Half of them end by themselves.
    for generator in generators.iter_mut().step_by(2) {
        assert_eq!(generator.next(), None);
    }
    drop(generators);
    assert_eq!(live(), 0);
}

#[test]
fn dropping_one_that_waits_there_unwinds_both_stacks() {
    let dropped = Rc::new(Cell::new(0));
    let (inner, outer) = (Noted(dropped.clone()), Noted(dropped.clone()));
    let mut generator = Generator::<()>::new(move |g| {
        let _outer = outer;
        grow(usize::MAX, StackSize::Small, || {
            let _inner = inner;
            g.yield_(());
        });
    });
    generator.next();
    assert_eq!((live(), dropped.get()), (2, 0));
    drop(generator);
    assert_eq!((live(), dropped.get()), (0, 2));
}

#[test]
fn a_greenlet_switches_from_there_and_is_killed_there() {
    let dropped = Rc::new(Cell::new(0));
    let (of_one, of_other) = (Noted(dropped.clone()), Noted(dropped.clone()));
    let waiting = |noted: Noted| {
        move |first: i32| {
            let mut value = first;
            grow(usize::MAX, StackSize::Large, || {
                let _noted = noted;
                loop {
                    value = Greenlet::parent_switch(value + 1);
                }
            })
        }
    };
    let (one, other) = (Greenlet::new(waiting(of_one)), Greenlet::new(waiting(of_other)));
    assert_eq!(one.switch(1), 2);
    assert_eq!(other.switch(10), 11);
    assert_eq!(one.switch(2), 3);
    assert_eq!(one.kill(-1), -1);
    assert_eq!(dropped.get(), 1);
    drop(other);
    assert_eq!(dropped.get(), 2);
    drop(one);
    assert_eq!(live(), 0);
}

#[test]
fn a_raw_fiber_suspends_from_there_and_is_unwound_there() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let notes = log.clone();
    let dropped = Rc::new(Cell::new(0));
    let noted = Noted(dropped.clone());
    let stack = StackPool::local().take(StackSize::Normal).unwrap();
    let mut fiber = RawFiber::<u8, u8, ()>::with_stack(stack, move |yielder, first| {
        notes.borrow_mut().push(first);
        grow(usize::MAX, StackSize::Small, || {
            let _noted = noted;
            for n in 0.. {
                let value = yielder.suspend(n);
                notes.borrow_mut().push(value);
            }
        });
    });
    for n in 0..3 {
        assert_eq!(fiber.resume(10 + n).as_yield(), Some(n));
    }
    assert_eq!(*log.borrow(), [10, 11, 12]);
    drop(fiber);
    assert_eq!((live(), dropped.get()), (0, 1));
}
