//! What a callback of others may give: nothing, a result, or something that is through later.

use std::io;

use warren_hub::JoinHandle;

use crate::deferred::{AnyError, Deferred, Failure};

/// What says when a callback's work is done, and whether it went well: `()` at once, a `Result`, a [`Deferred`] when it
/// fires, a fiber when it ends.
///
/// [`LoopingCall`](crate::LoopingCall), [`Cooperator`](crate::Cooperator), system events and services take callbacks that
/// give any of these.
pub trait Completion {
    /// The end of the work. What it gives is dropped.
    fn completed(self) -> Deferred<()>;
}

impl Completion for () {
    fn completed(self) -> Deferred<()> {
        Deferred::succeed(())
    }
}

impl<T> Completion for Result<T, Failure> {
    fn completed(self) -> Deferred<()> {
        match self {
            Ok(_) => Deferred::succeed(()),
            Err(failure) => Deferred::fail(failure),
        }
    }
}

impl<T> Completion for Result<T, AnyError> {
    fn completed(self) -> Deferred<()> {
        self.map_err(Failure::Error).completed()
    }
}

impl<T> Completion for io::Result<T> {
    fn completed(self) -> Deferred<()> {
        self.map_err(AnyError::from).completed()
    }
}

impl<T: 'static> Completion for Deferred<T> {
    fn completed(self) -> Deferred<()> {
        self.add_callback(|_| Ok(()))
    }
}

impl<T: 'static> Completion for JoinHandle<T> {
    fn completed(self) -> Deferred<()> {
        Deferred::from(self).add_callback(|_: T| Ok(()))
    }
}

/// Calls `callback`; a panic in it is a failure.
pub(crate) fn complete<R: Completion>(callback: impl FnOnce() -> R) -> Deferred<()> {
    crate::maybe_deferred(|| callback().completed())
}
