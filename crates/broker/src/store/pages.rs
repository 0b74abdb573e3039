//! Pages: entries of queues that have left memory until they are wanted.
//!
//! ```text
//!   unlinked file   | entry | entry | ... | gap to 4096 | entry | ...      one file for all queues
//!   entry: flags u8 | position v | delivery count v | priority u8 | expires u64 | then by the flags      v: a varint
//!     in the log:   place v | id v | offset v | bytes v | body bytes v
//!     whole:        id v | expires u64 | published u64 | exchange v, octets | key v, octets | properties v, octets | body v, octets
//! ```
//! What is as in most messages, or as in the entry before, is left out, and numbers are differences to the entry before.
//! Of a message that is in the log a page only says where; a body stands on disk once however many queues wait for it.
//! A page is the overflow of memory and no promise: the log has what is durable, and the system forgets the file
//! with the process. Transient messages are paged whole for that reason. Writing and reading go through the page
//! cache and block the hub for a copy, reading for the disk's answer if the cache has let go of it. The place of a
//! page that is no longer wanted is given back to the disk at once. Few entries are kept encoded in memory instead.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::{cell::RefCell, mem};

use compact_str::CompactString;
use rustix::fs::{FallocateFlags, fallocate};

use super::framing::{Reader, put_signed, put_varint};
use super::reader::LogReader;
use super::record::Record;
use crate::message::{Content, Entry, Message, Spot, Stored};

const BLOCK_BYTES: u64 = 4096;
/// Then the next file is begun: a file's offsets are never used twice.
const FILE_BYTES: u64 = 1 << 40;
const NAME: &str = "pages.tmp";
/// A page that is smaller stays in memory.
const INLINE_BYTES_MAX: usize = 512;

/// The flags of an entry.
mod flag {
    pub(super) const REDELIVERED: u8 = 1;
    /// In the log. Else it is whole.
    pub(super) const LOGGED: u8 = 2;
    /// It came back, has a priority, or expires: what else there is is written.
    pub(super) const SPECIAL: u8 = 4;
    /// Of a whole one: exchange, key and properties are those of the entry before, which was whole too.
    pub(super) const ALIKE: u8 = 8;
    /// Of a whole one: it expires by itself, or when it came in counts.
    pub(super) const TIMED: u8 = 16;
    /// Of a whole one: it is in the log besides.
    pub(super) const STORED: u8 = 32;
    /// Of a whole one: some queue knows it by a value.
    pub(super) const DEDUPLICATED: u8 = 64;
}

/// When entries leave memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// Entries that a list may hold before it is paged.
    pub(crate) entries: usize,
    /// Bytes of bodies, the same.
    pub(crate) bytes: u64,
    /// Entries in a page.
    pub(crate) page_entries: usize,
    /// A page is full with so many bytes of bodies, too.
    pub(crate) page_bytes: u64,
}

impl Window {
    pub(crate) const DEFAULT: Self = Self {
        entries: 16 * 1024,
        bytes: 16 * 1024 * 1024,
        page_entries: 1024,
        page_bytes: 1024 * 1024,
    };
}

/// Where pages are written.
pub(crate) struct Pages {
    folder: PathBuf,
    pub(crate) window: Window,
    /// Where stored messages are; `None`: none is.
    log: Option<Rc<LogReader>>,
    inner: RefCell<Inner>,
}

/// An entry whose message is in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Logged {
    pub(crate) position: u64,
    pub(crate) place: u64,
    pub(crate) message: u64,
    pub(crate) spot: Spot,
    pub(crate) body_bytes: u32,
    pub(crate) redelivered: bool,
    pub(crate) priority: u8,
    pub(crate) delivery_count: u32,
    pub(crate) expires_ms: u64,
}

#[derive(Default)]
struct Inner {
    file: Option<(Rc<File>, u64)>,
    /// Reused.
    buffer: Vec<u8>,
    failing: bool,
}

