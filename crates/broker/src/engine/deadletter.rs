//! Messages that leave a queue without an acknowledgement, and where they go.
//!
//! They are gathered, and go at the end of the turn: what a dead letter pushes out of its target is gathered in
//! turn, so that chains of queues need no recursion. In the store's log the copy stands before the end of the
//! original, in one batch: a crash loses neither.
//!
//! At least once: a letter that finds no target, or a full one, stays its queue's, and is sent again now and then.
//! It is never written down anew: after a crash it is a message of the queue once more, and dies once more.

use std::collections::VecDeque;

use compact_str::CompactString;
use warren_amqp::{BasicProperties, FieldTable, FieldValue, RawProperties};

use super::Engine;
use super::timers::Timer;
use crate::channel::Publish;
use crate::message::{Content, Entry, Message};
use crate::queue::QueueKey;
use crate::vhost::VhostKey;

/// Dead letters of one turn. Then others have theirs.
const LETTERS_PER_TURN: usize = 4096;
/// When letters that nobody took are sent again. RabbitMQ waits for three minutes.
const AGAIN_MS: u64 = 1000;
/// How many of a queue's are sent again then: each that is taken brings the next.
const AGAIN: usize = 32;

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
    pub(super) fn is_of(&self, queue: QueueKey) -> bool {
        self.queue == queue
    }
}

/// The letters of a queue that nobody takes.
#[derive(Default)]
pub(crate) struct Staying {
    letters: VecDeque<Letter>,
    /// A timer is set for them.
    timed: bool,
}

impl Staying {
    /// The store's numbers of them.
    pub(super) fn places(&self) -> impl Iterator<Item = u64> {
        self.letters.iter().map(|letter| letter.entry.place)
    }
}

impl Engine {
    /// A message leaves a queue without an acknowledgement.
    pub(super) fn discard(&mut self, key: QueueKey, entry: Entry, reason: Reason) {
        if let Some(entry) = self.post(key, entry, reason, false) {
            self.forget(key, &entry);
        }
    }

