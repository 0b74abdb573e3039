//! Pages: entries of queues that have left memory until they are wanted.
//!
//! ```text
//!   unlinked file   | entry | entry | ... | gap to 4096 | entry | ...      one file for all queues
//!   entry: flags u8 | position v | delivery count v | priority u8 | expires u64 | then by the flags      v: a varint
//!     in the log:   place v | id v | offset v | bytes v | body bytes v
//!     whole:        id v | expires u64 | published u64 | exchange v, octets | key v, octets | properties v, octets | body v, octets
//!     apart:        the same, but: properties v; these and the body stand before the page, on their own
//! ```
//! What is as in most messages, or as in the entry before, is left out, and numbers are differences to the entry before.
//! Of a message that is in the log a page only says where; a body stands on disk once however many queues wait for it.
//! A page is the overflow of memory and no promise: the log has what is durable, and the system forgets the file
//! with the process. Transient messages are paged whole for that reason. Writing and reading go through the page
//! cache and block the hub for a copy, reading for the disk's answer if the cache has let go of it. The place of a
//! page that is no longer wanted is given back to the disk at once. Few entries are kept encoded in memory instead.

mod encoding;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::{cell::RefCell, mem};

use rustix::fs::{FallocateFlags, fallocate};

use super::reader::LogReader;
use super::record::{self, Decoded, Record};
use crate::message::{Content, Entry, Message, Spot, Stored};
use encoding::{APART_BYTES_MIN, Decoder, Encoder, Found};

const BLOCK_BYTES: u64 = 4096;
/// Then the next file is begun: a file's offsets are never used twice.
const FILE_BYTES: u64 = 1 << 40;
const NAME: &str = "pages.tmp";
/// The memory that is kept for writing the next page.
const BUFFER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// A page that is smaller stays in memory.
const INLINE_BYTES_MAX: usize = 512;

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

/// Octets in the file, which are given back to the disk with this.
struct Blob {
    file: Rc<File>,
    offset: u64,
    size: u32,
    crc: u32,
}

/// Entries in a row that have left memory.
pub(crate) struct Page {
    at: At,
    /// Large bodies.
    apart: Vec<Blob>,
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
    File(Blob),
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

    /// Whether an entry may be written now; else it is soon in the log, and need not be written twice.
    pub(crate) fn takes(&self, entry: &Entry) -> bool {
        let comes = entry.place != 0
            && entry.message.stored.is_some()
            && !entry.message.deduplicated
            && self.log.is_some();
        !comes || self.is_logged(entry)
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
        Encoder::new(out)
    }

