//! Callbacks at a time to come, which can be put off (Twisted's `IReactorTime`).
//!
//! All timing of this crate passes here. It goes by the hub's clock, or by a [`Clock`](crate::testing::Clock) that a
//! test has installed on this thread and advances by hand.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use warren_hub::{Timer, contain};

use crate::testing::clock;

/// The time, the same for all callbacks of one turn of the loop.
///
/// # Panics
/// When no hub runs on this thread, and no test's clock.
pub fn now() -> Instant {
    clock::installed().map_or_else(warren_hub::now, |clock| clock.now())
}

/// Calls `callback` on the loop once `delay` has passed, rounded up to a millisecond. Dropping what this gives does not
/// cancel the call. A callback that panics is logged and harms nobody else.
///
/// ```
/// use std::time::Duration;
/// use warren_reactor::{call_later, testing::Clock};
///
/// let clock = Clock::install();
/// let call = call_later(Duration::from_secs(1), || println!("never said"));
/// call.delay(Duration::from_secs(1));
/// clock.advance(Duration::from_millis(1_999));
/// assert!(call.is_active());
/// assert!(call.cancel());
/// ```
///
/// # Panics
/// When no hub runs on this thread, and no test's clock.
pub fn call_later(delay: Duration, callback: impl FnOnce() + 'static) -> DelayedCall {
    let due = now() + delay;
    let state = State { due: Cell::new(due), armed: Cell::default(), armed_for: Cell::new(due) };
    let call = DelayedCall(Rc::new(Call { state, callback: RefCell::new(Some(callback)) }));
    call.arm();
    call
}

/// Whether anything can be put off: a test that feeds bytes by hand may have no time at all.
pub(crate) fn has_time() -> bool {
    clock::installed().is_some() || warren_hub::is_running()
}

/// Calls `callback` in the next turn of the loop; by a test's clock, when that advances. A panic is logged.
pub(crate) fn call_soon(callback: impl FnOnce() + 'static) {
    if clock::installed().is_some() {
        call_later(Duration::ZERO, callback);
    } else {
        warren_hub::call_soon(move || drop(contain("a call of the loop", callback)));
    }
}

/// A call that waits for its time, or has had it. Clones are the same call.
#[derive(Clone)]
pub struct DelayedCall(Rc<dyn Delayed>);

struct Call<F> {
    state: State,
    /// Until it has been called or cancelled.
    callback: RefCell<Option<F>>,
}

struct State {
    due: Cell<Instant>,
    armed: Cell<Option<Armed>>,
    /// When the timer goes off: not after `due`. A call that is put off again and again, as the timeout of a connection
    /// is with each packet, does not touch its timer each time.
    armed_for: Cell<Instant>,
}

enum Armed {
    Hub(Timer),
    Test(clock::Key),
}

/// A [`Call`] with any callback.
trait Delayed {
    fn state(&self) -> &State;
    fn is_active(&self) -> bool;
    fn call(&self);
    /// False when there is none any more.
    fn forget(&self) -> bool;
}

impl<F: FnOnce() + 'static> Delayed for Call<F> {
    fn state(&self) -> &State {
        &self.state
    }

    fn is_active(&self) -> bool {
        self.callback.borrow().is_some()
    }

    fn call(&self) {
        let callback = self.callback.take();
        if let Some(callback) = callback {
            // What has gone wrong is in the log.
            let _ = contain("a delayed call", callback);
        }
    }

    fn forget(&self) -> bool {
        // Dropped outside the borrow: what it holds may look at this call.
        let callback = self.callback.take();
        callback.is_some()
    }
}

impl DelayedCall {
    pub(crate) fn downgrade(&self) -> WeakDelayedCall {
        WeakDelayedCall(Rc::downgrade(&self.0))
    }

    /// Takes the call back. False when it has been made or cancelled already.
    pub fn cancel(&self) -> bool {
        let active = self.0.forget();
        self.disarm();
        active
    }

    /// Makes the call `delay` from now. False when it has been made or cancelled already.
    pub fn reset(&self, delay: Duration) -> bool {
        self.move_to(now() + delay)
    }

    /// Makes the call later by `delay`. False when it has been made or cancelled already.
    pub fn delay(&self, delay: Duration) -> bool {
        self.move_to(self.time() + delay)
    }

    /// Whether the call is still to come.
    pub fn is_active(&self) -> bool {
        self.0.is_active()
    }

    /// When the call is to be made, or was.
    pub fn time(&self) -> Instant {
        self.0.state().due.get()
    }

    fn move_to(&self, due: Instant) -> bool {
        if !self.is_active() {
            return false;
        }
        self.0.state().due.set(due);
        if due < self.0.state().armed_for.get() {
            self.disarm();
            self.arm();
        }
        true
    }

    fn arm(&self) {
        let state = self.0.state();
        let due = state.due.get();
        state.armed_for.set(due);
        let call = self.clone();
        let fire = move || call.fire();
        let armed = match clock::installed() {
            Some(clock) => Armed::Test(clock.at(due, Box::new(fire))),
            None => Armed::Hub(warren_hub::call_later(
                due.saturating_duration_since(warren_hub::now()),
                fire,
            )),
        };
        state.armed.set(Some(armed));
    }

    fn disarm(&self) {
        match self.0.state().armed.take() {
            Some(Armed::Hub(timer)) => drop(timer.cancel()),
            Some(Armed::Test(key)) => {
                if let Some(clock) = clock::installed() {
                    clock.cancel(key);
                }
            }
            None => {}
        }
    }

    fn fire(&self) {
        self.0.state().armed.set(None);
        if now() < self.time() && self.is_active() {
            return self.arm();
        }
        self.0.call();
    }
}

/// A [`DelayedCall`] that is kept by the loop only, for what the call itself keeps.
#[derive(Clone)]
pub(crate) struct WeakDelayedCall(Weak<dyn Delayed>);

impl WeakDelayedCall {
    pub(crate) fn cancel(&self) {
        if let Some(call) = self.0.upgrade() {
            DelayedCall(call).cancel();
        }
    }
}

impl fmt::Debug for DelayedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayedCall")
            .field("time", &self.time())
            .field("active", &self.is_active())
            .finish()
    }
}
