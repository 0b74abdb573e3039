//! What the threads of a run share.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::ledger::Ledger;
use super::worker::Stage;

pub(super) struct Shared {
    stage: AtomicU8,
    /// When the load began, in nanoseconds.
    start: AtomicU64,
    backlog: Option<Backlog>,
    ledger: Option<Ledger>,
    /// Publishes whose connection broke before their confirm came.
    in_doubt: AtomicU64,
    producers_left: AtomicU64,
    consumers_left: AtomicU64,
    /// Connections that are being opened again.
    down: AtomicU64,
    reconnects: AtomicU64,
    talk: Mutex<Talk>,
}

/// Messages published and not yet consumed.
struct Backlog {
    max: u64,
    /// Deliveries of each message.
    copies: u64,
    published: AtomicU64,
    consumed: AtomicU64,
}

/// What there is to tell the user.
#[derive(Default)]
struct Talk {
    blocked: Option<String>,
    lines: Vec<String>,
    last: String,
}

impl Shared {
    pub(super) fn new(
        producers: usize,
        consumers: usize,
        backlog: Option<u64>,
        copies: u64,
        ledger: Option<Ledger>,
    ) -> Self {
        let backlog = backlog.map(|max| Backlog {
            max,
            copies,
            published: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
        });
        Self {
            stage: AtomicU8::new(0),
            start: AtomicU64::new(0),
            backlog,
            ledger,
            in_doubt: AtomicU64::new(0),
            producers_left: AtomicU64::new(producers as u64),
            consumers_left: AtomicU64::new(consumers as u64),
            down: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            talk: Mutex::default(),
        }
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Running,
            1 => Stage::Draining,
            _ => Stage::Closing,
        }
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        let stage = match stage {
            Stage::Running => 0,
            Stage::Draining => 1,
            Stage::Closing => 2,
        };
        self.stage.fetch_max(stage, Ordering::AcqRel);
    }

    pub(super) fn start(&self) -> u64 {
        self.start.load(Ordering::Relaxed)
    }

    pub(super) fn set_start(&self, start: u64) {
        self.start.store(start, Ordering::Relaxed);
    }

    pub(super) fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// How many messages may be published now.
    pub(super) fn room(&self) -> u64 {
        let Some(backlog) = &self.backlog else { return u64::MAX };
        let consumed = backlog.consumed.load(Ordering::Relaxed);
        let published = backlog.published.load(Ordering::Relaxed) * backlog.copies;
        backlog.max.saturating_sub(published.saturating_sub(consumed)) / backlog.copies
    }

    pub(super) fn note_published(&self, count: u64) {
        if let Some(backlog) = &self.backlog {
            backlog.published.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(super) fn note_consumed(&self, count: u64) {
        if let Some(backlog) = &self.backlog
            && count != 0
        {
            backlog.consumed.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(super) fn add_in_doubt(&self, count: u64) {
        self.in_doubt.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn in_doubt(&self) -> u64 {
        self.in_doubt.load(Ordering::Relaxed)
    }

    /// A producer has sent all it had to send.
    pub(super) fn producer_done(&self) {
        self.producers_left.fetch_sub(1, Ordering::Relaxed);
    }

    /// A consumer has taken all it had to take.
    pub(super) fn consumer_done(&self) {
        self.consumers_left.fetch_sub(1, Ordering::Relaxed);
    }

    /// Producers and consumers that are not done.
    pub(super) fn left(&self) -> (u64, u64) {
        (self.producers_left.load(Ordering::Relaxed), self.consumers_left.load(Ordering::Relaxed))
    }

    /// A connection has broken and is to be opened again.
    pub(super) fn lost(&self, error: &anyhow::Error) {
        self.down.fetch_add(1, Ordering::Relaxed);
        self.tell(format!("{error:#}; connecting again"));
    }

    pub(super) fn not_reopened(&self, error: &anyhow::Error) {
        self.tell(format!("{error:#}"));
    }

    pub(super) fn reopened(&self) {
        self.down.fetch_sub(1, Ordering::Relaxed);
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    pub(super) fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// Adds a line for the user, unless it is the last one again.
    fn tell(&self, line: String) {
        let mut talk = self.talk.lock().expect("nobody panics with the lock");
        if talk.last != line {
            talk.last.clone_from(&line);
            talk.lines.push(line);
        }
    }

    pub(super) fn set_blocked(&self, reason: Option<&str>) {
        self.talk.lock().expect("nobody panics with the lock").blocked = reason.map(str::to_owned);
    }

    /// Why the server takes no publishes at present, if so.
    pub(super) fn blocked(&self) -> Option<String> {
        self.talk.lock().expect("nobody panics with the lock").blocked.clone()
    }

    /// What there is to tell, once.
    pub(super) fn take_lines(&self) -> Vec<String> {
        std::mem::take(&mut self.talk.lock().expect("nobody panics with the lock").lines)
    }
}
