//! A channel's books: what it holds unacknowledged, what it has published.

mod away;

use std::collections::VecDeque;
use std::rc::Rc;

use compact_str::CompactString;
use rustc_hash::FxHashMap;

use crate::connection::ConnectionKey;
use crate::engine::access::PublishCheck;
use crate::engine::replies::ReplyConsumer;
use crate::exchange::ExchangeKey;
use crate::memory::shrink_list;
use crate::message::Message;
use crate::queue::{ConsumerKey, QueueKey};
use crate::table::Key;
use crate::vhost::VhostKey;
pub(crate) use away::{Fetcher, Held};

/// Places of settled deliveries that are kept until it pays to close the gaps.
const GAPS_MAX: usize = 64;

pub(crate) type ChannelKey = Key<Channel>;

/// A delivery that waits for its acknowledgement.
pub(crate) struct Unacked {
    pub(crate) queue: QueueKey,
    /// `None` for `basic.get`.
    pub(crate) consumer: Option<ConsumerKey>,
    pub(crate) held: Held,
    /// By when it must be settled, in milliseconds since 1970; `u64::MAX`: at any time.
    pub(crate) due_ms: u64,
}

/// A publish whose content is complete.
#[derive(Clone)]
pub(crate) struct Publish {
    pub(crate) vhost: VhostKey,
    pub(crate) exchange: Option<ExchangeKey>,
    /// Its key and its content. The rest is found when it enters queues, in place: nobody else has it then, as a rule.
    pub(crate) message: Rc<Message>,
    /// Those of the headers `CC` and `BCC`.
    pub(crate) more_keys: Vec<CompactString>,
    pub(crate) mandatory: bool,
    pub(crate) immediate: bool,
}

/// What is done with deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ack,
    /// It goes back untried.
    Requeue,
    /// It goes back because it could not be done with.
    Fail,
    Discard,
}

/// What a transaction has gathered.
#[derive(Default)]
pub(crate) struct Tx {
    pub(crate) publishes: Vec<Publish>,
    pub(crate) verdicts: Vec<(u64, Unacked, Verdict)>,
    /// The commit whose `commit-ok` waits for the store.
    pub(crate) committing: Option<u64>,
}

/// Stands for the point of the store's log of a publish that a queue has refused.
pub(crate) const REFUSED: u64 = u64::MAX;

/// Publisher confirms that are owed, in order.
#[derive(Default)]
pub(crate) struct Confirms {
    /// The number of the last publish.
    last: u64,
    pub(crate) owed: VecDeque<Owed>,
}

/// Publishes in a row that wait for the same.
#[derive(Clone, Copy)]
pub(crate) struct Owed {
    /// The number of the last of them.
    pub(crate) last: u64,
    pub(crate) count: u64,
    /// The point of the store's log; 0: none.
    pub(crate) waits_for: u64,
}

impl Confirms {
    /// One more publish is to be confirmed.
    pub(crate) fn owe(&mut self, waits_for: u64) {
        self.last += 1;
        match self.owed.back_mut() {
            Some(owed) if owed.waits_for == waits_for => {
                owed.last = self.last;
                owed.count += 1;
            }
            _ => self.owed.push_back(Owed { last: self.last, count: 1, waits_for }),
        }
    }
}

pub(crate) enum Mode {
    Plain,
    Confirm(Confirms),
    Tx(Tx),
}

/// What a client has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The channel: it gets an answer.
    Channel,
    /// The connection, which has an answer of its own.
    Connection,
}

pub(crate) struct Channel {
    pub(crate) connection: ConnectionKey,
    pub(crate) vhost: VhostKey,
    pub(crate) number: u16,
    pub(crate) mode: Mode,
    /// On the engine's list of channels that are owed something.
    pub(crate) owed: bool,
    /// Its client has closed it, and it stays until nothing is owed.
    pub(crate) ending: Option<Ending>,
    /// Answers that wait for the store: the batch, and the encoded frame.
    pub(crate) answers: VecDeque<(u64, Vec<u8>)>,
    /// Prefetch of consumers yet to come (`basic.qos` with `global` unset).
    pub(crate) prefetch_new: u32,
    /// Prefetch of all consumers together (`global` set); 0: none.
    pub(crate) prefetch_all: u32,
    pub(crate) consumers: FxHashMap<CompactString, ConsumerKey>,
    /// It takes answers of its own.
    pub(crate) replies: Option<ReplyConsumer>,
    /// It has or had a consumer that must acknowledge in time.
    pub(crate) timed: bool,
    /// The client wants nothing delivered for a while.
    pub(crate) paused: bool,
    /// The queue that an empty name means.
    pub(crate) last_queue: CompactString,
    pub(crate) publish_check: Option<PublishCheck>,
    last_tag: u64,
    /// By rising tag. `None`: settled out of turn.
    unacked: VecDeque<(u64, Option<Unacked>)>,
    /// How many of them are `None`.
    gaps: usize,
    /// How many of them are on disk.
    away: usize,
    /// With more than so many in memory, it is time to write some to disk.
    here_max: usize,
    /// Those that came to a consumer, and are settled in no more than a transaction.
    pub(crate) held: u32,
}

