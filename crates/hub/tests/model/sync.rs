//! The parts of `sync` that know neither fibers nor hubs.

#[path = "../../src/sync/queue/error.rs"]
mod error;
#[path = "../../src/sync/queue/exchange.rs"]
mod exchange;
#[path = "../../src/sync/queue/storage.rs"]
mod storage;

use std::time::{Duration, Instant};

pub(crate) use error::{Closed, GetError, PutError};
pub(crate) use exchange::Exchange;
pub(crate) use storage::Fifo;

/// Whether there is one is all that counts here.
pub(crate) fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}
