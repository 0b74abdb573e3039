//! What one turn of the hub has to have written, and where in the log it goes.
//!
//! The hub gives out places and positions, so that it knows where a message will be before it is there; the store's
//! thread writes each batch exactly there. A message that was settled before it was written leaves a hole.

use super::Definition;
use super::log::Sizes;
use super::record::{self, HEADER_BYTES, Record};
use super::segment::SEGMENT_HEADER_BYTES;
use crate::message::{Message, Spot, Stored};
use crate::stream::Job;

/// A hole of this size is not written; a smaller one goes with what is around it.
const HOLE_BYTES_MIN: usize = 16 * 1024;
/// A hole that has grown to this is followed by another one.
const HOLE_BYTES_MAX: usize = 1 << 30;

/// A message among the records of a batch.
pub(super) struct Publication {
    pub(super) place: u32,
    pub(super) places: u32,
    /// Where its record begins among the others.
    at: usize,
    bytes: usize,
    /// It stands with others, or not at all.
    grouped: bool,
}

/// Places in a row.
pub(super) type Range = (u64, u32);

pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) definitions: Vec<Definition>,
    pub(super) streams: Vec<Job>,
    /// The segment it belongs into, and where there.
    pub(super) segment: u32,
    pub(super) offset: u64,
    /// Encoded.
    pub(super) records: Vec<u8>,
    pub(super) publications: Vec<Publication>,
    pub(super) acks: Vec<Range>,
    /// Queues, and up to where they may have been delivered from.
    pub(super) delivered: Vec<(u64, u64)>,
    /// Places, how often each came back, and until when it waits.
    pub(super) counted: Vec<(u64, u32, u64)>,
    /// Somebody waits for the disk. Acknowledgements that are lost with the machine cost a second delivery, and
    /// nobody waits for them.
    pub(super) awaited: bool,
    /// Unless a transaction has settled them.
    pub(super) settles: bool,
    /// The segment ends with it.
    pub(super) last: bool,
    /// Where nothing has to be written: from, to.
    holes: Vec<(usize, usize)>,
}

impl Batch {
    pub(super) fn new(number: u64, segment: u32, offset: u64) -> Self {
        Self {
            number,
            definitions: Vec::new(),
            streams: Vec::new(),
            segment,
            offset,
            records: Vec::new(),
            publications: Vec::new(),
            acks: Vec::new(),
            delivered: Vec::new(),
            counted: Vec::new(),
            awaited: false,
            settles: false,
            last: false,
            holes: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.definitions.is_empty()
            && self.records.is_empty()
            && self.streams.is_empty()
            && !self.awaited
    }

    /// What is to be written: parts of the records, and where each begins among them.
    pub(super) fn parts(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let begins = std::iter::once(0).chain(self.holes.iter().map(|hole| hole.1));
        let ends = self.holes.iter().map(|hole| hole.0).chain([self.records.len()]);
        begins.zip(ends).map(|(from, to)| (from, &self.records[from..to]))
    }

    /// Leaves out messages that are settled.
    fn leave_out(&mut self, settled: impl Fn(&Publication) -> bool) {
        let mut hole: Option<(usize, usize)> = None;
        let mut kept = self.publications.is_empty();
        for one in &self.publications {
            if one.grouped || !settled(one) {
                kept = true;
                continue;
            }
            let end = one.at + one.bytes;
            hole = match hole {
                Some((from, to)) if to == one.at && end - from < HOLE_BYTES_MAX => {
                    Some((from, end))
                }
                other => {
                    dig(&mut self.records, &mut self.holes, other);
                    Some((one.at, end))
                }
            };
        }
        dig(&mut self.records, &mut self.holes, hole);
        self.awaited &=
            kept || self.settles || !self.streams.is_empty() || !self.definitions.is_empty();
    }
}

fn dig(records: &mut [u8], holes: &mut Vec<(usize, usize)>, hole: Option<(usize, usize)>) {
    let Some((from, to)) = hole else { return };
    record::fill(&mut records[from..to]);
    if HOLE_BYTES_MIN <= to - from {
        holes.push((from + HEADER_BYTES, to));
    }
}

/// Leaves messages out that have come and gone within these batches, none of which is written yet.
pub(super) fn leave_out_settled(batches: &mut [Batch]) {
    let first = batches.iter().find_map(|batch| {
        let one = batch.publications.first()?;
        Some(place_id(batch.segment, one.place))
    });
    let Some(first) = first else { return };
    let mut settled: Vec<Range> = Vec::new();
    for batch in batches.iter() {
        let acks = batch.acks.iter().filter(|(place, count)| first < place + u64::from(*count));
        settled.extend(acks);
    }
    if settled.is_empty() {
        return;
    }
    settled.sort_unstable();
    // Ranges do not overlap: a place is settled once. Those in a row become one.
    settled.dedup_by(|next, last| {
        let follows = last.0 + u64::from(last.1) == next.0;
        if follows {
            last.1 += next.1;
        }
        follows
    });
    for batch in batches {
        let segment = batch.segment;
        batch.leave_out(|one| {
            let place = place_id(segment, one.place);
            let at = settled.partition_point(|(first, _)| *first <= place);
            let range = at.checked_sub(1).map(|at| settled[at]);
            range.is_some_and(|(first, count)| {
                place + u64::from(one.places) <= first + u64::from(count)
            })
        });
    }
}

pub(super) fn place_id(segment: u32, place: u32) -> u64 {
    u64::from(segment) << 32 | u64::from(place)
}

/// The segment and the place that an id means.
pub(super) fn split_id(id: u64) -> (u32, u32) {
    ((id >> 32) as u32, id as u32)
}

/// Records that count together or not at all.
#[derive(Default)]
struct Group {
    /// Groups within groups are part of the outermost; 0: none is open.
    depth: usize,
    count: u32,
    /// Where the first begins in the batch.
    begins: usize,
    /// Places settled in the batch before it.
    settled: usize,
}

/// Fills batches.
pub(super) struct Filler {
    pub(super) batch: Batch,
    group: Group,
    /// A segment that has grown to this is followed by a new one.
    segment_bytes: u64,
    /// Places given out in the segment.
    places: u32,
    /// Settled in this batch.
    settled: Vec<u64>,
    /// Reused.
    queues: Vec<u64>,
}

impl Filler {
    pub(super) fn new(segment: u32, sizes: &Sizes) -> Self {
        Self {
            batch: Batch::new(1, segment, SEGMENT_HEADER_BYTES as u64),
            group: Group::default(),
            segment_bytes: sizes.segment,
            places: 0,
            settled: Vec::new(),
            queues: Vec::new(),
        }
    }

