//! [`RLock`].

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use super::Semaphore;
use crate::join::FiberId;
use crate::spawn::current;
use crate::timer::TimedOut;

/// A lock that the fiber which holds it may take again. gevent's `RLock`.
///
/// It is free again once every guard is dropped. Fibers that wait get it in turn. The greenlets of one fiber
/// are one owner.
///
/// ```
/// use warren_hub::{run, sync::RLock};
///
/// run(|| {
///     let lock = RLock::new();
///     let outer = lock.acquire();
///     let inner = lock.acquire();
///     drop(outer);
///     assert!(lock.locked());
///     drop(inner);
///     assert!(!lock.locked());
/// });
/// ```
pub struct RLock {
    free: Semaphore,
    owner: Cell<Option<FiberId>>,
    /// Guards of the owner.
    count: Cell<usize>,
}

impl RLock {
    /// A free lock.
    pub const fn new() -> Self {
        Self { free: Semaphore::new(1), owner: Cell::new(None), count: Cell::new(0) }
    }

    /// Takes the lock, once more when this fiber holds it.
    ///
    /// # Suspends
    /// While another fiber holds it.
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn acquire(&self) -> RLockGuard<'_> {
        let me = me();
        if self.owner.get() != Some(me) {
            self.free.acquire().forget();
        }
        self.hold(me)
    }

    /// As [`acquire`](Self::acquire), and waits at most for `timeout`.
    ///
    /// # Suspends
    /// While another fiber holds it.
    ///
    /// # Errors
    /// [`TimedOut`].
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<RLockGuard<'_>, TimedOut> {
        let me = me();
        if self.owner.get() != Some(me) {
            self.free.acquire_timeout(timeout)?.forget();
        }
        Ok(self.hold(me))
    }

    /// Takes the lock if no other fiber holds it or waits for it.
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn try_acquire(&self) -> Option<RLockGuard<'_>> {
        let me = me();
        if self.owner.get() != Some(me) {
            self.free.try_acquire()?.forget();
        }
        Some(self.hold(me))
    }

    /// Whether a fiber holds it.
    pub fn locked(&self) -> bool {
        self.count.get() > 0
    }

    /// Whether the running fiber holds it.
    pub fn is_owned(&self) -> bool {
        self.locked() && self.owner.get() == current()
    }

    fn hold(&self, me: FiberId) -> RLockGuard<'_> {
        self.owner.set(Some(me));
        self.count.set(self.count.get() + 1);
        RLockGuard { lock: self, _of_this_thread: PhantomData }
    }
}

fn me() -> FiberId {
    match current() {
        Some(id) => id,
        None => panic!("only a fiber can hold an RLock"),
    }
}

impl Default for RLock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLock")
            .field("owner", &self.owner.get())
            .field("count", &self.count.get())
            .finish()
    }
}

/// One hold of an [`RLock`], ended when dropped.
#[derive(Debug)]
#[must_use = "a guard that is dropped releases the lock"]
pub struct RLockGuard<'a> {
    lock: &'a RLock,
    _of_this_thread: PhantomData<*const ()>,
}

impl Drop for RLockGuard<'_> {
    fn drop(&mut self) {
        let count = self.lock.count.get() - 1;
        self.lock.count.set(count);
        if count == 0 {
            self.lock.owner.set(None);
            self.lock.free.release();
        }
    }
}
