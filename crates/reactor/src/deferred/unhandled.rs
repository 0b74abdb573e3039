//! Failures that nobody has asked for: they are reported, never lost.

use std::cell::RefCell;
use std::fmt;
use std::panic::Location;

use super::Failure;

thread_local! {
    /// Of the test that runs on this thread, with or without a hub.
    static COLLECTED: RefCell<Option<Vec<Unhandled>>> = const { RefCell::new(None) };
}

/// A failure whose last handle went before anybody has seen it.
#[derive(Debug)]
pub struct Unhandled {
    failure: String,
    created: &'static Location<'static>,
}

impl Unhandled {
    /// The failure, as `{:?}` shows it.
    pub fn failure(&self) -> &str {
        &self.failure
    }

    /// Where the Deferred was made.
    pub fn created(&self) -> &'static Location<'static> {
        self.created
    }
}

impl fmt::Display for Unhandled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in a Deferred made at {}", self.failure, self.created)
    }
}

/// Collects the unhandled failures of this thread as long as it lives, for tests (Twisted's `flushLoggedErrors`).
/// They are logged too.
///
/// ```
/// use warren_reactor::{AnyError, Deferred, UnhandledFailures};
///
/// let unhandled = UnhandledFailures::collect();
/// drop(Deferred::<()>::fail(AnyError::new("no such user")));
/// assert_eq!(unhandled.take()[0].failure(), "Error(no such user)");
/// ```
#[derive(Debug)]
pub struct UnhandledFailures(());

impl UnhandledFailures {
    /// Begins.
    ///
    /// # Panics
    /// When this thread collects already.
    pub fn collect() -> Self {
        let before = COLLECTED.replace(Some(Vec::new()));
        assert!(before.is_none(), "this thread collects unhandled failures already");
        Self(())
    }

    /// Those since the last call.
    pub fn take(&self) -> Vec<Unhandled> {
        COLLECTED
            .with_borrow_mut(|collected| collected.as_mut().map(std::mem::take))
            .unwrap_or_default()
    }
}

impl Drop for UnhandledFailures {
    fn drop(&mut self) {
        COLLECTED.set(None);
    }
}

#[cold]
pub(super) fn report<E: fmt::Debug>(failure: &Failure<E>, created: &'static Location<'static>) {
    let failure = format!("{failure:?}");
    tracing::error!(failure, %created, "unhandled failure in a Deferred");
    // A thread that ends has nobody left who collects.
    let _ = COLLECTED.try_with(|collected| {
        if let Some(collected) = &mut *collected.borrow_mut() {
            collected.push(Unhandled { failure, created });
        }
    });
}
