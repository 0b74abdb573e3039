//! Queues, exchanges, bindings and consumers come and go.

use warren_amqp::value::RawTable;
use warren_amqp::{FieldTable, FieldValue};

use super::super::Engine;
use super::{number, pairs, queue_module};
use crate::admin::{channel_pid, connection_pid};
use crate::exchange::{Binding, Destination, Exchange, ExchangeKey};
use crate::policy::Target;
use crate::queue::{Consumer, ConsumerKey, Queue, QueueKey};

impl Engine {
    pub(in crate::engine) fn tell_queue_created(&mut self, key: QueueKey) {
        if !self.is_watched() {
            return;
        }
        let Some(queue) = self.queues.get(key) else { return };
        let by = self.done_by_actor();
        let arguments = pairs(&queue.arguments);
        let exclusive = queue.owner.is_some();
        let module = queue_module(queue);
        let headers = match module {
            "rabbit_quorum_queue" => {
                by.with("arguments", arguments).with("type", module).with("exclusive", exclusive)
            }
            "rabbit_stream_queue" => by.with("type", module).with("arguments", arguments),
            _ => by
                .with("exclusive", exclusive)
                .with("owner_pid", queue.owner.map(connection_pid).unwrap_or_default().as_str())
                .with("arguments", arguments),
        };
        let headers = headers.with("auto_delete", queue.auto_delete).with("durable", queue.durable);
        let headers = named(headers, &queue.name, &queue.vhost.name);
        self.tell("queue.created", headers);
    }

    pub(in crate::engine) fn tell_queue_deleted(&mut self, queue: &Queue) {
        if self.is_watched() {
            let headers = named(self.done_by_actor(), &queue.name, &queue.vhost.name);
            self.tell("queue.deleted", headers);
        }
    }

    pub(in crate::engine) fn tell_exchange_created(&mut self, key: ExchangeKey) {
        if !self.is_watched() {
            return;
        }
        let Some(exchange) = self.exchanges.get(key) else { return };
        let (name, vhost) = (exchange.name.clone(), exchange.vhost.name.clone());
        let policy = self.tenancy.policy_for(&vhost, Target::Exchange, &name).policy;
        let policy = policy.map(|policy| policy.record.name.clone()).unwrap_or_default();
        let headers = self
            .done_by_actor()
            .with("policy", policy.as_str())
            .with("arguments", pairs(&exchange.arguments))
            .with("internal", exchange.internal)
            .with("auto_delete", exchange.auto_delete)
            .with("durable", exchange.durable)
            .with("type", exchange.kind.name());
        self.tell("exchange.created", named(headers, &name, &vhost));
    }

    /// The default exchange of a new virtual host, which is no exchange here: it is the queues' names.
    pub(super) fn tell_default_exchange_created(&mut self, vhost: &str) {
        let headers = self
            .done_by_actor()
            .with("policy", "")
            .with("arguments", FieldValue::Array(Vec::new()))
            .with("internal", false)
            .with("auto_delete", false)
            .with("durable", true)
            .with("type", "direct");
        self.tell("exchange.created", named(headers, "", vhost));
    }

    /// An exchange is about to go.
    pub(in crate::engine) fn tell_exchange_deleted(&mut self, key: ExchangeKey) {
        if self.is_watched()
            && let Some(exchange) = self.exchanges.get(key)
        {
            let headers = named(self.done_by_actor(), &exchange.name, &exchange.vhost.name);
            self.tell("exchange.deleted", headers);
        }
    }

    /// The default exchange goes with its virtual host.
    pub(in crate::engine) fn tell_default_exchange_deleted(&mut self, vhost: &str) {
        if self.is_watched() {
            self.tell("exchange.deleted", named(self.done_by_actor(), "", vhost));
        }
    }

    pub(in crate::engine) fn tell_bound(&mut self, source: ExchangeKey, binding: &Binding) {
        if !self.is_watched() {
            return;
        }
        let Some(destination) = self.destination_name(binding.destination) else { return };
        let Some(source) = self.exchanges.get(source) else { return };
        let headers = self.of_binding(source, binding, &destination);
        self.tell("binding.created", headers);
    }

