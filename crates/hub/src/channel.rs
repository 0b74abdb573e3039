//! Items between hubs and threads.
//!
//! It is the queue of a hub ([`sync::Queue`](crate::sync::Queue)) behind a lock, whose waiters are woken through
//! the inbox of their hub, or are threads. As there, an item is in the channel until the very call that returns
//! it, so whoever is killed while it waits takes none with it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::remote::{Waker, may_wait, wait_anywhere};
use crate::shim::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError};
use crate::sync::{Closed, Exchange, Fifo, GetError, PutError, deadline};

/// A channel between hubs, and between hubs and plain threads, that holds `capacity` items: 0 hands over from one
/// to the other. Both ends may be cloned and moved to other threads; items arrive first in, first out, and those
/// who wait are served in turn.
///
/// A fiber that waits is parked; a thread without a hub blocks. Within one hub a [`Queue`](crate::sync::Queue) is
/// several times faster.
///
/// ```
/// use warren_hub::{HubGroup, channel, run};
///
/// let group = HubGroup::start(1)?;
/// let (numbers, received) = channel(4);
/// let (answer, answered) = channel(1);
/// group.spawn_on(0, move || answer.send(received.iter().sum::<u32>()).unwrap())?;
/// run(move || {
///     for n in 1..=100 {
///         numbers.send(n).unwrap();
///     }
///     drop(numbers);
///     assert_eq!(answered.recv(), Ok(5050));
/// });
/// group.shutdown();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared::new(capacity));
    (Sender(shared.clone()), Receiver(shared))
}

/// A [`channel()`] that holds any number of items: to send never waits.
pub fn unbounded_channel<T: Send>() -> (Sender<T>, Receiver<T>) {
    channel(usize::MAX)
}

/// The sending end of a [`channel()`]. When the last one is dropped, the receivers get what is there and then
/// [`Closed`].
pub struct Sender<T>(Arc<Shared<T>>);

