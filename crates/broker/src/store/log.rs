//! The message log as the store's thread writes it: segments of records, written at the end only.
//!
//! ```text
//!   messages/0000000007.seg   | header 24 octets | record | record | ...
//!   messages/0000000008.seg   the last one is being written
//! ```
//! Of a message only its places are known, and of those only which are dead: a bit each. A segment goes when all its
//! places are dead; of one in which few are live these alone are written anew, under the same name and numbers.
//! Before either, a [checkpoint](super::checkpoint) keeps what the segment says of older ones. The log only plans
//! that: it is [done](super::tidy) on another thread.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::batch::{Batch, split_id};
use super::checkpoint::State;
use super::disk::{Disk, DiskFile};
use super::segment::{self, SEGMENT_HEADER_BYTES};
use super::tidy::{Done, Work};
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
    /// Octets written since the last checkpoint, and how many of them the one covers that is being written.
    since_checkpoint: u64,
    planned_checkpoint: u64,
    checkpoint_bytes: u64,
    /// The segment whose file was asked for last: once, for else it is made when it is begun.
    preparing: u32,
    /// The next segment's file, if it is there already.
    prepared: Option<(u32, Box<dyn DiskFile>)>,
    /// Segments that are known no more, and whose files are still to go.
    surplus: Vec<u32>,
    /// Segments in the state in which they may go, or be written anew. There may be thousands of others, which nobody looks at.
    ripe: BTreeSet<u32>,
    /// A piece of work is under way.
    tidying: bool,
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
            since_checkpoint: 0,
            planned_checkpoint: 0,
            checkpoint_bytes: 0,
            preparing: 0,
            prepared: None,
            surplus: Vec::new(),
            ripe: BTreeSet::new(),
            tidying: false,
        };
        log.state.segments.entry(number).or_default();
        let sealed: Vec<u32> = log.sealed.keys().copied().collect();
        sealed.into_iter().for_each(|number| log.ripen(number));
        Ok(log)
    }

    pub(super) fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
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
                self.ripen(number);
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
        let number = self.number + 1;
        let prepared = self.prepared.take().filter(|(prepared, _)| *prepared == number);
        let file = match prepared {
            Some((_, file)) => {
                segment::begin_prepared(&*self.disk, number)?;
                file
            }
            None => segment::create(&*self.disk, number, self.sizes.segment)?,
        };
        // What was reserved and not used goes back.
        let _ = self.file.set_len(self.bytes);
        self.sealed.insert(self.number, self.bytes);
        self.ripen(self.number);
        self.file = file;
        self.number = number;
        self.bytes = SEGMENT_HEADER_BYTES as u64;
        self.state.segments.entry(number).or_default();
        self.synced.set(number, self.bytes);
        Ok(())
    }

    /// A queue has been deleted.
    pub(super) fn forget_queue(&mut self, queue: u64) {
        self.state.delivered.remove(&queue);
    }

    /// What is to be tidied up next, if it pays. One piece of work at a time: there is none until the last one is
    /// [finished](Self::finish).
    pub(super) fn plan(&mut self) -> io::Result<Option<Work>> {
        if self.tidying {
            return Ok(None);
        }
        let work = self.next_work()?;
        self.tidying = work.is_some();
        Ok(work)
    }

    fn next_work(&mut self) -> io::Result<Option<Work>> {
        // First what makes room.
        let surplus = self.take_surplus()?;
        if !surplus.is_empty() {
            return Ok(Some(Work::Remove(surplus)));
        }
        let number = self.number + 1;
        if self.sizes.segment <= self.bytes * 2 && self.preparing < number {
            self.preparing = number;
            return Ok(Some(Work::Prepare { number, reserve: self.sizes.segment }));
        }
        if self.wants_checkpoint() {
            return self.plan_checkpoint(self.number.saturating_sub(1)).map(Some);
        }
        let mut covered = self.ripe.range(..self.state.position.0);
        let Some(&number) = covered.find(|number| self.live(**number) != 0) else {
            return Ok(None);
        };
        // As of a segment that goes.
        self.sync_rest()?;
        let Some(known) = self.state.segments.get_mut(&number) else { return Ok(None) };
        known.shrunk_to = known.live();
        self.ripe.remove(&number);
        Ok(Some(Work::Shrink { number, known: known.clone() }))
    }

    /// Takes in what came of a piece of work.
    ///
    /// # Errors
    /// That of the work: it is planned again.
    pub(super) fn finish(&mut self, done: Done) -> io::Result<()> {
        self.tidying = false;
        match done {
            Done::Prepare(number, file) => {
                self.prepared = Some((number, file?));
                Ok(())
            }
            Done::Remove(left, outcome) => {
                self.surplus = left;
                outcome
            }
            Done::Checkpoint(indexed, position, written) => {
                self.indexed.extend(indexed);
                self.checkpoint_bytes = written?;
                self.state.position = position;
                self.since_checkpoint -= self.planned_checkpoint;
                Ok(())
            }
            Done::Shrink(number, outcome) => {
                // It is made first of all, and gone if that failed.
                self.indexed.remove(&number);
                if outcome.is_err()
                    && let Some(known) = self.state.segments.get_mut(&number)
                {
                    known.shrunk_to = 0;
                    self.ripen(number);
                }
                if let Some(bytes) = outcome? {
                    self.sealed.insert(number, bytes);
                    self.indexed.insert(number);
                    self.ripen(number);
                }
                Ok(())
            }
        }
    }

    /// Those that go: nothing is live in them, and what they say of others is kept, or of nothing any more.
    fn take_surplus(&mut self) -> io::Result<Vec<u32>> {
        let mut surplus = std::mem::take(&mut self.surplus);
        // Of nothing older does the oldest say anything.
        let oldest = self.sealed.keys().copied().take_while(|number| self.live(*number) == 0);
        let covered = self.ripe.range(..self.state.position.0).copied();
        let covered = covered.filter(|number| self.live(*number) == 0);
        let dead: BTreeSet<u32> = oldest.chain(covered).collect();
        if !dead.is_empty()
            && let Err(error) = self.sync_rest()
        {
            // What has ended their messages must be as durable as their end.
            self.surplus = surplus;
            return Err(error);
        }
        for number in &dead {
            self.indexed.remove(number);
            self.ripe.remove(number);
            self.sealed.remove(number);
            self.state.segments.remove(number);
        }
        // The oldest last, for they are taken from the end.
        surplus.splice(0..0, dead.into_iter().rev());
        Ok(surplus)
    }

    fn wants_checkpoint(&self) -> bool {
        let grown = self.sizes.checkpoint.max(CHECKPOINT_SIZES * self.checkpoint_bytes);
        // What went meanwhile need not be read.
        let fresh = self.sealed.range(self.state.position.0..);
        let replayed = self.bytes + fresh.map(|(_, bytes)| *bytes).sum::<u64>();
        let pays = self.ripe.range(self.state.position.0..).next().is_some();
        grown <= self.since_checkpoint.min(replayed)
            || self.sizes.segment <= self.since_checkpoint && pays
    }

    /// Segments from `young` on get no index yet: they may soon be dead.
    fn plan_checkpoint(&mut self, young: u32) -> io::Result<Work> {
        // What it says was written must be there.
        self.sync_rest()?;
        self.planned_checkpoint = self.since_checkpoint;
        let state = State { position: (self.number, self.bytes), ..self.state.clone() };
        let missing = self.sealed.keys().copied().take_while(|number| *number < young);
        let missing = missing.filter(|number| !self.indexed.contains(number));
        let index = missing.filter(|number| self.live(*number) != 0).collect();
        Ok(Work::Checkpoint { index, state })
    }

    /// Looks whether a segment may go, or be written anew, once what it says of others is kept.
    fn ripen(&mut self, number: u32) {
        if let Some(bytes) = self.sealed.get(&number)
            && (self.live(number) == 0 || self.shrinks(number, *bytes))
        {
            self.ripe.insert(number);
        }
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

    /// Writes what is known, so that a start does not need the records before. Waits for that.
    pub(super) fn checkpoint(&mut self) -> io::Result<()> {
        let work = self.plan_checkpoint(u32::MAX)?;
        let done = work.run(&*self.disk);
        self.finish(done)
    }

    /// Writes all that makes the next start short. The log is not written to any more.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.sync()?;
        if self.prepared.take().is_some() {
            let _ = self.disk.remove(&segment::prepared_name(self.number + 1));
        }
        if self.bytes == SEGMENT_HEADER_BYTES as u64 {
            // Nothing was written to it: the next start begins it again.
            let _ = self.disk.remove(&segment::name(self.number));
            self.state.segments.remove(&self.number);
        } else {
            self.sealed.insert(self.number, self.bytes);
            self.number += 1;
            self.bytes = SEGMENT_HEADER_BYTES as u64;
        }
        self.synced.set(self.number, self.bytes);
        self.checkpoint()
    }
}
