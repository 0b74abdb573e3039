//! Greenlets: functions that hand control, and a value, to one another by name. Python's `greenlet`.
//!
//! ```text
//!   root code                 switch of a greenlet            another greenlet
//!   ping.switch(v) --> trampoline: resume ping
//!                        <-- suspend: "v to pong"
//!                      resume pong ----------------------------> runs
//!                        <------------------------------- returns w
//!                      w goes to its parent: the root
//!   = w <------------- end of the trampoline
//! ```
//! A greenlet never resumes another one: it tells the trampoline, which runs below on the root's stack, whom to
//! resume next. So switches in circles do not pile up stacks.
//!
//! | Python | here |
//! |---|---|
//! | `greenlet(run)`, `getcurrent()` | [`Greenlet::new`], [`Greenlet::current`] |
//! | `g.switch(v)`, `g.throw(e)` | [`Greenlet::switch`], [`Greenlet::throw`] |
//! | `g.throw(GreenletExit)` | [`Greenlet::kill`], with the value for the parent |
//! | `g.parent`, the main greenlet | [`Greenlet::parent`], [`Greenlet::set_parent`]; `None` |
//! | `bool(g)`, `g.dead` | [`Greenlet::is_alive`], [`Greenlet::is_dead`] |
//! | `g.gr_context`, `ContextVar` | [`Greenlet::locals`], [`Greenlet::set_locals`]; [`FiberLocal`](crate::FiberLocal) |
//! | `settrace(f)`, `gettrace()` | [`settrace`], [`gettrace`] |
//!
//! A greenlet is no one's but its thread's: any fiber of the thread may switch to it or drop it. Whoever does is the
//! root for as long as it runs, and gets what reaches the root.

mod trace;
mod trampoline;

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell, UnsafeCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::Rc;

use crate::context::{self, Runs};
use crate::local::{Locals, Scope};
use crate::stack::{Owner, StackPool, StackSize};
use crate::{BODY_BYTES_MAX, RawFiber, RawYielder};

pub use trace::{TraceEvent, TraceHook, Transfer, gettrace, settrace};
use trampoline::{Arrival, Hop, Message};

/// The payload of the panic that ends a greenlet: raised by [`Greenlet::kill`], and when the last handle of a
/// suspended one is dropped. It ends at the greenlet's root: the parent gets a value instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GreenletExit;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Suspended,
    Running,
    Dead,
}

type Coroutine<T> = RawFiber<Arrival<T>, Hop<T>, Message<T>>;

struct Inner<T: 'static> {
    id: u64,
    state: Cell<State>,
    /// `None`: the root.
    parent: RefCell<Option<Greenlet<T>>>,
    /// `None` once it is dead. While it runs, borrowed by the trampoline.
    coroutine: UnsafeCell<Option<Coroutine<T>>>,
    /// Set when it starts; valid while it runs.
    yielder: Cell<*const RawYielder<Arrival<T>, Hop<T>>>,
    /// What the parent gets when it is killed.
    exit: Cell<Option<T>>,
    /// Its fiber-locals, once it has run.
    scope: OnceCell<Rc<Scope>>,
}

impl<T: 'static> Runs for Inner<T> {
    fn scope(&self) -> &Rc<Scope> {
        self.scope.get_or_init(Rc::default)
    }
}

thread_local! {
    /// Of the greenlet made last.
    static LAST_ID: Cell<u64> = const { Cell::new(0) };
}

/// A greenlet among others that exchange values of type `T`. Clones are the same greenlet.
///
/// Code that runs in no greenlet of this type is the *root*, the ancestor of all: Python's main greenlet. When a
/// greenlet returns, its parent gets the value; when it panics, the panic goes on in its parent. Dropping the last
/// handle of a suspended greenlet raises [`GreenletExit`] in it, and comes back when it has ended. A greenlet that owns
/// a handle of its own is never dropped. It stays on its thread, which the compiler checks.
///
/// ```
/// use warren_fiber::Greenlet;
///
/// let pong = Greenlet::new(|mut n: u32| loop {
///     n = Greenlet::parent_switch(n + 1);
/// });
/// assert_eq!(pong.switch(1), 2);
/// assert_eq!(pong.switch(10), 11);
/// ```
pub struct Greenlet<T: 'static>(Rc<Inner<T>>);

