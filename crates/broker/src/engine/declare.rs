//! Exchanges, queues and bindings come and go.

use std::rc::Rc;

use warren_amqp::method::{exchange, queue};
use warren_amqp::{FieldTable, FieldValue, ReplyCode};

use super::Engine;
use crate::connection::ConnectionKey;
use crate::erlang;
use crate::exception::{Exception, resource};
use crate::exchange::{Binding, Destination, Exchange, ExchangeKey, Kind, PREDECLARED};
use crate::policy::Target;
use crate::queue::settings::{self, Settings};
use crate::queue::{Queue, QueueKey};
use crate::store::{self, Definition};
use crate::vhost::VhostRef;

/// What a queue is declared to be.
const QUEUE_TYPE: &str = "x-queue-type";
const ALTERNATE: &str = "alternate-exchange";

impl Engine {
    pub(crate) fn declare_exchange(
        &mut self,
        vhost: &VhostRef,
        declare: &exchange::Declare<'_>,
    ) -> Result<(), Exception> {
        let name = declare.exchange;
        if declare.passive {
            refuse_default(name)?;
            return self.find_exchange(vhost, name).map(drop);
        }
        let Some(kind) = Kind::parse(declare.kind) else {
            let text = format!("unknown exchange type '{}'", declare.kind);
            return Err(Exception::new(ReplyCode::COMMAND_INVALID, text));
        };
        refuse_default(name)?;
        if let Some(key) = self.exchange_key(vhost.key, name) {
            return self.check_equivalent_exchange(key, declare, kind.name());
        }
        refuse_reserved("exchange", name)?;
        check_arguments(&declare.arguments, "exchange", |key, _| Ok(key == ALTERNATE))?;
        let alternate = match declare.arguments.get(ALTERNATE) {
            None => None,
            Some(value) => match value.as_str() {
                Some(name) => Some(name.into()),
                None => {
                    let text = format!(
                        "invalid type '{}' for arg '{ALTERNATE}' in {}",
                        value.type_name(),
                        resource("exchange", name, vhost)
                    );
                    return Err(Exception::precondition(text));
                }
            },
        };
        let mut exchange = Exchange::new(vhost, name, kind);
        exchange.durable = declare.durable;
        exchange.auto_delete = declare.auto_delete;
        exchange.internal = declare.internal;
        exchange.arguments = declare.arguments.clone();
        exchange.alternate = alternate;
        if exchange.durable {
            self.define(Definition::PutExchange(store::ExchangeDefinition {
                vhost: vhost.name.as_ref().into(),
                name: name.into(),
                kind: kind.name().into(),
                auto_delete: exchange.auto_delete,
                internal: exchange.internal,
                arguments: table_bytes(&exchange.arguments).to_vec(),
            }));
        }
        self.insert_exchange(exchange);
        Ok(())
    }

    fn check_equivalent_exchange(
        &self,
        key: ExchangeKey,
        declare: &exchange::Declare<'_>,
        kind: &str,
    ) -> Result<(), Exception> {
        let Some(current) = self.exchanges.get(key) else { return Ok(()) };
        let what = resource("exchange", declare.exchange, &current.vhost);
        let differs = |argument: &str, received: &str, current: &str| {
            let text = format!("received '{received}' but current is '{current}'");
            Err(Exception::inequivalent(argument, &what, &text))
        };
        if kind != current.kind.name() {
            return differs("type", kind, current.kind.name());
        }
        for (argument, received, current) in [
            ("durable", declare.durable, current.durable),
            ("auto_delete", declare.auto_delete, current.auto_delete),
            ("internal", declare.internal, current.internal),
        ] {
            if received != current {
                return differs(argument, bool_text(received), bool_text(current));
            }
        }
        check_equivalent_argument(ALTERNATE, &what, &declare.arguments, &current.arguments)
    }

    pub(crate) fn delete_exchange(
        &mut self,
        vhost: &VhostRef,
        name: &str,
        if_unused: bool,
    ) -> Result<(), Exception> {
        refuse_default(name)?;
        if name.starts_with("amq.") {
            let what = resource("exchange", name, vhost);
            let text = format!("deletion of system {what} not allowed");
            return Err(Exception::refused(text));
        }
        let Some(key) = self.exchange_key(vhost.key, name) else { return Ok(()) };
        if if_unused && self.exchanges.get(key).is_some_and(Exchange::has_bindings) {
            let what = resource("exchange", name, vhost);
            return Err(Exception::precondition(format!("{what} in use")));
        }
        self.remove_exchange(key);
        Ok(())
    }

