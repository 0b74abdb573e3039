//! [`Deferred`]: a result that is yet to come, and what is to be done with it (Twisted's `Deferred`).
//!
//! Whoever promises a result makes a pair: a [`Deferred`] to hand out, and the [`Resolver`] that fires it, once. Whoever
//! receives the Deferred adds callbacks. Each takes what the one before it gave, so a chain reads from top to bottom,
//! and one that fails is passed on to the next errback:
//!
//! ```
//! use warren_reactor::{AnyError, Deferred, Failure};
//!
//! let (deferred, resolver) = Deferred::<&str>::pending();
//! let length = deferred
//!     .add_callback(|text| Ok(text.parse::<i32>()?))
//!     .add_callback(|number| Ok(number * 2))
//!     .add_errback(|failure: Failure| {
//!         println!("not a number: {failure}");
//!         Ok(0)
//!     });
//! resolver.callback("21");
//! assert_eq!(length.wait().unwrap(), 42);
//! ```
//!
//! - A callback gives a `Result`, or a Deferred, which is waited for before the next one is called.
//! - Callbacks are called when the resolver fires, before [`Resolver::callback`] returns; at once, if it has fired
//!   already. They must not wait: they may be called from the loop. In a fiber there is no need for callbacks:
//!   [`wait`](Deferred::wait) parks it until the result is there.
//! - [`cancel`](Deferred::cancel) reaches what the chain waits for, be it the source or a Deferred that a callback gave.
//! - A callback that panics fails the chain with [`Failure::Panicked`].
//! - A failure that nobody has taken when its last handle goes is logged, with the place where the Deferred was made;
//!   tests see it by [`UnhandledFailures`].
//!
//! # For those who know Twisted
//!
//! Adding a callback consumes the Deferred and gives one of the new type, for the compiler knows what each callback
//! takes. `callback`, `errback` are the resolver's, so nobody else fires it, and never twice. An exception is a
//! [`Failure`]. `trap` is [`Failure::trap`]. `inlineCallbacks` are fibers.

mod calls;
mod chain;
mod failure;
mod list;
mod lock;
mod outcome;
mod queue;
mod resolver;
mod unhandled;

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use calls::{defer_later, ensure_deferred, execute, maybe_deferred, spawn_deferred};
pub use failure::{AnyError, Failure};
pub use list::{DeferredList, FailureGroup, FirstError, gather_results, race};
pub use lock::{DeferredLock, DeferredPermit, DeferredSemaphore};
pub use outcome::Outcome;
pub use queue::{DeferredQueue, QueueOverflow, QueueUnderflow};
pub use resolver::{Canceller, Pause, Resolver};
pub use unhandled::{Unhandled, UnhandledFailures};

use crate::time::call_later;
use chain::{Next, Node, Settled, Source, State};

/// A result that is yet to come: a `T`, or a [`Failure<E>`]. See the [module](self).
///
/// Dropping it neither cancels it nor takes callbacks back.
#[must_use = "a failure that nobody takes is reported as unhandled"]
pub struct Deferred<T, E = AnyError>(Repr<T, E>);

const TAKEN: &str = "the result of this Deferred has been taken already, by a poll";

enum Repr<T, E> {
    /// Without an allocation, as long as nothing has to be waited for.
    Value(T),
    Node(Rc<dyn Node<T, E>>),
    /// By a future's poll.
    Taken,
}

impl<T: 'static, E: fmt::Debug + 'static> Deferred<T, E> {
    /// One that waits, and what fires it.
    #[track_caller]
    pub fn pending() -> (Self, Resolver<T, E>) {
        Self::new(None)
    }

    /// As [`pending`](Self::pending). When it is cancelled `canceller` is called, which should end what is being done. If
    /// it does not fire the resolver, the Deferred fails with [`Failure::Cancelled`].
    ///
    /// A canceller that is to fire or drop the resolver should know it by a weak reference: one that owns what owns it keeps
    /// both in memory until the Deferred fires.
    #[track_caller]
    pub fn pending_with_canceller(canceller: impl FnOnce() + 'static) -> (Self, Resolver<T, E>) {
        Self::new(Some(Box::new(canceller)))
    }

    #[track_caller]
    fn new(canceller: Option<Box<dyn FnOnce()>>) -> (Self, Resolver<T, E>) {
        let source: Rc<dyn Node<T, E>> = Source::pending(canceller, Location::caller());
        (Self(Repr::Node(source.clone())), Resolver::new(source))
    }

    /// One that has fired with a value. Allocates nothing.
    pub fn succeed(value: T) -> Self {
        Self(Repr::Value(value))
    }

    /// One that has failed.
    #[track_caller]
    pub fn fail(failure: impl Into<Failure<E>>) -> Self {
        Self(Repr::Node(Source::fired(Err(failure.into()), Location::caller())))
    }

