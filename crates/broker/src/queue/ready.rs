//! The messages of a queue that wait for a consumer, in the order of their positions.
//!
//! Whoever uses the container sees both ends only, so that what lies between them need not be in memory: there is
//! no access by index and no walk over everything. [`front`](Ready::front) takes `&mut self` for the same reason:
//! it may have to fetch what it shows. A queue with priorities has one of these for each level, and gives out
//! positions for all of them together.
//!
//! ```text
//!   push_back --> | ... positions rise ... | --> front, pop_front      pop_back: the youngest
//!                        ^ put_back: to the old place, wherever that is
//! ```
//! The count and the bytes are kept with each change and cost nothing to ask for.

//! With more than a window of entries the middle is on disk, in pages that cost a few dozen bytes each:
//!
//! ```text
//!   | head, in memory | page | page | ... | page | tail, in memory |        strays: put back among the pages
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use crate::memory::{MESSAGE_BYTES, shrink_list};
use crate::message::Entry;
use crate::store::pages::{Logged, Page, Pages};

/// What stays in memory at the head of a queue, however little there is: so many entries and bytes.
const HEAD_ENTRIES_MIN: usize = 64;
const HEAD_BYTES_MIN: u64 = 64 * 1024;

/// Entries in the order of their positions, no position twice.
#[derive(Default)]
pub(crate) struct Ready {
    head: VecDeque<Entry>,
    /// What stands behind the head, once that was too long.
    rest: Option<Box<Rest>>,
    /// Of the bodies of all entries.
    bytes: u64,
    len: usize,
    /// `None`: all stays in memory.
    pages: Option<Rc<Pages>>,
}

#[derive(Default)]
struct Rest {
    /// Behind the head and before the tail; their ranges do not overlap.
    pages: VecDeque<Page>,
    /// Behind all pages.
    tail: VecDeque<Entry>,
    tail_bytes: u64,
    /// Put back between the first of the first page and the last of the last.
    strays: BTreeMap<u64, Entry>,
    /// The disk has refused: the tail is not tried again before it is so long.
    retry_len: usize,
    /// Entries of the pages, and bytes of their bodies.
    paged: (usize, u64),
    /// Behind the pages and before the tail: on disk already, and not yet in a page.
    recovered: Vec<Logged>,
}

impl Ready {
    pub(crate) fn new(pages: Option<Rc<Pages>>) -> Self {
        Self { pages, ..Self::default() }
    }

    /// Appends an entry, whose position is above those of all that are or were here.
    #[inline]
    pub(crate) fn push_back(&mut self, entry: Entry) {
        self.bytes += body_bytes(&entry);
        self.len += 1;
        if self.rest.is_some() {
            return self.push_tail(entry);
        }
        debug_assert!(self.head.back().is_none_or(|last| last.position < entry.position));
        self.head.push_back(entry);
        if let Some(pages) = &self.pages
            && (pages.window.entries <= self.len || pages.window.bytes <= self.bytes)
        {
            self.rest = Some(Box::default());
        }
    }

    fn push_tail(&mut self, entry: Entry) {
        let (Some(rest), Some(pages)) = (&mut self.rest, &self.pages) else { return };
        rest.tail_bytes += body_bytes(&entry);
        rest.tail.push_back(entry);
        let full = pages.window.page_entries <= rest.tail.len()
            || pages.window.page_bytes <= rest.tail_bytes;
        if full && rest.retry_len <= rest.tail.len() {
            // What is soon in the log is not written a second time for being early.
            let is_early = rest.tail.len() < pages.window.entries
                && rest.tail_bytes < pages.window.bytes
                && rest
                    .tail
                    .back()
                    .is_some_and(|last| last.message.stored.is_some() && !pages.is_logged(last));
            if is_early {
                rest.retry_len = rest.tail.len() + pages.window.page_entries / 8;
                return;
            }
            match pages.write(rest.tail.iter()) {
                Some(page) => {
                    rest.push_page(page);
                    rest.tail.clear();
                    rest.tail_bytes = 0;
                    rest.retry_len = 0;
                }
                None => rest.retry_len = rest.tail.len() + pages.window.page_entries,
            }
        }
    }

