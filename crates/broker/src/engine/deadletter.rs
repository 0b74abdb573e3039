//! Messages that leave a queue without an acknowledgement, and where they go.
//!
//! They are gathered, and go at the end of the turn: what a dead letter pushes out of its target is gathered in
//! turn, so that chains of queues need no recursion. In the store's log the copy stands before the end of the
//! original, in one batch: a crash loses neither.
//!
//! At least once: a letter stays its queue's until all its targets have taken it. A few are under way or have been
//! refused and are sent again now and then; the others wait behind them, as the messages of a long queue do:
//!
//! ```text
//!   dies --> | untried: leaves memory when there are many | --> under way --taken by all--> done
//!                                                                  |   ^
//!                                                refused, no target|   | now and then, and when a policy changes
//!                                                                  v   |
//!                                                                 tried           under way + tried <= 32
//! ```
//! It is never written down anew: after a crash it is a message of the queue once more, and dies once more.

use std::collections::VecDeque;
use std::rc::Rc;

use compact_str::CompactString;
use warren_amqp::RawProperties;

use super::Engine;
use super::deaths::{Death, copied_keys, is_cycle};
use super::timers::Timer;
use crate::channel::Publish;
use crate::message::Entry;
use crate::queue::{Queue, QueueKey, Ready};
use crate::store::pages::Pages;
use crate::vhost::VhostKey;

/// Dead letters of one turn. Then others have theirs.
const LETTERS_PER_TURN: usize = 4096;
/// When letters that nobody took are sent again. RabbitMQ waits for three minutes.
const AGAIN_MS: u64 = 1000;
/// How many of a queue's may be under way or refused; each that is taken brings the next. It is RabbitMQ's number.
const UNDER_WAY_MAX: usize = 32;

/// Why a message leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Rejected,
    Expired,
    MaxLength,
    DeliveryLimit,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Reason::Rejected => "rejected",
            Reason::Expired => "expired",
            Reason::MaxLength => "maxlen",
            Reason::DeliveryLimit => "delivery_limit",
        }
    }

    /// In the place of an entry's priority, which queues with letters that stay do not have.
    fn code(self) -> u8 {
        self as u8
    }

    fn from_code(code: u8) -> Self {
        const ALL: [Reason; 4] =
            [Reason::Rejected, Reason::Expired, Reason::MaxLength, Reason::DeliveryLimit];
        ALL.into_iter().find(|reason| reason.code() == code).unwrap_or(Reason::Rejected)
    }
}

/// A message on its way to the dead letter exchange of a queue.
pub(crate) struct Letter {
    queue: QueueKey,
    vhost: VhostKey,
    queue_name: CompactString,
    exchange: CompactString,
    routing_key: Option<CompactString>,
    entry: Entry,
    reason: Reason,
    /// The queue has never had it: it was refused.
    refused: bool,
    /// At least once: who has taken it.
    stays: Option<Vec<QueueKey>>,
}

impl Letter {
    /// `None` for a queue without a dead letter exchange.
    fn new(
        key: QueueKey,
        queue: &Queue,
        entry: Entry,
        reason: Reason,
        refused: bool,
        stays: Option<Vec<QueueKey>>,
    ) -> Option<Self> {
        Some(Self {
            queue: key,
            vhost: queue.vhost.key,
            queue_name: queue.name.clone(),
            exchange: queue.settings.dead_letter_exchange.clone()?,
            routing_key: queue.settings.dead_letter_routing_key.clone(),
            entry,
            reason,
            refused,
            stays,
        })
    }

    pub(super) fn is_of(&self, queue: QueueKey) -> bool {
        self.queue == queue
    }
}

/// The letters of a queue that have not been taken yet.
pub(crate) struct Staying {
    /// Those among the letters of this turn.
    under_way: usize,
    /// Somebody has refused them, or there was nobody.
    tried: VecDeque<Letter>,
    /// Those that come after them. Their priority is the code of their reason, their position the order of death.
    untried: Ready,
    last_position: u64,
    /// A timer is set for those that were tried.
    timed: bool,
    /// The log says that some stay.
    told: bool,
}

impl Staying {
    fn new(pages: Option<Rc<Pages>>) -> Self {
        Self {
            under_way: 0,
            tried: VecDeque::new(),
            untried: Ready::new(pages),
            last_position: 0,
            timed: false,
            told: false,
        }
    }

    /// Lets a letter wait behind all others.
    fn wait(&mut self, entry: Entry, reason: Reason) {
        self.last_position += 1;
        let (position, priority) = (self.last_position, reason.code());
        self.untried.push_back(Entry { position, priority, ..entry });
    }

    fn is_full(&self) -> bool {
        UNDER_WAY_MAX <= self.under_way + self.tried.len()
    }

    /// Takes everything out; the store's numbers of those that have one.
    pub(super) fn clear(&mut self) -> Vec<u64> {
        let mut places = self.untried.clear();
        places.extend(self.tried.drain(..).map(|letter| letter.entry.place));
        places
    }

