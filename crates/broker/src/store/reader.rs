//! Reads messages back from the log, for queues that are longer than their window.
//!
//! Only what is synced is read, so the store's thread and the hub never meet in a part of a file. A segment that was
//! written anew has its records elsewhere: they are told by their places, and looked for when they are not found.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::batch::split_id;
use super::disk::{Disk, DiskFile, read_all};
use super::index::Index;
use super::log::Synced;
use super::record::{self, Decoded, Record};
use super::segment;
use crate::message::Spot;

/// Files that are kept open, for all queues.
const FILES_MAX: usize = 8;
/// Records so near to one another are read together,
const GAP_BYTES_MAX: u64 = 32 * 1024;
/// and no more of them than this.
const RUN_BYTES_MAX: u64 = 4 * 1024 * 1024;

pub(crate) struct LogReader {
    disk: Arc<dyn Disk>,
    synced: Synced,
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    /// The one used last is the last.
    files: VecDeque<(u32, Box<dyn DiskFile>)>,
    /// Of one segment that was written anew, where its messages are.
    moved: Option<(u32, FxHashMap<u32, Spot>)>,
    /// Reused.
    buffer: Vec<u8>,
}

impl LogReader {
    pub(super) fn new(disk: Arc<dyn Disk>, synced: Synced) -> Self {
        Self { disk, synced, inner: RefCell::default() }
    }

    /// Whether a message can be read back.
    pub(super) fn has(&self, message: u64, spot: Spot) -> bool {
        self.synced.covers(message, spot)
    }

    /// Reads messages, by their ids and where they were written; best in the order of their places. Calls `take` for
    /// each, in this order, with `None` for one that cannot be read, which is logged.
    pub(super) fn read(&self, wanted: &[(u64, Spot)], mut take: impl FnMut(Option<Record<'_>>)) {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let mut rest = wanted;
        while let Some((first, _)) = rest.first() {
            let number = split_id(*first).0;
            let count = run(rest);
            let (run, behind) = rest.split_at(count);
            rest = behind;
            let (from, to) =
                (run[0].1.offset, run.iter().map(|(_, spot)| end(*spot)).max().unwrap_or(0));
            let mut buffer = std::mem::take(&mut inner.buffer);
            buffer.resize((to - from) as usize, 0);
            let read =
                inner.file(&*self.disk, number).and_then(|file| file.read_at(&mut buffer, from));
            for (id, spot) in run {
                let at = (spot.offset - from) as usize;
                let bytes = buffer.get(at..at + spot.bytes as usize).filter(|_| read.is_ok());
                match bytes.and_then(|bytes| message(bytes, *id)) {
                    Some(found) => take(Some(found)),
                    None => match inner.find(&*self.disk, *id) {
                        Ok(bytes) => take(message(&bytes, *id)),
                        Err(error) => {
                            self.tell_lost(number, *spot, &error);
                            take(None);
                        }
                    },
                }
            }
            if buffer.capacity() as u64 <= 2 * RUN_BYTES_MAX {
                inner.buffer = buffer;
            }
        }
    }

    /// Reads the record of a large message; `None`, and a word in the log, if it cannot be read.
    pub(super) fn take(&self, id: u64, spot: Spot) -> Option<Vec<u8>> {
        let mut inner = self.inner.borrow_mut();
        let inner = &mut *inner;
        let number = split_id(id).0;
        let mut bytes = vec![0; spot.bytes as usize];
        let file = inner.file(&*self.disk, number);
        let read = file.and_then(|file| file.read_at(&mut bytes, spot.offset));
        if read.is_ok() && message(&bytes, id).is_some() {
            return Some(bytes);
        }
        drop(bytes);
        inner.find(&*self.disk, id).inspect_err(|error| self.tell_lost(number, spot, error)).ok()
    }

    fn tell_lost(&self, number: u32, spot: Spot, error: &io::Error) {
        let path = self.disk.path(&segment::name(number));
        tracing::error!(
            "{}: the message at byte {} cannot be read and is lost: {error}",
            path.display(),
            spot.offset
        );
    }
}

/// How many of the first are read at once.
fn run(wanted: &[(u64, Spot)]) -> usize {
    let Some((first, spot)) = wanted.first() else { return 0 };
    let (segment, from, mut to) = (split_id(*first).0, spot.offset, end(*spot));
    let more = wanted[1..].iter().take_while(|(id, spot)| {
        let fits = split_id(*id).0 == segment
            && from <= spot.offset
            && spot.offset <= to + GAP_BYTES_MAX
            && end(*spot) <= from + RUN_BYTES_MAX;
        to = to.max(end(*spot));
        fits
    });
    1 + more.count()
}

fn end(spot: Spot) -> u64 {
    spot.offset + u64::from(spot.bytes)
}

/// The record in `bytes`, if it is the message with that id.
fn message(bytes: &[u8], id: u64) -> Option<Record<'_>> {
    let (Decoded::Record(record, _) | Decoded::Grouped(record, _)) = record::decode(bytes) else {
        return None;
    };
    let wanted = split_id(id).1;
    matches!(&record, Record::Publish { place, .. } if *place == wanted).then_some(record)
}

