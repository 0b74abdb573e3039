//! Messages that leave a queue without an acknowledgement, and where they go.
//!
//! They are gathered, and go at the end of the turn: what a dead letter pushes out of its target is gathered in
//! turn, so that chains of queues need no recursion. In the store's log the copy stands before the end of the
//! original, in one batch: a crash loses neither.

use compact_str::CompactString;
use warren_amqp::{BasicProperties, FieldTable, FieldValue, RawProperties};

use super::Engine;
use crate::channel::Publish;
use crate::message::{Content, Entry, Message};
use crate::queue::QueueKey;
use crate::vhost::VhostKey;

/// Dead letters of one turn. Then others have theirs.
const LETTERS_PER_TURN: usize = 4096;

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
        let Some(settings) = self.queues.get(queue) else { return Some(entry) };
        let (vhost, queue_name) = (settings.vhost.key, settings.name.clone());
        let settings = &settings.settings;
        let Some(exchange) = settings.dead_letter_exchange.clone() else { return Some(entry) };
        let routing_key = settings.dead_letter_routing_key.clone();
        let letter =
            Letter { vhost, queue, queue_name, exchange, routing_key, entry, reason, refused };
        self.letters.push_back(letter);
        None
    }

    /// Sends what was gathered. True when there is more.
    pub(super) fn send_letters(&mut self) -> bool {
        for _ in 0..LETTERS_PER_TURN {
            let Some(letter) = self.letters.pop_front() else { return false };
            self.send_letter(&letter);
            if !letter.refused {
                self.forget(letter.queue, &letter.entry);
            }
        }
        !self.letters.is_empty()
    }

    fn send_letter(&mut self, letter: &Letter) {
        let exchange = match letter.exchange.as_str() {
            "" => None,
            name => match self.exchange_key(letter.vhost, name) {
                Some(key) => Some(key),
                None => return,
            },
        };
        let message = &*letter.entry.message;
        let Ok(mut properties) = RawProperties::new(message.content.properties()).to_properties()
        else {
            return;
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
        if !self.targets.is_empty() {
            self.enter_queues(publish);
        }
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
