//! From a publisher to the queues.

use std::rc::Rc;

use compact_str::CompactString;
use warren_amqp::method::basic;
use warren_amqp::value::{RawTable, RawValue};
use warren_amqp::{RawProperties, ReplyCode};

use super::deadletter::Reason;
use super::declare::stored;
use super::replies::REPLY_TO;
use super::{Engine, NODE};
use crate::channel::{ChannelKey, Mode, Publish, REFUSED};
use crate::erlang;
use crate::exception::Exception;
use crate::exchange::{Destination, ExchangeKey, Passage, Routed};
use crate::message::{Content, Message};
use crate::queue::settings::Overflow;
use crate::queue::{Queue, QueueKey};

impl Engine {
    /// A publish has come in whole: does it now, or keeps it for the transaction's commit.
    ///
    /// # Errors
    /// For properties that cannot be.
    pub(crate) fn publish(
        &mut self,
        channel: ChannelKey,
        mut publish: Publish,
    ) -> Result<(), Exception> {
        self.check_properties(channel, &mut publish)?;
        if self.interceptors.any()
            && let Some(content) =
                self.interceptors.apply(&publish.message.content, self.now_ms, NODE)
        {
            Rc::make_mut(&mut publish.message).content = content;
        }
        if let Some(Mode::Tx(tx)) = self.channels.get_mut(channel).map(|channel| &mut channel.mode)
        {
            tx.publishes.push(publish);
            return Ok(());
        }
        let (waits_for, refused) = self.publish_now(channel, publish);
        let waits_for = if refused { REFUSED } else { waits_for };
        if let Some(Mode::Confirm(confirms)) =
            self.channels.get_mut(channel).map(|channel| &mut channel.mode)
        {
            confirms.owe(waits_for);
            self.owe(channel);
        }
        Ok(())
    }

    fn check_properties(
        &self,
        channel: ChannelKey,
        publish: &mut Publish,
    ) -> Result<(), Exception> {
        let properties = RawProperties::new(publish.message.content.properties());
        // The flags say at a glance that there is none of these.
        if properties.as_bytes()[..2] == [0, 0] {
            return Ok(());
        }
        if let Some(user_id) = properties.user_id()
            && let Some(channel) = self.channels.get(channel)
            && let Some(connection) = self.connections.get(channel.connection)
            && user_id != connection.user
            && !self.may_impersonate(&connection.user)
        {
            return Err(Exception::precondition(format!(
                "user_id property set to '{user_id}' but authenticated user was '{}'",
                connection.user
            )));
        }
        if let Some(expiration) = properties.expiration()
            && let Err(why) = parse_expiration(expiration)
        {
            let text = format!("invalid expiration '{expiration}': {why}");
            return Err(Exception::precondition(text));
        }
        let asks = properties.reply_to() == Some(REPLY_TO);
        if let Some(headers) = properties.headers() {
            carbon_copies(headers, "CC", &mut publish.more_keys)?;
            if carbon_copies(headers, "BCC", &mut publish.more_keys)? {
                Rc::make_mut(&mut publish.message).content = without_bcc(&publish.message.content)?;
            }
        }
        if asks {
            self.ask(channel, publish)?;
        }
        Ok(())
    }

    /// Routes a message and appends it to its queues. The store's batch that makes it durable; 0 when nothing
    /// has to be waited for. And whether a queue refused it for its length.
    pub(super) fn publish_now(&mut self, channel: ChannelKey, publish: Publish) -> (u64, bool) {
        self.route(&publish);
        if self.traced {
            self.trace_publish(channel, &publish);
        }
        let kept = self.kept;
        if self.targets.is_empty() {
            if let Some(waits_for) = kept {
                return (waits_for, false);
            }
            // An answer reaches a channel and no queue: to its publisher it is not routed, as in RabbitMQ.
            if publish.exchange.is_none() && !self.reply_channels.is_empty() {
                self.reply(&publish);
            }
            if publish.mandatory {
                self.give_back(channel, &publish, ReplyCode::NO_ROUTE, "NO_ROUTE");
            }
            self.spares.keep(publish.message);
            return (0, false);
        }
        if publish.immediate && !self.is_consumed_at_once() {
            self.give_back(channel, &publish, ReplyCode::NO_CONSUMERS, "NO_CONSUMERS");
            return (0, false);
        }
        let (waits_for, refused) = self.enter_queues(publish);
        (waits_for.max(kept.unwrap_or(0)), refused)
    }

