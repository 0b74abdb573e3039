//! A clock that stands still until a test advances it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

thread_local! {
    /// Of the test that runs on this thread. Not the hub's: tests with such a clock have none.
    static INSTALLED: RefCell<Option<Rc<Time>>> = const { RefCell::new(None) };
}

/// The clock of [`call_later`](crate::call_later) and [`now`](crate::now) on this thread, as long as it lives: time
/// passes when the test says so (Twisted's `task.Clock`).
///
/// ```
/// use std::{cell::Cell, rc::Rc, time::Duration};
/// use warren_reactor::{call_later, testing::Clock};
///
/// let clock = Clock::install();
/// let called = Rc::new(Cell::new(false));
/// let seen = called.clone();
/// call_later(Duration::from_secs(3600), move || seen.set(true));
/// clock.advance(Duration::from_secs(3600));
/// assert!(called.get());
/// ```
pub struct Clock(Rc<Time>);

pub(crate) struct Time {
    now: Cell<Instant>,
    last: Cell<u64>,
    calls: RefCell<BTreeMap<Key, Box<dyn FnOnce()>>>,
}

/// When, and in which order among those of the same time.
pub(crate) type Key = (Instant, u64);

/// The clock of this thread's test.
pub(crate) fn installed() -> Option<Rc<Time>> {
    INSTALLED.with_borrow(Clone::clone)
}

impl Clock {
    /// A clock for this thread. Calls that wait when it is dropped are never made.
    ///
    /// # Panics
    /// When this thread has one already.
    pub fn install() -> Self {
        let time = Rc::new(Time {
            now: Cell::new(Instant::now()),
            last: Cell::default(),
            calls: RefCell::default(),
        });
        let before = INSTALLED.replace(Some(time.clone()));
        assert!(before.is_none(), "this thread has a test's clock already");
        Self(time)
    }

    /// Lets `amount` pass: makes the calls that become due, in the order of their times, each at its time.
    pub fn advance(&self, amount: Duration) {
        let until = self.0.now() + amount;
        loop {
            let mut calls = self.0.calls.borrow_mut();
            match calls.first_key_value() {
                Some((key, _)) if key.0 <= until => {}
                _ => break,
            }
            let Some(((at, _), call)) = calls.pop_first() else { break };
            drop(calls);
            // A call may be late: its time was before it was asked for.
            self.0.now.set(at.max(self.0.now()));
            call();
        }
        self.0.now.set(until);
    }

    /// Lets `amount` pass at once, as for a loop that was busy for so long: the calls that become due are made late, in
    /// their order (what Twisted's `advance` does).
    pub fn jump(&self, amount: Duration) {
        self.0.now.set(self.0.now() + amount);
        self.advance(Duration::ZERO);
    }

    /// Advances by each of `amounts` in turn.
    pub fn pump(&self, amounts: impl IntoIterator<Item = Duration>) {
        for amount in amounts {
            self.advance(amount);
        }
    }

    /// The time it shows.
    pub fn now(&self) -> Instant {
        self.0.now()
    }

    /// How many calls wait.
    pub fn delayed_calls(&self) -> usize {
        self.0.calls.borrow().len()
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        INSTALLED.set(None);
        // After it is gone for those who look: what a call holds may ask for the time when dropped.
        let calls = self.0.calls.take();
        drop(calls);
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("delayed_calls", &self.delayed_calls())
            .finish_non_exhaustive()
    }
}

impl Time {
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    pub(crate) fn at(&self, due: Instant, call: Box<dyn FnOnce()>) -> Key {
        let key = (due, self.last.get() + 1);
        self.last.set(key.1);
        self.calls.borrow_mut().insert(key, call);
        key
    }

    pub(crate) fn cancel(&self, key: Key) {
        let call = self.calls.borrow_mut().remove(&key);
        drop(call);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::time::Duration;

    use super::Clock;
    use crate::{call_later, now};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn calls_are_made_in_order_each_at_its_time() {
        let clock = Clock::install();
        let start = now();
        let log = Rc::<RefCell<Vec<_>>>::default();
        for (name, seconds) in [("c", 3), ("a", 1), ("b", 1), ("d", 5)] {
            let log = log.clone();
            call_later(seconds * SECOND, move || {
                log.borrow_mut().push((name, (now() - start).as_secs()));
            });
        }
        clock.advance(4 * SECOND);
        assert_eq!(*log.borrow(), [("a", 1), ("b", 1), ("c", 3)]);
        assert_eq!((clock.delayed_calls(), clock.now() - start), (1, 4 * SECOND));
    }

    #[test]
    fn a_call_made_by_a_call_is_made_if_its_time_comes() {
        let clock = Clock::install();
        let log = Rc::<RefCell<Vec<_>>>::default();
        let seen = log.clone();
        call_later(SECOND, move || {
            call_later(SECOND, move || seen.borrow_mut().push("inner"));
        });
        clock.pump([SECOND, SECOND / 2]);
        assert!(log.borrow().is_empty());
        clock.advance(SECOND / 2);
        assert_eq!(*log.borrow(), ["inner"]);
    }

    #[test]
    fn a_call_can_be_put_off_brought_forward_and_cancelled() {
        let clock = Clock::install();
        let log = Rc::<RefCell<Vec<_>>>::default();
        let call = |name: &'static str| {
            let log = log.clone();
            call_later(2 * SECOND, move || log.borrow_mut().push(name))
        };
        let (late, early, never, twice) =
            (call("late"), call("early"), call("never"), call("twice"));
        assert!(late.delay(SECOND) && early.reset(SECOND) && never.cancel());
        assert!(twice.reset(4 * SECOND) && twice.reset(3 * SECOND));
        assert!(!never.cancel() && !never.delay(SECOND) && !never.is_active());
        clock.advance(SECOND);
        assert_eq!(*log.borrow(), ["early"]);
        assert!(!early.reset(SECOND));
        clock.advance(SECOND);
        assert_eq!(*log.borrow(), ["early"]);
        clock.advance(SECOND);
        assert_eq!(*log.borrow(), ["early", "late", "twice"]);
    }

    #[test]
    fn a_panic_in_a_call_harms_no_other() {
        let clock = Clock::install();
        let log = Rc::<RefCell<Vec<_>>>::default();
        let seen = log.clone();
        call_later(SECOND, || panic!("expected by a test"));
        call_later(SECOND, move || seen.borrow_mut().push("called"));
        clock.advance(SECOND);
        assert_eq!(*log.borrow(), ["called"]);
    }
}
