//! Deferreds of calls, of fibers and of futures.

use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::{JoinError, JoinHandle, call_soon, future, spawn};

use super::{Deferred, Failure, Outcome, Settled};
use crate::time::call_later;

/// Calls `call`, whose outcome is a Deferred in any case: of a value, of a failure, of a panic.
///
/// ```
/// use std::collections::HashMap;
/// use warren_reactor::{AnyError, Deferred, maybe_deferred};
///
/// let cache = HashMap::from([("a", 1)]);
/// let found = maybe_deferred(|| Ok(*cache.get("a").ok_or(AnyError::new("unknown"))?));
/// assert_eq!(Deferred::wait(found).unwrap(), 1);
/// ```
#[track_caller]
pub fn maybe_deferred<R, E>(call: impl FnOnce() -> R) -> Deferred<R::Value, E>
where
    R: Outcome<E>,
    R::Value: 'static,
    E: fmt::Debug + 'static,
{
    Deferred::of_call(call)
}

/// Calls `call`, and gives its value as a Deferred, which has failed if it panics.
#[track_caller]
pub fn execute<T: 'static, E: fmt::Debug + 'static>(call: impl FnOnce() -> T) -> Deferred<T, E> {
    Deferred::of_call(|| Ok(call()))
}

/// Calls `call` once `delay` has passed. Cancelled before, it is not called.
///
/// ```
/// use std::time::Duration;
/// use warren_reactor::{Deferred, defer_later, testing::Clock};
///
/// let clock = Clock::install();
/// let later: Deferred<_> = defer_later(Duration::from_secs(1), || Ok("done"));
/// clock.advance(Duration::from_secs(1));
/// assert_eq!(later.wait().unwrap(), "done");
/// ```
///
/// # Panics
/// As [`call_later`].
#[track_caller]
pub fn defer_later<R, E>(
    delay: Duration,
    call: impl FnOnce() -> R + 'static,
) -> Deferred<R::Value, E>
where
    R: Outcome<E>,
    R::Value: 'static,
    E: fmt::Debug + 'static,
{
    let (deferred, resolver) = Deferred::<(), E>::pending();
    let later = call_later(delay, move || resolver.callback(()));
    deferred.on_cancel(move || {
        later.cancel();
    });
    deferred.add_callback(move |()| call())
}

/// Starts a fiber, and gives its result as a Deferred: what `inlineCallbacks` is in Twisted. Cancelling it kills the
/// fiber.
///
/// ```
/// use warren_reactor::{AnyError, Deferred, spawn_deferred};
///
/// let length = warren_hub::run(|| {
///     let (line, resolver) = Deferred::<String>::pending();
///     let length: Deferred<usize> = spawn_deferred(move || {
///         let line = line.wait()?;
///         if line.is_empty() {
///             return Err(AnyError::new("an empty line"))?;
///         }
///         Ok(line.len())
///     });
///     resolver.callback("hello".to_owned());
///     length.wait()
/// });
/// assert_eq!(length.unwrap(), 5);
/// ```
///
/// # Panics
/// As [`spawn`].
#[track_caller]
pub fn spawn_deferred<T: 'static, E: fmt::Debug + 'static>(
    fiber: impl FnOnce() -> Result<T, Failure<E>> + 'static,
) -> Deferred<T, E> {
    of_fiber(spawn(fiber), |result| result)
}

/// Starts a fiber that awaits `future`, and gives its output as a Deferred. Cancelling it drops the future.
///
/// # Panics
/// As [`spawn`].
#[track_caller]
pub fn ensure_deferred<T: 'static, E: fmt::Debug + 'static>(
    future: impl Future<Output = Result<T, Failure<E>>> + 'static,
) -> Deferred<T, E> {
    of_fiber(future::spawn(future), |result| result)
}

/// The result of a fiber; cancelling kills it. A fiber that somebody else kills has been cancelled.
impl<T: 'static, E: fmt::Debug + 'static> From<JoinHandle<T>> for Deferred<T, E> {
    #[track_caller]
    fn from(fiber: JoinHandle<T>) -> Self {
        of_fiber(fiber, Ok)
    }
}

#[track_caller]
fn of_fiber<R: 'static, T: 'static, E: fmt::Debug + 'static>(
    fiber: JoinHandle<R>,
    result: impl FnOnce(R) -> Settled<T, E> + 'static,
) -> Deferred<T, E> {
    let (deferred, resolver) = Deferred::pending();
    let fiber = Rc::new(fiber);
    let own = fiber.clone();
    let ended = move || {
        // The canceller has a weak one.
        let Some(fiber) = Rc::into_inner(own) else { return };
        // It has ended, so this does not wait.
        resolver.resolve(match fiber.join() {
            Ok(value) => result(value),
            Err(JoinError::Panicked(panic)) => Err(Failure::Panicked(panic)),
            Err(_) => Err(Failure::Cancelled),
        });
    };
    let weak = Rc::downgrade(&fiber);
    let kill = move || {
        if let Some(fiber) = weak.upgrade() {
            fiber.kill();
        }
    };
    // A link only looks at the result; the call after it takes it.
    fiber.link(move |_| call_soon(ended));
    deferred.on_cancel(kill);
    deferred
}
