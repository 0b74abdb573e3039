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

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::rc::Rc;

use corosensei::CoroutineResult;

use crate::context;
use crate::stack::{Owner, StackPool, StackSize};
use crate::{RawFiber, RawYielder};

/// What arrives in a greenlet.
enum Message<T> {
    Value(T),
    Throw(Box<dyn Any + Send>),
}

/// Whom the trampoline resumes next. `None`: the root.
struct Hop<T: 'static> {
    target: Option<Greenlet<T>>,
    message: Message<T>,
}

/// The payload of [`Greenlet::kill`]: the value that the parent gets.
struct Exit<T>(T);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Suspended,
    Running,
    Dead,
}

type Coroutine<T> = RawFiber<Message<T>, Hop<T>, Message<T>>;

struct Inner<T: 'static> {
    state: Cell<State>,
    /// `None`: the root.
    parent: RefCell<Option<Greenlet<T>>>,
    /// `None` while the trampoline runs it, and once it is dead.
    coroutine: RefCell<Option<Coroutine<T>>>,
    yielder: Cell<*const RawYielder<Message<T>, Hop<T>>>,
}

/// A greenlet among others that exchange values of type `T`. Clones are the same greenlet.
///
/// Code that runs in no greenlet of this type is the *root*, the ancestor of all. When a greenlet returns, its
/// parent gets the value; when it panics, the panic goes on in its parent. Dropping the last handle of a suspended
/// greenlet unwinds it. A greenlet that owns a handle of its own is never dropped.
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
        let stack = match StackPool::local().take(size) {
            Ok(stack) => stack,
            Err(error) => panic!("a greenlet cannot be made: {error}"),
        };
        // SAFETY: without a name.
        unsafe { stack.set_owner(Owner::new("greenlet", 0, Location::caller())) };
        let greenlet = Self(Rc::new(Inner {
            state: Cell::new(State::New),
            parent: RefCell::new(Self::current()),
            coroutine: RefCell::new(None),
            yielder: Cell::new(std::ptr::null()),
        }));
        // Weak: the stack must not keep the greenlet alive that owns it.
        let own = Rc::downgrade(&greenlet.0);
        let coroutine = Coroutine::with_stack(stack, move |yielder, first| {
            if let Some(own) = own.upgrade() {
                own.yielder.set(yielder);
            }
            drop(own);
            let value = match first {
                Message::Value(value) => value,
                thrown => return thrown,
            };
            match catch_unwind(AssertUnwindSafe(|| body(value))) {
                Ok(value) => Message::Value(value),
                Err(payload) => Message::Throw(payload),
            }
        });
        *greenlet.0.coroutine.borrow_mut() = Some(coroutine);
        greenlet
    }

    /// The greenlet that runs; `None` in the root, and within a greenlet of another type.
    pub fn current() -> Option<Self> {
        context::innermost()?.downcast::<Inner<T>>().ok().map(Self)
    }

    /// Goes to this greenlet with `value`, and returns what is sent back to the caller at some time. A dead
    /// greenlet passes the value on to its parent.
    ///
    /// # Suspends
    /// The calling greenlet, until someone switches to it.
    ///
    /// # Panics
    /// With what is thrown to the caller. When this greenlet runs already, further down on this stack.
    pub fn switch(&self, value: T) -> T {
        hop(Some(self.clone()), Message::Value(value))
    }

    /// Goes to this greenlet and raises a panic with `payload` where it waits. One that has not started dies at
    /// once, and the panic goes on in its parent.
    ///
    /// # Suspends
    /// As [`switch`](Self::switch).
    ///
    /// # Panics
    /// As [`switch`](Self::switch): with `payload` itself when nobody catches it on its way to the caller.
    pub fn throw(&self, payload: Box<dyn Any + Send>) -> T {
        hop(Some(self.clone()), Message::Throw(payload))
    }

    /// Goes from the greenlet that runs to its parent with `value`; returns what is sent back.
    ///
    /// # Suspends
    /// The calling greenlet.
    ///
    /// # Panics
    /// With what is thrown to the caller. In the root, which has no parent.
    pub fn parent_switch(value: T) -> T {
        let current = Self::current().expect("the root has no parent to switch to");
        let parent = current.0.parent.borrow().clone();
        drop(current);
        hop(parent, Message::Value(value))
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
        *self.0.parent.borrow_mut() = parent.cloned();
    }

    /// Whether it has been switched to at least once, and has not ended.
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

impl<T: Send + 'static> Greenlet<T> {
    /// Ends this greenlet: it is unwound quietly from where it waits, its destructors run, and its parent gets
    /// `value`. Python's `GreenletExit`. A dead one passes the value on to its parent.
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
        self.throw(Box::new(Exit(value)))
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
        f.debug_struct("Greenlet").field("state", &self.0.state.get()).finish_non_exhaustive()
    }
}

/// Leaves the running greenlet, or the root, for `target`; returns what comes back.
fn hop<T: 'static>(target: Option<Greenlet<T>>, message: Message<T>) -> T {
    let answer = match Greenlet::<T>::current() {
        None => bounce(Hop { target, message }),
        Some(current) => {
            let yielder = current.0.yielder.get();
            current.0.state.set(State::Suspended);
            // Its own stack must not keep it alive while it is suspended.
            let own = Rc::downgrade(&current.0);
            drop(current);
            // SAFETY: set when the greenlet started, to the yielder on its own stack; and it is running, since
            // it is the current one.
            let answer = unsafe { (*yielder).suspend(Hop { target, message }) };
            if let Some(own) = own.upgrade() {
                own.state.set(State::Running);
            }
            answer
        }
    };
    match answer {
        Message::Value(value) => value,
        // Not `panic!`: the hook has seen it when it was raised.
        Message::Throw(payload) => resume_unwind(payload),
    }
}

/// The trampoline: resumes one greenlet after the other until it is the root's turn.
fn bounce<T: 'static>(mut hop: Hop<T>) -> Message<T> {
    loop {
        let Some(greenlet) = hop.target.and_then(Greenlet::living) else { return hop.message };
        let taken = greenlet.0.coroutine.borrow_mut().take();
        let Some(mut coroutine) = taken else {
            panic!("a greenlet that is running, further down on this stack, cannot be switched to");
        };
        let never_started = greenlet.0.state.replace(State::Running) == State::New;
        debug_assert!(never_started || coroutine.started());
        context::enter(greenlet.0.clone());
        let result = coroutine.resume(hop.message);
        context::leave();
        hop = match result {
            CoroutineResult::Yield(hop) => {
                *greenlet.0.coroutine.borrow_mut() = Some(coroutine);
                hop
            }
            CoroutineResult::Return(message) => {
                greenlet.0.state.set(State::Dead);
                // The stack goes back to its pool.
                drop(coroutine);
                Hop { target: greenlet.parent(), message: quiet(message) }
            }
        };
    }
}

/// A greenlet that was killed ends with a value.
fn quiet<T: 'static>(message: Message<T>) -> Message<T> {
    match message {
        Message::Throw(payload) => match payload.downcast::<Exit<T>>() {
            Ok(exit) => Message::Value(exit.0),
            Err(payload) => Message::Throw(payload),
        },
        value => value,
    }
}

#[cfg(test)]
mod tests;
