//! Direct reply-to: answers of a remote procedure go straight to the channel that asked, through no queue.
//!
//! The asker consumes from a queue that is none, `amq.rabbitmq.reply-to`, and publishes with that name as its
//! `reply_to`; whoever answers sees a name of that channel's own there, and publishes to it by the default exchange.

use std::rc::Rc;

use compact_str::CompactString;
use warren_amqp::method::basic;
use warren_amqp::{RawProperties, ReplyCode};

use super::Engine;
use crate::channel::{Channel, ChannelKey, Publish};
use crate::exception::Exception;
use crate::message::Content;

/// The queue that is none.
pub(crate) const REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// Answers that wait for a client who does not read. More are lost, as they are when it has gone.
const BYTES_WAITING_MAX: usize = 8 * 1024 * 1024;

/// A channel that takes answers.
pub(crate) struct ReplyConsumer {
    pub(crate) tag: CompactString,
    /// What stands in for [`REPLY_TO`] in messages.
    name: CompactString,
}

impl Engine {
    /// Lets a channel take answers; the consumer's tag.
    ///
    /// # Errors
    /// When it wants to acknowledge them, or takes answers already.
    pub(crate) fn consume_replies(
        &mut self,
        key: ChannelKey,
        consume: &basic::Consume<'_>,
    ) -> Result<CompactString, Exception> {
        let Some(channel) = self.channels.get(key) else { return Ok("".into()) };
        if channel.has_consumer(consume.consumer_tag) {
            let text = format!("attempt to reuse consumer tag '{}'", consume.consumer_tag);
            return Err(Exception::new(ReplyCode::NOT_ALLOWED, text));
        }
        if !consume.no_ack {
            return Err(Exception::precondition("reply consumer cannot acknowledge"));
        }
        if channel.replies.is_some() {
            return Err(Exception::precondition("reply consumer already set"));
        }
        let tag = match consume.consumer_tag {
            "" => self.generate_name("amq.ctag-"),
            tag => tag.into(),
        };
        let name = self.generate_name("amq.rabbitmq.reply-to.");
        self.reply_channels.insert(name.clone(), key);
        if let Some(channel) = self.channels.get_mut(key) {
            channel.replies = Some(ReplyConsumer { tag: tag.clone(), name });
        }
        Ok(tag)
    }

    /// The channel takes no more answers.
    pub(super) fn cancel_replies(&mut self, key: ChannelKey) {
        let replies = self.channels.get_mut(key).and_then(|channel| channel.replies.take());
        if let Some(replies) = replies {
            self.reply_channels.remove(&replies.name);
        }
    }

    /// Whether this is the name of a channel that takes answers, or of all of them.
    pub(crate) fn takes_replies(&self, name: &str) -> bool {
        name == REPLY_TO || self.reply_channels.contains_key(name)
    }

    /// A question gets the name of the channel that takes its answer.
    ///
    /// # Errors
    /// When the channel takes none.
    pub(super) fn ask(&self, key: ChannelKey, publish: &mut Publish) -> Result<(), Exception> {
        let replies = self.channels.get(key).and_then(|channel| channel.replies.as_ref());
        let Some(replies) = replies else {
            return Err(Exception::precondition("fast reply consumer does not exist"));
        };
        let mut properties =
            RawProperties::new(publish.message.content.properties()).to_properties()?;
        properties.reply_to = Some(replies.name.to_string());
        Rc::make_mut(&mut publish.message).content =
            Content::with_properties(&properties, publish.message.content.body());
        Ok(())
    }

    /// Delivers an answer, if its routing key names a channel that is there.
    pub(super) fn reply(&mut self, publish: &Publish) {
        let Some(key) = self.reply_channels.get(&publish.message.routing_key) else { return };
        let Some(channel) = self.channels.get_mut(*key) else { return };
        let Some(connection) = self.connections.get(channel.connection) else { return };
        if BYTES_WAITING_MAX < connection.transport.buffered() {
            tracing::warn!(peer = %connection.transport.peer(), "an answer is lost: the client does not read");
            return;
        }
        let tag = channel.next_tag();
        let Channel { replies: Some(replies), number, answers, .. } = channel else { return };
        let method = basic::Deliver {
            consumer_tag: &replies.tag,
            delivery_tag: tag,
            redelivered: false,
            exchange: "",
            routing_key: &publish.message.routing_key,
        };
        if answers.is_empty() {
            connection.send_content(*number, &method, &publish.message.content);
        } else {
            let mut bytes = Vec::new();
            connection.encode_content(&mut bytes, *number, &method, &publish.message.content);
            answers.push_back((0, bytes));
        }
    }
}
