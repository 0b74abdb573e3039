//! [`PriorityQueue`].

use super::{BaseQueue, Heap};

/// A queue whose smallest item comes first; among equals, any. gevent's `PriorityQueue`. Items are often pairs of
/// a priority and the rest, or a [`Reverse`](std::cmp::Reverse) for the largest first.
///
/// ```
/// use warren_hub::sync::PriorityQueue;
///
/// let queue = PriorityQueue::unbounded();
/// for task in [(2, "later"), (1, "now"), (3, "some day")] {
///     queue.try_put(task).unwrap();
/// }
/// assert_eq!([(); 3].map(|_| queue.try_get().unwrap().1), ["now", "later", "some day"]);
/// ```
pub type PriorityQueue<T> = BaseQueue<Heap<T>>;

impl<T: Ord> PriorityQueue<T> {
    /// A queue that holds any number of items.
    pub fn unbounded() -> Self {
        Self::with_storage(Heap::default(), usize::MAX)
    }

    /// A queue that holds `capacity` items; who puts more waits.
    ///
    /// # Panics
    /// When `capacity` is 0.
    pub fn bounded(capacity: usize) -> Self {
        assert!(capacity > 0, "a queue must hold an item");
        Self::with_storage(Heap::default(), capacity)
    }
}
