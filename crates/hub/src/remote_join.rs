//! Hearing how a fiber on another hub ends.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::fiber::as_interrupt;
use crate::hub;
use crate::join::{Ending, JoinError, Panic};
use crate::remote::{self, RemoteWaker};

/// A fiber on a hub of another thread.
///
/// It is a [`Future`] too, which gives what [`join`](Self::join) gives: async code of any runtime may await it.
pub struct RemoteJoin<T>(Arc<RemoteOutcome<T>>);

struct RemoteOutcome<T> {
    state: Mutex<RemoteState<T>>,
    ended: Condvar,
}

struct RemoteState<T> {
    ending: Option<Ending<T>>,
    waker: Option<RemoteWaker>,
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
            self.0.ended.notify_all();
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
            let task = state.task.take();
            // A waker may run anything: not under the lock.
            drop(state);
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
        state: Mutex::new(RemoteState { ending: None, waker: None, task: None }),
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
        if hub::try_with(|_| ()).is_some() {
            remote::wait(|waker| {
                let mut state = self.0.lock();
                match state.ending {
                    Some(_) => waker.wake(),
                    None => state.waker = Some(waker),
                }
            });
        }
        let mut state = self.0.lock();
        loop {
            match state.ending.take() {
                Some(ending) => return ending,
                None => state = self.0.ended.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Whether the fiber has ended.
    pub fn is_finished(&self) -> bool {
        self.0.lock().ending.is_some()
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
