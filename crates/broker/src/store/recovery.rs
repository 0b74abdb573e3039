//! Reads the message log at a start.
//!
//! ```text
//!   checkpoint --> what is dead up to a position
//!   segments before it: their indexes; those without one, and what follows the position, record by record
//!   --> which places are live: what engine and log begin with
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::{FxHashMap, FxHashSet};

use super::batch::{place_id, split_id};
use super::bits::Bits;
use super::checkpoint::{self, Fault, State};
use super::disk::{Disk, DiskFile, read_all};
use super::index::{self, Index};
use super::log::{Log, Sizes};
use super::record::{self, HEADER_BYTES, Record};
use super::segment::{self, FORMAT, SEGMENT_HEADER_BYTES, Trouble};
use super::{Damage, StoreError};
use crate::message::Spot;

/// How often a long start says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// After so much was read record by record, the next start need not do so.
const REPLAYED_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A message in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecoveredPlace {
    pub(crate) queue: u64,
    /// Its place id there.
    pub(crate) place: u64,
    /// The message's id: its place in the first queue.
    pub(crate) message: u64,
    /// Where the message is.
    pub(crate) spot: Spot,
    pub(crate) body_bytes: u32,
    pub(crate) expires_ms: u64,
    /// 0: not known.
    pub(crate) published_ms: u64,
    pub(crate) priority: u8,
    /// Whether it may have been delivered from there.
    pub(crate) redelivered: bool,
    /// How often it came back.
    pub(crate) delivery_count: u32,
    /// Until when it waits, in milliseconds since 1970; 0: it does not.
    pub(crate) due_ms: u64,
}

/// The messages that are in queues.
#[derive(Default)]
pub(crate) struct RecoveredMessages {
    segments: BTreeMap<u32, (Index, Bits)>,
    delivered: FxHashMap<u64, u64>,
    counts: FxHashMap<u64, (u32, u64)>,
}

impl RecoveredMessages {
    /// What has been delivered besides, up to a place in each queue.
    pub(super) fn note_delivered(&mut self, marks: &FxHashMap<u64, u64>) {
        for (queue, place) in marks {
            let last = self.delivered.entry(*queue).or_default();
            *last = (*place).max(*last);
        }
    }

    /// Gives all out, in the order of publishing.
    pub(crate) fn for_each(self, mut take: impl FnMut(RecoveredPlace)) {
        for (number, (index, dead)) in self.segments {
            for entry in index.entries() {
                for (nth, queue) in entry.queues.iter().enumerate() {
                    let Some(place) = segment::id(number, entry.place, nth) else { continue };
                    if dead.has(split_id(place).1) {
                        continue;
                    }
                    let last = self.delivered.get(queue);
                    let count = self.counts.get(&place).copied();
                    let (delivery_count, due_ms) = count.unwrap_or_default();
                    take(RecoveredPlace {
                        queue: *queue,
                        place,
                        message: place_id(number, entry.place),
                        spot: entry.spot(),
                        body_bytes: entry.body_bytes,
                        expires_ms: entry.expires_ms,
                        published_ms: entry.published_ms,
                        priority: entry.priority,
                        redelivered: last.is_some_and(|last| place <= *last),
                        delivery_count,
                        due_ms,
                    });
                }
            }
        }
    }
}

/// Reads what is in a folder, and goes on behind it. `queues` are those that are defined.
///
/// # Errors
/// When a file cannot be read, or is none of ours.
pub(super) fn open(
    disk: Arc<dyn Disk>,
    sizes: &Sizes,
    queues: &FxHashSet<u64>,
    damage: &mut Vec<Damage>,
) -> Result<(Log, RecoveredMessages), StoreError> {
    let Found { state, messages, sealed, indexed, next, tells_more } =
        read(&*disk, queues, damage)?;
    let path = disk.path("");
    let begin = || {
        let mut log = Log::begin(disk, sizes.clone(), state, sealed, indexed, next)?;
        if tells_more {
            log.checkpoint()?;
        }
        Ok(log)
    };
    let log = begin().map_err(StoreError::io("write to", &path))?;
    Ok((log, messages))
}

