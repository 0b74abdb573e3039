//! The message log: segments of records, written at the end only.
//!
//! ```text
//!   messages/0000000007.seg   | header 24 octets | record | record | ...
//!   messages/0000000008.seg   the last one is being written
//! ```
//! A message is live while a queue has it. Segments go oldest first, once nothing in them is live: an
//! acknowledgement never goes before the message it belongs to. What is left of a mostly dead oldest segment
//! is written again at the end.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustc_hash::{FxHashMap, FxHashSet};

use super::record::{self, Decoded, Record};
use super::{Recovered, RecoveredMessage, RecoveredPlace, StoreError};
use crate::message::Content;

const MAGIC: [u8; 8] = *b"WRNMSGS\0";
const FORMAT: u32 = 3;
/// The oldest format that is read: it has no counts of deliveries. 2 has no times of publishing and no groups.
const FORMAT_MIN: u32 = 1;
/// Magic, format, four octets of zero, and the last message id before this segment.
const SEGMENT_HEADER_BYTES: usize = 24;
/// A segment that has grown to this is followed by a new one.
const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;
/// The oldest segment is emptied when less than one part in so many is live.
const LIVE_PART_MIN: u64 = 4;

struct Segment {
    number: u64,
    path: PathBuf,
    bytes: u64,
    /// What a sync has confirmed of them; more of the last one may be in the file.
    synced_bytes: u64,
    live_records: u64,
    live_bytes: u64,
}

/// A message that some queue has.
struct Live {
    segment: u64,
    /// Of the record.
    offset: u64,
    record_bytes: u32,
    queues: Vec<u64>,
}

pub(super) struct Log {
    folder: PathBuf,
    /// Oldest first; the last is being written.
    segments: VecDeque<Segment>,
    file: File,
    live: FxHashMap<u64, Live>,
    /// Per queue, the last message that may have been delivered.
    delivered: FxHashMap<u64, u64>,
    /// Per queue and message, how often it came back, and until when it waits; only for those that did.
    counts: FxHashMap<(u64, u64), (u32, u64)>,
    last_message_id: u64,
    /// How many bytes more the disk takes.
    #[cfg(test)]
    pub(super) room: Option<usize>,
}

impl Log {
    pub(super) fn open(folder: &Path, recovered: &mut Recovered) -> Result<Self, StoreError> {
        fs::create_dir_all(folder).map_err(StoreError::io("make", folder))?;
        let schedules = recovered.exchanges.iter().map(|exchange| exchange.schedule);
        let queues = recovered.queues.iter().map(|queue| queue.id);
        let queues: FxHashSet<u64> =
            queues.chain(schedules.filter(|number| *number != 0)).collect();
        let mut scan = Scan { queues, ..Scan::default() };
        let paths = segment_paths(folder)?;
        let mut segments = VecDeque::new();
        for (index, (number, path)) in paths.iter().enumerate() {
            let last = index + 1 == paths.len();
            let bytes = scan.segment(*number, path, last, &mut recovered.damage)?;
            let path = path.clone();
            segments.push_back(Segment {
                number: *number,
                path,
                bytes,
                synced_bytes: bytes,
                live_records: 0,
                live_bytes: 0,
            });
        }
        let Scan { messages, delivered, counts, format, last_message_id, .. } = scan;
        let mut counts = counts;
        counts.retain(|(queue, id), _| {
            let message = messages.get(id);
            message.is_some_and(|(one, _)| one.queues.iter().any(|place| place.queue == *queue))
        });
        let mut live = FxHashMap::default();
        for (id, (message, place)) in &messages {
            let queues: Vec<u64> = message.queues.iter().map(|place| place.queue).collect();
            if let Some(segment) =
                segments.iter_mut().find(|segment| segment.number == place.segment)
            {
                segment.live_records += 1;
                segment.live_bytes += u64::from(place.record_bytes);
            }
            live.insert(*id, Live { queues, ..*place });
        }
        recovered.last_message_id = last_message_id;
        recovered.messages = messages
            .into_values()
            .map(|(mut message, _)| {
                for place in &mut message.queues {
                    let last = delivered.get(&place.queue);
                    place.redelivered = last.is_some_and(|last| message.id <= *last);
                    let count = counts.get(&(place.queue, message.id));
                    (place.delivery_count, place.due_ms) = count.copied().unwrap_or_default();
                }
                message
            })
            .collect();
        let file = match segments.back() {
            Some(segment) => OpenOptions::new()
                .append(true)
                .open(&segment.path)
                .map_err(StoreError::io("open", &segment.path))?,
            None => {
                let (segment, file) = create_segment(folder, 1, 0)
                    .map_err(StoreError::io("make a segment in", folder))?;
                segments.push_back(segment);
                file
            }
        };
        let mut log = Self {
            folder: folder.to_owned(),
            segments,
            file,
            live,
            delivered,
            counts,
            last_message_id,
            #[cfg(test)]
            room: None,
        };
        if format.is_some_and(|format| format < FORMAT) {
            // What an older server wrote stays as it is: nothing of a newer format goes into it.
            log.begin_segment().map_err(StoreError::io("make a segment in", folder))?;
        }
        Ok(log)
    }

