//! The store's thread: takes batches, writes them, tells when they are on disk. What is to be tidied up meanwhile it
//! hands to a thread of its own.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::batch::{Batch, leave_out_settled};
use super::definitions::Definitions;
use super::log::Log;
use super::tidy::{Done, Tidier, Work};
use super::{Definition, OnSync};
use crate::stream::{self, Job};

#[derive(Default)]
struct Letters {
    batches: Vec<Batch>,
    /// What came of what was tidied up.
    done: Option<Done>,
    closed: bool,
}

/// Between the hub and the store's thread.
#[derive(Clone, Default)]
pub(super) struct Mailbox(Arc<(Mutex<Letters>, Condvar)>);

impl Mailbox {
    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn send(&self, batch: Batch) {
        self.letters().batches.push(batch);
        self.0.1.notify_one();
    }

    pub(super) fn close(&self) {
        self.letters().closed = true;
        self.0.1.notify_one();
    }

    fn done(&self, done: Done) {
        self.letters().done = Some(done);
        self.0.1.notify_one();
    }

    fn take_done(&self) -> Option<Done> {
        self.letters().done.take()
    }

    /// All batches that have come, and what was tidied up; `None` when no more will come. With a patience, nothing may
    /// have come when it ends.
    fn receive(&self, patience: Option<Duration>) -> Option<(Vec<Batch>, Option<Done>)> {
        let mut letters = self.letters();
        while letters.batches.is_empty() && letters.done.is_none() {
            if letters.closed {
                return None;
            }
            letters = match patience {
                None => self.0.1.wait(letters).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = self.0.1.wait_timeout(letters, patience);
                    letters = waited.unwrap_or_else(PoisonError::into_inner).0;
                    break;
                }
            };
        }
        Some((std::mem::take(&mut letters.batches), letters.done.take()))
    }
}

/// How long a disk that refuses is left alone.
const RETRY: Duration = Duration::from_millis(500);
/// Records that nobody waits for are synced when so many bytes of them have gathered: they are kept in memory
/// until then, to be written again if the disk refuses.
const UNSYNCED_BYTES_MAX: usize = 1024 * 1024;

pub(super) fn start(
    log: Log,
    streams: stream::Writer,
    definitions: Definitions,
    mailbox: Mailbox,
    on_sync: OnSync,
) -> io::Result<thread::JoinHandle<bool>> {
    let tell = mailbox.clone();
    let mut tidier = Tidier::start(log.disk(), move |done| tell.done(done))?;
    thread::Builder::new().name("warren-store".into()).spawn(move || {
        let mut writer = Writer::new(log, streams, definitions);
        let mut failing = false;
        let mut last = 0;
        writer.plan().into_iter().for_each(|work| tidier.give(work));
        while let Some((batches, done)) = mailbox.receive(failing.then_some(RETRY)) {
            let mut tidies = done.is_none_or(|done| writer.finish(done));
            last = batches.last().map_or(last, |batch| batch.number);
            if !batches.is_empty() || failing {
                match writer.write(batches) {
                    Ok(()) => {
                        if std::mem::take(&mut failing) {
                            tracing::info!(
                                "the store writes again; nothing it was given is missing"
                            );
                        }
                        on_sync(Ok(last));
                        tidies = true;
                    }
                    Err(error) if !std::mem::replace(&mut failing, true) => {
                        tracing::error!(
                            error,
                            "the store cannot write, and tries again until it can"
                        );
                        on_sync(Err(error));
                    }
                    Err(_) => {}
                }
            }
            // What could not be tidied up is left alone until something could be written.
            if tidies && !failing {
                writer.plan().into_iter().for_each(|work| tidier.give(work));
            }
        }
        tidier.end();
        mailbox.take_done().map(|done| writer.finish(done));
        if failing && let Err(error) = writer.write(Vec::new()) {
            tracing::error!(error, "what came since the store could not write is lost");
            return false;
        }
        if let Err(error) = writer.log.close() {
            tracing::warn!(%error, "the next start will have to read the end of the message log");
            return false;
        }
        true
    })
}

