//! What the clients know about every message: what was confirmed to them, what they had, what they acknowledged.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use warren::amqp::FieldValue;
use warren::amqp::client::Delivery;

use crate::chance::id_of;
use crate::places::{Place, Promise};
use crate::streams::StreamBook;

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
    /// Not before this time, in milliseconds since 1970.
    pub(crate) due_ms: u64,
    /// How often it was given back: as a later confirm covers, and in all.
    pub(crate) returns: (u32, u32),
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

/// A message as a client has got it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    pub(crate) id: u64,
    pub(crate) redelivered: bool,
    /// Which of the place's queues it came from.
    pub(crate) queue: usize,
    /// How often it has come back, as the server says.
    pub(crate) returns: u32,
    pub(crate) now_ms: u64,
}

impl Found {
    /// `None`: the body is not as it was made.
    pub(crate) fn new(delivery: &Delivery, queue: usize) -> Option<Self> {
        let headers = delivery.properties.headers.as_ref();
        let returns = headers.and_then(|headers| headers.get("x-delivery-count"));
        let returns = returns.and_then(FieldValue::as_i64).unwrap_or(0) as u32;
        let (id, redelivered) = (id_of(&delivery.body)?, delivery.redelivered);
        Some(Self { id, redelivered, queue, returns, now_ms: now_ms() })
    }

    /// What is wrong with it there.
    pub(crate) fn faults(&self, place: &Place, entry: &Entry) -> Vec<String> {
        let mut faults = Vec::new();
        let Self { id, returns, .. } = self;
        if entry.must_be_gone() {
            faults.push("is there, and its acknowledgement was on disk".to_owned());
        }
        // A letter is another message, and so is what a transaction has moved, or what has waited at an exchange: a
        // server that is killed before the end of the wait is on disk lets it end again.
        let is_same = self.queue == 0 && !matches!(place.promise, Promise::Moves | Promise::Time);
        if is_same && entry.delivered && !self.redelivered {
            faults.push("was delivered before and is not flagged".to_owned());
        }
        if self.now_ms < entry.due_ms {
            faults.push(format!("comes {} ms before its time", entry.due_ms - self.now_ms));
        }
        if place.promise == Promise::Returns {
            let (kept, sent) = entry.returns;
            let max = crate::places::RETURNS_MAX;
            if self.queue == 0 && !(kept..=sent).contains(returns) {
                let why = format!("says that it came back {returns} times, not {kept} to {sent}");
                faults.push(why);
            }
            if self.queue == 0 && max < *returns {
                faults.push(format!("is not dead after it came back {returns} times"));
            }
            if self.queue == 1 && sent <= max {
                faults.push(format!("is dead after it came back {sent} times"));
            }
        }
        let name = place.name;
        faults.into_iter().map(|fault| format!("{name}: message {id} {fault}: {entry:?}")).collect()
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Everything, shared by the fibers of a load.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Rc<RefCell<Book>>);

/// The same between loads.
#[derive(Default)]
pub(crate) struct Book {
    /// The number of the last message.
    last: u64,
    pub(crate) places: BTreeMap<&'static str, BTreeMap<u64, Entry>>,
    /// Durable queues, exchanges and bindings, and whether they are there; `None`: that is in doubt.
    pub(crate) queues: BTreeMap<String, Option<bool>>,
    pub(crate) exchanges: BTreeMap<String, Option<bool>>,
    pub(crate) bindings: BTreeMap<String, Option<bool>>,
    pub(crate) stream: StreamBook,
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

    /// A client has had the message. What is wrong with that.
    pub(crate) fn deliver(&self, place: &Place, found: &Found) -> Vec<String> {
        self.with(|book| match book.entry(place.name, found.id) {
            Some(entry) => {
                let faults = found.faults(place, entry);
                entry.delivered = true;
                faults
            }
            None => vec![format!(
                "{}: message {} was never published here, or had gone",
                place.name, found.id
            )],
        })
    }

    /// Messages are given back.
    pub(crate) fn returns(&self, place: &str, ids: &[u64]) {
        self.with(|book| {
            for id in ids {
                if let Some(entry) = book.entry(place, *id) {
                    entry.returns.1 += 1;
                }
            }
        });
    }

    /// That these were given back is on disk. What was sent to a server that was killed may never have come.
    pub(crate) fn returned(&self, place: &str, ids: &[u64]) {
        self.with(|book| {
            for id in ids {
                if let Some(entry) = book.entry(place, *id) {
                    entry.returns.0 += 1;
                }
            }
        });
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

    /// A number for a message of the stream.
    pub(crate) fn next(&mut self) -> u64 {
        self.last += 1;
        self.published += 1;
        self.last
    }
}
