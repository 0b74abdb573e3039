//! The kernel's readiness queue: epoll, edge-triggered, each descriptor registered once for all directions.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use super::{Bell, Driver, Event};
#[cfg(feature = "io-uring")]
use super::{Completion, FileOp, FileRing};
use crate::io::Readiness;

/// Events taken from the kernel by one call. What is more comes with the next.
const EVENTS_MAX: usize = 256;

/// The name of the ring among the events.
#[cfg(feature = "io-uring")]
const FILES_KEY: u64 = u64::MAX - 1;

pub(crate) struct Epoll {
    epoll: OwnedFd,
    events: RefCell<Vec<epoll::Event>>,
    #[cfg(feature = "io-uring")]
    files: FileRing,
}

impl Epoll {
    /// `file_ring`: files by io_uring, where that can be used; otherwise by threads.
    pub(crate) fn new(file_ring: bool) -> io::Result<Self> {
        let _ = file_ring;
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: RefCell::new(Vec::with_capacity(EVENTS_MAX)),
            #[cfg(feature = "io-uring")]
            files: FileRing::new(file_ring),
        })
    }

    /// As [`Driver::bell`] is heard: for as long as it is readable.
    fn watch_level(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key);
        Ok(epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN)?)
    }
}

impl Driver for Epoll {
    fn name(&self) -> &'static str {
        "epoll"
    }

    fn watch_fd(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(key), flags)?)
    }

    fn unwatch_fd(&self, fd: BorrowedFd<'_>, _key: u64) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    fn bell(&self, key: u64) -> io::Result<Bell> {
        let bell = Bell::eventfd()?;
        if let Bell::Eventfd(fd) = &bell {
            self.watch_level(fd.as_fd(), key)?;
        }
        Ok(bell)
    }

    #[cfg(feature = "io-uring")]
    fn file(&self, op: FileOp, done: Completion) {
        let started = self.files.start(op, done, |ring| self.watch_level(ring, FILES_KEY));
        if let Err((op, done)) = started {
            self.file_on_a_thread(op, done);
        }
    }

    fn wait(&self, timeout: Option<Duration>, out: &mut Vec<Event>) -> io::Result<()> {
        // What a file operation has woken must run before the hub sleeps.
        #[cfg(feature = "io-uring")]
        let timeout = if self.files.turn()? { Some(Duration::ZERO) } else { timeout };
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let mut events = self.events.borrow_mut();
        events.clear();
        match epoll::wait(self.epoll.as_fd(), spare_capacity(&mut events), timeout.as_ref()) {
            // A signal: whoever cares has been told by its handler.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let before = out.len();
        out.extend(events.iter().map(|event| {
            // The structure is packed: its fields are copied, not borrowed.
            let (flags, data) = (event.flags, event.data);
            (data.u64(), readiness(flags))
        }));
        drop(events);
        #[cfg(feature = "io-uring")]
        if let Some(index) = out[before..].iter().position(|(key, _)| *key == FILES_KEY) {
            out.swap_remove(before + index);
            self.files.turn()?;
        }
        let _ = before;
        Ok(())
    }
}

/// What the kernel's bits mean. `poll` uses the same numbers as epoll.
pub(crate) fn readiness(flags: epoll::EventFlags) -> Readiness {
    use epoll::EventFlags as Flags;
    let mut ready = Readiness::empty();
    ready.set(Readiness::READABLE, flags.intersects(Flags::IN | Flags::RDHUP));
    ready.set(Readiness::WRITABLE, flags.contains(Flags::OUT));
    ready.set(Readiness::CLOSED, flags.intersects(Flags::RDHUP | Flags::HUP));
    ready.set(Readiness::ERROR, flags.contains(Flags::ERR));
    if flags.intersects(Flags::ERR | Flags::HUP) {
        // Whoever waits in either direction finds out by trying.
        ready |= Readiness::READABLE | Readiness::WRITABLE;
    }
    ready
}