/// Writes batches, and writes them again after the disk has refused.
pub(super) struct Writer {
    pub(super) log: Log,
    pub(super) streams: stream::Writer,
    pub(super) definitions: Definitions,
    /// What is to be done with streams once the definitions before it are committed.
    jobs: Vec<Job>,
    /// What has come since the last sync. Before a sync has succeeded nothing is known of what it was to
    /// write: after a failure all this is written once more, each batch where it belongs.
    unsynced: Vec<Batch>,
    /// How many of them have their definitions committed. 0 <= written <= defined <= unsynced
    defined: usize,
    /// How many of them are in the log.
    written: usize,
    /// Octets of their records, and whether somebody waits for one of them.
    bytes: usize,
    awaited: bool,
    /// Queues whose definitions have gone, and whose messages are still to go.
    deleted: Vec<u64>,
}

impl Writer {
    pub(super) fn new(log: Log, streams: stream::Writer, definitions: Definitions) -> Self {
        Self {
            log,
            streams,
            definitions,
            jobs: Vec::new(),
            unsynced: Vec::new(),
            defined: 0,
            written: 0,
            bytes: 0,
            awaited: false,
            deleted: Vec::new(),
        }
    }

    /// Writes what has come, and what could not be written before.
    pub(super) fn write(&mut self, batches: Vec<Batch>) -> Result<(), String> {
        let mut batches = batches;
        leave_out_settled(&mut batches);
        for batch in batches {
            self.bytes += batch.records.len();
            self.awaited |= batch.awaited;
            self.unsynced.push(batch);
        }
        loop {
            let end = self.next_end();
            self.define(end).map_err(|error| format!("definitions: {error}"))?;
            // First: in the log may stand that a message has left a queue, which went on to a stream.
            self.streams.write(self.jobs.drain(..))?;
            let all = end == self.unsynced.len();
            self.append(end, !all).map_err(|error| {
                self.written = 0;
                format!("message log: {error}")
            })?;
            for queue in self.deleted.drain(..) {
                self.log.forget_queue(queue);
            }
            if all {
                return Ok(());
            }
        }
    }

    /// Up to where batches may go together: before the next that ends a queue everything is to be on disk.
    fn next_end(&self) -> usize {
        let ends = |batch: &Batch| batch.definitions.iter().any(Definition::ends_messages);
        let first = self.defined.max(1);
        let next = self.unsynced.iter().skip(first).position(ends);
        next.map_or(self.unsynced.len(), |next| first + next)
    }

    fn define(&mut self, end: usize) -> rusqlite::Result<()> {
        let fresh = &mut self.unsynced[self.defined..end];
        let changes: Vec<Definition> =
            fresh.iter().flat_map(|batch| batch.definitions.iter().cloned()).collect();
        if !changes.is_empty() {
            self.definitions.apply(&changes)?;
        }
        for batch in fresh {
            self.jobs.append(&mut batch.streams);
        }
        self.defined = end;
        self.deleted.extend(changes.iter().filter_map(|change| match change {
            Definition::DeleteQueue(queue) => Some(*queue),
            Definition::DeleteExchange { schedule, .. } if *schedule != 0 => Some(*schedule),
            _ => None,
        }));
        Ok(())
    }

    /// Writes the records up to the batch `end`, and syncs them if somebody waits for that.
    fn append(&mut self, end: usize, awaited: bool) -> io::Result<()> {
        for batch in &self.unsynced[self.written..end] {
            self.log.append(batch)?;
            self.written += 1;
        }
        if awaited || self.awaited || UNSYNCED_BYTES_MAX <= self.bytes {
            self.log.sync()?;
            self.unsynced.drain(..end);
            (self.defined, self.written) = (0, 0);
            self.bytes = self.unsynced.iter().map(|batch| batch.records.len()).sum();
            self.awaited = self.unsynced.iter().any(|batch| batch.awaited);
        }
        Ok(())
    }

    /// What is to be tidied up next.
    pub(super) fn plan(&mut self) -> Option<Work> {
        self.log.plan().unwrap_or_else(|error| {
            tracing::warn!(%error, "old messages could not be cleared away");
            // What the sync before it was to write may not be there.
            self.written = 0;
            None
        })
    }

    /// Takes in what was tidied up; false when it failed.
    pub(super) fn finish(&mut self, done: Done) -> bool {
        let finished = self.log.finish(done);
        if let Err(error) = &finished {
            tracing::warn!(%error, "old messages could not be cleared away");
        }
        finished.is_ok()
    }
}
