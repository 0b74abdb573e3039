//! A message that comes in pieces: method, header, body frames.

use std::rc::Rc;

use compact_str::CompactString;
use warren_amqp::constants::CLASS_BASIC;
use warren_amqp::method::basic;
use warren_amqp::{ReplyCode, properties};

use super::{SessionState, Slot};
use crate::channel::{ChannelKey, Publish};
use crate::engine::Engine;
use crate::exception::{Exception, resource};
use crate::exchange::ExchangeKey;
use crate::memory::Part;
use crate::message::Message;
use crate::vhost::VhostKey;

/// What is reserved for a body that was announced: one in a single frame is not moved. More only as it arrives.
const RESERVE_BYTES_MAX: usize = 132 * 1024;

/// A publish of which more is to come.
pub(super) struct Incoming {
    vhost: VhostKey,
    exchange: Option<(ExchangeKey, Rc<str>)>,
    routing_key: CompactString,
    mandatory: bool,
    immediate: bool,
    /// `None` until the header has come.
    body: Option<IncomingBody>,
}

struct IncomingBody {
    /// With the properties, and the body as far as it has come. Nobody else has it.
    message: Rc<Message>,
    /// Of the body.
    missing_bytes: usize,
    /// For what has come, once that is more than a frame.
    part: Part,
}

impl Incoming {
    pub(super) fn new(
        engine: &mut Engine,
        channel: ChannelKey,
        publish: &basic::Publish<'_>,
        spare_key: &mut CompactString,
    ) -> Result<Self, Exception> {
        let name = publish.exchange;
        let exchange = engine.check_publish(channel, name, publish.routing_key)?;
        let found = exchange.and_then(|key| Some((key, engine.exchanges.get(key)?)));
        if let Some((_, exchange)) = found
            && exchange.internal
        {
            let what = resource("internal exchange", name, &exchange.vhost);
            return Err(Exception::refused(format!("cannot publish to {what}")));
        }
        let exchange = found.map(|(key, exchange)| (key, exchange.name.clone()));
        let vhost =
            engine.channels.get(channel).map_or(VhostKey::nothing(), |channel| channel.vhost);
        let mut routing_key = std::mem::take(spare_key);
        routing_key.clear();
        routing_key.push_str(publish.routing_key);
        Ok(Self {
            vhost,
            exchange,
            routing_key,
            mandatory: publish.mandatory,
            immediate: publish.immediate,
            body: None,
        })
    }
}

/// A content came that no method announced.
fn stray() -> Exception {
    let text = "expected method frame, got non method frame instead";
    Exception::hard(ReplyCode::UNEXPECTED_FRAME, text).at(0, 0)
}

/// Something else came while a content was expected.
pub(super) fn interrupted(incoming: &Incoming) -> Exception {
    let text = match incoming.body {
        None => "expected content header for class 60, got non content header frame instead",
        Some(_) => "expected content body, got non content body frame instead",
    };
    Exception::hard(ReplyCode::UNEXPECTED_FRAME, text)
        .at(CLASS_BASIC, basic::Publish::INFO.method_id)
}

