//! Virtual hosts come and go.

use std::rc::Rc;

use warren_amqp::{FieldTable, ReplyCode};

use super::Engine;
use super::events::EVENT;
use crate::exception::Exception;
use crate::exchange::{Exchange, Kind, PREDECLARED, TRACE};
use crate::tenancy::DEFAULT_VHOST;
use crate::vhost::{Vhost, VhostKey, VhostRef};

impl Engine {
    /// The virtual host of this name, if it is there.
    pub(crate) fn find_vhost(&self, name: &str) -> Option<VhostRef> {
        let (name, key) = self.vhost_names.get_key_value(name)?;
        Some(VhostRef { key: *key, name: name.clone() })
    }

    /// Makes those that are declared and not there yet, each with the exchanges that all of them have. Those that it made.
    pub(crate) fn open_vhosts(&mut self) -> Vec<VhostKey> {
        let missing =
            self.tenancy.vhosts.keys().filter(|name| !self.vhost_names.contains_key(name.as_str()));
        let missing: Vec<Rc<str>> = missing.map(|name| name.as_str().into()).collect();
        let mut made = Vec::with_capacity(missing.len());
        for name in missing {
            let key = self.vhosts.insert(Vhost::default());
            self.vhost_names.insert(name.clone(), key);
            let vhost = VhostRef { key, name };
            for (name, kind) in PREDECLARED {
                // None of these types needs an argument.
                let Ok(mut exchange) = Exchange::new(&vhost, name, *kind, FieldTable::new()) else {
                    continue;
                };
                exchange.internal = *name == TRACE;
                self.insert_exchange(exchange);
            }
            if &*vhost.name == DEFAULT_VHOST
                && let Ok(mut exchange) =
                    Exchange::new(&vhost, EVENT, Kind::Topic, FieldTable::new())
            {
                exchange.internal = true;
                let key = self.insert_exchange(exchange);
                self.set_event_exchange(key);
            }
            made.push(key);
        }
        made
    }

    /// Takes a virtual host away, with its connections, queues and exchanges. That it was declared is another matter.
    pub(crate) fn close_vhost(&mut self, key: VhostKey) {
        let named = self.vhost_names.iter().find(|(_, other)| **other == key);
        let Some(name) = named.map(|(name, _)| name.clone()) else { return };
        let text = format!("vhost '{name}' is deleted");
        let exception = Exception::new(ReplyCode::CONNECTION_FORCED, text);
        for connection in self.connections.keys() {
            if self.connections.get(connection).is_some_and(|other| other.vhost.key == key) {
                self.force_close(connection, &exception);
            }
        }
        let Some(vhost) = self.vhosts.get_mut(key) else { return };
        let queues: Vec<_> = vhost.queues.values().copied().collect();
        let exchanges: Vec<_> = vhost.exchanges.values().copied().collect();
        for queue in queues {
            self.remove_queue(queue);
        }
        for exchange in exchanges {
            self.tell_exchange_deleted(exchange);
            self.remove_exchange(exchange);
        }
        self.tell_default_exchange_deleted(&name);
        self.vhost_names.remove(&name);
        self.vhosts.remove(key);
    }
}
