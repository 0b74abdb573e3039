//! Greenlets, generators and fiber-locals under an event loop: each fiber has a context of its own, which is swapped
//! in while it runs. The loop here is the smallest that does it right.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use warren_fiber::context::{self, Context};
use warren_fiber::{
    Generator, Greenlet, GreenletExit, Locals, RawFiber, RawYielder, StackPool, StackSize,
    fiber_local,
};

type Yielder = RawYielder<(), ()>;

thread_local! {
    /// Of the fiber that runs.
    static RUNNING: Cell<*const Yielder> = const { Cell::new(std::ptr::null()) };
}

struct Fiber {
    context: Box<Context>,
    yielder: Rc<Cell<*const Yielder>>,
    /// `None` once it has ended.
    coroutine: Option<RawFiber<(), (), ()>>,
}

impl Fiber {
    fn new(body: impl FnOnce() + 'static) -> Self {
        let stack = StackPool::local().take(StackSize::Normal).unwrap();
        let yielder = Rc::new(Cell::new(std::ptr::null()));
        let own = yielder.clone();
        let coroutine = RawFiber::with_stack(stack, move |yielder: &Yielder, ()| {
            own.set(yielder);
            RUNNING.set(yielder);
            body();
        });
        Self { context: Box::default(), yielder, coroutine: Some(coroutine) }
    }

    /// Runs it until it parks or ends. A panic of the fiber goes on here.
    fn resume(&mut self) {
        let mut coroutine = self.coroutine.take().expect("not ended");
        let ended = self.within(|| coroutine.resume(()).as_return().is_some());
        if !ended {
            self.coroutine = Some(coroutine);
        }
    }

    /// Runs `f` with the fiber's context in place.
    fn within<R>(&self, f: impl FnOnce() -> R) -> R {
        // SAFETY: the context is boxed, and put away again below, also when `f` panics.
        let before = unsafe { context::swap(&raw const *self.context) };
        let running = RUNNING.replace(self.yielder.get());
        let result = catch_unwind(AssertUnwindSafe(f));
        RUNNING.set(running);
        // SAFETY: it was current a moment ago.
        unsafe { context::swap(before) };
        result.unwrap_or_else(|payload| resume_unwind(payload))
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        // Unwound where its greenlets are those that run.
        let coroutine = self.coroutine.take();
        self.within(|| drop(coroutine));
    }
}

/// Leaves the running fiber to the loop.
fn park() {
    let running = RUNNING.get();
    // SAFETY: of the fiber that runs, for it calls this.
    unsafe { (*running).suspend(()) }
}

type Log = Rc<RefCell<Vec<&'static str>>>;

struct Noted(Log, &'static str);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.borrow_mut().push(self.1);
    }
}

type Shared<T> = Rc<RefCell<Option<T>>>;

#[test]
fn each_fiber_is_a_root_of_its_own() {
    let results = Rc::new(RefCell::new(Vec::new()));
    let body = |name: &'static str| {
        let results = results.clone();
        move || {
            assert!(Greenlet::<u32>::current().is_none());
            let greenlet = Greenlet::new(|n: u32| {
                park();
                let m = Greenlet::parent_switch(n + 1);
                park();
                m + 1
            });
            let first = greenlet.switch(1);
            park();
            let second = greenlet.switch(first);
            results.borrow_mut().push((name, second));
        }
    };
    let mut fibers = [Fiber::new(body("one")), Fiber::new(body("two"))];
    for _ in 0..4 {
        for fiber in &mut fibers {
            fiber.resume();
            assert!(Greenlet::<u32>::current().is_none(), "the loop is in none of them");
        }
    }
    assert_eq!(*results.borrow(), [("one", 3), ("two", 3)]);
}

#[test]
fn another_fiber_may_go_on_with_a_greenlet() {
    let shared: Shared<Greenlet<u32>> = Shared::default();
    let (give, take) = (shared.clone(), shared.clone());
    let mut one = Fiber::new(move || {
        let greenlet = Greenlet::new(|n| {
            let m = Greenlet::parent_switch(n + 1);
            // By now in the other fiber, which parks here.
            park();
            m + 10
        });
        assert_eq!(greenlet.switch(1), 2);
        *give.borrow_mut() = Some(greenlet);
        park();
    });
    let mut two = Fiber::new(move || {
        let greenlet = take.take().unwrap();
        assert_eq!(greenlet.switch(5), 15);
        assert!(greenlet.is_dead());
    });
    one.resume();
    two.resume();
    one.resume();
    assert!(
        one.coroutine.is_none() && two.coroutine.is_some(),
        "it was the other fiber that parked"
    );
    two.resume();
    assert!(two.coroutine.is_none());
}

