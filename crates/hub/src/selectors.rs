//! Waiting for many descriptors at once, by hand: Python's `selectors`.
//!
//! The hub has a loop of its own, on the same wrappers of the same system calls; this is for programs that want to write
//! theirs. The kinds differ only in the system call: [`EpollSelector`] scales, and so does `UringSelector` (with the
//! feature `io-uring`); [`PollSelector`] and [`SelectSelector`] are there for comparison and for systems without epoll.
//! All are level-triggered: what is ready is reported until it is dealt with.
//!
//! What Python says by exceptions is a [`SelectorError`]: its `KeyError` of a file that is registered twice, or not at
//! all, and its `ValueError` of no events.
//!
//! ```
//! use std::io::Write;
//! use std::os::unix::net::UnixStream;
//! use std::time::Duration;
//! use warren_hub::selectors::{DefaultSelector, Events};
//!
//! let (mut one, other) = UnixStream::pair()?;
//! let mut selector = DefaultSelector::new()?;
//! selector.register(&other, Events::READ, "the other end")?;
//! assert!(selector.select(Some(Duration::ZERO))?.is_empty());
//! one.write_all(b"x")?;
//! for (key, events) in selector.select(None)? {
//!     assert_eq!((key.data, events), ("the other end", Events::READ));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backend;
#[cfg(test)]
mod tests;
#[cfg(feature = "io-uring")]
mod uring;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

pub use backend::{Backend, Epoll, FD_SETSIZE, Poll, Select};
#[cfg(feature = "io-uring")]
pub use uring::Uring;

bitflags::bitflags! {
    /// What to wait for, and what has come.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Events: u8 {
        /// Ready to read. Python's `EVENT_READ`.
        const READ = 1;
        /// Ready to write. Python's `EVENT_WRITE`.
        const WRITE = 2;
    }
}

/// A file that is watched.
#[derive(Clone, Debug)]
pub struct SelectorKey<F, T> {
    /// The file: a reference, or shared ownership, which keeps it open.
    pub fileobj: F,
    /// Its descriptor.
    pub fd: RawFd,
    /// What it is watched for.
    pub events: Events,
    /// Whatever belongs to it.
    pub data: T,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelectorError {
    /// Python's `KeyError` of `register`.
    #[error("descriptor {0} is registered already")]
    AlreadyRegistered(RawFd),
    /// Python's `KeyError` of `modify` and `unregister`.
    #[error("descriptor {0} is not registered")]
    NotRegistered(RawFd),
    /// Python's `ValueError`.
    #[error("neither READ nor WRITE is asked for")]
    NoEvents,
    /// `select` has a fixed table.
    #[error("select() takes descriptors below {FD_SETSIZE} only, not {0}: use another selector")]
    TooLarge(RawFd),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A set of files and a way to wait for them.
pub struct Selector<B, F, T> {
    backend: B,
    keys: BTreeMap<RawFd, SelectorKey<F, T>>,
}

/// On `epoll`.
pub type EpollSelector<F, T> = Selector<Epoll, F, T>;
/// On `poll`.
pub type PollSelector<F, T> = Selector<Poll, F, T>;
/// On `select`.
pub type SelectSelector<F, T> = Selector<Select, F, T>;
/// On `io_uring`.
#[cfg(feature = "io-uring")]
pub type UringSelector<F, T> = Selector<Uring, F, T>;
/// The best that the system has for certain.
pub type DefaultSelector<F, T> = EpollSelector<F, T>;

impl<B: Backend, F: AsFd, T> Selector<B, F, T> {
    /// With no files yet.
    ///
    /// # Errors
    /// When the system refuses a descriptor for it.
    pub fn new() -> io::Result<Self> {
        Ok(Self { backend: B::new()?, keys: BTreeMap::new() })
    }

    /// Watches a file.
    ///
    /// # Errors
    /// [`SelectorError`]: it is watched already, or cannot be.
    pub fn register(
        &mut self,
        fileobj: F,
        events: Events,
        data: T,
    ) -> Result<&SelectorKey<F, T>, SelectorError> {
        let fd = fileobj.as_fd().as_raw_fd();
        if events.is_empty() {
            return Err(SelectorError::NoEvents);
        }
        if self.keys.contains_key(&fd) {
            return Err(SelectorError::AlreadyRegistered(fd));
        }
        self.backend.add(fileobj.as_fd(), events)?;
        Ok(self.keys.entry(fd).or_insert(SelectorKey { fileobj, fd, events, data }))
    }

    /// Stops watching a file, and gives it back.
    ///
    /// # Errors
    /// When it is not watched.
    pub fn unregister(&mut self, file: impl AsFd) -> Result<SelectorKey<F, T>, SelectorError> {
        let fd = file.as_fd().as_raw_fd();
        let key = self.keys.remove(&fd).ok_or(SelectorError::NotRegistered(fd))?;
        self.backend.remove(key.fileobj.as_fd())?;
        Ok(key)
    }

    /// Watches a file for something else, with other data.
    ///
    /// # Errors
    /// When it is not watched.
    pub fn modify(
        &mut self,
        file: impl AsFd,
        events: Events,
        data: T,
    ) -> Result<&SelectorKey<F, T>, SelectorError> {
        let fd = file.as_fd().as_raw_fd();
        if events.is_empty() {
            return Err(SelectorError::NoEvents);
        }
        let key = self.keys.get_mut(&fd).ok_or(SelectorError::NotRegistered(fd))?;
        if key.events != events {
            self.backend.modify(key.fileobj.as_fd(), events)?;
            key.events = events;
        }
        key.data = data;
        Ok(key)
    }

    /// Waits until a file is ready, at most for `timeout`, for ever without one. What is ready, and for what.
    /// Nothing when the time is over or a signal came.
    ///
    /// # Errors
    /// What the system says.
    pub fn select(
        &mut self,
        timeout: Option<Duration>,
    ) -> io::Result<Vec<(&SelectorKey<F, T>, Events)>> {
        let watched = self.keys.values().map(|key| (key.fileobj.as_fd(), key.events));
        let ready = self.backend.wait(watched, timeout)?;
        let known = |(fd, events): (RawFd, Events)| {
            let key = self.keys.get(&fd)?;
            let events = events & key.events;
            (!events.is_empty()).then_some((key, events))
        };
        Ok(ready.into_iter().filter_map(known).collect())
    }

    /// The key of a file that is watched.
    pub fn get_key(&self, file: impl AsFd) -> Option<&SelectorKey<F, T>> {
        self.keys.get(&file.as_fd().as_raw_fd())
    }

    /// Stops watching everything. Dropping the selector does the same; files that it owns are closed.
    ///
    /// # Errors
    /// What the system says.
    pub fn close(mut self) -> io::Result<()> {
        for key in self.keys.values() {
            self.backend.remove(key.fileobj.as_fd())?;
        }
        self.keys.clear();
        Ok(())
    }

    /// All that is watched, by descriptor.
    pub fn get_map(&self) -> &BTreeMap<RawFd, SelectorKey<F, T>> {
        &self.keys
    }
}

impl<B, F, T> fmt::Debug for Selector<B, F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selector").field("files", &self.keys.len()).finish_non_exhaustive()
    }
}
