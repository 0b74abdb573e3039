//! The engine as the store remembers it.

use std::rc::Rc;

use rustc_hash::FxHashMap;
use warren_amqp::FieldTable;
use warren_amqp::value::RawTable;

use super::Engine;
use super::declare::is_predeclared;
use crate::exchange::{Destination, Exchange, ExchangeKey, Kind};
use crate::message::Message;
use crate::queue::{Queue, QueueKey};
use crate::store::pages::{self, Pages, Window};
use crate::store::{BindingDefinition, LogReader, Recovered, RecoveredMessages, Store};
use crate::stream::Stream;
use crate::stream::settings::StreamSettings;
use crate::vhost::VhostRef;

/// Where messages are, by the numbers that the log knows.
#[derive(Default)]
struct Places {
    queues: FxHashMap<u64, QueueKey>,
    /// Exchanges at which messages wait.
    schedules: FxHashMap<u64, ExchangeKey>,
}

impl Engine {
    /// Fills a new engine with what was found on disk, and lets it write there from now on.
    pub(crate) fn recover_from(&mut self, store: Store, recovered: Recovered) {
        let pages = Pages::new(store.folder(), Window::DEFAULT);
        self.page_to(pages.log_from(store.reader()));
        self.in_silence(|engine| engine.restore(store, recovered));
    }

    fn restore(&mut self, store: Store, recovered: Recovered) {
        let mut places = Places::default();
        for record in &recovered.tenancy {
            if let Err(error) = self.tenancy.put(record) {
                tracing::error!(error, "the store holds a definition that is not understood");
            }
        }
        // All else is in one of them.
        self.open_vhosts();
        self.refresh_tracing();
        for definition in recovered.exchanges {
            let Some(vhost) = self.recovered_vhost(&definition.vhost, &definition.name) else {
                continue;
            };
            let Some(kind) = Kind::parse(&definition.kind) else {
                tracing::error!(
                    exchange = definition.name,
                    kind = definition.kind,
                    "unknown exchange type"
                );
                continue;
            };
            if is_predeclared(&definition.name) {
                continue;
            }
            let arguments = table(&definition.arguments);
            let mut exchange = match Exchange::new(&vhost, &definition.name, kind, arguments) {
                Ok(exchange) => exchange,
                Err(error) => {
                    let name = definition.name;
                    tracing::error!(name, error = error.text, "an exchange of the store cannot be");
                    continue;
                }
            };
            exchange.auto_delete = definition.auto_delete;
            exchange.internal = definition.internal;
            if let Some(delays) = exchange.delays_mut() {
                delays.id = definition.schedule;
            }
            let key = self.insert_exchange(exchange);
            if definition.schedule != 0 {
                places.schedules.insert(definition.schedule, key);
            }
        }
        for definition in recovered.queues {
            let Some(vhost) = self.recovered_vhost(&definition.vhost, &definition.name) else {
                continue;
            };
            let mut queue = Queue::new(definition.id, &vhost, &definition.name);
            queue.durable = true;
            queue.auto_delete = definition.auto_delete;
            queue.arguments = table(&definition.arguments);
            if let Some(shared) = recovered.streams.get(&queue.id) {
                let settings = StreamSettings::new(&queue.arguments, &serde_json::Map::new());
                queue.stream = Some(Box::new(Stream::on_disk(settings, shared.clone())));
            }
            let key = self.insert_queue(queue);
            self.refresh_queue(key);
            places.queues.insert(definition.id, key);
        }
        for binding in recovered.bindings {
            self.recover_binding(&binding);
        }
        // Set only now: what is recovered is not to be written again.
        self.last_queue_id = recovered.last_queue_id;
        self.recover_messages(recovered.messages, &places, &store.reader());
        self.store = Some(store);
        self.apply_policies();
    }

    fn recovered_vhost(&self, vhost: &str, name: &str) -> Option<VhostRef> {
        let found = self.find_vhost(vhost);
        if found.is_none() {
            tracing::error!(
                vhost,
                name,
                "the store holds a definition of a virtual host that is not there"
            );
        }
        found
    }

    fn recover_binding(&mut self, binding: &BindingDefinition) {
        let Some(vhost) = self.recovered_vhost(&binding.vhost, &binding.source) else { return };
        let destination = if binding.to_queue {
            self.queue_key(vhost.key, &binding.destination).map(Destination::Queue)
        } else {
            self.exchange_key(vhost.key, &binding.destination).map(Destination::Exchange)
        };
        let bound = self.exchange_key(vhost.key, &binding.source).zip(destination).map(
            |(source, destination)| {
                self.bind(source, destination, &binding.routing_key, &table(&binding.arguments))
            },
        );
        if !matches!(bound, Some(Ok(_))) {
            tracing::warn!(?binding, "a binding of the store leads nowhere");
        }
    }

    fn recover_messages(&mut self, messages: RecoveredMessages, places: &Places, log: &LogReader) {
        messages.for_each(|place| {
            if let Some(key) = places.schedules.get(&place.queue) {
                // It is sorted by a time of its own, and leaves memory in its own way.
                if let Some(message) = pages::message(log, place.message, place.spot) {
                    self.await_due(*key, message, place.place);
                }
                return;
            }
            let queue = places.queues.get(&place.queue);
            let Some(queue) = queue.and_then(|key| self.queues.get_mut(*key)) else { return };
            let deduplicated = queue.duplicates.is_some();
            if !deduplicated && place.due_ms <= self.now_ms {
                return queue.recover(&place, self.now_ms);
            }
            let Some(message) = pages::message(log, place.message, place.spot) else { return };
            self.last_message_id += 1;
            let published_ms = match message.published_ms {
                // No queue had a time to live then: what one has now begins now.
                0 => self.now_ms,
                published_ms => published_ms,
            };
            let id = self.last_message_id;
            let message = Message { id, published_ms, deduplicated, ..Message::clone(&message) };
            queue.recover_whole(Rc::new(message), &place, self.now_ms);
        });
        for key in places.queues.values() {
            if let Some(queue) = self.queues.get_mut(*key) {
                queue.ready.recovered();
            }
        }
        for key in places.queues.values() {
            self.arm_retry(*key);
        }
    }
}

fn table(bytes: &[u8]) -> FieldTable {
    match RawTable::new(bytes).to_table() {
        Ok(table) => table,
        Err(error) => {
            tracing::error!(%error, "the store holds arguments that cannot be read");
            FieldTable::new()
        }
    }
}