    /// Letters in memory.
    #[cfg(test)]
    fn resident(&self) -> usize {
        self.under_way + self.tried.len() + self.untried.resident()
    }
}

impl Engine {
    /// A message leaves a queue without an acknowledgement.
    pub(super) fn discard(&mut self, key: QueueKey, entry: Entry, reason: Reason) {
        if let Some(entry) = self.post(key, entry, reason, false) {
            self.forget(key, entry);
        }
    }

    /// Gives a message back if the queue has no dead letter exchange.
    pub(super) fn post(
        &mut self,
        key: QueueKey,
        entry: Entry,
        reason: Reason,
        refused: bool,
    ) -> Option<Entry> {
        let Some(queue) = self.queues.get_mut(key) else { return Some(entry) };
        if queue.settings.dead_letter_exchange.is_none() {
            return Some(entry);
        }
        if !refused {
            queue.release(&entry.message);
        }
        if refused || !queue.settings.dead_letters_stay {
            self.letters.extend(Letter::new(key, queue, entry, reason, refused, None));
            return None;
        }
        queue.staying.0 += 1;
        queue.staying.1 += entry.message.content.body().len() as u64;
        let pages = queue.ready.pages();
        let staying = self.staying.entry(key).or_insert_with(|| Staying::new(pages));
        if staying.is_full() {
            staying.wait(entry, reason);
        } else {
            staying.under_way += 1;
            self.letters.extend(Letter::new(key, queue, entry, reason, refused, Some(Vec::new())));
        }
        None
    }

    /// Sends what was gathered. True when there is more.
    pub(super) fn send_letters(&mut self) -> bool {
        for _ in 0..LETTERS_PER_TURN {
            let Some(letter) = self.letters.pop_front() else { return false };
            // After a crash the copies are there, or the original.
            self.at_once(|engine| engine.send_or_keep(letter));
        }
        !self.letters.is_empty()
    }

    fn send_or_keep(&mut self, mut letter: Letter) {
        self.readdress(&mut letter);
        let is_taken = self.send_letter(&mut letter);
        let (key, stays) = (letter.queue, letter.stays.is_some());
        if stays && let Some(staying) = self.staying.get_mut(&key) {
            staying.under_way -= 1;
        }
        if stays && !is_taken && self.letters_stay(key) {
            return self.keep(letter);
        }
        if stays {
            self.count_gone(&letter);
        }
        if !letter.refused {
            self.forget(key, letter.entry);
        }
        if stays {
            // Perhaps one that was refused is taken now, too.
            self.send_tried(key, 1);
            self.send_untried(key);
        }
    }

    /// About what the letters of each queue that have not been tried take in memory, in bytes.
    pub(crate) fn letters_resident_bytes(&self) -> impl Iterator<Item = (QueueKey, u64)> {
        self.staying.iter().map(|(key, staying)| (*key, staying.untried.resident_bytes()))
    }

    /// Writes those of a queue to disk.
    pub(crate) fn page_letters(&mut self, key: QueueKey) {
        if let Some(staying) = self.staying.get_mut(&key) {
            staying.untried.page_out();
        }
    }

    /// Letters in memory.
    #[cfg(test)]
    pub(crate) fn letters_resident(&self) -> usize {
        self.staying.values().map(Staying::resident).sum()
    }

    fn letters_stay(&self, key: QueueKey) -> bool {
        self.queues.get(key).is_some_and(|queue| queue.settings.dead_letters_stay)
    }

    /// Where letters go that stay is said by the policies of the day on which they go.
    fn readdress(&self, letter: &mut Letter) {
        if letter.stays.is_some()
            && let Some(queue) = self.queues.get(letter.queue)
            && let Some(exchange) = &queue.settings.dead_letter_exchange
        {
            letter.exchange.clone_from(exchange);
            letter.routing_key.clone_from(&queue.settings.dead_letter_routing_key);
        }
    }

