//! From the queues to consumers.

use std::rc::Rc;

use compact_str::CompactString;
use warren_amqp::method::basic;
use warren_amqp::{FieldTable, FieldValue, RawProperties, ReplyCode};

use super::deadletter::Reason;
use super::{Actor, Engine};
use crate::channel::{ChannelKey, Held, Unacked};
use crate::erlang;
use crate::exception::{Exception, resource};
use crate::message::{Content, Entry, Message};
use crate::queue::{Consumer, ConsumerKey, Queue, QueueKey};

/// Deliveries of one queue in one turn. Then others have theirs.
pub(super) const DELIVERIES_PER_TURN: usize = 4096;

/// What a channel fetches behind an answer that waits for the store waits with it: so many are counted by their bytes.
const ANSWERS_MAX: usize = 64;

impl Engine {
    /// Adds a consumer; the tag it got.
    pub(crate) fn consume(
        &mut self,
        channel_key: ChannelKey,
        queue_key: QueueKey,
        consume: &basic::Consume<'_>,
    ) -> Result<CompactString, Exception> {
        let Some(channel) = self.channels.get(channel_key) else { return Ok("".into()) };
        if channel.has_consumer(consume.consumer_tag) {
            let text = format!("attempt to reuse consumer tag '{}'", consume.consumer_tag);
            return Err(Exception::new(ReplyCode::NOT_ALLOWED, text));
        }
        if let Some(max) = self.limits.consumer_max_per_channel
            && max <= channel.consumers.len()
        {
            let text = format!("reached maximum ({max}) of consumers per channel");
            return Err(Exception::new(ReplyCode::NOT_ALLOWED, text));
        }
        let (prefetch, prefetch_all) = (channel.prefetch_new, channel.prefetch_all);
        let cursor = match self.queues.get(queue_key) {
            Some(queue @ Queue { stream: Some(stream), .. }) => {
                Some(self.new_cursor(queue, stream, consume, (prefetch, prefetch_all))?)
            }
            _ => None,
        };
        let tag = match consume.consumer_tag {
            "" => self.generate_name("amq.ctag-"),
            tag => tag.into(),
        };
        let Some(queue) = self.queues.get_mut(queue_key) else { return Ok(tag) };
        let what = || resource("queue", &queue.name, &queue.vhost);
        let priority = whole(&consume.arguments, "x-priority", &what)?.unwrap_or(0);
        let timeout = whole(&consume.arguments, "x-consumer-timeout", &what)?;
        let timeout_ms = match timeout {
            Some(ms) => u64::try_from(ms).ok().filter(|ms| *ms != 0),
            None => queue.settings.consumer_timeout_ms,
        };
        let taken = queue
            .consumers
            .front()
            .and_then(|key| self.consumers.get(*key))
            .is_some_and(|consumer| consumer.exclusive);
        let alone = queue.settings.single_active || !queue.consumers.is_empty();
        // Streams have any number of consumers, whatever those ask for.
        if cursor.is_none() && (taken || (consume.exclusive && alone)) {
            return Err(Exception::refused(format!("{} in exclusive use", what())));
        }
        let key = self.consumers.insert(Consumer {
            tag: tag.clone(),
            queue: queue_key,
            channel: channel_key,
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            prefetch,
            unacked: 0,
            priority,
            timeout_ms,
        });
        queue.has_priorities |= priority != 0;
        // Behind all that are to be served before it. The active one of a single active consumer stays that.
        let first = usize::from(queue.settings.single_active);
        let consumers = &self.consumers;
        let before =
            queue.consumers.iter().skip(first).position(|other| {
                consumers.get(*other).is_some_and(|other| other.priority < priority)
            });
        match before {
            Some(at) if queue.has_priorities => queue.consumers.insert(first + at, key),
            _ => queue.consumers.push_back(key),
        }
        queue.had_consumer = true;
        if let Some(channel) = self.channels.get_mut(channel_key) {
            channel.consumers.insert(tag.clone(), key);
            channel.timed |= timeout_ms.is_some() && !consume.no_ack;
        }
        if let Some(cursor) = cursor
            && let Some(Queue { stream: Some(stream), .. }) = self.queues.get_mut(queue_key)
        {
            stream.add_cursor(key, cursor);
        }
        self.tell_consumer_created(key, &consume.arguments);
        self.mark(queue_key);
        Ok(tag)
    }

