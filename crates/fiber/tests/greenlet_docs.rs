//! What greenlet's documentation says, case by case. The headings are those of its pages.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use warren_fiber::greenlet::{TraceEvent, Transfer, gettrace, settrace};
use warren_fiber::{Greenlet, GreenletExit, Locals, StackPool, fiber_local};

/// What the examples print.
#[derive(Clone, Default)]
struct Printed(Rc<RefCell<Vec<String>>>);

impl Printed {
    fn print(&self, text: impl Into<String>) {
        self.0.borrow_mut().push(text.into());
    }

    #[track_caller]
    fn check(&self, lines: &[&str]) {
        assert_eq!(self.0.take(), lines);
    }
}

/// A place for a greenlet that others have to know before it is made.
type Slot<T> = Rc<RefCell<Option<Greenlet<T>>>>;

fn in_slot<T>(slot: &Slot<T>) -> Greenlet<T> {
    slot.borrow().clone().unwrap()
}

fn caught<T>(f: impl FnOnce() -> T) -> Box<dyn std::any::Any + Send> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(_) => panic!("nothing was raised"),
        Err(payload) => payload,
    }
}

// greenlet Concepts

#[test]
fn the_greenlet_lifecycle() {
    let printed = Printed::default();
    let gr2: Slot<&str> = Slot::default();
    let (out, other) = (printed.clone(), gr2.clone());
    let gr1 = Greenlet::new(move |_| {
        out.print("[gr1] main  -> test1");
        in_slot(&other).switch("");
        out.print("[gr1] test1 <- test2");
        "test1 done"
    });
    let (out, other) = (printed.clone(), gr1.clone());
    *gr2.borrow_mut() = Some(Greenlet::new(move |_| {
        out.print("[gr2] test1 -> test2");
        other.switch("");
        out.print("This is never printed.");
        ""
    }));
    assert_eq!(gr1.switch(""), "test1 done");
    printed.check(&["[gr1] main  -> test1", "[gr2] test1 -> test2", "[gr1] test1 <- test2"]);
    assert!(gr1.is_dead());
    assert!(!in_slot(&gr2).is_dead());
}

#[test]
fn the_main_greenlet_is_the_only_one_without_a_parent() {
    assert!(Greenlet::<bool>::current().is_none(), "the root is `None` here");
    let glet = Greenlet::new(|_| Greenlet::<bool>::current().is_none());
    assert!(!glet.switch(true));
    assert!(glet.parent().is_none(), "its parent is the root");
}

#[test]
fn uncaught_exceptions_are_raised_in_the_parent() {
    let gr2: Slot<()> = Slot::default();
    let other = gr2.clone();
    let gr1 = Greenlet::new(move |()| in_slot(&other).switch(()));
    *gr2.borrow_mut() = Some(Greenlet::new(|()| resume_unwind(Box::new("NameError"))));
    // It goes directly into "main", not to the one that switched there.
    assert_eq!(caught(|| gr1.switch(())).downcast_ref(), Some(&"NameError"));
    assert!(in_slot(&gr2).is_dead() && gr1.is_alive());
}

// Creating And Executing Greenlets

#[test]
fn the_parent_is_the_one_that_makes_it() {
    let outer = Greenlet::new(|_| {
        let inner = Greenlet::new(|same: bool| same);
        inner.parent() == Greenlet::current()
    });
    assert!(outer.switch(false));
}

#[test]
fn changing_the_parent() {
    let printed = Printed::default();
    let (out, again) = (printed.clone(), printed.clone());
    let parent = Greenlet::new(move |_: i32| {
        out.print("In the parent.");
        0
    });
    let child = Greenlet::new(move |n: i32| {
        again.print("In the child.");
        n
    });
    child.set_parent(Some(&parent));
    child.switch(1);
    printed.check(&["In the child.", "In the parent."]);
    assert!(parent.is_dead() && child.is_dead());
}