    /// Appends an entry that is on disk and not in memory, while nothing but such has been put here.
    pub(crate) fn push_recovered(&mut self, entry: Logged) {
        self.bytes += u64::from(entry.body_bytes);
        self.len += 1;
        let rest = self.rest.get_or_insert_default();
        rest.recovered.push(entry);
        if self
            .pages
            .as_ref()
            .is_some_and(|pages| pages.window.page_entries <= rest.recovered.len())
        {
            self.page_recovered();
        }
    }

    /// Puts the last of those into a page.
    pub(crate) fn page_recovered(&mut self) {
        let Some(rest) = &mut self.rest else { return };
        let recovered = std::mem::take(&mut rest.recovered);
        if recovered.is_empty() {
            return;
        }
        match self.pages.as_ref().and_then(|pages| pages.write_logged(&recovered)) {
            Some(page) => rest.push_page(page),
            // It is tried again with the next.
            None => rest.recovered = recovered,
        }
    }

    /// The oldest entry.
    #[inline]
    pub(crate) fn front(&mut self) -> Option<&Entry> {
        if self.head.is_empty() {
            self.refill();
        }
        self.head.front()
    }

    /// Takes the oldest entry out.
    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<Entry> {
        if self.head.is_empty() {
            self.refill();
        }
        let entry = self.head.pop_front()?;
        self.took(&entry);
        Some(entry)
    }

    /// Takes the youngest entry out.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the limits of queues"))]
    pub(crate) fn pop_back(&mut self) -> Option<Entry> {
        while let Some(rest) = &mut self.rest {
            if let Some(entry) = rest.tail.pop_back() {
                rest.tail_bytes -= body_bytes(&entry);
                self.took(&entry);
                return Some(entry);
            }
            let Some(page) = rest.pages.pop_back() else {
                self.rest = None;
                break;
            };
            rest.forget_page(&page);
            let strays = rest.strays.split_off(&page.first);
            let entries = self.read(&page);
            if let Some(rest) = &mut self.rest {
                rest.tail = merge(entries, strays);
                rest.tail_bytes = rest.tail.iter().map(body_bytes).sum();
            }
        }
        let entry = self.head.pop_back()?;
        self.took(&entry);
        Some(entry)
    }

    fn took(&mut self, entry: &Entry) {
        self.bytes -= body_bytes(entry);
        self.len -= 1;
    }

    /// The head is empty: makes one of what comes next, if anything does.
    #[inline(never)]
    fn refill(&mut self) {
        while self.head.is_empty()
            && let Some(rest) = &mut self.rest
        {
            let Some(page) = rest.pages.pop_front() else {
                self.head = std::mem::take(&mut rest.tail);
                self.rest = None;
                return;
            };
            rest.forget_page(&page);
            let strays = match rest.behind_first() {
                Some(next) => {
                    let later = rest.strays.split_off(&next);
                    std::mem::replace(&mut rest.strays, later)
                }
                None => std::mem::take(&mut rest.strays),
            };
            self.head = merge(self.read(&page), strays);
        }
    }

    fn read(&mut self, page: &Page) -> VecDeque<Entry> {
        let entries = page.read_or_tell();
        if entries.len() < page.count {
            // Some are lost.
            self.len -= page.count - entries.len();
            self.bytes -= page.bytes - entries.iter().map(body_bytes).sum::<u64>();
        }
        entries
    }