    /// Ends a consumer at its own wish. What it holds stays with its channel.
    pub(crate) fn cancel(&mut self, channel: ChannelKey, tag: &str) {
        let replies = self.channels.get(channel).and_then(|channel| channel.replies.as_ref());
        if replies.is_some_and(|replies| replies.tag == tag) {
            return self.cancel_replies(channel);
        }
        let consumer =
            self.channels.get_mut(channel).and_then(|channel| channel.consumers.remove(tag));
        if let Some(consumer) = consumer {
            self.remove_consumer(consumer);
        }
    }

    /// Takes a consumer off its queue; a queue that is to go with its last consumer goes.
    pub(super) fn remove_consumer(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.remove(key) else { return };
        self.tell_consumer_ended(&consumer);
        let Some(queue) = self.queues.get_mut(consumer.queue) else { return };
        queue.consumers.retain(|other| *other != key);
        queue.has_priorities &= !queue.consumers.is_empty();
        if let Some(stream) = &mut queue.stream {
            stream.remove_cursor(key);
        }
        let has_heir = queue.settings.single_active && !queue.consumers.is_empty();
        if queue.auto_delete && queue.consumers.is_empty() {
            self.acting(Actor::Internal, |engine| engine.remove_queue(consumer.queue));
        } else {
            self.touch(consumer.queue);
        }
        if has_heir {
            self.mark(consumer.queue);
        }
    }

    /// The queue of a consumer has gone: tells the client, if it wants to know.
    pub(super) fn cancel_by_server(&mut self, key: ConsumerKey) {
        let Some(consumer) = self.consumers.remove(key) else { return };
        let Some(channel) = self.channels.get_mut(consumer.channel) else { return };
        channel.consumers.remove(&consumer.tag);
        if self.connections.get(channel.connection).is_some_and(|client| client.cancel_notify) {
            self.cancelled.push((consumer.channel, consumer.tag));
        }
    }

    /// Sends what [`cancel_by_server`](Self::cancel_by_server) has to say.
    pub(super) fn tell_cancelled(&mut self) {
        for (channel, tag) in self.cancelled.drain(..) {
            if let Some(channel) = self.channels.get(channel)
                && let Some(connection) = self.connections.get(channel.connection)
            {
                let notice = basic::Cancel { consumer_tag: &tag, no_wait: true };
                connection.send(channel.number, &notice);
            }
        }
    }

    /// Serves the queues that have something to do. True when more is left.
    pub(super) fn dispatch_dirty(&mut self) -> bool {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in &dirty {
            if let Some(queue) = self.queues.get_mut(*key) {
                queue.dirty = false;
            }
        }
        for key in &dirty {
            if self.dispatch(*key) {
                self.mark(*key);
            }
        }
        let more = !self.dirty.is_empty();
        if !more {
            // Its memory serves the next turn.
            dirty.clear();
            self.dirty = dirty;
        }
        more
    }

    /// Hands out messages for as long as there are some and someone takes them. True when it stopped only to
    /// let others have their turn.
    pub(super) fn dispatch(&mut self, key: QueueKey) -> bool {
        if let Some(stream) = self.queues.get_mut(key).and_then(|queue| queue.stream.take()) {
            return self.dispatch_stream(key, stream);
        }
        let mut delivered = 0;
        let mut count = 0;
        // A message whose time is over this very moment is delivered if someone takes it at once: that is
        // what an expiration of 0 is for.
        let overdue_ms = self.now_ms.saturating_sub(1);
        self.expire_until(key, overdue_ms);
        while count < DELIVERIES_PER_TURN {
            let Some(consumer) = self.next_consumer(key) else { break };
            let Some(queue) = self.queues.get_mut(key) else { break };
            let Some(entry) = queue.pop() else { break };
            if queue.mark.is_passed_by(entry.place) {
                self.pass_mark(key, entry.place);
            }
            delivered = delivered.max(entry.place);
            self.deliver(key, consumer, entry, None);
            self.expire_until(key, overdue_ms);
            count += 1;
        }
        self.expire(key);
        if count < DELIVERIES_PER_TURN {
            // What came back may be too much.
            while let Some(entry) = self.queues.get_mut(key).and_then(Queue::pop_surplus) {
                self.discard(key, entry, Reason::MaxLength);
            }
            self.expire(key);
        }
        self.arm_head(key);
        if let Some(queue) = self.queues.get_mut(key) {
            queue.delivered = queue.delivered.max(delivered);
        }
        count == DELIVERIES_PER_TURN
    }

