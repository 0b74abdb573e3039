//! What could go wrong with stacks that end in unusual ways, case by case.

use std::cell::{Cell, RefCell};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::rc::Rc;

use warren_fiber::{Generator, Greenlet, GreenletExit, StackPool, StackSize, Yielder};

/// Counts what was dropped.
#[derive(Clone, Default)]
struct Count(Rc<Cell<u32>>);

impl Count {
    fn noted(&self) -> Noted {
        Noted(self.0.clone())
    }

    fn get(&self) -> u32 {
        self.0.get()
    }
}

struct Noted(Rc<Cell<u32>>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

/// Calls a function when dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

fn live() -> usize {
    StackPool::local().stats().live
}

/// A greenlet that waits until it is ended.
fn waiting(noted: Noted) -> Greenlet<u32> {
    let greenlet = Greenlet::new(move |n| {
        let _noted = noted;
        Greenlet::parent_switch(n)
    });
    greenlet.switch(0);
    greenlet
}

#[test]
fn one_is_dropped_wherever_control_is() {
    let count = Count::default();
    // Within another greenlet, of the same type and of another.
    let one = waiting(count.noted());
    Greenlet::new(move |n: u32| {
        drop(one);
        n
    })
    .switch(1);
    assert_eq!(count.get(), 1);
    let one = waiting(count.noted());
    Greenlet::new(move |n: &str| {
        drop(one);
        n
    })
    .switch("");
    assert_eq!(count.get(), 2);
    // Within a generator, and by the end of one that was never run.
    let (one, other) = (waiting(count.noted()), waiting(count.noted()));
    Generator::<u32>::new(move |_| drop(one)).next();
    drop(Generator::<u32>::new(move |_| drop(other)));
    assert_eq!(count.get(), 4);
    // By a panic.
    let one = waiting(count.noted());
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _one = one;
        resume_unwind(Box::new("broken"))
    }));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"broken"));
    assert_eq!((count.get(), live()), (5, 0));
}

#[test]
fn one_that_has_dropped_its_own_last_handle_ends_when_it_is_left() {
    let count = Count::default();
    let slot = Rc::new(RefCell::new(None::<Greenlet<u32>>));
    let (own, noted) = (slot.clone(), count.noted());
    let greenlet = Greenlet::new(move |n| {
        let _noted = noted;
        own.take();
        Greenlet::parent_switch(n + 1)
    });
    *slot.borrow_mut() = Some(greenlet);
    let target = slot.as_ptr();
    // SAFETY: not borrowed, and the greenlet, which is kept by whoever runs it, outlives the call.
    let got = unsafe { (*target).as_ref().unwrap().switch(1) };
    assert_eq!(got, 2);
    assert_eq!((count.get(), live()), (1, 0), "nobody could ever go there again");
}

#[test]
fn a_long_line_of_greenlets_that_own_each_other_unwinds() {
    const LINE: u32 = 3000;
    let count = Count::default();
    let mut next: Option<Greenlet<u32>> = None;
    for _ in 0..LINE {
        let (inner, noted) = (next.take(), count.noted());
        let greenlet = Greenlet::with_stack_size(StackSize::Small, move |n| {
            let _both = (noted, inner);
            Greenlet::parent_switch(n)
        });
        greenlet.switch(0);
        next = Some(greenlet);
    }
    // On a thread's stack this would go deep if each ended the next one by a call.
    drop(next);
    assert_eq!((count.get(), live()), (LINE, 0));
}

#[test]
fn a_long_line_of_dead_parents_is_freed() {
    let line = || {
        let mut line = Greenlet::new(|n: u32| n);
        line.switch(0);
        for _ in 0..2000 {
            let next = Greenlet::with_stack_size(StackSize::Small, |n: u32| n);
            next.switch(0);
            next.set_parent(Some(&line));
            line = next;
        }
        assert!(line.is_dead());
        drop(line);
        assert_eq!(live(), 0);
    };
    // Too small for as many calls within each other.
    std::thread::Builder::new().stack_size(64 << 10).spawn(line).unwrap().join().unwrap();
}

#[test]
fn a_destructor_may_switch_to_others_while_it_unwinds() {
    let count = Count::default();
    let other = Greenlet::new(|mut n: u32| {
        loop {
            n = Greenlet::parent_switch(n + 1);
        }
    });
    let (helper, got, noted) = (other.clone(), Rc::new(Cell::new(0)), count.noted());
    let seen = got.clone();
    let greenlet = Greenlet::new(move |n: u32| {
        let _noted = noted;
        let own = Greenlet::<u32>::current().map(|own| own.id());
        let _at_end = OnDrop(move || {
            // The helper's parent is the root; here it has to come back.
            helper.set_parent(Greenlet::current().as_ref());
            seen.set(helper.switch(10));
            helper.set_parent(None);
            assert_eq!(Greenlet::<u32>::current().map(|own| own.id()), own);
        });
        Greenlet::parent_switch(n)
    });
    greenlet.switch(0);
    drop(greenlet);
    assert_eq!((got.get(), count.get()), (11, 1));
    assert!(!std::thread::panicking());
    assert_eq!(other.switch(1), 2);
}

