//! Queues: [`BaseQueue`] and its kinds.

mod channel;
mod error;
mod exchange;
mod joinable;
mod lifo;
mod priority;
mod simple;
mod storage;

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

use super::{WaitList, deadline};
use crate::fiber::{Waiter, WaitsFor, Woke};
use crate::hub;
use crate::timer::TimedOut;

pub use channel::{Channel, Rendezvous};
pub use error::{Closed, GetError, PutError};
pub(crate) use exchange::Exchange;
pub use joinable::JoinableQueue;
pub use lifo::LifoQueue;
pub use priority::PriorityQueue;
pub use simple::SimpleQueue;
pub use storage::{Fifo, Heap, Lifo, Storage};

/// Items from fiber to fiber, first in, first out. gevent's `Queue`.
///
/// ```
/// use std::rc::Rc;
/// use warren_hub::{run, spawn, sync::Queue};
///
/// run(|| {
///     let queue = Rc::new(Queue::bounded(2));
///     spawn({
///         let queue = queue.clone();
///         move || {
///             for n in 0..5 {
///                 queue.put(n).unwrap();
///             }
///             queue.close();
///         }
///     });
///     assert_eq!(queue.iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
/// });
/// ```
pub type Queue<T> = BaseQueue<Fifo<T>>;

/// What [`Queue`], [`LifoQueue`], [`PriorityQueue`] and [`Channel`] have in common; they differ in the order of
/// their items, `S`.
///
/// Those who wait to put and those who wait to get are each served in turn, and nobody overtakes them. One that is
/// killed or gives up while it waits takes no item with it.
///
/// Comparing and cloning of items must not wait nor use the queue.
pub struct BaseQueue<S: Storage> {
    exchange: RefCell<Exchange<S, Waiter>>,
    /// Who waits for all items to be done with.
    joining: WaitList,
}

impl<T> Queue<T> {
    /// A queue that holds any number of items.
    pub const fn unbounded() -> Self {
        Self::with_storage(Fifo::new(), usize::MAX)
    }

    /// A queue that holds `capacity` items; who puts more waits.
    ///
    /// # Panics
    /// When `capacity` is 0: that is a [`Channel`].
    pub const fn bounded(capacity: usize) -> Self {
        assert!(capacity > 0, "a queue must hold an item");
        Self::with_storage(Fifo::new(), capacity)
    }
}

impl<S: Storage> BaseQueue<S> {
    const fn with_storage(items: S, capacity: usize) -> Self {
        Self { exchange: RefCell::new(Exchange::new(items, capacity)), joining: WaitList::new() }
    }

    /// Puts an item. Into a [`Channel`]: returns when another fiber has taken it.
    ///
    /// # Suspends
    /// While the queue is full.
    ///
    /// # Errors
    /// [`Closed`], also when it is closed during the wait, and instead of a wait in a destructor that runs because
    /// the fiber unwinds; the item is dropped.
    pub fn put(&self, item: S::Item) -> Result<(), Closed> {
        self.put_until(item, None).map_err(|_| Closed)
    }

    /// Puts an item, and waits for room at most for `timeout`.
    ///
    /// # Suspends
    /// While the queue is full.
    ///
    /// # Errors
    /// With the item, when the queue is closed or stays full.
    pub fn put_timeout(&self, item: S::Item, timeout: Duration) -> Result<(), PutError<S::Item>> {
        self.put_until(item, deadline(timeout))
    }

    /// Puts an item if there is room; into a [`Channel`]: if a fiber waits for it. gevent's `put_nowait`.
    ///
    /// # Errors
    /// With the item, when the queue is closed or full.
    pub fn try_put(&self, item: S::Item) -> Result<(), PutError<S::Item>> {
        let getter = self.exchange.borrow_mut().put(item)?;
        wake(getter);
        Ok(())
    }

    /// Takes the item that is next.
    ///
    /// # Suspends
    /// While the queue is empty.
    ///
    /// # Errors
    /// [`Closed`] once the queue is closed and empty, and instead of a wait in a destructor that runs because the
    /// fiber unwinds.
    pub fn get(&self) -> Result<S::Item, Closed> {
        self.get_until(None).map_err(|_| Closed)
    }

    /// Takes the item that is next, and waits for one at most for `timeout`.
    ///
    /// # Suspends
    /// While the queue is empty.
    ///
    /// # Errors
    /// [`GetError::Empty`] when the time is over, [`GetError::Closed`] once the queue is closed and empty.
    pub fn get_timeout(&self, timeout: Duration) -> Result<S::Item, GetError> {
        self.get_until(deadline(timeout))
    }