    /// Writes encoded records, and takes note of what they say.
    pub(super) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.write(records)?;
        self.note(records);
        if self.segments.back().is_some_and(|segment| SEGMENT_BYTES <= segment.bytes) {
            self.begin_segment()?;
        }
        Ok(())
    }

    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if let Some(room) = &mut self.room {
            let fits = records.len().min(*room);
            *room -= fits;
            self.file.write_all(&records[..fits])?;
            if fits < records.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        } else {
            self.file.write_all(records)?;
        }
        #[cfg(not(test))]
        self.file.write_all(records)?;
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes += records.len() as u64;
        }
        Ok(())
    }

    /// Takes note of what records say that have just been written at the end.
    fn note(&mut self, records: &[u8]) {
        let Some(segment) = self.segments.back() else { return };
        let (number, mut offset) = (segment.number, segment.bytes - records.len() as u64);
        let mut rest = records;
        while let Decoded::Record(record, bytes) | Decoded::Grouped(record, bytes) =
            record::decode(rest)
        {
            match record {
                Record::Publish { message, queues, .. } => {
                    self.last_message_id = self.last_message_id.max(message);
                    let record_bytes = bytes as u32;
                    self.insert(message, Live { segment: number, offset, record_bytes, queues });
                }
                Record::Ack { queue, message } => self.remove(queue, message),
                Record::Delivered { queue, message } => {
                    let last = self.delivered.entry(queue).or_default();
                    *last = message.max(*last);
                }
                Record::Counted { queue, message, count, due_ms } => {
                    let live = self.live.get(&message);
                    if live.is_some_and(|live| live.queues.contains(&queue)) {
                        self.counts.insert((queue, message), (count, due_ms));
                    }
                }
                Record::End { .. } => {}
            }
            offset += bytes as u64;
            rest = &rest[bytes..];
        }
    }

    /// Waits until everything is on disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        if let Some(segment) = self.segments.back_mut() {
            segment.synced_bytes = segment.bytes;
        }
        Ok(())
    }

    /// Cuts off what no sync has confirmed, part of a record perhaps. Whoever calls appends it again.
    pub(super) fn cut_unsynced(&mut self) -> io::Result<()> {
        let Some(segment) = self.segments.back_mut() else { return Ok(()) };
        if self.file.metadata()?.len() != segment.synced_bytes {
            self.file.set_len(segment.synced_bytes)?;
        }
        segment.bytes = segment.synced_bytes;
        Ok(())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        // A segment that is not the last is whole: recovery relies on it.
        self.sync()?;
        let number = self.segments.back().map_or(1, |segment| segment.number + 1);
        let (segment, file) = create_segment(&self.folder, number, self.last_message_id)?;
        self.segments.push_back(segment);
        self.file = file;
        Ok(())
    }

    fn insert(&mut self, message: u64, live: Live) {
        if let Some(segment) = self.segments.iter_mut().rev().find(|one| one.number == live.segment)
        {
            segment.live_records += 1;
            segment.live_bytes += u64::from(live.record_bytes);
        }
        if let Some(before) = self.live.insert(message, live) {
            self.died(&before);
        }
    }

    fn remove(&mut self, queue: u64, message: u64) {
        let Some(live) = self.live.get_mut(&message) else { return };
        if !self.counts.is_empty() {
            self.counts.remove(&(queue, message));
        }
        live.queues.retain(|other| *other != queue);
        if live.queues.is_empty()
            && let Some(live) = self.live.remove(&message)
        {
            self.died(&live);
        }
    }

    fn died(&mut self, live: &Live) {
        if let Some(segment) = self.segments.iter_mut().find(|one| one.number == live.segment) {
            segment.live_records -= 1;
            segment.live_bytes -= u64::from(live.record_bytes);
        }
    }

    /// A queue has been deleted: it has no messages any more.
    pub(super) fn drop_queue(&mut self, queue: u64) {
        self.delivered.remove(&queue);
        let of_queue: Vec<u64> = self
            .live
            .iter()
            .filter(|(_, live)| live.queues.contains(&queue))
            .map(|(message, _)| *message)
            .collect();
        for message in of_queue {
            self.remove(queue, message);
        }
    }

    /// Removes what is dead at the old end.
    pub(super) fn compact(&mut self) -> io::Result<()> {
        while 1 < self.segments.len() {
            let Some(oldest) = self.segments.front() else { break };
            if 0 < oldest.live_records {
                if oldest.bytes < oldest.live_bytes * LIVE_PART_MIN {
                    break;
                }
                self.rewrite_oldest()?;
            }
            let Some(oldest) = self.segments.pop_front() else { break };
            fs::remove_file(&oldest.path)?;
        }
        Ok(())
    }

    /// Writes what is live in the oldest segment again at the end.
    fn rewrite_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.segments.front() else { return Ok(()) };
        let file = File::open(&oldest.path)?;
        let number = oldest.number;
        let mut survivors: Vec<u64> = self
            .live
            .iter()
            .filter(|(_, live)| live.segment == number)
            .map(|(id, _)| *id)
            .collect();
        survivors.sort_unstable();
        let mut records = Vec::new();
        let mut bytes = Vec::new();
        for id in survivors {
            let Some(live) = self.live.get(&id) else { continue };
            bytes.resize(live.record_bytes as usize, 0);
            file.read_exact_at(&mut bytes, live.offset)?;
            let decoded = record::decode(&bytes);
            let (Decoded::Record(publish, _) | Decoded::Grouped(publish, _)) = decoded else {
                return Err(unreadable(id, number));
            };
            let Record::Publish {
                message,
                expires_ms,
                published_ms,
                exchange,
                routing_key,
                properties,
                body,
                ..
            } = publish
            else {
                return Err(unreadable(id, number));
            };
            let queues = live.queues.clone();
            for queue in &queues {
                if let Some((count, due_ms)) = self.counts.get(&(*queue, message)).copied() {
                    let counted = Record::Counted { queue: *queue, message, count, due_ms };
                    record::encode(&mut records, &counted, false);
                }
                if let Some(last) = self.delivered.get(queue)
                    && message <= *last
                {
                    // Its old record goes with the old segment.
                    let delivered = Record::Delivered { queue: *queue, message: *last };
                    record::encode(&mut records, &delivered, false);
                }
            }
            record::encode(
                &mut records,
                &Record::Publish {
                    message,
                    expires_ms,
                    published_ms,
                    queues,
                    exchange,
                    routing_key,
                    properties,
                    body,
                },
                false,
            );
        }
        // Noted only when it is safe: until then the old place counts.
        self.write(&records)?;
        self.sync()?;
        self.note(&records);
        Ok(())
    }
}

