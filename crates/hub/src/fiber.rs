//! A fiber as the loop sees it: where it stands, who may wake it, what interrupts it.
//!
//! ```text
//!   New --first resume--> Running --park--> Parked --wake--> Ready --resume--> Running ... --> Done
//! ```
//! A fiber parks with a *ticket*, which changes each time it goes on. A [`Waiter`] holds the ticket it was made
//! for, so a wake-up that comes late (the wait timed out, or something else woke it) does nothing.
//!
//! An *interrupt* (a kill, a timeout around several waits) is delivered where the fiber parks, as a panic
//! with a private payload: destructors run, and no code in between needs to know.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::resume_unwind;
use std::rc::Rc;

use warren_fiber::{RawFiber, RawYielder, context};

use crate::hub;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woke {
    Notified,
    TimedOut,
    Interrupted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    New,
    Ready,
    Running,
    Parked,
    Done,
}

/// What is thrown into a fiber. The payload of the panic is this very value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupt {
    Kill,
    /// The `with_timeout` of this number has run out.
    Timeout(u64),
    /// To the main fiber: nothing can wake anyone any more.
    Stuck,
}

pub(crate) struct Fiber {
    pub(crate) id: u64,
    pub(crate) name: Option<Box<str>>,
    /// Where the hub keeps it.
    pub(crate) slot: Cell<usize>,
    pub(crate) state: Cell<State>,
    ticket: Cell<u64>,
    woke: Cell<Woke>,
    interrupts: RefCell<Vec<Interrupt>>,
    /// Borrowed by the loop while the fiber runs; `None` once it is done.
    coroutine: RefCell<Option<RawFiber<(), (), ()>>>,
    /// Valid from the start of the fiber to its end.
    yielder: Cell<*const RawYielder<(), ()>>,
    /// The greenlets of this fiber, which is their root.
    context: context::Context,
}

impl Fiber {
    pub(crate) fn new(id: u64, name: Option<Box<str>>) -> Rc<Self> {
        Rc::new(Self {
            id,
            name,
            slot: Cell::new(0),
            state: Cell::new(State::New),
            ticket: Cell::new(0),
            woke: Cell::new(Woke::Notified),
            interrupts: RefCell::default(),
            coroutine: RefCell::default(),
            yielder: Cell::new(std::ptr::null()),
            context: context::Context::new(),
        })
    }

    pub(crate) fn set_coroutine(&self, coroutine: RawFiber<(), (), ()>) {
        *self.coroutine.borrow_mut() = Some(coroutine);
    }

    /// Called by the fiber itself, first of all.
    pub(crate) fn started(&self, yielder: &RawYielder<(), ()>) {
        self.yielder.set(yielder);
    }

    /// Runs the fiber until it parks or ends. Called by the loop only. True when it has ended.
    pub(crate) fn resume(&self) -> bool {
        self.state.set(State::Running);
        let mut coroutine = self.coroutine.borrow_mut();
        let Some(running) = coroutine.as_mut() else { return false };
        // SAFETY: this fiber, and so its context, is borrowed until the one before is back.
        let before = unsafe { context::swap(&raw const self.context) };
        let ended = running.resume(()).as_return().is_some();
        // SAFETY: `before` was current a moment ago and still lies where it was: below on this stack.
        unsafe { context::swap(before) };
        if ended {
            self.state.set(State::Done);
            // The stack returns to its pool.
            *coroutine = None;
        }
        ended
    }

    /// Parks the fiber, which must be the running one, and tells what woke it. When that was an interrupt,
    /// unwinds.
    ///
    /// # Suspends
    /// Until woken.
    pub(crate) fn park(&self) -> Woke {
        self.deliver();
        self.state.set(State::Parked);
        self.suspend();
        self.ticket.set(self.ticket.get() + 1);
        let woke = self.woke.get();
        if woke == Woke::Interrupted {
            self.deliver();
        }
        woke
    }