    /// Calls `callback` with the value; a failure is passed on.
    #[track_caller]
    pub fn add_callback<R>(self, callback: impl FnOnce(T) -> R + 'static) -> Deferred<R::Value, E>
    where
        R: Outcome<E>,
        R::Value: 'static,
    {
        self.link(move |result| match result {
            Ok(value) => callback(value).into_deferred().into(),
            Err(failure) => Next::Now(Err(failure)),
        })
    }

    /// Calls `errback` with the failure, which is then handled; a value is passed on.
    #[track_caller]
    pub fn add_errback<R>(self, errback: impl FnOnce(Failure<E>) -> R + 'static) -> Self
    where
        R: Outcome<E, Value = T>,
    {
        self.link(move |result| match result {
            Ok(value) => Next::Now(Ok(value)),
            Err(failure) => errback(failure).into_deferred().into(),
        })
    }

    /// Calls `callback` with the value or the failure.
    #[track_caller]
    pub fn add_both<R>(
        self,
        callback: impl FnOnce(Result<T, Failure<E>>) -> R + 'static,
    ) -> Deferred<R::Value, E>
    where
        R: Outcome<E>,
        R::Value: 'static,
    {
        self.link(move |result| callback(result).into_deferred().into())
    }

    /// Calls `callback` with the value, or `errback` with the failure; `errback` does not hear of what fails in
    /// `callback`.
    #[track_caller]
    pub fn add_callbacks<R, S>(
        self,
        callback: impl FnOnce(T) -> R + 'static,
        errback: impl FnOnce(Failure<E>) -> S + 'static,
    ) -> Deferred<R::Value, E>
    where
        R: Outcome<E>,
        R::Value: 'static,
        S: Outcome<E, Value = R::Value>,
    {
        self.link(move |result| match result {
            Ok(value) => callback(value).into_deferred().into(),
            Err(failure) => errback(failure).into_deferred().into(),
        })
    }

    /// With another type of error.
    #[track_caller]
    pub fn map_err<F: fmt::Debug + 'static>(
        self,
        convert: impl FnOnce(E) -> F + 'static,
    ) -> Deferred<T, F> {
        self.link(move |result| Next::Now(result.map_err(|failure| failure.map(convert))))
    }

    /// Cancels it when it has not fired after `timeout`; then a [`Failure::Cancelled`] becomes [`Failure::TimedOut`].
    /// What a canceller or an earlier errback gives instead is left as it is.
    ///
    /// ```
    /// use std::time::Duration;
    /// use warren_reactor::{Deferred, Failure, testing::Clock};
    ///
    /// let clock = Clock::install();
    /// let (answer, _resolver) = Deferred::<()>::pending();
    /// let answer = answer.add_timeout(Duration::from_secs(5));
    /// clock.advance(Duration::from_secs(5));
    /// assert!(matches!(answer.wait(), Err(Failure::TimedOut(_))));
    /// ```
    ///
    /// # Panics
    /// As [`call_later`].
    #[track_caller]
    pub fn add_timeout(self, timeout: Duration) -> Self {
        if self.has_fired() {
            return self;
        }
        let canceller = self.canceller();
        let call = call_later(timeout, move || canceller.cancel());
        self.link(move |result| {
            let timed_out = !call.cancel();
            Next::Now(match result {
                Err(Failure::Cancelled) if timed_out => Err(Failure::TimedOut(timeout)),
                result => result,
            })
        })
    }

    /// Holds the result back from the callbacks that are added to what this gives, until the other is released or
    /// dropped. Cancelling what this gives reaches what is waited for; when the result is there, it lets it go on.
    ///
    /// ```
    /// use warren_reactor::Deferred;
    ///
    /// let (paused, pause) = Deferred::<i32>::succeed(1).pause();
    /// let two = paused.add_callback(|n| Ok(n + 1));
    /// assert!(!two.has_fired());
    /// pause.unpause();
    /// assert_eq!(two.wait().unwrap(), 2);
    /// ```
    #[track_caller]
    pub fn pause(self) -> (Self, Pause) {
        let (gate, open) = Deferred::<(), E>::pending();
        let paused = self.add_both(move |result| gate.add_both(move |_| result));
        (paused, Pause(Box::new(move || open.callback(()))))
    }

    /// Fires `resolver` with the result.
    pub fn chain(self, resolver: Resolver<T, E>) {
        let Some(node) = resolver.into_node() else { return };
        match Next::from(self) {
            Next::Now(result) => chain::fire(node, result),
            Next::Later(own) => chain::forward(&own, node),
        }
    }

    /// Whether the result is there.
    pub fn has_fired(&self) -> bool {
        match &self.0 {
            Repr::Value(_) => true,
            Repr::Node(node) => node.slot().has_fired(),
            Repr::Taken => false,
        }
    }

    /// Ends what it waits for: the source's canceller is called, or that of the Deferred that a callback gave. If it
    /// does not fire that, it fails with [`Failure::Cancelled`], which goes down the chain as any failure. Does nothing
    /// when nothing is waited for.
    pub fn cancel(&self) {
        if let Repr::Node(node) = &self.0 {
            chain::cancel(node.clone().root());
        }
    }

    /// What cancels it after it has moved on.
    pub fn canceller(&self) -> Canceller {
        Canceller(match &self.0 {
            Repr::Node(node) => Some(Rc::downgrade(&node.clone().root())),
            Repr::Value(_) | Repr::Taken => None,
        })
    }

    /// Waits for the result. A fiber that is killed here, or by a timeout round it, cancels the Deferred.
    ///
    /// ```
    /// use std::time::Duration;
    /// use warren_reactor::{Deferred, call_later};
    ///
    /// let answer = warren_hub::run(|| {
    ///     let (deferred, resolver) = Deferred::<u32>::pending();
    ///     call_later(Duration::from_millis(1), move || resolver.callback(42));
    ///     deferred.wait()
    /// });
    /// assert_eq!(answer.unwrap(), 42);
    /// ```
    ///
    /// # Suspends
    /// Until it fires; not at all when it has.
    ///
    /// # Errors
    /// The failure.
    ///
    /// # Panics
    /// When it has not fired, and this is no fiber.
    pub fn wait(mut self) -> Result<T, Failure<E>> {
        match self.take() {
            Some(result) => result,
            None => warren_hub::future::wait(Waiting(self)),
        }
    }

    /// Of what `call` gives, or of its panic.
    #[track_caller]
    fn of_call<R: Outcome<E, Value = T>>(call: impl FnOnce() -> R) -> Self {
        let callback = |_: Settled<(), E>| call().into_deferred().into();
        Self::of_next(chain::call_in_place(callback, ()))
    }

    #[track_caller]
    fn of_next(next: Next<T, E>) -> Self {
        Self(match next {
            Next::Now(Ok(value)) => Repr::Value(value),
            Next::Now(result) => Repr::Node(Source::fired(result, Location::caller())),
            Next::Later(node) => Repr::Node(node),
        })
    }

    /// What a cancellation of the source calls.
    fn on_cancel(&self, canceller: impl FnOnce() + 'static) {
        if let Repr::Node(node) = &self.0 {
            node.chain().set_canceller(Box::new(canceller));
        }
    }

    #[track_caller]
    fn link<U, F, C>(self, callback: C) -> Deferred<U, F>
    where
        U: 'static,
        F: fmt::Debug + 'static,
        C: FnOnce(Settled<T, E>) -> Next<U, F> + 'static,
    {
        match self.into_repr() {
            Repr::Value(value) => Deferred::of_next(chain::call_in_place(callback, value)),
            Repr::Node(node) => Deferred(Repr::Node(chain::link(node, callback))),
            Repr::Taken => panic!("{TAKEN}"),
        }
    }
}

impl<T, E> Deferred<T, E> {
    fn into_repr(mut self) -> Repr<T, E> {
        std::mem::replace(&mut self.0, Repr::Taken)
    }

