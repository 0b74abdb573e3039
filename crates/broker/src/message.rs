//! A message as queues hold it.

mod spares;

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use compact_str::CompactString;
use warren_amqp::properties::PERSISTENT;
use warren_amqp::{BasicProperties, RawProperties};

use crate::memory::{Charge, Charged, MESSAGE_BYTES};
pub(crate) use spares::Spares;

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

impl Default for Message {
    fn default() -> Self {
        Self::new(CompactString::default(), Content::default())
    }
}

impl Message {
    /// One that was published nowhere yet.
    pub(crate) fn new(routing_key: CompactString, content: Content) -> Self {
        Self {
            id: 0,
            exchange: Rc::default(),
            routing_key,
            content,
            expires_ms: u64::MAX,
            published_ms: 0,
            stored: None,
            deduplicated: false,
        }
    }
}

/// Properties and body, in one piece of memory: copied once, out of the read buffer.
#[derive(Clone, Default)]
pub(crate) struct Content {
    octets: Octets,
    properties_bytes: u32,
    /// Not of what is shared, which has its own, and of nothing while it is only kept for another.
    charge: Charge,
}

#[derive(Clone)]
enum Octets {
    /// Used again when the message is done with.
    Own(Vec<u8>),
    /// Transports may have it, or others whose bytes these are.
    Shared(Bytes),
}

impl Default for Octets {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

impl Content {
    /// `bytes` is the encoded properties, `properties_bytes` long, and then the body.
    pub(crate) fn new(bytes: Vec<u8>, properties_bytes: usize) -> Self {
        let mut content = Self {
            octets: Octets::Own(bytes),
            properties_bytes: properties_bytes as u32,
            charge: Charge::default(),
        };
        content.seal();
        content
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
        let octets = Octets::Shared(bytes);
        Self { octets, properties_bytes: properties_bytes as u32, charge: Charge::default() }
    }

    /// Writes the properties, encoded, where nothing is yet; [`append`](Self::append) then adds the body.
    pub(crate) fn begin(&mut self, properties: &[u8]) {
        debug_assert!(self.is_empty());
        self.append(properties, 0);
        self.properties_bytes = properties.len() as u32;
    }

    /// Appends a part, behind which so many octets are still to come.
    pub(crate) fn append(&mut self, bytes: &[u8], missing_bytes: usize) {
        let Octets::Own(own) = &mut self.octets else { return };
        let wanted = own.len() + bytes.len();
        if own.capacity() < wanted {
            // Doubled, so that little is moved; in the end just as large as it has to be.
            let capacity = (2 * own.capacity()).max(wanted).min(wanted + missing_bytes);
            own.reserve_exact(capacity - own.len());
        }
        own.extend_from_slice(bytes);
    }

    /// All is there: it counts from now on, and a large one can be shared.
    pub(crate) fn seal(&mut self) {
        let Octets::Own(own) = &mut self.octets else { return };
        let charge = Charge::new(own.capacity() + MESSAGE_BYTES);
        if own.len() < SHARE_BYTES_MIN {
            self.charge = charge;
        } else {
            // Transports may hold it for longer than queues do.
            let shared = Charged::new(std::mem::take(own), charge);
            self.octets = Octets::Shared(Bytes::from_owner(shared));
        }
    }

    /// Makes room for so many octets, where nothing is yet.
    fn reserve(&mut self, bytes: usize) {
        if let Octets::Own(own) = &mut self.octets {
            own.reserve_exact(bytes);
        }
    }

    /// Empties it, and gives its memory back if it is shared, or room for more than `room_max`. The room that is left.
    fn clear(&mut self, room_max: usize) -> usize {
        self.properties_bytes = 0;
        self.charge = Charge::default();
        match &mut self.octets {
            Octets::Own(own) if own.capacity() <= room_max => own.clear(),
            octets => *octets = Octets::default(),
        }
        self.room()
    }

    /// Octets that it can hold without asking for memory.
    pub(crate) fn room(&self) -> usize {
        match &self.octets {
            Octets::Own(own) => own.capacity(),
            Octets::Shared(_) => 0,
        }
    }

    /// Properties and body in a row.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.octets {
            Octets::Own(own) => own,
            Octets::Shared(shared) => shared,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    pub(crate) fn properties(&self) -> &[u8] {
        &self.bytes()[..self.properties_bytes as usize]
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes()[self.properties_bytes as usize..]
    }

    /// A body of [`SHARE_BYTES_MIN`] or more, without a copy.
    pub(crate) fn shared_body(&self) -> Option<Bytes> {
        match &self.octets {
            Octets::Shared(bytes) if SHARE_BYTES_MIN <= self.body().len() => {
                Some(bytes.slice(self.properties_bytes as usize..))
            }
            _ => None,
        }
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