#[test]
fn cycles_are_not_permitted() {
    let (parent, child) = (Greenlet::new(|n: i32| n), Greenlet::new(|n: i32| n));
    let grandchild = Greenlet::new(|n: i32| n);
    child.set_parent(Some(&parent));
    grandchild.set_parent(Some(&child));
    for descendant in [&child, &grandchild, &parent] {
        let payload = caught(|| parent.set_parent(Some(descendant)));
        assert!(payload.downcast_ref::<&str>().unwrap().contains("its own ancestor"));
    }
    assert!(parent.parent().is_none(), "refused, so nothing has changed");
    grandchild.set_parent(None);
    parent.set_parent(Some(&grandchild));
}

#[test]
fn interrupting_by_throwing() {
    #[derive(Debug, PartialEq)]
    struct MyException;
    let printed = Printed::default();
    let run = |out: Printed| {
        move |_: u8| match catch_unwind(|| Greenlet::<u8>::parent_switch(0)) {
            Ok(value) => value,
            Err(payload) if payload.is::<MyException>() => {
                out.print("Caught exception in greenlet.");
                1
            }
            Err(payload) => resume_unwind(payload),
        }
    };
    let glet = Greenlet::new(run(printed.clone()));
    glet.switch(0);
    assert_eq!(glet.throw(Box::new(MyException)), 1);
    printed.check(&["Caught exception in greenlet."]);

    // One that is not caught propagates into the parent.
    let glet = Greenlet::new(run(printed.clone()));
    glet.switch(0);
    assert_eq!(caught(|| glet.throw(Box::new("ValueError"))).downcast_ref(), Some(&"ValueError"));
    assert!(glet.is_dead());

    // As a special case, `GreenletExit` does not propagate but a value is returned.
    let glet = Greenlet::new(run(printed.clone()));
    glet.switch(0);
    assert_eq!(glet.kill(7), 7);
    assert!(glet.is_dead());
    printed.check(&[]);
}

// Switching Between Greenlets: Passing Objects and Control

#[test]
fn passing_objects_and_control() {
    let printed = Printed::default();
    let gr2: Slot<String> = Slot::default();
    let (out, other) = (printed.clone(), gr2.clone());
    let gr1 = Greenlet::new(move |x: String| {
        let z = in_slot(&other).switch(x + " world");
        out.print(z);
        String::new()
    });
    let (out, other) = (printed.clone(), gr1.clone());
    *gr2.borrow_mut() = Some(Greenlet::new(move |u: String| {
        out.print(u);
        other.switch("42".into())
    }));
    gr1.switch("hello".into());
    printed.check(&["hello world", "42"]);
}

#[test]
fn a_switch_returns_what_an_unrelated_greenlet_sends() {
    // `x = g.switch(y)` sends `y` to `g`, and later some other greenlet's object comes back.
    let me: Slot<&str> = Slot::default();
    let got = Rc::new(Cell::new(""));
    let third: Slot<&str> = Slot::default();
    let (own, notes, next) = (me.clone(), got.clone(), third.clone());
    let first = Greenlet::new(move |_| {
        let second = Greenlet::new(move |sent| {
            assert_eq!(sent, "to second");
            in_slot(&next).switch("to third")
        });
        notes.set(second.switch("to second"));
        drop(own);
        "done"
    });
    *me.borrow_mut() = Some(first.clone());
    let back = me.clone();
    *third.borrow_mut() = Some(Greenlet::new(move |sent| {
        assert_eq!(sent, "to third");
        in_slot(&back).switch("from third")
    }));
    assert_eq!(first.switch(""), "done");
    assert_eq!(got.get(), "from third");
    me.take();
}

#[test]
fn a_dying_greenlet_sends_its_value_to_its_parent() {
    let glet = Greenlet::new(|n: i32| n + 1);
    assert_eq!(glet.switch(1), 2);
    // `GreenletExit` that reaches the root of a greenlet which never started is returned as well.
    let unstarted = Greenlet::new(|_: i32| unreachable!("never runs"));
    assert_eq!(unstarted.kill(5), 5);
    assert!(unstarted.is_dead());
    // As a boolean.
    let glet = Greenlet::new(|_: i32| Greenlet::parent_switch(0));
    assert!(!glet.is_alive());
    glet.switch(0);
    assert!(glet.is_alive());
    glet.switch(0);
    assert!(!glet.is_alive());
}

