//! The two who act on a `Deferred` from outside its chain: the one who fires it, the one who cancels it.

use std::fmt;
use std::rc::{Rc, Weak};

use super::chain::{self, Node, Root};
use super::failure::Failure;

/// Fires a [`Deferred`](crate::Deferred), once. Dropped unused, it fires it with [`Failure::Dropped`], so that nobody
/// waits for ever; a canceller may drop it, which fires it with [`Failure::Cancelled`]. What is fired after a cancellation is dropped silently.
#[must_use = "dropping it fails the Deferred"]
pub struct Resolver<T, E = super::AnyError> {
    /// Until it has fired.
    source: Option<Rc<dyn Node<T, E>>>,
}

impl<T, E> Resolver<T, E> {
    pub(super) fn new(source: Rc<dyn Node<T, E>>) -> Self {
        Self { source: Some(source) }
    }

    /// Gives the value: the callbacks that wait for it are called before this returns. A callback added later is called
    /// when it is added.
    pub fn callback(self, value: T) {
        self.resolve(Ok(value));
    }

    /// Fails it with an error, or with any [`Failure`].
    pub fn errback(self, error: impl Into<Failure<E>>) {
        self.resolve(Err(error.into()));
    }

    /// As [`callback`](Self::callback) or [`errback`](Self::errback).
    pub fn resolve(mut self, result: Result<T, Failure<E>>) {
        if let Some(source) = self.source.take() {
            chain::fire(source, result);
        }
    }

    /// Whether a result is still wanted: false once the Deferred was cancelled.
    pub fn is_wanted(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.slot().is_open())
    }

    /// What a cancellation calls, instead of what it called before; nothing when it was cancelled already. For a
    /// canceller that needs what is made after the Deferred.
    pub fn on_cancel(&self, canceller: impl FnOnce() + 'static) {
        if let Some(source) = self.source.as_ref().filter(|source| source.slot().is_open()) {
            source.chain().set_canceller(Box::new(canceller));
        }
    }

    pub(super) fn into_node(mut self) -> Option<Rc<dyn Node<T, E>>> {
        self.source.take()
    }
}

impl<T, E> Drop for Resolver<T, E> {
    fn drop(&mut self) {
        // A canceller may well drop it: then it has been cancelled.
        if let Some(source) = self.source.take().filter(|source| !source.chain().is_cancelling()) {
            chain::fire(source, Err(Failure::Dropped));
        }
    }
}

impl<T, E> fmt::Debug for Resolver<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("wanted", &self.is_wanted()).finish()
    }
}

/// Cancels a [`Deferred`](crate::Deferred) that has moved elsewhere. It does not keep it alive.
#[derive(Clone)]
pub struct Canceller(pub(super) Option<Weak<dyn Root>>);

impl Canceller {
    /// As [`Deferred::cancel`](crate::Deferred::cancel) of the Deferred it was taken from, or of what callbacks were
    /// added to it since.
    pub fn cancel(&self) {
        if let Some(root) = self.0.as_ref().and_then(Weak::upgrade) {
            chain::cancel(root);
        }
    }
}

/// Holds the result of a [`Deferred`](crate::Deferred) back, from [`Deferred::pause`](crate::Deferred::pause).
#[must_use = "dropping it lets the result go on"]
pub struct Pause(pub(super) Box<dyn FnOnce()>);

impl Pause {
    /// Lets the result go on, as dropping this does.
    pub fn unpause(self) {
        (self.0)();
    }
}

impl fmt::Debug for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pause").finish_non_exhaustive()
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}
