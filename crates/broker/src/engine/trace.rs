//! The firehose: copies of what passes through a virtual host, for who watches.
//!
//! While a virtual host is traced, every publish and every delivery in it is copied to its exchange
//! `amq.rabbitmq.trace`, with headers that tell what happened. Copies are notes: they are gathered, and published with
//! the events at the end of the turn, so that nobody who reports enters the engine again. With no virtual host
//! traced, all this costs one look at a flag.

use std::rc::Rc;

use compact_str::{CompactString, format_compact};
use warren_amqp::{BasicProperties, FieldTable, FieldValue, RawProperties};

use super::Engine;
use super::deaths::copied_keys;
use crate::channel::{ChannelKey, Publish};
use crate::exchange::{ExchangeKey, TRACE};
use crate::message::{Content, Entry, Message};
use crate::queue::QueueKey;

/// What this server is called where RabbitMQ names the node of a cluster.
pub(crate) const NODE: &str = "warren@localhost";

/// What is told of a message.
struct Tap {
    key: CompactString,
    exchange: Rc<str>,
    keys: Vec<CompactString>,
    content: Content,
    redelivered: Option<bool>,
    routed: Option<FieldValue>,
}

impl Engine {
    /// Virtual hosts have changed: whether one of them is traced.
    pub(crate) fn refresh_tracing(&mut self) {
        self.traced = self.tenancy.vhosts.values().any(|vhost| vhost.tracing);
    }

    /// A publish was routed to `self.targets`.
    pub(super) fn trace_publish(&mut self, channel: ChannelKey, publish: &Publish) {
        let exchange = publish.exchange.and_then(|key| self.exchanges.get(key));
        let exchange = exchange.map(|exchange| exchange.name.clone()).unwrap_or_default();
        let mut keys = vec![publish.message.routing_key.clone()];
        keys.extend(publish.more_keys.iter().cloned());
        let routed: Vec<CompactString> = if publish.exchange.is_none() {
            // RabbitMQ's default exchange does not ask whether there is such a queue.
            let mut names = keys.clone();
            names.sort_unstable();
            names.dedup();
            names
        } else {
            let queues = self.targets.iter().filter_map(|key| self.queues.get(*key));
            queues.map(|queue| queue.name.clone()).collect()
        };
        let key = format_compact!("publish.{exchange}");
        let content = publish.message.content.clone();
        let routed = Some(texts(&routed));
        self.trace(channel, &Tap { key, exchange, keys, content, redelivered: None, routed });
    }

    /// A message goes from a queue to a consumer, or to who asked for it.
    pub(super) fn trace_deliver(&mut self, channel: ChannelKey, queue: QueueKey, entry: &Entry) {
        let message = &entry.message;
        let Some(queue) = self.queues.get(queue) else { return };
        let key = format_compact!("deliver.{}", queue.name);
        let headers = RawProperties::new(message.content.properties()).headers();
        let mut keys = vec![message.routing_key.clone()];
        keys.extend(copied_keys(headers));
        let (exchange, content) = (message.exchange.clone(), message.content.clone());
        let redelivered = Some(entry.redelivered);
        self.trace(channel, &Tap { key, exchange, keys, content, redelivered, routed: None });
    }

    fn trace(&mut self, channel: ChannelKey, tap: &Tap) {
        if &*tap.exchange == TRACE {
            return;
        }
        let Some(channel) = self.channels.get(channel) else { return };
        let Some(connection) = self.connections.get(channel.connection) else { return };
        let vhost = &connection.vhost;
        if !self.tenancy.vhosts.get(&*vhost.name).is_some_and(|vhost| vhost.tracing) {
            return;
        }
        let Some(firehose) = self.exchange_key(vhost.key, TRACE) else { return };
        let properties = RawProperties::new(tap.content.properties()).to_properties();
        let mut headers = FieldTable::new()
            .with("exchange_name", &*tap.exchange)
            .with("routing_keys", texts(&tap.keys))
            .with("properties", FieldValue::Table(table(properties.unwrap_or_default())))
            .with("node", NODE);
        if let Some(redelivered) = tap.redelivered {
            headers.push("redelivered", FieldValue::I32(redelivered.into()));
        }
        headers.push("vhost", &*vhost.name);
        headers.push("connection", connection.name().as_str());
        headers.push("channel", FieldValue::I32(channel.number.into()));
        headers.push("user", connection.user.as_str());
        if let Some(routed) = &tap.routed {
            headers.push("routed_queues", routed.clone());
        }
        let properties = BasicProperties { headers: Some(headers), ..BasicProperties::new() };
        self.note(firehose, tap.key.clone(), &properties, tap.content.body());
    }

    /// Keeps a message to publish at the end of the turn, if anybody may get it.
    pub(super) fn note(
        &mut self,
        exchange: ExchangeKey,
        routing_key: CompactString,
        properties: &BasicProperties,
        body: &[u8],
    ) {
        let Some(found) = self.exchanges.get(exchange) else { return };
        if !found.has_bindings() {
            return;
        }
        let mut bytes = Vec::new();
        properties.encode(&mut bytes);
        let properties_bytes = bytes.len();
        bytes.extend_from_slice(body);
        self.notes.push(Publish {
            vhost: found.vhost.key,
            exchange: Some(exchange),
            message: Rc::new(Message::new(routing_key, Content::new(bytes, properties_bytes))),
            more_keys: Vec::new(),
            mandatory: false,
            immediate: false,
        });
    }

    /// How much is noted.
    pub(crate) fn noted(&self) -> usize {
        self.notes.len()
    }

    /// Forgets what was noted since then.
    pub(crate) fn forget_notes(&mut self, noted: usize) {
        self.notes.truncate(noted);
    }

    /// Publishes what was noted.
    pub(super) fn send_notes(&mut self) {
        if self.notes.is_empty() {
            return;
        }
        for publish in std::mem::take(&mut self.notes) {
            self.route(&publish);
            if !self.targets.is_empty() {
                self.enter_queues(publish);
            }
        }
    }
}

/// Strings, as an array.
pub(super) fn texts(texts: &[CompactString]) -> FieldValue {
    FieldValue::Array(texts.iter().map(|text| text.as_str().into()).collect())
}

/// Properties as RabbitMQ puts them in a table: those that are set, the last first, numbers all of one type.
fn table(properties: BasicProperties) -> FieldTable {
    let mut table = FieldTable::new();
    let number = |value: u64| match i32::try_from(value) {
        Ok(value) => FieldValue::I32(value),
        // RabbitMQ cuts it off.
        Err(_) => FieldValue::I64(value as i64),
    };
    let text = |value: Option<String>| value.map(|value| value.as_str().into());
    let all: [(&str, Option<FieldValue>); 13] = [
        ("app_id", text(properties.app_id)),
        ("user_id", text(properties.user_id)),
        ("type", text(properties.kind)),
        ("timestamp", properties.timestamp.map(number)),
        ("message_id", text(properties.message_id)),
        ("expiration", text(properties.expiration)),
        ("reply_to", text(properties.reply_to)),
        ("correlation_id", text(properties.correlation_id)),
        ("priority", properties.priority.map(|value| number(value.into()))),
        ("delivery_mode", properties.delivery_mode.map(|value| number(value.into()))),
        ("headers", properties.headers.map(FieldValue::Table)),
        ("content_encoding", text(properties.content_encoding)),
        ("content_type", text(properties.content_type)),
    ];
    for (name, value) in all {
        if let Some(value) = value {
            table.push(name, value);
        }
    }
    table
}
