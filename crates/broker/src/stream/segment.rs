//! A segment: a file of records, and beside it the file that is its index.
//!
//! ```text
//!   00000000000000000000.seg   | header 32 octets | record | record | ...
//!   00000000000000000000.idx   | header 32 octets | entry | entry | ...
//!
//! header: magic, 8 octets | format u32 | filter octets u32 | stream u64 | first offset u64
//! ```
//! The index can always be made again from the records; it is not synced before its segment is full.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::index::{self, Block};
use super::record::{Record, Step, walk};
use crate::store::{Damage, StoreError, framing};

pub(super) const HEADER_BYTES: usize = 32;
const DATA_MAGIC: [u8; 8] = *b"WRNSTRM\0";
const INDEX_MAGIC: [u8; 8] = *b"WRNSIDX\0";
const FORMAT: u32 = 1;
/// A block is full when it has grown to this: what a reader reads at once.
pub(super) const BLOCK_BYTES: u32 = 64 * 1024;
/// What is read at once to make an index again.
const WINDOW_BYTES: u64 = 1024 * 1024;

/// What is known of a segment without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// The offset it was begun for, which its files are named after.
    pub(super) first: u64,
    /// The offset after its last record.
    pub(super) next: u64,
    /// When its last record came; 0 without records.
    pub(super) last_ms: u64,
    /// Of the file with the records.
    pub(super) bytes: u64,
    /// Entries in its index.
    pub(super) entries: u64,
}

impl Summary {
    pub(super) fn new(first: u64) -> Self {
        Self { first, next: first, last_ms: 0, bytes: HEADER_BYTES as u64, entries: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes <= HEADER_BYTES as u64
    }
}

/// How many of the oldest segments are to go; the last one never is.
pub(super) fn count_surplus(
    segments: impl ExactSizeIterator<Item = Summary> + Clone,
    bytes_max: Option<u64>,
    born_ms_min: u64,
) -> usize {
    let mut bytes: u64 = segments.clone().map(|segment| segment.bytes).sum();
    let last = segments.len().saturating_sub(1);
    segments
        .take(last)
        .take_while(|segment| {
            let surplus = bytes_max.is_some_and(|max| max < bytes) || segment.last_ms < born_ms_min;
            bytes -= segment.bytes;
            surplus
        })
        .count()
}

/// Both files, open to be written at their ends.
pub(super) struct Files {
    pub(super) data: File,
    pub(super) index: File,
}

pub(super) fn data_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.seg"))
}

pub(super) fn index_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.idx"))
}

/// The first offsets of the segments in a folder, in order.
pub(super) fn list(folder: &Path) -> io::Result<Vec<u64>> {
    let mut firsts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let first: Option<u64> =
            name.to_str().and_then(|name| name.strip_suffix(".seg")?.parse().ok());
        firsts.extend(first);
    }
    firsts.sort_unstable();
    Ok(firsts)
}

/// Makes a segment without records. Its names are on disk then.
pub(super) fn create(
    folder: &Path,
    stream: u64,
    first: u64,
    filter_bytes: usize,
) -> io::Result<Files> {
    let make = |path: &Path, magic| {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.set_len(0)?;
        file.write_all(&header(magic, stream, first, filter_bytes))?;
        file.sync_data().map(|()| file)
    };
    let index = make(&index_path(folder, first), INDEX_MAGIC)?;
    let data = make(&data_path(folder, first), DATA_MAGIC)?;
    File::open(folder)?.sync_all()?;
    Ok(Files { data, index })
}

/// Opens the files of a segment to be written on.
pub(super) fn reopen(folder: &Path, first: u64) -> io::Result<Files> {
    let open = |path: &Path| OpenOptions::new().append(true).open(path);
    Ok(Files { data: open(&data_path(folder, first))?, index: open(&index_path(folder, first))? })
}

pub(super) fn remove(folder: &Path, first: u64) -> io::Result<()> {
    // The index first: without its segment nobody would look for it.
    for path in [index_path(folder, first), data_path(folder, first)] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The start of an index without entries.
pub(super) fn index_header(stream: u64, first: u64, filter_bytes: usize) -> [u8; HEADER_BYTES] {
    header(INDEX_MAGIC, stream, first, filter_bytes)
}

fn header(magic: [u8; 8], stream: u64, first: u64, filter_bytes: usize) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&magic);
    header[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    header[12..16].copy_from_slice(&(filter_bytes as u32).to_le_bytes());
    header[16..24].copy_from_slice(&stream.to_le_bytes());
    header[24..].copy_from_slice(&first.to_le_bytes());
    header
}

/// A file of records, to be read.
pub(super) struct Data {
    pub(super) file: File,
    pub(super) bytes: u64,
    path: PathBuf,
}

