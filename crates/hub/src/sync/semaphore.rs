//! [`Semaphore`].

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use super::{WaitList, deadline};
use crate::fiber::{WaitsFor, Woke};
use crate::timer::TimedOut;
use crate::wait;

/// Permits that fibers take and give back. gevent's `Semaphore`.
///
/// Those who wait are served in turn: a permit that is given back goes to the first of them, and nobody
/// overtakes. A fiber that is killed as it gets one passes it on.
///
/// ```
/// use std::rc::Rc;
/// use warren_hub::{join_all, run, spawn, sync::Semaphore, yield_now};
///
/// run(|| {
///     let two_at_once = Rc::new(Semaphore::new(2));
///     join_all((0..10).map(|_| {
///         let two_at_once = two_at_once.clone();
///         spawn(move || {
///             let _permit = two_at_once.acquire();
///             yield_now();
///         })
///     }));
///     assert_eq!(two_at_once.available(), 2);
/// });
/// ```
pub struct Semaphore {
    /// Above zero only while nobody waits.
    free: Cell<usize>,
    /// A semaphore never has more free permits than this.
    most: usize,
    acquiring: WaitList,
    /// Who waits for a permit to be free, and does not take it.
    watching: WaitList,
}

impl Semaphore {
    /// A semaphore with `permits` free ones.
    pub const fn new(permits: usize) -> Self {
        Self::with_most(permits, usize::MAX)
    }

    pub(super) const fn with_most(permits: usize, most: usize) -> Self {
        Self {
            free: Cell::new(permits),
            most,
            acquiring: WaitList::new(),
            watching: WaitList::new(),
        }
    }

    /// Takes a permit, which goes back when it is dropped.
    ///
    /// # Suspends
    /// Until one is free.
    pub fn acquire(&self) -> Permit<'_> {
        if !self.take_free() {
            while !self.wait_for_permit(None) {}
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
        if self.take_free() || self.wait_for_permit(deadline(timeout)) {
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
        let _ = self.release_bounded();
    }

    /// Waits until a permit is free, and does not take it: another fiber may, before this one goes on.
    ///
    /// # Suspends
    /// Until then; not when one is free already.
    pub fn wait(&self) {
        if self.locked() {
            self.watching.wait_for(None, WaitsFor::Permit);
        }
    }

    /// As [`wait`](Self::wait), at most for `timeout`.
    ///
    /// # Suspends
    /// Until one is free; not when one is free already.
    ///
    /// # Errors
    /// [`TimedOut`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), TimedOut> {
        if self.locked()
            && self.watching.wait_for(deadline(timeout), WaitsFor::Permit) == Woke::TimedOut
        {
            return Err(TimedOut);
        }
        Ok(())
    }

    /// Permits that are free. gevent's `counter`.
    pub fn available(&self) -> usize {
        self.free.get()
    }

    /// Whether no permit is free.
    pub fn locked(&self) -> bool {
        self.free.get() == 0
    }

    /// False when all permits there ever were are free.
    pub(super) fn release_bounded(&self) -> bool {
        let free = self.free.get();
        if free == self.most {
            return false;
        }
        // Who is woken has the permit: it never becomes free in between.
        if !self.acquiring.wake_one() {
            self.free.set(free + 1);
            self.watching.wake_all();
        }
        true
    }

    fn take_free(&self) -> bool {
        let free = self.free.get();
        let takes = free > 0 && self.acquiring.is_empty();
        if takes {
            self.free.set(free - 1);
        }
        takes
    }

    fn wait_for_permit(&self, deadline: Option<Instant>) -> bool {
        let woke = self.acquiring.wait_or(0, deadline, WaitsFor::Permit, |notified| {
            if notified {
                self.release();
            }
        });
        woke == Woke::Notified
    }
}

impl Default for Semaphore {
    /// With one permit.
    fn default() -> Self {
        Self::new(1)
    }
}

impl wait::Completion for Semaphore {
    fn is_complete(&self) -> bool {
        !self.locked()
    }

    fn waiting(&self) -> &WaitList {
        &self.watching
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
