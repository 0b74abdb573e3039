//! Pages: entries of queues that have left memory until they are wanted.
//!
//! ```text
//!   unlinked file   | entry | entry | ... | gap to 4096 | entry | ...      one file for all queues
//!   entry: position u64 | id u64 | expires u64 | message expires u64 | deliveries u32 | priority u8 | flags u8 |
//!          if flagged so, published u64 | exchange, routing key, properties, body: size u32, octets each
//! ```
//! A page is the overflow of memory and no promise: the log has what is durable, and the system forgets the file
//! with the process. Transient messages are paged in the same way for that reason. Writing and reading go
//! through the page cache and block the hub for a copy, reading for the disk's answer if the cache has let go of
//! it. The place of a page that is no longer wanted is given back to the disk at once.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::{cell::RefCell, mem};

use rustix::fs::{FallocateFlags, fallocate};

use super::framing::Reader;
use crate::message::{Content, Entry, Message};

const BLOCK_BYTES: u64 = 4096;
/// Then the next file is begun: a file's offsets are never used twice.
const FILE_BYTES: u64 = 1 << 40;
const NAME: &str = "pages.tmp";
const REDELIVERED: u8 = 1;
const STORED: u8 = 2;
const DATED: u8 = 4;
const DEDUPLICATED: u8 = 8;

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
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    file: Option<(Rc<File>, u64)>,
    /// Reused.
    buffer: Vec<u8>,
    failing: bool,
}

/// Entries in a row that are on disk.
pub(crate) struct Page {
    file: Rc<File>,
    offset: u64,
    size: usize,
    crc: u32,
    /// How many they are.
    pub(crate) count: usize,
    /// Of their bodies.
    pub(crate) bytes: u64,
    /// The first position.
    pub(crate) first: u64,
    /// The last one.
    pub(crate) last: u64,
}

impl Pages {
    pub(crate) fn new(folder: &Path, window: Window) -> Self {
        Self { folder: folder.to_owned(), window, inner: RefCell::default() }
    }

    /// Writes entries, of which there is one at least, in the order of their positions. `None` when the disk
    /// refuses; that is logged once.
    pub(crate) fn write<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Option<Page> {
        let mut inner = self.inner.borrow_mut();
        let mut buffer = mem::take(&mut inner.buffer);
        buffer.clear();
        let (mut count, mut bytes, mut first, mut last) = (0, 0, u64::MAX, 0);
        for entry in entries {
            encode(&mut buffer, entry);
            count += 1;
            bytes += entry.message.content.body().len() as u64;
            first = first.min(entry.position);
            last = last.max(entry.position);
        }
        let written = inner.append(&self.folder, &buffer);
        let (size, crc) = (buffer.len(), crc32c::crc32c(&buffer));
        inner.buffer = buffer;
        match written {
            Ok((file, offset)) => {
                inner.failing = false;
                Some(Page { file, offset, size, crc, count, bytes, first, last })
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
    /// Reads the entries, in the order of their positions.
    ///
    /// # Errors
    /// When the disk refuses, or gives something else than was written.
    pub(crate) fn read(&self) -> io::Result<VecDeque<Entry>> {
        let mut bytes = vec![0; self.size];
        self.file.read_exact_at(&mut bytes, self.offset)?;
        if crc32c::crc32c(&bytes) != self.crc {
            return Err(io::Error::other("the checksum of a page is wrong"));
        }
        let mut reader = Reader(&bytes);
        let mut exchange: Rc<str> = Rc::from("");
        let mut entries = VecDeque::with_capacity(self.count);
        for _ in 0..self.count {
            let entry = decode(&mut reader, &mut exchange);
            entries.push_back(entry.ok_or_else(|| io::Error::other("a page is too short"))?);
        }
        Ok(entries)
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let size = (self.size as u64).next_multiple_of(BLOCK_BYTES);
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // Where the file system cannot, the disk has it back with the file.
        let _ = fallocate(&self.file, punch, self.offset, size);
    }
}

fn encode(out: &mut Vec<u8>, entry: &Entry) {
    let message = &entry.message;
    for number in [entry.position, message.id, entry.expires_ms, message.expires_ms] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&entry.delivery_count.to_le_bytes());
    out.push(entry.priority);
    let redelivered = if entry.redelivered { REDELIVERED } else { 0 };
    let stored = if message.stored { STORED } else { 0 };
    let dated = if message.published_ms == 0 { 0 } else { DATED };
    let deduplicated = if message.deduplicated { DEDUPLICATED } else { 0 };
    out.push(redelivered | stored | dated | deduplicated);
    if dated != 0 {
        out.extend_from_slice(&message.published_ms.to_le_bytes());
    }
    let (exchange, key) = (message.exchange.as_bytes(), message.routing_key.as_bytes());
    for part in [exchange, key, message.content.properties(), message.content.body()] {
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
        out.extend_from_slice(part);
    }
}

/// `exchange` is that of the entry before: neighbours mostly share it.
fn decode(reader: &mut Reader<'_>, exchange: &mut Rc<str>) -> Option<Entry> {
    let (position, id) = (reader.u64()?, reader.u64()?);
    let (expires_ms, message_expires_ms) = (reader.u64()?, reader.u64()?);
    let (delivery_count, priority, flags) = (reader.u32()?, reader.u8()?, reader.u8()?);
    let published_ms = if flags & DATED == 0 { 0 } else { reader.u64()? };
    let mut part = || {
        let size = reader.u32()?;
        reader.take(size as usize)
    };
    let (name, key) = (std::str::from_utf8(part()?).ok()?, std::str::from_utf8(part()?).ok()?);
    let (properties, body) = (part()?, part()?);
    if **exchange != *name {
        *exchange = name.into();
    }
    let message = Rc::new(Message {
        id,
        exchange: exchange.clone(),
        routing_key: key.into(),
        content: Content::new([properties, body].concat(), properties.len()),
        expires_ms: message_expires_ms,
        published_ms,
        stored: flags & STORED != 0,
        deduplicated: flags & DEDUPLICATED != 0,
    });
    let redelivered = flags & REDELIVERED != 0;
    Some(Entry { message, position, redelivered, priority, delivery_count, expires_ms })
}
