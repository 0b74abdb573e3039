//! Readiness by io_uring.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use super::backend::{events, flags};
use super::{Backend, Events, SelectorError};
use crate::driver::{EventFlags, Ring, RingDone};

/// Requests handed over by one call.
const ENTRIES: u32 = 256;

/// `io_uring`: polls for one event each, armed anew by the call that waits for the next; so what is ready is told again.
/// Linux 5.11 or later, where the administrator allows it.
pub struct Uring {
    ring: Ring,
    watched: HashMap<RawFd, Watch>,
    /// Those that are not armed.
    idle: Vec<RawFd>,
    last_generation: u32,
    /// Reused from call to call.
    done: Vec<RingDone>,
}

struct Watch {
    events: Events,
    /// Of the poll that is armed. The answer of an earlier one may come late, and is of another.
    armed: Option<u32>,
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Uring").field(&self.ring.as_fd()).finish()
    }
}

/// A generation above the descriptor; the generation's highest bit is not used.
fn key(fd: RawFd, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(fd.cast_unsigned())
}

impl Uring {
    fn disarm(&mut self, fd: RawFd) {
        if let Some(watch) = self.watched.get_mut(&fd)
            && let Some(generation) = watch.armed.take()
        {
            self.ring.cancel(key(fd, generation));
            self.idle.push(fd);
        }
    }

    fn arm(&mut self) {
        for fd in self.idle.drain(..) {
            let Some(watch) = self.watched.get_mut(&fd) else { continue };
            if watch.armed.is_none() {
                self.last_generation = (self.last_generation + 1) & (u32::MAX >> 1);
                watch.armed = Some(self.last_generation);
                let key = key(fd, self.last_generation);
                self.ring.poll_add(fd, key, flags(watch.events), false);
            }
        }
    }

    /// What a completion tells, unless it is of a poll that was taken back.
    fn event(&mut self, done: RingDone) -> Option<(RawFd, Events)> {
        let fd = (done.key as u32).cast_signed();
        let watch = self.watched.get_mut(&fd)?;
        if watch.armed != Some((done.key >> 32) as u32) {
            return None;
        }
        watch.armed = None;
        self.idle.push(fd);
        // Whoever is told of an error finds out which by trying.
        let flags =
            u32::try_from(done.result).map_or(EventFlags::ERR, EventFlags::from_bits_retain);
        Some((fd, events(flags)))
    }
}

impl Backend for Uring {
    fn new() -> io::Result<Self> {
        Ok(Self {
            ring: Ring::new(ENTRIES, false)?,
            watched: HashMap::new(),
            idle: Vec::new(),
            last_generation: 0,
            done: Vec::new(),
        })
    }

    fn add(&mut self, fd: BorrowedFd<'_>, events: Events) -> Result<(), SelectorError> {
        let fd = fd.as_raw_fd();
        self.watched.insert(fd, Watch { events, armed: None });
        self.idle.push(fd);
        Ok(())
    }

    fn modify(&mut self, fd: BorrowedFd<'_>, events: Events) -> io::Result<()> {
        self.disarm(fd.as_raw_fd());
        if let Some(watch) = self.watched.get_mut(&fd.as_raw_fd()) {
            watch.events = events;
        }
        Ok(())
    }

    fn remove(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.disarm(fd.as_raw_fd());
        self.watched.remove(&fd.as_raw_fd());
        // At once: a poll holds the file open.
        self.ring.enter(Some(Duration::ZERO))
    }

    fn wait<'f>(
        &mut self,
        _watched: impl Iterator<Item = (BorrowedFd<'f>, Events)>,
        timeout: Option<Duration>,
    ) -> io::Result<Vec<(RawFd, Events)>> {
        self.arm();
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            self.ring.enter(left)?;
            let mut done = std::mem::take(&mut self.done);
            self.ring.take(&mut done);
            let late = !done.is_empty();
            let ready: Vec<_> = done.drain(..).filter_map(|done| self.event(done)).collect();
            self.done = done;
            // Late answers are no news: then it waits on. Without any, the time is over or a signal came.
            if !ready.is_empty() || !late || left.is_some_and(|left| left.is_zero()) {
                return Ok(ready);
            }
        }
    }
}
