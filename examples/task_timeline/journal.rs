//! Who did what from when to when.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::{TASKS, Task};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    Running,
    Waiting,
    Done,
}

/// A stretch of one task.
pub(crate) struct Span {
    pub(crate) task: &'static str,
    pub(crate) doing: Doing,
    /// Since the journal was begun.
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

/// Where one span ends and the next begins.
struct Note {
    task: &'static str,
    doing: Doing,
    at: Duration,
}

/// Shared by all tasks, whatever they run on.
#[derive(Clone)]
pub(crate) struct Journal {
    begun: Instant,
    notes: Arc<Mutex<Vec<Note>>>,
}

impl Journal {
    pub(crate) fn begin() -> Self {
        Self { begun: Instant::now(), notes: Arc::default() }
    }

    /// What the task does from now on.
    pub(crate) fn note(&self, task: Task, doing: Doing) {
        let mut notes = self.notes.lock().expect("nobody panics meanwhile");
        notes.push(Note { task: task.name, doing, at: self.begun.elapsed() });
    }

    /// By task, and in the order of time.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let notes = self.notes.lock().expect("nobody panics meanwhile");
        let mut spans = Vec::new();
        for task in TASKS {
            let own: Vec<_> = notes.iter().filter(|note| note.task == task.name).collect();
            spans.extend(own.windows(2).map(|pair| Span {
                task: task.name,
                doing: pair[0].doing,
                from: pair[0].at,
                to: pair[1].at,
            }));
        }
        spans
    }
}

/// The figures of a run.
pub(crate) fn summary(spans: &[Span]) -> String {
    let total = spans.iter().map(|span| span.to).max().unwrap_or_default();
    let longest = TASKS.iter().filter_map(|task| {
        let own = || spans.iter().filter(|span| span.task == task.name);
        Some(own().map(|span| span.to).max()? - own().map(|span| span.from).min()?)
    });
    format!(
        "{} ms, the longest task {} ms; worked {} ms, at most {} at once; waited {} ms, at most {} at once",
        total.as_millis(),
        longest.max().unwrap_or_default().as_millis(),
        sum(spans, Doing::Running).as_millis(),
        at_once(spans, Doing::Running),
        sum(spans, Doing::Waiting).as_millis(),
        at_once(spans, Doing::Waiting),
    )
}

fn sum(spans: &[Span], doing: Doing) -> Duration {
    let wanted = spans.iter().filter(|span| span.doing == doing);
    wanted.map(|span| span.to - span.from).sum()
}

/// How many tasks did that at the same time, at most.
fn at_once(spans: &[Span], doing: Doing) -> usize {
    let wanted = || spans.iter().filter(|span| span.doing == doing);
    // The most are there where one of them begins.
    let others = |at: Duration| wanted().filter(|span| span.from <= at && at < span.to).count();
    wanted().map(|span| others(span.from)).max().unwrap_or_default()
}
