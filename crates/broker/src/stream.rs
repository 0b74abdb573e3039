//! Streams: queues that keep what was delivered. A log of messages, of which each consumer reads what it wants.
//!
//! ```text
//!   engine: Stream     append --> records of this turn --> Job::Append in the store's batch
//!      |                               |                          |  the store's thread: Writer, Log
//!      |                               v                          v
//!      |                    tail, in memory               streams/<queue>/<first offset>.seg, .idx
//!      |                               |                          |  the reading thread: Reader
//!      +-- consumers: Cursor <---------+--------------------------+  blocks of 64 KiB
//! ```
//! A message is read once it is on disk: an offset that a consumer has seen never belongs to another message
//! afterwards. Without a data directory the log is a list of chunks in memory.

mod chunk;
pub mod index;
mod log;
mod reader;
pub mod record;
mod segment;
pub(crate) mod settings;
mod shared;
mod writer;
#[cfg(test)]
mod tests;
