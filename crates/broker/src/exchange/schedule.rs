//! Messages that wait for a time of their own: a priority queue that leaves memory when it is long.
//!
//! ```text
//!   push --> | near: sorted, in memory | --the later half, when there are too many--> pages, each sorted
//!                       ^                                                                |
//!                       +---- a page, before the first of its messages is due <----------+
//! ```
//! Pages overlap in time, as runs of a merge sort do: what is read back and is not due soon goes out again, next to
//! its new neighbours. So memory stays that of a window, and a message is written a few times at most. A message
//! in a page costs a share of some hundred bytes for each thousand of them; there is one timer for all.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::memory::MESSAGE_BYTES;
use crate::message::Entry;
use crate::store::pages::{Page, Pages};

/// Entries whose `expires_ms` is when they are due, in milliseconds since 1970.
#[derive(Default)]
pub(crate) struct Schedule {
    /// By when they are due, and then by their positions.
    near: BTreeMap<(u64, u64), Entry>,
    /// Of the bodies of those.
    near_bytes: u64,
    /// By the same of their first entries.
    far: BTreeMap<(u64, u64), Page>,
    len: usize,
    /// Of the bodies of all.
    bytes: u64,
    last_position: u64,
    /// `None`: all stays in memory.
    pages: Option<Rc<Pages>>,
    /// The disk has refused: it is not tried again before there are so many in memory.
    retry_len: usize,
}

impl Schedule {
    pub(crate) fn page_to(&mut self, pages: Option<Rc<Pages>>) {
        self.pages = pages;
    }

    /// Lets an entry wait. Those that are due at once come out in the order in which they came.
    pub(crate) fn push(&mut self, mut entry: Entry) {
        self.last_position += 1;
        entry.position = self.last_position;
        self.put(entry);
    }

    /// Lets an entry wait that keeps its position, which no other one has. Who uses this does not use
    /// [`push`](Self::push).
    pub(crate) fn put(&mut self, entry: Entry) {
        self.len += 1;
        self.bytes += body_bytes(&entry);
        self.insert(entry);
        self.shrink();
    }

    /// When the first is due.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let near = self.near.first_key_value().map(|((due_ms, _), _)| *due_ms);
        let far = self.far.first_key_value().map(|((due_ms, _), _)| *due_ms);
        near.into_iter().chain(far).min()
    }

    /// Takes the first out, if it is due.
    pub(crate) fn pop_due(&mut self, now_ms: u64) -> Option<Entry> {
        if now_ms < self.next_ms()? {
            return None;
        }
        // Each page that is read leaves its first entry in memory, however much goes out again.
        while let Some((far, _)) = self.far.first_key_value()
            && self.near.first_key_value().is_none_or(|(near, _)| far < near)
        {
            self.read_first();
        }
        if now_ms < self.next_ms()? {
            // A page was lost.
            return None;
        }
        let (_, entry) = self.near.pop_first()?;
        self.near_bytes -= body_bytes(&entry);
        self.bytes -= body_bytes(&entry);
        self.len -= 1;
        Some(entry)
    }

    /// Takes everything out; the store's numbers of those that have one.
    pub(crate) fn clear(&mut self) -> Vec<u64> {
        let all = std::mem::take(self);
        self.pages = all.pages;
        let paged = all.far.into_values().filter_map(|page| page.places().ok()).flatten();
        let places = all.near.into_values().map(|entry| entry.place);
        places.filter(|place| *place != 0).chain(paged).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Of the bodies of all.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn insert(&mut self, entry: Entry) {
        self.near_bytes += body_bytes(&entry);
        self.near.insert((entry.expires_ms, entry.position), entry);
    }

    /// Reads the page with the earliest message back.
    fn read_first(&mut self) {
        let Some((_, page)) = self.far.pop_first() else { return };
        match page.read() {
            Ok(entries) => {
                self.len -= page.count - entries.len();
                entries.into_iter().for_each(|entry| self.insert(entry));
            }
            Err(error) => {
                let count = page.count;
                tracing::error!(%error, count, "messages that wait cannot be read back; those that are durable come back with a restart");
                self.len -= count;
                self.bytes -= page.bytes;
            }
        }
        self.shrink();
    }

    /// Lets the later half leave memory, when there are too many.
    fn shrink(&mut self) {
        let Some(pages) = self.pages.clone() else { return };
        let window = pages.window;
        let over = window.entries < self.near.len() || window.bytes < self.near_bytes;
        if !over || self.near.len() < 2 || self.near.len() < self.retry_len {
            return;
        }
        self.page_from(self.near.len() / 2, &pages);
    }

    /// Writes to disk what is not due first.
    pub(crate) fn page_out(&mut self) {
        if let Some(pages) = self.pages.clone() {
            self.page_from(NEAR_MIN, &pages);
        }
    }

    /// What is in memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.near_bytes + (self.near.len() * MESSAGE_BYTES) as u64
    }

    /// Writes to disk what stands behind the first `keep`.
    fn page_from(&mut self, keep: usize, pages: &Pages) {
        let window = pages.window;
        self.retry_len = 0;
        let Some(middle) = self.near.keys().nth(keep).copied() else { return };
        let mut later = self.near.split_off(&middle);
        while let Some((first, _)) = later.first_key_value() {
            let first = *first;
            let mut bytes = 0;
            let taken = later.values().take(window.page_entries).take_while(|entry| {
                let fits = bytes < window.page_bytes;
                bytes += body_bytes(entry);
                fits
            });
            let taken = taken.count();
            let rest = later.keys().nth(taken).copied();
            let Some(page) = pages.write(later.values().take(taken)) else {
                self.near.append(&mut later);
                self.retry_len = self.near.len() + window.page_entries;
                break;
            };
            self.far.insert(first, page);
            later = match rest {
                Some(rest) => later.split_off(&rest),
                None => BTreeMap::new(),
            };
        }
        self.near_bytes = self.near.values().map(body_bytes).sum();
    }
}