impl SessionState {
    pub(super) fn content_header(
        &mut self,
        engine: &mut Engine,
        number: u16,
        class_id: u16,
        body_size: u64,
        raw_properties: &[u8],
    ) -> Result<(), Exception> {
        let incoming = match self.slots.get_mut(&number) {
            Some(Slot::Closing) => return Ok(()),
            Some(slot @ Slot::Ending(_)) if !slot.is_free(engine) => return Ok(()),
            Some(Slot::Open { incoming: Some(incoming), .. }) if incoming.body.is_none() => {
                incoming
            }
            Some(Slot::Open { incoming: Some(incoming), .. }) => return Err(interrupted(incoming)),
            Some(Slot::Open { .. } | Slot::Ending(_)) | None => return Err(stray()),
        };
        if class_id != CLASS_BASIC {
            let text = format!(
                "expected content header for class 60, got one for class {class_id} instead"
            );
            return Err(Exception::hard(ReplyCode::UNEXPECTED_FRAME, text));
        }
        let bytes_max = engine.limits.message_bytes_max;
        if bytes_max < body_size {
            let text =
                format!("message size {body_size} is larger than configured max size {bytes_max}");
            return Err(Exception::precondition(text));
        }
        properties::validate(raw_properties)?;
        let missing_bytes = body_size as usize;
        let bytes = raw_properties.len() + missing_bytes;
        if RESERVE_BYTES_MAX < bytes
            && let Some(key) = self.key
        {
            self.blocked |= !engine.may_go_on(key);
        }
        let mut message = engine.spares.take(bytes.min(RESERVE_BYTES_MAX));
        if let Some(message) = Rc::get_mut(&mut message) {
            message.content.begin(raw_properties);
        }
        incoming.body = Some(IncomingBody { message, missing_bytes, part: Part::default() });
        self.complete(engine, number)
    }

    pub(super) fn content_body(
        &mut self,
        engine: &mut Engine,
        number: u16,
        payload: &[u8],
    ) -> Result<(), Exception> {
        let body = match self.slots.get_mut(&number) {
            Some(Slot::Closing) => return Ok(()),
            Some(slot @ Slot::Ending(_)) if !slot.is_free(engine) => return Ok(()),
            Some(Slot::Open { incoming: Some(Incoming { body: Some(body), .. }), .. }) => body,
            Some(Slot::Open { incoming: Some(incoming), .. }) => return Err(interrupted(incoming)),
            Some(Slot::Open { .. } | Slot::Ending(_)) | None => return Err(stray()),
        };
        if body.missing_bytes < payload.len() {
            return Err(Exception::hard(
                ReplyCode::FRAME_ERROR,
                "the body is longer than its header says",
            ));
        }
        body.missing_bytes -= payload.len();
        if let Some(message) = Rc::get_mut(&mut body.message) {
            message.content.append(payload, body.missing_bytes);
        }
        if body.missing_bytes != 0 {
            body.part.set(body.message.content.room());
            if let Some(key) = self.key {
                self.blocked |= !engine.may_go_on(key);
            }
            return Ok(());
        }
        self.complete(engine, number)
    }

    /// Publishes what has come whole.
    fn complete(&mut self, engine: &mut Engine, number: u16) -> Result<(), Exception> {
        let Some(Slot::Open { key, incoming }) = self.slots.get_mut(&number) else { return Ok(()) };
        let whole = incoming
            .as_ref()
            .and_then(|incoming| incoming.body.as_ref())
            .is_some_and(|body| body.missing_bytes == 0);
        if !whole {
            return Ok(());
        }
        let Some(Incoming { vhost, exchange, mut routing_key, mandatory, immediate, body }) =
            incoming.take()
        else {
            return Ok(());
        };
        let Some(IncomingBody { mut message, part, .. }) = body else { return Ok(()) };
        if let Some(message) = Rc::get_mut(&mut message) {
            message.content.seal();
            std::mem::swap(&mut message.routing_key, &mut routing_key);
        }
        self.spare_key = routing_key;
        let key = *key;
        let exchange = match exchange {
            Some((exchange, name)) => Some(engine.find_again(key, exchange, &name)?),
            None => None,
        };
        if part.is_some() {
            drop(part);
            engine.body_came(self.key);
        }
        let more_keys = Vec::new();
        // First, for the publish can end the channel.
        if engine.alarms.any() {
            self.blocked = true;
            let reason = engine.alarms.reason();
            if let Some(connection) = self.connection(engine) {
                connection.block(&reason);
            }
        }
        let publish = Publish { vhost, exchange, message, more_keys, mandatory, immediate };
        engine.publish(key, publish)
    }
}

/// A frame on a channel that nobody opened.
pub(super) fn not_open() -> Exception {
    Exception::hard(ReplyCode::CHANNEL_ERROR, "expected 'channel.open'")
}
