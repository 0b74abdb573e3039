//! Bindings come and go.

use std::rc::Rc;

use warren_amqp::FieldTable;

use super::super::Engine;
use super::{stored, table_bytes};
use crate::connection::ConnectionKey;
use crate::exception::Exception;
use crate::exchange::{Binding, Destination, ExchangeKey};
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
    pub(super) fn unbind_source(&mut self, source: ExchangeKey, binding: &Binding) {
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

    pub(super) fn forget_at_destination(&mut self, source: ExchangeKey, binding: &Binding) {
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
