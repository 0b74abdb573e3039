//! [`Queue`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use super::WaitList;
use crate::fiber::Woke;

/// The queue takes no more items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue is closed")]
pub struct Closed;

/// Why no item was got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GetError {
    /// There is none, and none will come.
    #[error("the queue is closed")]
    Closed,
    /// There is none yet.
    #[error("the queue is empty")]
    Empty,
}

/// Why an item was not put. It comes back.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PutError<T> {
    /// The queue takes no more.
    #[error("the queue is closed")]
    Closed(T),
    /// There is no room yet.
    #[error("the queue is full")]
    Full(T),
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed(_) => "Closed",
            Self::Full(_) => "Full",
        })
    }
}

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
pub struct Queue<T> {
    items: RefCell<VecDeque<T>>,
    /// `usize::MAX` when unbounded.
    capacity: usize,
    closed: Cell<bool>,
    getting: WaitList,
    putting: WaitList,
}

impl<T> Queue<T> {
    /// A queue that holds any number of items.
    pub const fn unbounded() -> Self {
        Self::with_capacity(usize::MAX)
    }

    /// A queue that holds `capacity` items; who puts more waits.
    ///
    /// # Panics
    /// When `capacity` is 0.
    pub const fn bounded(capacity: usize) -> Self {
        assert!(capacity > 0, "a queue must hold an item");
        Self::with_capacity(capacity)
    }

    const fn with_capacity(capacity: usize) -> Self {
        Self {
            items: RefCell::new(VecDeque::new()),
            capacity,
            closed: Cell::new(false),
            getting: WaitList::new(),
            putting: WaitList::new(),
        }
    }

    /// Appends an item.
    ///
    /// # Suspends
    /// While the queue is full.
    ///
    /// # Errors
    /// [`Closed`], also when it is closed during the wait; the item is dropped.
    pub fn put(&self, item: T) -> Result<(), Closed> {
        self.put_until(item, None).map_err(|_| Closed)
    }

    /// Appends an item, and waits for room at most for `timeout`.
    ///
    /// # Suspends
    /// While the queue is full.
    ///
    /// # Errors
    /// With the item, when the queue is closed or stays full.
    pub fn put_timeout(&self, item: T, timeout: Duration) -> Result<(), PutError<T>> {
        self.put_until(item, Some(Instant::now() + timeout))
    }

    fn put_until(&self, mut item: T, deadline: Option<Instant>) -> Result<(), PutError<T>> {
        loop {
            match self.try_put(item) {
                Err(PutError::Full(back)) => item = back,
                other => return other,
            }
            if self.putting.wait(deadline) == Woke::TimedOut {
                return self.try_put(item);
            }
        }
    }

    /// Appends an item if there is room.
    ///
    /// # Errors
    /// With the item, when the queue is closed or full.
    pub fn try_put(&self, item: T) -> Result<(), PutError<T>> {
        if self.closed.get() {
            return Err(PutError::Closed(item));
        }
        if self.len() >= self.capacity {
            return Err(PutError::Full(item));
        }
        self.items.borrow_mut().push_back(item);
        self.getting.wake_one();
        Ok(())
    }

    /// Takes the first item.
    ///
    /// # Suspends
    /// While the queue is empty.
    ///
    /// # Errors
    /// [`Closed`] once the queue is closed and empty.
    pub fn get(&self) -> Result<T, Closed> {
        self.get_until(None).map_err(|_| Closed)
    }

    /// Takes the first item, and waits for one at most for `timeout`.
    ///
    /// # Suspends
    /// While the queue is empty.
    ///
    /// # Errors
    /// [`GetError::Empty`] when the time is over, [`GetError::Closed`] once the queue is closed and empty.
    pub fn get_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_until(Some(Instant::now() + timeout))
    }

    fn get_until(&self, deadline: Option<Instant>) -> Result<T, GetError> {
        loop {
            match self.try_get() {
                Err(GetError::Empty) => {}
                other => return other,
            }
            if self.getting.wait(deadline) == Woke::TimedOut {
                return self.try_get();
            }
        }
    }

    /// Takes the first item if there is one.
    ///
    /// # Errors
    /// As [`get_timeout`](Self::get_timeout).
    pub fn try_get(&self) -> Result<T, GetError> {
        let item = self.items.borrow_mut().pop_front();
        match item {
            Some(item) => {
                self.putting.wake_one();
                Ok(item)
            }
            None if self.closed.get() => Err(GetError::Closed),
            None => Err(GetError::Empty),
        }
    }

    /// Takes items one by one until the queue is closed and empty.
    ///
    /// # Suspends
    /// As [`get`](Self::get), for each item.
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        std::iter::from_fn(|| self.get().ok())
    }

    /// Takes no more items. What is there can still be got; all who wait are woken.
    pub fn close(&self) {
        self.closed.set(true);
        self.getting.wake_all();
        self.putting.wake_all();
    }

    /// Whether it has been closed.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.items.borrow().len()
    }

    /// Whether no item waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