    /// What a message says where it was published.
    pub(super) fn exchange_name(&self, publish: &Publish) -> Rc<str> {
        match publish.exchange.and_then(|key| self.exchanges.get(key)) {
            Some(exchange) => exchange.name.clone(),
            None => self.default_name.clone(),
        }
    }

    /// Appends a message to the queues of `self.targets`.
    pub(super) fn enter_queues(&mut self, publish: Publish) -> (u64, bool) {
        let exchange = self.exchange_name(&publish);
        self.enter_queues_as(publish, exchange)
    }

    /// The same, for a message that was published somewhere else.
    pub(super) fn enter_queues_as(
        &mut self,
        mut publish: Publish,
        exchange: Rc<str>,
    ) -> (u64, bool) {
        self.last_message_id += 1;
        let (mut limited, mut timed) = (false, false);
        for queue in self.targets.iter().filter_map(|key| self.queues.get(*key)) {
            limited |= queue.limited;
            timed |= queue.settings.message_ttl_ms.is_some();
        }
        // A copy only if an exchange keeps it, too.
        let message = Rc::make_mut(&mut publish.message);
        message.id = self.last_message_id;
        message.exchange = exchange;
        message.expires_ms = self.expires_ms(&message.content);
        message.published_ms = if timed { self.now_ms } else { 0 };
        (message.stored, message.deduplicated) = (None, false);
        let refused = limited && self.refuse(message);
        let mut waits_for = self.store_message(message);
        let mut place = message.stored.map_or(0, |stored| stored.first);
        let message = publish.message;
        for index in 0..self.targets.len() {
            let key = self.targets[index];
            if let Some(queue) = self.queues.get_mut(key) {
                if queue.stream.is_some() {
                    waits_for = waits_for.max(self.append_to_stream(key, &message));
                    continue;
                }
                if place != 0 && stored(queue) {
                    queue.push(message.clone(), place);
                    place += 1;
                } else {
                    queue.push(message.clone(), 0);
                }
            }
            self.mark(key);
        }
        if limited {
            let mut targets = std::mem::take(&mut self.targets);
            for key in targets.drain(..) {
                self.drop_surplus(key);
            }
            self.targets = targets;
        }
        // If nobody has it.
        self.spares.keep(message);
        (waits_for, refused)
    }

    /// The targets that would refuse this.
    pub(super) fn full_targets(&mut self, content: &Content) -> Vec<QueueKey> {
        let targets = std::mem::take(&mut self.targets);
        let full = targets.iter().copied().filter(|key| self.is_full(*key, content)).collect();
        self.targets = targets;
        full
    }

    /// Whether a queue refuses a message; what consumers would take they take first.
    fn is_full(&mut self, key: QueueKey, content: &Content) -> bool {
        let refuses = |engine: &Self| {
            engine.queues.get(key).is_some_and(|queue| queue.limited && queue.refuses(content))
        };
        if refuses(self) {
            self.dispatch(key);
        }
        refuses(self)
    }

    /// Takes the queues that are full off `self.targets`, and those that hold an equal message already. True if
    /// there are some that are full.
    fn refuse(&mut self, message: &mut Message) -> bool {
        let mut targets = std::mem::take(&mut self.targets);
        let mut refused = false;
        targets.retain(|key| {
            let is_full = self.is_full(*key, &message.content);
            let Some(queue) = self.queues.get_mut(*key) else { return true };
            if !is_full && queue.duplicates.is_none() {
                return true;
            }
            if !is_full {
                self.expire(*key);
                return self.remember(*key, message);
            }
            refused = true;
            if queue.settings.overflow == Overflow::RejectPublishDlx {
                let entry = queue.entry(Rc::new(message.clone()), 0, false);
                self.post(*key, entry, Reason::MaxLength, true);
            }
            false
        });
        self.targets = targets;
        refused
    }

