//! The kernel's readiness queue: epoll, edge-triggered, each descriptor registered once for all directions.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::io::Readiness;

/// Events taken from the kernel by one call. What is more comes with the next.
const EVENTS_MAX: usize = 256;

pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Watches `fd` for all that may happen to it, told as edges under the name `key`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(key), flags)?)
    }

    /// Watches `fd` for bytes only, as long as there are some.
    pub(crate) fn add_level(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(key), flags)?)
    }

    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits for events, at most for `timeout`, for ever without one; then hands each to `each`.
    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        mut each: impl FnMut(u64, Readiness),
    ) -> io::Result<()> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        self.events.clear();
        match epoll::wait(self.epoll.as_fd(), spare_capacity(&mut self.events), timeout.as_ref()) {
            // A signal: whoever cares has been told by its handler.
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            // The structure is packed: its fields are copied, not borrowed.
            let (flags, data) = (event.flags, event.data);
            each(data.u64(), readiness(flags));
        }
        Ok(())
    }
}

fn readiness(flags: epoll::EventFlags) -> Readiness {
    let mut ready = Readiness::empty();
    ready.set(
        Readiness::READABLE,
        flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::RDHUP),
    );
    ready.set(Readiness::WRITABLE, flags.contains(epoll::EventFlags::OUT));
    ready.set(
        Readiness::CLOSED,
        flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP),
    );
    ready.set(Readiness::ERROR, flags.contains(epoll::EventFlags::ERR));
    if ready.intersects(Readiness::ERROR) || flags.contains(epoll::EventFlags::HUP) {
        // Whoever waits in either direction finds out by trying.
        ready |= Readiness::READABLE | Readiness::WRITABLE;
    }
    ready
}