impl Data {
    /// `None`: the server died while it made the file.
    ///
    /// # Errors
    /// When it cannot be read, is none of ours, or of a format that is not known.
    pub(super) fn open(folder: &Path, first: u64) -> Result<Option<Self>, StoreError> {
        let path = data_path(folder, first);
        let failed = || StoreError::io("read", &path);
        let file = File::open(&path).map_err(failed())?;
        let bytes = file.metadata().map_err(failed())?.len();
        if bytes < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let mut found = [0; HEADER_BYTES];
        file.read_exact_at(&mut found, 0).map_err(failed())?;
        if found[..8] != DATA_MAGIC || found[24..] != first.to_le_bytes() {
            return Err(StoreError::Foreign { path });
        }
        let format = u32::from_le_bytes([found[8], found[9], found[10], found[11]]);
        if format != FORMAT {
            return Err(StoreError::Format { path, found: format, known: FORMAT });
        }
        Ok(Some(Self { file, bytes, path }))
    }

    /// Walks over the records from a position on, and gathers them in blocks. Where they end.
    pub(super) fn scan(
        &self,
        blocks: &mut Blocks,
        until: u64,
        damage: &mut Vec<Damage>,
    ) -> io::Result<u64> {
        self.scan_with(blocks, until, damage, &mut |_, _, _| ())
    }

    /// The same; `take` sees each record, with where it stands and how long it is.
    pub(super) fn scan_with(
        &self,
        blocks: &mut Blocks,
        until: u64,
        damage: &mut Vec<Damage>,
        take: &mut dyn FnMut(&Record<'_>, u64, usize),
    ) -> io::Result<u64> {
        let (mut position, mut window) = (blocks.open.end(), Vec::new());
        // Where the records end that are followed by damage only.
        let mut good = position;
        let mut wanted = WINDOW_BYTES;
        loop {
            window.resize(wanted.min(until - position) as usize, 0);
            self.file.read_exact_at(&mut window, position)?;
            let mut steps = walk(&window, blocks.open.next);
            for step in &mut steps {
                let Step::Record(record, at, bytes) = step else { continue };
                let at = position + at as u64;
                if good < at {
                    damage.push(damaged(&self.path, good, at));
                    blocks.open.push_damage((at - good) as usize);
                }
                good = at + bytes as u64;
                take(&record, at, bytes);
                blocks.push(record.offset, record.time_ms, bytes, record.filter_value());
            }
            let walked = steps.position() as u64;
            if walked == 0 && until <= position + window.len() as u64 {
                return Ok(good);
            }
            position = (position + walked).min(until);
            // A record that is longer than the window says how long it is.
            wanted = match window.get(walked as usize..).and_then(|rest| rest.first_chunk::<4>()) {
                Some(size) => {
                    let size = u32::from_le_bytes(*size) as usize;
                    if framing::PAYLOAD_BYTES_MAX < size {
                        return Ok(good);
                    }
                    WINDOW_BYTES.max((framing::HEADER_BYTES + size) as u64)
                }
                None => WINDOW_BYTES,
            };
            if until <= position {
                return Ok(good);
            }
        }
    }
}

/// Records gathered in blocks.
pub(super) struct Blocks {
    /// The one that is not full.
    pub(super) open: Block,
    /// Full ones, not yet in the index.
    pub(super) full: Vec<Block>,
    filter_bytes: usize,
}

impl Blocks {
    pub(super) fn new(position: u64, next: u64, filter_bytes: usize) -> Self {
        Self { open: Block::new(position, next, filter_bytes), full: Vec::new(), filter_bytes }
    }

    pub(super) fn push(&mut self, offset: u64, time_ms: u64, bytes: usize, value: Option<&[u8]>) {
        if BLOCK_BYTES <= self.open.bytes {
            self.close();
        }
        self.open.push(offset, time_ms, bytes, value);
    }

    /// Begins a new block, if there is something in the open one.
    pub(super) fn close(&mut self) {
        if !self.open.is_empty() {
            let next = Block::new(self.open.end(), self.open.next, self.filter_bytes);
            self.full.push(std::mem::replace(&mut self.open, next));
        }
    }
}

/// The index of a segment, to be read. Entries are read as they are asked for.
pub(super) struct Index {
    file: File,
    pub(super) filter_bytes: usize,
    pub(super) entries: u64,
}

impl Index {
    /// `None`: there is none, or none that can be used.
    pub(super) fn open(folder: &Path, first: u64) -> io::Result<Option<Self>> {
        let file = match File::open(index_path(folder, first)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = file.metadata()?.len();
        let mut found = [0; HEADER_BYTES];
        if bytes < HEADER_BYTES as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut found, 0)?;
        let filter_bytes = u32::from_le_bytes([found[12], found[13], found[14], found[15]]);
        if found[..8] != INDEX_MAGIC
            || found[8..12] != FORMAT.to_le_bytes()
            || found[24..] != first.to_le_bytes()
            || filter_bytes == 0
            || index::FILTER_BYTES_MAX < filter_bytes as usize
        {
            return Ok(None);
        }
        let filter_bytes = filter_bytes as usize;
        let entries = (bytes - HEADER_BYTES as u64) / index::entry_bytes(filter_bytes) as u64;
        Ok(Some(Self { file, filter_bytes, entries }))
    }