#[test]
fn a_greenlet_that_runs_in_a_parked_fiber_is_refused() {
    let shared: Shared<Greenlet<u32>> = Shared::default();
    let (give, take) = (shared.clone(), shared.clone());
    let mut one = Fiber::new(move || {
        let greenlet = Greenlet::new(|n| {
            park();
            n + 1
        });
        *give.borrow_mut() = Some(greenlet.clone());
        assert_eq!(greenlet.switch(1), 2);
    });
    let mut two = Fiber::new(move || {
        let greenlet = take.borrow().clone().unwrap();
        let payload = catch_unwind(AssertUnwindSafe(|| greenlet.switch(7))).unwrap_err();
        let text = payload.downcast_ref::<String>().unwrap();
        assert!(text.contains("in a fiber that waits"), "{text}");
        // Neither may it be ended from here: it goes on there.
        drop(greenlet);
        take.take();
    });
    one.resume();
    two.resume();
    assert!(two.coroutine.is_none());
    one.resume();
    assert!(one.coroutine.is_none());
}

#[test]
fn a_suspended_greenlet_is_dropped_in_another_fiber() {
    let log = Log::default();
    let shared: Shared<Greenlet<u32>> = Shared::default();
    let (give, take) = (shared.clone(), shared.clone());
    let (noted, last) = (Noted(log.clone(), "of the greenlet"), Noted(log.clone(), "after a wait"));
    let mut one = Fiber::new(move || {
        let greenlet = Greenlet::new(|n| {
            let _noted = noted;
            let exit = catch_unwind(|| Greenlet::<u32>::parent_switch(n)).unwrap_err();
            assert!(exit.is::<GreenletExit>());
            // The fiber that drops it waits here.
            park();
            drop(last);
            resume_unwind(exit)
        });
        greenlet.switch(1);
        *give.borrow_mut() = Some(greenlet);
        park();
    });
    let notes = log.clone();
    let mut two = Fiber::new(move || {
        let greenlet = take.take();
        drop(greenlet);
        notes.borrow_mut().push("dropped");
    });
    one.resume();
    two.resume();
    assert!(log.borrow().is_empty());
    one.resume();
    two.resume();
    assert_eq!(*log.borrow(), ["after a wait", "of the greenlet", "dropped"]);
    assert_eq!(StackPool::local().stats().live, 0);
}

#[test]
fn a_fiber_is_unwound_with_the_greenlets_that_run_in_it() {
    let log = Log::default();
    let (outer, inner) = (Noted(log.clone(), "outer"), Noted(log.clone(), "inner"));
    let (fiber, generator) = (Noted(log.clone(), "fiber"), Noted(log.clone(), "generator"));
    let mut one = Fiber::new(move || {
        let _fiber = fiber;
        let outer = Greenlet::new(move |n: u32| {
            let _outer = outer;
            let inner = Greenlet::new(move |n: u32| {
                let _inner = inner;
                let mut generator = Generator::<u32>::new(move |_| {
                    let _generator = generator;
                    park();
                });
                generator.next();
                n
            });
            inner.switch(n)
        });
        outer.switch(1);
    });
    one.resume();
    assert!(log.borrow().is_empty());
    drop(one);
    assert_eq!(*log.borrow(), ["generator", "inner", "outer", "fiber"]);
    assert_eq!(StackPool::local().stats().live, 0);
    assert!(Greenlet::<u32>::current().is_none());
    // The thread's own greenlets are not disturbed.
    assert_eq!(Greenlet::new(|n: u32| Greenlet::parent_switch(n)).switch(3), 3);
}

