//! The message log as the store's thread writes it: segments of records, written at the end only.
//!
//! ```text
//!   messages/0000000007.seg   | header 24 octets | record | record | ...
//!   messages/0000000008.seg   the last one is being written
//! ```
//! Of a message only its places are known, and of those only which are dead: a bit each. A segment goes when all its
//! places are dead; of one in which few are live these alone are written anew, under the same name and numbers.
//! Before either, a [checkpoint](super::checkpoint) keeps what the segment says of older ones.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::batch::{Batch, split_id};
use super::checkpoint::State;
use super::disk::{Disk, DiskFile, read_all, write_whole};
use super::index::{self, Index};
use super::record::{self, Record};
use super::segment::{self, SEGMENT_HEADER_BYTES};
use crate::message::Spot;

/// A checkpoint is written when the log has grown by so many times its size, and by [`Sizes::checkpoint`].
const CHECKPOINT_SIZES: u64 = 8;
/// A segment is written anew when less than one part in so many is live.
const LIVE_PART_MIN: u32 = 4;

/// When what is done, in octets.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    /// A segment that has grown to this is followed by a new one.
    pub(super) segment: u64,
    /// A checkpoint is written when the log has grown by this since the last one.
    pub(super) checkpoint: u64,
    /// It does not pay to write a smaller segment anew.
    pub(super) shrink_min: u64,
}

impl Sizes {
    pub(super) const DEFAULT: Self =
        Self { segment: 32 << 20, checkpoint: 64 << 20, shrink_min: 256 << 10 };
}

/// Up to where the log is on disk; the hub looks, too.
#[derive(Clone, Debug, Default)]
pub(super) struct Synced(Arc<Mutex<(u32, u64)>>);

impl Synced {
    fn set(&self, segment: u32, offset: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (segment, offset);
    }

    fn is(&self, segment: u32, offset: u64) -> bool {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) == (segment, offset)
    }

    /// Whether a message is on disk.
    pub(super) fn covers(&self, id: u64, spot: Spot) -> bool {
        let synced = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (split_id(id).0, spot.offset + u64::from(spot.bytes)) <= synced
    }
}

pub(super) struct Log {
    disk: Arc<dyn Disk>,
    sizes: Sizes,
    /// As of all that is written; its position is that of the last checkpoint.
    state: State,
    /// Octets in the files of those segments that are not written any more.
    sealed: BTreeMap<u32, u64>,
    /// Those of them that have an index.
    indexed: BTreeSet<u32>,
    /// The segment that is being written, and how many octets are.
    number: u32,
    file: Box<dyn DiskFile>,
    bytes: u64,
    synced: Synced,
    since_checkpoint: u64,
    checkpoint_bytes: u64,
}

impl Log {
    /// Goes on behind what was read, in a new segment.
    pub(super) fn begin(
        disk: Arc<dyn Disk>,
        sizes: Sizes,
        state: State,
        sealed: BTreeMap<u32, u64>,
        indexed: BTreeSet<u32>,
        number: u32,
    ) -> io::Result<Self> {
        let file = segment::create(&*disk, number, 0)?;
        let bytes = SEGMENT_HEADER_BYTES as u64;
        let (since_checkpoint, checkpoint_bytes) = (0, 0);
        let synced = Synced::default();
        synced.set(number, bytes);
        let mut log = Self {
            disk,
            sizes,
            state,
            sealed,
            indexed,
            number,
            file,
            bytes,
            synced,
            since_checkpoint,
            checkpoint_bytes,
        };
        log.state.segments.entry(number).or_default();
        Ok(log)
    }

    /// The segment that is being written.
    pub(super) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn synced(&self) -> Synced {
        self.synced.clone()
    }