    /// Lets a queue know a message by its value; false if it holds an equal one.
    fn remember(&mut self, key: QueueKey, message: &mut Message) -> bool {
        let Some(queue) = self.queues.get_mut(key) else { return true };
        let Some(duplicates) = &mut queue.duplicates else { return true };
        match duplicates.check(message.content.properties(), self.now_ms) {
            Ok(Some(fresh)) => {
                if duplicates.remember(&fresh, message.id, self.now_ms) {
                    message.published_ms = self.now_ms;
                }
                message.deduplicated = true;
                true
            }
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Drops the heads of a queue that is too long; what consumers would take they take first.
    pub(super) fn drop_surplus(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get(key) else { return };
        if !queue.limited || !queue.has_surplus() {
            return;
        }
        self.dispatch(key);
        while let Some(entry) = self.queues.get_mut(key).and_then(Queue::pop_surplus) {
            self.discard(key, entry, Reason::MaxLength);
        }
    }

    /// When a message expires, from its `expiration` in milliseconds.
    fn expires_ms(&self, content: &Content) -> u64 {
        let expiration = RawProperties::new(content.properties()).expiration();
        let lifetime = expiration.and_then(|text| parse_expiration(text).ok());
        lifetime.map_or(u64::MAX, |lifetime| self.now_ms.saturating_add(lifetime))
    }

    /// Writes a persistent message down for those of its queues that are durable.
    fn store_message(&mut self, message: &mut Message) -> u64 {
        let Some(store) = &mut self.store else { return 0 };
        if !message.content.is_persistent() {
            return 0;
        }
        let queues = self.targets.iter().filter_map(|key| self.queues.get(*key));
        self.durable.clear();
        self.durable.extend(
            queues.filter(|queue| stored(queue) && queue.stream.is_none()).map(|queue| queue.id),
        );
        if self.durable.is_empty() {
            return 0;
        }
        store.publish(message, &self.durable)
    }

    /// Fills `self.targets` with the queues of a message, each once.
    pub(super) fn route(&mut self, publish: &Publish) {
        self.last_routing += 1;
        self.targets.clear();
        self.kept = None;
        let Some(exchange) = publish.exchange else {
            // The default exchange: a key is a queue's name.
            let Some(vhost) = self.vhosts.get(publish.vhost) else { return };
            self.targets.extend(vhost.queues.get(&publish.message.routing_key));
            for key in publish.more_keys.iter().filter_map(|key| vhost.queues.get(key)) {
                if let Some(queue) = self.queues.get_mut(*key)
                    && std::mem::replace(&mut queue.routed, self.last_routing) != self.last_routing
                    && self.targets.first() != Some(key)
                {
                    self.targets.push(*key);
                }
            }
            return;
        };
        let (one_key, key) = (publish.more_keys.is_empty(), &*publish.message.routing_key);
        if one_key && let Some(queues) = self.routes.find(exchange, key) {
            return self.targets.extend_from_slice(queues);
        }
        self.routes_by_key = one_key;
        let mut ahead = std::mem::take(&mut self.ahead);
        ahead.push(exchange);
        while let Some(key) = ahead.pop() {
            self.route_at(key, publish, &mut ahead);
        }
        self.ahead = ahead;
        if self.routes_by_key {
            self.routes.keep(exchange, key, &self.targets);
        }
        if !self.delaying.is_empty() {
            self.delay(publish);
        }
    }

    fn route_at(&mut self, key: ExchangeKey, publish: &Publish, further: &mut Vec<ExchangeKey>) {
        let Some(exchange) = self.exchanges.get_mut(key) else { return };
        if std::mem::replace(&mut exchange.routed, self.last_routing) == self.last_routing {
            // By another way already, or in a circle.
            return;
        }
        self.routes_by_key &= exchange.routes_by_key();
        if let Some(extras) = &mut exchange.extras {
            match extras.pass(publish, self.released == Some(key), self.now_ms) {
                Passage::Goes => {}
                Passage::Duplicate => {
                    self.kept = self.kept.or(Some(0));
                    return;
                }
                Passage::Waits(delay_ms) => return self.delaying.push((key, delay_ms)),
            }
        }
        let (queues, targets, routing) = (&mut self.queues, &mut self.targets, self.last_routing);
        let mut matched = false;
        let message = Routed {
            routing_key: &publish.message.routing_key,
            more_keys: &publish.more_keys,
            properties: publish.message.content.properties(),
        };
        exchange.route(message, |destination| {
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
        });
        if !matched && let Some(alternate) = &exchange.alternate {
            let vhost = self.vhosts.get(publish.vhost);
            further.extend(vhost.and_then(|vhost| vhost.exchanges.get(alternate.as_str())));
        }
    }

    /// Whether a consumer of one of `self.targets` takes a message now. Behind others it would wait.
    fn is_consumed_at_once(&self) -> bool {
        self.targets.iter().filter_map(|key| self.queues.get(*key)).any(|queue| {
            !queue.has_ready() && queue.consumers.iter().any(|consumer| self.can_take(*consumer))
        })
    }

    /// Tells a publisher that its message reached nobody, and why.
    fn give_back(&mut self, channel: ChannelKey, publish: &Publish, code: ReplyCode, text: &str) {
        let Some(channel) = self.channels.get(channel) else { return };
        let Some(connection) = self.connections.get(channel.connection) else { return };
        let exchange = publish.exchange.and_then(|key| self.exchanges.get(key));
        let method = basic::Return {
            reply_code: code.0,
            reply_text: text,
            exchange: exchange.map_or("", |exchange| &exchange.name),
            routing_key: &publish.message.routing_key,
        };
        connection.send_content(channel.number, &method, &publish.message.content);
    }
}

/// RabbitMQ's limit for `expiration`: ten years, in milliseconds.
const EXPIRATION_MS_MAX: u64 = 10 * 365 * 24 * 3600 * 1000;

/// Milliseconds in digits; a sign may stand in front.
///
/// # Errors
/// What is wrong, as RabbitMQ says it.
fn parse_expiration(text: &str) -> Result<u64, String> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let rest = unsigned.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let digits = &unsigned[..unsigned.len() - rest.len()];
    if digits.is_empty() {
        return Err("no_integer".into());
    }
    if !rest.is_empty() {
        return Err(format!("{{leftover_string,{}}}", erlang::quoted(rest)));
    }
    let significant = digits.trim_start_matches('0');
    if text.starts_with('-') && !significant.is_empty() {
        return Err(format!("{{value_negative,-{significant}}}"));
    }
    match digits.parse() {
        Ok(value) if value <= EXPIRATION_MS_MAX => Ok(value),
        _ => Err(format!("{{value_too_large,{significant}}}")),
    }
}

/// Adds the routing keys of a header `CC` or `BCC`. False when there is none.
///
/// # Errors
/// When it is no array.
pub(super) fn carbon_copies(
    headers: RawTable<'_>,
    name: &str,
    keys: &mut Vec<CompactString>,
) -> Result<bool, Exception> {
    match headers.get(name) {
        None => Ok(false),
        Some(RawValue::Array(array)) => {
            for key in array.iter() {
                // What is no string, or no text, is passed over.
                if let RawValue::LongString(key) = key?
                    && let Ok(key) = std::str::from_utf8(key)
                {
                    keys.push(key.into());
                }
            }
            Ok(true)
        }
        Some(other) => {
            let kind = other.to_value()?.type_name();
            Err(Exception::precondition(format!(
                "invalid message: {{unacceptable_type_in_header,{},{kind}}}",
                erlang::quoted(name)
            )))
        }
    }
}

/// Nobody who receives a message learns who else does.
pub(super) fn without_bcc(content: &Content) -> Result<Content, Exception> {
    let mut properties = RawProperties::new(content.properties()).to_properties()?;
    if let Some(headers) = &mut properties.headers {
        headers.remove("BCC");
    }
    Ok(Content::with_properties(&properties, content.body()))
}

#[cfg(test)]
mod tests {
    use super::parse_expiration;

    #[track_caller]
    fn check(text: &str, want: Result<u64, &str>) {
        assert_eq!(parse_expiration(text), want.map_err(str::to_owned), "{text:?}");
    }

    #[test]
    fn expirations_are_read_as_rabbitmq_reads_them() {
        check("0", Ok(0));
        check("+7", Ok(7));
        check("-0", Ok(0));
        check("315360000000", Ok(315_360_000_000));
        check("315360000001", Err("{value_too_large,315360000001}"));
        check("99999999999999999999", Err("{value_too_large,99999999999999999999}"));
        check("-5", Err("{value_negative,-5}"));
        check("1.5", Err("{leftover_string,\".5\"}"));
        check("5\"q", Err("{leftover_string,\"\\\"q\"}"));
        for text in ["", "soon", " 5", "-", "+-5"] {
            check(text, Err("no_integer"));
        }
    }
}
