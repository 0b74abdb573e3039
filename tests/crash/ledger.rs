//! What the clients know about every message: what was confirmed to them, what they had, what they acknowledged.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// How far an acknowledgement has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ack {
    #[default]
    Not,
    /// Sent. A server that was killed may or may not have had it.
    Sent,
    /// A confirm that came after it says that it is on disk.
    Synced,
}

/// A message in a place.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) confirmed: bool,
    /// A client has had it: whenever it comes again it is flagged.
    pub(crate) delivered: bool,
    pub(crate) ack: Ack,
    pub(crate) priority: u8,
    /// Who published it: only its messages have an order.
    pub(crate) publisher: u64,
    /// The transaction that it was published in.
    pub(crate) transaction: Option<u64>,
}

impl Entry {
    /// Whether the server has promised that it is there.
    pub(crate) fn must_be_there(&self) -> bool {
        self.confirmed && self.ack == Ack::Not
    }

    /// Whether it has promised that it is not.
    pub(crate) fn must_be_gone(&self) -> bool {
        self.ack == Ack::Synced
    }
}

/// Everything, shared by the fibers of a load. A place is a queue, or several among which a message may move.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Rc<RefCell<Book>>);

/// The same between loads.
#[derive(Default)]
pub(crate) struct Book {
    /// The number of the last message.
    last: u64,
    pub(crate) places: BTreeMap<&'static str, BTreeMap<u64, Entry>>,
    /// Durable queues by name, and whether they are there; `None`: that is in doubt.
    pub(crate) queues: BTreeMap<String, Option<bool>>,
    pub(crate) published: u64,
    pub(crate) confirmed: u64,
    pub(crate) acked: u64,
}

impl Ledger {
    pub(crate) fn new(book: Book) -> Self {
        Self(Rc::new(RefCell::new(book)))
    }

    pub(crate) fn take(&self) -> Book {
        self.0.take()
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Book) -> T) -> T {
        look(&mut self.0.borrow_mut())
    }

    /// A message is about to be published to these places.
    pub(crate) fn publish(&self, places: &[&'static str], entry: Entry) -> u64 {
        self.with(|book| {
            book.last += 1;
            book.published += 1;
            for &place in places {
                book.places.entry(place).or_default().insert(book.last, entry);
            }
            book.last
        })
    }

    pub(crate) fn confirm(&self, places: &[&'static str], ids: &[u64]) {
        self.with(|book| {
            book.confirmed += ids.len() as u64;
            for place in places {
                for id in ids {
                    // It is gone when a consumer was faster than the confirm, and all of it is on disk.
                    if let Some(entry) = book.entry(place, *id) {
                        entry.confirmed = true;
                    }
                }
            }
        });
    }

    /// A client has had the message, with this flag. An error: it cannot have.
    pub(crate) fn deliver(&self, place: &str, id: u64, redelivered: bool) -> Result<(), String> {
        self.with(|book| match book.entry(place, id) {
            Some(entry) if entry.must_be_gone() => Err(format!(
                "{place}: message {id} came back after its acknowledgement was on disk"
            )),
            Some(entry) => match std::mem::replace(&mut entry.delivered, true) {
                true if !redelivered => Err(format!("{place}: message {id} came again unflagged")),
                _ => Ok(()),
            },
            None => Err(format!("{place}: message {id} was never published here, or had gone")),
        })
    }

    pub(crate) fn acks(&self, place: &str, ids: &[u64], ack: Ack) {
        self.with(|book| {
            for id in ids {
                if let Some(entry) = book.entry(place, *id) {
                    entry.ack = ack;
                }
            }
            if ack == Ack::Synced {
                book.acked += ids.len() as u64;
            }
        });
    }
}

impl Book {
    pub(crate) fn entry(&mut self, place: &str, id: u64) -> Option<&mut Entry> {
        self.places.get_mut(place)?.get_mut(&id)
    }
}