/// How many of these deliveries take up room of a channel: those that came to a consumer.
pub(crate) fn count_held<'a>(unacked: impl Iterator<Item = &'a Unacked>) -> u32 {
    unacked.map(|unacked| u32::from(unacked.consumer.is_some())).sum()
}

impl Channel {
    pub(crate) fn new(connection: ConnectionKey, vhost: VhostKey, number: u16) -> Self {
        Self {
            connection,
            vhost,
            number,
            mode: Mode::Plain,
            owed: false,
            ending: None,
            answers: VecDeque::new(),
            prefetch_new: 0,
            prefetch_all: 0,
            consumers: FxHashMap::default(),
            replies: None,
            timed: false,
            paused: false,
            last_queue: CompactString::default(),
            publish_check: None,
            last_tag: 0,
            unacked: VecDeque::new(),
            gaps: 0,
            away: 0,
            here_max: away::HERE_MAX,
            held: 0,
        }
    }

    pub(crate) fn has_consumer(&self, tag: &str) -> bool {
        self.consumers.contains_key(tag)
            || self.replies.as_ref().is_some_and(|replies| replies.tag == tag)
    }

    pub(crate) fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    /// Keeps a delivery. True when there are so many that some should leave memory.
    #[must_use]
    pub(crate) fn hold(&mut self, tag: u64, unacked: Unacked) -> bool {
        self.held += u32::from(unacked.consumer.is_some());
        self.unacked.push_back((tag, Some(unacked)));
        self.here_max < self.unacked.len() - self.away
    }

    /// Takes deliveries back that a rolled back transaction had settled.
    pub(crate) fn hold_again(&mut self, tag: u64, unacked: Unacked) {
        self.held += u32::from(unacked.consumer.is_some());
        self.away += usize::from(unacked.held.is_away());
        let at = self.unacked.partition_point(|(other, _)| *other < tag);
        match self.unacked.get_mut(at) {
            Some((other, place)) if *other == tag => {
                *place = Some(unacked);
                self.gaps -= 1;
            }
            _ => self.unacked.insert(at, (tag, Some(unacked))),
        }
    }

    /// Takes one delivery out; `None` when the tag is unknown or settled.
    pub(crate) fn settle(&mut self, tag: u64) -> Option<Unacked> {
        let at = self.place(tag)?;
        let unacked = self.unacked[at].1.take()?;
        self.held -= u32::from(unacked.consumer.is_some());
        self.away -= usize::from(unacked.held.is_away());
        self.gaps += 1;
        while matches!(self.unacked.front(), Some((_, None))) {
            self.unacked.pop_front();
            self.gaps -= 1;
        }
        // One delivery that is never settled must not keep the places of all that come after it.
        if GAPS_MAX < self.gaps && self.unacked.len() / 2 < self.gaps {
            self.unacked.retain(|(_, unacked)| unacked.is_some());
            self.gaps = 0;
        }
        Some(unacked)
    }

    /// Takes out all up to `tag`, all of them for 0. `None` when `tag` was never given out, or is settled
    /// with all before it.
    pub(crate) fn settle_up_to(&mut self, tag: u64) -> Option<Vec<(u64, Unacked)>> {
        let count = self.places_up_to(tag)?;
        let settled: Vec<(u64, Unacked)> = self
            .unacked
            .drain(..count)
            .filter_map(|(tag, unacked)| Some((tag, unacked?)))
            .collect();
        self.gaps -= count - settled.len();
        self.held -= count_held(settled.iter().map(|(_, unacked)| unacked));
        if self.away != 0 {
            self.away -= settled.iter().filter(|(_, unacked)| unacked.held.is_away()).count();
        }
        Some(settled)
    }

    /// How many places, settled ones among them, there are up to `tag`, all of them for 0. `None` as for
    /// [`settle_up_to`](Self::settle_up_to).
    pub(crate) fn places_up_to(&self, tag: u64) -> Option<usize> {
        if tag == 0 {
            return Some(self.unacked.len());
        }
        let at = self.place(tag)?;
        self.unacked[at].1.is_some().then_some(at + 1)
    }

    /// Takes the first place off; the delivery, unless it was settled before.
    pub(crate) fn take_first(&mut self) -> Option<Unacked> {
        let (_, unacked) = self.unacked.pop_front()?;
        match &unacked {
            Some(unacked) => {
                self.held -= count_held(std::iter::once(unacked));
                self.away -= usize::from(unacked.held.is_away());
            }
            None => self.gaps -= 1,
        }
        unacked
    }

