//! What lies in a segment, without the bodies: so that a start need not read those.
//!
//! ```text
//!   0000000007.idx   | "WRNMIDX" and a zero | format u32 | segment u32 | octets u64 | crc32c u32 of the rest | rest |
//!   entry: place v | queues v, ids v ... | offset v | bytes v | body bytes v | flags u8 | expires u64 | published u64 |
//!          priority u8                       place and offset: how much more than in the entry before
//! ```

use std::io;

use super::disk::{Disk, read_all, write_whole};
use super::framing::{Reader, put_varint};
use super::record::Record;
use crate::message::Spot;
use warren_amqp::RawProperties;

const MAGIC: [u8; 8] = *b"WRNMIDX\0";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 28;
const EXPIRES: u8 = 1;
const DATED: u8 = 2;
const PRIORITY: u8 = 4;

/// A message of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) place: u32,
    pub(super) queues: Vec<u64>,
    pub(super) offset: u64,
    pub(super) bytes: u32,
    pub(super) body_bytes: u32,
    pub(super) expires_ms: u64,
    pub(super) published_ms: u64,
    pub(super) priority: u8,
}

impl Entry {
    pub(super) fn spot(&self) -> Spot {
        Spot { offset: self.offset, bytes: self.bytes }
    }
}

/// The messages of a segment.
#[derive(Clone, Default)]
pub(super) struct Index {
    bytes: Vec<u8>,
    last: (u32, u64),
}

impl Index {
    /// Adds a record, if it is a message's.
    pub(super) fn add(&mut self, record: &Record<'_>, offset: usize, bytes: usize) {
        let Record::Publish { place, queues, expires_ms, published_ms, properties, body, .. } =
            record
        else {
            return;
        };
        let priority = RawProperties::new(properties).priority().unwrap_or(0);
        // Records that are damaged may hide that places go on.
        let (last_place, last_offset) = self.last;
        let Some(more) = place.checked_sub(last_place) else { return };
        let out = &mut self.bytes;
        put_varint(out, more.into());
        put_varint(out, queues.len() as u64);
        queues.iter().for_each(|queue| put_varint(out, *queue));
        put_varint(out, offset as u64 - last_offset);
        put_varint(out, bytes as u64);
        put_varint(out, body.len() as u64);
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        out.push(
            flag(*expires_ms != u64::MAX, EXPIRES)
                | flag(*published_ms != 0, DATED)
                | flag(priority != 0, PRIORITY),
        );
        if *expires_ms != u64::MAX {
            out.extend_from_slice(&expires_ms.to_le_bytes());
        }
        if *published_ms != 0 {
            out.extend_from_slice(&published_ms.to_le_bytes());
        }
        if priority != 0 {
            out.push(priority);
        }
        self.last = (*place, offset as u64);
    }

    /// All messages, in the order of their places.
    pub(super) fn entries(&self) -> Entries<'_> {
        Entries { reader: Reader(&self.bytes), last: (0, 0) }
    }

    /// Keeps it beside its segment.
    pub(super) fn write(&self, disk: &dyn Disk, segment: u32) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.bytes.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&segment.to_le_bytes());
        bytes.extend_from_slice(&(self.bytes.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&self.bytes).to_le_bytes());
        bytes.extend_from_slice(&self.bytes);
        write_whole(disk, &name(segment), &bytes)
    }

    /// Reads one that was kept; `None` when there is none that is right.
    pub(super) fn read(disk: &dyn Disk, segment: u32) -> Option<Self> {
        let bytes = read_all(disk, &name(segment)).ok()?;
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let mut reader = Reader(header);
        let fits = reader.take(8)? == MAGIC
            && reader.u32()? == FORMAT
            && reader.u32()? == segment
            && reader.u64()? == rest.len() as u64
            && reader.u32()? == crc32c::crc32c(rest);
        fits.then(|| Self { bytes: rest.to_vec(), last: (0, 0) })
    }
}

/// The number in an index's name.
pub(super) fn number(name: &str) -> Option<u32> {
    name.strip_suffix(".idx")?.parse().ok()
}

pub(super) fn name(segment: u32) -> String {
    format!("{segment:010}.idx")
}

pub(super) struct Entries<'a> {
    reader: Reader<'a>,
    last: (u32, u64),
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        let reader = &mut self.reader;
        let place = self.last.0.checked_add(reader.varint()?.try_into().ok()?)?;
        let count = reader.varint()? as usize;
        if reader.0.len() < count {
            return None;
        }
        let queues = (0..count).map(|_| reader.varint()).collect::<Option<Vec<_>>>()?;
        let offset = self.last.1.checked_add(reader.varint()?)?;
        let bytes = reader.varint()?.try_into().ok()?;
        let body_bytes = reader.varint()?.try_into().ok()?;
        let flags = reader.u8()?;
        let expires_ms = if flags & EXPIRES != 0 { reader.u64()? } else { u64::MAX };
        let published_ms = if flags & DATED != 0 { reader.u64()? } else { 0 };
        let priority = if flags & PRIORITY != 0 { reader.u8()? } else { 0 };
        self.last = (place, offset);
        Some(Entry { place, queues, offset, bytes, body_bytes, expires_ms, published_ms, priority })
    }
}
