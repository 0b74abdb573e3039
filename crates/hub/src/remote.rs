//! Waits that another thread ends.

use std::cell::RefCell;

use slab::Slab;

use crate::fiber::{Waiter, Woke};
use crate::hub;
use crate::inbox::HubHandle;

thread_local! {
    /// Fibers of this thread that wait for a letter. The serial number tells reused places apart.
    static WAITING: RefCell<(u64, Slab<(u64, Waiter)>)> = const { RefCell::new((0, Slab::new())) };
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
        // A hub that has gone has no fiber that waits.
        let _ = self.hub.post(move || {
            let waiter = WAITING.with_borrow(|(_, waiting)| match waiting.get(index) {
                Some((known, waiter)) if *known == serial => Some(waiter.clone()),
                _ => None,
            });
            if let Some(waiter) = waiter {
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
    struct Listed(usize);
    impl Drop for Listed {
        fn drop(&mut self) {
            WAITING.with_borrow_mut(|(_, waiting)| drop(waiting.remove(self.0)));
        }
    }
    let waiter = Waiter::current();
    let (index, serial) = WAITING.with_borrow_mut(|(last, waiting)| {
        *last += 1;
        (waiting.insert((*last, waiter.clone())), *last)
    });
    let _listed = Listed(index);
    arm(RemoteWaker { hub: hub::with(|hub| hub.handle()), index, serial });
    let woke = hub::park(&waiter, None);
    debug_assert_eq!(woke, Woke::Notified);
}