/// The receiving end of a [`channel()`]. When the last one is dropped, what is there is dropped too, and sending
/// fails.
pub struct Receiver<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Sends an item.
    ///
    /// # Suspends
    /// While the channel is full; without capacity, until the item was received.
    ///
    /// # Errors
    /// [`PutError::Closed`] when no receiver is left. [`PutError::Full`] instead of a wait in a destructor that runs
    /// because the fiber unwinds.
    ///
    /// # Panics
    /// On the loop of a hub, where it would wait.
    pub fn send(&self, item: T) -> Result<(), PutError<T>> {
        self.0.put(item, None)
    }

    /// Sends an item, and waits for room at most for `timeout`.
    ///
    /// # Suspends
    /// As [`send`](Self::send).
    ///
    /// # Errors
    /// With the item, when no receiver is left or the time is over.
    ///
    /// # Panics
    /// As [`send`](Self::send).
    pub fn send_timeout(&self, item: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.0.put(item, deadline(timeout))
    }

    /// Sends an item if there is room; without capacity, if somebody waits for it. Never waits.
    ///
    /// # Errors
    /// With the item, when no receiver is left or the channel is full.
    pub fn try_send(&self, item: T) -> Result<(), PutError<T>> {
        self.0.try_put(item)
    }

    /// Items that wait to be received.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Receiver<T> {
    /// Receives the next item.
    ///
    /// # Suspends
    /// While the channel is empty.
    ///
    /// # Errors
    /// [`Closed`] when it is empty and no sender is left, and instead of a wait in a destructor that runs because
    /// the fiber unwinds.
    ///
    /// # Panics
    /// On the loop of a hub, where it would wait.
    pub fn recv(&self) -> Result<T, Closed> {
        self.0.get(None, may_wait()).map_err(|_| Closed)
    }

    /// Receives the next item, and waits for it at most for `timeout`.
    ///
    /// # Suspends
    /// While the channel is empty.
    ///
    /// # Errors
    /// [`GetError::Empty`] when the time is over, [`GetError::Closed`] when the channel is empty and no sender is left.
    ///
    /// # Panics
    /// As [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.0.get(deadline(timeout), may_wait())
    }

    /// Receives the next item if there is one. Never waits.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn try_recv(&self) -> Result<T, GetError> {
        self.0.try_get()
    }

    /// Receives items one by one until the channel is empty and no sender is left.
    ///
    /// # Suspends
    /// As [`recv`](Self::recv), for each item.
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.recv().ok())
    }

    /// Items that wait to be received.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::SeqCst);
        Self(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.0.receivers.fetch_add(1, Ordering::SeqCst);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.close(false);
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if self.0.receivers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.close(true);
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// What both ends share. Wakers are used after the lock is released, but for closing.
pub(crate) struct Shared<T> {
    exchange: Mutex<Exchange<Fifo<T>, Waker>>,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

impl<T> Shared<T> {
    /// With one end of each.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            exchange: Mutex::new(Exchange::new(Fifo::default(), capacity)),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(1),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Exchange<Fifo<T>, Waker>> {
        self.exchange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_put(&self, item: T) -> Result<(), PutError<T>> {
        let getter = self.lock().put(item)?;
        wake([getter]);
        Ok(())
    }

    pub(crate) fn try_get(&self) -> Result<T, GetError> {
        let (item, putter) = self.lock().get()?;
        wake([putter]);
        Ok(item)
    }

    fn put(&self, item: T, deadline: Option<Instant>) -> Result<(), PutError<T>> {
        /// Withdraws an offer when the wait unwinds.
        struct Offering<'a, T>(&'a Shared<T>, Option<u64>);
        impl<T> Offering<'_, T> {
            fn withdraw(&mut self) -> Option<T> {
                self.0.lock().withdraw(self.1.take()?)
            }
        }
        impl<T> Drop for Offering<'_, T> {
            fn drop(&mut self) {
                drop(self.withdraw());
            }
        }
        let rendezvous = self.lock().capacity() == 0;
        let item = match rendezvous {
            true => item,
            false => match self.try_put(item) {
                Err(PutError::Full(item)) => item,
                done => return done,
            },
        };
        if !may_wait() {
            return Err(PutError::Full(item));
        }
        let mut item = Some(item);
        let mut offering = Offering(self, None);
        wait_anywhere(deadline, |waker| {
            let mut exchange = self.lock();
            if exchange.is_closed() {
                // The wait ends at once, as the waker is dropped.
                return;
            }
            let (id, woken) = exchange.offer(item.take().expect("it is offered once"), waker);
            offering.1 = Some(id);
            drop(exchange);
            wake(woken);
        });
        match item.or_else(|| offering.withdraw()) {
            None => Ok(()),
            Some(item) if self.lock().is_closed() => Err(PutError::Closed(item)),
            Some(item) => Err(PutError::Full(item)),
        }
    }

    /// Only tries when not `waits`.
    pub(crate) fn get(&self, deadline: Option<Instant>, waits: bool) -> Result<T, GetError> {
        /// Passes on what was promised when the wait unwinds.
        struct Getting<'a, T>(&'a Shared<T>, Option<u64>);
        impl<T> Drop for Getting<'_, T> {
            fn drop(&mut self) {
                let Some(id) = self.1 else { return };
                let mut exchange = self.0.lock();
                let next = if exchange.come_back(id) { exchange.pass_on() } else { None };
                drop(exchange);
                wake([next]);
            }
        }
        match self.try_get() {
            Err(GetError::Empty) if waits => {}
            done => return done,
        }
        let mut getting = Getting(self, None);
        let mut place = None;
        loop {
            wait_anywhere(deadline, |waker| {
                let mut exchange = self.lock();
                if exchange.is_over() {
                    // The wait ends at once, as the waker is dropped.
                    return;
                }
                let (id, woken) = exchange.enlist(place, waker);
                getting.1 = Some(id);
                drop(exchange);
                wake([woken]);
            });
            let Some(id) = getting.1.take() else { return Err(GetError::Closed) };
            let mut exchange = self.lock();
            if !exchange.come_back(id) {
                return Err(exchange.why_empty());
            }
            match exchange.take() {
                // Who had offered the item has withdrawn it meanwhile.
                Err(GetError::Empty) => place = Some(id),
                Err(closed) => {
                    let next = exchange.pass_on();
                    drop(exchange);
                    wake([next]);
                    return Err(closed);
                }
                Ok((item, putter)) => {
                    drop(exchange);
                    wake([putter]);
                    return Ok(item);
                }
            }
        }
    }

    fn close(&self, immediate: bool) {
        let items = self.lock().close(immediate, Waker::wake);
        drop(items);
    }
}

fn wake<const N: usize>(wakers: [Option<Waker>; N]) {
    wakers.into_iter().flatten().for_each(Waker::wake);
}
