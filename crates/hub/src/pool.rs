//! [`Pool`]: fibers that belong together, and not too many of them at once.

mod group;
mod imap;

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

pub use group::Group;
pub use imap::{Imap, ImapUnordered};

use crate::join::JoinHandle;
use crate::timer::TimedOut;

/// A [`Group`] of at most so many fibers: to start one more waits until another has ended. gevent's `Pool`. Clones
/// are the same pool.
///
/// ```
/// use warren_hub::{Pool, run, yield_now};
///
/// run(|| {
///     let pool = Pool::new(2);
///     let squares = pool.map(|n| { yield_now(); n * n }, 1..=5);
///     assert_eq!(squares, [1, 4, 9, 16, 25]);
/// });
/// ```
#[derive(Clone)]
pub struct Pool(Group);

/// A [`Pool`] has no room. What was to run comes back.
#[derive(thiserror::Error)]
#[error("the pool is full")]
pub struct PoolFull<F>(pub F);

impl<F> fmt::Debug for PoolFull<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolFull")
    }
}

impl Pool {
    /// A pool of at most `size` fibers. Of 0, none can ever be started.
    pub fn new(size: usize) -> Self {
        Self(Group::with_limit(size))
    }

    /// Starts a fiber if there is room.
    ///
    /// # Errors
    /// [`PoolFull`].
    ///
    /// # Panics
    /// As [`spawn`](crate::spawn()).
    #[track_caller]
    pub fn try_spawn<T: 'static, F: FnOnce() -> T + 'static>(
        &self,
        body: F,
    ) -> Result<JoinHandle<T>, PoolFull<F>> {
        match self.0.try_place() {
            Some(place) => Ok(place.spawn(body)),
            None => Err(PoolFull(body)),
        }
    }

    /// Starts a fiber, and waits for room at most for `timeout`.
    ///
    /// # Suspends
    /// While the pool is full.
    ///
    /// # Errors
    /// [`PoolFull`].
    ///
    /// # Panics
    /// As [`spawn`](crate::spawn()).
    #[track_caller]
    pub fn spawn_timeout<T: 'static, F: FnOnce() -> T + 'static>(
        &self,
        timeout: Duration,
        body: F,
    ) -> Result<JoinHandle<T>, PoolFull<F>> {
        match self.0.place_timeout(timeout) {
            Ok(place) => Ok(place.spawn(body)),
            Err(TimedOut) => Err(PoolFull(body)),
        }
    }

    /// Waits until there is room, and does not take it: another may, before this fiber goes on.
    ///
    /// # Suspends
    /// While the pool is full.
    pub fn wait_available(&self) {
        self.limit().wait();
    }

    /// As [`wait_available`](Self::wait_available), at most for `timeout`.
    ///
    /// # Suspends
    /// While the pool is full.
    ///
    /// # Errors
    /// [`TimedOut`].
    pub fn wait_available_timeout(&self, timeout: Duration) -> Result<(), TimedOut> {
        self.limit().wait_timeout(timeout)
    }

    /// How many fibers can be started before one has to wait.
    pub fn free_count(&self) -> usize {
        self.limit().available()
    }

    fn limit(&self) -> &crate::sync::Semaphore {
        self.0.limit().expect("a pool has a limit")
    }
}

/// All else is as with a group.
impl Deref for Pool {
    type Target = Group;

    fn deref(&self) -> &Group {
        &self.0
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("len", &self.len())
            .field("free", &self.free_count())
            .finish_non_exhaustive()
    }
}
