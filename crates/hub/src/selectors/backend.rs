//! The three system calls.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use rustix::event::{FdSetElement, FdSetIter, PollFd, PollFlags};
use rustix::event::{fd_set_insert, fd_set_num_elements, poll, select};
use rustix::io::Errno;

use super::{Events, SelectorError};
use crate::driver::{EpollSet, EventFlags, timespec};

/// `select` takes descriptors below this.
pub const FD_SETSIZE: RawFd = 1024;
/// Events taken from `epoll_wait` at once. What is more comes with the next call.
const EVENTS_MAX: usize = 1024;

/// How a [`Selector`](super::Selector) asks the system.
pub trait Backend: Sized {
    /// With nothing to watch yet.
    ///
    /// # Errors
    /// When the system refuses a descriptor for it.
    fn new() -> io::Result<Self>;
    /// Watches a descriptor.
    ///
    /// # Errors
    /// When it cannot be watched.
    fn add(&mut self, fd: BorrowedFd<'_>, events: Events) -> Result<(), SelectorError>;
    /// Watches it for something else.
    ///
    /// # Errors
    /// What the system says.
    fn modify(&mut self, fd: BorrowedFd<'_>, events: Events) -> io::Result<()>;
    /// Stops watching it.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()>;
    /// Waits for one of those that are watched. A hang-up or an error counts as ready for everything.
    ///
    /// # Errors
    /// What the system says; a signal is none.
    fn wait<'f>(
        &mut self,
        watched: impl Iterator<Item = (BorrowedFd<'f>, Events)>,
        timeout: Option<Duration>,
    ) -> io::Result<Vec<(RawFd, Events)>>;
}

/// Makes of a signal nothing.
fn interrupted<T: Default>(result: Result<T, Errno>) -> io::Result<T> {
    match result {
        Err(Errno::INTR) => Ok(T::default()),
        other => Ok(other?),
    }
}

/// `epoll`: the system keeps the list, and the cost of waiting goes by what is ready.
pub struct Epoll(EpollSet);

impl fmt::Debug for Epoll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Epoll").field(&self.0.as_fd()).finish()
    }
}

/// What to ask for. `poll` uses the same numbers as epoll.
pub(super) fn flags(events: Events) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, events.contains(Events::READ));
    flags.set(EventFlags::OUT, events.contains(Events::WRITE));
    flags
}

/// What was told. A hang-up or an error counts for both, as in Python.
pub(super) fn events(flags: EventFlags) -> Events {
    let mut events = Events::empty();
    events.set(Events::READ, flags.intersects(!EventFlags::OUT));
    events.set(Events::WRITE, flags.intersects(!EventFlags::IN));
    events
}

fn key(fd: BorrowedFd<'_>) -> u64 {
    fd.as_raw_fd().cast_unsigned().into()
}

impl Backend for Epoll {
    fn new() -> io::Result<Self> {
        Ok(Self(EpollSet::new(EVENTS_MAX)?))
    }

    fn add(&mut self, fd: BorrowedFd<'_>, events: Events) -> Result<(), SelectorError> {
        Ok(self.0.add(fd, key(fd), flags(events))?)
    }

    fn modify(&mut self, fd: BorrowedFd<'_>, events: Events) -> io::Result<()> {
        self.0.modify(fd, key(fd), flags(events))
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.0.delete(fd)
    }

    fn wait<'f>(
        &mut self,
        _watched: impl Iterator<Item = (BorrowedFd<'f>, Events)>,
        timeout: Option<Duration>,
    ) -> io::Result<Vec<(RawFd, Events)>> {
        let mut ready = Vec::new();
        self.0
            .wait(timeout, |key, flags| ready.push(((key as u32).cast_signed(), events(flags))))?;
        Ok(ready)
    }
}

/// `poll`: the list goes to the system with each call.
#[derive(Debug)]
pub struct Poll(());

impl Backend for Poll {
    fn new() -> io::Result<Self> {
        Ok(Self(()))
    }

    fn add(&mut self, _fd: BorrowedFd<'_>, _events: Events) -> Result<(), SelectorError> {
        Ok(())
    }

    fn modify(&mut self, _fd: BorrowedFd<'_>, _events: Events) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn wait<'f>(
        &mut self,
        watched: impl Iterator<Item = (BorrowedFd<'f>, Events)>,
        timeout: Option<Duration>,
    ) -> io::Result<Vec<(RawFd, Events)>> {
        let mut list: Vec<PollFd<'_>> = watched
            .map(|(fd, events)| {
                let flags = PollFlags::from_bits_retain(flags(events).bits() as u16);
                PollFd::from_borrowed_fd(fd, flags)
            })
            .collect();
        let count = interrupted(poll(&mut list, timespec(timeout).as_ref()))?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let ready = list.iter().filter(|entry| !entry.revents().is_empty()).map(|entry| {
            let flags = EventFlags::from_bits_retain(entry.revents().bits().into());
            (entry.as_fd().as_raw_fd(), events(flags))
        });
        Ok(ready.collect())
    }
}

/// `select`: a table of bits, of a fixed size.
#[derive(Debug)]
pub struct Select(());

impl Backend for Select {
    fn new() -> io::Result<Self> {
        Ok(Self(()))
    }

    fn add(&mut self, fd: BorrowedFd<'_>, _events: Events) -> Result<(), SelectorError> {
        match fd.as_raw_fd() {
            fd if FD_SETSIZE <= fd => Err(SelectorError::TooLarge(fd)),
            _ => Ok(()),
        }
    }

    fn modify(&mut self, _fd: BorrowedFd<'_>, _events: Events) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, _fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }

    fn wait<'f>(
        &mut self,
        watched: impl Iterator<Item = (BorrowedFd<'f>, Events)>,
        timeout: Option<Duration>,
    ) -> io::Result<Vec<(RawFd, Events)>> {
        let size = fd_set_num_elements(FD_SETSIZE as usize, FD_SETSIZE);
        let [mut reading, mut writing] = [const { Vec::new() }; 2];
        reading.resize(size, FdSetElement::default());
        writing.resize(size, FdSetElement::default());
        let mut count = 0;
        for (fd, events) in watched {
            let fd = fd.as_raw_fd();
            count = count.max(fd + 1);
            if events.contains(Events::READ) {
                fd_set_insert(&mut reading, fd);
            }
            if events.contains(Events::WRITE) {
                fd_set_insert(&mut writing, fd);
            }
        }
        let timeout = timespec(timeout);
        // SAFETY: the sets hold only descriptors that `watched` has lent for the time of this call, and are large
        // enough for `count`, which is at most FD_SETSIZE since `add` refuses others.
        let selected = unsafe {
            select(count, Some(&mut reading), Some(&mut writing), None, timeout.as_ref())
        };
        if interrupted(selected)? == 0 {
            return Ok(Vec::new());
        }
        let mut ready: Vec<(RawFd, Events)> =
            FdSetIter::new(&reading).map(|fd| (fd, Events::READ)).collect();
        for fd in FdSetIter::new(&writing) {
            match ready.iter_mut().find(|(other, _)| *other == fd) {
                Some((_, events)) => *events |= Events::WRITE,
                None => ready.push((fd, Events::WRITE)),
            }
        }
        Ok(ready)
    }
}
