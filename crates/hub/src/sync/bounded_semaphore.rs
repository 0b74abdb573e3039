//! [`BoundedSemaphore`].

use std::fmt;
use std::ops::Deref;

use super::Semaphore;

/// A [`Semaphore`] that refuses a permit too many: who releases twice what was taken once is told. gevent's
/// `BoundedSemaphore`.
///
/// ```
/// use warren_hub::sync::{BoundedSemaphore, ReleasedTooOften};
///
/// let semaphore = BoundedSemaphore::new(1);
/// semaphore.try_acquire().unwrap().forget();
/// assert_eq!(semaphore.release(), Ok(()));
/// assert_eq!(semaphore.release(), Err(ReleasedTooOften));
/// ```
pub struct BoundedSemaphore(Semaphore);

/// All permits of a [`BoundedSemaphore`] are free already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the semaphore was released more often than acquired")]
pub struct ReleasedTooOften;

impl BoundedSemaphore {
    /// A semaphore with `permits` free ones, and never more.
    pub const fn new(permits: usize) -> Self {
        Self(Semaphore::with_most(permits, permits))
    }

    /// Adds a permit. One that is dropped after its place was released by this changes nothing.
    ///
    /// # Errors
    /// [`ReleasedTooOften`] when all permits are free.
    pub fn release(&self) -> Result<(), ReleasedTooOften> {
        if self.0.release_bounded() { Ok(()) } else { Err(ReleasedTooOften) }
    }
}

impl Default for BoundedSemaphore {
    /// With one permit.
    fn default() -> Self {
        Self::new(1)
    }
}

/// All else is as with a semaphore without bound.
impl Deref for BoundedSemaphore {
    type Target = Semaphore;

    fn deref(&self) -> &Semaphore {
        &self.0
    }
}

impl fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedSemaphore")
            .field("available", &self.available())
            .finish_non_exhaustive()
    }
}
