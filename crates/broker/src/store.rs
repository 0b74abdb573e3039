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

mod batch;
mod bits;
mod checkpoint;
mod damage;
mod definitions;
mod disk;
mod flusher;
pub(crate) mod framing;
mod frozen;
mod index;
pub mod inspect;
pub mod legacy;
mod log;
mod marks;
pub(crate) mod pages;
mod reader;
pub mod record;
mod recovery;
mod segment;
mod tenancy;
#[cfg(test)]
mod tests;
mod tidy;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;

use rustc_hash::{FxHashMap, FxHashSet};
use rustix::fs::{FlockOperation, flock};

use crate::message::Message;
use crate::stream::{self, Job, Shared};
use crate::tenancy::record::{Record, RecordKey};
use batch::Filler;
pub use damage::Damage;
use definitions::Definitions;
pub(crate) use disk::make_folder;
use disk::{Disk, Folder};
use flusher::Mailbox;
use log::Sizes;
pub(crate) use marks::Mark;
use marks::Marks;
pub(crate) use reader::LogReader;
pub(crate) use recovery::{Progress, RecoveredMessages, RecoveredPlace};
pub(crate) use segment::torn_end;

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
    /// There are messages, and nothing says of which queues.
    #[error(
        "{} is missing, and there are messages: bring it back, or move the folders 'messages' and 'streams' away to begin without them",
        .0.display()
    )]
    NoDefinitions(PathBuf),
    /// A folder is none of ours.
    #[error("{} is no data directory: there are neither definitions nor messages in it", .0.display())]
    NoDataDirectory(PathBuf),
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

/// Everything that was on disk.
#[derive(Default)]
pub(crate) struct Recovered {
    pub(crate) exchanges: Vec<ExchangeDefinition>,
    pub(crate) queues: Vec<QueueDefinition>,
    pub(crate) bindings: Vec<BindingDefinition>,
    /// Users, policies, ...: each after what it refers to. Empty in a new store.
    pub(crate) tenancy: Vec<Record>,
    /// In the order of publishing.
    pub(crate) messages: RecoveredMessages,
    pub(crate) last_queue_id: u64,
    /// Streams, by the numbers of their queues.
    pub(crate) streams: FxHashMap<u64, Arc<Shared>>,
    /// Places that could not be read.
    pub(crate) damage: Vec<Damage>,
}

impl Recovered {
    /// All that can have messages, by the numbers that the log knows.
    fn keepers(&self) -> FxHashSet<u64> {
        let schedules = self.exchanges.iter().map(|exchange| exchange.schedule);
        let queues = self.queues.iter().map(|queue| queue.id);
        queues.chain(schedules.filter(|number| *number != 0)).collect()
    }
}

/// Told on the store's thread: all batches up to this one are on disk, or the disk refuses.
pub(crate) type OnSync = Box<dyn Fn(Result<u64, String>) + Send>;

/// Whether what is confirmed outlives the machine, or the process only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Confirms wait until the device has it.
    #[default]
    Fsync,
    /// Confirms wait until the system has it: it is lost when the machine fails before the system has written it.
    Os,
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "fsync" => Ok(Self::Fsync),
            "os" => Ok(Self::Os),
            _ => Err(format!("'{text}' is neither fsync nor os")),
        }
    }
}

impl Durability {
    /// As it is set.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Os => "os",
        }
    }
}

/// The hub's side of the store.
pub(crate) struct Store {
    filler: Filler,
    reader: Rc<LogReader>,
    marks: Marks,
    durability: Durability,
    folder: PathBuf,
    mailbox: Mailbox,
    /// Bytes of records that were handed over.
    given: u64,
    /// It gives whether all is on disk.
    thread: Option<thread::JoinHandle<bool>>,
    /// Where streams are.
    streams: PathBuf,
    /// Held, for the lock, as long as the store is in use.
    _lock: File,
}

impl Store {
    #[cfg(test)]
    pub(crate) fn open(folder: &Path, on_sync: OnSync) -> Result<(Self, Recovered), StoreError> {
        Self::open_as(folder, Durability::default(), on_sync)
    }

    /// Opens `folder`, which is made if it is not there, and reads everything in it. Blocks.
    ///
    /// # Errors
    /// One line for people; nothing has been changed then.
    pub(crate) fn open_as(
        folder: &Path,
        durability: Durability,
        on_sync: OnSync,
    ) -> Result<(Self, Recovered), StoreError> {
        Self::open_on(folder, durability, |disk| disk, on_sync)
    }

