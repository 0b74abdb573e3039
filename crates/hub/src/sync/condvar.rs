//! [`Condvar`].

use std::fmt;
use std::time::{Duration, Instant};

use super::{MutexGuard, WaitList, deadline};
use crate::fiber::{WaitsFor, Woke};

/// Lets fibers wait, with a [`Mutex`](super::Mutex) released meanwhile, until another tells them to look again.
///
/// Notifications go to those who wait in turn. A fiber that is killed after it was notified and before it has
/// the lock again passes the notification on, so none is lost; the one it reaches may find nothing changed, as
/// with any condition variable.
///
/// ```
/// use std::rc::Rc;
/// use warren_hub::{run, spawn, sync::{Condvar, Mutex}};
///
/// run(|| {
///     let shared = Rc::new((Mutex::new(Vec::new()), Condvar::new()));
///     let consumer = spawn({
///         let shared = shared.clone();
///         move || {
///             let (items, more) = &*shared;
///             let mut items = more.wait_while(items.lock(), |items| items.is_empty());
///             items.pop()
///         }
///     });
///     shared.0.lock().push(1);
///     shared.1.notify_one();
///     assert_eq!(consumer.join().unwrap(), Some(1));
/// });
/// ```
#[derive(Default)]
pub struct Condvar {
    waiting: WaitList,
}

impl Condvar {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { waiting: WaitList::new() }
    }

    /// Releases the lock, waits for a notification, and takes the lock again.
    ///
    /// # Suspends
    /// Until notified and until the lock is free.
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.wait_until(guard, None).0
    }

    /// As [`wait`](Self::wait), for a notification at most for `timeout`. With whether the time ran out; the lock
    /// is held in any case.
    ///
    /// # Suspends
    /// Until notified, or for `timeout`, and until the lock is free.
    pub fn wait_timeout<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> (MutexGuard<'a, T>, bool) {
        self.wait_until(guard, deadline(timeout))
    }

    /// Waits while `condition` holds.
    ///
    /// # Suspends
    /// As [`wait`](Self::wait), as often as needed; not when it does not hold to begin with.
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while condition(&mut guard) {
            guard = self.wait(guard);
        }
        guard
    }

    /// Waits while `condition` holds, at most for `timeout`. With whether it still holds.
    ///
    /// # Suspends
    /// As [`wait_while`](Self::wait_while).
    pub fn wait_timeout_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> (MutexGuard<'a, T>, bool) {
        let deadline = deadline(timeout);
        let mut timed_out = false;
        loop {
            let holds = condition(&mut guard);
            if timed_out || !holds {
                return (guard, holds);
            }
            (guard, timed_out) = self.wait_until(guard, deadline);
        }
    }

    /// Wakes the first that waits.
    pub fn notify_one(&self) {
        self.waiting.wake_one();
    }

    /// Wakes all who wait.
    pub fn notify_all(&self) {
        self.waiting.wake_all();
    }

    fn wait_until<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<Instant>,
    ) -> (MutexGuard<'a, T>, bool) {
        /// Passes the notification on when the wait for the lock unwinds.
        struct Notified<'a>(&'a Condvar);
        impl Drop for Notified<'_> {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let mutex = guard.mutex();
        drop(guard);
        let woke = self.waiting.wait_or(0, deadline, WaitsFor::Notice, |notified| {
            if notified {
                self.notify_one();
            }
        });
        if woke == Woke::TimedOut {
            return (mutex.lock(), true);
        }
        let notified = Notified(self);
        let guard = mutex.lock();
        std::mem::forget(notified);
        (guard, false)
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").field("waited_for", &!self.waiting.is_empty()).finish()
    }
}
