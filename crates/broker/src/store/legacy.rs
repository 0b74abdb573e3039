//! Logs of the formats 1 to 3: written anew in the format of today.
//!
//! They are read twice, a segment at a time: first for what is live and where, then for the messages themselves.

pub mod record;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use self::record::{Decoded, Record};
use super::batch::Filler;
use super::disk::{Folder, make_folder};
use super::log::Sizes;
use super::recovery::{self, Progress};
use super::segment::FORMAT_OLD_MAX;
use super::{Damage, StoreError, segment};
use crate::message::{Content, Message};

const MAGIC: [u8; 8] = *b"WRNMSGS\0";
const SEGMENT_HEADER_BYTES: usize = 24;
/// So much is gathered before it is written.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Brings the log in `folder` up to the format of today, if it is older: it is there in the one or in the other, at
/// any time. `queues` are those that are defined.
///
/// ```text
///   messages  --read--> messages.new  --synced--> messages becomes messages.old, messages.new becomes messages
/// ```
///
/// # Errors
/// When it cannot be read, or written; it is as it was then.
pub(super) fn convert(
    folder: &Path,
    queues: &FxHashSet<u64>,
    damage: &mut Vec<Damage>,
) -> Result<(), StoreError> {
    let (fresh, old) = (folder.with_extension("new"), folder.with_extension("old"));
    if !folder.exists() && fresh.exists() && old.exists() {
        // A server died between the two renames.
        fs::rename(&fresh, folder).map_err(StoreError::io("rename", &fresh))?;
    }
    remove(&fresh)?;
    if folder.exists() {
        remove(&old)?;
    }
    let paths = match segment_paths(folder) {
        Ok(paths) => paths,
        Err(_) if !folder.exists() => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some((_, first)) = paths.first() else { return Ok(()) };
    let format = format_of(first)?;
    if format.is_none_or(|format| FORMAT_OLD_MAX < format) {
        return Ok(());
    }
    tracing::info!(folder = %folder.display(), "bringing the message log up to a new format");
    let scan = Scan::read(paths, queues, damage)?;
    make_folder(&fresh).map_err(StoreError::io("make", &fresh))?;
    write(scan, &fresh, queues)?;
    let failed = |error| StoreError::io("rename", folder)(error);
    let parent = folder.parent().unwrap_or(Path::new("."));
    let sync = || File::open(parent)?.sync_all();
    fs::rename(folder, &old)
        .and_then(|()| sync())
        .and_then(|()| fs::rename(&fresh, folder))
        .and_then(|()| sync())
        .map_err(failed)?;
    remove(&old)
}

/// The format of the log in a folder, by its first segment. None: it has none, or was never written to.
///
/// # Errors
/// When it is none of ours, or of a format that is not known yet.
pub(super) fn format(folder: &Path) -> Result<Option<u32>, StoreError> {
    match segment_paths(folder)?.first() {
        Some((_, first)) => format_of(first),
        None => Ok(None),
    }
}

fn remove(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

/// `None`: the file is too short to say.
fn format_of(path: &Path) -> Result<Option<u32>, StoreError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SEGMENT_HEADER_BYTES as u64).read_to_end(&mut bytes))
        .map_err(StoreError::io("read", path))?;
    if bytes.len() < SEGMENT_HEADER_BYTES {
        return Ok(None);
    }
    let folder = Folder::new(path.parent().unwrap_or(Path::new(".")), true);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    segment::format(&*folder, name, &bytes).map(Some)
}

fn write(scan: Scan, folder: &Path, queues: &FxHashSet<u64>) -> Result<(), StoreError> {
    let disk = Folder::new(folder, true);
    let (mut log, _) = recovery::open(disk as Arc<_>, &Sizes::DEFAULT, queues, &mut Vec::new())?;
    let failed = StoreError::io("write to", folder);
    let mut filler = Filler::new(log.number(), &Sizes::DEFAULT);
    let mut progress = Progress::new("bringing the message log up", scan.messages.len());
    let mut put = || {
        scan.for_each(|id, queues, mut message| {
            progress.step();
            filler.publish(&mut message, queues);
            let first = message.stored.map_or(0, |stored| stored.first);
            for (place, queue) in (first..).zip(queues) {
                if scan.delivered.get(queue).is_some_and(|last| id <= *last) {
                    filler.delivered(*queue, place);
                }
                if let Some((count, due_ms)) = scan.counts.get(&(*queue, id)) {
                    filler.counted(place, *count, *due_ms);
                }
            }
            if filler.is_full() || BATCH_BYTES <= filler.batch.records.len() {
                filler.take().map_or(Ok(()), |batch| log.append(&batch))?;
            }
            Ok(())
        })?;
        filler.take().map_or(Ok(()), |batch| log.append(&batch))?;
        log.close()
    };
    put().map_err(failed)
}

