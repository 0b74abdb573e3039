use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use proptest::prelude::*;

use super::*;

/// Writes its name to the log when dropped.
struct Noted(&'static str, Rc<RefCell<Vec<&'static str>>>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.1.borrow_mut().push(self.0);
    }
}

#[test]
fn nothing_runs_before_the_first_next_and_nothing_after_the_end() {
    let log = Rc::new(RefCell::new(Vec::new()));
    let inner = Rc::clone(&log);
    let mut numbers: Generator<u32> = Generator::new(move |g| {
        inner.borrow_mut().push("started");
        g.yield_(1);
        inner.borrow_mut().push("resumed");
    });
    assert!(log.borrow().is_empty());
    assert_eq!(numbers.next(), Some(1));
    assert_eq!(*log.borrow(), ["started"]);
    assert_eq!(numbers.next(), None);
    assert_eq!(*log.borrow(), ["started", "resumed"]);
    assert!(numbers.is_finished());
    assert_eq!(numbers.next(), None);
}

#[test]
fn values_go_in_and_out() {
    let mut average = Generator::new(|g: Yielder<'_, f64, f64>| {
        let (mut sum, mut count, mut mean) = (0.0, 0, 0.0);
        while let Some(value) = g.yield_(mean) {
            sum += value;
            count += 1;
            mean = sum / f64::from(count);
        }
    });
    assert_eq!(average.next(), Some(0.0));
    assert_eq!(average.send(10.0), Some(10.0));
    assert_eq!(average.send(20.0), Some(15.0));
    assert_eq!(average.next(), None, "`next` sends nothing, which ends this one");
}

#[test]
fn yield_works_from_any_depth_and_delegates() {
    fn walk(g: &Yielder<'_, u32>, depth: u32) {
        if 0 < depth {
            walk(g, depth - 1);
            g.yield_(depth);
            walk(g, depth - 1);
        }
    }
    let tree = Generator::new(|g| walk(&g, 3));
    let outer = Generator::new(|g: Yielder<'_, u32>| {
        g.yield_(0);
        g.yield_from(tree);
        g.yield_(9);
    });
    assert_eq!(outer.collect::<Vec<_>>(), [0, 1, 2, 1, 3, 1, 2, 1, 9]);
}

#[test]
fn dropping_or_closing_a_suspended_one_runs_its_destructors() {
    let log = Rc::new(RefCell::new(Vec::new()));
    for close in [false, true] {
        let inner = Rc::clone(&log);
        let mut g: Generator<()> = Generator::new(move |g| {
            let _outer = Noted("outer", Rc::clone(&inner));
            let _inner = Noted("inner", inner);
            g.yield_(());
            unreachable!("never resumed");
        });
        g.next();
        assert!(log.borrow().is_empty());
        if close {
            g.close();
            assert_eq!(g.next(), None);
        }
        drop(g);
        assert_eq!(log.take(), ["inner", "outer"]);
    }
}

#[test]
fn a_panic_reaches_the_caller_and_ends_the_generator() {
    let mut g: Generator<u8> = Generator::new(|g| {
        g.yield_(1);
        resume_unwind(Box::new("broken"));
    });
    assert_eq!(g.next(), Some(1));
    let payload = catch_unwind(AssertUnwindSafe(|| g.next())).unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"broken"));
    assert!(g.is_finished());
    assert_eq!(g.next(), None);
}

#[test]
fn throw_raises_where_the_generator_waits() {
    let mut g: Generator<&str> = Generator::new(|g| {
        let caught = catch_unwind(AssertUnwindSafe(|| g.yield_("waiting")));
        assert_eq!(caught.unwrap_err().downcast_ref::<u8>(), Some(&7));
        g.yield_("recovered");
    });
    assert_eq!(g.next(), Some("waiting"));
    assert_eq!(g.throw(Box::new(7_u8)), Some("recovered"));
    let payload = catch_unwind(AssertUnwindSafe(|| g.throw(Box::new("again")))).unwrap_err();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"again"));
    assert!(g.is_finished());
}

#[test]
fn throw_into_one_that_has_not_started_ends_it() {
    let mut g: Generator<u8> = Generator::new(|_| unreachable!("never started"));
    let payload = catch_unwind(AssertUnwindSafe(|| g.throw(Box::new(1_u8)))).unwrap_err();
    assert_eq!(payload.downcast_ref::<u8>(), Some(&1));
    assert_eq!(g.next(), None);
}

#[test]
fn stacks_come_back_however_a_generator_ends() {
    let live = || StackPool::local().stats().live;
    let before = live();
    for round in 0..1000 {
        let mut g: Generator<u8> = Generator::new(move |g| {
            g.yield_(1);
            assert!(round % 3 != 0, "every third panics");
        });
        assert_eq!(g.next(), Some(1));
        match round % 3 {
            0 => assert!(catch_unwind(AssertUnwindSafe(|| g.next())).is_err()),
            1 => assert_eq!(g.next(), None),
            _ => drop(g),
        }
        assert_eq!(live(), before);
    }
}

#[test]
fn ten_thousand_suspended_generators_interleave() {
    let mut generators: Vec<Generator<usize>> = (0..10_000)
        .map(|start| {
            Generator::with_stack_size(StackSize::Small, move |g| g.yield_from(start..start + 3))
        })
        .collect();
    for step in 0..3 {
        for (start, generator) in generators.iter_mut().enumerate() {
            assert_eq!(generator.next(), Some(start + step));
        }
    }
    assert!(generators.iter_mut().all(|generator| generator.next().is_none()));
}

proptest! {
    #[test]
    fn a_generator_is_the_iterator_it_walks(values: Vec<u16>, taken in 0_usize..64) {
        let copy = values.clone();
        let generated: Vec<u16> = Generator::new(move |g: Yielder<'_, u16>| g.yield_from(copy))
            .take(taken)
            .collect();
        prop_assert_eq!(&generated[..], &values[..taken.min(values.len())]);
    }
}
