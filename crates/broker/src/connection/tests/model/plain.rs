//! The model: queues as sorted maps, everything else as lists that are searched.
//!
//! What a step makes of queues and consumers is foretold as [`Queue::pending`]: the messages that are to be delivered
//! from a queue, in order, to whichever consumer. The engine's deliveries are held against that.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::deaths::Message;
use super::routing::Routes;
use super::steps::{
    CONSUMING, LETTERS, Letters, Limits, Overflow, PUBLISHING, QUEUES, Shape, TX, Verdict, next,
};

/// A message in a queue.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) message: Rc<Message>,
    /// The higher priority first, then the older message.
    place: (Reverse<u8>, u64),
    pub(super) redelivered: bool,
    /// Deliveries that came back.
    pub(super) count: u32,
    expires_ms: u64,
}

#[derive(Debug)]
pub(super) struct Queue {
    /// Which of the queues that had this name.
    generation: u64,
    ready: BTreeMap<(Reverse<u8>, u64), Entry>,
    pub(super) pending: VecDeque<Entry>,
    /// In the order in which they are served, if only one is.
    pub(super) consumers: Vec<String>,
    next_position: u64,
    /// Persistent messages before this position may have been delivered: a server that begins again says so.
    delivered: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) queue: usize,
    generation: u64,
    entry: Entry,
    consumer: Option<String>,
}

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) queue: usize,
    pub(super) channel: u16,
    pub(super) no_ack: bool,
    prefetch: u16,
    pub(super) priority: i8,
}

#[derive(Debug, Default)]
pub(super) struct Channel {
    last_tag: u64,
    pub(super) prefetch: u16,
    /// For all consumers together.
    pub(super) prefetch_all: u16,
    /// Of the transaction: to which exchange, and whether it comes back when nobody takes it.
    pub(super) publishes: Vec<(Message, usize, bool)>,
    verdicts: Vec<(u64, Held, Verdict)>,
}

struct Letter {
    queue: usize,
    entry: Entry,
    reason: &'static str,
}

#[derive(Default)]
pub(super) struct Model {
    pub(super) shapes: Vec<Shape>,
    /// By queue, whether that is there or not.
    pub(super) policies: BTreeMap<usize, Limits>,
    pub(super) routes: Routes,
    pub(super) queues: BTreeMap<usize, Queue>,
    pub(super) consumers: BTreeMap<String, Consumer>,
    pub(super) channels: BTreeMap<u16, Channel>,
    /// By channel and delivery tag.
    pub(super) held: BTreeMap<(u16, u64), Held>,
    /// Consumers that are still to be told that their queue has gone.
    pub(super) cancelled: BTreeSet<(u16, String)>,
    letters: VecDeque<Letter>,
    pub(super) now_ms: u64,
    last: u64,
}

