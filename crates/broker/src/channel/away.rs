//! Deliveries that wait for their acknowledgement on disk: one that takes all there is and settles nothing must not fill
//! the memory.
//!
//! ```text
//!   unacked: | away, away, ... | here, here, ... | <-- deliveries        away: its page, its place, its position there
//! ```
//! An acknowledgement needs a number only. What goes back to its queue is read again, a page at a time.

use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::{Channel, Unacked};
use crate::memory::MESSAGE_BYTES;
use crate::message::Entry;
use crate::queue::QueueKey;
use crate::store::pages::{Page, Pages};

/// Deliveries that a channel keeps in memory.
pub(super) const HERE_MAX: usize = 16 * 1024;
/// How many of them are looked at to tell how large all are.
const SAMPLES: usize = 32;

/// The message of a delivery.
pub(crate) enum Held {
    Here(Entry),
    Away(Away),
}

/// Where a message is that has left memory.
pub(crate) struct Away {
    page: Rc<Page>,
    position: u64,
    /// The store's number for the message in its queue; 0: the store does not know of it.
    pub(crate) place: u64,
}

impl Held {
    pub(crate) fn is_away(&self) -> bool {
        matches!(self, Self::Away(_))
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Here(entry) => (entry.message.content.bytes().len() + MESSAGE_BYTES) as u64,
            Self::Away(_) => 0,
        }
    }
}

/// Reads back what is away: the page that was read last is kept, for the next is mostly on it too.
#[derive(Default)]
pub(crate) struct Fetcher {
    page: Option<(Rc<Page>, FxHashMap<u64, Entry>)>,
}

impl Fetcher {
    /// The message of a delivery; `None`, and a word in the log, when it cannot be read.
    pub(crate) fn fetch(&mut self, held: Held) -> Option<Entry> {
        let away = match held {
            Held::Here(entry) => return Some(entry),
            Held::Away(away) => away,
        };
        if self.page.as_ref().is_none_or(|(page, _)| !Rc::ptr_eq(page, &away.page)) {
            let entries = away.page.read_or_tell();
            let entries = entries.into_iter().map(|entry| (entry.position, entry)).collect();
            self.page = Some((away.page.clone(), entries));
        }
        let (_, entries) = self.page.as_mut()?;
        entries.remove(&away.position)
    }
}

impl Channel {
    /// About how many bytes of deliveries are in memory.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let here = self.unacked.len() - self.away;
        if here == 0 {
            return 0;
        }
        // Those that are away are in front.
        let step = here.div_ceil(SAMPLES);
        let samples = self.unacked.iter().rev().take(here).step_by(step);
        let (mut count, mut bytes) = (0, 0);
        for (_, unacked) in samples {
            count += 1;
            bytes += unacked.as_ref().map_or(0, |unacked| unacked.held.bytes());
        }
        bytes / count * here as u64
    }

    /// Writes deliveries to disk, the oldest first, until `keep` of them are left in memory. Those of queues that keep their
    /// messages anyway stay, and those that are on their way to the log.
    pub(crate) fn page_out(
        &mut self,
        pages: &Pages,
        keep: usize,
        keeps_all: impl Fn(QueueKey) -> bool,
    ) {
        let limit = self.unacked.len().saturating_sub(keep);
        let mut from = 0;
        while let Some(run) = self.next_run(pages, &mut from, limit, &keeps_all) {
            let entries = run.iter().filter_map(|at| match &self.unacked[*at].1 {
                Some(Unacked { held: Held::Here(entry), .. }) => Some(entry),
                _ => None,
            });
            let Some(page) = pages.write(entries) else { break };
            let page = Rc::new(page);
            for at in run {
                let Some((_, Some(Unacked { held, .. }))) = self.unacked.get_mut(at) else {
                    continue;
                };
                let Held::Here(entry) = held else { continue };
                let (position, place) = (entry.position, entry.place);
                *held = Held::Away(Away { page: page.clone(), position, place });
                self.away += 1;
            }
        }
        let here = self.unacked.len() - self.away;
        self.here_max = HERE_MAX.max(here + pages.window.page_entries);
    }

    /// Deliveries of one queue that fill a page, from one of the number `from` on; where to go on is put there.
    fn next_run(
        &self,
        pages: &Pages,
        from: &mut usize,
        limit: usize,
        keeps_all: impl Fn(QueueKey) -> bool,
    ) -> Option<Vec<usize>> {
        let (mut run, mut bytes, mut queue) = (Vec::new(), 0, None);
        let rest = self.unacked.range((*from).min(limit)..limit);
        for (at, (_, unacked)) in (*from..).zip(rest) {
            let Some(unacked) = unacked else { continue };
            let Held::Here(entry) = &unacked.held else { continue };
            if !pages.takes(entry) || entry.message.deduplicated || keeps_all(unacked.queue) {
                continue;
            }
            let full = pages.window.page_entries <= run.len() || pages.window.page_bytes <= bytes;
            if full || *queue.get_or_insert(unacked.queue) != unacked.queue {
                *from = at;
                return Some(run);
            }
            run.push(at);
            bytes += entry.message.content.body().len() as u64;
        }
        *from = limit;
        (!run.is_empty()).then_some(run)
    }
}
