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

use std::collections::VecDeque;

use crate::message::Entry;

/// Entries in the order of their positions, no position twice.
#[derive(Default)]
pub(crate) struct Ready {
    entries: VecDeque<Entry>,
    /// Of the bodies of all entries.
    bytes: u64,
}

impl Ready {
    /// Appends an entry, whose position is above those of all that are or were here.
    #[inline]
    pub(crate) fn push_back(&mut self, entry: Entry) {
        debug_assert!(self.entries.back().is_none_or(|last| last.position < entry.position));
        self.bytes += body_bytes(&entry);
        self.entries.push_back(entry);
    }

    /// The oldest entry.
    #[inline]
    pub(crate) fn front(&mut self) -> Option<&Entry> {
        self.entries.front()
    }

    /// Takes the oldest entry out.
    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= body_bytes(&entry);
        Some(entry)
    }

    /// Takes the youngest entry out.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the limits of queues"))]
    pub(crate) fn pop_back(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_back()?;
        self.bytes -= body_bytes(&entry);
        Some(entry)
    }

    /// Puts an entry that was taken out back where it was. Several are best put back last first.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        self.bytes += body_bytes(&entry);
        match self.entries.front() {
            Some(first) if first.position < entry.position => {
                let at = self.entries.partition_point(|other| other.position < entry.position);
                self.entries.insert(at, entry);
            }
            _ => self.entries.push_front(entry),
        }
    }

    /// Takes everything out, oldest first. What the iterator has not given out when it is dropped is gone too.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Entry> + use<> {
        self.bytes = 0;
        std::mem::take(&mut self.entries).into_iter()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many bytes their bodies have.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn body_bytes(entry: &Entry) -> u64 {
    entry.message.content.body().len() as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::Ready;
    use crate::message::{Content, Entry, Message};

    fn entry(position: u64, body_bytes: usize) -> Entry {
        let content = Content::new(vec![0; 2 + body_bytes], 2);
        let message = Rc::new(Message {
            id: position + 1,
            exchange: "".into(),
            routing_key: "".into(),
            content,
            expires_ms: u64::MAX,
            stored: false,
        });
        Entry {
            message,
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
        Drain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..40usize).prop_map(Step::Push),
            6 => Just(Step::PopFront),
            2 => Just(Step::PopBack),
            4 => any::<usize>().prop_map(Step::PutBack),
            1 => Just(Step::Drain),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_by_position_holds(steps in prop::collection::vec(step(), 0..300)) {
            let mut ready = Ready::default();
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
                    Step::Drain => {
                        let drained: Vec<u64> = ready.drain().map(|entry| entry.position).collect();
                        prop_assert_eq!(drained, model.keys().copied().collect::<Vec<_>>());
                        model.clear();
                    }
                }
                prop_assert_eq!(ready.len(), model.len());
                prop_assert_eq!(ready.is_empty(), model.is_empty());
                prop_assert_eq!(ready.bytes(), model.values().map(|size| *size as u64).sum::<u64>());
                let front = ready.front().map(|entry| entry.position);
                prop_assert_eq!(front, model.first_key_value().map(|(position, _)| *position));
            }
        }
    }
}
