//! A ring for files beside another driver, which watches the ring's descriptor.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Once;

use super::flights::{Flights, Refused};
use super::ring::{Ring, RingDone};
use crate::driver::{Completion, FileOp};

/// Operations handed over by one call.
const ENTRIES: u32 = 64;

/// Says once in the life of a process why files go to threads.
pub(crate) fn tell(error: &io::Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::info!(%error, "io_uring cannot be used here: files are left to threads");
    });
}

/// Made when the first file is asked for: most hubs never do.
pub(crate) struct FileRing {
    wanted: bool,
    ring: OnceCell<Option<RefCell<Inner>>>,
}

struct Inner {
    ring: Ring,
    flights: Flights,
    /// Reused from turn to turn.
    landed: Vec<RingDone>,
}

impl FileRing {
    /// `wanted`: false to leave all to threads.
    pub(crate) fn new(wanted: bool) -> Self {
        Self { wanted, ring: OnceCell::new() }
    }

    /// Queues an operation, or gives it back. `watch`: how the ring is watched for completions.
    pub(crate) fn start(
        &self,
        op: FileOp,
        done: Completion,
        watch: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> Result<(), Refused> {
        let inner = self.ring.get_or_init(|| {
            if !self.wanted {
                return None;
            }
            let ring = Ring::new(ENTRIES, false).and_then(|ring| {
                watch(ring.as_fd())?;
                Ok(ring)
            });
            let ring = ring.inspect_err(tell).ok()?;
            Some(RefCell::new(Inner { flights: Flights::new(&ring), ring, landed: Vec::new() }))
        });
        let Some(inner) = inner else { return Err((op, done)) };
        let Inner { ring, flights, .. } = &mut *inner.borrow_mut();
        flights.start(ring, op, done)
    }

    /// Hands over what is queued, and tells those who wait for what has ended. Whether there was any.
    pub(crate) fn turn(&self) -> io::Result<bool> {
        let Some(Some(inner)) = self.ring.get() else { return Ok(false) };
        let mut answers = Vec::new();
        {
            let Inner { ring, flights, landed } = &mut *inner.borrow_mut();
            if flights.is_empty() {
                return Ok(false);
            }
            ring.enter(Some(std::time::Duration::ZERO))?;
            ring.take(landed);
            answers.extend(landed.drain(..).filter_map(|done| flights.land(ring, done)));
        }
        // Nothing is borrowed: they may ask for more.
        let any = !answers.is_empty();
        for (done, answer) in answers {
            done(answer);
        }
        Ok(any)
    }
}

impl Drop for FileRing {
    fn drop(&mut self) {
        if let Some(Some(inner)) = self.ring.get_mut() {
            let Inner { ring, flights, .. } = inner.get_mut();
            flights.settle(ring);
        }
    }
}
