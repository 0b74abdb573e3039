//! What the log says up to a position, in one file: what is dead in each segment, and what is known of the rest.
//!
//! ```text
//!   messages/checkpoint   | "WRNMCHK" and a zero | format u32 | crc32c u32 of the rest | octets u64 | rest |
//!   rest: segment u32 | offset u64 |                           records from there on are read
//!         segments v: number v, places v, shrunk to v, words v, words u64 ...
//!         queues v:   id v, delivered up to the place u64
//!         counts v:   place u64, count v, due_ms v
//! ```
//! With it a segment may go, or be written anew without what is dead in it, though it holds the ends of messages in
//! older ones.

use std::collections::BTreeMap;
use std::io;

use rustc_hash::FxHashMap;

use super::bits::Bits;
use super::disk::{Disk, read_all, write_whole};
use super::framing::{Reader, put_varint};

pub(super) const NAME: &str = "checkpoint";
const MAGIC: [u8; 8] = *b"WRNMCHK\0";
pub(super) const FORMAT: u32 = 1;
/// A format so far ahead is a bit that flipped.
const FORMATS_AHEAD: u32 = 256;
const HEADER_BYTES: usize = 24;

/// What is known of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Those given out.
    pub(super) places: u32,
    pub(super) dead: Bits,
    /// How many were left when it was written anew last; 0: it never was.
    pub(super) shrunk_to: u32,
}

impl Known {
    pub(super) fn live(&self) -> u32 {
        self.places.saturating_sub(self.dead.count())
    }
}

/// What the log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Up to where this is: segment, offset.
    pub(super) position: (u32, u64),
    pub(super) segments: BTreeMap<u32, Known>,
    /// Per queue, the last place that may have been delivered.
    pub(super) delivered: FxHashMap<u64, u64>,
    /// Per place, how often it came back, and until when it waits; only for those that did.
    pub(super) counts: FxHashMap<u64, (u32, u64)>,
}

impl State {
    /// Writes it in the place of the one before; how many bytes it takes.
    pub(super) fn write(&self, disk: &dyn Disk) -> io::Result<u64> {
        let mut bytes = vec![0; HEADER_BYTES];
        let out = &mut bytes;
        out.extend_from_slice(&self.position.0.to_le_bytes());
        out.extend_from_slice(&self.position.1.to_le_bytes());
        put_varint(out, self.segments.len() as u64);
        for (number, known) in &self.segments {
            put_varint(out, (*number).into());
            put_varint(out, known.places.into());
            put_varint(out, known.shrunk_to.into());
            put_varint(out, known.dead.words().len() as u64);
            known.dead.words().iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        }
        put_varint(out, self.delivered.len() as u64);
        for (queue, place) in &self.delivered {
            put_varint(out, *queue);
            out.extend_from_slice(&place.to_le_bytes());
        }
        put_varint(out, self.counts.len() as u64);
        for (place, (count, due_ms)) in &self.counts {
            out.extend_from_slice(&place.to_le_bytes());
            put_varint(out, (*count).into());
            put_varint(out, *due_ms);
        }
        let (crc, rest) = (crc32c::crc32c(&bytes[HEADER_BYTES..]), bytes.len() - HEADER_BYTES);
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes[16..24].copy_from_slice(&(rest as u64).to_le_bytes());
        write_whole(disk, NAME, &bytes)?;
        Ok(bytes.len() as u64)
    }

    /// Reads the one that was written last.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(disk: &dyn Disk) -> Result<Option<Self>, Fault> {
        let bytes = match read_all(disk, NAME) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Fault::Damaged(error.to_string())),
        };
        decode(&bytes).map(Some)
    }
}

/// Why a checkpoint is of no use.
#[derive(Debug)]
pub(super) enum Fault {
    /// In words.
    Damaged(String),
    /// A server wrote it that knows a format which this one does not.
    Newer(u32),
}

fn decode(bytes: &[u8]) -> Result<State, Fault> {
    let damaged = |why: &str| Fault::Damaged(why.into());
    let (header, rest) =
        bytes.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| damaged("it is too short"))?;
    let mut reader = Reader(&header[8..]);
    let (format, crc) = (reader.u32().unwrap_or(0), reader.u32().unwrap_or(0));
    if header[..8] != MAGIC {
        return Err(damaged("it is no checkpoint"));
    }
    let is_whole = crc32c::crc32c(rest) == crc;
    // A bit of the format that is wrong makes no newer one: of those the checksum stands in the same place.
    if is_whole && FORMAT < format && format < FORMAT + FORMATS_AHEAD {
        return Err(Fault::Newer(format));
    }
    if !is_whole || format != FORMAT {
        return Err(damaged("its checksum is wrong"));
    }
    state(&mut Reader(rest)).ok_or_else(|| damaged("it makes no sense"))
}

fn state(reader: &mut Reader<'_>) -> Option<State> {
    let mut state = State { position: (reader.u32()?, reader.u64()?), ..State::default() };
    for _ in 0..reader.varint()? {
        let number = reader.varint()?.try_into().ok()?;
        let (places, shrunk_to) = (reader.varint()?.try_into().ok()?, reader.varint()?);
        let words = usize::try_from(reader.varint()?).ok()?.checked_mul(8)?;
        let words = reader.take(words)?.chunks_exact(8);
        let words = words.filter_map(|word| word.try_into().ok().map(u64::from_le_bytes)).collect();
        let shrunk_to = shrunk_to.try_into().ok()?;
        let known = Known { places, dead: Bits::from_words(words), shrunk_to };
        state.segments.insert(number, known);
    }
    for _ in 0..reader.varint()? {
        state.delivered.insert(reader.varint()?, reader.u64()?);
    }
    for _ in 0..reader.varint()? {
        let place = reader.u64()?;
        state.counts.insert(place, (reader.varint()?.try_into().ok()?, reader.varint()?));
    }
    reader.0.is_empty().then_some(state)
}

#[cfg(test)]
pub(super) fn decode_any(bytes: &[u8]) -> bool {
    decode(bytes).is_ok()
}