    pub(crate) fn remove_exchange(&mut self, key: ExchangeKey) {
        let Some(exchange) = self.exchanges.remove(key) else { return };
        if let Some(vhost) = self.vhosts.get_mut(exchange.vhost.key) {
            vhost.exchanges.remove(&exchange.name);
        }
        if exchange.durable {
            self.define(Definition::DeleteExchange {
                vhost: exchange.vhost.name.as_ref().into(),
                name: exchange.name.as_ref().into(),
            });
        }
        for binding in exchange.bindings() {
            self.forget_at_destination(key, binding);
        }
        for (source, binding) in exchange.incoming {
            self.unbind_source(source, &binding);
        }
    }

    pub(crate) fn find_exchange(
        &self,
        vhost: &VhostRef,
        name: &str,
    ) -> Result<ExchangeKey, Exception> {
        let key = self.exchange_key(vhost.key, name);
        key.ok_or_else(|| Exception::not_found("exchange", name, vhost))
    }

    /// The exchange that a binding leads from.
    pub(crate) fn find_source(
        &self,
        vhost: &VhostRef,
        name: &str,
    ) -> Result<ExchangeKey, Exception> {
        refuse_default(name)?;
        self.find_exchange(vhost, name)
    }

    pub(crate) fn find_queue(
        &self,
        vhost: &VhostRef,
        name: &str,
        connection: ConnectionKey,
    ) -> Result<QueueKey, Exception> {
        let key = self.queue_key(vhost.key, name);
        let key = key.ok_or_else(|| Exception::not_found("queue", name, vhost))?;
        self.check_owner(key, connection)?;
        Ok(key)
    }

    /// Refuses a queue that is another connection's own.
    fn check_owner(&self, key: QueueKey, connection: ConnectionKey) -> Result<(), Exception> {
        match self.queues.get(key) {
            Some(Queue { owner: Some(owner), name, vhost, .. }) if *owner != connection => {
                Err(locked(name, vhost))
            }
            _ => Ok(()),
        }
    }

    /// Declares a queue whose name has been made up already if the client gave none. Its key, and whether
    /// `name` is ours (and may begin with `amq.`).
    pub(crate) fn declare_queue(
        &mut self,
        vhost: &VhostRef,
        connection: ConnectionKey,
        name: &str,
        generated: bool,
        declare: &queue::Declare<'_>,
    ) -> Result<QueueKey, Exception> {
        if declare.passive {
            return self.find_queue(vhost, name, connection);
        }
        // Before anything else: a queue that we have named cannot be declared by its name again.
        if !generated {
            refuse_reserved("queue", name)?;
        }
        if let Some(key) = self.queue_key(vhost.key, name) {
            self.check_equivalent_queue(key, connection, name, declare)?;
            self.touch(key);
            return Ok(key);
        }
        let what = resource("queue", name, vhost);
        let kind = check_queue_arguments(&what, &declare.arguments)?;
        if kind == "quorum" {
            for (wrong, property) in [
                (!declare.durable, "non-durable"),
                (declare.exclusive, "exclusive-owner"),
                (declare.auto_delete, "auto-delete"),
            ] {
                if wrong {
                    return Err(Exception::precondition(format!(
                        "invalid property '{property}' for {what}"
                    )));
                }
            }
        }
        self.check_queue_limit(vhost, name)?;
        self.last_queue_id += 1;
        let mut queue = Queue::new(self.last_queue_id, vhost, name);
        queue.durable = declare.durable;
        queue.auto_delete = declare.auto_delete;
        queue.owner = declare.exclusive.then_some(connection);
        queue.arguments = declare.arguments.clone();
        if stored(&queue) {
            self.define(Definition::PutQueue(store::QueueDefinition {
                id: queue.id,
                vhost: vhost.name.as_ref().into(),
                name: name.into(),
                auto_delete: queue.auto_delete,
                arguments: table_bytes(&queue.arguments).to_vec(),
            }));
        }
        let key = self.insert_queue(queue);
        self.refresh_queue(key);
        if declare.exclusive
            && let Some(connection) = self.connections.get_mut(connection)
        {
            connection.exclusive_queues.push(key);
        }
        Ok(key)
    }