#[test]
fn switching_to_dead_greenlets() {
    let printed = Printed::default();
    let out = printed.clone();
    let kept: Slot<i32> = Slot::default();
    let keep = kept.clone();
    let outer = Greenlet::new(move |_: i32| {
        out.print("Entering outer and spawning inner.");
        let inside = out.clone();
        let inner = Greenlet::new(move |_: i32| {
            inside.print("Entering inner.");
            inside.print("Returning from inner.");
            42
        });
        out.print("Switching to inner.");
        out.print(format!("Got from inner value: {}", inner.switch(0)));
        out.print("Switching to inner again.");
        // It is dead, so this goes to its parent: to ourselves.
        out.print(format!("Got from inner value: {}", inner.switch(-1)));
        *keep.borrow_mut() = Some(inner);
        0
    });
    outer.switch(0);
    printed.check(&[
        "Entering outer and spawning inner.",
        "Switching to inner.",
        "Entering inner.",
        "Returning from inner.",
        "Got from inner value: 42",
        "Switching to inner again.",
        "Got from inner value: -1",
    ]);
    // From main, to the dead inner one with its dead parent: main itself.
    let inner = in_slot(&kept);
    assert!(inner.is_dead() && inner.parent().unwrap().is_dead());
    assert_eq!(inner.switch(8), 8);
    assert_eq!(inner.kill(9), 9);
    assert_eq!(caught(|| inner.throw(Box::new("late"))).downcast_ref(), Some(&"late"));
}

#[test]
fn a_parent_that_dies_meanwhile_is_passed_over() {
    let printed = Printed::default();
    let out = printed.clone();
    let grandparent = Greenlet::new(move |_: i32| {
        let parent = Greenlet::new(|n: i32| n);
        let child = Greenlet::new(|n: i32| Greenlet::root_switch(n) + 1);
        child.set_parent(Some(&parent));
        child.switch(1);
        parent.switch(0);
        assert!(parent.is_dead() && child.is_alive());
        out.print(format!("child gave {}", child.switch(5)));
        0
    });
    // Out of the child to the root, and back to who waits for it.
    assert_eq!(grandparent.switch(0), 1);
    grandparent.switch(0);
    grandparent.kill(0);
    printed.check(&["child gave 6"]);
}

#[test]
fn going_round_in_circles_does_not_pile_up() {
    let ring: Rc<RefCell<Vec<Greenlet<u64>>>> = Rc::default();
    for index in 0..3 {
        let others = ring.clone();
        ring.borrow_mut().push(Greenlet::new(move |mut n| {
            while n < 300_000 {
                let next = others.borrow()[(index + 1) % 3].clone();
                n = next.switch(n + 1);
            }
            n
        }));
    }
    let first = ring.borrow()[0].clone();
    assert_eq!(first.switch(0), 300_000);
    ring.take();
}

// Garbage Collection and greenlets

#[test]
fn the_last_reference_to_go_raises_greenlet_exit() {
    let printed = Printed::default();
    let out = printed.clone();
    let glet = Greenlet::new(move |()| {
        out.print("Beginning greenlet");
        loop {
            out.print("Switching to parent");
            if let Err(payload) = catch_unwind(|| Greenlet::<()>::parent_switch(())) {
                assert!(payload.is::<GreenletExit>());
                out.print("Got GreenletExit; quitting");
                return;
            }
        }
    });
    glet.switch(());
    printed.check(&["Beginning greenlet", "Switching to parent"]);
    drop(glet);
    printed.check(&["Got GreenletExit; quitting"]);
}

#[test]
fn references_from_the_parent_attribute_count() {
    let printed = Printed::default();
    let out = printed.clone();
    let parent = Greenlet::new(move |n: i32| {
        let got = Greenlet::parent_switch(n);
        out.print(format!("parent got {got}"));
        got
    });
    parent.switch(0);
    let child = Greenlet::new(|n: i32| n);
    child.set_parent(Some(&parent));
    drop(parent);
    printed.check(&[]);
    assert_eq!(child.switch(3), 3);
    printed.check(&["parent got 3"]);
}

