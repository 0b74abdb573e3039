//! Futures and fibers: a fiber waits for a future, a future for a fiber, and a future for the hub's clock.
//!
//! [`wait`] parks the running fiber until a future is ready. The future needs neither `Send` nor `'static`: it is
//! pinned on the fiber's own stack, polled there, and dropped there when the fiber is killed. Its waker may be
//! cloned, kept and used by any thread; used on the hub's own thread it costs a push onto the run queue, used on
//! another a letter.
//!
//! The other way round nothing is needed: a [`JoinHandle`] and a [`RemoteJoin`](crate::RemoteJoin) are futures, so
//! async code on this hub awaits `warren_hub::spawn(f)`, and async code of a runtime on another thread awaits
//! what [`HubHandle::spawn`](crate::HubHandle::spawn) gives.
//!
//! ```
//! use std::time::Duration;
//! use warren_hub::{future, run, sleep, spawn};
//!
//! async fn twice(n: u32) -> u32 {
//!     // Blocking code on a fiber, awaited.
//!     let slow = spawn(move || {
//!         sleep(Duration::from_millis(1));
//!         n
//!     });
//!     slow.await.unwrap() * 2
//! }
//!
//! let word = run(|| {
//!     let base = String::from("fiber");
//!     // It borrows from the stack.
//!     let answer = future::wait(async { (base.len() as u32, twice(21).await) });
//!     answer
//! });
//! assert_eq!(word, (5, 42));
//! ```

mod flag;
mod signal;
mod sleep;

use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::fiber::{Waiter, WaitsFor, Woke};
use crate::hub;
use crate::join::JoinHandle;
use crate::timer::{TimedOut, no_wait, yield_now};

pub(crate) use signal::{Signal, Waking};
pub use sleep::{Sleep, sleep, sleep_until};

/// Parks the fiber until `future` is ready, and gives its output.
///
/// The future is polled on this fiber, in a region where nothing may wait: async code must await, and hand what
/// would park to a fiber of its own ([`spawn`](crate::spawn), whose handle is a future). That keeps what a library
/// does around a poll, such as setting a thread-local for the time of it, free from other fibers.
///
/// A kill or a [`Timeout`](crate::Timeout) drops the future where it is and unwinds. When the fiber unwinds
/// already, a future that is not ready at once is waited for all the same: there is no other way to end.
///
/// While anybody has the waker, the hub cannot know that nobody will use it: it then waits on, where otherwise it would
/// say that it waits for ever.
///
/// Costs no allocation once the fiber's place has waited for a future before. A wake-up on this thread is a push onto the
/// run queue, one from another thread a letter.
///
/// # Suspends
/// Until the future is ready; not at all when it is ready at once.
///
/// # Panics
/// As the future does when polled. Outside a fiber, and when the future, while polled, calls something that would park.
pub fn wait<F: IntoFuture>(future: F) -> F::Output {
    let mut future = pin!(future.into_future());
    match wait_until(future.as_mut(), None) {
        Some(output) => output,
        None => unreachable!("no time has been set that could run out"),
    }
}

/// As [`wait`], at most for `timeout`; then the future is dropped. In a destructor that runs because the fiber
/// unwinds, a future that is not ready at once has timed out.
///
/// ```
/// use std::time::Duration;
/// use warren_hub::{TimedOut, future, run};
///
/// run(|| {
///     let never = std::future::pending::<()>();
///     assert_eq!(future::wait_timeout(never, Duration::from_millis(2)), Err(TimedOut));
/// });
/// ```
///
/// # Suspends
/// Until the future is ready, or for `timeout`.
///
/// # Errors
/// [`TimedOut`].
///
/// # Panics
/// As [`wait`].
pub fn wait_timeout<F: IntoFuture>(future: F, timeout: Duration) -> Result<F::Output, TimedOut> {
    let deadline = hub::with(|hub| hub.driver.now()) + timeout;
    let mut future = pin!(future.into_future());
    wait_until(future.as_mut(), Some(deadline)).ok_or(TimedOut)
}

/// Starts a fiber that waits for `future`: what other runtimes call spawning a task.
///
/// ```
/// let sum = warren_hub::run(|| {
///     let task = warren_hub::future::spawn(async { 1 + 1 });
///     task.join().unwrap()
/// });
/// assert_eq!(sum, 2);
/// ```
///
/// # Panics
/// As [`spawn`](crate::spawn).
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    crate::spawn(move || wait(future))
}

/// `None` when the deadline has come.
fn wait_until<F: Future>(mut future: Pin<&mut F>, deadline: Option<Instant>) -> Option<F::Output> {
    hub::with(|hub| {
        let fiber = hub.running();
        let name = hub.name_of(fiber);
        let waking = fiber.waking.get_or_init(|| Waking::new(hub));
        loop {
            waking.begin();
            // The waker is in use as long as the poll lasts. One that yields from a generator lasts as long as that.
            let kept = hub::keep();
            let polled = no_wait(|| future.as_mut().poll(&mut Context::from_waker(waking.waker())));
            // Or else the fiber need not be there any more, nor the hub.
            assert!(
                hub::current_fiber() == Some(name),
                "a future has yielded from a generator while it was polled, and goes on elsewhere"
            );
            drop(kept);
            if let Poll::Ready(output) = polled {
                return Some(output);
            }
            if waking.is_woken() {
                // During the poll, by itself perhaps: others have their turn before it is polled again.
                if deadline.is_some_and(|deadline| deadline <= hub.driver.now()) {
                    return None;
                }
                yield_now();
                continue;
            }
            let waiter = Waiter::new(hub.number, fiber);
            let _armed = waking.arm(waiter);
            let woke = match deadline {
                None => hub::park_always(&waiter, None, WaitsFor::Future),
                Some(_) => hub::park_for(&waiter, deadline, WaitsFor::Future),
            };
            if woke == Woke::TimedOut && deadline.is_some() {
                return None;
            }
        }
    })
}