    /// Puts an entry that was taken out back where it was. Several are best put back last first.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        self.bytes += body_bytes(&entry);
        self.len += 1;
        let Some(rest) = &mut self.rest else {
            insert(&mut self.head, entry);
            return self.shorten_head();
        };
        match rest.behind_first() {
            Some(next) if next < entry.position => {
                if rest.pages.back().is_none_or(|page| page.last < entry.position) {
                    rest.tail_bytes += body_bytes(&entry);
                    insert(&mut rest.tail, entry);
                } else {
                    rest.strays.insert(entry.position, entry);
                }
            }
            _ => {
                insert(&mut self.head, entry);
                self.shorten_head();
            }
        }
    }

    /// A client may put back far more than a window.
    fn shorten_head(&mut self) {
        let Some(pages) = &self.pages else { return };
        let window = pages.window;
        let behind = self.rest.as_ref().map_or(0, |rest| rest.paged.1 + rest.tail_bytes);
        let is_short = self.head.len() < window.entries + 2 * window.page_entries;
        if is_short && self.bytes - behind < window.bytes + 2 * window.page_bytes {
            return;
        }
        let count = page_len(self.head.iter().skip(1).rev(), pages);
        if count == 0 {
            return;
        }
        let keep = self.head.len() - count;
        if let Some(page) = pages.write(self.head.range(keep..)) {
            let behind = self.head.split_off(keep);
            drop(behind);
            self.rest.get_or_insert_default().push_page_front(page);
        }
    }

    /// Lets all but the first few leave memory, whatever the window says. What is soon in the log waits for that.
    pub(crate) fn page_out(&mut self) {
        let Some(pages) = self.pages.clone() else { return };
        let mut bytes = 0;
        let stays = |entry: &&Entry| {
            bytes += body_bytes(entry);
            bytes <= HEAD_BYTES_MIN
        };
        let keep = self.head.iter().take(HEAD_ENTRIES_MIN).take_while(stays).count();
        if self.rest.is_none() && keep < self.head.len() {
            let tail = self.head.split_off(keep);
            let tail_bytes = tail.iter().map(body_bytes).sum();
            self.rest = Some(Box::new(Rest { tail, tail_bytes, ..Rest::default() }));
        }
        while keep < self.head.len() {
            let count = page_len(self.head.range(keep..).rev(), &pages);
            let from = self.head.len() - count;
            let Some(page) = pages.write(self.head.range(from..)) else { return };
            self.head.truncate(from);
            self.rest.get_or_insert_default().push_page_front(page);
        }
        self.head.shrink_to(HEAD_ENTRIES_MIN);
        let Some(rest) = &mut self.rest else { return };
        loop {
            let count = page_len(rest.tail.iter().take_while(|entry| pages.takes(entry)), &pages);
            if count == 0 {
                break;
            }
            let Some(page) = pages.write(rest.tail.range(..count)) else { return };
            rest.tail_bytes -= page.bytes;
            rest.tail.drain(..count);
            rest.push_page(page);
        }
        rest.tail.shrink_to(pages.window.page_entries);
    }

    /// Gives memory back that a burst has needed.
    pub(crate) fn shrink(&mut self) {
        shrink_list(&mut self.head);
        if let Some(rest) = &mut self.rest {
            shrink_list(&mut rest.tail);
            shrink_list(&mut rest.pages);
        }
    }

    /// About what is in memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let (entries, bytes) = self.rest.as_ref().map_or((0, 0), |rest| rest.paged);
        (self.bytes - bytes) + ((self.len - entries) * MESSAGE_BYTES) as u64
    }

    /// Takes everything out, oldest first. What the iterator has not given out when it is dropped is gone too.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Entry> + use<> {
        let fresh = Self::new(self.pages.clone());
        let mut all = std::mem::replace(self, fresh);
        std::iter::from_fn(move || all.pop_front())
    }

    /// Takes everything out; the store's numbers of those that have one.
    pub(crate) fn clear(&mut self) -> Vec<u64> {
        let all = std::mem::replace(self, Self::new(self.pages.clone()));
        let mut places: Vec<u64> = all.head.iter().map(|entry| entry.place).collect();
        if let Some(rest) = all.rest {
            for page in &rest.pages {
                match page.places() {
                    Ok(paged) => places.extend(paged),
                    Err(error) => {
                        let count = page.count;
                        tracing::error!(
                            %error,
                            "{count} messages that were paged out cannot be read; those that are durable come back with a restart"
                        );
                    }
                }
            }
            places.extend(rest.recovered.iter().map(|entry| entry.place));
            places.extend(rest.tail.iter().chain(rest.strays.values()).map(|entry| entry.place));
        }
        places.retain(|place| *place != 0);
        places
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many bytes their bodies have.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Entries that are in memory.
    #[cfg(test)]
    pub(crate) fn resident(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.tail.len() + rest.strays.len());
        self.head.len() + rest
    }
}

