//! Bindings come and go.

use std::rc::Rc;

use compact_str::CompactString;
use warren_amqp::FieldTable;

use super::super::Engine;
use super::{stored, table_bytes};
use crate::channel::Publish;
use crate::connection::ConnectionKey;
use crate::exception::Exception;
use crate::exchange::{Binding, Destination, ExchangeKey, Incoming};
use crate::store::{self, Definition};

impl Engine {
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
        let name = self.destination_name(destination);
        let Some((exchange, name)) = self.exchanges.get_mut(key).zip(name) else {
            return Ok(false);
        };
        if !exchange.bind(&binding, &name)? {
            return Ok(false);
        }
        self.routes.change();
        let history = exchange.history();
        if let Some(incoming) = self.incoming(destination) {
            incoming.insert((key, binding.clone()));
        }
        if let Some(definition) = self.durable_binding(key, &binding) {
            self.define(Definition::PutBinding(definition));
        }
        self.refresh_watched(key);
        self.tell_bound(key, &binding);
        for publish in history {
            self.hand_on(destination, publish);
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
        let unused = self.unbind_source(key, &binding);
        if self.is_watched()
            && let Some(name) = self.destination_name(destination)
        {
            self.tell_unbound(key, &binding, &name, unused.is_some());
        }
        unused.into_iter().for_each(|unused| self.remove_exchange(unused));
        Ok(())
    }

    /// Takes a binding away. The exchange it led from, if it is to go with its last binding.
    #[must_use]
    pub(super) fn unbind_source(
        &mut self,
        source: ExchangeKey,
        binding: &Binding,
    ) -> Option<ExchangeKey> {
        let definition = self.durable_binding(source, binding);
        let exchange = self.exchanges.get_mut(source)?;
        let binding = exchange.unbind(binding)?;
        self.routes.change();
        let unused = exchange.auto_delete && !exchange.has_bindings();
        if let Some(definition) = definition {
            self.define(Definition::DeleteBinding(definition));
        }
        self.forget_at_destination(source, &binding);
        self.refresh_watched(source);
        unused.then_some(source)
    }

    pub(super) fn forget_at_destination(&mut self, source: ExchangeKey, binding: &Rc<Binding>) {
        if let Some(incoming) = self.incoming(binding.destination) {
            incoming.remove(&(source, binding.clone()));
        }
    }

    /// What a binding leads to is called, if it is there.
    pub(in crate::engine) fn destination_name(
        &self,
        destination: Destination,
    ) -> Option<CompactString> {
        match destination {
            Destination::Queue(key) => self.queues.get(key).map(|queue| queue.name.clone()),
            Destination::Exchange(key) => {
                self.exchanges.get(key).map(|exchange| exchange.name.as_ref().into())
            }
        }
    }

    fn incoming(&mut self, destination: Destination) -> Option<&mut Incoming> {
        match destination {
            Destination::Queue(key) => self.queues.get_mut(key).map(|queue| &mut queue.bindings),
            Destination::Exchange(key) => {
                self.exchanges.get_mut(key).map(|exchange| &mut exchange.incoming)
            }
        }
    }

    /// Gives a message that an exchange has kept to a new destination.
    fn hand_on(&mut self, destination: Destination, publish: Publish) {
        match destination {
            Destination::Queue(key) => {
                self.targets.clear();
                self.targets.push(key);
            }
            Destination::Exchange(key) => {
                let there = Publish { exchange: Some(key), ..publish.clone() };
                self.route(&there);
            }
        }
        if !self.targets.is_empty() {
            self.enter_queues(publish);
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
