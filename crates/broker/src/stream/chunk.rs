//! Records in one piece of memory: what is written at once, and what is read at once. Shared by all readers
//! that stand in it.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;

use super::record::{self, Record};
use crate::message::Content;
use crate::store::framing;

/// Whole records in a row, each of them checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    bytes: Bytes,
    /// Where each begins.
    positions: Vec<u32>,
    /// The offset from which one has to go on reading behind them.
    next: u64,
}

impl Records {
    pub(super) fn new(bytes: Bytes, positions: Vec<u32>, next: u64) -> Self {
        Self { bytes, positions, next }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.positions.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<Record<'_>> {
        let payload = &self.bytes[self.positions.get(index)?.to_owned() as usize..];
        let (size, rest) = payload.split_first_chunk::<4>()?;
        let payload = rest.get(framing::HEADER_BYTES - 4..)?;
        record::decode_payload(payload.get(..u32::from_le_bytes(*size) as usize)?)
    }

    /// The offset of the first record.
    pub(crate) fn first(&self) -> u64 {
        self.get(0).map_or(self.next, |record| record.offset)
    }

    /// Which record is the first with this offset or a later one.
    pub(crate) fn find(&self, offset: u64) -> usize {
        self.find_by(|record| record.offset < offset)
    }

    /// Which record is the first that came at this time or later.
    pub(crate) fn find_time(&self, time_ms: u64) -> usize {
        self.find_by(|record| record.time_ms < time_ms)
    }

    fn find_by(&self, before: impl Fn(&Record<'_>) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.get(middle) {
                Some(record) if before(&record) => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    /// Properties and body of one of the records, without a copy.
    pub(crate) fn content(&self, record: &Record<'_>) -> Content {
        let body = self.bytes.slice_ref(record.body);
        // An empty slice tells nothing of where it is.
        if body.is_empty() {
            let properties = self.bytes.slice_ref(record.properties);
            return Content::shared(properties, record.properties.len());
        }
        let end = record.body.as_ptr() as usize - self.bytes.as_ptr() as usize + body.len();
        let start = end - body.len() - record.properties.len();
        Content::shared(self.bytes.slice(start..end), record.properties.len())
    }
}

/// How many bytes are held by chunks that were read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Rc<Cell<usize>>);

impl Meter {
    pub(crate) fn bytes(&self) -> usize {
        self.0.get()
    }
}

/// Records that readers stand in, and that are counted while anyone does.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) records: Records,
    meter: Meter,
}

impl Chunk {
    pub(crate) fn new(records: Records, meter: &Meter) -> Rc<Self> {
        meter.0.set(meter.0.get() + records.bytes.len());
        Rc::new(Self { records, meter: meter.clone() })
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.meter.0.set(self.meter.0.get() - self.records.bytes.len());
    }
}