impl<T: 'static> Clone for Greenlet<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: 'static> Greenlet<T> {
    /// A greenlet that runs `body` from its first switch on, whose value `body` gets. Its parent is the greenlet
    /// that makes it.
    ///
    /// # Panics
    /// When no stack can be mapped.
    #[track_caller]
    pub fn new(body: impl FnOnce(T) -> T + 'static) -> Self {
        Self::with_stack_size(StackSize::default(), body)
    }

    /// As [`new`](Self::new), with a stack of the given size.
    ///
    /// # Panics
    /// When no stack can be mapped.
    #[track_caller]
    pub fn with_stack_size(size: StackSize, body: impl FnOnce(T) -> T + 'static) -> Self {
        if BODY_BYTES_MAX < size_of_val(&body) {
            return Self::place(size, Box::new(body));
        }
        Self::place(size, body)
    }

    #[track_caller]
    fn place(size: StackSize, body: impl FnOnce(T) -> T + 'static) -> Self {
        let stack = match StackPool::local().take(size) {
            Ok(stack) => stack,
            Err(error) => panic!("a greenlet cannot be made: {error}"),
        };
        let id = LAST_ID.get() + 1;
        LAST_ID.set(id);
        // SAFETY: without a name.
        unsafe { stack.set_owner(Owner::new("greenlet", id, Location::caller())) };
        let greenlet = Self(Rc::new(Inner {
            id,
            state: Cell::new(State::New),
            parent: RefCell::new(Self::current()),
            coroutine: UnsafeCell::new(None),
            yielder: Cell::new(std::ptr::null()),
            exit: Cell::new(None),
            scope: OnceCell::new(),
        }));
        let coroutine = Coroutine::with_stack(stack, move |yielder, first| {
            if let Some(own) = Self::current() {
                own.0.yielder.set(yielder);
            }
            // Everything in one: also the destructors of what a body holds that is never called.
            match catch_unwind(AssertUnwindSafe(|| body(trampoline::arrive(first)))) {
                Ok(value) => Message::Value(value),
                Err(payload) => Message::Throw(payload),
            }
        });
        // SAFETY: it does not run yet, so the trampoline has not borrowed it.
        unsafe { *greenlet.0.coroutine.get() = Some(coroutine) };
        greenlet
    }

    /// The greenlet that runs: Python's `getcurrent`. `None` in the root, and within a greenlet of another type.
    pub fn current() -> Option<Self> {
        let inner = context::innermost::<Inner<T>>()?.as_ptr();
        // SAFETY: the pointer is an `Rc`'s, whose greenlet is kept by the trampoline while it runs, as it does now.
        unsafe {
            Rc::increment_strong_count(inner);
            Some(Self(Rc::from_raw(inner)))
        }
    }

    /// Its number, for messages: counted from 1 on each thread.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Goes to this greenlet with `value`, and returns what is sent back to the caller at some time. A dead
    /// greenlet passes the value on to its parent.
    ///
    /// # Suspends
    /// The calling greenlet, until someone switches to it.
    ///
    /// # Panics
    /// With what is thrown to the caller. When this greenlet runs already: further down on this stack, or in
    /// a fiber that waits.
    #[inline]
    pub fn switch(&self, value: T) -> T {
        trampoline::hop(Some(self.clone()), Message::Value(value))
    }

    /// Goes to this greenlet and raises a panic with `payload` where it waits. One that has not started dies at
    /// once, and the panic goes on in its parent; a dead one passes it on, too.
    ///
    /// # Suspends
    /// As [`switch`](Self::switch).
    ///
    /// # Panics
    /// As [`switch`](Self::switch): with `payload` itself when nobody catches it on its way to the caller.
    pub fn throw(&self, payload: Box<dyn Any + Send>) -> T {
        trampoline::hop(Some(self.clone()), Message::Throw(payload))
    }

    /// Ends this greenlet: raises [`GreenletExit`] where it waits, so that its destructors run; and its parent gets
    /// `value`, if it does not catch the exit and return another one. A dead one passes the value on to its parent.
    ///
    /// # Suspends
    /// As [`switch`](Self::switch).
    ///
    /// # Panics
    /// As [`switch`](Self::switch).
    pub fn kill(&self, value: T) -> T {
        if self.is_dead() {
            return self.switch(value);
        }
        self.0.exit.set(Some(value));
        self.throw(Box::new(GreenletExit))
    }

