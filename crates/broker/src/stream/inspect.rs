//! Reads a stream that no server uses. Nothing is changed.

use std::path::{Path, PathBuf};

use super::record::Record;
use super::segment::{self, Blocks, Data, HEADER_BYTES};
use super::settings::StreamSettings;
use super::writer::stream_folder;
use crate::store::{Damage, StoreError, torn_end};

/// Calls `take` for each message of a stream, with the file it is in, and where it stands there and how long it is.
///
/// # Errors
/// When a file cannot be read, or is none of ours.
pub(crate) fn each(
    streams: &Path,
    stream: u64,
    settings: &StreamSettings,
    damage: &mut Vec<Damage>,
    mut take: impl FnMut(&Path, &Record<'_>, u64, usize),
) -> Result<(), StoreError> {
    let folder = stream_folder(streams, stream);
    if !folder.exists() {
        // It was declared, and its server died.
        return Ok(());
    }
    let firsts = segment::list(&folder).map_err(StoreError::io("read", &folder))?;
    for (nth, first) in firsts.iter().enumerate() {
        let path: PathBuf = segment::data_path(&folder, *first);
        let mut take = |record: &Record<'_>, at, bytes| take(&path, record, at, bytes);
        let last = nth + 1 == firsts.len();
        let Some(data) = Data::open(&folder, *first)? else {
            if !last {
                damage.push(segment::damaged(&path, 0, HEADER_BYTES as u64));
            }
            continue;
        };
        if !last {
            segment::survey(&folder, *first, settings.filter_bytes, damage, &mut take)?;
            continue;
        }
        let mut blocks = Blocks::new(HEADER_BYTES as u64, *first, settings.filter_bytes);
        let end = data
            .scan_with(&mut blocks, data.bytes, damage, &mut take)
            .map_err(StoreError::io("read", &path))?;
        if end < data.bytes {
            damage.push(torn_end(&path, data.bytes - end));
        }
    }
    Ok(())
}
