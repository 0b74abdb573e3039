//! [`AsyncResult`].

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use super::{WaitList, deadline};
use crate::fiber::{WaitsFor, Woke};
use crate::links::{LinkId, Links};
use crate::timer::TimedOut;
use crate::turn::call_soon;
use crate::wait;

/// A value or an error that is set once, and that any number of fibers wait for. gevent's `AsyncResult`.
///
/// Without a second parameter there is no error to set, and `let Ok(value) = result.get();` is all it takes.
///
/// ```
/// use std::rc::Rc;
/// use warren_hub::{run, spawn, sync::AsyncResult};
///
/// run(|| {
///     let answer = Rc::new(AsyncResult::<u32, String>::new());
///     let asking = spawn({
///         let answer = answer.clone();
///         move || answer.get()
///     });
///     answer.set_exception("nobody knows".into()).unwrap();
///     assert_eq!(asking.join().unwrap(), Err("nobody knows".into()));
/// });
/// ```
pub struct AsyncResult<T, E = Infallible> {
    outcome: RefCell<Option<Result<T, E>>>,
    waiting: WaitList,
    links: Links<Callback<T, E>>,
}

type Callback<T, E> = Box<dyn FnOnce(Result<T, E>)>;

impl<T, E> AsyncResult<T, E> {
    /// Without a value yet.
    pub const fn new() -> Self {
        Self { outcome: RefCell::new(None), waiting: WaitList::new(), links: Links::new() }
    }

    /// Whether there is a value or an error.
    pub fn ready(&self) -> bool {
        self.outcome.borrow().is_some()
    }

    /// Whether there is a value.
    pub fn successful(&self) -> bool {
        matches!(&*self.outcome.borrow(), Some(Ok(_)))
    }

    /// Waits until there is a value or an error, and leaves it there.
    ///
    /// # Suspends
    /// Until then; not when there is one already.
    pub fn wait(&self) {
        if !self.ready() {
            self.waiting.wait_for(None, WaitsFor::Outcome);
        }
    }

    /// As [`wait`](Self::wait), at most for `timeout`.
    ///
    /// # Suspends
    /// Until then; not when there is one already.
    ///
    /// # Errors
    /// [`TimedOut`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), TimedOut> {
        if self.ready()
            || self.waiting.wait_for(deadline(timeout), WaitsFor::Outcome) == Woke::Notified
            || self.ready()
        {
            return Ok(());
        }
        Err(TimedOut)
    }
}

impl<T: Clone + 'static, E: Clone + 'static> AsyncResult<T, E> {
    /// Sets the value, and wakes all who wait, in the order in which they came. What was set first stays.
    ///
    /// # Errors
    /// With the value, when there is one or an error already.
    pub fn set(&self, value: T) -> Result<(), T> {
        self.settle(Ok(value)).map_err(|refused| match refused {
            Ok(value) => value,
            Err(_) => unreachable!("it is the value that was refused"),
        })
    }

    /// Sets the error, and wakes all who wait: [`get`](Self::get) gives it to each.
    ///
    /// # Errors
    /// With the error, when there is one or a value already.
    pub fn set_exception(&self, error: E) -> Result<(), E> {
        self.settle(Err(error)).map_err(|refused| match refused {
            Err(error) => error,
            Ok(_) => unreachable!("it is the error that was refused"),
        })
    }

    fn settle(&self, outcome: Result<T, E>) -> Result<(), Result<T, E>> {
        if self.ready() {
            return Err(outcome);
        }
        *self.outcome.borrow_mut() = Some(outcome);
        self.waiting.wake_all();
        self.call_links();
        Ok(())
    }

    /// The value, if there is one.
    pub fn value(&self) -> Option<T> {
        self.try_get()?.ok()
    }

    /// The error, if there is one.
    pub fn exception(&self) -> Option<E> {
        self.try_get()?.err()
    }

    /// The value or the error, if there is one. gevent's `get_nowait`.
    pub fn try_get(&self) -> Option<Result<T, E>> {
        self.outcome.borrow().clone()
    }

    /// The value.
    ///
    /// # Suspends
    /// Until there is one, or an error.
    ///
    /// # Errors
    /// The one that was set.
    pub fn get(&self) -> Result<T, E> {
        loop {
            if let Some(outcome) = self.try_get() {
                return outcome;
            }
            self.waiting.wait_or(0, None, WaitsFor::Outcome, |_| ());
        }
    }

    /// The value or the error, if one comes within `timeout`.
    ///
    /// # Suspends
    /// Until there is one.
    ///
    /// # Errors
    /// [`TimedOut`]; within, the error that was set.
    pub fn get_timeout(&self, timeout: Duration) -> Result<Result<T, E>, TimedOut> {
        self.wait_timeout(timeout)?;
        self.try_get().ok_or(TimedOut)
    }

    /// Has `callback` called on the loop with the value or the error, once there is one: soon, when there is one
    /// already. It must not wait.
    ///
    /// # Panics
    /// When there is one already and no hub runs on this thread.
    pub fn link(&self, callback: impl FnOnce(Result<T, E>) + 'static) -> LinkId {
        let link = self.links.add(Box::new(callback));
        if self.ready() {
            self.call_links();
        }
        link
    }

    /// Takes a callback back. False when it is too late.
    pub fn unlink(&self, link: LinkId) -> bool {
        self.links.remove(link)
    }

    fn call_links(&self) {
        for callback in self.links.take() {
            if let Some(outcome) = self.try_get() {
                call_soon(move || callback(outcome));
            }
        }
    }
}

impl<T, E> wait::Completion for AsyncResult<T, E> {
    fn is_complete(&self) -> bool {
        self.ready()
    }

    fn waiting(&self) -> &WaitList {
        &self.waiting
    }
}

impl<T, E> Default for AsyncResult<T, E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, E> fmt::Debug for AsyncResult<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncResult")
            .field("ready", &self.ready())
            .field("successful", &self.successful())
            .finish_non_exhaustive()
    }
}
