//! The waker of a fiber that waits for a future.
//!
//! There is one per place for fibers, made at the first wait and kept: whoever keeps a clone of it can, at worst,
//! have a later future polled once too often, which every future must bear. It never ends a wait of another kind,
//! because it knows whom to wake only while the fiber is parked for a future.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Wake, Waker};

use super::flag::Flag;
use crate::fiber::{Waiter, Woke};
use crate::hub::{self, Hub};
use crate::inbox::WeakHandle;

/// No fiber waits with this ticket.
const NOBODY: u64 = u64::MAX;

/// A fiber's signal, and the waker that gives it.
pub(crate) struct Waking {
    signal: Arc<Signal>,
    waker: Waker,
}

/// Shared with whoever keeps a waker, on any thread.
pub(crate) struct Signal {
    hub_number: u32,
    hub: WeakHandle,
    /// Somebody has asked for a poll since the last one began.
    woken: Flag,
    /// Whom to wake: written and read by the hub's thread only.
    index: AtomicU32,
    ticket: AtomicU64,
}

impl Waking {
    pub(crate) fn new(hub: &Hub) -> Box<Self> {
        let signal = Arc::new(Signal {
            hub_number: hub.number,
            hub: hub.handle().downgrade(),
            woken: Flag::new(),
            index: AtomicU32::new(0),
            ticket: AtomicU64::new(NOBODY),
        });
        Box::new(Self { waker: Waker::from(signal.clone()), signal })
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Before a poll: what has been asked for so far is answered by it.
    pub(crate) fn begin(&self) {
        self.signal.woken.lower();
    }

    pub(crate) fn is_woken(&self) -> bool {
        self.signal.woken.is_up()
    }

    /// The fiber is about to park as `waiter`. Its end, however it comes, drops the guard.
    pub(crate) fn arm(&self, waiter: Waiter) -> Armed<'_> {
        self.signal.index.store(waiter.index(), Ordering::Relaxed);
        self.signal.ticket.store(waiter.ticket(), Ordering::Relaxed);
        Armed(&self.signal)
    }

    /// Whether anybody has a clone of the waker, and so could wake the fiber.
    pub(crate) fn is_shared(&self) -> bool {
        // Ours are two: the signal, and the one in the waker.
        Arc::strong_count(&self.signal) > 2
    }
}

/// See [`Waking::arm`].
pub(crate) struct Armed<'a>(&'a Signal);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.ticket.store(NOBODY, Ordering::Relaxed);
    }
}

impl Signal {
    /// On the hub's own thread.
    fn wake_here(&self, hub: &Hub) {
        let ticket = self.ticket.load(Ordering::Relaxed);
        if ticket != NOBODY {
            hub.wake(self.index.load(Ordering::Relaxed), ticket, Woke::Notified);
        }
    }

    /// The letter has come.
    pub(crate) fn arrived(&self) {
        hub::with(|hub| self.wake_here(hub));
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Before the look at who waits: a fiber that has not parked yet sees it instead, and does not.
        let first = self.woken.raise();
        let here = hub::try_with(|hub| {
            let own = hub.number == self.hub_number;
            if own {
                self.wake_here(hub);
            }
            own
        });
        if here != Some(true) && first {
            self.hub.wake(self);
        }
    }
}