    /// Takes the item that is next, if there is one. gevent's `get_nowait`.
    ///
    /// # Errors
    /// As [`get_timeout`](Self::get_timeout).
    pub fn try_get(&self) -> Result<S::Item, GetError> {
        let (item, putter) = self.exchange.borrow_mut().get()?;
        wake(putter);
        Ok(item)
    }

    /// A copy of the item that is next, which stays.
    ///
    /// # Suspends
    /// While the queue is empty.
    ///
    /// # Errors
    /// [`Closed`] once the queue is closed and empty.
    pub fn peek(&self) -> Result<S::Item, Closed>
    where
        S::Item: Clone,
    {
        self.peek_until(None).map_err(|_| Closed)
    }

    /// As [`peek`](Self::peek), and waits at most for `timeout`.
    ///
    /// # Suspends
    /// While the queue is empty.
    ///
    /// # Errors
    /// As [`get_timeout`](Self::get_timeout).
    pub fn peek_timeout(&self, timeout: Duration) -> Result<S::Item, GetError>
    where
        S::Item: Clone,
    {
        self.peek_until(deadline(timeout))
    }

    /// A copy of the item that is next, if there is one; it stays.
    ///
    /// # Errors
    /// As [`get_timeout`](Self::get_timeout).
    pub fn try_peek(&self) -> Result<S::Item, GetError>
    where
        S::Item: Clone,
    {
        self.exchange.borrow().peek().cloned()
    }

    /// Takes items one by one until the queue is closed and empty.
    ///
    /// # Suspends
    /// As [`get`](Self::get), for each item.
    pub fn iter(&self) -> impl Iterator<Item = S::Item> + '_ {
        std::iter::from_fn(|| self.get().ok())
    }

    /// Takes no more items. What is there can still be got; all who wait are woken, and who waits to put gets its
    /// item back.
    pub fn close(&self) {
        self.shutdown(false);
    }

    /// As [`close`](Self::close); with `immediate`, what is there is dropped and counts as done. As of Python's
    /// 3.13, where the error is called `ShutDown`.
    pub fn shutdown(&self, immediate: bool) {
        // Waking only makes a fiber ready: none runs while the queue is borrowed.
        let items = self.exchange.borrow_mut().close(immediate, |waiter| wake(Some(waiter)));
        if immediate && self.unfinished_tasks() == 0 {
            self.joining.wake_all();
        }
        drop(items);
    }

    /// Whether it has been closed.
    pub fn is_closed(&self) -> bool {
        self.exchange.borrow().is_closed()
    }

    /// Items kept. gevent's `qsize`; always 0 for a [`Channel`].
    pub fn len(&self) -> usize {
        self.exchange.borrow().len()
    }

    /// Whether no item is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is no room: always for a [`Channel`].
    pub fn is_full(&self) -> bool {
        let exchange = self.exchange.borrow();
        exchange.len() >= exchange.capacity()
    }

    /// Items at most; `None` when unbounded. gevent's `maxsize`.
    pub fn capacity(&self) -> Option<usize> {
        let capacity = self.exchange.borrow().capacity();
        (capacity != usize::MAX).then_some(capacity)
    }

    /// An item that was got is done with: for who [joins](Self::join) the queue.
    ///
    /// # Panics
    /// When called more often than items were put.
    pub fn task_done(&self) {
        let finished = self.exchange.borrow_mut().finish();
        assert!(finished, "task_done was called more often than items were put");
        if self.unfinished_tasks() == 0 {
            self.joining.wake_all();
        }
    }

    /// Items that were put, and not yet reported as done by [`task_done`](Self::task_done).
    pub fn unfinished_tasks(&self) -> usize {
        self.exchange.borrow().unfinished()
    }

    /// Waits until every item that was put is done with.
    ///
    /// # Suspends
    /// Until then; not when there is none.
    pub fn join(&self) {
        if self.unfinished_tasks() > 0 {
            self.joining.wait_for(None, WaitsFor::Tasks);
        }
    }

    /// As [`join`](Self::join), and waits at most for `timeout`.
    ///
    /// # Suspends
    /// Until then.
    ///
    /// # Errors
    /// [`TimedOut`].
    pub fn join_timeout(&self, timeout: Duration) -> Result<(), TimedOut> {
        if self.unfinished_tasks() > 0
            && self.joining.wait_for(deadline(timeout), WaitsFor::Tasks) == Woke::TimedOut
        {
            return Err(TimedOut);
        }
        Ok(())
    }
}