    /// A binding has gone, from an exchange that is still there. `unused`: it goes too, and is told of first.
    pub(in crate::engine) fn tell_unbound(
        &mut self,
        source: ExchangeKey,
        binding: &Binding,
        destination: &str,
        unused: bool,
    ) {
        if !self.is_watched() {
            return;
        }
        if unused {
            self.tell_exchange_deleted(source);
        }
        let Some(source) = self.exchanges.get(source) else { return };
        let headers = self.of_binding(source, binding, destination);
        self.tell("binding.deleted", headers);
    }

    /// A binding has gone with the exchange it led from.
    pub(in crate::engine) fn tell_binding_gone(&mut self, source: &Exchange, binding: &Binding) {
        if self.is_watched()
            && let Some(destination) = self.destination_name(binding.destination)
        {
            let headers = self.of_binding(source, binding, &destination);
            self.tell("binding.deleted", headers);
        }
    }

    fn of_binding(&self, source: &Exchange, binding: &Binding, destination: &str) -> FieldTable {
        let kind = match binding.destination {
            Destination::Queue(_) => "queue",
            Destination::Exchange(_) => "exchange",
        };
        let arguments = RawTable::new(&binding.arguments).to_table().unwrap_or_default();
        self.done_by_actor()
            .with("vhost", &*source.vhost.name)
            .with("arguments", pairs(&arguments))
            .with("routing_key", binding.routing_key.as_str())
            .with("destination_kind", kind)
            .with("destination_name", destination)
            .with("source_kind", "exchange")
            .with("source_name", &*source.name)
    }

    pub(in crate::engine) fn tell_consumer_created(
        &mut self,
        key: ConsumerKey,
        arguments: &FieldTable,
    ) {
        if !self.is_watched() {
            return;
        }
        let Some(consumer) = self.consumers.get(key) else { return };
        let Some(queue) = self.queues.get(consumer.queue) else { return };
        let headers = self
            .done_by_actor()
            .with("arguments", pairs(arguments))
            .with("prefetch_count", number(consumer.prefetch));
        let headers = self
            .of_consumer(headers, consumer, queue)
            .with("ack_required", !consumer.no_ack)
            .with("exclusive", consumer.exclusive)
            .with("consumer_tag", consumer.tag.as_str());
        self.tell("consumer.created", headers);
    }

    /// A consumer has gone, at its client's wish or with its channel.
    pub(in crate::engine) fn tell_consumer_ended(&mut self, consumer: &Consumer) {
        if !self.is_watched() {
            return;
        }
        let Some(queue) = self.queues.get(consumer.queue) else { return };
        let channel = self.channels.get(consumer.channel);
        let client = channel.and_then(|channel| self.connections.get(channel.connection));
        let user = client.map_or("", |client| &client.user);
        let headers = FieldTable::new().with("user_who_performed_action", user);
        let headers =
            self.of_consumer(headers, consumer, queue).with("consumer_tag", consumer.tag.as_str());
        self.tell("consumer.deleted", headers);
    }

    /// The consumers of a queue go with it.
    pub(in crate::engine) fn tell_consumers_deleted(&mut self, queue: &Queue) {
        if !self.is_watched() {
            return;
        }
        for key in &queue.consumers {
            let Some(consumer) = self.consumers.get(*key) else { continue };
            let headers = self
                .of_consumer(self.done_by_actor(), consumer, queue)
                .with("consumer_tag", consumer.tag.as_str());
            self.tell("consumer.deleted", headers);
        }
    }

    fn of_consumer(&self, headers: FieldTable, consumer: &Consumer, queue: &Queue) -> FieldTable {
        let channel = self.channels.get(consumer.channel);
        headers
            .with("queue", queue.name.as_str())
            .with("vhost", &*queue.vhost.name)
            .with("channel", channel.map(channel_pid).unwrap_or_default().as_str())
    }
}

/// Name and virtual host, as the headers of many events end.
pub(super) fn named(headers: FieldTable, name: &str, vhost: &str) -> FieldTable {
    headers.with("name", name).with("vhost", vhost)
}
