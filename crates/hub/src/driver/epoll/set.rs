//! An epoll set: the hub's own, that of [`wait_fd`](crate::io::wait_fd), and that of a selector.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

pub(crate) use epoll::EventFlags;

pub(crate) struct EpollSet {
    epoll: OwnedFd,
    /// Reused from wait to wait; its capacity is what one wait takes.
    events: Cell<Vec<epoll::Event>>,
}

impl EpollSet {
    /// A wait takes `events_max` events at most; what is more comes with the next.
    pub(crate) fn new(events_max: usize) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Cell::new(Vec::with_capacity(events_max)) })
    }

    pub(crate) fn add(&self, fd: BorrowedFd<'_>, key: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(key), flags)?)
    }

    /// # Errors
    /// `NotFound` when it is not in the set.
    pub(crate) fn modify(&self, fd: BorrowedFd<'_>, key: u64, flags: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(key), flags)?)
    }

    pub(crate) fn delete(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits for events, at most for `timeout`, for ever without one, and tells `each`, which may use the set. Whether
    /// there may be more. A signal ends the wait: whoever cares has been told by its handler.
    pub(crate) fn wait(
        &self,
        timeout: Option<Duration>,
        mut each: impl FnMut(u64, EventFlags),
    ) -> io::Result<bool> {
        let mut events = self.events.take();
        events.clear();
        let timeout = timespec(timeout);
        let waited = epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref());
        for event in &events {
            // The structure is packed: its fields are copied, not borrowed.
            let (flags, data) = (event.flags, event.data);
            each(data.u64(), flags);
        }
        let full = !events.is_empty() && events.len() == events.capacity();
        self.events.set(events);
        match waited {
            Ok(_) | Err(Errno::INTR) => Ok(full),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for EpollSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// A timeout as the kernel takes it.
pub(crate) fn timespec(timeout: Option<Duration>) -> Option<Timespec> {
    timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    })
}