    /// One entry. `None` when it is damaged.
    pub(super) fn entry(&self, number: u64) -> io::Result<Option<Block>> {
        Ok(self.read(number, 1)?.pop().flatten())
    }

    /// Entries in a row; `None` for those that are damaged.
    pub(super) fn read(&self, number: u64, count: u64) -> io::Result<Vec<Option<Block>>> {
        let size = index::entry_bytes(self.filter_bytes);
        let mut bytes = vec![0; size * count as usize];
        self.file.read_exact_at(&mut bytes, HEADER_BYTES as u64 + number * size as u64)?;
        Ok(bytes.chunks(size).map(|entry| index::decode(entry, self.filter_bytes)).collect())
    }

    /// Its first entries, as far as they are whole and follow one another within a file of so many bytes.
    pub(super) fn good_entries(&self, data_bytes: u64) -> io::Result<Vec<Block>> {
        let mut good = Vec::new();
        let mut end = HEADER_BYTES as u64;
        for entry in self.read(0, self.entries)? {
            match entry {
                Some(block) if block.position == end && block.end() <= data_bytes => {
                    end = block.end();
                    good.push(block);
                }
                _ => break,
            }
        }
        Ok(good)
    }
}

/// Reads all records of a full segment. What stands behind bytes that are none is found by the entries of its index,
/// as far as they are whole.
pub(super) fn survey(
    folder: &Path,
    first: u64,
    filter_bytes: usize,
    damage: &mut Vec<Damage>,
    take: &mut dyn FnMut(&Record<'_>, u64, usize),
) -> Result<Blocks, StoreError> {
    let path = data_path(folder, first);
    let failed = || StoreError::io("read", &path);
    let Some(data) = Data::open(folder, first)? else {
        return Err(StoreError::Foreign { path });
    };
    let old = Index::open(folder, first).map_err(failed())?;
    let old: Vec<Block> = match &old {
        Some(old) => old.read(0, old.entries).map_err(failed())?.into_iter().flatten().collect(),
        None => Vec::new(),
    };
    let mut blocks = Blocks::new(HEADER_BYTES as u64, first, filter_bytes);
    loop {
        let end = data.scan_with(&mut blocks, data.bytes, damage, take).map_err(failed())?;
        if end == data.bytes {
            break;
        }
        let further = old.iter().find(|block| end < block.position && block.position < data.bytes);
        let resume = further.map_or(data.bytes, |block| block.position);
        damage.push(damaged(&data.path, end, resume));
        blocks.open.push_damage((resume - end) as usize);
        let Some(further) = further else { break };
        blocks.close();
        blocks.open = Block::new(resume, further.first.max(blocks.open.next), filter_bytes);
    }
    Ok(blocks)
}

/// Makes the index of a full segment again, out of its records.
pub(super) fn rebuild(
    folder: &Path,
    (stream, first): (u64, u64),
    filter_bytes: usize,
    damage: &mut Vec<Damage>,
) -> Result<Vec<Block>, StoreError> {
    let path = index_path(folder, first);
    let failed = || StoreError::io("make again", &path);
    let mut blocks = survey(folder, first, filter_bytes, damage, &mut |_, _, _| ())?;
    let (rest, tail) = (blocks.open.is_empty(), blocks.open.bytes);
    blocks.close();
    if rest && let Some(last) = blocks.full.last_mut() {
        // Damage at the very end belongs to the block in front of it.
        last.push_damage(tail as usize);
    }
    let mut bytes = index_header(stream, first, filter_bytes).to_vec();
    for block in &blocks.full {
        index::encode(&mut bytes, block);
    }
    let new = path.with_extension("idx.new");
    let write = || {
        fs::write(&new, &bytes)?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, &path)
    };
    write().map_err(failed())?;
    Ok(blocks.full)
}

pub(super) fn damaged(path: &Path, from: u64, to: u64) -> Damage {
    let path = path.display();
    Damage::lost(format!("{path}: bytes {from} to {to} are damaged; what stood there is lost"))
}