fn unreadable(message: u64, segment: u64) -> io::Error {
    io::Error::other(format!("message {message} in segment {segment} is damaged"))
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

fn create_segment(folder: &Path, number: u64, last_message_id: u64) -> io::Result<(Segment, File)> {
    let path = folder.join(format!("{number:010}.seg"));
    // What an attempt that failed has left; segments that count have lower numbers.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().append(true).create_new(true).open(&path)?;
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[16..].copy_from_slice(&last_message_id.to_le_bytes());
    file.write_all(&header)?;
    file.sync_data()?;
    // The name of a new file is on disk only with its folder.
    File::open(folder)?.sync_all()?;
    let bytes = SEGMENT_HEADER_BYTES as u64;
    let synced_bytes = bytes;
    Ok((Segment { number, path, bytes, synced_bytes, live_records: 0, live_bytes: 0 }, file))
}

/// What reading all segments gathers.
#[derive(Default)]
struct Scan {
    queues: FxHashSet<u64>,
    /// By id, which is the order of publishing.
    messages: BTreeMap<u64, (RecoveredMessage, Live)>,
    delivered: FxHashMap<u64, u64>,
    counts: FxHashMap<(u64, u64), (u32, u64)>,
    last_message_id: u64,
    /// Of the last segment.
    format: Option<u32>,
}

impl Scan {
    /// Reads a segment; how many bytes of it are good. The end of the last one may be torn: it is cut off.
    fn segment(
        &mut self,
        number: u64,
        path: &Path,
        last: bool,
        damage: &mut Vec<String>,
    ) -> Result<u64, StoreError> {
        let bytes = fs::read(path).map_err(StoreError::io("read", path))?;
        if last && bytes.len() < SEGMENT_HEADER_BYTES {
            // The server died while it made the file.
            fs::remove_file(path).map_err(StoreError::io("remove", path))?;
            let folder = path.parent().unwrap_or(Path::new("."));
            create_segment(folder, number, self.last_message_id)
                .map_err(StoreError::io("make", path))?;
            return Ok(SEGMENT_HEADER_BYTES as u64);
        }
        self.segment_header(path, &bytes)?;
        let mut offset = SEGMENT_HEADER_BYTES;
        // Where the records end that are followed by damage only.
        let mut good = offset;
        // Records of a group whose end has not been read.
        let mut group: Vec<(Record<'_>, Live)> = Vec::new();
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
            let place = Live {
                segment: number,
                offset: offset as u64,
                record_bytes: size as u32,
                queues: Vec::new(),
            };
            offset += size;
            good = offset;
            if grouped {
                group.push((record, place));
            } else if let Record::End { count } = record {
                if last {
                    drop_torn(&mut group, count as usize, place.offset, path, damage);
                }
                group.drain(..).for_each(|(record, place)| self.record(record, place));
            } else {
                self.record(record, place);
            }
        }
        match group.first() {
            // Its end was not written: nothing of it counts.
            Some((_, place)) if last => good = place.offset as usize,
            // The end was written, for a segment that has a successor is whole, and is damaged now.
            _ => group.drain(..).for_each(|(record, place)| self.record(record, place)),
        }
        if good < bytes.len() {
            if last {
                damage.push(format!(
                    "{}: the last {} bytes were not written whole and are cut off",
                    path.display(),
                    bytes.len() - good
                ));
                let file = OpenOptions::new().write(true).open(path);
                file.and_then(|file| file.set_len(good as u64).and_then(|()| file.sync_data()))
                    .map_err(StoreError::io("cut the torn end of", path))?;
            } else {
                damage.push(damaged(path, good, bytes.len()));
                return Ok(bytes.len() as u64);
            }
        }
        Ok(good as u64)
    }

    fn segment_header(&mut self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        let foreign = || StoreError::Foreign { path: path.to_owned() };
        let header = bytes.first_chunk::<SEGMENT_HEADER_BYTES>().ok_or_else(foreign)?;
        if header[..8] != MAGIC {
            return Err(foreign());
        }
        let found = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        if !(FORMAT_MIN..=FORMAT).contains(&found) {
            return Err(StoreError::Format { path: path.to_owned(), found, known: FORMAT });
        }
        self.format = Some(found);
        let mut last = [0; 8];
        last.copy_from_slice(&header[16..]);
        self.last_message_id = self.last_message_id.max(u64::from_le_bytes(last));
        Ok(())
    }

    fn record(&mut self, record: Record<'_>, place: Live) {
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
                self.last_message_id = self.last_message_id.max(id);
                let queues: Vec<RecoveredPlace> = queues
                    .into_iter()
                    .filter(|queue| self.queues.contains(queue))
                    .map(RecoveredPlace::new)
                    .collect();
                if queues.is_empty() {
                    // A message that was written again stands for itself, not for its first record.
                    self.messages.remove(&id);
                    return;
                }
                let content = Content::new([properties, body].concat(), properties.len());
                let message = RecoveredMessage {
                    id,
                    expires_ms,
                    published_ms,
                    exchange: exchange.into(),
                    routing_key: routing_key.into(),
                    content,
                    queues,
                };
                self.messages.insert(id, (message, place));
            }
            Record::Ack { queue, message: id } => {
                self.counts.remove(&(queue, id));
                if let Some((message, _)) = self.messages.get_mut(&id) {
                    message.queues.retain(|place| place.queue != queue);
                    if message.queues.is_empty() {
                        self.messages.remove(&id);
                    }
                }
            }
            Record::Delivered { queue, message } => {
                self.last_message_id = self.last_message_id.max(message);
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
    group: &mut Vec<(Record<'_>, Live)>,
    count: usize,
    end: u64,
    path: &Path,
    damage: &mut Vec<String>,
) {
    let mut begins = end;
    let whole = group.iter().rev().take(count).take_while(|(_, place)| {
        let follows = place.offset + u64::from(place.record_bytes) == begins;
        begins = if follows { place.offset } else { begins };
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