/// So many that are due first stay in memory, however little there is.
const NEAR_MIN: usize = 16;

fn body_bytes(entry: &Entry) -> u64 {
    entry.message.content.body().len() as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::Schedule;
    use crate::message::{Content, Entry, Message};
    use crate::store::pages::{Pages, Window};

    const WINDOW: Window = Window { entries: 8, bytes: 40, page_entries: 3, page_bytes: 12 };

    fn entry(id: u64, due_ms: u64, body_bytes: usize) -> Entry {
        let content = Content::new(vec![0; 2 + body_bytes], 2);
        let message = Message {
            id,
            exchange: "x".into(),
            routing_key: "k".into(),
            content,
            expires_ms: due_ms,
            published_ms: 0,
            stored: None,
            deduplicated: false,
        };
        Entry {
            message: Rc::new(message),
            place: 0,
            position: 0,
            redelivered: false,
            priority: 0,
            delivery_count: 0,
            expires_ms: due_ms,
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { after_ms: u64, body_bytes: usize },
        Pass { ms: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..50u64, 0..20usize)
                .prop_map(|(after_ms, body_bytes)| Step::Push { after_ms, body_bytes }),
            1 => (0..30u64).prop_map(|ms| Step::Pass { ms }),
        ]
    }

    proptest! {
        #[test]
        fn all_come_out_in_order_and_memory_stays_a_window(steps in prop::collection::vec(step(), 0..300)) {
            let folder = tempfile::tempdir().unwrap();
            let mut schedule = Schedule::default();
            schedule.page_to(Some(Rc::new(Pages::new(folder.path(), WINDOW))));
            let mut model = BTreeSet::new();
            let mut now_ms = 0;
            for (id, step) in steps.into_iter().chain([Step::Pass { ms: 1000 }]).enumerate() {
                match step {
                    Step::Push { after_ms, body_bytes } => {
                        model.insert((now_ms + after_ms, id as u64));
                        schedule.push(entry(id as u64, now_ms + after_ms, body_bytes));
                    }
                    Step::Pass { ms } => {
                        now_ms += ms;
                        while let Some(entry) = schedule.pop_due(now_ms) {
                            let found = (entry.expires_ms, entry.message.id);
                            prop_assert!(found.0 <= now_ms);
                            prop_assert_eq!(Some(found), model.pop_first());
                        }
                    }
                }
                prop_assert_eq!(schedule.len(), model.len());
                prop_assert_eq!(schedule.next_ms(), model.first().map(|(due_ms, _)| *due_ms));
                prop_assert!(schedule.near.len() <= WINDOW.entries + WINDOW.page_entries);
            }
            prop_assert!(model.is_empty() && schedule.far.is_empty());
            prop_assert_eq!((schedule.near_bytes, schedule.bytes), (0, 0));
        }
    }

    #[test]
    fn many_that_are_due_together_come_out_as_they_came() {
        let folder = tempfile::tempdir().unwrap();
        let mut schedule = Schedule::default();
        schedule.page_to(Some(Rc::new(Pages::new(folder.path(), WINDOW))));
        (0..1000).for_each(|id| schedule.push(entry(id, 5, 1)));
        assert!(100 < schedule.far.len());
        let order: Vec<u64> =
            std::iter::from_fn(|| schedule.pop_due(5)).map(|entry| entry.message.id).collect();
        assert!(order.into_iter().eq(0..1000));
    }
}
