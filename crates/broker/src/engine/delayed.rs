//! Messages that wait at an exchange until their time has come.
//!
//! ```text
//!   publish --> x-delayed-message: waits (exchange/schedule.rs); in the log as a message of the exchange's own number
//!   due     --> routed as if published there now; in the log the end of the one stands behind its copies
//! ```
//! As of dead letters, copy and end go in one batch: a crash loses neither.

use std::rc::Rc;

use warren_amqp::{FieldValue, RawProperties};

use super::Engine;
use super::publish::{carbon_copies, without_bcc};
use crate::channel::Publish;
use crate::exchange::ExchangeKey;
use crate::exchange::delayed::{DELAY, over};
use crate::message::{Content, Entry, Message};

/// Messages released in one go. Then others have their turn.
const RELEASED_MAX: usize = 4096;

impl Engine {
    /// Keeps a message where routing it has found that it is to wait.
    pub(super) fn delay(&mut self, publish: &Publish) {
        for (key, delay_ms) in std::mem::take(&mut self.delaying) {
            let due_ms = self.now_ms.saturating_add(delay_ms);
            let Some(content) = waiting(publish, delay_ms) else { continue };
            self.last_message_id += 1;
            let mut message = Message {
                id: self.last_message_id,
                exchange: self.exchange_name(publish),
                routing_key: publish.message.routing_key.clone(),
                content,
                expires_ms: due_ms,
                published_ms: 0,
                stored: None,
                deduplicated: false,
            };
            let Some(delays) = self.exchanges.get(key).and_then(|exchange| exchange.delays())
            else {
                continue;
            };
            let mut waits_for = 0;
            if let Some(store) = &mut self.store
                && delays.id != 0
            {
                waits_for = store.publish(&mut message, &[delays.id]);
            }
            self.kept = self.kept.max(Some(waits_for));
            let place = message.stored.map_or(0, |stored| stored.first);
            self.await_due(key, Rc::new(message), place);
        }
    }

    /// Lets a message wait until what is written as its `expires_ms`.
    pub(super) fn await_due(&mut self, key: ExchangeKey, message: Rc<Message>, place: u64) {
        let exchange = self.exchanges.get_mut(key);
        let Some(delays) = exchange.and_then(|exchange| exchange.delays_mut()) else { return };
        let expires_ms = message.expires_ms;
        delays.schedule.push(Entry {
            message,
            place,
            position: 0,
            redelivered: false,
            priority: 0,
            delivery_count: 0,
            expires_ms,
        });
        self.wake_at_first(key);
    }

    fn wake_at_first(&mut self, key: ExchangeKey) {
        let exchange = self.exchanges.get_mut(key);
        let Some(delays) = exchange.and_then(|exchange| exchange.delays_mut()) else { return };
        let next_ms = delays.schedule.next_ms();
        let before_ms = std::mem::replace(&mut delays.alarm_ms, next_ms);
        if before_ms != next_ms {
            before_ms.map(|ms| self.delayed.remove(&(ms, key)));
            next_ms.map(|ms| self.delayed.insert((ms, key)));
        }
    }

    /// Routes messages whose time has come.
    pub(super) fn release_due(&mut self) {
        for _ in 0..RELEASED_MAX {
            let Some((due_ms, key)) = self.delayed.first().copied() else { return };
            if self.now_ms < due_ms {
                return;
            }
            let exchange = self.exchanges.get_mut(key);
            let delays = exchange.and_then(|exchange| exchange.delays_mut());
            let Some(delays) = delays else {
                self.delayed.pop_first();
                continue;
            };
            let entry = delays.schedule.pop_due(self.now_ms);
            self.wake_at_first(key);
            if let Some(entry) = entry {
                self.at_once(|engine| {
                    engine.route_delayed(key, &entry.message);
                    engine.forget_all([entry.place]);
                });
            }
        }
    }

    fn route_delayed(&mut self, key: ExchangeKey, message: &Message) {
        let Some(exchange) = self.exchanges.get(key) else { return };
        let mut publish = Publish {
            vhost: exchange.vhost.key,
            exchange: Some(key),
            message: Rc::new(Message::new(message.routing_key.clone(), message.content.clone())),
            more_keys: Vec::new(),
            mandatory: false,
            immediate: false,
        };
        if let Some(headers) = RawProperties::new(message.content.properties()).headers() {
            // Of the right types: they were read when it came.
            let _ = carbon_copies(headers, "CC", &mut publish.more_keys);
            if let Ok(true) = carbon_copies(headers, "BCC", &mut publish.more_keys)
                && let Ok(content) = without_bcc(&message.content)
            {
                Rc::make_mut(&mut publish.message).content = content;
            }
        }
        self.released = Some(key);
        self.route(&publish);
        self.released = None;
        if !self.targets.is_empty() {
            self.enter_queues_as(publish, message.exchange.clone());
        }
    }

    /// An exchange has gone, and with it what waited there.
    pub(super) fn forget_delayed(&mut self, key: ExchangeKey, alarm_ms: Option<u64>) {
        alarm_ms.map(|ms| self.delayed.remove(&(ms, key)));
    }
}

/// A message as it waits: marked as one that has waited, and with all its keys.
fn waiting(publish: &Publish, delay_ms: u64) -> Option<Content> {
    let properties = RawProperties::new(publish.message.content.properties());
    let mut copies = Vec::new();
    let _ = carbon_copies(properties.headers()?, "CC", &mut copies);
    let mut properties = properties.to_properties().ok()?;
    let headers = properties.headers.get_or_insert_default();
    headers.insert(DELAY, over(delay_ms));
    let hidden = publish.more_keys.iter().filter(|key| !copies.contains(key));
    let hidden: Vec<FieldValue> = hidden.map(|key| key.as_str().into()).collect();
    if !hidden.is_empty() {
        headers.insert("BCC", hidden);
    }
    Some(Content::with_properties(&properties, publish.message.content.body()))
}