impl Model {
    pub(super) fn new(shapes: Vec<Shape>, now_ms: u64) -> Self {
        Self { shapes, now_ms, ..Self::default() }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Both clients have connected.
    pub(super) fn connect(&mut self) {
        for channel in CONSUMING.into_iter().chain([PUBLISHING]) {
            self.channels.entry(channel).or_default();
        }
    }

    pub(super) fn declare(&mut self, queue: usize) {
        let generation = self.number();
        self.queues.entry(queue).or_insert_with(|| Queue {
            generation,
            ready: BTreeMap::new(),
            pending: VecDeque::new(),
            consumers: Vec::new(),
            next_position: 0,
            delivered: 0,
        });
    }

    pub(super) fn ready(&self, queue: usize) -> usize {
        self.queues[&queue].ready.len()
    }

    pub(super) fn bytes(&self, queue: usize) -> u64 {
        self.queues[&queue].ready.values().map(Entry::bytes).sum()
    }

    /// Appends a message to queues. Whether one of them refused it.
    pub(super) fn enter(&mut self, message: &Rc<Message>, targets: &BTreeSet<usize>) -> bool {
        let (mut refused, mut entered) = (false, Vec::new());
        for queue in targets {
            if self.limits(*queue).overflow != Overflow::DropHead
                && self.is_over(*queue, Some(message))
            {
                // What consumers would take they take first.
                self.dispatch(*queue);
            }
            if self.limits(*queue).overflow != Overflow::DropHead
                && self.is_over(*queue, Some(message))
            {
                refused = true;
                if self.limits(*queue).overflow == Overflow::RejectPublishDlx {
                    let entry = self.entry(*queue, message, 0);
                    self.letters.push_back(Letter { queue: *queue, entry, reason: "maxlen" });
                }
            } else {
                entered.push(*queue);
            }
        }
        for queue in &entered {
            let of = self.queues.get_mut(queue).unwrap();
            let position = of.next_position;
            of.next_position += 1;
            let entry = self.entry(*queue, message, position);
            self.queues.get_mut(queue).unwrap().ready.insert(entry.place, entry);
        }
        for queue in entered {
            if self.is_over(queue, None) {
                self.dispatch(queue);
            }
        }
        refused
    }

    fn entry(&self, queue: usize, message: &Rc<Message>, position: u64) -> Entry {
        let shape = &self.shapes[queue];
        let ttl_ms = shape.ttl_ms.map_or(u64::MAX, |ttl_ms| self.now_ms + ttl_ms);
        let priority = message.priority.unwrap_or(0).min(shape.priority_max);
        Entry {
            message: message.clone(),
            place: (Reverse(priority), position),
            redelivered: false,
            count: 0,
            expires_ms: ttl_ms.min(message.expires_ms),
        }
    }

    fn limits(&self, queue: usize) -> Limits {
        self.shapes[queue].limits(self.policies.get(&queue))
    }

    /// Whether a queue has too much; with one more.
    fn is_over(&self, queue: usize, more: Option<&Message>) -> bool {
        let limits = self.limits(queue);
        let length = self.ready(queue) + usize::from(more.is_some());
        let bytes = self.bytes(queue) + more.map_or(0, |message| message.body.len() as u64);
        limits.length_max.is_some_and(|max| max < length)
            || limits.bytes_max.is_some_and(|max| max < bytes)
    }

    /// What a queue does: messages expire, consumers take what they can, what is then too much is dropped.
    fn dispatch(&mut self, queue: usize) {
        let room = self.room(queue);
        self.expire(queue, self.now_ms - 1);
        while self.queues[&queue].pending.len() < room && self.ready(queue) != 0 {
            let of = self.queues.get_mut(&queue).unwrap();
            let (_, entry) = of.ready.pop_first().unwrap();
            of.pending.push_back(entry);
            // A message whose time is over this very moment is delivered if someone takes it at once.
            self.expire(queue, self.now_ms - 1);
        }
        self.expire(queue, self.now_ms);
        // A queue that refuses keeps what came back to it, as in RabbitMQ.
        while self.limits(queue).overflow == Overflow::DropHead && self.is_over(queue, None) {
            let (_, entry) = self.queues.get_mut(&queue).unwrap().ready.pop_first().unwrap();
            self.letters.push_back(Letter { queue, entry, reason: "maxlen" });
        }
        self.expire(queue, self.now_ms);
    }

    /// Drops what has expired, as far as nothing of the same priority stands before it.
    pub(super) fn expire(&mut self, queue: usize, limit_ms: u64) {
        let of = self.queues.get_mut(&queue).unwrap();
        for priority in 0..=u8::MAX {
            let level = (Reverse(priority), 0)..=(Reverse(priority), u64::MAX);
            while let Some((place, first)) = of.ready.range(level.clone()).next()
                && first.expires_ms <= limit_ms
            {
                let place = *place;
                let entry = of.ready.remove(&place).unwrap();
                self.letters.push_back(Letter { queue, entry, reason: "expired" });
            }
        }
    }

    /// Sends the letters, and lets every queue do its work, until all is quiet.
    pub(super) fn settle(&mut self) {
        loop {
            while let Some(letter) = self.letters.pop_front() {
                self.send(&letter);
            }
            let queues: Vec<usize> = self.queues.keys().copied().collect();
            queues.into_iter().for_each(|queue| self.dispatch(queue));
            if self.letters.is_empty() {
                return;
            }
        }
    }

    fn send(&mut self, letter: &Letter) {
        let Letter { queue, entry, reason } = letter;
        let to = next(*queue);
        let (exchange, key) = match self.shapes[*queue].letters {
            Letters::Nowhere => return,
            Letters::Straight => ("", Some(QUEUES[to])),
            Letters::Exchange { key } => (LETTERS[*queue], key.then_some("dead")),
        };
        let message = entry.message.died(QUEUES[*queue], reason, self.now_ms, (exchange, key));
        let goes_round = *reason != "rejected" && message.goes_round(QUEUES[to]);
        if self.queues.contains_key(&to) && !goes_round {
            self.enter(&Rc::new(message), &BTreeSet::from([to]));
        }
    }

    /// How many messages the consumers of a queue have room for.
    fn room(&self, queue: usize) -> usize {
        let consumers = &self.queues[&queue].consumers;
        let served = if self.shapes[queue].single_active { 1 } else { consumers.len() };
        let mut channels = BTreeMap::new();
        for tag in consumers.iter().take(served) {
            let consumer = &self.consumers[tag];
            let room = if consumer.no_ack || consumer.prefetch == 0 {
                usize::MAX
            } else {
                usize::from(consumer.prefetch).saturating_sub(self.held_by(tag))
            };
            let limited =
                if consumer.no_ack { usize::MAX } else { self.channel_room(consumer.channel) };
            let of: &mut (usize, usize) =
                channels.entry((consumer.channel, consumer.no_ack)).or_default();
            *of = (of.0.saturating_add(room), limited);
        }
        channels.values().fold(0, |sum, (room, limited)| sum.saturating_add(*room.min(limited)))
    }

    pub(super) fn has_room(&self, tag: &str) -> bool {
        let consumer = &self.consumers[tag];
        consumer.no_ack
            || (consumer.prefetch == 0 || self.held_by(tag) < usize::from(consumer.prefetch))
                && self.channel_room(consumer.channel) != 0
    }

    fn channel_room(&self, channel: u16) -> usize {
        let of = &self.channels[&channel];
        if of.prefetch_all == 0 {
            return usize::MAX;
        }
        let held = self.held_on(channel).filter(|held| held.consumer.is_some()).count();
        usize::from(of.prefetch_all).saturating_sub(held)
    }

    fn held_by(&self, tag: &str) -> usize {
        let channel = self.consumers[tag].channel;
        self.held_on(channel).filter(|held| held.consumer.as_deref() == Some(tag)).count()
    }

    /// What is settled in a transaction is held until its commit.
    pub(super) fn held_on(&self, channel: u16) -> impl Iterator<Item = &Held> {
        let held = self.held.range((channel, 0)..=(channel, u64::MAX)).map(|(_, held)| held);
        held.chain(self.channels[&channel].verdicts.iter().map(|(_, held, _)| held))
    }

    /// A message has been delivered on a channel. Its tag.
    pub(super) fn deliver(
        &mut self,
        queue: usize,
        entry: Entry,
        channel: u16,
        (no_ack, consumer): (bool, Option<&str>),
    ) -> u64 {
        let of = self.queues.get_mut(&queue).unwrap();
        if entry.message.persistent {
            of.delivered = of.delivered.max(entry.place.1 + 1);
        }
        let generation = of.generation;
        let tag = &mut self.channels.get_mut(&channel).unwrap().last_tag;
        *tag += 1;
        let tag = *tag;
        if !no_ack {
            let consumer = consumer.map(str::to_owned);
            self.held.insert((channel, tag), Held { queue, generation, entry, consumer });
        }
        tag
    }

    /// What a client gets that asks for a message.
    pub(super) fn take(&mut self, queue: usize) -> Option<Entry> {
        self.expire(queue, self.now_ms);
        self.queues.get_mut(&queue).unwrap().ready.pop_first().map(|(_, entry)| entry)
    }

    /// What the header `x-delivery-count` says.
    pub(super) fn told_count(&self, queue: usize, entry: &Entry) -> Option<u32> {
        let shape = &self.shapes[queue];
        (entry.count != 0 && (shape.quorum || shape.delivery_limit.is_some()))
            .then_some(entry.count)
    }

    /// Settles deliveries of a channel, up to a tag.
    pub(super) fn settle_up_to(&mut self, channel: u16, first: u64, last: u64, verdict: Verdict) {
        let keys: Vec<_> =
            self.held.range((channel, first)..=(channel, last)).map(|(key, _)| *key).collect();
        let settled: Vec<_> =
            keys.into_iter().map(|key| (key.1, self.held.remove(&key).unwrap())).collect();
        for (tag, held) in settled {
            if channel == TX {
                let of = self.channels.get_mut(&channel).unwrap();
                of.verdicts.push((tag, held, verdict));
            } else {
                self.apply(held, verdict);
            }
        }
    }

    fn apply(&mut self, held: Held, verdict: Verdict) {
        let Held { queue, generation, mut entry, .. } = held;
        let limit = self.shapes[queue].delivery_limit.or(self.shapes[queue].quorum.then_some(20));
        let Some(of) = self.queues.get_mut(&queue).filter(|of| of.generation == generation) else {
            return;
        };
        match verdict {
            Verdict::Ack => {}
            Verdict::Discard => self.letters.push_back(Letter { queue, entry, reason: "rejected" }),
            Verdict::Requeue => {
                entry.redelivered = true;
                entry.count += 1;
                if limit.is_some_and(|limit| limit < entry.count) {
                    self.letters.push_back(Letter { queue, entry, reason: "delivery_limit" });
                } else {
                    of.ready.insert(entry.place, entry);
                }
            }
        }
    }

    /// Everything that a channel holds goes back.
    pub(super) fn recover(&mut self, channel: u16) {
        let keys: Vec<_> =
            self.held.range((channel, 0)..=(channel, u64::MAX)).map(|(key, _)| *key).collect();
        for key in keys {
            let held = self.held.remove(&key).unwrap();
            self.apply(held, Verdict::Requeue);
        }
    }

    /// What the transaction has gathered happens. The bodies that come back to the publisher.
    pub(super) fn commit(&mut self) -> Vec<String> {
        let tx = self.channels.get_mut(&TX).unwrap();
        let publishes = std::mem::take(&mut tx.publishes);
        let mut back = Vec::new();
        for (message, exchange, mandatory) in publishes {
            let (is_routed, _) = self.publish(exchange, message.clone());
            if mandatory && !is_routed {
                back.push(message.body);
            }
        }
        // Only now is there room again.
        let verdicts = std::mem::take(&mut self.channels.get_mut(&TX).unwrap().verdicts);
        for (_, held, verdict) in verdicts {
            self.apply(held, verdict);
        }
        back
    }

    /// Whether it was for any queue, and whether one refused it.
    pub(super) fn publish(&mut self, exchange: usize, mut message: Message) -> (bool, bool) {
        if let Some(ms) = message.expiration {
            message.expires_ms = self.now_ms + ms;
        }
        let is_there = |queue| self.queues.contains_key(&queue);
        let targets = self.routes.route(exchange, &message.keys(), message.says, is_there);
        (!targets.is_empty(), self.enter(&Rc::new(message), &targets))
    }

    pub(super) fn rollback(&mut self) {
        let tx = self.channels.get_mut(&TX).unwrap();
        tx.publishes.clear();
        for (tag, held, _) in std::mem::take(&mut tx.verdicts) {
            self.held.insert((TX, tag), held);
        }
    }

    pub(super) fn consume(&mut self, tag: String, consumer: Consumer) {
        let queue = consumer.queue;
        let active = usize::from(self.shapes[queue].single_active);
        let consumers = &self.queues[&queue].consumers;
        let behind = |tag: &String| self.consumers[tag].priority < consumer.priority;
        let before = consumers.iter().skip(active).position(behind);
        let at = before.map_or(consumers.len(), |at| active + at);
        self.queues.get_mut(&queue).unwrap().consumers.insert(at, tag.clone());
        self.consumers.insert(tag, consumer);
    }

    pub(super) fn new_consumer(
        &self,
        queue: usize,
        channel: u16,
        no_ack: bool,
        priority: i8,
    ) -> Consumer {
        let prefetch = self.channels[&channel].prefetch;
        Consumer { queue, channel, no_ack, prefetch, priority }
    }

    pub(super) fn cancel(&mut self, tag: &str) {
        let queue = self.consumers.remove(tag).unwrap().queue;
        let of = self.queues.get_mut(&queue).unwrap();
        of.consumers.retain(|other| other != tag);
        if of.consumers.is_empty() && self.shapes[queue].auto_delete {
            self.delete(queue);
        }
    }

    /// How many messages were ready.
    pub(super) fn delete(&mut self, queue: usize) -> usize {
        let Some(of) = self.queues.remove(&queue) else { return 0 };
        self.routes.forget(queue);
        for tag in of.consumers {
            let consumer = self.consumers.remove(&tag).unwrap();
            self.cancelled.insert((consumer.channel, tag));
        }
        of.ready.len()
    }

    pub(super) fn purge(&mut self, queue: usize) -> usize {
        std::mem::take(&mut self.queues.get_mut(&queue).unwrap().ready).len()
    }

    /// A channel closes: what it holds goes back, then its consumers go.
    pub(super) fn close(&mut self, channel: u16) {
        if channel == TX {
            self.rollback();
        }
        self.recover(channel);
        let of_channel = |(_, consumer): &(&String, &Consumer)| consumer.channel == channel;
        let tags: Vec<_> =
            self.consumers.iter().filter(of_channel).map(|(tag, _)| tag.clone()).collect();
        tags.iter().for_each(|tag| self.cancel(tag));
        self.channels.insert(channel, Channel::default());
        // Nobody is there to be told.
        self.cancelled.retain(|(of, _)| *of != channel);
    }

    /// The server ends and begins again: what is durable is there.
    pub(super) fn restart(&mut self) {
        self.rollback();
        for (_, held) in std::mem::take(&mut self.held) {
            if let Some(of) = self.queues.get_mut(&held.queue)
                && of.generation == held.generation
            {
                of.ready.insert(held.entry.place, held.entry);
            }
        }
        self.consumers.clear();
        self.channels.clear();
        for of in self.queues.values_mut() {
            of.consumers.clear();
            of.ready.retain(|_, entry| entry.message.persistent);
            for entry in of.ready.values_mut() {
                entry.redelivered = entry.place.1 < of.delivered;
            }
        }
        let passing = |queue: &usize| !self.shapes[*queue].durable;
        let passing: Vec<usize> = (0..QUEUES.len()).filter(passing).collect();
        for queue in passing {
            self.delete(queue);
        }
        self.cancelled.clear();
    }
}

impl Entry {
    fn bytes(&self) -> u64 {
        self.message.body.len() as u64
    }
}