    fn check_equivalent_queue(
        &self,
        key: QueueKey,
        connection: ConnectionKey,
        name: &str,
        declare: &queue::Declare<'_>,
    ) -> Result<(), Exception> {
        let Some(current) = self.queues.get(key) else { return Ok(()) };
        if current.owner != declare.exclusive.then_some(connection) {
            return Err(locked(name, &current.vhost));
        }
        let what = resource("queue", name, &current.vhost);
        for (argument, received, current) in [
            ("durable", declare.durable, current.durable),
            ("auto_delete", declare.auto_delete, current.auto_delete),
        ] {
            if received != current {
                let text = format!(
                    "received '{}' but current is '{}'",
                    bool_text(received),
                    bool_text(current)
                );
                return Err(Exception::inequivalent(argument, &what, &text));
            }
        }
        // No type is the type `classic`, as in RabbitMQ since 3.12.
        if queue_type(&declare.arguments) == queue_type(&current.arguments) {
            settings::check_equivalent(&what, &declare.arguments, &current.arguments)?;
            check_queue_arguments(&what, &declare.arguments).map(drop)
        } else {
            check_equivalent_argument(QUEUE_TYPE, &what, &declare.arguments, &current.arguments)
        }
    }

    /// Works out anew what holds for a queue: it is new, or a policy has changed.
    pub(crate) fn refresh_queue(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get(key) else { return };
        let kind = queue_type(&queue.arguments).unwrap_or("classic").to_owned();
        let target = if kind == "quorum" { Target::QuorumQueue } else { Target::ClassicQueue };
        let policy = self.tenancy.policy_for(&queue.vhost.name, target, &queue.name).definition();
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.settings = Settings::new(&kind, &queue.arguments, &policy);
        queue.limited = queue.settings.is_limited();
        self.touch(key);
        self.drop_surplus(key);
        self.mark(key);
    }

    /// Policies have changed.
    pub(crate) fn refresh_queues(&mut self) {
        for key in self.queues.keys() {
            self.refresh_queue(key);
        }
    }

    /// Deletes a queue; how many messages were ready. A queue that is not there is deleted with success.
    pub(crate) fn delete_queue(
        &mut self,
        vhost: &VhostRef,
        connection: ConnectionKey,
        delete: &queue::Delete<'_>,
        name: &str,
    ) -> Result<u32, Exception> {
        let Some(key) = self.queue_key(vhost.key, name) else { return Ok(0) };
        self.check_owner(key, connection)?;
        let Some(queue) = self.queues.get(key) else { return Ok(0) };
        let refused = |why: &str| {
            let what = resource("queue", name, vhost);
            Err(Exception::precondition(format!("{what} {why}")))
        };
        if delete.if_unused && !queue.consumers.is_empty() {
            return refused("in use");
        }
        if delete.if_empty && !queue.is_empty() {
            return refused("not empty");
        }
        let count = queue.len() as u32;
        self.remove_queue(key);
        Ok(count)
    }

    /// Removes a queue with its messages and bindings; its consumers are told.
    pub(crate) fn remove_queue(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.remove(key) else { return };
        if let Some(vhost) = self.vhosts.get_mut(queue.vhost.key) {
            vhost.queues.remove(&queue.name);
        }
        if let Some(owner) = queue.owner
            && let Some(connection) = self.connections.get_mut(owner)
        {
            connection.exclusive_queues.retain(|other| *other != key);
        }
        if stored(&queue) {
            self.define(Definition::DeleteQueue(queue.id));
        }
        for (source, binding) in &queue.bindings {
            self.unbind_source(*source, binding);
        }
        for consumer in queue.consumers {
            self.cancel_by_server(consumer);
        }
    }