    /// Whether somebody has taken it, and nobody has refused it.
    fn send_letter(&mut self, letter: &mut Letter) -> bool {
        let exchange = match letter.exchange.as_str() {
            "" => None,
            name => match self.exchange_key(letter.vhost, name) {
                Some(key) => Some(key),
                None => return false,
            },
        };
        let message = &*letter.entry.message;
        let mut properties = std::mem::take(&mut self.properties);
        properties.clear();
        let death = Death {
            message,
            queue: &letter.queue_name,
            reason: letter.reason.name(),
            time: self.now_ms / 1000,
            new_key: letter.routing_key.is_some(),
        };
        if death.encode(&mut properties).is_err() {
            // Nothing could be written into it, then or later.
            return true;
        }
        let (key, more_keys) = match &letter.routing_key {
            Some(key) => (key, Vec::new()),
            None => {
                let headers = RawProperties::new(message.content.properties()).headers();
                (&message.routing_key, copied_keys(headers))
            }
        };
        let body = message.content.body();
        let mut fresh = self.spares.take(properties.len() + body.len());
        if let Some(fresh) = Rc::get_mut(&mut fresh) {
            fresh.routing_key.clear();
            fresh.routing_key.push_str(key);
            fresh.content.begin(&properties);
            fresh.content.append(body, 0);
            fresh.content.seal();
        }
        self.properties = properties;
        let publish = Publish {
            vhost: letter.vhost,
            exchange,
            message: fresh,
            more_keys,
            mandatory: false,
            immediate: false,
        };
        self.route(&publish);
        if letter.reason != Reason::Rejected {
            let deaths = RawProperties::new(publish.message.content.properties());
            let mut targets = std::mem::take(&mut self.targets);
            targets.retain(|key| {
                self.queues.get(*key).is_some_and(|queue| !is_cycle(&queue.name, deaths))
            });
            self.targets = targets;
        }
        let Some(taken) = &mut letter.stays else {
            if self.targets.is_empty() {
                self.spares.keep(publish.message);
            } else {
                self.enter_queues(publish);
            }
            return true;
        };
        let is_routed = !self.targets.is_empty();
        self.targets.retain(|key| !taken.contains(key));
        if self.targets.is_empty() {
            return is_routed;
        }
        let full = self.full_targets(&publish.message.content);
        taken.extend(self.targets.iter().copied().filter(|key| !full.contains(key)));
        let (_, is_refused) = self.enter_queues(publish);
        !is_refused
    }

    /// Nobody took it, or not everybody: it waits.
    fn keep(&mut self, letter: Letter) {
        let key = letter.queue;
        let Some(staying) = self.staying.get_mut(&key) else { return };
        if !std::mem::replace(&mut staying.told, true) {
            tracing::warn!(
                queue = %letter.queue_name,
                exchange = %letter.exchange,
                "dead letters wait: nobody is bound for them, or somebody refuses them"
            );
        }
        staying.tried.push_back(letter);
        if !std::mem::replace(&mut staying.timed, true) {
            self.timers.at(self.now_ms.saturating_add(AGAIN_MS), Timer::Letters(key));
        }
    }

    /// It is time to send those again that were refused.
    pub(super) fn send_again(&mut self, key: QueueKey) {
        let Some(staying) = self.staying.get_mut(&key) else { return };
        staying.timed = false;
        self.send_tried(key, UNDER_WAY_MAX);
    }

    /// Sends some that were refused: those that have waited longest.
    fn send_tried(&mut self, key: QueueKey, most: usize) {
        let Some(staying) = self.staying.get_mut(&key) else { return };
        let count = most.min(staying.tried.len());
        staying.under_way += count;
        self.letters.extend(staying.tried.drain(..count));
    }

    /// Sends as many of the others as may be under way.
    fn send_untried(&mut self, key: QueueKey) {
        let (Some(staying), Some(queue)) = (self.staying.get_mut(&key), self.queues.get(key))
        else {
            return;
        };
        while !staying.is_full()
            && let Some(entry) = staying.untried.pop_front()
        {
            let reason = Reason::from_code(entry.priority);
            let entry = Entry { priority: 0, ..entry };
            staying.under_way += 1;
            self.letters.extend(Letter::new(key, queue, entry, reason, false, Some(Vec::new())));
        }
        if staying.under_way == 0 && staying.tried.is_empty() {
            // What was paged out and is lost is there no more; it does not count for ever.
            if let Some(queue) = self.queues.get_mut(key) {
                queue.staying = (0, 0);
            }
            self.staying.remove(&key);
        }
    }

    /// A policy may have changed what holds for the letters of a queue. As in RabbitMQ, those that wait are dropped
    /// where letters are not to stay any more; otherwise they are sent to where they go now.
    pub(super) fn refresh_letters(&mut self, key: QueueKey) {
        if self.letters_stay(key) {
            return self.send_tried(key, UNDER_WAY_MAX);
        }
        let Some(staying) = self.staying.get_mut(&key) else { return };
        let waiting = staying.tried.len() + staying.untried.len();
        let places = staying.clear();
        if staying.under_way == 0 {
            self.staying.remove(&key);
        }
        self.forget_all(places);
        if let Some(queue) = self.queues.get_mut(key) {
            let under_way = queue.staying.0.saturating_sub(waiting as u64);
            queue.staying = (under_way, if under_way == 0 { 0 } else { queue.staying.1 });
            tracing::info!(
                queue = %queue.name,
                letters = waiting,
                "dead letters that nobody had taken were dropped: the queue does not keep them any more"
            );
        }
    }

    /// A letter waits no longer.
    fn count_gone(&mut self, letter: &Letter) {
        let Some(queue) = self.queues.get_mut(letter.queue) else { return };
        let bytes = letter.entry.message.content.body().len() as u64;
        let (count, sum) = &mut queue.staying;
        (*count, *sum) = (count.saturating_sub(1), sum.saturating_sub(bytes));
    }
}