    pub(super) fn begin_group(&mut self) {
        if self.group.depth == 0 {
            self.group = Group {
                depth: 0,
                count: 0,
                begins: self.batch.records.len(),
                settled: self.settled.len(),
            };
        }
        self.group.depth += 1;
    }

    pub(super) fn end_group(&mut self) {
        debug_assert!(0 < self.group.depth);
        if self.group.depth == 1 {
            self.encode_acks(self.group.settled);
        }
        self.group.depth -= 1;
        if self.group.depth != 0 {
            return;
        }
        let count = self.group.count;
        match count {
            0 => {}
            // Each record is whole or not there.
            1 => record::ungroup(&mut self.batch.records, self.group.begins),
            _ => record::encode(&mut self.batch.records, &Record::End { count }, false),
        }
    }

    pub(super) fn in_group(&self) -> bool {
        self.group.depth != 0
    }

    /// Whether something was settled in the group.
    pub(super) fn settles(&self) -> bool {
        self.in_group() && self.group.settled < self.settled.len()
    }

    /// Whether the next record is one of a group.
    fn grouped(&mut self) -> bool {
        self.group.count = self.group.count.wrapping_add(1);
        self.group.depth != 0
    }

    fn record(&mut self, record: &Record<'_>) {
        let grouped = self.grouped();
        record::encode(&mut self.batch.records, record, grouped);
    }

    /// Gives a message its place for some queues.
    pub(super) fn publish(&mut self, message: &mut Message, queues: &[u64]) {
        let (grouped, place, at) = (self.grouped(), self.places, self.batch.records.len());
        self.queues.clear();
        self.queues.extend_from_slice(queues);
        let records = &mut self.batch.records;
        record::encode_publish(records, place, message, &mut self.queues, grouped);
        let (places, bytes) = (queues.len() as u32, records.len() - at);
        message.stored = Some(Stored {
            first: place_id(self.batch.segment, place),
            spot: Spot { offset: self.batch.offset + at as u64, bytes: bytes as u32 },
        });
        self.batch.publications.push(Publication { place, places, at, bytes, grouped });
        self.batch.awaited = true;
        self.places += places;
    }

    pub(super) fn ack(&mut self, place: u64) {
        self.settled.push(place);
    }

    pub(super) fn delivered(&mut self, queue: u64, place: u64) {
        self.record(&Record::Delivered { queue, place });
        self.batch.delivered.push((queue, place));
    }

    pub(super) fn counted(&mut self, place: u64, count: u32, due_ms: u64) {
        self.record(&Record::Counted { place, count, due_ms });
        self.batch.counted.push((place, count, due_ms));
    }

    /// Writes the settled ones from `from` on: in the order of their places, as ranges.
    fn encode_acks(&mut self, from: usize) {
        if self.settled.len() == from {
            return;
        }
        let mut settled = std::mem::take(&mut self.settled);
        settled[from..].sort_unstable();
        let mut rest = settled[from..].iter().copied();
        let mut range = rest.next().map(|first| (first, 1));
        while let Some((first, count)) = range {
            let next = rest.next();
            range = match next {
                Some(place) if first + u64::from(count) == place => Some((first, count + 1)),
                next => {
                    self.record(&Record::Ack { first, count });
                    self.batch.acks.push((first, count));
                    next.map(|place| (place, 1))
                }
            };
        }
        settled.truncate(from);
        self.settled = settled;
    }

    /// The segment is full, and may end here.
    pub(super) fn is_full(&self) -> bool {
        self.segment_bytes <= self.batch.offset + self.batch.records.len() as u64
            && !self.in_group()
    }

    /// Takes what has gathered, if anything has.
    pub(super) fn take(&mut self) -> Option<Batch> {
        debug_assert_eq!(self.group.depth, 0);
        self.encode_acks(0);
        if self.batch.is_empty() {
            return None;
        }
        let (number, segment) = (self.batch.number + 1, self.batch.segment);
        let end = self.batch.offset + self.batch.records.len() as u64;
        self.batch.last = self.is_full();
        let next = if self.batch.last {
            self.places = 0;
            Batch::new(number, segment + 1, SEGMENT_HEADER_BYTES as u64)
        } else {
            Batch::new(number, segment, end)
        };
        Some(std::mem::replace(&mut self.batch, next))
    }
}
