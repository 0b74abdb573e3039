//! [`DeferredQueue`]: who takes waits for who puts.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;

use super::{Deferred, Resolver};

/// A queue of which one can take before anything is there (Twisted's `DeferredQueue`). Clones are the same queue.
///
/// An item belongs to the one who waited for it as soon as it is put: a fiber that is killed before it goes on takes it along.
/// Where only fibers take, the hub's [`Queue`](warren_hub::sync::Queue) hands it to the next.
///
/// ```
/// use warren_reactor::DeferredQueue;
///
/// let queue = DeferredQueue::new();
/// let first = queue.get().unwrap();
/// queue.put("job").unwrap();
/// assert_eq!(first.wait().unwrap(), "job");
/// ```
pub struct DeferredQueue<T>(Rc<Line<T>>);

struct Line<T> {
    size_max: Option<usize>,
    backlog_max: Option<usize>,
    /// Empty while anybody waits.
    items: RefCell<VecDeque<T>>,
    waiting: RefCell<BTreeMap<u64, Resolver<T>>>,
    last_waiter: Cell<u64>,
}

/// The queue is full: here is the item again.
#[derive(Debug, PartialEq, Eq)]
pub struct QueueOverflow<T>(pub T);

/// As many as may wait for an item do so already.
#[derive(Debug, PartialEq, Eq)]
pub struct QueueUnderflow;

impl<T: 'static> DeferredQueue<T> {
    /// One without limits.
    pub fn new() -> Self {
        Self::with_limits(None, None)
    }

    /// One that holds `size_max` items, and lets `backlog_max` wait for one.
    pub fn with_limits(size_max: Option<usize>, backlog_max: Option<usize>) -> Self {
        Self(Rc::new(Line {
            size_max,
            backlog_max,
            items: RefCell::default(),
            waiting: RefCell::default(),
            last_waiter: Cell::default(),
        }))
    }

    /// Gives `item` to who has waited longest, whose callbacks are called before this returns; or keeps it.
    ///
    /// # Errors
    /// [`QueueOverflow`] when it is full.
    pub fn put(&self, item: T) -> Result<(), QueueOverflow<T>> {
        let waiter = self.0.waiting.borrow_mut().pop_first();
        if let Some((_, waiter)) = waiter {
            waiter.callback(item);
            return Ok(());
        }
        let mut items = self.0.items.borrow_mut();
        if self.0.size_max.is_some_and(|size_max| size_max <= items.len()) {
            return Err(QueueOverflow(item));
        }
        items.push_back(item);
        Ok(())
    }

    /// The next item, when it comes. Cancelling it gives the place in the line up.
    ///
    /// # Errors
    /// [`QueueUnderflow`] when too many wait.
    #[track_caller]
    pub fn get(&self) -> Result<Deferred<T>, QueueUnderflow> {
        let item = self.0.items.borrow_mut().pop_front();
        if let Some(item) = item {
            return Ok(Deferred::succeed(item));
        }
        let mut waiting = self.0.waiting.borrow_mut();
        if self.0.backlog_max.is_some_and(|backlog_max| backlog_max <= waiting.len()) {
            return Err(QueueUnderflow);
        }
        let (deferred, resolver) = Deferred::pending();
        let waiter = self.0.last_waiter.get() + 1;
        self.0.last_waiter.set(waiter);
        let weak = Rc::downgrade(&self.0);
        resolver.on_cancel(move || {
            if let Some(line) = weak.upgrade() {
                let cancelled = line.waiting.borrow_mut().remove(&waiter);
                drop(cancelled);
            }
        });
        waiting.insert(waiter, resolver);
        Ok(deferred)
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.0.items.borrow().len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many wait for an item.
    pub fn backlog(&self) -> usize {
        self.0.waiting.borrow().len()
    }
}

impl<T: 'static> Default for DeferredQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for DeferredQueue<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: 'static> fmt::Debug for DeferredQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredQueue")
            .field("len", &self.len())
            .field("backlog", &self.backlog())
            .finish()
    }
}

impl<T> fmt::Display for QueueOverflow<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue is full: take items out before, or allow it a larger size")
    }
}

impl<T: fmt::Debug> std::error::Error for QueueOverflow<T> {}

impl fmt::Display for QueueUnderflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "too many wait for an item already: put items in before, or allow a larger backlog",
        )
    }
}

impl std::error::Error for QueueUnderflow {}
