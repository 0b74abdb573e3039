//! Waits beneath code that must not be unwound.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::fiber::Interrupt;
use crate::hub;

/// Something asked the fiber to end what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// It was killed, or something was thrown into it.
    #[error("the fiber was killed")]
    Killed,
    /// A timeout around its work has run out.
    #[error("a timeout of the fiber has run out")]
    TimedOut,
}

/// Runs `f`, whose waits may be interrupted; an interrupt ends `f` by unwinding, but goes no further: it is
/// kept for the fiber's next wait outside of here, and until then each call of this one ends at its first wait.
///
/// For functions that foreign code calls, such as C, which must not be unwound.
///
/// # Suspends
/// As `f` does.
///
/// # Errors
/// [`Interrupted`] when `f` was unwound.
///
/// # Panics
/// Outside a fiber.
pub fn hold_interrupts<T>(f: impl FnOnce() -> T) -> Result<T, Interrupted> {
    let payload = match catch_unwind(AssertUnwindSafe(f)) {
        Ok(value) => return Ok(value),
        Err(payload) => payload,
    };
    let (interrupt, interrupted) = match payload.downcast::<Interrupt>() {
        Ok(interrupt) => match *interrupt {
            Interrupt::Timeout(id) => (Interrupt::Timeout(id), Interrupted::TimedOut),
            other => (other, Interrupted::Killed),
        },
        // Thrown, or a panic of `f` itself, which is as good: it goes on later.
        Err(payload) => (Interrupt::Throw(payload), Interrupted::Killed),
    };
    hub::with(|hub| hub.running().interrupt(interrupt));
    Err(interrupted)
}
