//! A fiber as the loop sees it: where it stands, who may wake it, what interrupts it.
//!
//! ```text
//!   New --first resume--> Running --park--> Parked --wake--> Ready --resume--> Running ... --> Vacant
//! ```
//! A fiber parks with a *ticket*, which changes each time it goes on. A [`Waiter`] holds the ticket it was made
//! for, so a wake-up that comes late (the wait timed out, something else woke it, the fiber has ended) does nothing.
//!
//! An *interrupt* (a kill, a timeout around several waits) is delivered where the fiber parks, as a panic
//! with a private payload: destructors run, and no code in between needs to know.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell, UnsafeCell};
use std::fmt;
use std::panic::{Location, resume_unwind};

use warren_fiber::{RawFiber, RawYielder, context};

use crate::future::Waking;
use crate::hub;
use crate::prefetch::prefetch;
use crate::report::Stack;

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woke {
    Notified,
    TimedOut,
    Interrupted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The place holds no fiber.
    Vacant,
    /// To be started at some time.
    Later,
    /// Waits for its first turn.
    New,
    Ready,
    Running,
    Parked,
}

/// What is thrown into a fiber. The payload of the panic is this very value, or what [`Throw`](Self::Throw) holds.
pub(crate) enum Interrupt {
    Kill,
    /// The `Timeout` of this number has run out.
    Timeout(u64),
    /// To the main fiber: nothing can wake anyone any more.
    Stuck,
    Throw(Box<dyn Any + Send>),
}

/// What a parked fiber waits for, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    /// Somebody to wake it.
    Wake,
    Event,
    /// The outcome of an `AsyncResult`.
    Outcome,
    /// A permit or a lock.
    Permit,
    /// The notification of a condition variable.
    Notice,
    /// An item of a queue.
    Item,
    /// Room in a queue.
    Room,
    /// The items of a queue to be done with.
    Tasks,
    /// The end of all fibers of a group.
    Group,
    /// The first of several things.
    Any,
    Time,
    /// A descriptor's bytes.
    Read(i32),
    /// Room in a descriptor's buffer.
    Write(i32),
    /// The end of a fiber.
    Join,
    /// Another thread.
    Thread,
    /// A file.
    File,
    /// A future to be ready.
    Future,
    /// The loop, to have nothing else to do.
    Idle,
    /// Its turn.
    Turn,
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wake => f.write_str("another fiber"),
            Self::Event => f.write_str("an event"),
            Self::Outcome => f.write_str("a result"),
            Self::Permit => f.write_str("a permit or a lock"),
            Self::Notice => f.write_str("a notification"),
            Self::Item => f.write_str("an item of a queue"),
            Self::Room => f.write_str("room in a queue"),
            Self::Tasks => f.write_str("the items of a queue to be done"),
            Self::Group => f.write_str("the end of a group of fibers"),
            Self::Any => f.write_str("one of several things"),
            Self::Time => f.write_str("a time"),
            Self::Read(fd) => write!(f, "bytes on descriptor {fd}"),
            Self::Write(fd) => write!(f, "room on descriptor {fd}"),
            Self::Join => f.write_str("a fiber's end"),
            Self::Thread => f.write_str("another thread"),
            Self::File => f.write_str("a file"),
            Self::Future => f.write_str("a future"),
            Self::Idle => f.write_str("an idle loop"),
            Self::Turn => f.write_str("its turn"),
        }
    }
}

const CACHE_LINE: usize = 64;

