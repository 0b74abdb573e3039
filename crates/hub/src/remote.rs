//! Waits that another thread ends.

use std::cell::RefCell;

use slab::Slab;

use crate::fiber::{Waiter, WaitsFor, Woke};
use crate::hub;
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