impl Inner {
    fn file(&mut self, disk: &dyn Disk, number: u32) -> io::Result<&dyn DiskFile> {
        let open = match self.files.iter().position(|(other, _)| *other == number) {
            Some(at) => self.files.remove(at),
            None => None,
        };
        let open = match open {
            Some(open) => open,
            None => {
                if self.files.len() == FILES_MAX {
                    self.files.pop_front();
                }
                (number, disk.open(&segment::name(number))?)
            }
        };
        self.files.push_back(open);
        match self.files.back() {
            Some((_, file)) => Ok(&**file),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Looks for a message that is not where it was written.
    fn find(&mut self, disk: &dyn Disk, id: u64) -> io::Result<Vec<u8>> {
        let (number, place) = split_id(id);
        // What is known may be of the file before, and so may the index be.
        for how in [Look::Known, Look::Index, Look::Segment] {
            let known = self.moved.as_ref().is_some_and(|(segment, _)| *segment == number);
            let spots = match how {
                Look::Known if !known => continue,
                Look::Known => None,
                Look::Index => match Index::read(disk, number) {
                    Some(index) => Some(index_spots(&index)),
                    None => continue,
                },
                Look::Segment => Some(segment_spots(disk, number)?),
            };
            if let Some(spots) = spots {
                self.files.retain(|(other, _)| *other != number);
                self.moved = Some((number, spots));
            }
            let spot = self.moved.as_ref().and_then(|(_, spots)| spots.get(&place).copied());
            if let Some(spot) = spot {
                let mut bytes = vec![0; spot.bytes as usize];
                let read = self.file(disk, number)?.read_at(&mut bytes, spot.offset);
                if read.is_ok() && message(&bytes, id).is_some() {
                    return Ok(bytes);
                }
            }
        }
        Err(io::Error::other("its record is damaged"))
    }
}

/// Where to look for messages that have moved.
#[derive(Clone, Copy)]
enum Look {
    Known,
    Index,
    Segment,
}

fn index_spots(index: &Index) -> FxHashMap<u32, Spot> {
    index.entries().map(|entry| (entry.place, entry.spot())).collect()
}

fn segment_spots(disk: &dyn Disk, number: u32) -> io::Result<FxHashMap<u32, Spot>> {
    let bytes = read_all(disk, &segment::name(number))?;
    let mut spots = FxHashMap::default();
    let take = |found: segment::Found<'_>| {
        if let Record::Publish { place, .. } = found.record {
            spots.insert(place, Spot { offset: found.offset as u64, bytes: found.bytes as u32 });
        }
    };
    segment::scan(&bytes, None, take, |_| ());
    Ok(spots)
}