/// Entries in a row that have left memory.
pub(crate) struct Page {
    at: At,
    log: Option<Rc<LogReader>>,
    /// How many they are.
    pub(crate) count: usize,
    /// Of their bodies.
    pub(crate) bytes: u64,
    /// The first position.
    pub(crate) first: u64,
    /// The last one.
    pub(crate) last: u64,
}

enum At {
    File { file: Rc<File>, offset: u64, size: u32, crc: u32 },
    Memory(Box<[u8]>),
}

impl Pages {
    pub(crate) fn new(folder: &Path, window: Window) -> Self {
        Self { folder: folder.to_owned(), window, log: None, inner: RefCell::default() }
    }

    /// Lets what is stored be read back from the log.
    pub(crate) fn log_from(self, log: Rc<LogReader>) -> Self {
        Self { log: Some(log), ..self }
    }

    /// Whether a stored message is on disk, where it can be read from.
    pub(crate) fn is_logged(&self, entry: &Entry) -> bool {
        logged(entry, self.log.as_deref()).is_some()
    }

    /// Writes entries, of which there is one at least, in the order of their positions. `None` when the disk
    /// refuses; that is logged once.
    pub(crate) fn write<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Option<Page> {
        let mut encoder = self.encoder();
        for entry in entries {
            match logged(entry, self.log.as_deref()) {
                Some(entry) => encoder.logged(&entry),
                None => encoder.whole(entry),
            }
        }
        self.finish(encoder)
    }

    /// The same, for entries that are not in memory.
    pub(crate) fn write_logged(&self, entries: &[Logged]) -> Option<Page> {
        let mut encoder = self.encoder();
        entries.iter().for_each(|entry| encoder.logged(entry));
        self.finish(encoder)
    }

    fn encoder<'a>(&self) -> Encoder<'a> {
        let mut out = mem::take(&mut self.inner.borrow_mut().buffer);
        out.clear();
        Encoder { out, last: Last::default(), alike: None, count: 0, bytes: 0, first: 0 }
    }

    fn finish(&self, encoder: Encoder<'_>) -> Option<Page> {
        let Encoder { out, count, bytes, first, last, .. } = encoder;
        let mut inner = self.inner.borrow_mut();
        let at = if out.len() <= INLINE_BYTES_MAX {
            Ok(At::Memory(out.as_slice().into()))
        } else {
            let (size, crc) = (out.len() as u32, crc32c::crc32c(&out));
            let written = inner.append(&self.folder, &out);
            written.map(|(file, offset)| At::File { file, offset, size, crc })
        };
        inner.buffer = out;
        match at {
            Ok(at) => {
                inner.failing = false;
                let log = self.log.clone();
                Some(Page { at, log, count, bytes, first, last: last.position })
            }
            Err(error) => {
                if !mem::replace(&mut inner.failing, true) {
                    let folder = self.folder.display();
                    tracing::error!(%error, "cannot page messages out to {folder}: they stay in memory");
                }
                None
            }
        }
    }
}

/// What a page says of an entry that can be read from the log.
fn logged(entry: &Entry, log: Option<&LogReader>) -> Option<Logged> {
    let (message, Stored { first, spot }) = (&entry.message, entry.message.stored?);
    // A queue that knows it by a value tells it by its number in this process, too.
    let is_there =
        entry.place != 0 && !message.deduplicated && log.is_some_and(|log| log.has(first, spot));
    is_there.then(|| Logged {
        position: entry.position,
        place: entry.place,
        message: first,
        spot,
        body_bytes: message.content.body().len() as u32,
        redelivered: entry.redelivered,
        priority: entry.priority,
        delivery_count: entry.delivery_count,
        expires_ms: entry.expires_ms,
    })
}

impl Inner {
    fn append(&mut self, folder: &Path, bytes: &[u8]) -> io::Result<(Rc<File>, u64)> {
        let (file, end) = match &mut self.file {
            Some(open) if open.1 < FILE_BYTES => open,
            slot => slot.insert((Rc::new(unlinked(folder)?), 0)),
        };
        let offset = *end;
        file.write_all_at(bytes, offset)?;
        *end = (offset + bytes.len() as u64).next_multiple_of(BLOCK_BYTES);
        Ok((file.clone(), offset))
    }
}