impl Rest {
    fn push_page(&mut self, page: Page) {
        self.paged = (self.paged.0 + page.count, self.paged.1 + page.bytes);
        self.pages.push_back(page);
    }

    fn push_page_front(&mut self, page: Page) {
        self.paged = (self.paged.0 + page.count, self.paged.1 + page.bytes);
        self.pages.push_front(page);
    }

    /// It was taken out.
    fn forget_page(&mut self, page: &Page) {
        self.paged = (self.paged.0 - page.count, self.paged.1 - page.bytes);
    }

    /// The first position behind the head; strays stand behind the first page.
    fn behind_first(&self) -> Option<u64> {
        let page = self.pages.front().map(|page| page.first);
        page.or_else(|| self.tail.front().map(|entry| entry.position))
    }
}

/// How many of the first make a page.
fn page_len<'a>(entries: impl Iterator<Item = &'a Entry>, pages: &Pages) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        let fits = bytes < pages.window.page_bytes;
        bytes += body_bytes(entry);
        fits
    };
    entries.take(pages.window.page_entries).take_while(fits).count()
}

fn insert(entries: &mut VecDeque<Entry>, entry: Entry) {
    match entries.front() {
        Some(first) if first.position < entry.position => {
            let at = entries.partition_point(|other| other.position < entry.position);
            entries.insert(at, entry);
        }
        _ => entries.push_front(entry),
    }
}

fn merge(mut entries: VecDeque<Entry>, strays: BTreeMap<u64, Entry>) -> VecDeque<Entry> {
    if !strays.is_empty() {
        entries.extend(strays.into_values());
        entries.make_contiguous().sort_unstable_by_key(|entry| entry.position);
    }
    entries
}

