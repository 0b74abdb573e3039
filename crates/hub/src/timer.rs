//! Time for fibers.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use crate::fiber::{Interrupt, Waiter, as_interrupt};
use crate::hub::{self, Alarm};

/// A wait took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct TimedOut;

/// Lets others run for `duration`, rounded up to a millisecond.
///
/// # Suspends
/// For `duration`; also for zero.
///
/// # Panics
/// Outside a fiber.
pub fn sleep(duration: Duration) {
    if duration.is_zero() {
        return yield_now();
    }
    sleep_until(Instant::now() + duration);
}

/// Lets others run until `deadline`, rounded up to a millisecond.
///
/// # Suspends
/// Until `deadline`.
///
/// # Panics
/// Outside a fiber.
pub fn sleep_until(deadline: Instant) {
    hub::park(&Waiter::current(), Some(deadline));
}

/// Lets the others that are ready run first.
///
/// # Suspends
/// Until the turn comes round again.
///
/// # Panics
/// Outside a fiber.
pub fn yield_now() {
    let fiber = hub::current_fiber();
    fiber.deliver();
    hub::with(|hub| hub.make_ready(fiber.clone()));
    fiber.suspend();
    fiber.deliver();
}

/// Runs `f`, which may wait any number of times, and gives up when it is not through after `duration`: `f` is
/// then unwound from where it waits, and its destructors run. gevent's `Timeout`. May be nested.
///
/// Only waiting is cut short: a computation without a wait in it runs on.
///
/// ```
/// use std::time::Duration;
/// use warren_hub::{TimedOut, run, sleep, with_timeout};
///
/// run(|| {
///     let slow = with_timeout(Duration::from_millis(5), || sleep(Duration::from_secs(60)));
///     assert_eq!(slow, Err(TimedOut));
///     assert_eq!(with_timeout(Duration::from_secs(60), || 1), Ok(1));
/// });
/// ```
///
/// # Suspends
/// As `f` does.
///
/// # Errors
/// [`TimedOut`].
///
/// # Panics
/// As `f` does. Outside a fiber.
pub fn with_timeout<T>(duration: Duration, f: impl FnOnce() -> T) -> Result<T, TimedOut> {
    let fiber = hub::current_fiber();
    let (timer, interrupt) = hub::with(|hub| {
        let interrupt = Interrupt::Timeout(hub.next_timeout_id());
        let alarm = Alarm::Interrupt(fiber.clone(), interrupt);
        (hub.at(Instant::now() + duration, alarm), interrupt)
    });
    let result = catch_unwind(AssertUnwindSafe(f));
    hub::with(|hub| hub.cancel(timer));
    fiber.withdraw(interrupt);
    match result {
        Ok(value) => Ok(value),
        Err(payload) if as_interrupt(&*payload) == Some(interrupt) => Err(TimedOut),
        Err(payload) => resume_unwind(payload),
    }
}
