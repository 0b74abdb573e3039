//! [`Semaphore`].

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use super::WaitList;
use crate::fiber::Woke;
use crate::timer::TimedOut;

/// Permits that fibers take and give back. Those who wait are served in turn: a permit that is given back goes
/// to the first of them, and nobody overtakes.
#[derive(Default)]
pub struct Semaphore {
    free: Cell<usize>,
    waiting: WaitList,
}

impl Semaphore {
    /// A semaphore with `permits` free ones.
    pub const fn new(permits: usize) -> Self {
        Self { free: Cell::new(permits), waiting: WaitList::new() }
    }

    /// Takes a permit, which goes back when it is dropped.
    ///
    /// # Suspends
    /// Until one is free.
    pub fn acquire(&self) -> Permit<'_> {
        if !self.take_free() {
            self.waiting.wait_always(None);
        }
        Permit(self)
    }

    /// Takes a permit, and waits at most for `timeout`.
    ///
    /// # Suspends
    /// Until one is free.
    ///
    /// # Errors
    /// [`TimedOut`].
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_>, TimedOut> {
        if self.take_free() || self.waiting.wait(Some(Instant::now() + timeout)) == Woke::Notified {
            return Ok(Permit(self));
        }
        Err(TimedOut)
    }

    /// Takes a permit if one is free and nobody waits for it.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        self.take_free().then(|| Permit(self))
    }

    /// Adds a permit: what dropping a [`Permit`] does.
    pub fn release(&self) {
        // Who is woken has the permit: it never becomes free in between.
        if !self.waiting.wake_one() {
            self.free.set(self.free.get() + 1);
        }
    }

    /// Permits that are free.
    pub fn available(&self) -> usize {
        self.free.get()
    }

    fn take_free(&self) -> bool {
        let free = self.free.get();
        let takes = free > 0 && self.waiting.is_empty();
        if takes {
            self.free.set(free - 1);
        }
        takes
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore").field("available", &self.available()).finish_non_exhaustive()
    }
}

/// A permit of a [`Semaphore`]. Dropping it gives it back.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct Permit<'a>(&'a Semaphore);

impl Permit<'_> {
    /// Keeps the permit for good: the semaphore has one less, until someone calls `release`.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}
