//! What outlives the process: definitions in SQLite, messages in a log of our own.
//!
//! ```text
//!   engine, on its hub                      the store's thread
//!   define, publish, ack, delivered         definitions --> definitions.sqlite, one transaction
//!     --> one batch per turn --commit--+--> records     --> messages/*.seg, one write
//!                                      |    one fdatasync for all batches that have come meanwhile
//!   confirms <------------- "batch n is on disk" --+
//! ```
//! The hub never waits for the disk. Definitions are committed before the messages of the same batch, so no message
//! on disk belongs to a queue that is not; and the end of a queue after the messages of the batches before it, so that
//! what has gone on to another queue is there when the first one is not. The format is described in `docs/store-format.md`.

mod definitions;
mod flusher;
pub(crate) mod framing;
mod log;
pub(crate) mod pages;
pub mod record;
mod tenancy;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use rustc_hash::FxHashMap;
use rustix::fs::{FlockOperation, flock};

use crate::message::{Content, Message};
use crate::stream::{self, Job, Shared};
use crate::tenancy::record::{Record, RecordKey};
use definitions::Definitions;
use flusher::{Batch, Mailbox};
use log::Log;
use record::Record as LogRecord;

/// Why the data directory cannot be used. One line, for people.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process holds the directory's lock.
    #[error("the data directory {} is in use by another server", .0.display())]
    InUse(PathBuf),
    /// The system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file with the definitions cannot be used.
    #[error("cannot use the definitions in {}: {source}", path.display())]
    Definitions {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A file is of another format.
    #[error("{} is of format {found}; this server reads format {known}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What we know.
        known: u32,
    },
    /// The user that a new server has cannot be made.
    #[error("cannot make the default user: {0}")]
    DefaultUser(String),
    /// A file is none of ours.
    #[error("{} is not a file of this server", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

/// A durable exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExchangeDefinition {
    pub(crate) vhost: String,
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    /// Encoded, without the table's length.
    pub(crate) arguments: Vec<u8>,
    /// The number under which the log knows the messages that wait there, as if it were a queue's; 0: none do.
    pub(crate) schedule: u64,
}

/// A durable queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueDefinition {
    /// Never used for another queue.
    pub(crate) id: u64,
    pub(crate) vhost: String,
    pub(crate) name: String,
    pub(crate) auto_delete: bool,
    /// Encoded, without the table's length.
    pub(crate) arguments: Vec<u8>,
}

/// A binding between durable ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BindingDefinition {
    pub(crate) vhost: String,
    pub(crate) source: String,
    pub(crate) destination: String,
    /// To a queue, not to an exchange.
    pub(crate) to_queue: bool,
    pub(crate) routing_key: String,
    /// Encoded, without the table's length.
    pub(crate) arguments: Vec<u8>,
}

/// A change of the definitions. Deleting an exchange or a queue deletes its bindings too.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Definition {
    PutExchange(ExchangeDefinition),
    DeleteExchange {
        vhost: String,
        name: String,
        schedule: u64,
    },
    PutQueue(QueueDefinition),
    DeleteQueue(u64),
    PutBinding(BindingDefinition),
    DeleteBinding(BindingDefinition),
    /// A user, a policy, ...
    Put(Record),
    Delete(RecordKey),
}

impl Definition {
    /// Messages go with it.
    fn ends_messages(&self) -> bool {
        match self {
            Self::DeleteQueue(_) => true,
            Self::DeleteExchange { schedule, .. } => *schedule != 0,
            _ => false,
        }
    }
}

/// A message that was on disk.
pub(crate) struct RecoveredMessage {
    pub(crate) id: u64,
    pub(crate) expires_ms: u64,
    /// 0: not known.
    pub(crate) published_ms: u64,
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) content: Content,
    /// The queues it still is in.
    pub(crate) queues: Vec<RecoveredPlace>,
}

/// A message in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecoveredPlace {
    pub(crate) queue: u64,
    /// Whether it may have been delivered from there.
    pub(crate) redelivered: bool,
    /// How often it came back.
    pub(crate) delivery_count: u32,
    /// Until when it waits, in milliseconds since 1970; 0: it does not.
    pub(crate) due_ms: u64,
}

impl RecoveredPlace {
    fn new(queue: u64) -> Self {
        Self { queue, redelivered: false, delivery_count: 0, due_ms: 0 }
    }
}

/// Everything that was on disk.
#[derive(Default)]
pub(crate) struct Recovered {
    pub(crate) exchanges: Vec<ExchangeDefinition>,
    pub(crate) queues: Vec<QueueDefinition>,
    pub(crate) bindings: Vec<BindingDefinition>,
    /// Users, policies, ...: each after what it refers to. Empty in a new store.
    pub(crate) tenancy: Vec<Record>,
    /// In the order of publishing.
    pub(crate) messages: Vec<RecoveredMessage>,
    pub(crate) last_queue_id: u64,
    pub(crate) last_message_id: u64,
    /// Streams, by the numbers of their queues.
    pub(crate) streams: FxHashMap<u64, Arc<Shared>>,
    /// Places of the log that could not be read, in words.
    pub(crate) damage: Vec<String>,
}

/// Told on the store's thread: all batches up to this one are on disk, or the disk refuses.
pub(crate) type OnSync = Box<dyn Fn(Result<u64, String>) + Send>;

/// Records that count together or not at all.
#[derive(Default)]
struct Group {
    /// Groups within groups are part of the outermost; 0: none is open.
    depth: usize,
    count: u32,
    /// Where the first begins in the batch.
    begins: usize,
}

