//! What happens at the ends of the loop's turns, and callbacks for the next one.

use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use crate::hub::{self, Alarm};
use crate::wheel::Key;

/// Called at the end of each turn of the loop, before it waits for the kernel: the place to act once on what
/// many callbacks and fibers have asked for.
pub trait TurnHook {
    /// Runs on the loop; must not wait. Work it makes for later (a callback, a ready fiber) keeps the loop
    /// from sleeping.
    fn turn_end(&self);
}

/// The order of hooks within one turn's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// First: finish the turn's work.
    Work = 0,
    /// Last: hand the results to the system.
    Flush = 1,
}

/// Ends the hook's calls when dropped.
#[must_use = "dropping the guard removes the hook"]
pub struct TurnHookGuard {
    phase: Phase,
    hook: Rc<dyn TurnHook>,
}

/// Calls `hook` at the end of every turn, in the order of the phases and then of the calls of this function.
///
/// # Panics
/// When no hub runs on this thread.
pub fn on_turn_end(phase: Phase, hook: Rc<dyn TurnHook>) -> TurnHookGuard {
    hub::with(|hub| hub.add_hook(phase, hook.clone()));
    TurnHookGuard { phase, hook }
}

impl Drop for TurnHookGuard {
    fn drop(&mut self) {
        hub::try_with(|hub| hub.remove_hook(self.phase, &self.hook));
    }
}

/// Calls `callback` on the loop in its next turn.
///
/// # Panics
/// When no hub runs on this thread.
pub fn call_soon(callback: impl FnOnce() + 'static) {
    hub::with(|hub| hub.call_soon(Box::new(callback)));
}

/// Calls `callback` on the loop once `delay` has passed, rounded up to a millisecond. Dropping the timer does
/// not cancel it.
///
/// # Panics
/// When no hub runs on this thread.
pub fn call_later(delay: Duration, callback: impl FnOnce() + 'static) -> Timer {
    hub::with(|hub| {
        let key = hub.at(hub.driver.now() + delay, Alarm::Call(Box::new(callback)));
        Timer { hub: hub.number, key }
    })
}

/// A callback that waits for its time.
#[derive(Debug)]
pub struct Timer {
    /// The number of the hub. Another one of this thread may have given the same key.
    hub: u32,
    key: Key,
}

impl Timer {
    /// Takes the callback back. False when it has been called or cancelled already, and elsewhere than on its hub.
    pub fn cancel(&self) -> bool {
        hub::try_with(|hub| hub.number == self.hub && hub.cancel(self.key)).unwrap_or(false)
    }
}

/// The time at which this turn of the loop began: cheaper than asking the system, and the same for all
/// callbacks of the turn.
///
/// # Panics
/// When no hub runs on this thread.
pub fn now() -> Instant {
    hub::with(|hub| hub.now())
}

/// The time of day, as the hub's driver knows it: code that asks here, and not `SystemTime::now`, can be
/// [simulated](crate::sim).
///
/// # Panics
/// When no hub runs on this thread.
pub fn system_time() -> SystemTime {
    hub::with(|hub| hub.driver.system_time())
}

/// Fills `bytes` by chance, good enough for keys; in a [simulation](crate::sim), by its seed.
///
/// # Panics
/// When no hub runs on this thread.
pub fn fill_random(bytes: &mut [u8]) {
    hub::with(|hub| hub.driver.random(bytes));
}
