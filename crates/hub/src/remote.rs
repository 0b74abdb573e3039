//! Waits that another thread ends.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::fiber::{Waiter, WaitsFor, Woke};
use crate::hub::{self, Hub};
use crate::inbox::HubHandle;

/// Fibers of a hub that wait for a letter. The serial number tells reused places apart.
pub(crate) struct Remotes(RefCell<(u64, Slab<(u64, Waiter)>)>);

impl Remotes {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new((0, Slab::new())))
    }

    fn insert(&self, waiter: Waiter) -> (usize, u64) {
        let (last, waiting) = &mut *self.0.borrow_mut();
        *last += 1;
        (waiting.insert((*last, waiter)), *last)
    }

    fn remove(&self, index: usize) {
        self.0.borrow_mut().1.remove(index);
    }

    fn find(&self, index: usize, serial: u64) -> Option<Waiter> {
        match self.0.borrow().1.get(index) {
            Some((known, waiter)) if *known == serial => Some(*waiter),
            _ => None,
        }
    }
}

/// Ends one wait, from any thread. Dropped without being used, it ends it too: nobody else could.
pub(crate) struct RemoteWaker {
    hub: HubHandle,
    index: usize,
    serial: u64,
}

impl RemoteWaker {
    /// Ends the wait.
    pub(crate) fn wake(self) {}
}

impl Drop for RemoteWaker {
    fn drop(&mut self) {
        let (index, serial) = (self.index, self.serial);
        // On the hub's own thread the way is short: an operation that a ring has done, or a simulation. But it may also be
        // that the fiber has still to park; then the letter comes after that.
        let done = hub::try_with(|hub| {
            let waiter = hub.is(&self.hub).then(|| hub.remotes.find(index, serial));
            waiter.is_some_and(|waiter| waiter.is_none_or(|waiter| waiter.wake()))
        });
        if done == Some(true) {
            return;
        }
        // A hub that has gone has no fiber that waits.
        let _ = self.hub.post(move || {
            if let Some(waiter) = hub::with(|hub| hub.remotes.find(index, serial)) {
                waiter.wake();
            }
        });
    }
}

/// Parks the running fiber until the waker given to `arm` is used or dropped.
///
/// # Suspends
/// Always.
pub(crate) fn wait(arm: impl FnOnce(RemoteWaker)) {
    parked(arm, |waiter| hub::park_always(waiter, None, WaitsFor::Thread));
}

/// As [`wait`]; but a fiber that unwinds does not wait: for it, the time has run out. `what` is for reports.
///
/// # Suspends
/// Always, but for a fiber that unwinds.
pub(crate) fn wait_for(what: WaitsFor, arm: impl FnOnce(RemoteWaker)) -> Woke {
    parked(arm, |waiter| hub::park_for(waiter, None, what))
}

fn parked(arm: impl FnOnce(RemoteWaker), park: impl FnOnce(&Waiter) -> Woke) -> Woke {
    struct Listed(usize);
    impl Drop for Listed {
        fn drop(&mut self) {
            hub::with(|hub| hub.remotes.remove(self.0));
        }
    }
    let waiter = Waiter::current();
    let (index, serial) = hub::with(|hub| hub.remotes.insert(waiter));
    let _listed = Listed(index);
    arm(RemoteWaker { hub: hub::with(|hub| hub.handle()), index, serial });
    park(&waiter)
}

/// Ends one wait, of a fiber or of a thread without a hub.
pub(crate) enum Waker {
    Fiber(RemoteWaker),
    Thread(Arc<Parked>),
}

impl Waker {
    pub(crate) fn wake(self) {
        match self {
            Self::Fiber(waker) => waker.wake(),
            Self::Thread(parked) => parked.wake(),
        }
    }
}

/// A thread that waits. Dropping the waker does not end the wait: the waiter drops it itself, before it waits.
#[derive(Default)]
pub(crate) struct Parked {
    woken: Mutex<bool>,
    bell: Condvar,
}

impl Parked {
    fn wake(&self) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_one();
    }

    fn wait(&self, deadline: Option<Instant>) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !*woken {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            woken = match left {
                Some(Duration::ZERO) => return,
                Some(left) => {
                    self.bell.wait_timeout(woken, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.bell.wait(woken).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// Parks the running fiber, or blocks a thread without a hub, until the waker given to `arm` is used or dropped, or
/// until `deadline`.
///
/// # Suspends
/// Always.
///
/// # Panics
/// On the loop of a hub.
pub(crate) fn wait_anywhere(deadline: Option<Instant>, arm: impl FnOnce(Waker)) {
    if hub::try_with(|_| ()).is_some() {
        let arm = |waker| arm(Waker::Fiber(waker));
        match deadline {
            None => wait(arm),
            Some(_) => {
                parked(arm, |waiter| hub::park_for(waiter, deadline, WaitsFor::Thread));
            }
        }
        return;
    }
    let parked = Arc::new(Parked::default());
    arm(Waker::Thread(parked.clone()));
    if Arc::strong_count(&parked) > 1 {
        parked.wait(deadline);
    }
}

/// Whether a wait may begin: not in a destructor that runs because the fiber unwinds.
pub(crate) fn may_wait() -> bool {
    !hub::try_with(Hub::is_unwinding).unwrap_or(false)
}
