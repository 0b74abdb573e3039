//! What a callback may give.

use std::fmt;

use super::{Deferred, Failure};

/// What a callback gives: a `Result`, or a [`Deferred`] that is waited for before the next callback is called.
pub trait Outcome<E> {
    /// What the next callback receives.
    type Value;

    /// As a Deferred, which has fired already if nothing need be waited for.
    #[track_caller]
    fn into_deferred(self) -> Deferred<Self::Value, E>;
}

impl<T: 'static, E: fmt::Debug + 'static> Outcome<E> for Result<T, Failure<E>> {
    type Value = T;

    fn into_deferred(self) -> Deferred<T, E> {
        match self {
            Ok(value) => Deferred::succeed(value),
            Err(failure) => Deferred::fail(failure),
        }
    }
}

impl<T, E> Outcome<E> for Deferred<T, E> {
    type Value = T;

    fn into_deferred(self) -> Self {
        self
    }
}