    fn finish(&self, encoder: Encoder<'_>) -> Option<Page> {
        let Encoder { out, apart, count, bytes, first, last, .. } = encoder;
        let mut inner = self.inner.borrow_mut();
        let written = inner.write(&self.folder, &out, &apart);
        if out.capacity() <= BUFFER_BYTES_MAX {
            inner.buffer = out;
        }
        match written {
            Ok((at, apart)) => {
                inner.failing = false;
                let log = self.log.clone();
                Some(Page { at, apart, log, count, bytes, first, last: last.position })
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
    fn write(
        &mut self,
        folder: &Path,
        page: &[u8],
        apart: &[&[u8]],
    ) -> io::Result<(At, Vec<Blob>)> {
        let apart = apart.iter().map(|bytes| self.append(folder, bytes));
        let apart = apart.collect::<io::Result<Vec<_>>>()?;
        let at = if page.len() <= INLINE_BYTES_MAX {
            At::Memory(page.into())
        } else {
            At::File(self.append(folder, page)?)
        };
        Ok((at, apart))
    }

    fn append(&mut self, folder: &Path, bytes: &[u8]) -> io::Result<Blob> {
        let (file, end) = match &mut self.file {
            Some(open) if open.1 < FILE_BYTES => open,
            slot => slot.insert((Rc::new(unlinked(folder)?), 0)),
        };
        let offset = *end;
        file.write_all_at(bytes, offset)?;
        *end = (offset + bytes.len() as u64).next_multiple_of(BLOCK_BYTES);
        let (size, crc) = (bytes.len() as u32, crc32c::crc32c(bytes));
        Ok(Blob { file: file.clone(), offset, size, crc })
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
        self.decode(true, |found| match found {
            Found::Whole(entry) => entries.push_back(entry),
            Found::Logged(logged) => missing.push(logged),
        })?;
        if missing.is_empty() {
            return Ok(entries);
        }
        let Some(log) = &self.log else { return Err(io::Error::other("there is no log")) };
        let is_mixed = !entries.is_empty();
        let mut names = Names::default();
        let is_large = |logged: &Logged| APART_BYTES_MIN <= logged.spot.bytes as usize;
        for together in missing.chunk_by(|one, other| !is_large(one) && !is_large(other)) {
            if let [one] = together
                && is_large(one)
            {
                let message = large_message(log, one.message, one.spot);
                entries.extend(message.map(|message| one.entry(message)));
                continue;
            }
            let wanted: Vec<_> = together.iter().map(|one| (one.message, one.spot)).collect();
            let mut together = together.iter();
            log.read(&wanted, |record| {
                let (logged, names) = (together.next(), &mut names);
                let entry = record.zip(logged).and_then(|(record, logged)| {
                    Some(logged.entry(names.message(record, logged.message, logged.spot)?))
                });
                entries.extend(entry);
            });
        }
        if is_mixed {
            entries.make_contiguous().sort_unstable_by_key(|entry| entry.position);
        }
        Ok(entries)
    }

    /// The same. What cannot be read is missing, and the log says so.
    pub(crate) fn read_or_tell(&self) -> VecDeque<Entry> {
        self.read().unwrap_or_else(|error| {
            let count = self.count;
            tracing::error!(
                %error,
                "{count} messages that were paged out cannot be read; those that are durable come back with a restart"
            );
            VecDeque::new()
        })
    }

    /// The store's numbers of the entries that have one.
    pub(crate) fn places(&self) -> io::Result<Vec<u64>> {
        let mut places = Vec::with_capacity(self.count);
        self.decode(false, |found| {
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

    fn decode(&self, with_bodies: bool, mut take: impl FnMut(Found)) -> io::Result<()> {
        let buffer;
        let bytes = match &self.at {
            At::Memory(bytes) => &**bytes,
            At::File(blob) => {
                buffer = blob.read()?;
                &buffer
            }
        };
        let mut decoder = Decoder::new(bytes, with_bodies.then_some(&self.apart));
        for _ in 0..self.count {
            let found = decoder.entry();
            take(found.ok_or_else(|| io::Error::other("a page makes no sense"))?);
        }
        Ok(())
    }
}

impl Blob {
    fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.size as usize];
        self.file.read_exact_at(&mut bytes, self.offset)?;
        if crc32c::crc32c(&bytes) != self.crc {
            return Err(io::Error::other("the checksum of a page is wrong"));
        }
        Ok(bytes)
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        let size = u64::from(self.size).next_multiple_of(BLOCK_BYTES);
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // Where the file system cannot, the disk has it back with the file.
        let _ = fallocate(&*self.file, punch, self.offset, size);
    }
}

impl Logged {
    fn entry(&self, message: Rc<Message>) -> Entry {
        Entry {
            message,
            place: self.place,
            position: self.position,
            redelivered: self.redelivered,
            priority: self.priority,
            delivery_count: self.delivery_count,
            expires_ms: self.expires_ms,
        }
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
    if APART_BYTES_MIN <= spot.bytes as usize {
        return large_message(log, first, spot);
    }
    let (mut names, mut found) = (Names::default(), None);
    log.read(&[(first, spot)], |record| {
        found = record.and_then(|record| names.message(record, first, spot));
    });
    found
}

/// The same, for one that is too large to be copied: what is read becomes the message.
fn large_message(log: &LogReader, first: u64, spot: Spot) -> Option<Rc<Message>> {
    let bytes = log.take(first, spot)?;
    let (Decoded::Record(record, _) | Decoded::Grouped(record, _)) = record::decode(&bytes) else {
        return None;
    };
    let Record::Publish {
        expires_ms, published_ms, exchange, routing_key, properties, body, ..
    } = record
    else {
        return None;
    };
    // In a row.
    let begin = properties.as_ptr() as usize - bytes.as_ptr() as usize;
    let (end, properties_bytes) = (begin + properties.len() + body.len(), properties.len());
    let (exchange, routing_key) = (exchange.into(), routing_key.into());
    Some(Rc::new(Message {
        id: 0,
        exchange,
        routing_key,
        content: Content::within(bytes, begin..end, properties_bytes),
        expires_ms,
        published_ms,
        stored: Some(Stored { first, spot }),
        deduplicated: false,
    }))
}