    /// Purges a queue; how many messages were ready.
    pub(crate) fn purge_queue(&mut self, key: QueueKey) -> u32 {
        let Some(queue) = self.queues.get_mut(key) else { return 0 };
        let count = queue.len() as u32;
        let entries = queue.ready.drain();
        let (id, durable) = (queue.id, stored(queue));
        if let Some(store) = &mut self.store
            && durable
        {
            for entry in entries.filter(|entry| entry.message.stored) {
                store.ack(id, entry.message.id);
            }
        }
        count
    }

    /// Adds a binding. False when it is there already.
    pub(crate) fn bind(
        &mut self,
        key: ExchangeKey,
        destination: Destination,
        routing_key: &str,
        arguments: &FieldTable,
    ) -> Result<bool, Exception> {
        let binding = Rc::new(Binding {
            destination,
            routing_key: routing_key.into(),
            arguments: table_bytes(arguments),
        });
        let Some(exchange) = self.exchanges.get_mut(key) else { return Ok(false) };
        if !exchange.bind(&binding)? {
            return Ok(false);
        }
        match destination {
            Destination::Queue(queue) => {
                if let Some(queue) = self.queues.get_mut(queue) {
                    queue.bindings.push((key, binding.clone()));
                }
            }
            Destination::Exchange(exchange) => {
                if let Some(exchange) = self.exchanges.get_mut(exchange) {
                    exchange.incoming.push((key, binding.clone()));
                }
            }
        }
        if let Some(definition) = self.durable_binding(key, &binding) {
            self.define(Definition::PutBinding(definition));
        }
        Ok(true)
    }

    /// Takes a binding away, if it is there.
    pub(crate) fn unbind(
        &mut self,
        connection: ConnectionKey,
        key: ExchangeKey,
        destination: Destination,
        routing_key: &str,
        arguments: &FieldTable,
    ) -> Result<(), Exception> {
        let binding = Binding {
            destination,
            routing_key: routing_key.into(),
            arguments: table_bytes(arguments),
        };
        if !self.exchanges.get(key).is_some_and(|exchange| exchange.has_binding(&binding)) {
            return Ok(());
        }
        if let Destination::Queue(queue) = destination {
            self.check_owner(queue, connection)?;
        }
        self.forget_at_destination(key, &binding);
        self.unbind_source(key, &binding);
        Ok(())
    }

    /// Takes a binding away at its source; an exchange that is to go with its last binding goes.
    fn unbind_source(&mut self, source: ExchangeKey, binding: &Binding) {
        let definition = self.durable_binding(source, binding);
        let Some(exchange) = self.exchanges.get_mut(source) else { return };
        if !exchange.unbind(binding) {
            return;
        }
        let unused = exchange.auto_delete && !exchange.has_bindings();
        if let Some(definition) = definition {
            self.define(Definition::DeleteBinding(definition));
        }
        if unused {
            self.remove_exchange(source);
        }
    }

    fn forget_at_destination(&mut self, source: ExchangeKey, binding: &Binding) {
        let list = match binding.destination {
            Destination::Queue(key) => self.queues.get_mut(key).map(|queue| &mut queue.bindings),
            Destination::Exchange(key) => {
                self.exchanges.get_mut(key).map(|exchange| &mut exchange.incoming)
            }
        };
        if let Some(list) = list {
            list.retain(|(key, other)| *key != source || **other != *binding);
        }
    }

    /// How the store knows a binding; `None` when one of its ends is not durable.
    fn durable_binding(
        &self,
        source: ExchangeKey,
        binding: &Binding,
    ) -> Option<store::BindingDefinition> {
        let source = self.exchanges.get(source).filter(|exchange| exchange.durable)?;
        let (destination, to_queue) = match binding.destination {
            Destination::Queue(key) => {
                (self.queues.get(key).filter(|queue| stored(queue))?.name.to_string(), true)
            }
            Destination::Exchange(key) => (
                self.exchanges.get(key).filter(|exchange| exchange.durable)?.name.to_string(),
                false,
            ),
        };
        Some(store::BindingDefinition {
            vhost: source.vhost.name.as_ref().into(),
            source: source.name.as_ref().into(),
            destination,
            to_queue,
            routing_key: binding.routing_key.to_string(),
            arguments: binding.arguments.to_vec(),
        })
    }
}

