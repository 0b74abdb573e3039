//! Semaphores and events for fibers of several hubs and for plain threads.

use std::fmt;
use std::time::{Duration, Instant};

use crate::channel::Shared;
use crate::remote::{Waker, may_wait, wait_anywhere};
use crate::shim::{Arc, Mutex, MutexGuard, PoisonError};
use crate::sync::deadline;
use crate::timer::TimedOut;

/// Permits that fibers of several hubs, and threads, take and give back; those who wait are served in turn. Clones
/// are the same semaphore. Within one hub, [`Semaphore`](crate::sync::Semaphore) is several times faster.
///
/// ```
/// use warren_hub::{HubGroup, SharedSemaphore};
///
/// let group = HubGroup::start(2)?;
/// let one_at_a_time = SharedSemaphore::new(1);
/// let joins = [0, 1].map(|hub| {
///     let one_at_a_time = one_at_a_time.clone();
///     group.spawn_on(hub, move || drop(one_at_a_time.acquire())).unwrap()
/// });
/// joins.into_iter().for_each(|join| join.join().unwrap());
/// group.shutdown();
/// assert_eq!(one_at_a_time.available(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SharedSemaphore {
    // A permit is an item that takes no room.
    permits: Arc<Shared<()>>,
}

impl SharedSemaphore {
    /// A semaphore with `permits` free ones.
    pub fn new(permits: usize) -> Self {
        let semaphore = Self { permits: Arc::new(Shared::new(usize::MAX)) };
        (0..permits).for_each(|_| semaphore.release());
        semaphore
    }

    /// Takes a permit, which goes back when it is dropped.
    ///
    /// # Suspends
    /// Until one is free; a thread without a hub blocks.
    ///
    /// # Panics
    /// On the loop of a hub, where it would wait.
    pub fn acquire(&self) -> SharedPermit {
        while self.permits.get(None, true).is_err() {}
        self.permit()
    }

    /// Takes a permit, and waits at most for `timeout`.
    ///
    /// # Suspends
    /// As [`acquire`](Self::acquire).
    ///
    /// # Errors
    /// [`TimedOut`].
    ///
    /// # Panics
    /// On the loop of a hub, where it would wait.
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<SharedPermit, TimedOut> {
        let got = self.permits.get(deadline(timeout), may_wait());
        got.map(|()| self.permit()).map_err(|_| TimedOut)
    }

    /// Takes a permit if one is free. Never waits.
    pub fn try_acquire(&self) -> Option<SharedPermit> {
        self.permits.try_get().ok().map(|()| self.permit())
    }

    /// Adds a permit: what dropping a [`SharedPermit`] does.
    pub fn release(&self) {
        // Neither closed nor full, ever.
        let _ = self.permits.try_put(());
    }

    /// Permits that are free, or on the way to one who waits.
    pub fn available(&self) -> usize {
        self.permits.lock().len()
    }

    fn permit(&self) -> SharedPermit {
        SharedPermit(Some(self.clone()))
    }
}

impl fmt::Debug for SharedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSemaphore").field("available", &self.available()).finish()
    }
}

/// A permit of a [`SharedSemaphore`]. Dropping it gives it back, from any thread.
#[derive(Debug)]
#[must_use = "a permit that is dropped is given back"]
pub struct SharedPermit(Option<SharedSemaphore>);

impl SharedPermit {
    /// Keeps the permit for good: the semaphore has one less, until someone calls `release`.
    pub fn forget(mut self) {
        self.0 = None;
    }
}

impl Drop for SharedPermit {
    fn drop(&mut self) {
        if let Some(semaphore) = &self.0 {
            semaphore.release();
        }
    }
}

/// A flag that fibers of several hubs, and threads, wait for. Clones are the same event. Within one hub,
/// [`Event`](crate::sync::Event) is several times faster.
///
/// ```
/// use warren_hub::{SharedEvent, run};
///
/// let ready = SharedEvent::new();
/// let elsewhere = std::thread::spawn({
///     let ready = ready.clone();
///     move || ready.set()
/// });
/// run(move || ready.wait());
/// elsewhere.join().unwrap();
/// ```
#[derive(Clone, Default)]
pub struct SharedEvent(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    set: bool,
    last_id: u64,
    waiting: Vec<(u64, Waker)>,
}

impl SharedEvent {
    /// An event that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flag and wakes all who wait.
    pub fn set(&self) {
        let mut state = self.lock();
        state.set = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Clears the flag.
    pub fn clear(&self) {
        self.lock().set = false;
    }

    /// Whether the flag is set.
    pub fn is_set(&self) -> bool {
        self.lock().set
    }

    /// Waits until the flag is set. One who was woken goes on even if it has been cleared meanwhile. In a destructor
    /// that runs because the fiber unwinds it returns at once.
    ///
    /// # Suspends
    /// Until then; not when it is set already. A thread without a hub blocks.
    ///
    /// # Panics
    /// On the loop of a hub, where it would wait.
    pub fn wait(&self) {
        let _ = self.wait_until(None, may_wait());
    }

    /// As [`wait`](Self::wait), also in a destructor of a fiber that unwinds.
    pub(crate) fn wait_always(&self) {
        while self.wait_until(None, true).is_err() {}
    }

    /// As [`wait`](Self::wait), at most for `timeout`.
    ///
    /// # Suspends
    /// As [`wait`](Self::wait).
    ///
    /// # Errors
    /// [`TimedOut`].
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), TimedOut> {
        self.wait_until(deadline(timeout), may_wait())
    }

    fn wait_until(&self, deadline: Option<Instant>, waits: bool) -> Result<(), TimedOut> {
        /// Leaves the list, if it is still on it, however the wait ends.
        struct Listed<'a>(&'a SharedEvent, Option<u64>);
        impl Listed<'_> {
            fn leave(&mut self) -> bool {
                let Some(id) = self.1.take() else { return false };
                let mut state = self.0.lock();
                let index = state.waiting.iter().position(|(other, _)| *other == id);
                let left = index.map(|index| state.waiting.remove(index));
                drop(state);
                left.is_some()
            }
        }
        impl Drop for Listed<'_> {
            fn drop(&mut self) {
                self.leave();
            }
        }
        if self.is_set() {
            return Ok(());
        }
        if !waits {
            return Err(TimedOut);
        }
        let mut listed = Listed(self, None);
        wait_anywhere(deadline, |waker| {
            let mut state = self.lock();
            if state.set {
                // The wait ends at once, as the waker is dropped.
                return;
            }
            state.last_id += 1;
            let id = state.last_id;
            state.waiting.push((id, waker));
            listed.1 = Some(id);
        });
        if listed.leave() { Err(TimedOut) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SharedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedEvent").field("set", &self.is_set()).finish()
    }
}