fn unlinked(folder: &Path) -> io::Result<File> {
    let path = folder.join(NAME);
    // One that a server left which died right here; the folder is locked.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

impl Page {
    /// Reads the entries, in the order of their positions; those that the log has lost are missing.
    ///
    /// # Errors
    /// When the disk refuses, or gives something else than was written.
    pub(crate) fn read(&self) -> io::Result<VecDeque<Entry>> {
        let mut entries = VecDeque::with_capacity(self.count);
        let mut missing: Vec<Logged> = Vec::new();
        self.decode(|found| match found {
            Found::Whole(entry) => entries.push_back(entry),
            Found::Logged(logged) => missing.push(logged),
        })?;
        if missing.is_empty() {
            return Ok(entries);
        }
        let Some(log) = &self.log else { return Err(io::Error::other("there is no log")) };
        let is_mixed = !entries.is_empty();
        let wanted: Vec<_> = missing.iter().map(|logged| (logged.message, logged.spot)).collect();
        let (mut names, mut missing) = (Names::default(), missing.iter());
        log.read(&wanted, |record| {
            let logged = missing.next();
            let entry = record.zip(logged).and_then(|(record, logged)| names.entry(record, logged));
            entries.extend(entry);
        });
        if is_mixed {
            entries.make_contiguous().sort_unstable_by_key(|entry| entry.position);
        }
        Ok(entries)
    }

    /// The store's numbers of the entries that have one.
    pub(crate) fn places(&self) -> io::Result<Vec<u64>> {
        let mut places = Vec::with_capacity(self.count);
        self.decode(|found| {
            let place = match found {
                Found::Whole(entry) => entry.place,
                Found::Logged(logged) => logged.place,
            };
            if place != 0 {
                places.push(place);
            }
        })?;
        Ok(places)
    }

    fn decode(&self, mut take: impl FnMut(Found)) -> io::Result<()> {
        let mut buffer = Vec::new();
        let bytes = match &self.at {
            At::Memory(bytes) => &**bytes,
            At::File { file, offset, size, crc } => {
                buffer.resize(*size as usize, 0);
                file.read_exact_at(&mut buffer, *offset)?;
                if crc32c::crc32c(&buffer) != *crc {
                    return Err(io::Error::other("the checksum of a page is wrong"));
                }
                &buffer
            }
        };
        let mut decoder = Decoder { reader: Reader(bytes), last: Last::default(), alike: None };
        for _ in 0..self.count {
            let found = decoder.entry();
            take(found.ok_or_else(|| io::Error::other("a page makes no sense"))?);
        }
        Ok(())
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let At::File { file, offset, size, .. } = &self.at else { return };
        let size = u64::from(*size).next_multiple_of(BLOCK_BYTES);
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // Where the file system cannot, the disk has it back with the file.
        let _ = fallocate(file, punch, *offset, size);
    }
}

/// Exchanges and keys of messages that were read: neighbours mostly share them.
#[derive(Default)]
struct Names {
    exchange: Option<Rc<str>>,
    last: Option<Rc<Message>>,
}

impl Names {
    fn exchange(&mut self, name: &str) -> Rc<str> {
        match &self.exchange {
            Some(exchange) if **exchange == *name => exchange.clone(),
            _ => self.exchange.insert(name.into()).clone(),
        }
    }

    fn entry(&mut self, record: Record<'_>, logged: &Logged) -> Option<Entry> {
        let message = self.message(record, logged.message, logged.spot)?;
        Some(Entry {
            message,
            place: logged.place,
            position: logged.position,
            redelivered: logged.redelivered,
            priority: logged.priority,
            delivery_count: logged.delivery_count,
            expires_ms: logged.expires_ms,
        })
    }

    fn message(&mut self, record: Record<'_>, first: u64, spot: Spot) -> Option<Rc<Message>> {
        let stored = Some(Stored { first, spot });
        if let Some(last) = self.last.as_ref().filter(|last| last.stored == stored) {
            return Some(last.clone());
        }
        let Record::Publish {
            expires_ms,
            published_ms,
            exchange,
            routing_key,
            properties,
            body,
            ..
        } = record
        else {
            return None;
        };
        let message = Rc::new(Message {
            id: 0,
            exchange: self.exchange(exchange),
            routing_key: routing_key.into(),
            content: Content::new([properties, body].concat(), properties.len()),
            expires_ms,
            published_ms,
            stored,
            deduplicated: false,
        });
        Some(self.last.insert(message).clone())
    }
}

/// Reads a message that is in the log.
pub(crate) fn message(log: &LogReader, first: u64, spot: Spot) -> Option<Rc<Message>> {
    let (mut names, mut found) = (Names::default(), None);
    log.read(&[(first, spot)], |record| {
        found = record.and_then(|record| names.message(record, first, spot));
    });
    found
}

/// Numbers of the entry before.
#[derive(Clone, Copy, Default)]
struct Last {
    position: u64,
    place: u64,
    /// Where the record before ends.
    offset: u64,
    /// Of the message before that was whole.
    id: u64,
}

struct Encoder<'a> {
    out: Vec<u8>,
    last: Last,
    /// The message of the entry before, if it was whole.
    alike: Option<&'a Message>,
    count: usize,
    bytes: u64,
    first: u64,
}