/// A message that is in a queue.
struct OldMessage {
    /// The segment, by its place among the others, and where its record begins there.
    file: u32,
    bytes: u32,
    offset: u64,
    queues: Queues,
}

/// Most messages are in one.
enum Queues {
    One(u64),
    Some(Vec<u64>),
}

impl Queues {
    fn as_slice(&self) -> &[u64] {
        match self {
            Self::One(queue) => std::slice::from_ref(queue),
            Self::Some(queues) => queues,
        }
    }

    fn without(&self, queue: u64) -> Option<Self> {
        Self::of(self.as_slice().iter().copied().filter(|other| *other != queue))
    }

    fn of(mut queues: impl Iterator<Item = u64>) -> Option<Self> {
        let first = queues.next()?;
        let Some(second) = queues.next() else { return Some(Self::One(first)) };
        Some(Self::Some([first, second].into_iter().chain(queues).collect()))
    }
}

fn segment_paths(folder: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let failed = || StoreError::io("read", folder);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".seg")?.parse::<u64>().ok());
        if let Some(number) = number {
            paths.push((number, path));
        }
    }
    paths.sort();
    Ok(paths)
}

/// What reading all segments gathers.
#[derive(Default)]
pub(super) struct Scan {
    paths: Vec<PathBuf>,
    queues: FxHashSet<u64>,
    /// By id, which is the order of publishing.
    messages: BTreeMap<u64, OldMessage>,
    delivered: FxHashMap<u64, u64>,
    counts: FxHashMap<(u64, u64), (u32, u64)>,
}

impl Scan {
    /// Reads a log of an old format.
    ///
    /// # Errors
    /// When a file cannot be read, or is none of ours.
    pub(super) fn of(
        folder: &Path,
        queues: &FxHashSet<u64>,
        damage: &mut Vec<Damage>,
    ) -> Result<Self, StoreError> {
        Self::read(segment_paths(folder)?, queues, damage)
    }

    /// How many messages there are, each as often as it is in a queue.
    pub(super) fn count(&self) -> u64 {
        self.messages.values().map(|message| message.queues.as_slice().len() as u64).sum()
    }