    /// Writes a batch where it belongs, which may have been done before, and takes note of what it says.
    pub(super) fn append(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.segment < self.number {
            // Its segment was synced when it ended.
            return Ok(());
        }
        for (at, bytes) in batch.parts().filter(|(_, bytes)| !bytes.is_empty()) {
            self.file.write_at(bytes, batch.offset + at as u64)?;
        }
        if !batch.records.is_empty() {
            self.bytes = batch.offset + batch.records.len() as u64;
            self.since_checkpoint += batch.records.len() as u64;
        }
        self.note(batch);
        if batch.last {
            self.next_segment()?;
        }
        Ok(())
    }

    fn note(&mut self, batch: &Batch) {
        if let Some(last) = batch.publications.last() {
            let known = self.state.segments.entry(batch.segment).or_default();
            known.places = known.places.max(last.place + last.places);
        }
        for (queue, place) in &batch.delivered {
            let last = self.state.delivered.entry(*queue).or_default();
            *last = (*place).max(*last);
        }
        for (place, count, due_ms) in &batch.counted {
            self.state.counts.insert(*place, (*count, *due_ms));
        }
        for (first, count) in &batch.acks {
            let (number, place) = split_id(*first);
            if let Some(known) = self.state.segments.get_mut(&number) {
                known.dead.add(place, place.saturating_add(*count));
            }
            if !self.state.counts.is_empty() {
                let end = first + u64::from(*count);
                for place in *first..end {
                    self.state.counts.remove(&place);
                }
            }
        }
    }