    /// Gives a message back if the queue has no dead letter exchange.
    pub(super) fn post(
        &mut self,
        queue: QueueKey,
        entry: Entry,
        reason: Reason,
        refused: bool,
    ) -> Option<Entry> {
        let Some(source) = self.queues.get_mut(queue) else { return Some(entry) };
        let (vhost, queue_name) = (source.vhost.key, source.name.clone());
        let Some(exchange) = source.settings.dead_letter_exchange.clone() else {
            return Some(entry);
        };
        if !refused {
            source.release(&entry.message);
        }
        let settings = &source.settings;
        let routing_key = settings.dead_letter_routing_key.clone();
        let stays = (settings.dead_letters_stay && !refused).then(Vec::new);
        let letter = Letter {
            vhost,
            queue,
            queue_name,
            exchange,
            routing_key,
            entry,
            reason,
            refused,
            stays,
        };
        if letter.stays.is_some() {
            self.count_staying(&letter, true);
        }
        self.letters.push_back(letter);
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
        let is_taken = self.send_letter(&mut letter);
        if letter.stays.is_some() {
            if !is_taken {
                return self.keep(letter);
            }
            self.count_staying(&letter, false);
            // Perhaps the others are taken now, too.
            let next = self.staying.get_mut(&letter.queue);
            self.letters.extend(next.and_then(|staying| staying.letters.pop_front()));
        }
        if !letter.refused {
            self.forget(letter.queue, &letter.entry);
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
        let Ok(mut properties) = RawProperties::new(message.content.properties()).to_properties()
        else {
            // Nothing could be written into it, then or later.
            return true;
        };
        let now = self.now_ms / 1000;
        let deaths = note_death(
            &mut properties,
            message,
            &letter.queue_name,
            letter.reason,
            now,
            letter.routing_key.is_some(),
        );
        let (routing_key, more_keys) = match &letter.routing_key {
            Some(key) => (key.clone(), Vec::new()),
            None => (message.routing_key.clone(), copies(properties.headers.as_ref())),
        };
        let mut bytes = Vec::new();
        properties.encode(&mut bytes);
        let properties_bytes = bytes.len();
        bytes.extend_from_slice(message.content.body());
        let content = Content::new(bytes, properties_bytes);
        let vhost = letter.vhost;
        let publish = Publish {
            vhost,
            exchange,
            routing_key,
            more_keys,
            mandatory: false,
            immediate: false,
            content,
        };
        self.route(&publish);
        if letter.reason != Reason::Rejected {
            let mut targets = std::mem::take(&mut self.targets);
            targets.retain(|key| {
                self.queues.get(*key).is_some_and(|queue| !is_cycle(&queue.name, &deaths))
            });
            self.targets = targets;
        }
        let Some(taken) = &mut letter.stays else {
            if !self.targets.is_empty() {
                self.enter_queues(publish);
            }
            return true;
        };
        let is_routed = !self.targets.is_empty();
        self.targets.retain(|key| !taken.contains(key));
        if self.targets.is_empty() {
            return is_routed;
        }
        let full = self.full_targets(&publish.content);
        taken.extend(self.targets.iter().copied().filter(|key| !full.contains(key)));
        let (_, is_refused) = self.enter_queues(publish);
        !is_refused
    }

    /// Nobody took it, or not everybody: it waits.
    fn keep(&mut self, letter: Letter) {
        let key = letter.queue;
        if self.queues.get(key).is_none() {
            return;
        }
        let staying = self.staying.entry(key).or_default();
        staying.letters.push_back(letter);
        if !std::mem::replace(&mut staying.timed, true) {
            self.timers.at(self.now_ms.saturating_add(AGAIN_MS), Timer::Letters(key));
        }
    }

    /// Sends some that stay: those that have waited longest.
    pub(super) fn send_again(&mut self, key: QueueKey) {
        let Some(staying) = self.staying.get_mut(&key) else { return };
        let again = AGAIN.min(staying.letters.len());
        self.letters.extend(staying.letters.drain(..again));
        staying.timed = !staying.letters.is_empty();
        if staying.timed {
            self.timers.at(self.now_ms.saturating_add(AGAIN_MS), Timer::Letters(key));
        } else {
            self.staying.remove(&key);
        }
    }

    /// Drops those that stay.
    pub(super) fn purge_letters(&mut self, key: QueueKey) {
        let Some(staying) = self.staying.get_mut(&key) else { return };
        for letter in std::mem::take(&mut staying.letters) {
            self.count_staying(&letter, false);
            self.forget(key, &letter.entry);
        }
    }

    fn count_staying(&mut self, letter: &Letter, more: bool) {
        let Some(queue) = self.queues.get_mut(letter.queue) else { return };
        let bytes = letter.entry.message.content.body().len() as u64;
        let (count, sum) = &mut queue.staying;
        (*count, *sum) = if more {
            (*count + 1, *sum + bytes)
        } else {
            (count.saturating_sub(1), sum.saturating_sub(bytes))
        };
    }
}

/// Writes a death into the headers; all deaths, the newest first.
fn note_death(
    properties: &mut BasicProperties,
    message: &Message,
    queue: &str,
    reason: Reason,
    now: u64,
    new_key: bool,
) -> Vec<FieldValue> {
    let headers = properties.headers.get_or_insert_default();
    let text = |text: &str| FieldValue::LongString(text.as_bytes().to_vec());
    let mut deaths = match headers.get("x-death").and_then(FieldValue::as_array) {
        Some(deaths) => deaths.to_vec(),
        None => {
            headers.insert("x-first-death-reason", text(reason.name()));
            headers.insert("x-first-death-queue", text(queue));
            headers.insert("x-first-death-exchange", text(&message.exchange));
            Vec::new()
        }
    };
    let same = deaths.iter().position(|death| {
        field(death, "queue") == Some(queue) && field(death, "reason") == Some(reason.name())
    });
    let death = match same.map(|at| deaths.remove(at)) {
        Some(FieldValue::Table(mut death)) => {
            let count = death.get("count").and_then(FieldValue::as_i64).unwrap_or(0);
            death.insert("count", FieldValue::I64(count.saturating_add(1)));
            death
        }
        _ => {
            let keys = std::iter::once(message.routing_key.clone()).chain(copies(Some(headers)));
            let keys = FieldValue::Array(keys.map(|key| text(&key)).collect());
            let mut death = FieldTable::new()
                .with("count", FieldValue::I64(1))
                .with("reason", text(reason.name()))
                .with("queue", text(queue))
                .with("time", FieldValue::Timestamp(now))
                .with("exchange", text(&message.exchange))
                .with("routing-keys", keys);
            if let Some(expiration) = &properties.expiration {
                death.push("original-expiration", text(expiration));
            }
            death
        }
    };
    deaths.insert(0, FieldValue::Table(death));
    headers.insert("x-last-death-reason", text(reason.name()));
    headers.insert("x-last-death-queue", text(queue));
    headers.insert("x-last-death-exchange", text(&message.exchange));
    headers.insert("x-death", FieldValue::Array(deaths.clone()));
    if new_key {
        headers.remove("CC");
    }
    properties.expiration = None;
    deaths
}

/// A message has come here before, and nobody rejected it since: it would go round for ever.
fn is_cycle(queue: &str, deaths: &[FieldValue]) -> bool {
    match deaths.iter().position(|death| field(death, "queue") == Some(queue)) {
        None => false,
        Some(at) => deaths[..=at].iter().all(|death| field(death, "reason") != Some("rejected")),
    }
}

fn field<'a>(death: &'a FieldValue, key: &str) -> Option<&'a str> {
    death.as_table()?.get(key)?.as_str()
}

/// The routing keys of the header `CC`.
pub(super) fn copies(headers: Option<&FieldTable>) -> Vec<CompactString> {
    let keys = headers.and_then(|headers| headers.get("CC")).and_then(FieldValue::as_array);
    keys.unwrap_or_default().iter().filter_map(|key| key.as_str().map(Into::into)).collect()
}
