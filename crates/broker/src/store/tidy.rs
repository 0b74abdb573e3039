//! Tidying up: what makes room on the disk, and the next start short.
//!
//! ```text
//!   the store's thread                       the tidying thread
//!   Log::plan  --- one piece of work ----->  reads and writes files that nobody else writes
//!   Log::finish <-- what came of it -------
//! ```
//! Publishers wait for the store's thread, and for nothing that is done here. All that a piece of work relies on is
//! synced before it is planned, and is handed over by value.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::process::setpriority_process;
use rustix::thread::gettid;

use super::checkpoint::{Known, State};
use super::disk::{Disk, DiskFile, read_all, remove_if_there, write_whole};
use super::index::{self, Index};
use super::record::{self, Record};
use super::segment;

/// How far the tidying thread stands behind the others where all processors are in use, as of `nice`.
const NICENESS: i32 = 10;

/// A piece of work.
pub(super) enum Work {
    /// The file of the next segment is made, under another name.
    Prepare { number: u32, reserve: u64 },
    /// Segments without anything live go.
    Remove(Vec<u32>),
    /// Segments get their indexes, then what is known is kept.
    Checkpoint { index: Vec<u32>, state: State },
    /// What is live in a segment is written anew, in its place.
    Shrink { number: u32, known: Known },
}

/// What came of it.
pub(super) enum Done {
    Prepare(u32, io::Result<Box<dyn DiskFile>>),
    /// What could not be removed, and why.
    Remove(Vec<u32>, io::Result<()>),
    /// The segments that have an index now, the position of the checkpoint, and its octets.
    Checkpoint(Vec<u32>, (u32, u64), io::Result<u64>),
    /// The octets of the segment; none: it is damaged, and was left as it is.
    Shrink(u32, io::Result<Option<u64>>),
}

impl Work {
    pub(super) fn run(self, disk: &dyn Disk) -> Done {
        match self {
            Self::Prepare { number, reserve } => {
                Done::Prepare(number, segment::prepare(disk, number, reserve))
            }
            Self::Remove(mut numbers) => {
                let mut outcome = Ok(());
                while let Some(number) = numbers.last() {
                    outcome = remove(disk, *number);
                    if outcome.is_err() {
                        break;
                    }
                    numbers.pop();
                }
                Done::Remove(numbers, outcome)
            }
            Self::Checkpoint { index, state } => {
                let mut indexed = Vec::new();
                let write = || {
                    for number in index {
                        make_index(disk, number)?;
                        indexed.push(number);
                    }
                    state.write(disk)
                };
                let written = write();
                Done::Checkpoint(indexed, state.position, written)
            }
            Self::Shrink { number, known } => Done::Shrink(number, shrink(disk, number, &known)),
        }
    }
}

fn remove(disk: &dyn Disk, number: u32) -> io::Result<()> {
    remove_if_there(disk, &segment::name(number))?;
    // Newer segments may go now, that say how its messages have ended.
    disk.sync_names()?;
    // Without its segment it means nothing.
    remove_if_there(disk, &index::name(number))
}

fn make_index(disk: &dyn Disk, number: u32) -> io::Result<()> {
    let bytes = read_all(disk, &segment::name(number))?;
    let mut index = Index::default();
    let take = |found: segment::Found<'_>| index.add(&found.record, found.offset, found.bytes);
    segment::scan(&bytes, None, take, |_| ());
    index.write(disk, number)
}

/// The octets of the segment then; none when it is damaged.
fn shrink(disk: &dyn Disk, number: u32, known: &Known) -> io::Result<Option<u64>> {
    let bytes = read_all(disk, &segment::name(number))?;
    let (mut out, mut index) = (segment::header(number).to_vec(), Index::default());
    let take = |found: segment::Found<'_>| {
        let Record::Publish { place, queues, .. } = &found.record else { return };
        let end = place.saturating_add(queues.len() as u32);
        if (*place..end).any(|place| !known.dead.has(place)) {
            let at = out.len();
            index.add(&found.record, at, found.bytes);
            out.extend_from_slice(&bytes[found.offset..found.offset + found.bytes]);
            // What it stood with may have gone.
            record::ungroup(&mut out, at);
        }
    };
    let mut damaged = false;
    segment::scan(&bytes, None, take, |_| damaged = true);
    if damaged {
        let path = disk.path(&segment::name(number));
        tracing::warn!(path = %path.display(), "a damaged segment of the message log is left as it is");
        return Ok(None);
    }
    // It says where records were.
    remove_if_there(disk, &index::name(number))?;
    disk.sync_names()?;
    write_whole(disk, &segment::name(number), &out)?;
    index.write(disk, number)?;
    tracing::debug!(segment = number, before = bytes.len(), after = out.len(), "segment shrunk");
    Ok(Some(out.len() as u64))
}

/// The thread that tidies up.
pub(super) struct Tidier {
    works: Option<Sender<Work>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Tidier {
    /// `tell` is called on the thread with what came of each piece of work.
    pub(super) fn start(
        disk: Arc<dyn Disk>,
        tell: impl Fn(Done) + Send + 'static,
    ) -> io::Result<Self> {
        let (works, inbox): (_, Receiver<Work>) = channel();
        let thread = thread::Builder::new().name("warren-tidy".into()).spawn(move || {
            // Where the system has no niceness for threads it is one among others.
            let _ = setpriority_process(Some(gettid()), NICENESS);
            inbox.into_iter().for_each(|work| tell(work.run(&*disk)));
        })?;
        Ok(Self { works: Some(works), thread: Some(thread) })
    }

    pub(super) fn give(&self, work: Work) {
        if let Some(works) = &self.works {
            // It ends only when it is told to.
            let _ = works.send(work);
        }
    }

    /// Waits for what is under way.
    pub(super) fn end(&mut self) {
        self.works = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that tidies the message log has panicked");
        }
    }
}
