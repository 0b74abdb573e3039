//! Records of the message log.
//!
//! ```text
//! | size u32 | crc32c u32 of the payload | payload, `size` octets |        integers: little-endian; v: a varint
//!
//! publish:   16 | flags u8 | place v | queue count v | queue ids v ... | expires_ms u64, if flags & 1 |
//!            published_ms u64, if flags & 2 | exchange: size u8, octets | routing key: size u8, octets |
//!            properties: size v, octets | body
//! ack:       17 | place id u64 | count v
//! delivered: 18 | queue v | place id u64
//! counted:   19 | place id u64 | count v | due_ms v
//! end:       20 | count v
//!
//! filler:    | size u32, the highest bit set | crc32c u32 of these four octets | `size` octets of anything |
//! ```
//! A message has a place for each of its queues, numbered within its segment; a place id is the segment's number
//! times 2^32, and the place. A kind with the highest bit set: the record belongs to a group, which counts as a whole
//! or not at all. The *end* behind it says of how many records it is.

use super::framing::{Framed, Reader, begin, end, put_short_str, put_varint, unframe};
pub use super::framing::{HEADER_BYTES, PAYLOAD_BYTES_MAX};
use crate::message::Message;

const PUBLISH: u8 = 16;
const ACK: u8 = 17;
const DELIVERED: u8 = 18;
const COUNTED: u8 = 19;
const END: u8 = 20;
/// Set in the kind of a record of a group.
const GROUPED: u8 = 0x80;
const EXPIRES: u8 = 1;
const DATED: u8 = 2;
/// No payload but that of a publish is larger: a kind, and three numbers.
const SMALL_BYTES_MAX: usize = 1 + 3 * 10;
/// Set in the size of what is passed over.
const FILLER: u32 = 1 << 31;

/// One record, borrowing from the bytes it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A message for some queues.
    Publish {
        /// Its place in the first queue; the next places are those in the others.
        place: u32,
        /// For which queues.
        queues: Vec<u64>,
        /// Milliseconds since 1970; `u64::MAX`: never.
        expires_ms: u64,
        /// When it came in, in milliseconds since 1970; 0: no queue asks.
        published_ms: u64,
        /// Where it was published.
        exchange: &'a str,
        /// With which key.
        routing_key: &'a str,
        /// Encoded properties.
        properties: &'a [u8],
        /// The body.
        body: &'a [u8],
    },
    /// Messages have left their queues.
    Ack {
        /// The first place id.
        first: u64,
        /// So many places in a row.
        count: u32,
    },
    /// All messages of the queue up to this one may have been delivered.
    Delivered {
        /// The queue.
        queue: u64,
        /// The place id of the last of them.
        place: u64,
    },
    /// The message has come back to the queue so many times.
    Counted {
        /// The place id.
        place: u64,
        /// Deliveries that came back.
        count: u32,
        /// Until when it waits there, in milliseconds since 1970; 0: it does not.
        due_ms: u64,
    },
    /// So many records before this one count together or not at all.
    End {
        /// How many.
        count: u32,
    },
}

/// What stands at the start of some bytes of the log.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A record, and how many bytes it takes.
    Record(Record<'a>, usize),
    /// The same of a record that counts only with the whole of its group.
    Grouped(Record<'a>, usize),
    /// Nothing, in so many bytes: what stood there was settled before it was written.
    Filler(usize),
    /// Bytes that end within the record.
    Unfinished,
    /// A record whose checksum or content is wrong, and how many bytes it says it takes.
    Damaged(usize),
}

/// Reads the record at the start of `bytes`. Never panics, whatever they are.
pub fn decode(bytes: &[u8]) -> Decoded<'_> {
    if let Some([s0, s1, s2, s3, crc @ ..]) = bytes.first_chunk::<HEADER_BYTES>() {
        let size = [*s0, *s1, *s2, *s3];
        let filler = u32::from_le_bytes(size);
        if filler & FILLER != 0 && crc32c::crc32c(&size) == u32::from_le_bytes(*crc) {
            let total = HEADER_BYTES + (filler & !FILLER) as usize;
            return if total <= bytes.len() { Decoded::Filler(total) } else { Decoded::Unfinished };
        }
    }
    let (payload, total) = match unframe(bytes) {
        Framed::Payload(payload, total) => (payload, total),
        Framed::Unfinished => return Decoded::Unfinished,
        Framed::Damaged(total) => return Decoded::Damaged(total),
    };
    match decode_payload(payload) {
        Some(record) if payload[0] & GROUPED != 0 => Decoded::Grouped(record, total),
        Some(record) => Decoded::Record(record, total),
        None => Decoded::Damaged(total),
    }
}

/// How many octets the record at the start of `bytes` says it takes.
pub(super) fn total(bytes: &[u8]) -> usize {
    match bytes.first_chunk::<4>() {
        Some(size) => HEADER_BYTES + (u32::from_le_bytes(*size) & !FILLER) as usize,
        None => usize::MAX,
    }
}

/// How many octets are looked at to tell whether a record begins there.
pub(super) fn check_bytes(bytes: &[u8]) -> usize {
    // A filler's header has a checksum of its own.
    if bytes.get(3).is_some_and(|octet| octet & 0x80 != 0) { HEADER_BYTES } else { total(bytes) }
}

