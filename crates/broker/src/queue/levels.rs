//! The messages of a queue that are ready: a list for each priority.

use std::rc::Rc;

use super::ready::Ready;
use crate::message::Entry;
use crate::store::pages::{Logged, Pages};

#[derive(Default)]
pub(crate) struct Levels {
    /// Priority 0, which is all there is in most queues.
    lowest: Ready,
    /// Priority 1 and above, as far as they were needed.
    higher: Vec<Ready>,
    /// Where what is too much for memory goes.
    pages: Option<Rc<Pages>>,
}

impl Levels {
    pub(crate) fn new(pages: Option<Rc<Pages>>) -> Self {
        Self { lowest: Ready::new(pages.clone()), higher: Vec::new(), pages }
    }

    /// Where what is too much for memory goes.
    pub(crate) fn pages(&self) -> Option<Rc<Pages>> {
        self.pages.clone()
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.level(entry.priority).push_back(entry);
    }

    /// The first of the highest priority. When there are too many it is the one to drop, too, as in RabbitMQ.
    pub(crate) fn pop(&mut self) -> Option<Entry> {
        let higher = self.higher.iter_mut().rev().find_map(Ready::pop_front);
        higher.or_else(|| self.lowest.pop_front())
    }

    /// A head whose time was over at `limit_ms`.
    pub(crate) fn pop_expired(&mut self, limit_ms: u64) -> Option<Entry> {
        let mut levels = std::iter::once(&mut self.lowest).chain(&mut self.higher);
        let over =
            |level: &mut Ready| level.front().is_some_and(|first| first.expires_ms <= limit_ms);
        levels.find_map(|level| if over(level) { level.pop_front() } else { None })
    }

    /// When the first of the heads expires; `u64::MAX`: none does.
    pub(crate) fn next_expiry_ms(&mut self) -> u64 {
        let levels = std::iter::once(&mut self.lowest).chain(&mut self.higher);
        let times = levels.filter_map(|level| Some(level.front()?.expires_ms));
        times.min().unwrap_or(u64::MAX)
    }

    /// Puts an entry back where it was. Several are best put back last first.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        self.level(entry.priority).put_back(entry);
    }

    /// Appends an entry that is on disk, while nothing but such has been put here.
    pub(crate) fn push_recovered(&mut self, entry: Logged) {
        self.level(entry.priority).push_recovered(entry);
    }

    /// All that was on disk is there.
    pub(crate) fn recovered(&mut self) {
        std::iter::once(&mut self.lowest).chain(&mut self.higher).for_each(Ready::page_recovered);
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Entry> + use<> {
        let fresh = Self::new(self.pages.clone());
        let levels = std::mem::replace(self, fresh);
        std::iter::once(levels.lowest).chain(levels.higher).flat_map(|mut level| level.drain())
    }

    /// Takes everything out; the store's numbers of those that have one.
    pub(crate) fn clear(&mut self) -> Vec<u64> {
        let fresh = Self::new(self.pages.clone());
        let levels = std::mem::replace(self, fresh);
        std::iter::once(levels.lowest)
            .chain(levels.higher)
            .flat_map(|mut level| level.clear())
            .collect()
    }

    /// Lets all but the first few leave memory.
    pub(crate) fn page_out(&mut self) {
        std::iter::once(&mut self.lowest).chain(&mut self.higher).for_each(Ready::page_out);
    }

    /// Gives memory back that a burst has needed.
    pub(crate) fn shrink(&mut self) {
        std::iter::once(&mut self.lowest).chain(&mut self.higher).for_each(Ready::shrink);
    }

    /// About what is in memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let higher = self.higher.iter().map(Ready::resident_bytes).sum::<u64>();
        self.lowest.resident_bytes() + higher
    }

    pub(crate) fn len(&self) -> usize {
        self.lowest.len() + self.higher.iter().map(Ready::len).sum::<usize>()
    }

    /// Of all bodies.
    pub(crate) fn bytes(&self) -> u64 {
        self.lowest.bytes() + self.higher.iter().map(Ready::bytes).sum::<u64>()
    }

    fn level(&mut self, priority: u8) -> &mut Ready {
        let Some(above) = usize::from(priority).checked_sub(1) else { return &mut self.lowest };
        if self.higher.len() <= above {
            let pages = &self.pages;
            self.higher.resize_with(above + 1, || Ready::new(pages.clone()));
        }
        &mut self.higher[above]
    }
}