/// The hub's side of the store.
pub(crate) struct Store {
    batch: Batch,
    group: Group,
    mailbox: Mailbox,
    thread: Option<thread::JoinHandle<()>>,
    /// Where streams are.
    streams: PathBuf,
    /// Held, for the lock, as long as the store is in use.
    _lock: File,
}

impl Store {
    /// Opens `folder`, which is made if it is not there, and reads everything in it. Blocks.
    ///
    /// # Errors
    /// One line for people; nothing has been changed then.
    pub(crate) fn open(folder: &Path, on_sync: OnSync) -> Result<(Self, Recovered), StoreError> {
        fs::create_dir_all(folder).map_err(StoreError::io("make the data directory", folder))?;
        let lock = lock(folder)?;
        let mut recovered = Recovered::default();
        let definitions = Definitions::open(&folder.join("definitions.sqlite"), &mut recovered)?;
        let log = Log::open(&folder.join("messages"), &mut recovered)?;
        let folder = folder.join("streams");
        let known: Vec<_> = recovered
            .queues
            .iter()
            .filter_map(|queue| {
                Some((queue.id, stream::settings::of_definition(&queue.arguments)?))
            })
            .collect();
        let (streams, shared) = stream::Writer::open(&folder, &known, &mut recovered.damage)?;
        recovered.streams = shared;
        for damage in &recovered.damage {
            tracing::error!("{damage}");
        }
        let mailbox = Mailbox::default();
        let thread = flusher::start(log, streams, definitions, mailbox.clone(), on_sync)
            .map_err(StoreError::io("start a thread for", &folder))?;
        let (batch, thread) = (Batch::new(1), Some(thread));
        let group = Group::default();
        Ok((Self { batch, group, mailbox, thread, streams: folder, _lock: lock }, recovered))
    }

    /// Changes the definitions. The batch with which the change will be on disk.
    pub(crate) fn define(&mut self, definition: Definition) -> u64 {
        if definition.ends_messages() && !self.batch.records.is_empty() && self.group.depth == 0 {
            // They may be the copies of what goes with it: those are to be on disk first.
            self.commit();
        }
        self.batch.definitions.push(definition);
        self.batch.number
    }

    /// What is written up to the next [`end_group`](Self::end_group) is whole after a crash, or not there at all.
    /// Both are called in the same turn.
    pub(crate) fn begin_group(&mut self) {
        if self.group.depth == 0 {
            self.group = Group { depth: 0, count: 0, begins: self.batch.records.len() };
        }
        self.group.depth += 1;
    }

    pub(crate) fn end_group(&mut self) {
        debug_assert!(0 < self.group.depth);
        self.group.depth -= 1;
        if self.group.depth != 0 {
            return;
        }
        let count = self.group.count;
        match count {
            0 => {}
            // Each record is whole or not there.
            1 => record::ungroup(&mut self.batch.records, self.group.begins),
            _ => record::encode(&mut self.batch.records, &LogRecord::End { count }, false),
        }
    }

    /// Whether the next record is one of a group.
    fn grouped(&mut self) -> bool {
        self.group.count = self.group.count.wrapping_add(1);
        self.group.depth != 0
    }

    fn record(&mut self, record: &LogRecord<'_>) {
        let grouped = self.grouped();
        record::encode(&mut self.batch.records, record, grouped);
    }

    /// Writes a message for some of its queues. The batch with which it will be on disk.
    pub(crate) fn publish(&mut self, message: &Message, queues: &[u64]) -> u64 {
        let grouped = self.grouped();
        record::encode_publish(&mut self.batch.records, message, queues, grouped);
        self.batch.publishes = true;
        self.batch.number
    }

    /// A message has left a queue.
    pub(crate) fn ack(&mut self, queue: u64, message: u64) {
        self.record(&LogRecord::Ack { queue, message });
    }

    /// Messages of a queue up to this one may have been delivered.
    pub(crate) fn delivered(&mut self, queue: u64, message: u64) {
        self.record(&LogRecord::Delivered { queue, message });
    }

    /// A message has come back to a queue for the `count`th time, where it waits until `due_ms`, if that is not 0.
    pub(crate) fn counted(&mut self, queue: u64, message: u64, count: u32, due_ms: u64) {
        let counted = LogRecord::Counted { queue, message, count, due_ms };
        self.record(&counted);
    }

    /// What is to be in common of a new stream.
    pub(crate) fn new_stream(&self, queue: u64) -> Arc<Shared> {
        stream::new_stream(&self.streams, queue)
    }

    /// Has something done with a stream. The batch with which it will be done.
    pub(crate) fn stream(&mut self, job: Job) -> u64 {
        self.batch.streams.push(job);
        self.batch.number
    }

    /// The batch with which what is appended to streams in this turn will be on disk.
    pub(crate) fn await_streams(&mut self) -> u64 {
        self.batch.publishes = true;
        self.batch.number
    }

    /// Hands what has gathered to the store's thread.
    pub(crate) fn commit(&mut self) {
        debug_assert_eq!(self.group.depth, 0);
        if !self.batch.is_empty() {
            let next = Batch::new(self.batch.number + 1);
            self.mailbox.send(std::mem::replace(&mut self.batch, next));
        }
    }

    /// The last batch that the store's thread was handed.
    #[cfg(test)]
    pub(crate) fn handed_over(&self) -> u64 {
        self.batch.number - 1
    }

    /// Writes everything and ends the store's thread. Blocks.
    pub(crate) fn close(mut self) {
        self.commit();
        self.end();
    }

    fn end(&mut self) {
        self.mailbox.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread has panicked");
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StoreError::io("write to the data directory", folder))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(folder.to_owned())),
        Err(error) => Err(StoreError::io("lock", &path)(error.into())),
    }
}
