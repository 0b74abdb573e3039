//! A stream on disk, as the thread that writes it sees it.
//!
//! The last segment is written at its end only. Segments go oldest first and whole, when there is too much of
//! the stream or when all in them has grown too old.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::sync::Arc;

use super::index;
use super::record::{Decoded, decode};
use super::segment::{self, Blocks, Data, Files, HEADER_BYTES, Index, Summary};
use super::settings::StreamSettings;
use super::shared::{Shared, View};
use crate::store::{Damage, StoreError, framing, make_folder, torn_end};

pub(crate) struct Log {
    shared: Arc<Shared>,
    settings: StreamSettings,
    /// Closed when nothing has been written for a while.
    files: Option<Files>,
    last: Summary,
    blocks: Blocks,
    /// The last segment, as far as it is known to be on disk.
    synced: Summary,
}

impl Log {
    /// Opens a stream, or makes it if it is not there. A torn end is cut off, and damage described.
    ///
    /// # Errors
    /// When a file cannot be read or written, or is none of ours.
    pub(crate) fn open(
        shared: Arc<Shared>,
        settings: StreamSettings,
        damage: &mut Vec<Damage>,
    ) -> Result<Self, StoreError> {
        let folder = &shared.folder;
        make_folder(folder).map_err(StoreError::io("make", folder))?;
        Self::load(shared, settings, damage)
    }

    fn load(
        shared: Arc<Shared>,
        settings: StreamSettings,
        damage: &mut Vec<Damage>,
    ) -> Result<Self, StoreError> {
        let folder = &shared.folder;
        let mut firsts = segment::list(folder).map_err(StoreError::io("read", folder))?;
        let last_first = firsts.pop();
        let mut segments = Vec::new();
        for first in firsts {
            segments.extend(full_segment(&shared, first, settings.filter_bytes, damage)?);
        }
        let next = segments.last().map_or(0, |segment| segment.next);
        let (last, blocks) = last_segment(&shared, last_first.unwrap_or(next), &settings, damage)?;
        segments.push(last);
        *shared.view() = View { segments: segments.into(), open: blocks.open.clone() };
        shared.publish();
        Ok(Self { shared, settings, files: None, last, blocks, synced: last })
    }

    pub(super) fn configure(&mut self, settings: StreamSettings) {
        // The size of filters stays what the segments were made with.
        let filter_bytes = self.settings.filter_bytes;
        self.settings = StreamSettings { filter_bytes, ..settings };
    }

    /// Writes encoded records at the end; those that are there already are passed over. `filtered`: some have a
    /// value to be chosen by.
    pub(super) fn append(&mut self, records: &[u8], filtered: bool) -> io::Result<()> {
        let (mut at, mut written, mut rolled) = (0, 0, false);
        while at < records.len() {
            let Some((bytes, offset, time_ms)) = head(&records[at..]) else { break };
            if offset < self.last.next {
                self.write(&records[written..at])?;
                at += bytes;
                written = at;
                continue;
            }
            if self.settings.segment_bytes <= self.last.bytes + (at - written) as u64
                && !(self.last.is_empty() && at == written)
            {
                self.write(&records[written..at])?;
                written = at;
                self.roll(offset)?;
                rolled = true;
            }
            let value = match filtered.then(|| decode(&records[at..])) {
                Some(Decoded::Record(record, _)) => record.filter_value(),
                _ => None,
            };
            self.blocks.push(offset, time_ms, bytes, value);
            self.last.next = offset + 1;
            self.last.last_ms = time_ms;
            at += bytes;
        }
        self.write(&records[written..at])?;
        if rolled { self.retain(self.last.last_ms) } else { Ok(()) }
    }

