//! From a publisher to the queues.

use std::rc::Rc;

use warren_amqp::method::basic;
use warren_amqp::{RawProperties, ReplyCode};

use super::Engine;
use super::declare::stored;
use crate::channel::{ChannelKey, Mode, Publish};
use crate::exception::Exception;
use crate::exchange::{Destination, ExchangeKey};
use crate::message::{Content, Message};

impl Engine {
    /// A publish has come in whole: does it now, or keeps it for the transaction's commit.
    ///
    /// # Errors
    /// For properties that cannot be.
    pub(crate) fn publish(
        &mut self,
        channel: ChannelKey,
        publish: Publish,
    ) -> Result<(), Exception> {
        self.check_properties(channel, &publish)?;
        if let Some(Mode::Tx(tx)) = self.channels.get_mut(channel).map(|channel| &mut channel.mode)
        {
            tx.publishes.push(publish);
            return Ok(());
        }
        let waits_for = self.publish_now(channel, publish);
        if let Some(Mode::Confirm(confirms)) =
            self.channels.get_mut(channel).map(|channel| &mut channel.mode)
        {
            confirms.last += 1;
            confirms.owed.push_back((confirms.last, waits_for));
            self.owe(channel);
        }
        Ok(())
    }

    fn check_properties(&self, channel: ChannelKey, publish: &Publish) -> Result<(), Exception> {
        let properties = RawProperties::new(publish.content.properties());
        // The flags say at a glance that there is none of these.
        if properties.as_bytes()[..2] == [0, 0] {
            return Ok(());
        }
        if let Some(user_id) = properties.user_id()
            && let Some(channel) = self.channels.get(channel)
            && let Some(connection) = self.connections.get(channel.connection)
            && user_id != connection.user
        {
            return Err(Exception::precondition(format!(
                "user_id property set to '{user_id}' but authenticated user was '{}'",
                connection.user
            )));
        }
        if let Some(expiration) = properties.expiration()
            && parse_expiration(expiration).is_none()
        {
            return Err(Exception::precondition(format!(
                "invalid expiration '{expiration}': no_integer"
            )));
        }
        Ok(())
    }

    /// Routes a message and appends it to its queues. The store's batch that makes it durable; 0 when nothing
    /// has to be waited for.
    pub(super) fn publish_now(&mut self, channel: ChannelKey, publish: Publish) -> u64 {
        self.route(&publish);
        if self.targets.is_empty() {
            if publish.mandatory {
                self.give_back(channel, &publish);
            }
            return 0;
        }
        self.last_message_id += 1;
        let exchange = match publish.exchange.and_then(|key| self.exchanges.get(key)) {
            Some(exchange) => exchange.name.clone(),
            None => Rc::from(""),
        };
        let mut message = Message {
            id: self.last_message_id,
            exchange,
            routing_key: publish.routing_key,
            expires_ms: self.expires_ms(&publish.content),
            content: publish.content,
            stored: false,
        };
        let waits_for = self.store_message(&mut message);
        let message = Rc::new(message);
        for index in 0..self.targets.len() {
            let key = self.targets[index];
            if let Some(queue) = self.queues.get_mut(key) {
                queue.push(message.clone(), false);
            }
            self.mark(key);
        }
        waits_for
    }

    /// When a message expires, from its `expiration` in milliseconds.
    fn expires_ms(&self, content: &Content) -> u64 {
        let expiration = RawProperties::new(content.properties()).expiration();
        let lifetime = expiration.and_then(parse_expiration);
        lifetime.map_or(u64::MAX, |lifetime| self.now_ms.saturating_add(lifetime))
    }

    /// Writes a persistent message down for those of its queues that are durable.
    fn store_message(&mut self, message: &mut Message) -> u64 {
        let Some(store) = &mut self.store else { return 0 };
        if !message.content.is_persistent() {
            return 0;
        }
        let durable: Vec<u64> = self
            .targets
            .iter()
            .filter_map(|key| self.queues.get(*key))
            .filter(|queue| stored(queue))
            .map(|queue| queue.id)
            .collect();
        if durable.is_empty() {
            return 0;
        }
        message.stored = true;
        store.publish(message, &durable)
    }

    /// Fills `self.targets` with the queues of a message, each once.
    fn route(&mut self, publish: &Publish) {
        self.last_routing += 1;
        self.targets.clear();
        let Some(exchange) = publish.exchange else {
            // The default exchange: the key is a queue's name.
            self.targets.extend(self.queue_names.get(&publish.routing_key));
            return;
        };
        let mut exchanges = vec![exchange];
        while let Some(key) = exchanges.pop() {
            self.route_at(key, publish, &mut exchanges);
        }
    }

    fn route_at(&mut self, key: ExchangeKey, publish: &Publish, further: &mut Vec<ExchangeKey>) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if std::mem::replace(&mut exchange.routed, self.last_routing) == self.last_routing {
            // By another way already, or in a circle.
            return;
        }
        let Some(exchange) = self.exchanges.get(key) else { return };
        let (queues, targets, routing) = (&mut self.queues, &mut self.targets, self.last_routing);
        let mut matched = false;
        exchange.route(
            &publish.routing_key,
            || RawProperties::new(publish.content.properties()).headers(),
            |destination| {
                matched = true;
                match destination {
                    Destination::Exchange(key) => further.push(key),
                    Destination::Queue(key) => {
                        if let Some(queue) = queues.get_mut(key)
                            && std::mem::replace(&mut queue.routed, routing) != routing
                        {
                            targets.push(key);
                        }
                    }
                }
            },
        );
        if !matched && let Some(alternate) = &exchange.alternate {
            further.extend(self.exchange_names.get(alternate.as_str()));
        }
    }

    /// Tells a publisher that its mandatory message reached nobody.
    fn give_back(&mut self, channel: ChannelKey, publish: &Publish) {
        let Some(channel) = self.channels.get(channel) else { return };
        let Some(connection) = self.connections.get(channel.connection) else { return };
        let exchange = publish.exchange.and_then(|key| self.exchanges.get(key));
        let method = basic::Return {
            reply_code: ReplyCode::NO_ROUTE.0,
            reply_text: "NO_ROUTE",
            exchange: exchange.map_or("", |exchange| &exchange.name),
            routing_key: &publish.routing_key,
        };
        connection.send_content(channel.number, &method, &publish.content);
    }
}

/// Milliseconds in digits, at most RabbitMQ's limit of 32 bits.
fn parse_expiration(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse::<u32>().ok().filter(|_| digits).map(u64::from)
}