#[test]
fn the_dying_one_returns_to_who_dropped_it() {
    // Whoever its parent is.
    let printed = Printed::default();
    let out = printed.clone();
    let outer = Greenlet::new(move |_: i32| {
        let (inside, other) = (out.clone(), Greenlet::new(|_: i32| unreachable!("not its turn")));
        let inner = Greenlet::new(move |_: i32| {
            let payload = catch_unwind(|| Greenlet::<i32>::root_switch(1)).unwrap_err();
            assert!(payload.is::<GreenletExit>());
            inside.print("inner ends");
            2
        });
        inner.set_parent(Some(&other));
        inner.switch(0);
        out.print("outer drops inner");
        drop(inner);
        out.print("outer goes on");
        3
    });
    assert_eq!(outer.switch(0), 1);
    assert_eq!(outer.switch(0), 3);
    printed.check(&["outer drops inner", "inner ends", "outer goes on"]);
}

#[test]
fn one_that_stores_a_reference_to_itself_is_resurrected() {
    let kept: Slot<i32> = Slot::default();
    let keep = kept.clone();
    let glet = Greenlet::new(move |_: i32| {
        let payload = catch_unwind(|| Greenlet::<i32>::parent_switch(1)).unwrap_err();
        assert!(payload.is::<GreenletExit>());
        *keep.borrow_mut() = Greenlet::current();
        Greenlet::parent_switch(2) + 1
    });
    assert_eq!(glet.switch(0), 1);
    drop(glet);
    let glet = kept.take().unwrap();
    assert!(glet.is_alive());
    assert_eq!(glet.switch(3), 4);
}

#[test]
fn suspended_frames_are_freed_with_their_greenlet() {
    struct Finalizer(Printed);
    impl Drop for Finalizer {
        fn drop(&mut self) {
            self.0.print("(Running finalizer)");
        }
    }
    let printed = Printed::default();
    let (one, two) = (Finalizer(printed.clone()), Finalizer(printed.clone()));
    let outer = Greenlet::new(move |()| {
        let inner = Greenlet::new(move |()| {
            let _both = (one, two);
            Greenlet::parent_switch(());
        });
        inner.switch(());
    });
    outer.switch(());
    assert!(outer.is_dead());
    printed.check(&["(Running finalizer)", "(Running finalizer)"]);
    assert_eq!(StackPool::local().stats().live, 0);
}

// Tracing And Profiling

#[test]
fn a_hook_sees_switches_and_throws() {
    let seen: Rc<RefCell<Vec<Transfer>>> = Rc::default();
    let notes = seen.clone();
    let old = settrace(Some(Rc::new(move |transfer| notes.borrow_mut().push(*transfer))));
    assert!(old.is_none() && gettrace().is_some());

    let origin: Slot<i32> = Slot::default();
    let back = origin.clone();
    let target = Greenlet::new(move |_: i32| in_slot(&back).switch(0));
    let to = target.clone();
    *origin.borrow_mut() = Some(Greenlet::new(move |_: i32| {
        to.switch(0);
        to.kill(0)
    }));
    let root = None;
    let (origin, target) = (in_slot(&origin), target);
    origin.switch(0);
    let (o, t) = (Some(origin.id()), Some(target.id()));
    let transfer = |event, origin, target| Transfer { event, origin, target };
    assert_eq!(
        seen.take(),
        [
            transfer(TraceEvent::Switch, root, o),
            transfer(TraceEvent::Switch, o, t),
            transfer(TraceEvent::Switch, t, o),
            transfer(TraceEvent::Throw, o, t),
            transfer(TraceEvent::Switch, t, root),
        ]
    );
    // Of course, when we're done, it's important to restore the previous state.
    assert!(settrace(old).is_some());
    origin.switch(0);
    assert_eq!(seen.take(), []);
}

