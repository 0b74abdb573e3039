//! Asks the driver and parks the fiber until it answers.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::driver::{Answer, Entry, FileHandle, FileOp, Metadata, Reply};
use crate::fiber::{WaitsFor, Woke};
use crate::{hub, remote};

/// # Suspends
/// Until the answer has come; not at all while the fiber unwinds, when the answer is lost, but not the deed.
pub(super) fn ask(op: FileOp) -> Answer {
    let place = Arc::new(Mutex::new(None));
    let answered = place.clone();
    let woke = remote::wait_for(WaitsFor::File, |waker| {
        let done = Box::new(move |answer| {
            *answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
            waker.wake();
        });
        hub::with(|hub| hub.driver.file(op, done));
    });
    let answer = place.lock().unwrap_or_else(PoisonError::into_inner).take();
    answer.unwrap_or_else(|| {
        let error = match woke {
            Woke::TimedOut => io::ErrorKind::TimedOut.into(),
            _ => io::Error::other("no thread could be started for it"),
        };
        Answer { result: Err(error), buffer: None }
    })
}

/// As [`ask`], with the path in the error.
pub(super) fn call(what: &'static str, path: &Path, op: FileOp) -> io::Result<Reply> {
    ask(op).result.map_err(|error| failed(what, path, error))
}

/// As [`call`], for what has nothing to tell.
pub(super) fn done(what: &'static str, path: &Path, op: FileOp) -> io::Result<()> {
    call(what, path, op).map(drop)
}

/// As [`call`], for metadata.
pub(super) fn metadata_of(path: &Path, op: FileOp) -> io::Result<Metadata> {
    match call("look at", path, op)? {
        Reply::Metadata(metadata) => Ok(metadata),
        other => unreachable!("asked for metadata, the driver told {other:?}"),
    }
}

impl Reply {
    pub(super) fn count(self) -> usize {
        match self {
            Self::Count(count) => count,
            other => unreachable!("asked for bytes, the driver told {other:?}"),
        }
    }

    pub(super) fn opened(self) -> FileHandle {
        match self {
            Self::Opened(handle) => handle,
            other => unreachable!("asked for a file, the driver told {other:?}"),
        }
    }

    pub(super) fn entries(self) -> Vec<Entry> {
        match self {
            Self::Entries(entries) => entries,
            other => unreachable!("asked for names, the driver told {other:?}"),
        }
    }
}

/// Says what was tried with which path.
pub(super) fn failed(what: &'static str, path: &Path, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), Failed { what, path: path.into(), source })
}

#[derive(Debug, thiserror::Error)]
struct Failed {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.what, self.path.display(), self.source)
    }
}