/// Whether a record may begin there, before its checksum is computed. Among arbitrary bytes there are places enough
/// that seem to begin a long one; those that also make sense are few.
pub(super) fn may_begin(bytes: &[u8]) -> bool {
    let total = total(bytes);
    if bytes.len() < total {
        return false;
    }
    let Some(kind) = bytes.get(HEADER_BYTES).map(|kind| kind & !GROUPED) else { return false };
    let is_filler = bytes[3] & 0x80 != 0;
    let is_kind = (PUBLISH..=END).contains(&kind)
        && (kind == PUBLISH || total <= HEADER_BYTES + SMALL_BYTES_MAX);
    is_filler || is_kind && decode_payload(&bytes[HEADER_BYTES..total]).is_some()
}

/// Reads a payload whose checksum is right.
pub(super) fn decode_payload(payload: &[u8]) -> Option<Record<'_>> {
    let mut reader = Reader(payload);
    let record = match reader.u8()? & !GROUPED {
        PUBLISH => {
            let flags = reader.u8()?;
            let place = reader.varint()?.try_into().ok()?;
            let count = reader.varint()? as usize;
            // Each takes an octet at least: a hostile count must not make us ask for memory.
            if flags & !(EXPIRES | DATED) != 0 || reader.0.len() < count {
                return None;
            }
            let queues = (0..count).map(|_| reader.varint()).collect::<Option<Vec<_>>>()?;
            let expires_ms = if flags & EXPIRES != 0 { reader.u64()? } else { u64::MAX };
            let published_ms = if flags & DATED != 0 { reader.u64()? } else { 0 };
            if (flags & EXPIRES != 0 && expires_ms == u64::MAX)
                || (flags & DATED != 0 && published_ms == 0)
            {
                return None;
            }
            let (exchange, routing_key) = (reader.short_str()?, reader.short_str()?);
            let size = reader.varint()?.try_into().ok()?;
            let properties = reader.take(size)?;
            let body = reader.take(reader.0.len())?;
            Record::Publish {
                place,
                queues,
                expires_ms,
                published_ms,
                exchange,
                routing_key,
                properties,
                body,
            }
        }
        ACK => Record::Ack { first: reader.u64()?, count: reader.varint()?.try_into().ok()? },
        DELIVERED => Record::Delivered { queue: reader.varint()?, place: reader.u64()? },
        COUNTED => Record::Counted {
            place: reader.u64()?,
            count: reader.varint()?.try_into().ok()?,
            due_ms: reader.varint()?,
        },
        END => Record::End { count: reader.varint()?.try_into().ok()? },
        _ => return None,
    };
    reader.0.is_empty().then_some(record)
}

/// Appends a record; one of a group, perhaps.
pub fn encode(out: &mut Vec<u8>, record: &Record<'_>, grouped: bool) {
    let group = if grouped { GROUPED } else { 0 };
    let at = begin(out);
    match *record {
        Record::Publish {
            place,
            ref queues,
            expires_ms,
            published_ms,
            exchange,
            routing_key,
            properties,
            body,
        } => {
            out.push(PUBLISH | group);
            let expires = if expires_ms == u64::MAX { 0 } else { EXPIRES };
            out.push(expires | if published_ms == 0 { 0 } else { DATED });
            put_varint(out, place.into());
            put_varint(out, queues.len() as u64);
            for queue in queues {
                put_varint(out, *queue);
            }
            if expires != 0 {
                out.extend_from_slice(&expires_ms.to_le_bytes());
            }
            if published_ms != 0 {
                out.extend_from_slice(&published_ms.to_le_bytes());
            }
            put_short_str(out, exchange);
            put_short_str(out, routing_key);
            put_varint(out, properties.len() as u64);
            out.extend_from_slice(properties);
            out.extend_from_slice(body);
        }
        Record::Ack { first, count } => {
            out.push(ACK | group);
            out.extend_from_slice(&first.to_le_bytes());
            put_varint(out, count.into());
        }
        Record::Delivered { queue, place } => {
            out.push(DELIVERED | group);
            put_varint(out, queue);
            out.extend_from_slice(&place.to_le_bytes());
        }
        Record::Counted { place, count, due_ms } => {
            out.push(COUNTED | group);
            out.extend_from_slice(&place.to_le_bytes());
            put_varint(out, count.into());
            put_varint(out, due_ms);
        }
        Record::End { count } => {
            out.push(END | group);
            put_varint(out, count.into());
        }
    }
    end(out, at);
}

/// As [`encode`], without a list of its own for the queues.
pub(super) fn encode_publish(
    out: &mut Vec<u8>,
    place: u32,
    message: &Message,
    queues: &mut Vec<u64>,
    grouped: bool,
) {
    let record = Record::Publish {
        place,
        queues: std::mem::take(queues),
        expires_ms: message.expires_ms,
        published_ms: message.published_ms,
        exchange: &message.exchange,
        routing_key: &message.routing_key,
        properties: message.content.properties(),
        body: message.content.body(),
    };
    encode(out, &record, grouped);
    if let Record::Publish { queues: list, .. } = record {
        *queues = list;
    }
}

/// Takes the record that begins at `at` and goes to the end out of its group.
pub(super) fn ungroup(out: &mut [u8], at: usize) {
    out[at + HEADER_BYTES] &= !GROUPED;
    end(out, at + HEADER_BYTES);
}

/// Makes a filler of some bytes, [`HEADER_BYTES`] at least: only its header is set.
pub(super) fn fill(bytes: &mut [u8]) {
    let size = ((bytes.len() - HEADER_BYTES) as u32 | FILLER).to_le_bytes();
    bytes[..4].copy_from_slice(&size);
    bytes[4..HEADER_BYTES].copy_from_slice(&crc32c::crc32c(&size).to_le_bytes());
}
