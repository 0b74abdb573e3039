//! Why an item was not put, or none was got.

use std::fmt;

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

impl<T> PutError<T> {
    /// The item.
    pub fn into_item(self) -> T {
        match self {
            Self::Closed(item) | Self::Full(item) => item,
        }
    }
}

impl<T> fmt::Debug for PutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed(_) => "Closed",
            Self::Full(_) => "Full",
        })
    }
}