#[test]
fn a_hook_runs_in_the_target_and_its_panic_goes_on_there() {
    let glet = Greenlet::new(|_: i32| {
        let caught = catch_unwind(|| Greenlet::<i32>::parent_switch(1)).unwrap_err();
        i32::from(*caught.downcast_ref::<&str>().unwrap() == "of the hook")
    });
    let id = glet.id();
    assert_eq!(glet.switch(0), 1);
    settrace(Some(Rc::new(move |transfer| {
        let current = Greenlet::<i32>::current().map(|current| current.id());
        assert_eq!(transfer.target, current);
        if current == Some(id) {
            resume_unwind(Box::new("of the hook"));
        }
    })));
    assert_eq!(glet.switch(5), 1);
    assert!(gettrace().is_none(), "a hook that fails is unset");
}

#[test]
fn a_hook_outlives_switches_while_something_unwinds() {
    let seen: Rc<Cell<u32>> = Rc::default();
    let count = seen.clone();
    let old = settrace(Some(Rc::new(move |_| count.set(count.get() + 1))));
    let glet = Greenlet::new(|n: i32| Greenlet::parent_switch(n));
    glet.switch(0);
    let unwound = caught(|| {
        let _glet = glet;
        resume_unwind(Box::new("broken"))
    });
    assert!(unwound.is::<&str>());
    assert!(settrace(old).is_some());
    assert_eq!(seen.get(), 4, "there and back, the exit and its end");
}

// Context Variables

fiber_local! {
    static EXAMPLE: i32 = 0;
}

/// Returns the value that it found.
fn set_it(next: i32) -> i32 {
    let previous = EXAMPLE.get();
    EXAMPLE.set(next);
    previous
}

#[test]
fn each_greenlet_has_a_context_of_its_own() {
    EXAMPLE.set(1);
    // By default, a new greenlet gets an empty context.
    assert_eq!(Greenlet::new(set_it).switch(2), 0);
    assert_eq!(EXAMPLE.get(), 1);
    // It can get a copy of the current context.
    let gr2 = Greenlet::new(set_it);
    gr2.set_locals(Locals::current().copy());
    assert_eq!(gr2.switch(2), 1);
    assert_eq!(EXAMPLE.get(), 1);
    // Or share it.
    let gr3 = Greenlet::new(set_it);
    gr3.set_locals(Locals::current());
    assert_eq!(gr3.switch(2), 1);
    assert_eq!(EXAMPLE.get(), 2);
    // Or run its function in a copy.
    EXAMPLE.set(1);
    let copy = Locals::current().copy();
    let gr4 = Greenlet::new(move |next| copy.run(|| set_it(next)));
    assert_eq!(gr4.switch(2), 1);
    assert_eq!(EXAMPLE.get(), 1);
}

#[test]
fn a_context_can_be_had_in_any_state() {
    let glet = Greenlet::new(|n: i32| {
        EXAMPLE.set(n);
        Greenlet::parent_switch(EXAMPLE.get())
    });
    let look = |glet: &Greenlet<i32>| glet.locals().run(|| EXAMPLE.get());
    assert_eq!(look(&glet), 0, "not started");
    glet.switch(5);
    assert_eq!(look(&glet), 5, "suspended");
    glet.switch(0);
    assert!(glet.is_dead());
    assert_eq!(look(&glet), 5, "dead");
    // While it is in `run`, it is the inner one.
    let inner = Locals::new();
    let within = inner.clone();
    let glet = Greenlet::new(move |n: i32| {
        within.run(|| {
            EXAMPLE.set(n);
            Greenlet::parent_switch(0)
        })
    });
    glet.switch(6);
    assert_eq!(look(&glet), 6);
    glet.switch(0);
    assert_eq!(look(&glet), 0);
    assert_eq!(inner.run(|| EXAMPLE.get()), 6);
}

// Greenlets and Python Threads

#[test]
fn each_thread_has_a_root_of_its_own() {
    let inside = Greenlet::new(|_: bool| {
        let elsewhere = std::thread::spawn(|| {
            let root = Greenlet::<bool>::current().is_none();
            Greenlet::new(move |_: bool| root).switch(false)
        });
        elsewhere.join().unwrap()
    });
    assert!(inside.switch(false));
    // That a greenlet cannot go to another thread is for the compiler: see `tests/compile_fail`.
}
