//! A message as queues hold it.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use compact_str::CompactString;
use warren_amqp::properties::PERSISTENT;
use warren_amqp::{BasicProperties, RawProperties};

use crate::memory::{Charge, Charged, MESSAGE_BYTES};

/// Bodies from here on are handed to transports without a copy.
pub(crate) const SHARE_BYTES_MIN: usize = 16 * 1024;

/// Shared by all queues it was routed to.
#[derive(Clone)]
pub(crate) struct Message {
    /// Unique for the life of the process; 0 when it was read back, which only what is not told by it is.
    pub(crate) id: u64,
    pub(crate) exchange: Rc<str>,
    pub(crate) routing_key: CompactString,
    pub(crate) content: Content,
    /// When it expires, in milliseconds since 1970; `u64::MAX`: never.
    pub(crate) expires_ms: u64,
    /// When it came in, in milliseconds since 1970; 0: none of its queues asks, having no time to live of its own.
    pub(crate) published_ms: u64,
    /// Where the store's log has it, or will; `None`: nowhere.
    pub(crate) stored: Option<Stored>,
    /// Some queue knows it by the value that it must not hold twice.
    pub(crate) deduplicated: bool,
}

/// Where the store has a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Its place in the first of its durable queues; the next numbers are those in the others. Increases in the
    /// order of publishing.
    pub(crate) first: u64,
    pub(crate) spot: Spot,
}

/// Where a record is in its segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

/// Properties and body, in one piece of memory: copied once, out of the read buffer.
#[derive(Clone)]
pub(crate) struct Content {
    bytes: Bytes,
    properties_bytes: u32,
    _charge: Charge,
}

impl Content {
    /// `bytes` is the encoded properties, `properties_bytes` long, and then the body.
    pub(crate) fn new(bytes: Vec<u8>, properties_bytes: usize) -> Self {
        let charge = Charge::new(bytes.capacity() + MESSAGE_BYTES);
        let properties_bytes = properties_bytes as u32;
        if bytes.len() < SHARE_BYTES_MIN {
            return Self { bytes: Bytes::from(bytes), properties_bytes, _charge: charge };
        }
        // Transports may hold it for longer than queues do.
        let bytes = Bytes::from_owner(Charged::new(bytes, charge));
        Self { bytes, properties_bytes, _charge: Charge::default() }
    }

    /// A part of a piece of memory that is no longer wanted otherwise: properties and body in a row.
    pub(crate) fn within(bytes: Vec<u8>, at: Range<usize>, properties_bytes: usize) -> Self {
        let charge = Charge::new(bytes.capacity() + MESSAGE_BYTES);
        Self::shared(Bytes::from_owner(Charged::new(bytes, charge)).slice(at), properties_bytes)
    }

    pub(crate) fn with_properties(properties: &BasicProperties, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(64 + body.len());
        properties.encode(&mut bytes);
        let properties_bytes = bytes.len();
        bytes.extend_from_slice(body);
        Self::new(bytes, properties_bytes)
    }

    /// A part of somebody else's bytes: properties and body in a row.
    pub(crate) fn shared(bytes: Bytes, properties_bytes: usize) -> Self {
        Self { bytes, properties_bytes: properties_bytes as u32, _charge: Charge::default() }
    }

    /// Properties and body in a row.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn properties(&self) -> &[u8] {
        &self.bytes[..self.properties_bytes as usize]
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[self.properties_bytes as usize..]
    }

    /// The body without a copy.
    pub(crate) fn shared_body(&self) -> Bytes {
        self.bytes.slice(self.properties_bytes as usize..)
    }

    pub(crate) fn is_persistent(&self) -> bool {
        RawProperties::new(self.properties()).delivery_mode() == Some(PERSISTENT)
    }
}

/// A message's place in one queue.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) message: Rc<Message>,
    /// The store's number for the message in this queue; 0: the store does not know of it.
    pub(crate) place: u64,
    /// Where it stands in the queue; a message that is put back goes to its old place.
    pub(crate) position: u64,
    /// Whether it may have been delivered before.
    pub(crate) redelivered: bool,
    pub(crate) priority: u8,
    /// Deliveries that came back.
    pub(crate) delivery_count: u32,
    /// When it expires in this queue, in milliseconds since 1970; `u64::MAX`: never.
    pub(crate) expires_ms: u64,
}
