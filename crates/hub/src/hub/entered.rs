//! Which hub runs on this thread, and how the running fiber waits.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use super::{Alarm, Hub};
use crate::fiber::{Fiber, FiberRef, Shield, Waiter, WaitsFor, Woke};
use crate::wheel::Key;

thread_local! {
    /// The hub that runs on this thread; null when none does.
    static HUB: Cell<*const Hub> = const { Cell::new(std::ptr::null()) };
    /// Fibers of the thread's hubs that wait while they unwind. As long as there are any, every fiber finds the thread
    /// panicking.
    pub(super) static PARKED_UNWINDING: Cell<u32> = const { Cell::new(0) };
}

/// Calls `f` with this thread's hub.
///
/// # Panics
/// When no hub runs on this thread.
#[inline]
pub(crate) fn with<R>(f: impl FnOnce(&Hub) -> R) -> R {
    match try_with(f) {
        Some(result) => result,
        None => panic!("no hub runs on this thread: call this from within warren_hub::run"),
    }
}

/// As [`with`], `None` without a hub.
#[inline]
pub(crate) fn try_with<R>(f: impl FnOnce(&Hub) -> R) -> Option<R> {
    let hub = HUB.get();
    if hub.is_null() {
        return None;
    }
    // SAFETY: `Entered::new` sets the pointer to a hub that outlives it and clears it before the hub goes.
    // The reference is shared; a hub is reached through cells only.
    Some(f(unsafe { &*hub }))
}

/// A handle of this thread's hub: for code that may go on when that has ended, as it can in a generator.
///
/// # Panics
/// When no hub runs on this thread.
pub(crate) fn keep() -> Rc<Hub> {
    with(|_| {
        let hub = HUB.get();
        // SAFETY: not null, or `with` would not call this: an `Rc`'s pointer, from `Entered::new`, whose hub lives.
        unsafe {
            Rc::increment_strong_count(hub);
            Rc::from_raw(hub)
        }
    })
}

/// The fiber that runs on this thread; `None` on a loop and without a hub.
pub(crate) fn current_fiber() -> Option<FiberRef> {
    try_with(|hub| hub.current().map(|fiber| hub.name_of(fiber))).flatten()
}

/// Parks the running fiber until `waiter`, made for it just now, is woken or `deadline` comes. A fiber that
/// unwinds does not wait: for it, the time has run out. `what` is for reports.
///
/// # Suspends
/// Always, but for a fiber that unwinds.
#[inline(always)]
pub(crate) fn park_for(waiter: &Waiter, deadline: Option<Instant>, what: WaitsFor) -> Woke {
    // Others should not run while this thread counts as panicking: a lock of the standard library that they drop
    // meanwhile would be poisoned.
    if with(Hub::is_unwinding) {
        return Woke::TimedOut;
    }
    park_always(waiter, deadline, what)
}

/// As [`park_for`], also while the fiber unwinds: for waits that have no other way to end, such as for a lock.
#[inline(always)]
pub(crate) fn park_always(waiter: &Waiter, deadline: Option<Instant>, what: WaitsFor) -> Woke {
    with(|hub| {
        let fiber = hub.running();
        let _unwinding = Unwinding::of(hub, fiber);
        fiber.deliver();
        let _armed = deadline.map(|deadline| Armed(hub, hub.at(deadline, Alarm::Wake(*waiter))));
        let woke = fiber.park(what);
        if woke == Woke::Interrupted {
            fiber.deliver();
        }
        woke
    })
}

/// The wait of a fiber that unwinds: nothing more is thrown into it, which would end the process, and what the others
/// take from it is that the thread counts as panicking.
pub(crate) struct Unwinding<'a> {
    _shield: Shield<'a>,
}

impl<'a> Unwinding<'a> {
    /// For the wait that the running fiber is about to begin; `None` when it does not unwind.
    pub(crate) fn of(hub: &Hub, fiber: &'a Fiber) -> Option<Self> {
        hub.is_unwinding().then(|| {
            PARKED_UNWINDING.set(PARKED_UNWINDING.get() + 1);
            fiber.unwinding.set(true);
            Self { _shield: fiber.shield() }
        })
    }
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        PARKED_UNWINDING.set(PARKED_UNWINDING.get() - 1);
    }
}

/// Cancels a timer at the end of a wait, however that comes.
struct Armed<'a>(&'a Hub, Key);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.cancel(self.1);
    }
}

/// Marks a hub as this thread's for as long as it lives. What was there before comes back then.
pub(crate) struct Entered(*const Hub);

impl Entered {
    pub(crate) fn new(hub: &Rc<Hub>) -> Self {
        Self(HUB.replace(Rc::as_ptr(hub)))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        HUB.set(self.0);
    }
}
