//! Results of many fibers, one by one.
//!
//! ```text
//!   feeder, a fiber of its own:   for each item: wait for room, start a fiber of the group
//!   each of those fibers:         puts (index, result) into `results`
//!   the iterator:                 takes from `results`; the last message of the feeder tells how many there are
//! ```

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::Group;
use crate::fiber::as_interrupt;
use crate::join::{Ending, JoinError, JoinHandle, Panic};
use crate::spawn::spawn;
use crate::sync::{Queue, Semaphore};

/// What the fibers tell the iterator.
enum Message<T> {
    Result(usize, Ending<T>),
    /// So many fibers were started, and no more will be: because there are no more items, or for this error.
    End(usize, Option<JoinError>),
}

struct Results<T> {
    messages: Queue<Message<T>>,
    /// Set before the feeder runs: how many results may wait for the iterator.
    maxsize: Cell<Option<usize>>,
    /// Made by the feeder when there is a `maxsize`: one permit is taken for each fiber, and given back for each
    /// result that was taken.
    room: OnceCell<Semaphore>,
}

/// Gives results as they come: see [`Group::imap_unordered`].
///
/// Dropped before its end, it starts no more fibers; those that were started go on.
#[must_use = "an iterator gives nothing by itself"]
pub struct ImapUnordered<T: 'static> {
    results: Rc<Results<T>>,
    feeder: JoinHandle<()>,
    taken: usize,
    /// Known once the feeder has ended.
    total: Option<usize>,
    error: Option<JoinError>,
}

impl<T: 'static> ImapUnordered<T> {
    /// Lets at most `results` results wait to be taken, or be on their way; without it, or with 0, there is no bound.
    /// To be said before the caller waits for the first time.
    pub fn maxsize(self, results: usize) -> Self {
        self.results.maxsize.set((results > 0).then_some(results));
        self
    }

    #[track_caller]
    pub(super) fn start<I: 'static>(
        group: Group,
        f: impl Fn(I) -> T + 'static,
        items: impl IntoIterator<Item = I> + 'static,
    ) -> Self {
        let results = Rc::new(Results {
            messages: Queue::unbounded(),
            maxsize: Cell::new(None),
            room: OnceCell::new(),
        });
        let feeder = spawn({
            let results = results.clone();
            move || {
                let started = Cell::new(0);
                let fed = catch_unwind(AssertUnwindSafe(|| {
                    feed(&group, &results, Rc::new(f), items, &started);
                }));
                let error = fed.err().map(|payload| match as_interrupt(&*payload) {
                    Some(_) => JoinError::Killed,
                    None => JoinError::Panicked(Panic::new(payload)),
                });
                tell(&results.messages, Message::End(started.get(), error));
            }
        });
        Self { results, feeder, taken: 0, total: None, error: None }
    }

    /// The next result with its index, or the error that ends it all.
    fn next_result(&mut self) -> Option<(usize, Ending<T>)> {
        while self.total != Some(self.taken) {
            match self.results.messages.get().ok()? {
                Message::End(total, error) => {
                    self.total = Some(total);
                    self.error = error;
                }
                Message::Result(index, ending) => {
                    self.taken += 1;
                    return Some((index, ending));
                }
            }
        }
        let error = self.error.take()?;
        Some((self.taken, Err(error)))
    }

    /// A result leaves the iterator, and another may come.
    fn make_room(&self) {
        if let Some(room) = self.results.room.get() {
            room.release();
        }
    }
}

fn feed<I: 'static, T: 'static>(
    group: &Group,
    results: &Rc<Results<T>>,
    f: Rc<impl Fn(I) -> T + 'static>,
    items: impl IntoIterator<Item = I>,
    started: &Cell<usize>,
) {
    let room = results.maxsize.get().map(|most| results.room.get_or_init(|| Semaphore::new(most)));
    for (index, item) in items.into_iter().enumerate() {
        if let Some(room) = room {
            room.acquire().forget();
        }
        let (f, report) = (f.clone(), Report { results: results.clone(), index, told: false });
        group.spawn(move || report.run(|| f(item)));
        started.set(index + 1);
    }
}

/// Tells the result of one fiber, in any case: one that is dropped without having run was killed.
struct Report<T: 'static> {
    results: Rc<Results<T>>,
    index: usize,
    told: bool,
}

impl<T> Report<T> {
    fn run(mut self, f: impl FnOnce() -> T) {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(value) => self.tell(Ok(value)),
            Err(payload) if as_interrupt(&*payload).is_some() => resume_unwind(payload),
            Err(payload) => self.tell(Err(JoinError::Panicked(Panic::new(payload)))),
        }
    }

    fn tell(&mut self, ending: Ending<T>) {
        self.told = true;
        tell(&self.results.messages, Message::Result(self.index, ending));
    }
}

impl<T> Drop for Report<T> {
    fn drop(&mut self) {
        if !self.told {
            self.tell(Err(JoinError::Killed));
        }
    }
}

fn tell<T>(messages: &Queue<Message<T>>, message: Message<T>) {
    // It is never full, and never closed.
    let _ = messages.try_put(message);
}

impl<T> Iterator for ImapUnordered<T> {
    type Item = T;

    /// # Suspends
    /// Until the next result is there.
    fn next(&mut self) -> Option<T> {
        let (_, ending) = self.next_result()?;
        self.make_room();
        Some(ending.unwrap_or_else(|error| error.resume()))
    }
}

impl<T> Drop for ImapUnordered<T> {
    fn drop(&mut self) {
        self.feeder.kill();
    }
}

impl<T> fmt::Debug for ImapUnordered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapUnordered").field("taken", &self.taken).finish_non_exhaustive()
    }
}

/// Gives results in the order of the items: see [`Group::imap`].
///
/// Dropped before its end, it starts no more fibers; those that were started go on.
#[must_use = "an iterator gives nothing by itself"]
pub struct Imap<T: 'static> {
    results: ImapUnordered<T>,
    /// Those that came before their turn.
    early: BTreeMap<usize, Ending<T>>,
    next: usize,
}

impl<T: 'static> Imap<T> {
    pub(super) fn new(results: ImapUnordered<T>) -> Self {
        Self { results, early: BTreeMap::new(), next: 0 }
    }

    /// As [`ImapUnordered::maxsize`]. Results that come before their turn count.
    pub fn maxsize(self, results: usize) -> Self {
        Self { results: self.results.maxsize(results), ..self }
    }
}

impl<T> Iterator for Imap<T> {
    type Item = T;

    /// # Suspends
    /// Until the next result is there.
    fn next(&mut self) -> Option<T> {
        let ending = loop {
            if let Some(ending) = self.early.remove(&self.next) {
                break ending;
            }
            let (index, ending) = self.results.next_result()?;
            self.early.insert(index, ending);
        };
        self.next += 1;
        self.results.make_room();
        Some(ending.unwrap_or_else(|error| error.resume()))
    }
}

impl<T> fmt::Debug for Imap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap").field("next", &self.next).finish_non_exhaustive()
    }
}