// In this order: what a switch touches lies together at the front.
#[repr(C)]
pub(crate) struct Fiber {
    /// Borrowed by the loop while the fiber runs; `None` while the place is vacant.
    coroutine: UnsafeCell<Option<RawFiber<(), (), ()>>>,
    /// Valid from the start of the fiber to its end.
    yielder: Cell<*const RawYielder<(), ()>>,
    /// About where its stack ended when it last waited.
    parked_at: Cell<*const u8>,
    ticket: Cell<u64>,
    /// The greenlets and locals of this fiber, which is their root. Replaced by the loop only, between fibers.
    context: UnsafeCell<context::Context>,
    /// Unique on the hub; that of the last fiber while the place is vacant.
    pub(crate) id: Cell<u64>,
    pub(crate) waits_for: Cell<WaitsFor>,
    /// Where the hub keeps it.
    pub(crate) index: u32,
    /// While above zero, interrupts wait.
    shields: Cell<u32>,
    pub(crate) state: Cell<State>,
    woke: Cell<Woke>,
    /// There are interrupts.
    interrupted: Cell<bool>,
    /// Something was thrown into it, and it is not known to have been caught.
    pub(crate) unwinding: Cell<bool>,
    /// It was resumed for its stack only.
    captures: Cell<bool>,
    interrupts: RefCell<Vec<Interrupt>>,
    captured: RefCell<Option<Box<Stack>>>,
    pub(crate) name: RefCell<Option<Box<str>>>,
    pub(crate) spawned_at: Cell<&'static Location<'static>>,
    /// The number of the fiber that spawned it; 0: none.
    pub(crate) parent: Cell<u64>,
    /// For the futures that the fibers in this place wait for; made when the first one does.
    pub(crate) waking: OnceCell<Box<Waking>>,
}

impl Fiber {
    #[track_caller]
    pub(crate) fn vacant(index: u32) -> Self {
        Self {
            index,
            id: Cell::new(0),
            state: Cell::new(State::Vacant),
            woke: Cell::new(Woke::Notified),
            waits_for: Cell::new(WaitsFor::Wake),
            parked_at: Cell::new(std::ptr::null()),
            ticket: Cell::new(0),
            shields: Cell::new(0),
            unwinding: Cell::new(false),
            interrupted: Cell::new(false),
            interrupts: RefCell::default(),
            coroutine: UnsafeCell::new(None),
            yielder: Cell::new(std::ptr::null()),
            captures: Cell::new(false),
            captured: RefCell::default(),
            context: UnsafeCell::new(context::Context::new()),
            name: RefCell::default(),
            spawned_at: Cell::new(Location::caller()),
            parent: Cell::new(0),
            waking: OnceCell::new(),
        }
    }

    /// Asks for what [`resume`](Self::resume) will touch: of many fibers, the stack of each is cold, and a cache miss
    /// or two takes longer than the switch.
    #[inline(always)]
    pub(crate) fn prefetch_stack(&self) {
        let address = self.parked_at.get();
        prefetch(address);
        prefetch(address.wrapping_add(CACHE_LINE));
    }