    /// The result, if it is there.
    fn take(&mut self) -> Option<Settled<T, E>> {
        match std::mem::replace(&mut self.0, Repr::Taken) {
            Repr::Value(value) => Some(Ok(value)),
            Repr::Node(node) => match node.slot().take() {
                State::Fired(result) => Some(result),
                state => {
                    node.slot().set(state);
                    self.0 = Repr::Node(node);
                    None
                }
            },
            Repr::Taken => panic!("{TAKEN}"),
        }
    }
}

impl<T, E> Drop for Deferred<T, E> {
    fn drop(&mut self) {
        // The node may live on, by a resolver that has not heard of a cancellation.
        if let Repr::Node(node) = &self.0 {
            node.abandon();
        }
    }
}

/// So that `async` code of the hub awaits it. Dropping it does not cancel it.
impl<T, E> Future for Deferred<T, E> {
    type Output = Result<T, Failure<E>>;

    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.take() {
            return Poll::Ready(result);
        }
        if let Repr::Node(node) = &self.0 {
            node.slot().set(State::Polled(cx.waker().clone()));
        }
        Poll::Pending
    }
}

/// Nothing of it is ever pinned.
impl<T, E> Unpin for Deferred<T, E> {}

impl<T, E> fmt::Debug for Deferred<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fired = match &self.0 {
            Repr::Value(_) => true,
            Repr::Node(node) => node.slot().has_fired(),
            Repr::Taken => false,
        };
        f.debug_struct("Deferred").field("fired", &fired).finish()
    }
}

/// A fiber waits for it: a kill cancels it.
struct Waiting<T: 'static, E: fmt::Debug + 'static>(Deferred<T, E>);

impl<T: 'static, E: fmt::Debug + 'static> Future for Waiting<T, E> {
    type Output = Result<T, Failure<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<T: 'static, E: fmt::Debug + 'static> Drop for Waiting<T, E> {
    fn drop(&mut self) {
        self.0.cancel();
        if let Repr::Node(node) = &self.0.0 {
            match node.slot().take() {
                // What the kill has brought about is no news.
                State::Fired(Err(Failure::Cancelled)) => {}
                state => node.slot().set(state),
            }
        }
    }
}

#[cfg(test)]
mod tests;