    /// Lets the store know of a delivery before it is made: a message that comes again after a crash is flagged.
    #[cold]
    #[inline(never)]
    fn pass_mark(&mut self, key: QueueKey, place: u64) {
        let second = self.clock;
        if let (Some(queue), Some(store)) = (self.queues.get_mut(key), &mut self.store) {
            store.delivering(queue.id, queue.mark.pass(place, second));
        }
    }

    /// What has been delivered, for a store that is about to end.
    pub(super) fn tell_delivered(&mut self) {
        let Some(store) = &mut self.store else { return };
        for (_, queue) in self.queues.iter().filter(|(_, queue)| queue.delivered != 0) {
            store.delivered(queue.id, queue.delivered);
        }
    }

    /// The consumer whose turn it is, of those with room: one of the highest priority among them. Equals take
    /// turns: who was served goes to the end.
    fn next_consumer(&mut self, key: QueueKey) -> Option<ConsumerKey> {
        let queue = self.queues.get(key)?;
        if !queue.has_ready() {
            return None;
        }
        let at = if queue.settings.single_active {
            // The others wait for its end.
            0
        } else if queue.has_priorities {
            let ready = queue.consumers.iter().enumerate().filter(|(_, key)| self.can_take(**key));
            let priority = |key| self.consumers.get(key).map_or(0, |consumer| consumer.priority);
            // Of equals the first, which was served longest ago.
            ready.rev().max_by_key(|(_, key)| priority(**key))?.0
        } else {
            queue.consumers.iter().position(|key| self.can_take(*key))?
        };
        let (single, served) = (queue.settings.single_active, *queue.consumers.get(at)?);
        if !self.can_take(served) {
            return None;
        }
        if !single && let Some(queue) = self.queues.get_mut(key) {
            if queue.has_priorities {
                queue.consumers.remove(at);
                queue.consumers.push_back(served);
            } else {
                queue.consumers.rotate_left(at + 1);
            }
        }
        Some(served)
    }

    /// `channel.flow` of a client's: whether it wants deliveries now.
    pub(crate) fn set_flow(&mut self, key: ChannelKey, active: bool) {
        if let Some(channel) = self.channels.get_mut(key) {
            channel.paused = !active;
        }
        self.mark_consumed(key);
    }

    /// Whether a consumer, its channel and its connection have room for a message.
    pub(super) fn can_take(&self, key: ConsumerKey) -> bool {
        self.consumers.get(key).is_some_and(|consumer| {
            consumer.has_room()
                && self.channels.get(consumer.channel).is_some_and(|channel| {
                    channel.answers.is_empty()
                        && !channel.paused
                        && (consumer.no_ack || channel.has_room())
                        && self
                            .connections
                            .get(channel.connection)
                            .is_some_and(|connection| !connection.transport.is_full())
                })
        })
    }

