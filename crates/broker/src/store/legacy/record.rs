//! Records of the message log in the formats 1 to 3.
//!
//! ```text
//! | size u32 | crc32c u32 of the payload | payload, `size` octets |        integers: little-endian
//!
//! publish:   1 | id u64 | expires_ms u64 | queue count u32 | queue ids u64 ... |
//!            exchange: size u8, octets | routing key: size u8, octets | properties: size u32, octets | body
//! ack:       2 | queue u64 | id u64
//! delivered: 3 | queue u64 | id u64
//! counted:   4 | queue u64 | id u64 | count u32                                      since format 2
//! dated:     5 | id u64 | expires_ms u64 | published_ms u64 | queue count u32 | ...   since format 3: a publish
//! waits:     6 | queue u64 | id u64 | count u32 | due_ms u64                         since format 3
//! end:       7 | count u32                                                           since format 3
//! ```
//! A kind with the highest bit set: the record belongs to a group, which counts as a whole or not at all. The *end*
//! behind it says of how many records it is.

use super::super::framing::{Framed, Reader, begin, end, put_octets, put_short_str, unframe};

const PUBLISH: u8 = 1;
const ACK: u8 = 2;
const DELIVERED: u8 = 3;
const COUNTED: u8 = 4;
const DATED: u8 = 5;
const WAITS: u8 = 6;
const END: u8 = 7;
/// Set in the kind of a record of a group.
const GROUPED: u8 = 0x80;

/// One record, borrowing from the bytes it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A message for some queues.
    Publish {
        /// Increases from message to message.
        message: u64,
        /// Milliseconds since 1970; `u64::MAX`: never.
        expires_ms: u64,
        /// When it came in, in milliseconds since 1970; 0: none of its queues asks.
        published_ms: u64,
        /// For which queues.
        queues: Vec<u64>,
        /// Where it was published.
        exchange: &'a str,
        /// With which key.
        routing_key: &'a str,
        /// Encoded properties.
        properties: &'a [u8],
        /// The body.
        body: &'a [u8],
    },
    /// The message has left the queue.
    Ack {
        /// The queue.
        queue: u64,
        /// The message.
        message: u64,
    },
    /// All messages of the queue up to this one may have been delivered.
    Delivered {
        /// The queue.
        queue: u64,
        /// The last of them.
        message: u64,
    },
    /// The message has come back to the queue so many times.
    Counted {
        /// The queue.
        queue: u64,
        /// The message.
        message: u64,
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
    /// Bytes that end within the record.
    Unfinished,
    /// A record whose checksum or content is wrong, and how many bytes it says it takes.
    Damaged(usize),
}

/// Reads the record at the start of `bytes`. Never panics, whatever they are.
pub fn decode(bytes: &[u8]) -> Decoded<'_> {
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

/// Reads a payload whose checksum is right.
fn decode_payload(payload: &[u8]) -> Option<Record<'_>> {
    let mut reader = Reader(payload);
    let record = match reader.u8()? & !GROUPED {
        kind @ (PUBLISH | DATED) => {
            let (message, expires_ms) = (reader.u64()?, reader.u64()?);
            let published_ms = if kind == DATED { reader.u64()? } else { 0 };
            let count = reader.u32()? as usize;
            let queues = reader.take(count.checked_mul(8)?)?;
            let queues = queues
                .chunks_exact(8)
                .filter_map(|chunk| chunk.try_into().ok().map(u64::from_le_bytes))
                .collect();
            let (exchange, routing_key) = (reader.short_str()?, reader.short_str()?);
            let properties = reader.octets()?;
            let body = reader.take(reader.0.len())?;
            Record::Publish {
                message,
                expires_ms,
                published_ms,
                queues,
                exchange,
                routing_key,
                properties,
                body,
            }
        }
        ACK => Record::Ack { queue: reader.u64()?, message: reader.u64()? },
        DELIVERED => Record::Delivered { queue: reader.u64()?, message: reader.u64()? },
        kind @ (COUNTED | WAITS) => {
            let (queue, message, count) = (reader.u64()?, reader.u64()?, reader.u32()?);
            let due_ms = if kind == WAITS { reader.u64()? } else { 0 };
            Record::Counted { queue, message, count, due_ms }
        }
        END => Record::End { count: reader.u32()? },
        _ => return None,
    };
    reader.0.is_empty().then_some(record)
}

/// Appends a record; one of a group, perhaps.
pub fn encode(out: &mut Vec<u8>, record: &Record<'_>, grouped: bool) {
    let at = begin(out);
    match record {
        Record::Publish {
            message,
            expires_ms,
            published_ms,
            queues,
            exchange,
            routing_key,
            properties,
            body,
        } => {
            out.push(if *published_ms == 0 { PUBLISH } else { DATED });
            out.extend_from_slice(&message.to_le_bytes());
            out.extend_from_slice(&expires_ms.to_le_bytes());
            if *published_ms != 0 {
                out.extend_from_slice(&published_ms.to_le_bytes());
            }
            out.extend_from_slice(&(queues.len() as u32).to_le_bytes());
            for queue in queues {
                out.extend_from_slice(&queue.to_le_bytes());
            }
            put_short_str(out, exchange);
            put_short_str(out, routing_key);
            put_octets(out, properties);
            out.extend_from_slice(body);
        }
        Record::Ack { queue, message } | Record::Delivered { queue, message } => {
            out.push(if matches!(record, Record::Ack { .. }) { ACK } else { DELIVERED });
            out.extend_from_slice(&queue.to_le_bytes());
            out.extend_from_slice(&message.to_le_bytes());
        }
        Record::Counted { queue, message, count, due_ms } => {
            out.push(if *due_ms == 0 { COUNTED } else { WAITS });
            out.extend_from_slice(&queue.to_le_bytes());
            out.extend_from_slice(&message.to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
            if *due_ms != 0 {
                out.extend_from_slice(&due_ms.to_le_bytes());
            }
        }
        Record::End { count } => {
            out.push(END);
            out.extend_from_slice(&count.to_le_bytes());
        }
    }
    if grouped {
        out[at] |= GROUPED;
    }
    end(out, at);
}
