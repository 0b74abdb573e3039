//! The hub's clock for async code.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::hub::{self, Alarm};
use crate::wheel::Key;

/// A future that is ready once `duration` has passed, rounded up to a millisecond.
///
/// ```
/// use std::time::Duration;
/// use warren_hub::{future, run};
///
/// run(|| future::wait(future::sleep(Duration::from_millis(1))));
/// ```
///
/// # Panics
/// When no hub runs on this thread.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(hub::with(|hub| hub.driver.now()) + duration)
}

/// A future that is ready at `deadline`, rounded up to a millisecond.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, alarm: None }
}

/// See [`sleep`]. The timer is set on the hub that polls it first.
///
/// It is `Send` because some libraries ask that of every timer, but it must be polled on one hub.
pub struct Sleep {
    deadline: Instant,
    /// From the first poll on.
    alarm: Option<SetAlarm>,
}

struct SetAlarm {
    hub_number: u32,
    key: Key,
    /// Who is to be told. A lock that nobody waits for: all happens on one thread.
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Sleep {
    /// When it is ready.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    /// # Panics
    /// When no hub runs on this thread, or another one than at the first poll.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        hub::with(|hub| {
            if self.deadline <= hub.driver.now() {
                self.alarm = None;
                return Poll::Ready(());
            }
            match &self.alarm {
                Some(alarm) => {
                    assert!(alarm.hub_number == hub.number, "a Sleep was moved to another hub");
                    let mut waker = lock(&alarm.waker);
                    match &mut *waker {
                        Some(known) => known.clone_from(cx.waker()),
                        // It has fired, a little before the clock that was read above.
                        None => return Poll::Ready(()),
                    }
                }
                None => {
                    let waker = Arc::new(Mutex::new(Some(cx.waker().clone())));
                    let told = waker.clone();
                    let fire = move || {
                        let waker = lock(&told).take();
                        if let Some(waker) = waker {
                            waker.wake();
                        }
                    };
                    let key = hub.at(self.deadline, Alarm::Call(Box::new(fire)));
                    self.alarm = Some(SetAlarm { hub_number: hub.number, key, waker });
                }
            }
            Poll::Pending
        })
    }
}

fn lock(waker: &Mutex<Option<Waker>>) -> std::sync::MutexGuard<'_, Option<Waker>> {
    waker.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for SetAlarm {
    fn drop(&mut self) {
        // On another thread, or after the hub, there is nothing to cancel: it fires in vain.
        let cancelled = hub::try_with(|hub| hub.number == self.hub_number && hub.cancel(self.key));
        if cancelled != Some(true) {
            lock(&self.waker).take();
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
