//! [`AsyncResult`].

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

use super::WaitList;
use crate::fiber::Woke;
use crate::timer::TimedOut;

/// A value that is set once, and that any number of fibers wait for. gevent's `AsyncResult`.
///
/// To pass a failure on, let the value be a `Result`.
pub struct AsyncResult<T> {
    value: RefCell<Option<T>>,
    waiting: WaitList,
}

impl<T: Clone> AsyncResult<T> {
    /// Without a value yet.
    pub const fn new() -> Self {
        Self { value: RefCell::new(None), waiting: WaitList::new() }
    }

    /// Sets the value and wakes all who wait. The first value stays.
    ///
    /// # Errors
    /// With the value, when there is one already.
    pub fn set(&self, value: T) -> Result<(), T> {
        if self.is_ready() {
            return Err(value);
        }
        *self.value.borrow_mut() = Some(value);
        self.waiting.wake_all();
        Ok(())
    }

    /// Whether there is a value.
    pub fn is_ready(&self) -> bool {
        self.value.borrow().is_some()
    }

    /// The value, if there is one.
    pub fn peek(&self) -> Option<T> {
        self.value.borrow().clone()
    }

    /// The value.
    ///
    /// # Suspends
    /// Until there is one.
    pub fn get(&self) -> T {
        loop {
            if let Some(value) = self.peek() {
                return value;
            }
            self.waiting.wait(None);
        }
    }

    /// The value, if it comes within `timeout`.
    ///
    /// # Suspends
    /// Until there is one.
    ///
    /// # Errors
    /// [`TimedOut`].
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, TimedOut> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(value) = self.peek() {
                return Ok(value);
            }
            if self.waiting.wait(Some(deadline)) == Woke::TimedOut {
                return self.peek().ok_or(TimedOut);
            }
        }
    }
}

impl<T: Clone> Default for AsyncResult<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for AsyncResult<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncResult")
            .field("ready", &self.value.borrow().is_some())
            .finish_non_exhaustive()
    }
}