/// What is in a folder.
pub(super) struct Found {
    state: State,
    pub(super) messages: RecoveredMessages,
    /// Octets of the segments.
    pub(super) sealed: BTreeMap<u32, u64>,
    indexed: BTreeSet<u32>,
    /// The segment to be begun.
    pub(super) next: u32,
    /// A checkpoint would say something that it does not say yet: what does not count now must not count later,
    /// either; and what was read need not be read again.
    tells_more: bool,
}

/// Reads what is in a folder. A torn end is cut off.
///
/// # Errors
/// When a file cannot be read, or is none of ours.
pub(super) fn read(
    disk: &dyn Disk,
    queues: &FxHashSet<u64>,
    damage: &mut Vec<Damage>,
) -> Result<Found, StoreError> {
    let mut reading = Reading::new(disk, damage)?;
    let numbers = reading.numbers.clone();
    let mut progress = Progress::new("reading the message log, segments", numbers.len());
    for (nth, number) in numbers.iter().enumerate() {
        reading.segment(*number, nth + 1 == numbers.len(), damage)?;
        progress.step();
    }
    drop(progress);
    reading.report_missing(damage);
    let next =
        reading.numbers.last().map_or(1, |last| last + 1).max(reading.state.position.0).max(1);
    let Reading { mut state, indexes, sealed, indexed, replayed, torn, .. } = reading;
    for (number, index) in &indexes {
        bury(*number, index, &mut state, queues);
    }
    state.delivered.retain(|queue, _| queues.contains(queue));
    let segments = &state.segments;
    state.counts.retain(|place, _| {
        let (number, place) = split_id(*place);
        segments.get(&number).is_some_and(|known| !known.dead.has(place))
    });
    let (delivered, counts) = (state.delivered.clone(), state.counts.clone());
    let segments = indexes
        .into_iter()
        .filter_map(|(number, index)| {
            let known = state.segments.get(&number)?;
            (known.live() != 0).then(|| (number, (index, known.dead.clone())))
        })
        .collect();
    let messages = RecoveredMessages { segments, delivered, counts };
    let tells_more = torn || REPLAYED_BYTES_MAX < replayed;
    Ok(Found { state, messages, sealed, indexed, next, tells_more })
}

/// Lets all places be dead but those of messages that can be read, in queues that are there.
fn bury(number: u32, index: &Index, state: &mut State, queues: &FxHashSet<u64>) {
    let Some(known) = state.segments.get_mut(&number) else { return };
    let mut dead = Bits::default();
    let mut next = 0;
    for entry in index.entries() {
        dead.add(next, entry.place);
        next = next.max(entry.place);
        for queue in &entry.queues {
            if known.dead.has(next) || !queues.contains(queue) {
                dead.add(next, next + 1);
            }
            next += 1;
        }
    }
    dead.add(next, known.places);
    known.places = known.places.max(next);
    known.dead = dead;
}

/// Says how far something long has come.
pub(crate) struct Progress {
    what: &'static str,
    begun: Instant,
    told: Instant,
    done: usize,
    of: usize,
}

impl Progress {
    pub(crate) fn new(what: &'static str, of: usize) -> Self {
        let now = Instant::now();
        Self { what, begun: now, told: now, done: 0, of }
    }

    pub(crate) fn step(&mut self) {
        self.done += 1;
        // The clock is not asked for each of millions.
        if (self.of < 10_000 || self.done.is_multiple_of(1000)) && TELL_EVERY <= self.told.elapsed()
        {
            self.told = Instant::now();
            tracing::info!("{}: {} of {}", self.what, self.done, self.of);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if TELL_EVERY <= self.begun.elapsed() {
            let (what, seconds) = (self.what, self.begun.elapsed().as_secs_f64());
            tracing::info!("{what}: {} of {} after {seconds:.1} s", self.done, self.of);
        }
    }
}

struct Reading<'a> {
    disk: &'a dyn Disk,
    numbers: Vec<u32>,
    state: State,
    indexes: BTreeMap<u32, Index>,
    sealed: BTreeMap<u32, u64>,
    indexed: BTreeSet<u32>,
    /// Octets of records that were read.
    replayed: u64,
    /// Something at the end does not count.
    torn: bool,
    /// Segments between others whose files are not there.
    missing: BTreeSet<u32>,
}

