//! Logs of the formats 1 to 3: read as a whole, and written anew in the format of today.

pub mod record;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use self::record::{Decoded, Record};
use super::batch::Filler;
use super::disk::Folder;
use super::log::Sizes;
use super::recovery;
use super::segment::FORMAT_OLD_MAX;
use super::{StoreError, segment};
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
    damage: &mut Vec<String>,
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
    let mut scan = Scan { queues: queues.clone(), ..Scan::default() };
    for (index, (_, path)) in paths.iter().enumerate() {
        scan.segment(path, index + 1 == paths.len(), damage)?;
    }
    fs::create_dir_all(&fresh).map_err(StoreError::io("make", &fresh))?;
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
    let bytes = fs::read(path).map_err(StoreError::io("read", path))?;
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
    let Scan { messages, delivered, counts, .. } = scan;
    let put = || {
        for (id, message) in messages {
            let mut fresh = Message {
                id: 0,
                exchange: message.exchange.as_str().into(),
                routing_key: message.routing_key.into(),
                content: message.content,
                expires_ms: message.expires_ms,
                published_ms: message.published_ms,
                stored: None,
                deduplicated: false,
            };
            filler.publish(&mut fresh, &message.queues);
            let first = fresh.stored.map_or(0, |stored| stored.first);
            for (place, queue) in (first..).zip(&message.queues) {
                if delivered.get(queue).is_some_and(|last| id <= *last) {
                    filler.delivered(*queue, place);
                }
                if let Some((count, due_ms)) = counts.get(&(*queue, id)) {
                    filler.counted(place, *count, *due_ms);
                }
            }
            if filler.is_full() || BATCH_BYTES <= filler.batch.records.len() {
                filler.take().map_or(Ok(()), |batch| log.append(&batch))?;
            }
        }
        filler.take().map_or(Ok(()), |batch| log.append(&batch))?;
        log.close()
    };
    put().map_err(failed)
}

/// A message that is in a queue.
struct OldMessage {
    expires_ms: u64,
    published_ms: u64,
    exchange: String,
    routing_key: String,
    content: Content,
    queues: Vec<u64>,
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
struct Scan {
    queues: FxHashSet<u64>,
    /// By id, which is the order of publishing.
    messages: BTreeMap<u64, OldMessage>,
    delivered: FxHashMap<u64, u64>,
    counts: FxHashMap<(u64, u64), (u32, u64)>,
}

impl Scan {
    /// Reads a segment. The end of the last one may be torn.
    fn segment(
        &mut self,
        path: &Path,
        last: bool,
        damage: &mut Vec<String>,
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
                damage.push(damaged(path, good, offset));
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
                group.drain(..).for_each(|(record, ..)| self.record(record));
            } else {
                self.record(record);
            }
        }
        match group.first() {
            // Its end was not written: nothing of it counts.
            Some((_, at, _)) if last => good = *at,
            // The end was written, for a segment that has a successor is whole, and is damaged now.
            _ => group.drain(..).for_each(|(record, ..)| self.record(record)),
        }
        if good < bytes.len() {
            damage.push(if last {
                format!(
                    "{}: the last {} bytes were not written whole and are cut off",
                    path.display(),
                    bytes.len() - good
                )
            } else {
                damaged(path, good, bytes.len())
            });
        }
        Ok(())
    }

    fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Publish {
                message: id,
                expires_ms,
                published_ms,
                queues,
                exchange,
                routing_key,
                properties,
                body,
            } => {
                let queues: Vec<u64> =
                    queues.into_iter().filter(|queue| self.queues.contains(queue)).collect();
                if queues.is_empty() {
                    // A message that was written again stands for itself, not for its first record.
                    self.messages.remove(&id);
                    return;
                }
                let content = Content::new([properties, body].concat(), properties.len());
                let message = OldMessage {
                    expires_ms,
                    published_ms,
                    exchange: exchange.into(),
                    routing_key: routing_key.into(),
                    content,
                    queues,
                };
                self.messages.insert(id, message);
            }
            Record::Ack { queue, message: id } => {
                self.counts.remove(&(queue, id));
                if let Some(message) = self.messages.get_mut(&id) {
                    message.queues.retain(|other| *other != queue);
                    if message.queues.is_empty() {
                        self.messages.remove(&id);
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

/// Leaves a group of `count` records that ends at `end` whole, or empty. In the last segment of a machine that
/// stopped a part of it may never have been written.
fn drop_torn(
    group: &mut Vec<(Record<'_>, usize, usize)>,
    count: usize,
    end: usize,
    path: &Path,
    damage: &mut Vec<String>,
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
        damage.push(format!(
            "{}: {gone} records before byte {end} are of a transaction that was not written whole, and do not count",
            path.display()
        ));
        group.drain(..gone);
    }
}

fn damaged(path: &Path, from: usize, to: usize) -> String {
    format!("{}: bytes {from} to {to} are damaged; what stood there is lost", path.display())
}