    /// Asks for what [`prefetch_stack`](Self::prefetch_stack) and `resume` read of this.
    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        let address = std::ptr::from_ref(self).cast::<u8>();
        prefetch(address);
        prefetch(address.wrapping_add(CACHE_LINE));
        prefetch(address.wrapping_add(2 * CACHE_LINE));
    }

    /// Puts a new fiber into the place.
    pub(crate) fn occupy(&self, id: u64, coroutine: RawFiber<(), (), ()>) {
        debug_assert_eq!(self.state.get(), State::Vacant);
        self.id.set(id);
        self.state.set(State::Later);
        // SAFETY: the place is vacant: nothing refers to a coroutine in it.
        unsafe { *self.coroutine.get() = Some(coroutine) };
    }

    /// Runs the fiber until it parks or ends. Called by the loop only. True when it has ended.
    // Inlined: after a switch each return from a call is predicted wrongly, and costs more than the switch.
    #[inline(always)]
    pub(crate) fn resume(&self) -> bool {
        self.state.set(State::Running);
        // SAFETY: while the fiber runs nobody touches the coroutine: this is called by the loop only, which runs one
        // fiber at a time, and `discard` and `leak` are called by the loop as well, between fibers.
        let Some(running) = (unsafe { &mut *self.coroutine.get() }) else { return false };
        // SAFETY: the context lives in the arena, which outlives this call, and is taken out again below; a panic
        // does not leave the fiber: its body catches all.
        let outer = unsafe { context::swap(self.context.get()) };
        let ended = running.resume(()).as_return().is_some();
        // SAFETY: what was in place before is still valid: it was entered further down on this stack.
        unsafe { context::swap(outer) };
        ended
    }

    /// Called by the fiber itself, first of all.
    pub(crate) fn started(&self, yielder: &RawYielder<(), ()>) {
        self.yielder.set(yielder);
    }

    /// Leaves the fiber where it is; the loop goes on with others.
    // Inlined: after a switch each return from a call is predicted wrongly, and costs more than the switch.
    #[inline(always)]
    pub(crate) fn suspend(&self) {
        let yielder = self.yielder.get();
        assert!(!yielder.is_null(), "a fiber that has not started cannot wait");
        let here = 0_u8;
        self.parked_at.set(&here);
        loop {
            // SAFETY: set in `started` to the yielder of this fiber's coroutine, which lives on the fiber's own
            // stack for as long as the fiber runs; and the fiber is running, for it called this.
            unsafe { (*yielder).suspend(()) }
            if !self.captures.get() {
                return;
            }
            self.capture();
        }
    }

    /// It was resumed to look at its own stack, and to go on waiting.
    #[cold]
    fn capture(&self) {
        self.captures.set(false);
        *self.captured.borrow_mut() = Some(Box::new(Stack::here()));
    }

    /// The calls that a suspended fiber stands in; `None` when it has not begun, or runs.
    pub(crate) fn stack(&self) -> Option<Stack> {
        if !matches!(self.state.get(), State::Ready | State::Parked) {
            return None;
        }
        self.captures.set(true);
        // SAFETY: the fiber is suspended, so nobody else uses the coroutine; the fiber suspends again at once, having
        // touched nothing but `captures` and `captured`.
        if let Some(coroutine) = unsafe { &mut *self.coroutine.get() } {
            coroutine.resume(());
        }
        self.captured.take().map(|stack| *stack)
    }

    /// Parks the running fiber. What woke it; interrupts stay undelivered.
    #[inline(always)]
    pub(crate) fn park(&self, waits_for: WaitsFor) -> Woke {
        self.waits_for.set(waits_for);
        self.state.set(State::Parked);
        self.suspend();
        self.ticket.set(self.ticket.get() + 1);
        self.woke.get()
    }

    /// Throws the first interrupt, if there is one and the fiber is not shielded.
    #[inline]
    pub(crate) fn deliver(&self) {
        if self.is_interrupted() {
            self.throw_first();
        }
    }

    #[cold]
    fn throw_first(&self) {
        let interrupt = {
            let mut interrupts = self.interrupts.borrow_mut();
            let first = interrupts.remove(0);
            self.interrupted.set(!interrupts.is_empty());
            first
        };
        self.unwinding.set(true);
        // `resume_unwind` and not `panic!`: this is no error, and the panic hook must not report it.
        match interrupt {
            Interrupt::Throw(payload) => resume_unwind(payload),
            Interrupt::Stuck => panic!("{}", hub::with(|hub| hub.stuck_report())),
            interrupt => resume_unwind(Box::new(interrupt)),
        }
    }

    /// Whether it waits for a future and somebody, on whatever thread, has its waker.
    pub(crate) fn may_be_woken_by_a_future(&self) -> bool {
        self.state.get() == State::Parked
            && self.waits_for.get() == WaitsFor::Future
            && self.waking.get().is_some_and(|waking| waking.is_shared())
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

    /// Adds an interrupt. True when the fiber waited and now has to be resumed.
    pub(crate) fn interrupt(&self, interrupt: Interrupt) -> bool {
        if self.state.get() == State::Vacant {
            return false;
        }
        self.interrupts.borrow_mut().push(interrupt);
        self.interrupted.set(true);
        if self.state.get() == State::Later {
            self.state.set(State::New);
            return true;
        }
        self.shields.get() == 0 && self.wake(self.ticket.get(), Woke::Interrupted)
    }

    /// Takes the interrupt of a timeout back that has not been delivered.
    pub(crate) fn withdraw(&self, timeout: u64) {
        if self.interrupted.get() {
            let mut interrupts = self.interrupts.borrow_mut();
            interrupts.retain(|other| !matches!(other, Interrupt::Timeout(id) if *id == timeout));
            self.interrupted.set(!interrupts.is_empty());
        }
    }

    /// Whether a kill waits to be delivered.
    pub(crate) fn is_killed(&self) -> bool {
        self.interrupted.get()
            && self.interrupts.borrow().iter().any(|other| matches!(other, Interrupt::Kill))
    }

    /// Whether something waits to be thrown into it, and may be now.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.get() && self.shields.get() == 0
    }

    /// Interrupts wait until the guard goes.
    pub(crate) fn shield(&self) -> Shield<'_> {
        self.shields.set(self.shields.get() + 1);
        Shield(self)
    }

    /// Ends a shield whose guard was forgotten.
    pub(crate) fn unshield(&self) {
        self.shields.set(self.shields.get() - 1);
    }

    /// Drops what a fiber that never started would have run.
    pub(crate) fn discard(&self) {
        // SAFETY: the fiber does not run: called by the loop, between fibers.
        let coroutine = unsafe { (*self.coroutine.get()).take() };
        drop(coroutine);
    }

    /// Gives up on a fiber that cannot be unwound: its stack stays as it is for ever.
    pub(crate) fn leak(&self) {
        // SAFETY: as in `discard`.
        std::mem::forget(unsafe { (*self.coroutine.get()).take() });
    }

    /// Empties the place after the end of its fiber.
    pub(crate) fn vacate(&self) {
        self.state.set(State::Vacant);
        self.ticket.set(self.ticket.get() + 1);
        self.yielder.set(std::ptr::null());
        self.shields.set(0);
        self.unwinding.set(false);
        // The stack returns to its pool.
        self.discard();
        // Dropped last: it may own anything.
        let interrupts =
            if self.interrupted.replace(false) { self.interrupts.take() } else { Vec::new() };
        let name = self.name.take();
        // SAFETY: the fiber has ended: its context is not current, and nothing else refers to it.
        let context = unsafe { std::mem::take(&mut *self.context.get()) };
        drop((interrupts, name, context));
    }

    /// For messages: the name, or the number.
    pub(crate) fn label(&self) -> String {
        match &*self.name.borrow() {
            Some(name) => format!("{name} (fiber {})", self.id.get()),
            None => format!("fiber {}", self.id.get()),
        }
    }
}