    /// The same, with what a test puts between the message log and its disk.
    fn open_on(
        folder: &Path,
        durability: Durability,
        between: impl FnOnce(Arc<dyn Disk>) -> Arc<dyn Disk>,
        on_sync: OnSync,
    ) -> Result<(Self, Recovered), StoreError> {
        make_folder(folder).map_err(StoreError::io("make the data directory", folder))?;
        let lock = lock(folder)?;
        let mut recovered = Recovered::default();
        let path = folder.join("definitions.sqlite");
        if !path.exists()
            && [folder.join("messages"), folder.join("streams")].iter().any(|path| holds_any(path))
        {
            return Err(StoreError::NoDefinitions(path));
        }
        let definitions = Definitions::open(&path, &mut recovered)?;
        let path = folder.join("messages");
        let queues = recovered.keepers();
        legacy::convert(&path, &queues, &mut recovered.damage)?;
        make_folder(&path).map_err(StoreError::io("make", &path))?;
        let disk = between(Folder::new(&path, durability == Durability::Fsync));
        let left = Marks::read(folder)?;
        let (log, mut messages) =
            recovery::open(disk.clone(), &Sizes::DEFAULT, &queues, &mut recovered.damage)?;
        let marks = left.marks(&queues, log.number());
        messages.note_delivered(&marks);
        let marks = Marks::begin(folder, durability == Durability::Fsync, &marks)?;
        recovered.messages = messages;
        let streams = folder.join("streams");
        let known: Vec<_> = recovered
            .queues
            .iter()
            .filter_map(|queue| {
                Some((queue.id, stream::settings::of_definition(&queue.arguments)?))
            })
            .collect();
        let (writer, shared) = stream::Writer::open(&streams, &known, &mut recovered.damage)?;
        recovered.streams = shared;
        for damage in &recovered.damage {
            if damage.is_torn() {
                tracing::warn!("{damage}");
            } else {
                tracing::error!("{damage}");
            }
        }
        let (mailbox, filler) = (Mailbox::default(), Filler::new(log.number(), &Sizes::DEFAULT));
        let reader = Rc::new(LogReader::new(disk, log.synced()));
        let thread = flusher::start(log, writer, definitions, mailbox.clone(), on_sync)
            .map_err(StoreError::io("start a thread for", folder))?;
        let (thread, folder) = (Some(thread), folder.to_owned());
        Ok((
            Self {
                filler,
                reader,
                marks,
                durability,
                folder,
                mailbox,
                given: 0,
                thread,
                streams,
                _lock: lock,
            },
            recovered,
        ))
    }

    /// Reads messages back that are on disk.
    pub(crate) fn reader(&self) -> Rc<LogReader> {
        self.reader.clone()
    }

    pub(crate) fn durability(&self) -> Durability {
        self.durability
    }

    /// The data directory.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Changes the definitions. The batch with which the change will be on disk.
    pub(crate) fn define(&mut self, definition: Definition) -> u64 {
        if definition.ends_messages()
            && !self.filler.batch.records.is_empty()
            && !self.filler.in_group()
        {
            // They may be the copies of what goes with it: those are to be on disk first.
            self.commit();
        }
        if let Definition::DeleteQueue(queue) = &definition {
            self.marks.forget(*queue);
        }
        self.filler.batch.definitions.push(definition);
        self.filler.batch.number
    }

    /// What is written up to the next [`end_group`](Self::end_group) is whole after a crash, or not there at all.
    /// Both are called in the same turn.
    pub(crate) fn begin_group(&mut self) {
        self.filler.begin_group();
    }

    pub(crate) fn end_group(&mut self) {
        self.filler.end_group();
    }

    /// Writes a message for some of its queues, of which there is one at least, and notes in it where. The batch with
    /// which it will be on disk.
    pub(crate) fn publish(&mut self, message: &mut Message, queues: &[u64]) -> u64 {
        if self.filler.is_full() {
            self.commit();
        }
        self.filler.publish(message, queues);
        self.filler.batch.number
    }

    /// A message has left the queue in which it has this place.
    #[inline]
    pub(crate) fn ack(&mut self, place: u64) {
        self.filler.ack(place);
    }

    /// Messages of a queue up to this place are about to be delivered: what is killed from now on knows it.
    pub(crate) fn delivering(&mut self, queue: u64, up_to: u64) {
        if !self.marks.pass(queue, up_to) {
            // Late is better than not at all.
            self.filler.delivered(queue, up_to);
        }
    }

    /// Up to this place messages of a queue have been delivered: said at the end, when the marks go.
    pub(crate) fn delivered(&mut self, queue: u64, place: u64) {
        self.filler.delivered(queue, place);
    }

    /// A message has come back to a queue for the `count`th time, where it waits until `due_ms`, if that is not 0.
    pub(crate) fn counted(&mut self, place: u64, count: u32, due_ms: u64) {
        self.filler.counted(place, count, due_ms);
    }

    /// What is to be in common of a new stream.
    pub(crate) fn new_stream(&self, queue: u64) -> Arc<Shared> {
        stream::new_stream(&self.streams, queue)
    }

    /// Has something done with a stream. The batch with which it will be done.
    pub(crate) fn stream(&mut self, job: Job) -> u64 {
        self.filler.batch.streams.push(job);
        self.filler.batch.number
    }

    /// The batch with which what is appended to streams in this turn will be on disk.
    pub(crate) fn await_streams(&mut self) -> u64 {
        self.filler.batch.awaited = true;
        self.filler.batch.number
    }

    /// The batch with which what was settled in the group will be on disk, for somebody who waits for that; 0: nothing
    /// was.
    pub(crate) fn await_settled(&mut self) -> u64 {
        if !self.filler.settles() {
            return 0;
        }
        self.filler.batch.settles = true;
        self.filler.batch.awaited = true;
        self.filler.batch.number
    }

    /// Hands what has gathered to the store's thread.
    pub(crate) fn commit(&mut self) {
        if let Some(batch) = self.filler.take() {
            self.given += batch.records.len() as u64;
            self.mailbox.send(batch);
        }
    }

    /// Bytes of messages and of what became of them that the store's thread was handed.
    pub(crate) fn given(&self) -> u64 {
        self.given
    }

    /// The last batch that the store's thread was handed.
    #[cfg(test)]
    pub(crate) fn handed_over(&self) -> u64 {
        self.filler.batch.number - 1
    }

    /// Writes everything and ends the store's thread. Blocks.
    pub(crate) fn close(mut self) {
        self.commit();
        if self.end() {
            self.marks.remove();
        }
    }

    /// Whether all is on disk.
    fn end(&mut self) -> bool {
        self.mailbox.close();
        let Some(thread) = self.thread.take() else { return false };
        thread.join().unwrap_or_else(|_| {
            tracing::error!("the store's thread has panicked");
            false
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether there is a folder with something in it.
fn holds_any(folder: &Path) -> bool {
    folder.read_dir().is_ok_and(|mut entries| entries.next().is_some())
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