#[test]
fn a_generator_goes_from_fiber_to_fiber() {
    let shared: Rc<RefCell<Generator<u32>>> = Rc::new(RefCell::new(Generator::new(|g| {
        for n in 0.. {
            park();
            g.yield_(n);
        }
    })));
    let seen = Rc::new(RefCell::new(Vec::new()));
    let mut fibers: Vec<Fiber> = (0..3)
        .map(|_| {
            let (shared, seen) = (shared.clone(), seen.clone());
            Fiber::new(move || {
                let value = shared.borrow_mut().next();
                seen.borrow_mut().push(value.unwrap());
            })
        })
        .collect();
    // One that another fiber is in the middle of is borrowed; so one after the other.
    for fiber in &mut fibers {
        fiber.resume();
        fiber.resume();
    }
    assert_eq!(*seen.borrow(), [0, 1, 2]);
    drop(shared);
    drop(fibers);
    assert_eq!(StackPool::local().stats().live, 0);
}

fiber_local! {
    static NAME: &'static str = "nobody";
    static COUNT: Cell<u32> = Cell::new(0);
}

#[test]
fn locals_are_of_the_greenlet_else_of_the_fiber_else_of_the_thread() {
    NAME.set("thread");
    let body = |name| {
        move || {
            assert_eq!(NAME.get(), "nobody");
            NAME.set(name);
            park();
            assert_eq!(NAME.get(), name);
            let greenlet = Greenlet::new(|n: u32| {
                assert_eq!(NAME.get(), "nobody");
                NAME.set("greenlet");
                park();
                Greenlet::parent_switch(n);
                assert_eq!(NAME.get(), "greenlet");
                NAME.reset();
                assert_eq!(NAME.get(), "nobody");
                n
            });
            greenlet.switch(1);
            assert_eq!(NAME.get(), name);
            greenlet.switch(1);
            // A generator has none of its own: it runs as its caller.
            let mut generator = Generator::<&str>::new(|g| {
                g.yield_(NAME.get());
            });
            assert_eq!(generator.next(), Some(name));
        }
    };
    let mut fibers = [Fiber::new(body("one")), Fiber::new(body("two"))];
    for _ in 0..3 {
        for fiber in &mut fibers {
            fiber.resume();
            assert_eq!(NAME.get(), "thread");
        }
    }
    assert!(fibers.iter().all(|fiber| fiber.coroutine.is_none()));
    // A loop may let a fiber begin with a copy of its maker's.
    let mut heir = Fiber::new(|| {
        assert_eq!(NAME.get(), "thread");
        NAME.set("heir");
    });
    heir.context.set_locals(Locals::current().copy());
    heir.resume();
    assert_eq!(NAME.get(), "thread");
    assert_eq!(heir.context.locals().run(|| NAME.get()), "heir");
}

#[test]
fn run_puts_a_set_in_place_and_back_also_when_it_panics() {
    COUNT.with(|count| count.set(1));
    let inner = Locals::new();
    let broken = catch_unwind(AssertUnwindSafe(|| {
        inner.run(|| {
            COUNT.with(|count| count.set(5));
            resume_unwind(Box::new("broken"))
        })
    }));
    assert!(broken.is_err());
    assert_eq!(COUNT.with(Cell::get), 1);
    assert_eq!(inner.run(|| COUNT.with(Cell::get)), 5);
    // A copy shares values that are changed in place, and not those that are set.
    let copy = inner.copy();
    copy.run(|| COUNT.with(|count| count.set(6)));
    assert_eq!(inner.run(|| COUNT.with(Cell::get)), 6);
    copy.run(|| COUNT.set(Cell::new(7)));
    assert_eq!(inner.run(|| COUNT.with(Cell::get)), 6);
}

#[test]
fn destructors_of_locals_may_use_locals() {
    struct AtEnd;
    impl Drop for AtEnd {
        fn drop(&mut self) {
            COUNT.with(|count| count.set(count.get() + 1));
            Greenlet::new(|n: u32| n + 1).switch(1);
        }
    }
    fiber_local! {
        static AT_END: AtEnd = AtEnd;
    }
    let mut fiber = Fiber::new(|| AT_END.with(|_| ()));
    fiber.resume();
    drop(fiber);
    assert_eq!(COUNT.with(Cell::get), 1, "those of the code that dropped it");
    // The thread's own are dropped when it ends, where all this still works.
    std::thread::spawn(|| AT_END.with(|_| ())).join().unwrap();
}
