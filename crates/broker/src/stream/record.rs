//! Records of a stream: a message, where it stands, and when it came.
//!
//! ```text
//! | size u32 | crc32c u32 of the payload | payload, `size` octets |        integers: little-endian
//!
//! payload: offset u64 | time u64, milliseconds since 1970 | exchange: size u8, octets |
//!          routing key: size u8, octets | properties: size u32, octets | body
//! ```
//! The properties already carry the header `x-stream-offset`: a delivery copies them as they are.

use warren_amqp::value::RawValue;
use warren_amqp::{DecodeError, FieldValue, RawProperties};

use crate::store::framing::{Framed, Reader, begin, end, put_octets, put_short_str, unframe};
pub use crate::store::framing::{HEADER_BYTES, PAYLOAD_BYTES_MAX};

/// The header that tells a consumer where a message stands.
pub(crate) const OFFSET_HEADER: &str = "x-stream-offset";
/// The header by whose value consumers choose messages.
pub(crate) const FILTER_HEADER: &str = "x-stream-filter-value";

/// One message of a stream, borrowing from the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it stands: one more than the message before.
    pub offset: u64,
    /// When it came, in milliseconds since 1970; never before the one in front of it.
    pub time_ms: u64,
    /// Where it was published.
    pub exchange: &'a str,
    /// With which key.
    pub routing_key: &'a str,
    /// Encoded properties.
    pub properties: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

impl<'a> Record<'a> {
    /// The value that consumers may choose it by.
    pub fn filter_value(&self) -> Option<&'a [u8]> {
        match RawProperties::new(self.properties).headers()?.get(FILTER_HEADER)? {
            RawValue::LongString(value) => Some(value),
            _ => None,
        }
    }
}

/// What stands at the start of some bytes of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A record, and how many bytes it takes.
    Record(Record<'a>, usize),
    /// Bytes that end within the record.
    Unfinished,
    /// A record whose checksum or content is wrong, and how many bytes it says it takes.
    Damaged(usize),
}

/// Reads the record at the start of `bytes`. Never panics, whatever they are.
pub fn decode(bytes: &[u8]) -> Decoded<'_> {
    match unframe(bytes) {
        Framed::Payload(payload, total) => match decode_payload(payload) {
            Some(record) => Decoded::Record(record, total),
            None => Decoded::Damaged(total),
        },
        Framed::Unfinished => Decoded::Unfinished,
        Framed::Damaged(total) => Decoded::Damaged(total),
    }
}

/// Reads a payload whose checksum is right.
pub(super) fn decode_payload(payload: &[u8]) -> Option<Record<'_>> {
    let mut reader = Reader(payload);
    let (offset, time_ms) = (reader.u64()?, reader.u64()?);
    let (exchange, routing_key) = (reader.short_str()?, reader.short_str()?);
    let properties = reader.octets()?;
    Some(Record { offset, time_ms, exchange, routing_key, properties, body: reader.0 })
}

/// Appends a record.
pub fn encode(out: &mut Vec<u8>, record: &Record<'_>) {
    let at = encode_head(out, record);
    put_octets(out, record.properties);
    out.extend_from_slice(record.body);
    end(out, at);
}

/// Appends a record whose properties get the header with its offset.
///
/// # Errors
/// When the properties are none.
pub(crate) fn encode_with_offset(
    out: &mut Vec<u8>,
    record: &Record<'_>,
) -> Result<(), DecodeError> {
    let start = out.len();
    let at = encode_head(out, record);
    out.extend_from_slice(&[0; 4]);
    let properties_at = out.len();
    let offset = FieldValue::I64(record.offset.cast_signed());
    let properties = RawProperties::new(record.properties);
    if let Err(error) = properties.encode_with_header(OFFSET_HEADER, &offset, out) {
        out.truncate(start);
        return Err(error);
    }
    let size = (out.len() - properties_at) as u32;
    out[properties_at - 4..properties_at].copy_from_slice(&size.to_le_bytes());
    out.extend_from_slice(record.body);
    end(out, at);
    Ok(())
}

fn encode_head(out: &mut Vec<u8>, record: &Record<'_>) -> usize {
    let at = begin(out);
    out.extend_from_slice(&record.offset.to_le_bytes());
    out.extend_from_slice(&record.time_ms.to_le_bytes());
    put_short_str(out, record.exchange);
    put_short_str(out, record.routing_key);
    at
}

/// What [`walk`] meets.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A record, where it begins, and how many bytes it takes.
    Record(Record<'a>, usize, usize),
    /// From where to where there is damage.
    Damaged(usize, usize),
}

/// The records in `bytes`, the first of which has at least the offset `next`. A record that is wrong is passed
/// over by the size it gives. The walk ends where the bytes end within a record, or are none.
pub fn walk(bytes: &[u8], next: u64) -> Walk<'_> {
    Walk { bytes, at: 0, next }
}

/// See [`walk`].
#[derive(Debug)]
pub struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    next: u64,
}

impl Walk<'_> {
    /// How far it has come.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The least offset that the next record may have.
    pub fn next_offset(&self) -> u64 {
        self.next
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Step<'a>;

    fn next(&mut self) -> Option<Step<'a>> {
        let at = self.at;
        let (size, record) = match decode(&self.bytes[at..]) {
            Decoded::Unfinished => return None,
            Decoded::Damaged(size) => (size, None),
            // Offsets only grow: what says otherwise stands in the wrong place.
            Decoded::Record(record, size) if self.next <= record.offset => (size, Some(record)),
            Decoded::Record(_, size) => (size, None),
        };
        self.at += size;
        Some(match record {
            Some(record) => {
                self.next = record.offset.saturating_add(1);
                Step::Record(record, at, size)
            }
            None => Step::Damaged(at, self.at),
        })
    }
}
