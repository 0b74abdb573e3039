//! Reading a stream from disk, block by block: one read of some 64 KiB, found by the index.
//!
//! The indexes of the segments that are being read are in memory, so a place is found without the disk, and
//! blocks that hold nothing a consumer wants are never read.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashSet;

use super::chunk::Records;
use super::index::{self, Block};
use super::record::{Step, walk};
use super::segment::{self, Blocks, Data, HEADER_BYTES, Index, Summary};
use super::settings::Filter;
use super::shared::Shared;
use crate::store::StoreError;

/// Segments that are kept open, the last used last. The index of one takes about a thousandth of it.
const OPEN_MAX: usize = 32;
/// Blocks that are passed over before others have their turn.
const PASSED_MAX: u64 = 4096;
/// How long the thread waits before it looks for files that are gone.
const SWEEP: Duration = Duration::from_secs(5);

/// From where on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum From {
    Offset(u64),
    /// The first message that came then or later.
    Time(u64),
}

/// What to read.
#[derive(Clone)]
pub(crate) struct Read {
    pub(crate) shared: Arc<Shared>,
    pub(crate) from: From,
    /// Not from this offset on: it is not known to be on disk.
    pub(crate) until: u64,
    pub(crate) filter: Option<Arc<Filter>>,
}

/// What was read: a block, and where in it, or behind it, the reader goes on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) records: Records,
    pub(crate) from: u64,
}

impl Found {
    fn nothing(from: u64) -> Self {
        Self { records: Records::default(), from }
    }
}

/// Reads, and remembers what is open.
#[derive(Default)]
pub(crate) struct Reader {
    open: Vec<Arc<Open>>,
    /// Damage that has been told of: stream, segment and position.
    reported: FxHashSet<(u64, u64, u64)>,
}

/// A segment that is open to be read.
struct Open {
    stream: u64,
    first: u64,
    data: Data,
    /// Encoded, and each of them whole.
    entries: Vec<u8>,
    filter_bytes: usize,
}

impl Open {
    fn count(&self) -> usize {
        self.entries.len() / index::entry_bytes(self.filter_bytes)
    }

    /// Reads the entries that have come since. False when they are not whole.
    fn grow(&mut self, shared: &Shared, place: &Place) -> bool {
        let count = self.count() as u64;
        let missing = place.summary.entries.saturating_sub(count);
        if missing == 0 {
            return true;
        }
        let Ok(Some(index)) = Index::open(&shared.folder, self.first) else { return false };
        let Ok(blocks) = index.read(count, missing) else { return false };
        let whole = index.filter_bytes == self.filter_bytes && blocks.iter().all(Option::is_some);
        if whole {
            self.entries.extend(encoded(blocks.into_iter().flatten()));
        }
        whole
    }

    fn block(&self, number: usize) -> Option<Block> {
        let size = index::entry_bytes(self.filter_bytes);
        index::decode(self.entries.get(number * size..(number + 1) * size)?, self.filter_bytes)
    }