impl<'a> Encoder<'a> {
    fn begin(&mut self, position: u64, flags: u8, special: (u32, u8, u64), body_bytes: u64) {
        let (delivery_count, priority, expires_ms) = special;
        let is_special = special != (0, 0, u64::MAX);
        self.out.push(flags | if is_special { flag::SPECIAL } else { 0 });
        // Not always more: what waits for a time is in the order of times.
        put_signed(&mut self.out, position.wrapping_sub(self.last.position).cast_signed());
        if is_special {
            put_varint(&mut self.out, delivery_count.into());
            self.out.push(priority);
            self.out.extend_from_slice(&expires_ms.to_le_bytes());
        }
        if self.count == 0 {
            self.first = position;
        }
        self.count += 1;
        self.bytes += body_bytes;
        self.last.position = position;
    }

    fn logged(&mut self, entry: &Logged) {
        let special = (entry.delivery_count, entry.priority, entry.expires_ms);
        let redelivered = if entry.redelivered { flag::REDELIVERED } else { 0 };
        self.begin(entry.position, flag::LOGGED | redelivered, special, entry.body_bytes.into());
        let (out, last) = (&mut self.out, &mut self.last);
        put_signed(out, entry.place.wrapping_sub(last.place).cast_signed());
        put_varint(out, entry.place - entry.message);
        put_signed(out, entry.spot.offset.wrapping_sub(last.offset).cast_signed());
        put_varint(out, entry.spot.bytes.into());
        put_varint(out, entry.body_bytes.into());
        (last.place, last.offset) = (entry.place, entry.spot.offset + u64::from(entry.spot.bytes));
    }

    fn whole(&mut self, entry: &'a Entry) {
        let message = &*entry.message;
        let properties = message.content.properties();
        let is_alike = self.alike.is_some_and(|other| {
            *other.exchange == *message.exchange
                && other.routing_key == message.routing_key
                && other.content.properties() == properties
        });
        let is_timed = message.expires_ms != u64::MAX || message.published_ms != 0;
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        let flags = flag(entry.redelivered, flag::REDELIVERED)
            | flag(is_alike, flag::ALIKE)
            | flag(is_timed, flag::TIMED)
            | flag(message.stored.is_some(), flag::STORED)
            | flag(message.deduplicated, flag::DEDUPLICATED);
        let special = (entry.delivery_count, entry.priority, entry.expires_ms);
        let body = message.content.body();
        self.begin(entry.position, flags, special, body.len() as u64);
        let out = &mut self.out;
        if is_timed {
            out.extend_from_slice(&message.expires_ms.to_le_bytes());
            out.extend_from_slice(&message.published_ms.to_le_bytes());
        }
        put_signed(out, message.id.wrapping_sub(self.last.id).cast_signed());
        self.last.id = message.id;
        if let Some(Stored { first, spot }) = message.stored {
            for number in [entry.place, first, spot.offset, spot.bytes.into()] {
                put_varint(out, number);
            }
        }
        let mut put = |part: &[u8]| {
            put_varint(out, part.len() as u64);
            out.extend_from_slice(part);
        };
        if !is_alike {
            put(message.exchange.as_bytes());
            put(message.routing_key.as_bytes());
            put(properties);
        }
        put(body);
        self.alike = Some(message);
    }
}

