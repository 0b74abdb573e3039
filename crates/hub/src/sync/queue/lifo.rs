//! [`LifoQueue`].

use super::{BaseQueue, Lifo};

/// A queue whose last item comes first. gevent's `LifoQueue`.
///
/// ```
/// use warren_hub::sync::LifoQueue;
///
/// let queue = LifoQueue::unbounded();
/// for n in [1, 2, 3] {
///     queue.try_put(n).unwrap();
/// }
/// assert_eq!([(); 3].map(|_| queue.try_get().unwrap()), [3, 2, 1]);
/// ```
pub type LifoQueue<T> = BaseQueue<Lifo<T>>;

impl<T> LifoQueue<T> {
    /// A queue that holds any number of items.
    pub fn unbounded() -> Self {
        Self::with_storage(Lifo::default(), usize::MAX)
    }

    /// A queue that holds `capacity` items; who puts more waits.
    ///
    /// # Panics
    /// When `capacity` is 0.
    pub fn bounded(capacity: usize) -> Self {
        assert!(capacity > 0, "a queue must hold an item");
        Self::with_storage(Lifo::default(), capacity)
    }
}
