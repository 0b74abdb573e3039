//! What was declared, to be declared again.

use std::collections::HashMap;

use super::super::channel::Channel;
use super::super::connection::Connection;
use super::super::error::Error;
use super::super::options::{ExchangeOptions, QueueOptions};
use super::{Inner, is_passing};
use crate::FieldTable;

/// What was declared over a connection, in the order in which it was.
#[derive(Default)]
pub(super) struct Topology {
    exchanges: Vec<Exchange>,
    queues: Vec<Queue>,
    bindings: Vec<Binding>,
    /// The present names of queues that the server has named, by the names that they had first.
    names: HashMap<String, String>,
}

#[derive(Clone)]
struct Exchange {
    name: String,
    kind: String,
    options: ExchangeOptions,
}

#[derive(Clone)]
struct Queue {
    /// As the program knows it.
    name: String,
    /// The server gives it another name each time.
    server_named: bool,
    options: QueueOptions,
}

#[derive(Clone, PartialEq)]
pub(super) struct Binding {
    /// Otherwise an exchange.
    pub(super) to_queue: bool,
    pub(super) destination: String,
    pub(super) source: String,
    pub(super) routing_key: String,
    pub(super) arguments: FieldTable,
}

impl Topology {
    /// What the server calls a queue now.
    pub(super) fn name<'n>(&'n self, name: &'n str) -> &'n str {
        self.names.get(name).map_or(name, String::as_str)
    }

    /// A queue was declared, by a name or for the server to name.
    pub(super) fn add_queue(&mut self, asked: &str, name: &str, options: &QueueOptions) {
        if options.passive {
            return;
        }
        self.queues.retain(|queue| queue.name != name);
        let options = options.clone();
        let server_named = asked.is_empty();
        self.queues.push(Queue { name: name.to_owned(), server_named, options });
    }

    /// A queue has gone, by any of its names.
    pub(super) fn remove_queue(&mut self, name: &str) {
        let first = self.names.iter().find(|(_, now)| *now == name).map(|(first, _)| first.clone());
        let name = first.as_deref().unwrap_or(name);
        self.queues.retain(|queue| queue.name != name);
        self.bindings.retain(|binding| !(binding.to_queue && binding.destination == name));
        self.names.remove(name);
    }

    pub(super) fn add_exchange(&mut self, name: &str, kind: &str, options: &ExchangeOptions) {
        if options.passive {
            return;
        }
        self.exchanges.retain(|exchange| exchange.name != name);
        let (name, kind) = (name.to_owned(), kind.to_owned());
        self.exchanges.push(Exchange { name, kind, options: options.clone() });
    }

    pub(super) fn remove_exchange(&mut self, name: &str) {
        self.exchanges.retain(|exchange| exchange.name != name);
        self.bindings.retain(|binding| {
            binding.source != name && (binding.to_queue || binding.destination != name)
        });
    }

    pub(super) fn add_binding(&mut self, binding: Binding) {
        if !self.bindings.contains(&binding) {
            self.bindings.push(binding);
        }
    }

    pub(super) fn remove_binding(&mut self, binding: &Binding) {
        self.bindings.retain(|other| other != binding);
    }
}

impl Inner {
    /// Declares everything anew. What the server refuses is left out, and said.
    pub(super) fn recover_topology(&self, connection: &Connection) -> Result<(), Error> {
        let (exchanges, queues, bindings) = {
            let topology = self.topology.borrow();
            let Topology { exchanges, queues, bindings, .. } = &*topology;
            (exchanges.clone(), queues.clone(), bindings.clone())
        };
        let mut maker = Maker { connection, channel: None };
        for Exchange { name, kind, options } in exchanges {
            maker.make(&format!("exchange '{name}'"), |channel| {
                channel.exchange_declare(&name, &kind, options.clone())
            })?;
        }
        for Queue { name, server_named, options } in queues {
            let asked = if server_named { "" } else { &name };
            let made = maker.make(&format!("queue '{name}'"), |channel| {
                channel.queue_declare(asked, options.clone())
            })?;
            if let Some(made) = made
                && made.queue != name
            {
                self.topology.borrow_mut().names.insert(name, made.queue);
            }
        }
        for binding in bindings {
            let Binding { to_queue, destination, source, routing_key, arguments } = &binding;
            maker.make(&format!("binding from '{source}' to '{destination}'"), |channel| {
                if *to_queue {
                    let queue = self.topology.borrow().name(destination).to_owned();
                    channel.queue_bind_with(&queue, source, routing_key, arguments.clone())
                } else {
                    channel.exchange_bind_with(destination, source, routing_key, arguments.clone())
                }
            })?;
        }
        match maker.channel {
            Some(channel) => channel.close(),
            None => Ok(()),
        }
    }
}

/// Makes things on a channel, and on another one when the server has closed that.
struct Maker<'a> {
    connection: &'a Connection,
    channel: Option<Channel>,
}

impl Maker<'_> {
    /// `None` when the server refuses for good.
    fn make<T>(
        &mut self,
        what: &str,
        work: impl FnOnce(&Channel) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => self.connection.channel()?,
        };
        match work(&channel) {
            Ok(made) => {
                self.channel = Some(channel);
                Ok(Some(made))
            }
            Err(error) if is_passing(self.connection, &error) => Err(error),
            Err(error) => {
                tracing::warn!(%error, what, "it was there before the connection was lost, and cannot be made again");
                Ok(None)
            }
        }
    }
}
