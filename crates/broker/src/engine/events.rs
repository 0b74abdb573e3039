//! What happens in the broker, for who wants to know: messages in the exchange `amq.rabbitmq.event` of the virtual host
//! `/`, as RabbitMQ's plugin of that name publishes them.
//!
//! ```text
//!   queue.created  exchange.deleted  connection.closed  user.authentication.failure  alarm.set  ...
//! ```
//! An event is a message without a body: its routing key says what has happened, its headers to what. Like the copies
//! of the [firehose](super::trace), events are notes that are published at the end of the turn. While nothing is bound
//! to the exchange, an event costs one look at a flag. The parts: events of [`objects`], of [`clients`], and of what is
//! [configured](tenancy).

mod clients;
mod objects;
mod tenancy;
mod tls;

use warren_amqp::{BasicProperties, FieldTable, FieldValue};

use super::Engine;
use crate::connection::ConnectionKey;
use crate::erlang;
use crate::exchange::ExchangeKey;
use crate::queue::Queue;

/// Of the virtual host [`VHOST`](crate::tenancy::DEFAULT_VHOST), internal: what happens in the broker.
pub(crate) const EVENT: &str = "amq.rabbitmq.event";

/// Who does what is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Actor {
    /// The broker itself: time has passed, a connection has gone.
    #[default]
    Internal,
    /// A connection's user.
    Client(ConnectionKey),
    /// The operator, by the name that RabbitMQ's commands give.
    Operator(&'static str),
}

/// What `rabbitmqctl` calls itself.
pub(crate) const CLI: Actor = Actor::Operator("rmq-cli");
/// The same, where it deletes a queue.
pub(crate) const CLI_DELETES: Actor = Actor::Operator("cli_user");

#[derive(Default)]
pub(crate) struct Events {
    exchange: Option<ExchangeKey>,
    /// Something is bound to the exchange.
    watched: bool,
    actor: Actor,
}

impl Engine {
    /// Whether anybody gets events.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.events.watched
    }

    /// The exchange of events is there.
    pub(super) fn set_event_exchange(&mut self, exchange: ExchangeKey) {
        self.events.exchange = Some(exchange);
        self.refresh_watched(exchange);
    }

    /// The bindings of an exchange have changed, or it has gone.
    #[inline]
    pub(super) fn refresh_watched(&mut self, exchange: ExchangeKey) {
        if self.events.exchange == Some(exchange) {
            let found = self.exchanges.get(exchange);
            self.events.watched = found.is_some_and(|exchange| exchange.has_bindings());
        }
    }

    /// Does something of which no event tells: what is recovered has happened long ago.
    pub(super) fn in_silence(&mut self, work: impl FnOnce(&mut Self)) {
        let exchange = self.events.exchange.take();
        self.events.watched = false;
        work(self);
        if let Some(exchange) = exchange {
            self.set_event_exchange(exchange);
        }
    }

    /// Who does what is done from now on.
    #[inline]
    pub(crate) fn set_actor(&mut self, actor: Actor) {
        self.events.actor = actor;
    }

    /// Does something in another name.
    pub(crate) fn acting<T>(&mut self, actor: Actor, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.events.actor, actor);
        let done = work(self);
        self.events.actor = before;
        done
    }

    fn actor_name(&self) -> &str {
        match self.events.actor {
            Actor::Internal => "rmq-internal",
            Actor::Operator(name) => name,
            Actor::Client(key) => self.connections.get(key).map_or("", |client| &client.user),
        }
    }

    /// Headers that begin with who did it.
    fn done_by_actor(&self) -> FieldTable {
        FieldTable::new().with("user_who_performed_action", self.actor_name())
    }

    /// Tells of an event. Its headers stand in the order in which RabbitMQ has them.
    fn tell(&mut self, key: &'static str, headers: FieldTable) {
        let Some(exchange) = self.events.exchange else { return };
        let headers = headers.with("timestamp_in_ms", FieldValue::I64(self.now_ms as i64));
        let properties = BasicProperties {
            headers: Some(headers),
            delivery_mode: Some(2),
            timestamp: Some(self.now_ms / 1000),
            ..BasicProperties::new()
        };
        self.note(exchange, key.into(), &properties, &[]);
    }
}

/// A table's pairs, each as a text: Erlang's terms, for they are none of the types that headers have.
fn pairs(table: &FieldTable) -> FieldValue {
    let pairs = table.iter().map(|(key, value)| erlang::pair(key, value).as_str().into());
    FieldValue::Array(pairs.collect())
}

/// A number, of the one type that events have for numbers.
fn number(number: impl Into<i64>) -> FieldValue {
    FieldValue::I64(number.into())
}

/// What RabbitMQ calls the module that keeps a queue.
fn queue_module(queue: &Queue) -> &'static str {
    match queue.arguments.get("x-queue-type").and_then(|value| value.as_str()) {
        Some("quorum") => "rabbit_quorum_queue",
        Some("stream") => "rabbit_stream_queue",
        _ => "rabbit_classic_queue",
    }
}
