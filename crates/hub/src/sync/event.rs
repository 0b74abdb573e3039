//! [`Event`].

use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use super::{WaitList, deadline};
use crate::fiber::{WaitsFor, Woke};
use crate::timer::TimedOut;
use crate::wait;

/// A flag that fibers wait for. gevent's `Event`.
///
/// ```
/// use std::rc::Rc;
/// use warren_hub::{run, spawn, sync::Event};
///
/// run(|| {
///     let start = Rc::new(Event::new());
///     let waiter = spawn({
///         let start = start.clone();
///         move || start.wait()
///     });
///     start.set();
///     waiter.join().unwrap();
/// });
/// ```
#[derive(Default)]
pub struct Event {
    set: Cell<bool>,
    waiting: WaitList,
}

impl Event {
    /// An event that is not set.
    pub const fn new() -> Self {
        Self { set: Cell::new(false), waiting: WaitList::new() }
    }

    /// Sets the flag and wakes all who wait, in the order in which they came.
    pub fn set(&self) {
        self.set.set(true);
        self.waiting.wake_all();
    }

    /// Clears the flag: who waits from now on waits for the next [`set`](Self::set).
    pub fn clear(&self) {
        self.set.set(false);
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.set.get()
    }

    /// Waits until the flag is set. One who was woken goes on even if it has been cleared meanwhile.
    ///
    /// # Suspends
    /// Until then; not when it is set already.
    pub fn wait(&self) {
        if !self.set.get() {
            self.waiting.wait_for(None, WaitsFor::Event);
        }
    }

    /// Waits until the flag is set, at most for `timeout`.
    ///
    /// # Suspends
    /// Until then; not when it is set already.
    ///
    /// # Errors
    /// [`TimedOut`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), TimedOut> {
        if self.set.get()
            || self.waiting.wait_for(deadline(timeout), WaitsFor::Event) == Woke::Notified
        {
            return Ok(());
        }
        Err(TimedOut)
    }
}

impl wait::Completion for Event {
    fn is_complete(&self) -> bool {
        self.is_set()
    }

    fn waiting(&self) -> &WaitList {
        &self.waiting
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("set", &self.is_set()).finish_non_exhaustive()
    }
}
