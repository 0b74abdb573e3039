//! [`Mutex`].

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::{Permit, Semaphore};
use crate::timer::TimedOut;

/// A value that one fiber at a time may use, across waits. Within a stretch of code that does not wait, a
/// `RefCell` does: fibers of one hub never run at the same time.
///
/// The lock goes to those who wait in turn. There is no poisoning: a fiber that panics or is killed with the lock
/// held releases it, and the next finds the value as it was left.
pub struct Mutex<T: ?Sized> {
    semaphore: Semaphore,
    value: RefCell<T>,
}

impl<T> Mutex<T> {
    /// A free mutex.
    pub const fn new(value: T) -> Self {
        Self { semaphore: Semaphore::new(1), value: RefCell::new(value) }
    }

    /// The value, when nobody else has a reference.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock, in turn.
    ///
    /// # Suspends
    /// Until it is free. A fiber that locks twice waits for ever; [`RLock`](super::RLock) lets it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.guard(self.semaphore.acquire())
    }

    /// Waits for the lock, in turn, at most for `timeout`.
    ///
    /// # Suspends
    /// Until it is free.
    ///
    /// # Errors
    /// [`TimedOut`].
    pub fn lock_timeout(&self, timeout: Duration) -> Result<MutexGuard<'_, T>, TimedOut> {
        Ok(self.guard(self.semaphore.acquire_timeout(timeout)?))
    }

    /// Takes the lock if it is free and nobody waits for it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        Some(self.guard(self.semaphore.try_acquire()?))
    }

    /// Whether a fiber holds the lock.
    pub fn is_locked(&self) -> bool {
        self.semaphore.locked()
    }

    /// The value: who has the mutex for itself needs no lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    fn guard<'a>(&'a self, permit: Permit<'a>) -> MutexGuard<'a, T> {
        MutexGuard { value: self.value.borrow_mut(), mutex: self, _permit: permit }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("value", &&self.value).finish_non_exhaustive()
    }
}

/// The lock of a [`Mutex`], released when dropped.
#[must_use = "a guard that is dropped releases the lock"]
pub struct MutexGuard<'a, T: ?Sized> {
    // Ends before the permit does: fields are dropped in this order.
    value: RefMut<'a, T>,
    mutex: &'a Mutex<T>,
    _permit: Permit<'a>,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// Whose lock it is.
    pub(super) fn mutex(&self) -> &'a Mutex<T> {
        self.mutex
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