/// The waiting.
impl<S: Storage> BaseQueue<S> {
    fn put_until(&self, item: S::Item, deadline: Option<Instant>) -> Result<(), PutError<S::Item>> {
        /// Withdraws an offer when the wait unwinds.
        struct Offering<'a, S: Storage>(&'a BaseQueue<S>, u64);
        impl<S: Storage> Drop for Offering<'_, S> {
            fn drop(&mut self) {
                let item = self.0.exchange.borrow_mut().withdraw(self.1);
                drop(item);
            }
        }
        let rendezvous = self.exchange.borrow().capacity() == 0;
        let item = match rendezvous {
            true if self.is_closed() => return Err(PutError::Closed(item)),
            true => item,
            false => match self.try_put(item) {
                Err(PutError::Full(item)) => item,
                done => return done,
            },
        };
        let waiter = Waiter::current();
        let (id, woken) = self.exchange.borrow_mut().offer(item, waiter);
        woken.into_iter().for_each(wake);
        let offering = Offering(self, id);
        hub::park_for(&waiter, deadline, WaitsFor::Room);
        std::mem::forget(offering);
        let back = self.exchange.borrow_mut().withdraw(id);
        match back {
            None => Ok(()),
            Some(item) if self.is_closed() => Err(PutError::Closed(item)),
            Some(item) => Err(PutError::Full(item)),
        }
    }

    fn get_until(&self, deadline: Option<Instant>) -> Result<S::Item, GetError> {
        match self.try_get() {
            Err(GetError::Empty) => {}
            done => return done,
        }
        let (item, putter) = self.await_item(deadline, Exchange::take)?;
        wake(putter);
        Ok(item)
    }

    fn peek_until(&self, deadline: Option<Instant>) -> Result<S::Item, GetError>
    where
        S::Item: Clone,
    {
        match self.try_peek() {
            Err(GetError::Empty) => {}
            done => return done,
        }
        let (item, getter) = self.await_item(deadline, |exchange| {
            let item = exchange.peek()?.clone();
            // It stays, for the next.
            Ok((item, exchange.pass_on()))
        })?;
        wake(getter);
        Ok(item)
    }

    /// Waits for an item and has `take` take it.
    fn await_item<R>(
        &self,
        deadline: Option<Instant>,
        take: impl Fn(&mut Exchange<S, Waiter>) -> Result<R, GetError>,
    ) -> Result<R, GetError> {
        /// Passes on what was promised when the wait unwinds.
        struct Getting<'a, S: Storage>(&'a BaseQueue<S>, u64);
        impl<S: Storage> Drop for Getting<'_, S> {
            fn drop(&mut self) {
                let mut exchange = self.0.exchange.borrow_mut();
                let next = if exchange.come_back(self.1) { exchange.pass_on() } else { None };
                drop(exchange);
                wake(next);
            }
        }
        let mut waiter = Waiter::current();
        let (id, woken) = self.exchange.borrow_mut().enlist(None, waiter);
        debug_assert!(woken.is_none(), "nothing has come since it was tried");
        loop {
            let getting = Getting(self, id);
            hub::park_for(&waiter, deadline, WaitsFor::Item);
            std::mem::forget(getting);
            let mut exchange = self.exchange.borrow_mut();
            if !exchange.come_back(id) {
                return Err(exchange.why_empty());
            }
            match take(&mut exchange) {
                // Who had offered the item has withdrawn it meanwhile.
                Err(GetError::Empty) => {
                    waiter = Waiter::current();
                    exchange.enlist(Some(id), waiter);
                }
                Err(closed) => {
                    let next = exchange.pass_on();
                    drop(exchange);
                    wake(next);
                    return Err(closed);
                }
                done => return done,
            }
        }
    }
}

fn wake(waiter: Option<Waiter>) {
    if let Some(waiter) = waiter {
        // Not whether it still waited: one that is woken otherwise as well finds out when it comes back.
        waiter.wake();
    }
}

impl<S: Storage> Default for BaseQueue<S> {
    /// Without bound; a [`Channel`] holds no item all the same.
    fn default() -> Self {
        Self::with_storage(S::default(), S::CAPACITY_MAX)
    }
}

impl<S: Storage> fmt::Debug for BaseQueue<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