    /// Writes records that the blocks know already, the entries of full blocks, and tells the readers.
    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        if !records.is_empty() {
            self.files()?.data.write_all(records)?;
            self.last.bytes += records.len() as u64;
        }
        if !self.blocks.full.is_empty() {
            let mut entries = Vec::new();
            for block in &self.blocks.full {
                index::encode(&mut entries, block);
            }
            self.files()?.index.write_all(&entries)?;
            self.last.entries += self.blocks.full.len() as u64;
            self.blocks.full.clear();
        }
        let mut view = self.shared.view();
        if let Some(last) = view.segments.back_mut() {
            *last = self.last;
        }
        view.open = self.blocks.open.clone();
        drop(view);
        self.shared.publish();
        Ok(())
    }

    fn files(&mut self) -> io::Result<&mut Files> {
        if self.files.is_none() {
            self.files = Some(segment::reopen(&self.shared.folder, self.last.first)?);
        }
        self.files.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Ends the last segment and begins the next one.
    fn roll(&mut self, first: u64) -> io::Result<()> {
        self.blocks.close();
        self.write(&[])?;
        let files = self.files()?;
        files.data.sync_data()?;
        files.index.sync_data()?;
        let filter_bytes = self.settings.filter_bytes;
        let files = segment::create(&self.shared.folder, self.shared.stream, first, filter_bytes)?;
        self.files = Some(files);
        self.last = Summary::new(first);
        self.blocks = Blocks::new(HEADER_BYTES as u64, first, filter_bytes);
        self.synced = self.last;
        let mut view = self.shared.view();
        view.segments.push_back(self.last);
        view.open = self.blocks.open.clone();
        drop(view);
        self.shared.publish();
        Ok(())
    }

    /// Waits until all that was appended is on disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.synced != self.last {
            self.files()?.data.sync_data()?;
            self.synced = self.last;
        }
        Ok(())
    }

    /// Gives the files back; they are opened again when they are needed.
    pub(super) fn close_files(&mut self) {
        self.files = None;
    }

    pub(super) fn has_files(&self) -> bool {
        self.files.is_some()
    }

    /// After a failure: goes back to what is known to be on disk. What came later is to be appended again.
    ///
    /// # Errors
    /// When the disk still refuses.
    pub(super) fn restore(&mut self) -> Result<(), StoreError> {
        self.files = None;
        let folder = self.shared.folder.clone();
        let failed = || StoreError::io("go back to what was synced in", &folder);
        for first in segment::list(&folder).map_err(failed())? {
            if self.synced.first < first {
                segment::remove(&folder, first).map_err(failed())?;
            }
        }
        let path = segment::data_path(&folder, self.synced.first);
        let data = OpenOptions::new().write(true).open(&path).map_err(failed())?;
        data.set_len(self.synced.bytes).map_err(failed())?;
        data.sync_data().map_err(failed())?;
        let mut damage = Vec::new();
        *self = Self::load(self.shared.clone(), self.settings, &mut damage)?;
        for damage in damage {
            tracing::error!("{damage}");
        }
        Ok(())
    }

    /// Lets the segments go that are too much or too old.
    pub(super) fn retain(&mut self, now_ms: u64) -> io::Result<()> {
        let born_ms_min = match self.settings.age_ms_max {
            Some(age) => now_ms.saturating_sub(age),
            None => 0,
        };
        if !self.last.is_empty() && self.last.last_ms < born_ms_min {
            // All that there is has grown too old.
            self.roll(self.last.next)?;
        }
        let (surplus, segments) = {
            let mut view = self.shared.view();
            let segments = view.segments.iter().copied();
            let count = segment::count_surplus(segments, self.settings.bytes_max, born_ms_min);
            // Readers are not sent there any more.
            (view.segments.drain(..count).collect::<Vec<_>>(), view.segments.len())
        };
        if surplus.is_empty() {
            return Ok(());
        }
        self.shared.publish();
        tracing::debug!(
            stream = self.shared.stream,
            gone = surplus.len(),
            kept = segments,
            "segments of a stream have gone"
        );
        for old in surplus {
            segment::remove(&self.shared.folder, old.first)?;
        }
        Ok(())
    }
}

/// How long the record at the start of our own bytes is, its offset and its time.
fn head(bytes: &[u8]) -> Option<(usize, u64, u64)> {
    let (size, rest) = bytes.split_first_chunk::<4>()?;
    let payload = rest.get(framing::HEADER_BYTES - 4..)?;
    let (offset, payload) = payload.split_first_chunk::<8>()?;
    let (time, _) = payload.split_first_chunk::<8>()?;
    let bytes = framing::HEADER_BYTES + u32::from_le_bytes(*size) as usize;
    Some((bytes, u64::from_le_bytes(*offset), u64::from_le_bytes(*time)))
}

