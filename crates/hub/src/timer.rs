//! Time for fibers: sleeping, taking turns, timeouts.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use crate::fiber::{Fiber, FiberRef, Interrupt, State, Waiter, WaitsFor, as_interrupt};
use crate::hub::{self, Alarm};
use crate::wheel::Key;

/// A wait took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct TimedOut;

/// Lets others run for `duration`, rounded up to a millisecond. In a destructor that runs because the fiber
/// unwinds it returns at once.
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
    sleep_until(hub::with(|hub| hub.driver.now()) + duration);
}

/// Lets others run until `deadline`, rounded up to a millisecond.
///
/// # Suspends
/// Until `deadline`.
///
/// # Panics
/// Outside a fiber.
pub fn sleep_until(deadline: Instant) {
    hub::park_for(&Waiter::current(), Some(deadline), WaitsFor::Time);
}

/// Lets the others that are ready run first. gevent's `sleep(0)`.
///
/// # Suspends
/// Until the turn comes round again.
///
/// # Panics
/// Outside a fiber.
#[inline]
pub fn yield_now() {
    hub::with(|hub| {
        let fiber = hub.running();
        if hub.is_unwinding() {
            return;
        }
        fiber.deliver();
        fiber.waits_for.set(WaitsFor::Turn);
        fiber.state.set(State::Ready);
        hub.make_ready(fiber);
        fiber.suspend();
        fiber.deliver();
    });
}

/// Lets others run until the loop has nothing else to do. gevent's `idle`.
///
/// # Suspends
/// Until no fiber is ready and no event waits. Those who wait here are woken one by one.
///
/// # Panics
/// Outside a fiber.
pub fn idle() {
    let waiter = Waiter::current();
    hub::with(|hub| hub.when_idle(waiter));
    hub::park_for(&waiter, None, WaitsFor::Idle);
}

/// Runs `f` undisturbed: a kill or a timeout that comes meanwhile is delivered at the next wait after it.
///
/// ```
/// use std::time::Duration;
/// use warren_hub::{run, shield, sleep, spawn, yield_now};
///
/// run(|| {
///     let careful = spawn(|| shield(|| sleep(Duration::from_millis(1))));
///     yield_now();
///     careful.kill();
///     assert!(careful.join().is_ok(), "it did not wait again after the shield");
/// });
/// ```
///
/// # Suspends
/// As `f` does.
///
/// # Panics
/// As `f` does. Outside a fiber.
pub fn shield<T>(f: impl FnOnce() -> T) -> T {
    /// Names the fiber: `f` may yield from a generator, which may then outlive the fiber, and the hub.
    struct Shielded(FiberRef);
    impl Drop for Shielded {
        fn drop(&mut self) {
            hub::try_with(|hub| hub.fiber(self.0).map(Fiber::unshield));
        }
    }
    let _shielded = hub::with(|hub| {
        let fiber = hub.running();
        mem::forget(fiber.shield());
        Shielded(hub.name_of(fiber))
    });
    f()
}

/// Runs `f`, in which nothing may wait: a call that would panics instead. For code that must not be interleaved with
/// other fibers, such as within a scoped thread-local of another library.
///
/// # Panics
/// As `f` does; when something in it waits; outside a hub.
pub fn no_wait<T>(f: impl FnOnce() -> T) -> T {
    /// The number of the hub. Another one may be here at the end, or none, if `f` yields from a generator.
    struct Forbidden(u32);
    impl Drop for Forbidden {
        fn drop(&mut self) {
            hub::try_with(|hub| {
                if hub.number == self.0 {
                    hub.forbid_waiting(false);
                }
            });
        }
    }
    let _forbidden = hub::with(|hub| {
        hub.forbid_waiting(true);
        Forbidden(hub.number)
    });
    f()
}

/// Raises in the fiber that made it when its time has run out: the fiber unwinds from where it waits. gevent's
/// `Timeout`. Dropping it cancels it.
///
/// ```
/// use std::time::Duration;
/// use warren_hub::{TimedOut, Timeout, run, sleep};
///
/// run(|| {
///     let timeout = Timeout::start(Duration::from_millis(2));
///     let slept = timeout.catch(|| {
///         sleep(Duration::from_millis(1));
///         sleep(Duration::from_secs(60));
///     });
///     assert_eq!(slept, Err(TimedOut));
/// });
/// ```
#[derive(Debug)]
#[must_use = "a timeout that is dropped is cancelled"]
pub struct Timeout {
    fiber: FiberRef,
    id: u64,
    timer: Key,
}

impl Timeout {
    /// Starts the clock for the running fiber.
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn start(duration: Duration) -> Self {
        hub::with(|hub| {
            let fiber = hub.name_of(hub.running());
            let id = hub.next_timeout_id();
            let timer = hub.at(hub.driver.now() + duration, Alarm::Timeout(fiber, id));
            Self { fiber, id, timer }
        })
    }

    /// Runs `f` and catches this timeout, and no other, if it is raised in it.
    ///
    /// # Suspends
    /// As `f` does.
    ///
    /// # Errors
    /// [`TimedOut`]: the time has run out, and `f` was unwound.
    ///
    /// # Panics
    /// As `f` does.
    pub fn catch<T>(&self, f: impl FnOnce() -> T) -> Result<T, TimedOut> {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(value) => Ok(value),
            Err(payload) => match as_interrupt(&*payload) {
                Some(Interrupt::Timeout(id)) if *id == self.id => {
                    hub::with(|hub| hub.current().map(|fiber| fiber.unwinding.set(false)));
                    Err(TimedOut)
                }
                _ => resume_unwind(payload),
            },
        }
    }

    /// Whether the clock still runs.
    pub fn pending(&self) -> bool {
        hub::try_with(|hub| hub.number == self.fiber.hub && hub.has_timer(self.timer))
            .unwrap_or(false)
    }

    /// Stops the clock. What has not been raised by now never is.
    pub fn cancel(&self) {
        hub::try_with(|hub| {
            if let Some(fiber) = hub.fiber(self.fiber) {
                hub.cancel(self.timer);
                fiber.withdraw(self.id);
            }
        });
    }
}

impl Drop for Timeout {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Runs `f`, and gives up when it is not through after `duration`: `f` is then unwound from where it waits, and its
/// destructors run. gevent's `with_timeout`. May be nested.
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
    let timeout = Timeout::start(duration);
    timeout.catch(f)
}
