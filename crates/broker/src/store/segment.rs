//! A segment's file: its name, its header, and how its records are read one after the other.

use std::io;
use std::path::Path;

use super::disk::{Disk, DiskFile};
use super::record::{self, Decoded, Record};
use super::{Damage, StoreError, batch::place_id};

const MAGIC: [u8; 8] = *b"WRNMSGS\0";
pub(super) const FORMAT: u32 = 4;
/// The last format that is converted.
pub(super) const FORMAT_OLD_MAX: u32 = 3;
/// Magic, format, the segment's number, eight octets of zero.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 24;

pub(super) fn name(number: u32) -> String {
    format!("{number:010}.seg")
}

/// Octets whose checksums are computed in the search for records behind damage.
const EFFORT_BYTES_MAX: usize = 1 << 30;

/// The number in a segment's name.
pub(super) fn number(name: &str) -> Option<u32> {
    name.strip_suffix(".seg")?.parse().ok()
}

pub(super) fn header(number: u32) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..16].copy_from_slice(&number.to_le_bytes());
    header
}

/// Whether a file holds no more than a part of the header that it was to begin with: what is missing of it is missing at
/// the end, or zero.
pub(super) fn is_unfinished(number: u32, bytes: &[u8]) -> bool {
    let wanted = header(number);
    let is_part = || bytes.iter().zip(&wanted).all(|(found, wanted)| [0, *wanted].contains(found));
    bytes.len() < wanted.len() || bytes.len() == wanted.len() && bytes != wanted && is_part()
}

/// Makes a segment's file. What an attempt that failed has left of one goes.
pub(super) fn create(disk: &dyn Disk, number: u32, reserve: u64) -> io::Result<Box<dyn DiskFile>> {
    let file = disk.create(&name(number))?;
    if 0 < reserve {
        file.reserve(reserve);
    }
    file.write_at(&header(number), 0)?;
    file.sync()?;
    // The name of a new file is on disk only with its folder.
    disk.sync_names()?;
    Ok(file)
}

/// The name that a segment has until it is begun.
pub(super) fn prepared_name(number: u32) -> String {
    format!("{}.new", name(number))
}

/// Makes the file of a segment that is still to come.
pub(super) fn prepare(disk: &dyn Disk, number: u32, reserve: u64) -> io::Result<Box<dyn DiskFile>> {
    let file = disk.create(&prepared_name(number))?;
    file.reserve(reserve);
    file.write_at(&header(number), 0)?;
    file.sync()?;
    Ok(file)
}

/// Begins a segment that was prepared.
pub(super) fn begin_prepared(disk: &dyn Disk, number: u32) -> io::Result<()> {
    disk.rename(&prepared_name(number), &name(number))?;
    disk.sync_names()
}

/// The format of a segment, by its first bytes.
///
/// # Errors
/// When it is none of ours, or of a format that is not known yet.
pub(super) fn format(disk: &dyn Disk, name: &str, bytes: &[u8]) -> Result<u32, StoreError> {
    let path = || disk.path(name);
    let header = bytes.first_chunk::<SEGMENT_HEADER_BYTES>();
    let header = header
        .filter(|header| header[..8] == MAGIC)
        .ok_or_else(|| StoreError::Foreign { path: path() })?;
    let found = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if found == 0 || FORMAT < found {
        return Err(StoreError::Format { path: path(), found, known: FORMAT });
    }
    Ok(found)
}

/// A record and where it stands.
pub(super) struct Found<'a> {
    pub(super) record: Record<'a>,
    pub(super) offset: usize,
    pub(super) bytes: usize,
}

/// What reading a segment has come upon, besides records.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// From, to: what stood there cannot be read.
    Damaged(usize, usize),
    /// These records of a group that ends at an offset do not count, for others of it are missing: where each begins,
    /// and its octets.
    Torn(Vec<(usize, usize)>, usize),
    /// From there on nothing was written whole.
    End(usize),
}