/// Whether a queue and its messages outlive the process. An exclusive one does not outlive its connection.
pub(super) fn stored(queue: &Queue) -> bool {
    queue.durable && queue.owner.is_none()
}

/// Whether the broker declares an exchange by itself.
pub(super) fn is_predeclared(name: &str) -> bool {
    PREDECLARED.iter().any(|(other, _)| *other == name)
}

/// Refuses to change the default exchange, or its bindings.
pub(crate) fn refuse_default(exchange: &str) -> Result<(), Exception> {
    match exchange {
        "" => Err(Exception::refused("operation not permitted on the default exchange")),
        _ => Ok(()),
    }
}

fn refuse_reserved(kind: &str, name: &str) -> Result<(), Exception> {
    if name.starts_with("amq.") {
        let text = format!("{kind} name '{name}' contains reserved prefix 'amq.*'");
        return Err(Exception::refused(text));
    }
    Ok(())
}

fn locked(name: &str, vhost: &VhostRef) -> Exception {
    let text = format!(
        "cannot obtain exclusive access to locked {}. It could be originally declared on another connection or the \
         exclusive property value does not match that of the original declaration.",
        resource("queue", name, vhost)
    );
    Exception::new(ReplyCode::RESOURCE_LOCKED, text)
}

fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn queue_type(arguments: &FieldTable) -> Option<&str> {
    match arguments.get(QUEUE_TYPE) {
        None => Some("classic"),
        Some(value) => value.as_str(),
    }
}

/// The type of queue that is asked for.
fn check_queue_arguments<'a>(what: &str, arguments: &'a FieldTable) -> Result<&'a str, Exception> {
    if let Some(value) = arguments.get(QUEUE_TYPE) {
        match value.as_str() {
            Some("classic" | "quorum") => {}
            Some("stream") => {
                return Err(Exception::not_implemented(format!(
                    "queue type 'stream' for {what} is not available"
                )));
            }
            other => {
                let why = match other {
                    Some(other) => erlang::quoted(&format!("unsupported queue type '{other}'")),
                    None => format!("{{unacceptable_type,{}}}", value.type_name()),
                };
                return Err(Exception::precondition(format!(
                    "invalid arg '{QUEUE_TYPE}' for {what}: {why}"
                )));
            }
        }
    }
    let kind = queue_type(arguments).unwrap_or("classic");
    settings::check(what, kind, arguments)?;
    Ok(kind)
}

/// Refuses what would have to change behaviour and does not: to ignore an argument would be to lie.
pub(super) fn check_arguments<'a>(
    arguments: &'a FieldTable,
    kind: &str,
    mut known: impl FnMut(&'a str, &'a FieldValue) -> Result<bool, Exception>,
) -> Result<(), Exception> {
    for (key, value) in arguments.iter() {
        if !known(key, value)? && (key.starts_with("x-") || key == ALTERNATE) {
            return Err(Exception::not_implemented(format!(
                "{kind} argument '{key}' is not available"
            )));
        }
    }
    Ok(())
}

fn check_equivalent_argument(
    argument: &str,
    what: &str,
    received: &FieldTable,
    current: &FieldTable,
) -> Result<(), Exception> {
    let (received, current) = (received.get(argument), current.get(argument));
    let equal = match (received, current) {
        (Some(one), Some(other)) => {
            one == other || (one.as_i64().is_some() && one.as_i64() == other.as_i64())
        }
        (None, None) => true,
        _ => false,
    };
    if equal {
        return Ok(());
    }
    let text = format!("received {} but current is {}", value_text(received), value_text(current));
    Err(Exception::inequivalent(argument, what, &text))
}

fn value_text(value: Option<&FieldValue>) -> String {
    match value {
        None => "none".into(),
        Some(value) => {
            let text = match (value.as_str(), value.as_i64()) {
                (Some(text), _) => text.to_owned(),
                (None, Some(number)) => number.to_string(),
                _ => format!("{value:?}"),
            };
            format!("the value '{text}' of type '{}'", value.type_name())
        }
    }
}

/// The encoded pairs of a table, without the length in front.
fn table_bytes(table: &FieldTable) -> Rc<[u8]> {
    if table.is_empty() {
        return Rc::new([]);
    }
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    bytes[4..].into()
}