    /// Leaves the fiber where it is; the loop goes on with others.
    pub(crate) fn suspend(&self) {
        let yielder = self.yielder.get();
        assert!(!yielder.is_null(), "a fiber that has not started cannot wait");
        // SAFETY: set in `started` to the yielder of this fiber's coroutine, which lives on the fiber's own
        // stack for as long as the fiber runs; and the fiber is running, for it called this.
        unsafe { (*yielder).suspend(()) }
    }

    /// Throws the first interrupt, if there is one.
    pub(crate) fn deliver(&self) {
        let interrupt = {
            let mut interrupts = self.interrupts.borrow_mut();
            if interrupts.is_empty() {
                return;
            }
            interrupts.remove(0)
        };
        assert!(
            interrupt != Interrupt::Stuck,
            "this hub waits for ever: no fiber can run, no timer or socket is left, and no other thread has a \
             handle to it. Waiting: {}",
            hub::with(|hub| hub.waiting())
        );
        // `resume_unwind` and not `panic!`: this is no error, and the panic hook must not report it.
        resume_unwind(Box::new(interrupt));
    }

    /// Marks the fiber as woken. False when it was not waiting with this ticket.
    pub(crate) fn wake(&self, ticket: u64, woke: Woke) -> bool {
        let waits = self.state.get() == State::Parked && self.ticket.get() == ticket;
        if waits {
            self.woke.set(woke);
            self.state.set(State::Ready);
        }
        waits
    }

    /// Adds an interrupt. True when the fiber was parked and now has to be resumed.
    pub(crate) fn interrupt(&self, interrupt: Interrupt) -> bool {
        if self.state.get() == State::Done {
            return false;
        }
        self.interrupts.borrow_mut().push(interrupt);
        self.wake(self.ticket.get(), Woke::Interrupted)
    }

    /// Takes an interrupt back that has not been delivered.
    pub(crate) fn withdraw(&self, interrupt: Interrupt) {
        self.interrupts.borrow_mut().retain(|other| *other != interrupt);
    }

    /// Whether it was killed before it has started.
    pub(crate) fn is_killed(&self) -> bool {
        self.interrupts.borrow().contains(&Interrupt::Kill)
    }

    /// Drops what a fiber that never started would have run.
    pub(crate) fn discard(&self) {
        self.state.set(State::Done);
        let coroutine = self.coroutine.take();
        drop(coroutine);
    }

    /// For messages: the name, or the number.
    pub(crate) fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} (fiber {})", self.id),
            None => format!("fiber {}", self.id),
        }
    }
}

/// The interrupt that a caught panic was, if it was one.
pub(crate) fn as_interrupt(payload: &(dyn Any + Send)) -> Option<Interrupt> {
    payload.downcast_ref().copied()
}

/// The right to end one wait of one fiber.
#[derive(Clone)]
pub(crate) struct Waiter {
    fiber: Rc<Fiber>,
    ticket: u64,
}

impl Waiter {
    /// For the wait that `fiber` is about to begin.
    pub(crate) fn new(fiber: Rc<Fiber>) -> Self {
        let ticket = fiber.ticket.get();
        Self { fiber, ticket }
    }

    /// For the wait that the running fiber is about to begin.
    ///
    /// # Panics
    /// Outside a fiber.
    pub(crate) fn current() -> Self {
        Self::new(hub::current_fiber())
    }

    /// Ends the wait: the fiber goes on in its turn. False when that wait is already over.
    pub(crate) fn wake(&self) -> bool {
        self.wake_as(Woke::Notified)
    }

    pub(crate) fn wake_as(&self, woke: Woke) -> bool {
        let woken = self.fiber.wake(self.ticket, woke);
        if woken {
            hub::with(|hub| hub.make_ready(self.fiber.clone()));
        }
        woken
    }

    pub(crate) fn is(&self, other: &Waiter) -> bool {
        Rc::ptr_eq(&self.fiber, &other.fiber) && self.ticket == other.ticket
    }
}