/// What stands in a page.
enum Found {
    Whole(Entry),
    Logged(Logged),
}

struct Decoder<'a> {
    reader: Reader<'a>,
    last: Last,
    /// Exchange, key and properties of the whole entry before.
    alike: Option<(Rc<str>, CompactString, &'a [u8])>,
}

impl Decoder<'_> {
    fn entry(&mut self) -> Option<Found> {
        let flags = self.reader.u8()?;
        let more = self.reader.signed()?.cast_unsigned();
        self.last.position = self.last.position.wrapping_add(more);
        let (delivery_count, priority, expires_ms) = if flags & flag::SPECIAL != 0 {
            let count = self.reader.varint()?.try_into().ok()?;
            (count, self.reader.u8()?, self.reader.u64()?)
        } else {
            (0, 0, u64::MAX)
        };
        let (position, redelivered) = (self.last.position, flags & flag::REDELIVERED != 0);
        if flags & flag::LOGGED != 0 {
            let (reader, last) = (&mut self.reader, &mut self.last);
            let place = last.place.wrapping_add(reader.signed()?.cast_unsigned());
            let message = place.checked_sub(reader.varint()?)?;
            let offset = last.offset.wrapping_add(reader.signed()?.cast_unsigned());
            let spot = Spot { offset, bytes: reader.varint()?.try_into().ok()? };
            let body_bytes = reader.varint()?.try_into().ok()?;
            (last.place, last.offset) = (place, offset.checked_add(spot.bytes.into())?);
            return Some(Found::Logged(Logged {
                position,
                place,
                message,
                spot,
                body_bytes,
                redelivered,
                priority,
                delivery_count,
                expires_ms,
            }));
        }
        let (place, message) = self.message(flags)?;
        Some(Found::Whole(Entry {
            message,
            place,
            position,
            redelivered,
            priority,
            delivery_count,
            expires_ms,
        }))
    }

    fn message(&mut self, flags: u8) -> Option<(u64, Rc<Message>)> {
        let reader = &mut self.reader;
        let (expires_ms, published_ms) =
            if flags & flag::TIMED != 0 { (reader.u64()?, reader.u64()?) } else { (u64::MAX, 0) };
        let deduplicated = flags & flag::DEDUPLICATED != 0;
        let id = self.last.id.wrapping_add(reader.signed()?.cast_unsigned());
        self.last.id = id;
        let (mut place, mut stored) = (0, None);
        if flags & flag::STORED != 0 {
            place = reader.varint()?;
            let (first, offset) = (reader.varint()?, reader.varint()?);
            let bytes = reader.varint()?.try_into().ok()?;
            stored = Some(Stored { first, spot: Spot { offset, bytes } });
        }
        if flags & flag::ALIKE == 0 {
            let exchange = std::str::from_utf8(part(reader)?).ok()?;
            let key = std::str::from_utf8(part(reader)?).ok()?;
            let exchange = match &self.alike {
                Some((other, ..)) if **other == *exchange => other.clone(),
                _ => exchange.into(),
            };
            self.alike = Some((exchange, key.into(), part(reader)?));
        }
        let (exchange, routing_key, properties) = self.alike.clone()?;
        let body = part(reader)?;
        let content = Content::new([properties, body].concat(), properties.len());
        let message = Message {
            id,
            exchange,
            routing_key,
            content,
            expires_ms,
            published_ms,
            stored,
            deduplicated,
        };
        Some((place, Rc::new(message)))
    }
}

fn part<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let size = reader.varint()?.try_into().ok()?;
    reader.take(size)
}
