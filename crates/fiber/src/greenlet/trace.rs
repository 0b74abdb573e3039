//! A hook that sees each transfer of control: the base of profilers, and of detectors of code that blocks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TraceEvent {
    /// A value went over.
    Switch,
    /// A panic went over.
    Throw,
}

/// A transfer of control from one greenlet to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transfer {
    /// With a value or with a panic.
    pub event: TraceEvent,
    /// The [id](super::Greenlet::id) of the greenlet that was left. `None`: the root.
    pub origin: Option<u64>,
    /// The id of the greenlet that goes on. `None`: the root.
    pub target: Option<u64>,
}

/// What is called for each transfer on a thread.
pub type TraceHook = Rc<dyn Fn(&Transfer)>;

thread_local! {
    /// All that a switch costs while no hook is set.
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static HOOK: RefCell<Option<TraceHook>> = const { RefCell::new(None) };
}

/// Sets the hook of this thread and returns the one before, which the caller puts back in the end. It is called in
/// the target, before that goes on. If it panics it is unset, and the panic goes on in the target instead of what
/// was sent. Transfers that the hook itself makes are not reported.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use warren_fiber::Greenlet;
/// use warren_fiber::greenlet::settrace;
///
/// let count = Rc::new(Cell::new(0));
/// let seen = count.clone();
/// let before = settrace(Some(Rc::new(move |_| seen.set(seen.get() + 1))));
/// Greenlet::new(|n: u32| n).switch(1);
/// settrace(before);
/// assert_eq!(count.get(), 2);
/// ```
pub fn settrace(hook: Option<TraceHook>) -> Option<TraceHook> {
    ACTIVE.set(hook.is_some());
    HOOK.try_with(|place| place.replace(hook)).ok().flatten()
}

/// The hook of this thread.
pub fn gettrace() -> Option<TraceHook> {
    HOOK.try_with(|hook| hook.borrow().clone()).ok().flatten()
}

pub(super) fn is_set() -> bool {
    ACTIVE.get()
}

#[cold]
pub(super) fn call(event: TraceEvent, origin: Option<u64>, target: Option<u64>) {
    /// Unsets a hook that panics.
    struct Unset;
    impl Drop for Unset {
        fn drop(&mut self) {
            drop(settrace(None));
        }
    }
    let Some(hook) = gettrace() else { return };
    ACTIVE.set(false);
    let unset = Unset;
    hook(&Transfer { event, origin, target });
    std::mem::forget(unset);
    // It may have set another one.
    ACTIVE.set(gettrace().is_some());
}
