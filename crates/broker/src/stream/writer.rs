//! What the store's thread does for streams: it writes what came for them beside the message log, and both are
//! on disk before anybody is told. So a message for a queue and a stream is confirmed once, and a transaction
//! over both holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};

use super::log::Log;
use super::settings::StreamSettings;
use super::shared::Shared;
use crate::store::{Damage, Progress, StoreError};

/// Streams whose files are kept open between two batches.
const OPEN_MAX: usize = 256;

/// What is to be done with a stream.
#[derive(Clone)]
pub(crate) enum Job {
    /// A new stream.
    Create {
        shared: Arc<Shared>,
        settings: StreamSettings,
    },
    /// Records are written at its end.
    Append {
        stream: u64,
        records: Bytes,
        /// Some of them have a value to be chosen by.
        filtered: bool,
    },
    /// Other limits hold for it.
    Configure {
        stream: u64,
        settings: StreamSettings,
    },
    /// What is too much or too old goes.
    Retain {
        stream: u64,
        now_ms: u64,
    },
    Delete {
        stream: u64,
    },
}

/// All streams of a data directory, on the thread that writes them.
pub(crate) struct Writer {
    folder: PathBuf,
    logs: FxHashMap<u64, Log>,
    /// What has come since the last sync; written once more after a failure.
    unsynced: Vec<Job>,
    /// How many of them have been done.
    done: usize,
    failed: bool,
}

impl Writer {
    /// Opens the streams of a folder. Those that nobody knows are deleted.
    ///
    /// # Errors
    /// When a file cannot be read, or is none of ours.
    pub(crate) fn open(
        folder: &Path,
        known: &[(u64, StreamSettings)],
        damage: &mut Vec<Damage>,
    ) -> Result<(Self, FxHashMap<u64, Arc<Shared>>), StoreError> {
        let mut logs = FxHashMap::default();
        let mut shared = FxHashMap::default();
        let mut progress = Progress::new("reading streams", known.len());
        for (stream, settings) in known {
            progress.step();
            let seen = new_stream(folder, *stream);
            logs.insert(*stream, Log::open(seen.clone(), *settings, damage)?);
            shared.insert(*stream, seen);
        }
        if folder.exists() {
            let failed = || StoreError::io("read", folder);
            for entry in fs::read_dir(folder).map_err(failed())? {
                let path = entry.map_err(failed())?.path();
                let stream = path.file_name().and_then(|name| name.to_str()?.parse::<u64>().ok());
                if stream.is_some_and(|stream| !logs.contains_key(&stream)) {
                    fs::remove_dir_all(&path).map_err(StoreError::io("delete", &path))?;
                }
            }
        }
        let folder = folder.to_owned();
        Ok((Self { folder, logs, unsynced: Vec::new(), done: 0, failed: false }, shared))
    }

    /// Does what has come, and what could not be done before. Everything is on disk then.
    ///
    /// # Errors
    /// In words. What has come is kept, to be done with the next call.
    pub(crate) fn write(&mut self, jobs: impl IntoIterator<Item = Job>) -> Result<(), String> {
        self.unsynced.extend(jobs);
        if self.unsynced.is_empty() {
            return Ok(());
        }
        self.try_write().map_err(|error| {
            self.failed = true;
            self.done = 0;
            format!("streams: {error}")
        })
    }

    fn try_write(&mut self) -> Result<(), StoreError> {
        if self.failed {
            let touched = self.unsynced.iter().filter_map(|job| match job {
                Job::Append { stream, .. } | Job::Retain { stream, .. } => Some(*stream),
                _ => None,
            });
            for stream in touched.collect::<FxHashSet<u64>>() {
                if let Some(log) = self.logs.get_mut(&stream) {
                    log.restore()?;
                }
            }
            self.failed = false;
        }
        let mut written = FxHashSet::default();
        while let Some(job) = self.unsynced.get(self.done) {
            let folder = self.folder.as_path();
            match job {
                Job::Append { stream, records, filtered } => {
                    if let Some(log) = self.logs.get_mut(stream) {
                        let path = stream_folder(folder, *stream);
                        let failed = StoreError::io("write to", &path);
                        log.append(records, *filtered).map_err(failed)?;
                        written.insert(*stream);
                    }
                }
                Job::Create { shared, settings } => {
                    let log = Log::open(shared.clone(), *settings, &mut Vec::new())?;
                    self.logs.insert(shared.stream, log);
                }
                Job::Configure { stream, settings } => {
                    if let Some(log) = self.logs.get_mut(stream) {
                        log.configure(*settings);
                    }
                }
                Job::Retain { stream, now_ms } => {
                    if let Some(log) = self.logs.get_mut(stream) {
                        let path = stream_folder(folder, *stream);
                        log.retain(*now_ms).map_err(StoreError::io("clear away", &path))?;
                    }
                }
                Job::Delete { stream } => {
                    if self.logs.remove(stream).is_some() {
                        let path = stream_folder(folder, *stream);
                        fs::remove_dir_all(&path).map_err(StoreError::io("delete", &path))?;
                    }
                }
            }
            self.done += 1;
        }
        for stream in &written {
            if let Some(log) = self.logs.get_mut(stream) {
                let path = stream_folder(&self.folder, *stream);
                log.sync().map_err(StoreError::io("sync", &path))?;
            }
        }
        self.unsynced.clear();
        self.done = 0;
        if OPEN_MAX < self.logs.values().filter(|log| log.has_files()).count() {
            self.logs.values_mut().for_each(Log::close_files);
        }
        Ok(())
    }
}

/// What the engine and the threads are to have in common of a new stream.
pub(crate) fn new_stream(folder: &Path, stream: u64) -> Arc<Shared> {
    Arc::new(Shared::new(stream, stream_folder(folder, stream)))
}

pub(super) fn stream_folder(folder: &Path, stream: u64) -> PathBuf {
    folder.join(format!("{stream:010}"))
}