impl<'a> Reading<'a> {
    fn new(disk: &'a dyn Disk, damage: &mut Vec<Damage>) -> Result<Self, StoreError> {
        let path = disk.path("");
        let names = disk.list().map_err(StoreError::io("read", &path))?;
        for name in names.iter().filter(|name| name.ends_with(".new")) {
            // A server died while it wrote it.
            disk.remove(name).map_err(StoreError::io("remove", &disk.path(name)))?;
        }
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment::number(name)).collect();
        numbers.sort_unstable();
        let path = disk.path(checkpoint::NAME);
        let (state, usable) = match State::read(disk) {
            Ok(state) => (state, true),
            Err(Fault::Newer(found)) => {
                return Err(StoreError::Format { path, found, known: checkpoint::FORMAT });
            }
            Err(Fault::Damaged(why)) => {
                damage.push(Damage::lost(format!(
                    "{}: the checkpoint cannot be used ({why}); messages that were settled may come again",
                    path.display()
                )));
                (None, false)
            }
        };
        let mut reading = Self {
            disk,
            numbers: Vec::new(),
            state: state.unwrap_or_default(),
            indexes: BTreeMap::new(),
            sealed: BTreeMap::new(),
            indexed: BTreeSet::new(),
            replayed: 0,
            torn: false,
            missing: BTreeSet::new(),
        };
        let position = reading.state.position;
        for number in numbers {
            if number < position.0 && !reading.state.segments.contains_key(&number) {
                // It was dead, and its server died before it had removed it.
                for name in [segment::name(number), index::name(number)] {
                    // A start does not need it.
                    let _ = disk.remove(&name);
                }
            } else {
                reading.numbers.push(number);
            }
        }
        let there: BTreeSet<u32> = reading.numbers.iter().copied().collect();
        for number in names.iter().filter_map(|name| index::number(name)) {
            if !there.contains(&number) {
                // Its segment went; another one may get its number.
                let _ = disk.remove(&index::name(number));
            }
        }
        // The oldest go without a word; of those between others the checkpoint knows.
        let (oldest, newest) = (there.first().copied(), there.last().copied());
        if let (true, Some(oldest), Some(newest)) = (usable, oldest, newest) {
            let state = &reading.state;
            let known = |number: &u32| position.0 <= *number || state.segments.contains_key(number);
            let missing = (oldest..newest).filter(|number| !there.contains(number));
            reading.missing = missing.filter(known).collect();
        }
        let Self { state, missing, .. } = &mut reading;
        state.segments.retain(|number, _| there.contains(number) || missing.contains(number));
        Ok(reading)
    }

    /// Reports files that should be there, and lets them go.
    fn report_missing(&mut self, damage: &mut Vec<Damage>) {
        for number in std::mem::take(&mut self.missing) {
            let path = self.disk.path(&segment::name(number));
            let known = self.state.segments.remove(&number);
            let lost = match known.map(|known| known.live()) {
                // What ended its messages was read since.
                Some(0) => continue,
                Some(live) => format!("{live} messages in queues are lost with it"),
                None => "what stood there is lost".into(),
            };
            let text = format!("{}: the file is missing; {lost}", path.display());
            damage.push(Damage::lost(text));
        }
    }

    fn segment(
        &mut self,
        number: u32,
        last: bool,
        damage: &mut Vec<Damage>,
    ) -> Result<(), StoreError> {
        let name = segment::name(number);
        let path = self.disk.path(&name);
        let failed = || StoreError::io("read", &path);
        let position = self.state.position;
        if number < position.0
            && let Some(index) = Index::read(self.disk, number)
        {
            let bytes = self.disk.open(&name).and_then(|file| file.len()).map_err(failed())?;
            self.indexes.insert(number, index);
            self.indexed.insert(number);
            self.sealed.insert(number, bytes);
            return Ok(());
        }
        let bytes = read_all(self.disk, &name).map_err(failed())?;
        if last && segment::is_unfinished(number, &bytes) {
            // The server died while it made the file.
            self.disk.remove(&name).map_err(StoreError::io("remove", &path))?;
            self.numbers.pop();
            return Ok(());
        }
        let format = segment::format(self.disk, &name, &bytes)?;
        if format != FORMAT {
            return Err(StoreError::Format { path, found: format, known: FORMAT });
        }
        if last && bytes.len() == SEGMENT_HEADER_BYTES && self.state.position.0 < number {
            // Begun, and never written to: it is begun again.
            self.numbers.pop();
            return Ok(());
        }
        let replay_from = if number < position.0 {
            usize::MAX
        } else if number == position.0 {
            position.1 as usize
        } else {
            0
        };
        self.replayed += (bytes.len() as u64).saturating_sub(replay_from as u64);
        self.state.segments.entry(number).or_default();
        let (mut index, state) = (Index::default(), &mut self.state);
        let take = |found: segment::Found<'_>| {
            index.add(&found.record, found.offset, found.bytes);
            if replay_from <= found.offset {
                apply(state, number, &found.record);
            }
        };
        let mut troubles = Vec::new();
        let unsure_from =
            last.then_some(if number < position.0 { bytes.len() } else { replay_from });
        segment::scan(&bytes, unsure_from, take, |trouble| troubles.push(trouble));
        let mut end = bytes.len();
        for trouble in troubles {
            damage.push(trouble.damage(&path, bytes.len()));
            match trouble {
                Trouble::Damaged(..) => {}
                Trouble::Torn(records, _) => {
                    self.torn = true;
                    self.change(&name, |file| blot_out(file, &bytes, &records))?;
                }
                Trouble::End(at) => {
                    end = at;
                    self.change(&name, |file| file.set_len(at as u64))?;
                }
            }
        }
        self.indexes.insert(number, index);
        self.sealed.insert(number, end as u64);
        Ok(())
    }

    /// Corrects a segment for good.
    fn change(
        &self,
        name: &str,
        work: impl FnOnce(&dyn DiskFile) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let changed = self.disk.open(name).and_then(|file| {
            work(&*file)?;
            file.sync()
        });
        changed.map_err(StoreError::io("cut the torn end of", &self.disk.path(name)))
    }
}