#[test]
fn a_destructor_may_make_and_drop_others_while_it_unwinds() {
    let count = Count::default();
    let (inner, noted) = (count.clone(), count.noted());
    let greenlet = Greenlet::new(move |n: u32| {
        let _noted = noted;
        let _at_end = OnDrop(move || {
            drop(waiting(inner.noted()));
            let mut generator = Generator::<u32>::new(|g| g.yield_from(0..3));
            assert_eq!(generator.next(), Some(0));
            drop(generator);
            // A panic that does not leave the destructor.
            let caught = catch_unwind(|| resume_unwind(Box::new("inside")));
            assert!(caught.is_err());
        });
        Greenlet::parent_switch(n)
    });
    greenlet.switch(0);
    drop(greenlet);
    assert_eq!((count.get(), live()), (2, 0));
}

#[test]
fn what_it_raises_instead_of_ending_reaches_who_dropped_it() {
    let greenlet = Greenlet::new(|n: u32| {
        let exit = catch_unwind(|| Greenlet::<u32>::parent_switch(n)).unwrap_err();
        assert!(exit.is::<GreenletExit>());
        resume_unwind(Box::new("instead"))
    });
    greenlet.switch(0);
    let caught = catch_unwind(AssertUnwindSafe(|| drop(greenlet))).unwrap_err();
    assert_eq!(caught.downcast_ref(), Some(&"instead"));
    assert_eq!(live(), 0);
}

#[test]
fn one_that_never_ends_loses_its_stack_and_harms_nobody() {
    let count = Count::default();
    let noted = count.noted();
    let greenlet = Greenlet::new(move |_: u32| {
        let _noted = noted;
        loop {
            let _ = catch_unwind(|| Greenlet::<u32>::parent_switch(0));
        }
    });
    greenlet.switch(0);
    drop(greenlet);
    assert_eq!((count.get(), live()), (0, 1));
}

#[test]
fn a_forgotten_one_keeps_its_stack() {
    let count = Count::default();
    let greenlet = waiting(count.noted());
    std::mem::forget(greenlet);
    let mut generator = Generator::<u32>::new(|g| g.yield_from(0..3));
    generator.next();
    std::mem::forget(generator);
    assert_eq!((count.get(), live()), (0, 2));
    // Others get other stacks, and what lies on the forgotten ones is not touched.
    for n in 0..100 {
        assert_eq!(Greenlet::new(|n: u32| n).switch(n), n);
    }
    assert_eq!(live(), 2);
    StackPool::local().trim(0);
}

#[test]
fn the_end_of_a_thread_unwinds_what_its_thread_locals_own() {
    thread_local! {
        static GREENLET: RefCell<Option<Greenlet<u32>>> = const { RefCell::new(None) };
        static GENERATOR: RefCell<Option<Generator<u32>>> = const { RefCell::new(None) };
    }
    struct Signal(std::sync::mpsc::Sender<&'static str>, &'static str);
    impl Drop for Signal {
        fn drop(&mut self) {
            self.0.send(self.1).unwrap();
        }
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        GREENLET.with(|_| ());
        GENERATOR.with(|_| ());
        let (of_greenlet, of_generator) =
            (Signal(sender.clone(), "greenlet"), Signal(sender, "generator"));
        let greenlet = Greenlet::new(move |n: u32| {
            let _signal = of_greenlet;
            Greenlet::parent_switch(n)
        });
        greenlet.switch(0);
        let mut generator = Generator::<u32>::new(move |g: Yielder<'_, u32>| {
            let _signal = of_generator;
            g.yield_(1);
        });
        generator.next();
        GREENLET.set(Some(greenlet));
        GENERATOR.set(Some(generator));
    })
    .join()
    .unwrap();
    let mut ended: Vec<&str> = receiver.iter().collect();
    ended.sort_unstable();
    assert_eq!(ended, ["generator", "greenlet"]);
}

/// Set in the child, which dies.
const CHILD: &str = "WARREN_TEST_TRAP";

#[test]
fn a_panic_out_of_a_destructor_that_unwinds_ends_the_process() {
    const SIGABRT: i32 = 6;
    if std::env::var_os(CHILD).is_some() {
        let greenlet = Greenlet::new(|n: u32| {
            let _at_end = OnDrop(|| resume_unwind(Box::new("second")));
            Greenlet::parent_switch(n)
        });
        greenlet.switch(0);
        let _ = catch_unwind(AssertUnwindSafe(|| drop(greenlet)));
        // Unwinding goes no further than this language lets it: never back to a half-unwound stack.
        std::process::exit(0);
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_panic_out_of_a_destructor_that_unwinds_ends_the_process"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert_eq!(child.status.signal(), Some(SIGABRT), "{child:?}");
}
