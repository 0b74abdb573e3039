//! Exchanges come and go.

use warren_amqp::method::exchange;

use super::super::Engine;
use super::super::events::EVENT;
use super::{
    ALTERNATE, bool_text, check_equivalent_argument, refuse_default, refuse_reserved, table_bytes,
};
use crate::exception::{Exception, resource};
use crate::exchange::{Exchange, ExchangeKey, Kind, PREDECLARED};
use crate::policy::Target;
use crate::store::{self, Definition};
use crate::vhost::VhostRef;

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
        let kind = Kind::find(declare.kind)?;
        refuse_default(name)?;
        if let Some(key) = self.exchange_key(vhost.key, name) {
            return self.check_equivalent_exchange(key, declare, kind.name());
        }
        refuse_reserved("exchange", name)?;
        if let Some(value) = declare.arguments.get(ALTERNATE)
            && value.as_str().is_none()
        {
            let text = format!(
                "invalid type '{}' for arg '{ALTERNATE}' in {}",
                value.type_name(),
                resource("exchange", name, vhost)
            );
            return Err(Exception::precondition(text));
        }
        let mut exchange = Exchange::new(vhost, name, kind, declare.arguments.clone())?;
        exchange.durable = declare.durable;
        exchange.auto_delete = declare.auto_delete;
        exchange.internal = declare.internal;
        let mut schedule = 0;
        if exchange.durable
            && let Some(delays) = exchange.delays_mut()
        {
            self.last_queue_id += 1;
            delays.id = self.last_queue_id;
            schedule = delays.id;
        }
        if exchange.durable {
            self.define(Definition::PutExchange(store::ExchangeDefinition {
                vhost: vhost.name.as_ref().into(),
                name: name.into(),
                kind: kind.name().into(),
                auto_delete: exchange.auto_delete,
                internal: exchange.internal,
                arguments: table_bytes(&exchange.arguments).to_vec(),
                schedule,
            }));
        }
        let key = self.insert_exchange(exchange);
        self.refresh_exchange(key);
        self.tell_exchange_created(key);
        Ok(())
    }

    /// What its arguments and policies say holds from now on. An argument goes before a policy.
    pub(crate) fn refresh_exchange(&mut self, key: ExchangeKey) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        let policy =
            self.tenancy.policy_for(&exchange.vhost.name, Target::Exchange, &exchange.name);
        let argument = exchange.arguments.get(ALTERNATE).and_then(|value| value.as_str());
        let definition = policy.definition();
        let alternate = argument.or_else(|| definition.get(ALTERNATE)?.as_str());
        exchange.alternate = alternate.map(Into::into);
        self.routes.change();
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
        self.tell_exchange_deleted(key);
        self.remove_exchange(key);
        Ok(())
    }

    /// Removes an exchange with its bindings, and others that go with their last bindings.
    pub(crate) fn remove_exchange(&mut self, key: ExchangeKey) {
        let mut unused = vec![key];
        // One after the other: chains of exchanges are as long as clients make them.
        while let Some(key) = unused.pop() {
            let Some(mut exchange) = self.exchanges.remove(key) else { continue };
            self.routes.change();
            if let Some(vhost) = self.vhosts.get_mut(exchange.vhost.key) {
                vhost.exchanges.remove(&exchange.name);
            }
            let delays = exchange.delays();
            self.forget_delayed(key, delays.and_then(|delays| delays.alarm_ms));
            if exchange.durable {
                self.define(Definition::DeleteExchange {
                    vhost: exchange.vhost.name.as_ref().into(),
                    name: exchange.name.as_ref().into(),
                    schedule: delays.map_or(0, |delays| delays.id),
                });
            }
            self.refresh_watched(key);
            if let Some(delays) = exchange.delays_mut() {
                let places = delays.schedule.clear();
                self.forget_all(places);
            }
            for binding in exchange.bindings() {
                self.forget_at_destination(key, binding);
                self.tell_binding_gone(&exchange, binding);
            }
            for (source, binding) in &exchange.incoming {
                let next = self.unbind_source(*source, binding);
                self.tell_unbound(*source, binding, &exchange.name, next.is_some());
                unused.extend(next);
            }
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
}

/// Whether the broker declares an exchange by itself.
pub(in crate::engine) fn is_predeclared(name: &str) -> bool {
    name == EVENT || PREDECLARED.iter().any(|(other, _)| *other == name)
}
