//! The store's thread: takes batches, writes them, tells when they are on disk.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::definitions::Definitions;
use super::log::Log;
use super::{Definition, OnSync};

/// What one turn of the hub has to have written.
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) definitions: Vec<Definition>,
    /// Encoded.
    pub(super) records: Vec<u8>,
    /// There is a publish among the records: somebody may wait for the disk. Acknowledgements that are lost
    /// with the machine cost a second delivery, and nobody waits for them.
    pub(super) publishes: bool,
}

impl Batch {
    pub(super) fn new(number: u64) -> Self {
        Self { number, definitions: Vec::new(), records: Vec::new(), publishes: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.definitions.is_empty() && self.records.is_empty()
    }
}

#[derive(Default)]
struct Letters {
    batches: Vec<Batch>,
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

    /// All batches that have come; `None` when no more will.
    fn receive(&self) -> Option<Vec<Batch>> {
        let mut letters = self.letters();
        while letters.batches.is_empty() {
            if letters.closed {
                return None;
            }
            letters = self.0.1.wait(letters).unwrap_or_else(PoisonError::into_inner);
        }
        Some(std::mem::take(&mut letters.batches))
    }
}

pub(super) fn start(
    mut log: Log,
    mut definitions: Definitions,
    mailbox: Mailbox,
    on_sync: OnSync,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name("warren-store".into()).spawn(move || {
        while let Some(batches) = mailbox.receive() {
            let last = batches.last().map_or(0, |batch| batch.number);
            match write(&mut log, &mut definitions, &batches) {
                Ok(()) => on_sync(Ok(last)),
                Err(error) => {
                    tracing::error!(
                        error,
                        "the store cannot write; nothing is made durable any more"
                    );
                    on_sync(Err(error));
                    // What follows would stand behind a gap: it must not be taken for whole.
                    while let Some(batches) = mailbox.receive() {
                        drop(batches);
                    }
                    return;
                }
            }
            if let Err(error) = log.compact() {
                tracing::warn!(%error, "old messages could not be cleared away");
            }
        }
    })
}

fn write(log: &mut Log, definitions: &mut Definitions, batches: &[Batch]) -> Result<(), String> {
    let changes: Vec<Definition> =
        batches.iter().flat_map(|batch| batch.definitions.iter().cloned()).collect();
    if !changes.is_empty() {
        definitions.apply(&changes).map_err(|error| format!("definitions: {error}"))?;
    }
    for batch in batches {
        log.append(&batch.records).map_err(|error| format!("message log: {error}"))?;
    }
    if batches.iter().any(|batch| batch.publishes) {
        log.sync().map_err(|error| format!("message log: {error}"))?;
    }
    for change in &changes {
        if let Definition::DeleteQueue(queue) = change {
            log.drop_queue(*queue);
        }
    }
    Ok(())
}