    /// Sends a message to a consumer: the entry's, or one that only its exchange, its key and its content are
    /// known of.
    pub(super) fn deliver(
        &mut self,
        queue_key: QueueKey,
        consumer_key: ConsumerKey,
        entry: Entry,
        other: Option<(&str, &str, &Content)>,
    ) {
        let counts = entry.delivery_count != 0 && self.counts_deliveries(queue_key);
        if self.traced
            && let Some(consumer) = self.consumers.get(consumer_key)
        {
            let channel = consumer.channel;
            match other {
                None => self.trace_deliver(channel, queue_key, &entry),
                Some(other) => self.trace_deliver(channel, queue_key, &as_entry(&entry, other)),
            }
        }
        let Some(consumer) = self.consumers.get_mut(consumer_key) else { return };
        let Some(channel) = self.channels.get_mut(consumer.channel) else { return };
        let Some(connection) = self.connections.get(channel.connection) else { return };
        let tag = channel.next_tag();
        let message = &entry.message;
        let (exchange, routing_key, content) =
            other.unwrap_or((&message.exchange, &message.routing_key, &message.content));
        let method = basic::Deliver {
            consumer_tag: &consumer.tag,
            delivery_tag: tag,
            redelivered: entry.redelivered,
            exchange,
            routing_key,
        };
        if counts {
            connection.send_content(channel.number, &method, &counted(&entry));
        } else {
            connection.send_content(channel.number, &method, content);
        }
        if consumer.no_ack {
            self.forget(queue_key, entry);
        } else {
            consumer.unacked += 1;
            let timeout_ms = consumer.timeout_ms.unwrap_or(u64::MAX);
            let due_ms = self.now_ms.saturating_add(timeout_ms);
            let (channel_key, consumer) = (consumer.channel, Some(consumer_key));
            let held = Held::Here(entry);
            if channel.hold(tag, Unacked { queue: queue_key, consumer, held, due_ms }) {
                self.shorten_unacked(channel_key);
            }
        }
    }

    /// Closes the channels that hold a message for longer than its consumer may.
    pub(super) fn close_overdue_channels(&mut self) {
        let now_ms = self.now_ms;
        let mut overdue = Vec::new();
        for (key, channel) in self.channels.iter().filter(|(_, channel)| channel.timed) {
            let late = channel.unacked().find(|unacked| unacked.due_ms <= now_ms);
            let consumer = late.and_then(|unacked| self.consumers.get(unacked.consumer?));
            if late.is_some() {
                let timeout_ms = consumer.and_then(|consumer| consumer.timeout_ms);
                overdue.push((key, channel.number, timeout_ms.unwrap_or_default()));
            }
        }
        for (key, number, timeout_ms) in overdue {
            // Late is not failed, as in RabbitMQ.
            let held = self.channels.get_mut(key).and_then(|channel| channel.settle_up_to(0));
            self.requeue(held.unwrap_or_default(), false);
            let exception = Exception::precondition(format!(
                "delivery acknowledgement on channel {number} timed out. Timeout value used: {timeout_ms} ms. \
                 This timeout value can be configured, see consumers doc guide to learn more"
            ));
            self.force_close_channel(key, &exception);
        }
    }

    /// `basic.get`: one message, if there is one.
    pub(crate) fn get(&mut self, channel_key: ChannelKey, queue_key: QueueKey, no_ack: bool) {
        self.expire(queue_key);
        self.touch(queue_key);
        let Some(queue) = self.queues.get_mut(queue_key) else { return };
        let entry = queue.pop();
        if let Some(entry) = &entry {
            if queue.mark.is_passed_by(entry.place)
                && let Some(store) = &mut self.store
            {
                store.delivering(queue.id, queue.mark.pass(entry.place, self.clock));
            }
            queue.delivered = queue.delivered.max(entry.place);
        }
        let left = queue.len() as u32;
        if queue.next_expiry_ms() != u64::MAX && !std::mem::replace(&mut queue.dirty, true) {
            // What stood behind it may be over, or end before anything else looks.
            self.dirty.push(queue_key);
        }
        let counts = queue.settings.counts_deliveries;
        if self.traced
            && let Some(entry) = &entry
        {
            self.trace_deliver(channel_key, queue_key, entry);
        }
        let Some(channel) = self.channels.get_mut(channel_key) else { return };
        let Some(connection) = self.connections.get(channel.connection) else { return };
        let Some(entry) = entry else {
            return self.answer(channel_key, 0, &basic::GetEmpty {});
        };
        let tag = channel.next_tag();
        let method = basic::GetOk {
            delivery_tag: tag,
            redelivered: entry.redelivered,
            exchange: &entry.message.exchange,
            routing_key: &entry.message.routing_key,
            message_count: left,
        };
        let numbered = (entry.delivery_count != 0 && counts).then(|| counted(&entry));
        let content = numbered.as_ref().unwrap_or(&entry.message.content);
        if channel.answers.is_empty() {
            connection.send_content(channel.number, &method, content);
        } else {
            let mut bytes = Vec::new();
            connection.encode_content(&mut bytes, channel.number, &method, content);
            channel.answers.push_back((0, bytes));
        }
        if no_ack {
            return self.forget(queue_key, entry);
        }
        let held = Held::Here(entry);
        let unacked = Unacked { queue: queue_key, consumer: None, held, due_ms: u64::MAX };
        if channel.hold(tag, unacked) {
            self.shorten_unacked(channel_key);
        }
    }

