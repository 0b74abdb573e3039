//! What the engine, the writing thread and the reading thread have in common of a stream on disk.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::index::Block;
use super::segment::Summary;

pub(crate) struct Shared {
    /// The store's name for the queue.
    pub(super) stream: u64,
    pub(super) folder: PathBuf,
    view: Mutex<View>,
    first: AtomicU64,
    next: AtomicU64,
    oldest_ms: AtomicU64,
}

/// What can be read.
pub(super) struct View {
    /// Oldest first; never empty once the stream is open.
    pub(super) segments: VecDeque<Summary>,
    /// The block at the end, which has no entry in the index.
    pub(super) open: Block,
}

impl Shared {
    pub(super) fn new(stream: u64, folder: PathBuf) -> Self {
        let view = View { segments: VecDeque::new(), open: Block::new(0, 0, 1) };
        let zero = || AtomicU64::new(0);
        Self {
            stream,
            folder,
            view: Mutex::new(view),
            first: zero(),
            next: zero(),
            oldest_ms: zero(),
        }
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the engine's side what has changed.
    pub(super) fn publish(&self) {
        let view = self.view();
        let first = view.segments.front().map_or(0, |segment| segment.first);
        let next = view.segments.back().map_or(0, |segment| segment.next);
        let oldest_ms = view.segments.front().map_or(0, |segment| segment.last_ms);
        drop(view);
        self.first.store(first, Ordering::Release);
        self.next.store(next, Ordering::Release);
        self.oldest_ms.store(oldest_ms, Ordering::Relaxed);
    }

    /// The offset of the oldest message.
    pub(crate) fn first(&self) -> u64 {
        self.first.load(Ordering::Acquire)
    }

    /// The offset after the last message that was written.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// When the last message of the oldest segment came; 0: nothing is there.
    pub(crate) fn oldest_ms(&self) -> u64 {
        self.oldest_ms.load(Ordering::Relaxed)
    }

    /// When the last message came; 0: nothing is there.
    pub(crate) fn last_ms(&self) -> u64 {
        self.view().segments.iter().map(|segment| segment.last_ms).max().unwrap_or(0)
    }
}