    /// The first block that is not in front.
    fn find(&self, in_front: impl Fn(&Block) -> bool) -> usize {
        let (mut low, mut high) = (0, self.count());
        while low < high {
            let middle = low.midpoint(high);
            match self.block(middle) {
                Some(block) if in_front(&block) => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }
}

/// A segment, and the block that has no entry in its index.
struct Place {
    summary: Summary,
    tail: Option<Block>,
    /// It is being written.
    last: bool,
}

impl Reader {
    /// The block from where to go on; no records when none is wanted.
    pub(crate) fn read(&mut self, read: &Read) -> Found {
        self.try_read(read).unwrap_or_else(|error| {
            let first = read.shared.first();
            let from = match read.from {
                From::Offset(offset) => offset,
                From::Time(_) => first,
            };
            if from < first {
                // It has gone meanwhile.
                return Found::nothing(first);
            }
            if !read.shared.folder.exists() {
                // So has the whole stream, and with it who would read on.
                return Found::nothing(from.max(read.until));
            }
            tracing::error!(%error, stream = read.shared.stream, "a segment cannot be read, and is passed over");
            let view = read.shared.view();
            let next = view.segments.iter().map(|segment| segment.next).find(|next| from < *next);
            Found::nothing(next.unwrap_or(from).min(read.until))
        })
    }

    fn try_read(&mut self, read: &Read) -> Result<Found, StoreError> {
        let mut from = match read.from {
            From::Offset(offset) => offset,
            From::Time(time_ms) => self.find_time(read, time_ms)?,
        };
        let mut passed = 0;
        while from < read.until && passed < PASSED_MAX {
            let Some(place) = place(&read.shared, |segment| segment.next <= from) else { break };
            // Between two segments there may be a gap.
            from = from.max(place.summary.first);
            let open = self.open(&read.shared, &place)?;
            let mut number = open.find(|block| block.next <= from);
            loop {
                let Some(block) = open.block(number).or_else(|| place.tail.clone()) else {
                    from = place.summary.next;
                    break;
                };
                let wanted = read.filter.as_ref();
                if wanted.is_none_or(|filter| block.may_hold(&filter.values, filter.unfiltered)) {
                    let records = self.read_block(read, &open, &block)?;
                    return Ok(Found { records, from: from.max(block.first) });
                }
                (from, passed, number) = (block.next, passed + 1, number + 1);
                if open.count() < number || PASSED_MAX <= passed {
                    break;
                }
            }
        }
        Ok(Found::nothing(from.min(read.until.max(read.shared.first()))))
    }

    /// The offset of the first message that came then or later.
    fn find_time(&mut self, read: &Read, time_ms: u64) -> Result<u64, StoreError> {
        let in_front = |segment: &Summary| segment.last_ms < time_ms;
        let Some(place) = place(&read.shared, in_front) else { return Ok(read.until) };
        let open = self.open(&read.shared, &place)?;
        let number = open.find(|block| block.last_ms < time_ms);
        let Some(block) = open.block(number).or(place.tail) else { return Ok(read.until) };
        let records = self.read_block(read, &open, &block)?;
        let found = records.get(records.find_time(time_ms)).map(|record| record.offset);
        Ok(found.unwrap_or(block.next).min(read.until))
    }

    fn read_block(
        &mut self,
        read: &Read,
        open: &Open,
        block: &Block,
    ) -> Result<Records, StoreError> {
        let mut bytes = vec![0; block.bytes as usize];
        let path = segment::data_path(&read.shared.folder, open.first);
        let reading = open.data.file.read_exact_at(&mut bytes, block.position);
        reading.map_err(StoreError::io("read", &path))?;
        let (mut positions, mut next, mut end) = (Vec::new(), block.next, bytes.len());
        let mut steps = walk(&bytes, block.first);
        let mut damage = Vec::new();
        for step in &mut steps {
            match step {
                Step::Record(record, at, _) if read.until <= record.offset => {
                    (next, end) = (record.offset, at);
                    break;
                }
                Step::Record(_, at, _) => positions.push(at as u32),
                Step::Damaged(from, to) => damage.push((from, to)),
            }
        }
        if end == bytes.len() && steps.position() < end {
            damage.push((steps.position(), end));
        }
        for (from, to) in damage {
            let (from, to) = (block.position + from as u64, block.position + to as u64);
            if self.reported.insert((open.stream, open.first, from)) {
                tracing::error!("{}", segment::damaged(&path, from, to));
            }
        }
        bytes.truncate(end);
        Ok(Records::new(Bytes::from(bytes), positions, next))
    }

    fn open(&mut self, shared: &Shared, place: &Place) -> Result<Arc<Open>, StoreError> {
        let (stream, first) = (shared.stream, place.summary.first);
        let at = self.open.iter().position(|open| (open.stream, open.first) == (stream, first));
        if let Some(at) = at {
            let mut open = self.open.remove(at);
            // The last segment grows, and its index with it.
            let whole = Arc::get_mut(&mut open).is_some_and(|open| open.grow(shared, place));
            if whole || place.summary.entries <= open.count() as u64 {
                self.open.push(open.clone());
                return Ok(open);
            }
        }
        let Some(data) = Data::open(&shared.folder, first)? else {
            return Err(StoreError::Foreign { path: segment::data_path(&shared.folder, first) });
        };
        let (entries, filter_bytes) = entries(shared, place, &data)?;
        if self.open.len() == OPEN_MAX {
            self.open.remove(0);
        }
        let open = Arc::new(Open { stream, first, data, entries, filter_bytes });
        self.open.push(open.clone());
        Ok(open)
    }

    /// Lets go what has been deleted, or its space on the disk would never be free.
    pub(crate) fn sweep(&mut self) {
        self.open.retain(|open| open.data.file.metadata().is_ok_and(|found| 0 < found.nlink()));
    }
}

/// The first segment that is not in front.
fn place(shared: &Shared, in_front: impl Fn(&Summary) -> bool) -> Option<Place> {
    let view = shared.view();
    let at = view.segments.partition_point(&in_front);
    let summary = *view.segments.get(at)?;
    let last = at + 1 == view.segments.len();
    let tail = (last && !view.open.is_empty()).then(|| view.open.clone());
    Some(Place { summary, tail, last })
}

/// The entries of a segment's index, which is made again if it is not whole.
fn entries(shared: &Shared, place: &Place, data: &Data) -> Result<(Vec<u8>, usize), StoreError> {
    let Place { summary, tail, last } = place;
    let path = segment::index_path(&shared.folder, summary.first);
    let failed = || StoreError::io("read", &path);
    let found = Index::open(&shared.folder, summary.first).map_err(failed())?;
    let filter_bytes = found.as_ref().map_or(index::FILTER_BYTES, |index| index.filter_bytes);
    let end = tail.as_ref().map_or(summary.bytes, |tail| tail.position);
    if let Some(found) = found
        && summary.entries <= found.entries
    {
        let blocks = found.read(0, summary.entries).map_err(failed())?;
        let whole = blocks.iter().all(Option::is_some);
        let newest = blocks.last().cloned().flatten();
        if whole && newest.map_or(HEADER_BYTES as u64, |block| block.end()) == end {
            return Ok((encoded(blocks.into_iter().flatten()), filter_bytes));
        }
    }
    tracing::error!(path = %path.display(), "the index of a segment is damaged");
    let mut damage = Vec::new();
    let blocks = if !last {
        let identity = (shared.stream, summary.first);
        segment::rebuild(&shared.folder, identity, filter_bytes, &mut damage)?
    } else {
        // It is being written: it is made again in memory.
        let mut blocks = Blocks::new(HEADER_BYTES as u64, summary.first, filter_bytes);
        data.scan(&mut blocks, end, &mut damage).map_err(failed())?;
        blocks.close();
        blocks.full
    };
    for damage in damage {
        tracing::error!("{damage}");
    }
    Ok((encoded(blocks.into_iter()), filter_bytes))
}

fn encoded(blocks: impl Iterator<Item = Block>) -> Vec<u8> {
    let mut entries = Vec::new();
    for block in blocks {
        index::encode(&mut entries, &block);
    }
    entries
}

/// What the reading thread does: answers one reading after the other.
pub(super) fn serve<T>(requests: &Receiver<(T, Read)>, mut answer: impl FnMut(T, Found)) {
    let mut reader = Reader::default();
    let mut count = 0_u32;
    loop {
        match requests.recv_timeout(SWEEP) {
            Ok((token, read)) => answer(token, reader.read(&read)),
            Err(RecvTimeoutError::Timeout) => reader.sweep(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        count = count.wrapping_add(1);
        if count.is_multiple_of(1024) {
            reader.sweep();
        }
    }
}