fn body_bytes(entry: &Entry) -> u64 {
    entry.message.content.body().len() as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::{Pages, Ready};
    use crate::message::{Content, Entry, Message};
    use crate::store::pages::Window;

    fn entry(position: u64, body_bytes: usize) -> Entry {
        let content = Content::new(vec![0; 2 + body_bytes], 2);
        let message = Rc::new(Message {
            id: position + 1,
            exchange: "".into(),
            routing_key: "".into(),
            content,
            expires_ms: u64::MAX,
            published_ms: 0,
            stored: None,
            deduplicated: false,
        });
        Entry {
            message,
            place: 0,
            position,
            redelivered: false,
            priority: 0,
            delivery_count: 0,
            expires_ms: u64::MAX,
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        PopFront,
        PopBack,
        PutBack(usize),
        PageOut,
        Drain,
    }

    fn strays(ready: &Ready) -> usize {
        ready.rest.as_ref().map_or(0, |rest| rest.strays.len())
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..40usize).prop_map(Step::Push),
            6 => Just(Step::PopFront),
            2 => Just(Step::PopBack),
            4 => any::<usize>().prop_map(Step::PutBack),
            1 => Just(Step::PageOut),
            1 => Just(Step::Drain),
        ]
    }

    #[test]
    fn a_million_entries_leave_a_window_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let window = Window::DEFAULT;
        let mut ready = Ready::new(Some(Rc::new(Pages::new(folder.path(), window))));
        let last = 1_000_000;
        for position in 0..last {
            ready.push_back(entry(position, 16));
            assert!(ready.resident() <= window.entries + window.page_entries);
        }
        assert_eq!((ready.len(), ready.bytes()), (last as usize, 16 * last));
        // The pages themselves.
        assert!(ready.rest.as_ref().unwrap().pages.len() <= last as usize / window.page_entries);
        // Nothing of it has a name that a restart would find.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        for position in 0..last {
            assert_eq!(ready.pop_front().map(|entry| entry.position), Some(position));
        }
        assert!(ready.is_empty() && ready.rest.is_none());
    }

    #[test]
    fn what_is_put_back_in_masses_leaves_memory_again() {
        let folder = tempfile::tempdir().unwrap();
        let window = Window { entries: 8, bytes: 1 << 20, page_entries: 4, page_bytes: 1 << 20 };
        let mut ready = Ready::new(Some(Rc::new(Pages::new(folder.path(), window))));
        for position in 0..100 {
            ready.push_back(entry(position, 1));
        }
        let taken: Vec<Entry> = (0..100).map(|_| ready.pop_front().unwrap()).collect();
        for entry in taken.into_iter().rev() {
            ready.put_back(entry);
            assert!(ready.resident() <= 16);
        }
        assert!(ready.drain().map(|entry| entry.position).eq(0..100));
    }

    #[test]
    fn a_folder_that_refuses_leaves_everything_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let window = Window { entries: 8, bytes: 1 << 20, page_entries: 4, page_bytes: 1 << 20 };
        let nowhere = folder.path().join("gone");
        let mut ready = Ready::new(Some(Rc::new(Pages::new(&nowhere, window))));
        for position in 0..100 {
            // Small pages would stay in memory anyway.
            ready.push_back(entry(position, 200));
        }
        assert_eq!(ready.resident(), 100);
        assert!(ready.drain().map(|entry| entry.position).eq(0..100));
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_by_position_holds(
            paged in any::<bool>(),
            steps in prop::collection::vec(step(), 0..300),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let window = Window { entries: 6, bytes: 200, page_entries: 3, page_bytes: 80 };
            let pages = paged.then(|| Rc::new(Pages::new(folder.path(), window)));
            let mut ready = Ready::new(pages);
            let mut model = BTreeMap::new();
            let mut taken = Vec::new();
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Push(size) => {
                        ready.push_back(entry(next, size));
                        model.insert(next, size);
                        next += 1;
                    }
                    Step::PopFront => {
                        let popped = ready.pop_front();
                        let want = model.pop_first().map(|(position, _)| position);
                        prop_assert_eq!(popped.as_ref().map(|entry| entry.position), want);
                        taken.extend(popped);
                    }
                    Step::PopBack => {
                        let popped = ready.pop_back();
                        let want = model.pop_last().map(|(position, _)| position);
                        prop_assert_eq!(popped.as_ref().map(|entry| entry.position), want);
                    }
                    Step::PutBack(n) if !taken.is_empty() => {
                        let entry: Entry = taken.swap_remove(n % taken.len());
                        model.insert(entry.position, entry.message.content.body().len());
                        ready.put_back(entry);
                    }
                    Step::PutBack(_) => {}
                    Step::PageOut => {
                        ready.page_out();
                        prop_assert!(!paged || ready.resident() <= super::HEAD_ENTRIES_MIN + strays(&ready));
                    }
                    Step::Drain => {
                        let drained: Vec<u64> = ready.drain().map(|entry| entry.position).collect();
                        prop_assert_eq!(drained, model.keys().copied().collect::<Vec<_>>());
                        model.clear();
                    }
                }
                prop_assert_eq!(ready.len(), model.len());
                prop_assert_eq!(ready.is_empty(), model.is_empty());
                prop_assert_eq!(ready.bytes(), model.values().map(|size| *size as u64).sum::<u64>());
                if paged && taken.is_empty() {
                    prop_assert!(ready.resident() <= 2 * (6 + 2 * 3));
                }
                if let Some(rest) = &ready.rest {
                    let count = rest.pages.iter().map(|page| page.count).sum::<usize>();
                    let bytes = rest.pages.iter().map(|page| page.bytes).sum::<u64>();
                    prop_assert_eq!(rest.paged, (count, bytes));
                }
                let front = ready.front().map(|entry| entry.position);
                prop_assert_eq!(front, model.first_key_value().map(|(position, _)| *position));
            }
        }
    }
}