    /// Where a tag stands, if it does.
    fn place(&self, tag: u64) -> Option<usize> {
        let stands = |at: usize| self.unacked.get(at).is_some_and(|(other, _)| *other == tag);
        let (first, _) = self.unacked.front()?;
        // Nearly always no tag is missing.
        let near = tag.checked_sub(*first)? as usize;
        if stands(near) {
            return Some(near);
        }
        let at = self.unacked.partition_point(|(other, _)| *other < tag);
        stands(at).then_some(at)
    }

    /// Gives memory back that a burst has needed.
    pub(crate) fn shrink(&mut self) {
        shrink_list(&mut self.unacked);
        shrink_list(&mut self.answers);
        if let Mode::Confirm(confirms) = &mut self.mode {
            shrink_list(&mut confirms.owed);
        }
    }

    /// Deliveries that wait for their acknowledgement.
    pub(crate) fn unacked(&self) -> impl Iterator<Item = &Unacked> {
        self.unacked.iter().filter_map(|(_, unacked)| unacked.as_ref())
    }

    /// Places taken by deliveries, settled ones among them.
    #[cfg(test)]
    pub(crate) fn places(&self) -> usize {
        self.unacked.len()
    }

    /// Whether the channel's own prefetch leaves room for a delivery.
    pub(crate) fn has_room(&self) -> bool {
        self.prefetch_all == 0 || self.held < self.prefetch_all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::{Channel, Held, Unacked};
    use crate::message::{Content, Entry, Message};
    use crate::table::{Key, Table};

    #[derive(Clone, Debug)]
    enum Step {
        Hold,
        Settle(u64),
        UpTo(u64),
        /// One after the other.
        EachUpTo(u64),
        /// What was settled last is not.
        HoldAgain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Hold),
            4 => (1..200u64).prop_map(Step::Settle),
            1 => (0..200u64).prop_map(Step::UpTo),
            1 => (0..200u64).prop_map(Step::EachUpTo),
            1 => Just(Step::HoldAgain),
        ]
    }

    proptest! {
        #[test]
        fn gaps_are_counted_and_never_many(steps in prop::collection::vec(step(), 0..600)) {
            let queue = Table::default().insert_for_test();
            let message = Rc::new(Message {
                id: 1,
                exchange: "".into(),
                routing_key: "".into(),
                content: Content::new(vec![0, 0], 2),
                expires_ms: u64::MAX,
                published_ms: 0,
                stored: None,
                deduplicated: false,
            });
            let entry = Entry {
                message,
                place: 0,
                position: 0,
                redelivered: false,
                priority: 0,
                delivery_count: 0,
                expires_ms: u64::MAX,
            };
            let mut channel = Channel::new(Key::nothing(), Key::nothing(), 1);
            let mut held = BTreeSet::new();
            let mut last = None;
            for step in steps {
                match step {
                    Step::Hold => {
                        let tag = channel.next_tag();
                        let here = Held::Here(entry.clone());
                        let unacked =
                            Unacked { queue, consumer: None, held: here, due_ms: u64::MAX };
                        let _ = channel.hold(tag, unacked);
                        held.insert(tag);
                    }
                    Step::Settle(tag) => {
                        let settled = channel.settle(tag);
                        prop_assert_eq!(settled.is_some(), held.remove(&tag));
                        last = settled.map(|unacked| (tag, unacked)).or(last);
                    }
                    Step::UpTo(tag) => {
                        let known = tag == 0 || held.contains(&tag);
                        let settled = channel.settle_up_to(tag);
                        prop_assert_eq!(settled.is_some(), known);
                        let settled = settled.unwrap_or_default().into_iter().map(|(tag, _)| tag);
                        let (gone, stay) = if known {
                            held.iter().partition(|other| tag == 0 || **other <= tag)
                        } else {
                            (Default::default(), held.clone())
                        };
                        let gone: BTreeSet<u64> = gone;
                        prop_assert!(settled.eq(gone));
                        held = stay;
                    }
                    Step::EachUpTo(tag) => {
                        let known = tag == 0 || held.contains(&tag);
                        let places = channel.places_up_to(tag);
                        prop_assert_eq!(places.is_some(), known);
                        let places = places.unwrap_or_default();
                        let settled = (0..places).filter_map(|_| channel.take_first()).count();
                        let before = held.len();
                        held.retain(|other| !known || (tag != 0 && tag < *other));
                        prop_assert_eq!(settled, before - held.len());
                    }
                    Step::HoldAgain => {
                        if let Some((tag, unacked)) = last.take() {
                            channel.hold_again(tag, unacked);
                            held.insert(tag);
                        }
                    }
                }
                let gaps = channel.unacked.iter().filter(|(_, unacked)| unacked.is_none()).count();
                prop_assert_eq!(gaps, channel.gaps);
                prop_assert!(channel.places() <= 2 * held.len() + 2 * super::GAPS_MAX);
            }
        }
    }
}
