//! io_uring: readiness by polls that stay armed, and files, in one ring; one system call a turn does all.
//!
//! ```text
//!   watch   --> POLL_ADD, multishot  --.                      .--> events under their keys
//!   unwatch --> ASYNC_CANCEL         ---+--> io_uring_enter --+--> answers of file operations
//!   file    --> READ, WRITE, FSYNC.. --'     (with a timeout)  '-> a poll that has ended is armed again
//! ```
//! A multishot poll tells edges: one completion when it is armed, if something is ready already, and one with each news.
//! It holds the file open, so an end of a watch is handed over at once: the descriptor may be closed next.

mod files;
mod flights;
mod ring;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use super::{Bell, Completion, Driver, Event, EventFlags, FileOp, readiness};
use crate::io::Readiness;

pub(crate) use files::FileRing;
use flights::Flights;
pub(crate) use ring::{Ring, RingDone};

/// Requests handed over by one call.
const ENTRIES: u32 = 256;

pub(crate) struct Uring {
    inner: RefCell<Inner>,
    /// Whether it does files.
    files: bool,
}

struct Inner {
    ring: Ring,
    flights: Flights,
    /// Descriptors by the keys they are watched under.
    watched: HashMap<u64, RawFd>,
    /// Reused from turn to turn.
    done: Vec<RingDone>,
}

impl Uring {
    /// `files`: false to leave files to threads.
    pub(crate) fn new(files: bool) -> io::Result<Self> {
        Self::with_entries(ENTRIES, files)
    }

    fn with_entries(entries: u32, files: bool) -> io::Result<Self> {
        let ring = Ring::new(entries, true).and_then(|ring| match ring.polls_stay() {
            true => Ok(ring),
            false => Err(io::Error::new(io::ErrorKind::Unsupported, "before Linux 5.13")),
        });
        let ring = ring.map_err(|error| {
            io::Error::new(error.kind(), format!("io_uring cannot be used here: {error}"))
        })?;
        let flights = Flights::new(&ring);
        let inner = Inner { ring, flights, watched: HashMap::new(), done: Vec::new() };
        Ok(Self { inner: RefCell::new(inner), files })
    }
}

impl Inner {
    fn arm(&mut self, fd: RawFd, key: u64) {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP;
        self.ring.poll_add(fd, key, flags, true);
    }

    /// What a completion of a poll means, if anything.
    fn event(&mut self, done: RingDone) -> Option<Event> {
        let fd = *self.watched.get(&done.key)?;
        let ready = match u32::try_from(done.result) {
            Ok(flags) => {
                if !done.more {
                    // The completions had no room for it, or the file ends the poll after each news.
                    self.arm(fd, done.key);
                }
                readiness(EventFlags::from_bits_retain(flags))
            }
            // It is polled no more: whoever waits finds out why by trying.
            Err(_) => Readiness::all(),
        };
        (!ready.is_empty()).then_some((done.key, ready))
    }
}

impl Driver for Uring {
    fn name(&self) -> &'static str {
        "io_uring"
    }

    fn watch_fd(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        // A poll of what is always ready would tell so again and again; epoll refuses it too.
        match FileType::from_raw_mode(fstat(fd)?.st_mode) {
            FileType::RegularFile | FileType::Directory => return Err(Errno::PERM.into()),
            _ => {}
        }
        let mut inner = self.inner.borrow_mut();
        inner.watched.insert(key, fd.as_raw_fd());
        inner.arm(fd.as_raw_fd(), key);
        Ok(())
    }

    fn unwatch_fd(&self, _fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        let inner = &mut *self.inner.borrow_mut();
        if inner.watched.remove(&key).is_some() {
            inner.ring.cancel(key);
            inner.ring.enter(Some(Duration::ZERO))?;
        }
        Ok(())
    }

    fn bell(&self, key: u64) -> io::Result<Bell> {
        let bell = Bell::eventfd()?;
        if let Bell::Eventfd(fd) = &bell {
            let mut inner = self.inner.borrow_mut();
            inner.watched.insert(key, fd.as_raw_fd());
            inner.arm(fd.as_raw_fd(), key);
        }
        Ok(bell)
    }

    fn file(&self, op: FileOp, done: Completion) {
        let Inner { ring, flights, .. } = &mut *self.inner.borrow_mut();
        let refused = match self.files {
            true => flights.start(ring, op, done).err(),
            false => Some((op, done)),
        };
        if let Some((op, done)) = refused {
            self.file_on_a_thread(op, done);
        }
    }

    fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let mut answers = Vec::new();
        {
            let inner = &mut *self.inner.borrow_mut();
            inner.ring.enter(timeout)?;
            let mut done = std::mem::take(&mut inner.done);
            inner.ring.take(&mut done);
            for done in done.drain(..) {
                if Flights::owns(done.key) {
                    answers.extend(inner.flights.land(&mut inner.ring, done));
                } else {
                    events.extend(inner.event(done));
                }
            }
            inner.done = done;
        }
        // Nothing is borrowed: they may ask for more.
        for (done, answer) in answers {
            done(answer);
        }
        Ok(())
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        let Inner { ring, flights, .. } = self.inner.get_mut();
        flights.settle(ring);
    }
}