/// A segment that is not written any more. `None`: there is nothing in it.
fn full_segment(
    shared: &Shared,
    first: u64,
    filter_bytes: usize,
    damage: &mut Vec<Damage>,
) -> Result<Option<Summary>, StoreError> {
    let folder = &shared.folder;
    let Some(data) = Data::open(folder, first)? else {
        let path = segment::data_path(folder, first);
        damage.push(segment::damaged(&path, 0, HEADER_BYTES as u64));
        return Ok(None);
    };
    let path = segment::index_path(folder, first);
    let index = Index::open(folder, first).map_err(StoreError::io("read", &path))?;
    let last = match &index {
        Some(index) if index.entries > 0 => {
            index.entry(index.entries - 1).map_err(StoreError::io("read", &path))?
        }
        _ => None,
    };
    let (last, entries) = match (last, index) {
        (Some(block), Some(index)) if block.end() == data.bytes => (Some(block), index.entries),
        _ => {
            tracing::warn!(path = %path.display(), "the index of a segment is made again");
            let mut blocks =
                segment::rebuild(folder, (shared.stream, first), filter_bytes, damage)?;
            let entries = blocks.len() as u64;
            (blocks.pop(), entries)
        }
    };
    let (next, last_ms) = match last {
        Some(last) => (last.next, last.last_ms),
        None => return Ok(None),
    };
    Ok(Some(Summary { first, next, last_ms, bytes: data.bytes, entries }))
}

/// The segment that is being written: its end may be torn.
fn last_segment(
    shared: &Shared,
    first: u64,
    settings: &StreamSettings,
    damage: &mut Vec<Damage>,
) -> Result<(Summary, Blocks), StoreError> {
    let folder = &shared.folder;
    let path = segment::data_path(folder, first);
    let failed = || StoreError::io("read", &path);
    let new = || {
        segment::create(folder, shared.stream, first, settings.filter_bytes)
            .map_err(StoreError::io("make", &path))?;
        let blocks = Blocks::new(HEADER_BYTES as u64, first, settings.filter_bytes);
        Ok((Summary::new(first), blocks))
    };
    if !path.exists() {
        return new();
    }
    let Some(data) = Data::open(folder, first)? else { return new() };
    let index = Index::open(folder, first).map_err(failed())?;
    let index = index.filter(|index| index.filter_bytes == settings.filter_bytes);
    let good = match &index {
        Some(index) => index.good_entries(data.bytes).map_err(failed())?,
        None => Vec::new(),
    };
    let mut blocks = match good.last() {
        Some(block) => Blocks::new(block.end(), block.next, settings.filter_bytes),
        None => Blocks::new(HEADER_BYTES as u64, first, settings.filter_bytes),
    };
    let end = data.scan(&mut blocks, data.bytes, damage).map_err(failed())?;
    if end < data.bytes {
        damage.push(torn_end(&path, data.bytes - end));
        let file = OpenOptions::new().write(true).open(&path);
        file.and_then(|file| file.set_len(end).and_then(|()| file.sync_data()))
            .map_err(StoreError::io("cut the torn end of", &path))?;
    }
    let entries = (good.len() + blocks.full.len()) as u64;
    write_index(shared, first, &good, &mut blocks, settings.filter_bytes, index.is_some())
        .map_err(StoreError::io("write the index of", &path))?;
    let last_ms = match good.last() {
        _ if !blocks.open.is_empty() => blocks.open.last_ms,
        block => block.map_or(0, |block| block.last_ms),
    };
    let last_ms = blocks.full.last().map_or(last_ms, |block| block.last_ms.max(last_ms));
    blocks.full.clear();
    Ok((Summary { first, next: blocks.open.next, last_ms, bytes: end, entries }, blocks))
}

/// Brings the index of the last segment to what was found: entries that are no good are cut off, those of
/// blocks that were found are appended.
fn write_index(
    shared: &Shared,
    first: u64,
    good: &[index::Block],
    blocks: &mut Blocks,
    filter_bytes: usize,
    usable: bool,
) -> io::Result<()> {
    let path = segment::index_path(&shared.folder, first);
    if !usable {
        let header = segment::index_header(shared.stream, first, filter_bytes);
        fs::write(&path, header)?;
    }
    let kept = HEADER_BYTES + good.len() * index::entry_bytes(filter_bytes);
    let mut file = OpenOptions::new().append(true).open(&path)?;
    file.set_len(kept as u64)?;
    let mut entries = Vec::new();
    for block in &blocks.full {
        index::encode(&mut entries, block);
    }
    file.write_all(&entries)
}
