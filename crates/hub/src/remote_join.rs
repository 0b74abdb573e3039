//! Hearing how a fiber on another hub ends.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::fiber::as_interrupt;
use crate::hub;
use crate::join::{Ending, JoinError, Panic};
use crate::remote::{self, RemoteWaker};

/// A fiber on a hub of another thread.
pub struct RemoteJoin<T>(Arc<RemoteOutcome<T>>);

struct RemoteOutcome<T> {
    state: Mutex<RemoteState<T>>,
    ended: Condvar,
}

struct RemoteState<T> {
    ending: Option<Ending<T>>,
    waker: Option<RemoteWaker>,
}

/// Leaves a result in any case: what is dropped without having run was killed.
struct RemoteFinish<T>(Arc<RemoteOutcome<T>>);

impl<T> RemoteFinish<T> {
    fn with(&self, ending: Ending<T>) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ending.is_none() {
            state.ending = Some(ending);
            self.0.ended.notify_all();
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
    }
}

impl<T> Drop for RemoteFinish<T> {
    fn drop(&mut self) {
        self.with(Err(JoinError::Killed));
    }
}

/// What runs `body` on another hub, and where its result can be awaited.
pub(crate) fn remote<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> (RemoteJoin<T>, impl FnOnce() + Send + 'static) {
    let outcome = Arc::new(RemoteOutcome {
        state: Mutex::new(RemoteState { ending: None, waker: None }),
        ended: Condvar::new(),
    });
    let finish = RemoteFinish(outcome.clone());
    let run = move || match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => finish.with(Ok(value)),
        Err(payload) => match as_interrupt(&*payload) {
            Some(_) => {
                finish.with(Err(JoinError::Killed));
                resume_unwind(payload)
            }
            None => finish.with(Err(JoinError::Panicked(Panic::new(payload)))),
        },
    };
    (RemoteJoin(outcome), run)
}

impl<T> RemoteJoin<T> {
    /// Waits for the fiber's end: on a fiber by parking it, on a thread without a hub by blocking.
    ///
    /// # Suspends
    /// On a fiber, until the other has ended.
    ///
    /// # Errors
    /// When the fiber panicked, was killed, or its hub ended before it.
    ///
    /// # Panics
    /// On the loop of a hub, which must not wait.
    pub fn join(self) -> Result<T, JoinError> {
        let locked = || self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if hub::try_with(|_| ()).is_some() {
            remote::wait(|waker| {
                let mut state = locked();
                match state.ending {
                    Some(_) => waker.wake(),
                    None => state.waker = Some(waker),
                }
            });
        }
        let mut state = locked();
        loop {
            match state.ending.take() {
                Some(ending) => return ending,
                None => state = self.0.ended.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Whether the fiber has ended.
    pub fn is_finished(&self) -> bool {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).ending.is_some()
    }
}

impl<T> fmt::Debug for RemoteJoin<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteJoin").field("finished", &self.is_finished()).finish()
    }
}