    /// Waits until everything is on disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.synced.set(self.number, self.bytes);
        Ok(())
    }

    fn sync_rest(&mut self) -> io::Result<()> {
        if self.synced.is(self.number, self.bytes) { Ok(()) } else { self.sync() }
    }

    fn next_segment(&mut self) -> io::Result<()> {
        // A segment that is not the last is whole: recovery relies on it.
        self.sync()?;
        let file = segment::create(&*self.disk, self.number + 1, self.sizes.segment)?;
        // What was reserved and not used goes back.
        let _ = self.file.set_len(self.bytes);
        self.sealed.insert(self.number, self.bytes);
        self.file = file;
        self.number += 1;
        self.bytes = SEGMENT_HEADER_BYTES as u64;
        self.state.segments.entry(self.number).or_default();
        self.synced.set(self.number, self.bytes);
        Ok(())
    }

    /// A queue has been deleted.
    pub(super) fn forget_queue(&mut self, queue: u64) {
        self.state.delivered.remove(&queue);
    }

    /// Gives back what is dead, as far as it pays, and keeps what is known from time to time. A piece of the work at
    /// a time: publishers wait meanwhile.
    pub(super) fn tidy(&mut self) -> io::Result<()> {
        // Of nothing older does the oldest say anything.
        while let Some((oldest, _)) = self.sealed.first_key_value()
            && let oldest = *oldest
            && self.live(oldest) == 0
        {
            self.remove(oldest)?;
        }
        let grown = self.sizes.checkpoint.max(CHECKPOINT_SIZES * self.checkpoint_bytes);
        let fresh = self.sealed.range(self.state.position.0..);
        let pays = self.sizes.segment <= self.since_checkpoint
            && fresh
                .clone()
                .any(|(number, bytes)| self.live(*number) == 0 || self.shrinks(*number, *bytes));
        if grown <= self.since_checkpoint || pays {
            self.checkpoint()?;
        }
        let covered = self.sealed.range(..self.state.position.0);
        let dead: Vec<u32> = covered
            .clone()
            .map(|(number, _)| *number)
            .filter(|number| self.live(*number) == 0)
            .collect();
        let shrinks = covered.clone().find(|(number, bytes)| self.shrinks(**number, **bytes));
        let shrinks = shrinks.map(|(number, _)| *number);
        for number in dead {
            self.remove(number)?;
        }
        if let Some(number) = shrinks {
            self.shrink(number)?;
        }
        Ok(())
    }

    fn live(&self, number: u32) -> u32 {
        self.state.segments.get(&number).map_or(0, super::checkpoint::Known::live)
    }

    fn shrinks(&self, number: u32, bytes: u64) -> bool {
        let Some(known) = self.state.segments.get(&number) else { return false };
        let live = known.live();
        0 < live
            && self.sizes.shrink_min <= bytes
            && u64::from(live) * u64::from(LIVE_PART_MIN) < u64::from(known.places)
            && (known.shrunk_to == 0 || u64::from(live) * 2 < u64::from(known.shrunk_to))
    }

    fn remove(&mut self, number: u32) -> io::Result<()> {
        // What has ended its messages must be as durable as its end.
        self.sync_rest()?;
        match self.disk.remove(&segment::name(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if self.indexed.remove(&number) {
            // Without its segment it means nothing.
            let _ = self.disk.remove(&index::name(number));
        }
        self.sealed.remove(&number);
        self.state.segments.remove(&number);
        Ok(())
    }

    /// Writes what is known, so that neither a start nor a segment needs the records before.
    pub(super) fn checkpoint(&mut self) -> io::Result<()> {
        // What it says was written must be there.
        self.sync_rest()?;
        self.index_sealed()?;
        let before = std::mem::replace(&mut self.state.position, (self.number, self.bytes));
        let written = self.state.write(&*self.disk);
        if written.is_err() {
            // Nothing may rely on it.
            self.state.position = before;
        }
        self.checkpoint_bytes = written?;
        self.since_checkpoint = 0;
        Ok(())
    }

    fn index_sealed(&mut self) -> io::Result<()> {
        let missing = self.sealed.keys().copied();
        let missing: Vec<u32> = missing
            .filter(|number| !self.indexed.contains(number) && self.live(*number) != 0)
            .collect();
        for number in missing {
            self.index(number)?;
        }
        Ok(())
    }

    fn index(&mut self, number: u32) -> io::Result<()> {
        let bytes = read_all(&*self.disk, &segment::name(number))?;
        let mut index = Index::default();
        let take = |found: segment::Found<'_>| index.add(&found.record, found.offset, found.bytes);
        segment::scan(&bytes, None, take, |_| ());
        index.write(&*self.disk, number)?;
        self.indexed.insert(number);
        Ok(())
    }

    /// Writes what is live in a segment anew, in its place.
    fn shrink(&mut self, number: u32) -> io::Result<()> {
        // As of a segment that goes.
        self.sync_rest()?;
        let bytes = read_all(&*self.disk, &segment::name(number))?;
        let Some(known) = self.state.segments.get_mut(&number) else { return Ok(()) };
        known.shrunk_to = known.live();
        let (mut out, mut index) = (segment::header(number).to_vec(), Index::default());
        let take = |found: segment::Found<'_>| {
            let Record::Publish { place, queues, .. } = &found.record else { return };
            let end = place.saturating_add(queues.len() as u32);
            if (*place..end).any(|place| !known.dead.has(place)) {
                let at = out.len();
                index.add(&found.record, at, found.bytes);
                out.extend_from_slice(&bytes[found.offset..found.offset + found.bytes]);
                // What it stood with may have gone.
                record::ungroup(&mut out, at);
            }
        };
        let mut damaged = false;
        segment::scan(&bytes, None, take, |_| damaged = true);
        if damaged {
            tracing::warn!(
                segment = number,
                "a damaged segment of the message log is left as it is"
            );
            return Ok(());
        }
        if self.indexed.remove(&number) {
            // It says where records were.
            self.disk.remove(&index::name(number))?;
            self.disk.sync_names()?;
        }
        write_whole(&*self.disk, &segment::name(number), &out)?;
        tracing::debug!(
            segment = number,
            before = bytes.len(),
            after = out.len(),
            "segment shrunk"
        );
        self.sealed.insert(number, out.len() as u64);
        index.write(&*self.disk, number)?;
        self.indexed.insert(number);
        Ok(())
    }

    /// Writes all that makes the next start short. The log is not written to any more.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.sync()?;
        self.sealed.insert(self.number, self.bytes);
        self.index_sealed()?;
        self.state.position = (self.number + 1, SEGMENT_HEADER_BYTES as u64);
        self.state.write(&*self.disk)?;
        Ok(())
    }
}