/// Reads the records of a segment. `unsure_from` is where in the last segment that begins which may never have been
/// synced: a group counts there as a whole or not at all. Of what stands elsewhere was damaged what is missing, and the
/// rest is given out.
pub(super) fn scan<'a>(
    bytes: &'a [u8],
    unsure_from: Option<usize>,
    mut take: impl FnMut(Found<'a>),
    mut trouble: impl FnMut(Trouble),
) {
    let mut offset = SEGMENT_HEADER_BYTES.min(bytes.len());
    // Where the records end that are followed by damage only.
    let mut good = offset;
    let mut effort = EFFORT_BYTES_MAX;
    // Records of a group whose end has not been read.
    let mut group: Vec<Found<'a>> = Vec::new();
    while offset < bytes.len() {
        let (record, size, grouped) = match record::decode(&bytes[offset..]) {
            Decoded::Record(record, size) => (Some(record), size, false),
            Decoded::Grouped(record, size) => (Some(record), size, true),
            Decoded::Filler(size) => (None, size, false),
            Decoded::Damaged(_) | Decoded::Unfinished => {
                match next_record(bytes, offset, &mut effort) {
                    Some(next) => {
                        offset = next;
                        continue;
                    }
                    None => break,
                }
            }
        };
        if good < offset {
            trouble(Trouble::Damaged(good, offset));
        }
        let at = offset;
        offset += size;
        good = offset;
        if grouped {
            group.extend(record.map(|record| Found { record, offset: at, bytes: size }));
            continue;
        }
        let count = match &record {
            Some(Record::End { count }) => *count as usize,
            // The end of what stands before it is missing.
            _ => usize::MAX,
        };
        if unsure_from.is_some_and(|from| from <= at) {
            drop_torn(&mut group, count, at, &mut trouble);
        }
        group.drain(..).for_each(&mut take);
        if let Some(record) = record {
            take(Found { record, offset: at, bytes: size });
        }
    }
    match group.first() {
        // Its end was not written: nothing of it counts.
        Some(first) if unsure_from.is_some_and(|from| from <= first.offset) => good = first.offset,
        _ => group.drain(..).for_each(&mut take),
    }
    if good < bytes.len() {
        let is_end = unsure_from.is_some_and(|from| from <= good);
        trouble(if is_end { Trouble::End(good) } else { Trouble::Damaged(good, bytes.len()) });
    }
}

/// Where the next record begins behind one that is damaged: where that one says it ends, or, if it is its size that is
/// damaged, at the first place where there is one.
fn next_record(bytes: &[u8], damaged: usize, effort: &mut usize) -> Option<usize> {
    let is_good = |at: usize| {
        !matches!(record::decode(&bytes[at..]), Decoded::Damaged(_) | Decoded::Unfinished)
    };
    if let Decoded::Damaged(size) = record::decode(&bytes[damaged..]) {
        let next = damaged + size;
        if next == bytes.len() || is_good(next) {
            return Some(next);
        }
    }
    (damaged + 1..bytes.len()).find(|at| {
        if !record::may_begin(&bytes[*at..]) {
            return false;
        }
        let cost = record::check_bytes(&bytes[*at..]);
        *effort = effort.saturating_sub(cost);
        *effort != 0 && is_good(*at)
    })
}

/// Leaves a group of `count` records that ends at `end` whole, or empty.
fn drop_torn(
    group: &mut Vec<Found<'_>>,
    count: usize,
    end: usize,
    trouble: &mut impl FnMut(Trouble),
) {
    let mut begins = end;
    let whole = group.iter().rev().take(count).take_while(|found| {
        let follows = found.offset + found.bytes == begins;
        begins = if follows { found.offset } else { begins };
        follows
    });
    let whole = whole.count();
    let gone = if whole == count { group.len() - count } else { group.len() };
    if 0 < gone {
        let gone = group.drain(..gone).map(|found| (found.offset, found.bytes));
        trouble(Trouble::Torn(gone.collect(), end));
    }
}

impl Trouble {
    pub(super) fn damage(&self, path: &std::path::Path, total: usize) -> Damage {
        match self {
            Self::Damaged(from, to) => damaged(path, *from, *to),
            Self::Torn(records, end) => torn_group(path, records.len(), *end),
            Self::End(at) => torn_end(path, (total - at) as u64),
        }
    }
}

pub(super) fn damaged(path: &Path, from: usize, to: usize) -> Damage {
    let path = path.display();
    Damage::lost(format!("{path}: bytes {from} to {to} are damaged; what stood there is lost"))
}

pub(super) fn torn_group(path: &Path, records: usize, end: usize) -> Damage {
    let path = path.display();
    Damage::torn(format!(
        "{path}: {records} records before byte {end} are of a transaction that was not written whole, and do not count"
    ))
}

pub(crate) fn torn_end(path: &Path, bytes: u64) -> Damage {
    let path = path.display();
    Damage::torn(format!("{path}: the last {bytes} bytes were not written whole and are cut off"))
}

/// A place id of a segment's, if it is one.
pub(super) fn id(segment: u32, place: u32, index: usize) -> Option<u64> {
    let place = place.checked_add(u32::try_from(index).ok()?)?;
    Some(place_id(segment, place))
}