    /// Goes from the greenlet that runs to its parent with `value`; returns what is sent back.
    ///
    /// # Suspends
    /// The calling greenlet.
    ///
    /// # Panics
    /// With what is thrown to the caller. In the root, which has no parent.
    #[inline]
    pub fn parent_switch(value: T) -> T {
        trampoline::hop(Self::parent_of_current(), Message::Value(value))
    }

    /// As [`parent_switch`](Self::parent_switch), with a panic for the parent.
    ///
    /// # Suspends
    /// The calling greenlet.
    ///
    /// # Panics
    /// As [`parent_switch`](Self::parent_switch).
    pub fn parent_throw(payload: Box<dyn Any + Send>) -> T {
        trampoline::hop(Self::parent_of_current(), Message::Throw(payload))
    }

    /// Goes from the greenlet that runs to the root with `value`; returns what is sent back. In the root itself,
    /// that is `value`.
    ///
    /// # Suspends
    /// The calling greenlet.
    ///
    /// # Panics
    /// With what is thrown to the caller.
    pub fn root_switch(value: T) -> T {
        trampoline::hop(None, Message::Value(value))
    }

    fn parent_of_current() -> Option<Self> {
        Self::current().expect("the root has no parent to switch to").parent()
    }

    /// The parent; `None`: the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.parent.borrow().clone()
    }

    /// Makes another greenlet the parent; `None`: the root.
    ///
    /// # Panics
    /// When this greenlet is an ancestor of `parent`: it would be its own.
    pub fn set_parent(&self, parent: Option<&Self>) {
        let mut ancestor = parent.cloned();
        while let Some(greenlet) = ancestor {
            assert!(greenlet != *self, "a greenlet cannot be its own ancestor");
            ancestor = greenlet.parent();
        }
        let before = self.0.parent.replace(parent.cloned());
        // It may be the last handle.
        drop(before);
    }

    /// Whether it has been switched to at least once, and has not ended: Python's `bool(g)`.
    pub fn is_alive(&self) -> bool {
        matches!(self.0.state.get(), State::Suspended | State::Running)
    }

    /// Whether it has ended.
    pub fn is_dead(&self) -> bool {
        self.0.state.get() == State::Dead
    }

    /// Whether it has been switched to at least once.
    pub fn is_started(&self) -> bool {
        self.0.state.get() != State::New
    }

    /// Its [fiber-locals](crate::FiberLocal): Python's `gr_context`. Empty unless it has set some, or was given
    /// some.
    pub fn locals(&self) -> Locals {
        self.0.scope().locals()
    }

    /// Gives it other fiber-locals: a [copy](Locals::copy) of someone's, or the same set to share. Best before
    /// it starts.
    pub fn set_locals(&self, locals: Locals) {
        self.0.scope().set_locals(locals);
    }

    /// The greenlet that gets what is sent here: itself, or its first living ancestor.
    fn living(self) -> Option<Self> {
        let mut target = Some(self);
        while let Some(greenlet) = target {
            if !greenlet.is_dead() {
                return Some(greenlet);
            }
            target = greenlet.parent();
        }
        None
    }
}

impl<T: 'static> Drop for Greenlet<T> {
    fn drop(&mut self) {
        if Rc::strong_count(&self.0) == 1 && self.0.state.get() == State::Suspended {
            trampoline::finish(self);
        }
    }
}

impl<T: 'static> Drop for Inner<T> {
    fn drop(&mut self) {
        // One after the other, for a long line of dead ancestors would recurse as deeply.
        let mut next = self.parent.take();
        while let Some(parent) = next {
            let last = Rc::strong_count(&parent.0) == 1 && parent.is_dead();
            next = if last { parent.0.parent.take() } else { None };
            drop(parent);
        }
    }
}

impl<T: 'static> PartialEq for Greenlet<T> {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: 'static> Eq for Greenlet<T> {}

impl<T: 'static> fmt::Debug for Greenlet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Greenlet");
        debug.field("id", &self.0.id).field("state", &self.0.state.get()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