/// Makes fillers of records that must not count with a later start, when the segment is not the last any more.
fn blot_out(file: &dyn DiskFile, bytes: &[u8], records: &[(usize, usize)]) -> io::Result<()> {
    for (at, size) in records {
        let mut filler = bytes[*at..at + size].to_vec();
        record::fill(&mut filler);
        file.write_at(&filler[..HEADER_BYTES], *at as u64)?;
    }
    Ok(())
}

fn apply(state: &mut State, number: u32, record: &Record<'_>) {
    match record {
        Record::Publish { place, queues, .. } => {
            let known = state.segments.entry(number).or_default();
            known.places = known.places.max(place.saturating_add(queues.len() as u32));
        }
        Record::Ack { first, count } => {
            let (number, place) = split_id(*first);
            if let Some(known) = state.segments.get_mut(&number) {
                // No more than there can be, whatever a damaged record says.
                let end = place.saturating_add(*count).min(known.places.max(place));
                known.dead.add(place, end);
            }
        }
        Record::Delivered { queue, place } => {
            let last = state.delivered.entry(*queue).or_default();
            *last = (*place).max(*last);
        }
        Record::Counted { place, count, due_ms } => {
            state.counts.insert(*place, (*count, *due_ms));
        }
        Record::End { .. } => {}
    }
}
