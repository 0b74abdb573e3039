//! The index of a segment: an entry for each block of some 64 KiB of records, so that an offset or a time is
//! found by bisection, and what a consumer does not want is passed over unread.
//!
//! ```text
//! | header 32 octets | entry | entry | ...                                  integers: little-endian
//!
//! entry: position u64 | bytes u32 | first offset u64 | next offset u64 | first time u64 | last time u64 |
//!        flags u8 | filter, as many octets as the header says | crc32c u32 of what precedes
//! ```
//! The filter is a Bloom filter of the values of the header `x-stream-filter-value` in the block.

use crate::store::framing::Reader;

/// Octets of a filter, unless the queue's `x-stream-filter-size-bytes` says otherwise. As in RabbitMQ.
pub const FILTER_BYTES: usize = 16;
/// The most that a queue may ask for.
pub const FILTER_BYTES_MAX: usize = 255;
/// Octets of an entry without its filter.
const FIXED_BYTES: usize = 8 + 4 + 4 * 8 + 1 + 4;
/// Bits that each value sets.
const BITS_PER_VALUE: u64 = 3;

/// Some message of the block has a value to be chosen by.
const HAS_VALUES: u8 = 1;
/// Some message of the block has none.
const HAS_OTHERS: u8 = 2;

/// What is known of a block of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where it begins in the segment's file.
    pub position: u64,
    /// How long it is.
    pub bytes: u32,
    /// The offset of its first record.
    pub first: u64,
    /// The offset after its last record.
    pub next: u64,
    /// The time of its first record.
    pub first_ms: u64,
    /// The time of its last record.
    pub last_ms: u64,
    flags: u8,
    filter: Vec<u8>,
}

impl Block {
    /// A block without records.
    pub fn new(position: u64, first: u64, filter_bytes: usize) -> Self {
        Self {
            position,
            bytes: 0,
            first,
            next: first,
            first_ms: 0,
            last_ms: 0,
            flags: 0,
            filter: vec![0; filter_bytes],
        }
    }

    /// One more record, at the end.
    pub fn push(&mut self, offset: u64, time_ms: u64, bytes: usize, value: Option<&[u8]>) {
        if self.is_empty() {
            (self.first, self.first_ms) = (offset, time_ms);
        }
        (self.next, self.last_ms) = (offset.saturating_add(1), time_ms);
        self.bytes += bytes as u32;
        match value {
            None => self.flags |= HAS_OTHERS,
            Some(value) => {
                self.flags |= HAS_VALUES;
                for bit in bits(value, self.filter.len()) {
                    self.filter[bit / 8] |= 1 << (bit % 8);
                }
            }
        }
    }

    /// Bytes at the end that are no record belong to it all the same.
    pub fn push_damage(&mut self, bytes: usize) {
        self.bytes += bytes as u32;
    }

    /// Whether there is no record in it.
    pub fn is_empty(&self) -> bool {
        self.flags == 0
    }

    /// Where it ends in the segment's file.
    pub fn end(&self) -> u64 {
        self.position + u64::from(self.bytes)
    }

    /// Whether a message with one of these values may be in it; or one without any, if those are wanted too.
    pub fn may_hold(&self, values: &[Vec<u8>], unfiltered: bool) -> bool {
        let holds = |value: &Vec<u8>| {
            bits(value, self.filter.len()).all(|bit| self.filter[bit / 8] & 1 << (bit % 8) != 0)
        };
        (unfiltered && self.flags & HAS_OTHERS != 0)
            || (self.flags & HAS_VALUES != 0 && values.iter().any(holds))
    }
}

/// Octets of an entry with a filter of so many.
pub fn entry_bytes(filter_bytes: usize) -> usize {
    FIXED_BYTES + filter_bytes
}

/// Appends an entry.
pub fn encode(out: &mut Vec<u8>, block: &Block) {
    let start = out.len();
    out.extend_from_slice(&block.position.to_le_bytes());
    out.extend_from_slice(&block.bytes.to_le_bytes());
    for number in [block.first, block.next, block.first_ms, block.last_ms] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.push(block.flags);
    out.extend_from_slice(&block.filter);
    let crc = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// Reads the entry that `bytes` are, all of them. `None` when they are none.
pub fn decode(bytes: &[u8], filter_bytes: usize) -> Option<Block> {
    let (entry, crc) = bytes.split_last_chunk::<4>()?;
    if bytes.len() != entry_bytes(filter_bytes) || crc32c::crc32c(entry) != u32::from_le_bytes(*crc)
    {
        return None;
    }
    let mut reader = Reader(entry);
    let (position, bytes) = (reader.u64()?, reader.u32()?);
    let (first, next) = (reader.u64()?, reader.u64()?);
    let (first_ms, last_ms, flags) = (reader.u64()?, reader.u64()?, reader.u8()?);
    position.checked_add(bytes.into())?;
    let block =
        Block { position, bytes, first, next, first_ms, last_ms, flags, filter: reader.0.to_vec() };
    (first <= next && !block.filter.is_empty()).then_some(block)
}

/// The bits of a value, in a filter of so many octets. Part of the format: FNV-1a of the value, its halves
/// then stand for two hashes.
fn bits(value: &[u8], filter_bytes: usize) -> impl Iterator<Item = usize> {
    let hash = value.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x100_0000_01b3)
    });
    let (start, step) = (hash >> 32, (hash & 0xffff_ffff) | 1);
    let count = filter_bytes as u64 * 8;
    (0..BITS_PER_VALUE).map(move |index| ((start + index * step) % count) as usize)
}