/// See [`Fiber::shield`].
pub(crate) struct Shield<'a>(&'a Fiber);

impl Drop for Shield<'_> {
    fn drop(&mut self) {
        self.0.unshield();
    }
}

/// The interrupt that a caught panic was, if it was one.
pub(crate) fn as_interrupt(payload: &(dyn Any + Send)) -> Option<&Interrupt> {
    payload.downcast_ref()
}

/// Names a fiber for as long as it lives, and nothing after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FiberRef {
    pub(crate) hub: u32,
    pub(crate) index: u32,
    pub(crate) id: u64,
}

/// The right to end one wait of one fiber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    hub: u32,
    index: u32,
    ticket: u64,
}

impl Waiter {
    /// For the wait that `fiber` is about to begin.
    pub(crate) fn new(hub: u32, fiber: &Fiber) -> Self {
        Self { hub, index: fiber.index, ticket: fiber.ticket.get() }
    }

    /// For the wait that the running fiber is about to begin.
    ///
    /// # Panics
    /// Outside a fiber, and where waiting is forbidden.
    pub(crate) fn current() -> Self {
        hub::with(|hub| Self::new(hub.number, hub.running()))
    }

    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Ends the wait: the fiber goes on in its turn. False when that wait is already over.
    pub(crate) fn wake(&self) -> bool {
        self.wake_as(Woke::Notified)
    }

    pub(crate) fn wake_as(&self, woke: Woke) -> bool {
        // Without a hub, or on another one, the fiber has ended with its own.
        hub::try_with(|hub| hub.number == self.hub && hub.wake(self.index, self.ticket, woke))
            .unwrap_or(false)
    }
}