    /// After `basic.get`: whether its connection is to be read no further until it has read, or what goes before has gone.
    /// A request is small, and what it fetches is not.
    pub(crate) fn has_fetched_enough(&mut self, key: ChannelKey) -> bool {
        let Some(channel) = self.channels.get(key) else { return false };
        let Some(connection) = self.connections.get_mut(channel.connection) else { return false };
        let transport = &connection.transport;
        let bytes_max = self.output_share.answer_bytes_max();
        let answers = channel.answers.iter().map(|(_, bytes)| bytes.len());
        if ANSWERS_MAX < channel.answers.len() || bytes_max < answers.sum() {
            connection.awaits_answer = true;
        } else if !transport.is_full() || transport.buffered() <= bytes_max {
            return false;
        }
        transport.pause_reading();
        true
    }

    /// Drops messages whose time is over from the head of a queue. Behind others that live, they wait: the
    /// order of a queue is not searched, as in RabbitMQ's classic queues.
    pub(crate) fn expire(&mut self, key: QueueKey) {
        self.expire_until(key, self.now_ms);
    }

    fn expire_until(&mut self, key: QueueKey, limit_ms: u64) {
        while let Some(entry) =
            self.queues.get_mut(key).and_then(|queue| queue.pop_expired(limit_ms))
        {
            self.discard(key, entry, Reason::Expired);
        }
    }

    fn counts_deliveries(&self, key: QueueKey) -> bool {
        self.queues.get(key).is_some_and(|queue| queue.settings.counts_deliveries)
    }

    /// A message is done with in one queue.
    pub(super) fn forget(&mut self, key: QueueKey, entry: Entry) {
        if entry.message.deduplicated
            && let Some(queue) = self.queues.get_mut(key)
        {
            queue.release(&entry.message);
        }
        if entry.place != 0
            && let Some(store) = &mut self.store
        {
            store.ack(entry.place);
        }
        self.spares.keep(entry.message);
    }
}

/// An entry of its own for a message that has none.
fn as_entry(entry: &Entry, (exchange, routing_key, content): (&str, &str, &Content)) -> Entry {
    let mut message = Message::clone(&entry.message);
    (message.exchange, message.routing_key) = (exchange.into(), routing_key.into());
    message.content = content.clone();
    Entry { message: Rc::new(message), ..entry.clone() }
}

/// The content of a message that has come back, with the number of times in its headers.
fn counted(entry: &Entry) -> Content {
    let content = &entry.message.content;
    let Ok(mut properties) = RawProperties::new(content.properties()).to_properties() else {
        return content.clone();
    };
    let headers = properties.headers.get_or_insert_default();
    headers.insert("x-delivery-count", FieldValue::I64(entry.delivery_count.into()));
    let mut bytes = Vec::new();
    properties.encode(&mut bytes);
    let properties_bytes = bytes.len();
    bytes.extend_from_slice(content.body());
    Content::new(bytes, properties_bytes)
}

/// The whole number that an argument is, if it is there.
fn whole(
    arguments: &FieldTable,
    key: &str,
    what: &impl Fn() -> String,
) -> Result<Option<i64>, Exception> {
    let Some(value) = arguments.get(key) else { return Ok(None) };
    value.as_i64().map(Some).ok_or_else(|| {
        let why = erlang::quoted(&format!("expected integer, got {}", value.type_name()));
        Exception::precondition(format!("invalid arg '{key}' for {}: {why}", what()))
    })
}
