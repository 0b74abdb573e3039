//! Hearing how a fiber on another hub ends.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::fiber::as_interrupt;
use crate::join::{Ending, JoinError, Panic};
use crate::shared::SharedEvent;

/// A fiber on a hub of another thread.
///
/// It is a [`Future`] too, which gives what [`join`](Self::join) gives: async code of any runtime may await it.
pub struct RemoteJoin<T>(Arc<RemoteOutcome<T>>);

struct RemoteOutcome<T> {
    state: Mutex<RemoteState<T>>,
    /// Set once there is an ending.
    ended: SharedEvent,
}

struct RemoteState<T> {
    ending: Option<Ending<T>>,
    /// Of the task that polled last.
    task: Option<Waker>,
}

impl<T> RemoteOutcome<T> {
    fn lock(&self) -> MutexGuard<'_, RemoteState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves a result in any case: what is dropped without having run was killed.
struct RemoteFinish<T>(Arc<RemoteOutcome<T>>);

impl<T> RemoteFinish<T> {
    fn with(&self, ending: Ending<T>) {
        let mut state = self.0.lock();
        if state.ending.is_none() {
            state.ending = Some(ending);
            let task = state.task.take();
            // A waker may run anything: not under the lock.
            drop(state);
            self.0.ended.set();
            if let Some(task) = task {
                task.wake();
            }
        }
    }
}

impl<T> Drop for RemoteFinish<T> {
    fn drop(&mut self) {
        self.with(Err(JoinError::Killed));
    }
}

/// What runs `body` on another hub, and where its result can be awaited. Both may go to another thread if `body` and its
/// result may.
pub(crate) fn remote<T: 'static, F: FnOnce() -> T + 'static>(
    body: F,
) -> (RemoteJoin<T>, impl FnOnce() + use<T, F> + 'static) {
    let outcome = Arc::new(RemoteOutcome {
        state: Mutex::new(RemoteState { ending: None, task: None }),
        ended: SharedEvent::new(),
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
    /// On the loop of a hub, which must not wait. When the result was taken by [`Future`] already.
    pub fn join(self) -> Result<T, JoinError> {
        self.0.ended.wait_always();
        self.0.lock().ending.take().expect("the result was taken already")
    }

    /// As [`join`](Self::join), at most for `timeout`; gives the handle back when that runs out.
    ///
    /// # Suspends
    /// On a fiber, until the other has ended, or for `timeout`.
    ///
    /// # Errors
    /// The handle itself when the time is over.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    pub fn join_timeout(self, timeout: Duration) -> Result<Result<T, JoinError>, Self> {
        if self.wait_timeout(timeout) { Ok(self.join()) } else { Err(self) }
    }

    /// Waits for the fiber's end, at most for `timeout`; the result stays where it is. Whether it has ended.
    ///
    /// # Suspends
    /// On a fiber, until the other has ended, or for `timeout`.
    ///
    /// # Panics
    /// On the loop of a hub, which must not wait.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.0.ended.wait_timeout(timeout).is_ok()
    }

    /// Whether the fiber has ended.
    pub fn is_finished(&self) -> bool {
        self.0.ended.is_set()
    }
}

impl<T> Future for RemoteJoin<T> {
    type Output = Result<T, JoinError>;

    /// Once it was ready it never is again.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.lock();
        if let Some(ending) = state.ending.take() {
            return Poll::Ready(ending);
        }
        let before = state.task.replace(cx.waker().clone());
        drop(state);
        // What dropping a foreign waker does is not ours to know.
        drop(before);
        Poll::Pending
    }
}

impl<T> fmt::Debug for RemoteJoin<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteJoin").field("finished", &self.is_finished()).finish()
    }
}
