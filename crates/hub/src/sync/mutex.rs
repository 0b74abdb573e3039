//! [`Mutex`].

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::ops::{Deref, DerefMut};

use super::{Permit, Semaphore};

/// A value that one fiber at a time may use, across waits. Within a stretch of code that does not wait, a
/// `RefCell` does: fibers of one hub never run at the same time.
///
/// There is no poisoning: a fiber that panics with the lock held releases it.
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
    /// Until it is free. A fiber that locks twice waits for ever.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let permit = self.semaphore.acquire();
        MutexGuard { value: self.value.borrow_mut(), _permit: permit }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let permit = self.semaphore.try_acquire()?;
        Some(MutexGuard { value: self.value.borrow_mut(), _permit: permit })
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").field("value", &&self.value).finish_non_exhaustive()
    }
}

/// The lock of a [`Mutex`], released when dropped.
pub struct MutexGuard<'a, T: ?Sized> {
    // Ends before the permit does: fields are dropped in this order.
    value: RefMut<'a, T>,
    _permit: Permit<'a>,
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
