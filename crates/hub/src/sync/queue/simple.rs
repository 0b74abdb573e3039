//! [`SimpleQueue`].

use super::Queue;

/// A [`Queue`] by the name that Python and gevent have for the plain one: use it unbounded.
pub type SimpleQueue<T> = Queue<T>;