    /// Octets of all segments.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        self.paths.iter().map(|path| Ok(path.metadata()?.len())).sum()
    }

    fn read(
        paths: Vec<(u64, PathBuf)>,
        queues: &FxHashSet<u64>,
        damage: &mut Vec<Damage>,
    ) -> Result<Self, StoreError> {
        let mut scan = Self { queues: queues.clone(), ..Self::default() };
        let mut progress = Progress::new("reading the old message log, segments", paths.len());
        let count = paths.len();
        for (index, (_, path)) in paths.into_iter().enumerate() {
            scan.segment(index as u32, &path, index + 1 == count, damage)?;
            scan.paths.push(path);
            progress.step();
        }
        Ok(scan)
    }

    /// Reads the messages that are in queues, with their ids and those queues, in the order of publishing.
    pub(super) fn for_each(
        &self,
        mut take: impl FnMut(u64, &[u64], Message) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut open: Option<(u32, File)> = None;
        let mut buffer = Vec::new();
        for (id, old) in &self.messages {
            let file = match &open {
                Some((number, file)) if *number == old.file => file,
                _ => &open.insert((old.file, File::open(&self.paths[old.file as usize])?)).1,
            };
            buffer.resize(old.bytes as usize, 0);
            file.read_exact_at(&mut buffer, old.offset)?;
            let (Decoded::Record(record, _) | Decoded::Grouped(record, _)) =
                record::decode(&buffer)
            else {
                return Err(io::Error::other("a record is not what it was"));
            };
            if let Some(message) = message(record) {
                take(*id, old.queues.as_slice(), message)?;
            }
        }
        Ok(())
    }

    /// Reads a segment. The end of the last one may be torn.
    fn segment(
        &mut self,
        file: u32,
        path: &Path,
        last: bool,
        damage: &mut Vec<Damage>,
    ) -> Result<(), StoreError> {
        let bytes = fs::read(path).map_err(StoreError::io("read", path))?;
        if last && bytes.len() < SEGMENT_HEADER_BYTES {
            // The server died while it made the file.
            return Ok(());
        }
        let header = bytes.first_chunk::<SEGMENT_HEADER_BYTES>();
        if header.is_none_or(|header| header[..8] != MAGIC) {
            return Err(StoreError::Foreign { path: path.to_owned() });
        }
        let found = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if found == 0 || FORMAT_OLD_MAX < found {
            return Err(StoreError::Format {
                path: path.to_owned(),
                found,
                known: segment::FORMAT,
            });
        }
        let mut offset = SEGMENT_HEADER_BYTES;
        // Where the records end that are followed by damage only.
        let mut good = offset;
        // Records of a group whose end has not been read.
        let mut group: Vec<(Record<'_>, usize, usize)> = Vec::new();
        while offset < bytes.len() {
            let (record, size, grouped) = match record::decode(&bytes[offset..]) {
                Decoded::Record(record, size) => (record, size, false),
                Decoded::Grouped(record, size) => (record, size, true),
                Decoded::Damaged(size) => {
                    offset += size;
                    continue;
                }
                Decoded::Unfinished => break,
            };
            if good < offset {
                damage.push(segment::damaged(path, good, offset));
            }
            let at = offset;
            offset += size;
            good = offset;
            if grouped {
                group.push((record, at, size));
            } else if let Record::End { count } = record {
                if last {
                    drop_torn(&mut group, count as usize, at, path, damage);
                }
                group
                    .drain(..)
                    .for_each(|(record, at, size)| self.record(record, (file, at, size)));
            } else {
                self.record(record, (file, at, size));
            }
        }
        match group.first() {
            // Its end was not written: nothing of it counts.
            Some((_, at, _)) if last => good = *at,
            // The end was written, for a segment that has a successor is whole, and is damaged now.
            _ => {
                group.drain(..).for_each(|(record, at, size)| self.record(record, (file, at, size)))
            }
        }
        if good < bytes.len() {
            damage.push(if last {
                segment::torn_end(path, (bytes.len() - good) as u64)
            } else {
                segment::damaged(path, good, bytes.len())
            });
        }
        Ok(())
    }

    fn record(&mut self, record: Record<'_>, (file, offset, bytes): (u32, usize, usize)) {
        match record {
            Record::Publish { message: id, queues, .. } => {
                // A message that was written again stands for itself, not for its first record.
                self.messages.remove(&id);
                let known = queues.into_iter().filter(|queue| self.queues.contains(queue));
                if let Some(queues) = Queues::of(known) {
                    let (offset, bytes) = (offset as u64, bytes as u32);
                    self.messages.insert(id, OldMessage { file, bytes, offset, queues });
                }
            }
            Record::Ack { queue, message: id } => {
                self.counts.remove(&(queue, id));
                if let Some(message) = self.messages.get_mut(&id) {
                    match message.queues.without(queue) {
                        Some(queues) => message.queues = queues,
                        None => drop(self.messages.remove(&id)),
                    }
                }
            }
            Record::Delivered { queue, message } => {
                let last = self.delivered.entry(queue).or_default();
                *last = message.max(*last);
            }
            Record::Counted { queue, message, count, due_ms } => {
                if self.queues.contains(&queue) {
                    self.counts.insert((queue, message), (count, due_ms));
                }
            }
            Record::End { .. } => {}
        }
    }
}

fn message(record: Record<'_>) -> Option<Message> {
    let Record::Publish {
        expires_ms, published_ms, exchange, routing_key, properties, body, ..
    } = record
    else {
        return None;
    };
    Some(Message {
        id: 0,
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        content: Content::new([properties, body].concat(), properties.len()),
        expires_ms,
        published_ms,
        stored: None,
        deduplicated: false,
    })
}

/// Leaves a group of `count` records that ends at `end` whole, or empty. In the last segment of a machine that
/// stopped a part of it may never have been written.
fn drop_torn(
    group: &mut Vec<(Record<'_>, usize, usize)>,
    count: usize,
    end: usize,
    path: &Path,
    damage: &mut Vec<Damage>,
) {
    let mut begins = end;
    let whole = group.iter().rev().take(count).take_while(|(_, at, bytes)| {
        let follows = at + bytes == begins;
        begins = if follows { *at } else { begins };
        follows
    });
    let whole = whole.count();
    let gone = if whole == count { group.len() - count } else { group.len() };
    if 0 < gone {
        damage.push(segment::torn_group(path, gone, end));
        group.drain(..gone);
    }
}
