//! Up to where messages of each queue may have been delivered, while a server runs: the file `delivered`.
//!
//! ```text
//! | `WRNDLVD` and a zero | format u32 | crc32c u32 of the rest of these 32 octets | boot id, 16 octets | slot | slot | ...
//!
//! slot, 32 octets:  | queue id u64 | place id u64 | crc32c u32 of these 16 octets | zero, 12 octets |
//! ```
//! A message must not come a second time without being flagged, so a mark is written before the delivery that passes it.
//! It goes straight into the page cache, which outlives the process and does not make a delivery wait for the disk. What
//! the machine's end has made of the cache nobody knows: after that (another boot id) all that is there may have been
//! delivered. A server that ends in order says what is so in the log, and removes the file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustc_hash::{FxHashMap, FxHashSet};

use super::StoreError;
use super::batch::place_id;

pub(super) const NAME: &str = "delivered";
const MAGIC: [u8; 8] = *b"WRNDLVD\0";
const FORMAT: u32 = 1;
/// Of the header, and of each slot: none lies across two pages.
const SLOT_BYTES: usize = 32;
/// So many marks of a queue in a second say exactly what was delivered; the next ones run ahead.
const EXACT: u32 = 16;
/// How far a mark runs ahead at most.
const AHEAD_MAX: u32 = 1 << 20;

/// A queue's mark. The faster the queue delivers, the further it runs ahead: so some thirty are written in a second,
/// however many messages leave, and they are exact where few do.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    up_to: u64,
    /// Second of the server's in which the last one was written, and how many have been in it.
    second: u64,
    written: u32,
}

impl Mark {
    /// Whether the delivery of a message has to wait until the mark has gone on.
    #[inline]
    pub(crate) fn is_passed_by(&self, place: u64) -> bool {
        self.up_to < place
    }

    /// Lets the mark go on to this place, at least. The place to be written down.
    pub(crate) fn pass(&mut self, place: u64, second: u64) -> u64 {
        if self.second != second {
            (self.second, self.written) = (second, 0);
        }
        let ahead = match self.written.checked_sub(EXACT) {
            None => 0,
            Some(doublings) => EXACT.checked_shl(doublings).unwrap_or(0).min(AHEAD_MAX),
        };
        self.written = (self.written + 1).min(EXACT + AHEAD_MAX.ilog2());
        // Not into the numbers of the next segment.
        self.up_to = place + u64::from(ahead.min(u32::MAX - place as u32));
        self.up_to
    }
}

/// What the server before has left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// It ended in order, or there was none.
    Nothing,
    /// It was killed: up to where it may have delivered, by queue.
    Marks(FxHashMap<u64, u64>),
    /// The machine stopped, or the file is damaged: anything may have been delivered.
    Anything,
}

impl Left {
    /// The last place that each of these queues may have delivered; `next` is the segment to be begun.
    pub(super) fn marks(self, queues: &FxHashSet<u64>, next: u32) -> FxHashMap<u64, u64> {
        match self {
            Self::Nothing => FxHashMap::default(),
            Self::Marks(mut marks) => {
                marks.retain(|queue, _| queues.contains(queue));
                marks
            }
            // All that is in segments before the new one.
            Self::Anything => {
                let last = place_id(next, 0) - 1;
                queues.iter().map(|queue| (*queue, last)).collect()
            }
        }
    }
}

/// The file of this server.
pub(super) struct Marks {
    path: PathBuf,
    file: File,
    /// Which slot a queue has, and what stands there.
    slots: FxHashMap<u64, (usize, u64)>,
    /// Slots of queues that have gone.
    free: Vec<usize>,
    failing: bool,
}

impl Marks {
    /// Reads what a server before this one has left in a data directory.
    ///
    /// # Errors
    /// When the file cannot be read, or is none that is known.
    pub(super) fn read(folder: &Path) -> Result<Left, StoreError> {
        let path = folder.join(NAME);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Left::Nothing),
            read => read.map_err(StoreError::io("read", &path))?,
        };
        let Some((header, slots)) = bytes.split_first_chunk::<SLOT_BYTES>() else {
            return Ok(Left::Anything);
        };
        let number = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if header[..8] != MAGIC {
            return if header.iter().all(|octet| *octet == 0) {
                // The system has kept its length only.
                Ok(Left::Anything)
            } else {
                Err(StoreError::Foreign { path })
            };
        }
        if number(8) != FORMAT {
            return Err(StoreError::Format { path, found: number(8), known: FORMAT });
        }
        let is_whole = crc32c::crc32c(&header[16..]) == number(12);
        if !is_whole || boot_id().is_none_or(|boot| header[16..] != boot) {
            return Ok(Left::Anything);
        }
        let mut marks = FxHashMap::default();
        for slot in slots.chunks_exact(SLOT_BYTES) {
            match decode(slot) {
                Some((queue, place)) => drop(marks.insert(queue, place)),
                None => return Ok(Left::Anything),
            }
        }
        Ok(Left::Marks(marks))
    }

    /// Begins a file of our own in the place of what was left, with these marks.
    pub(super) fn begin(
        folder: &Path,
        durable: bool,
        marks: &FxHashMap<u64, u64>,
    ) -> Result<Self, StoreError> {
        let path = folder.join(NAME);
        let begin = || {
            let fresh = folder.join(format!("{NAME}.new"));
            let mut open = OpenOptions::new();
            let file = open.read(true).write(true).create(true).truncate(true).open(&fresh)?;
            let mut bytes = MAGIC.to_vec();
            bytes.extend_from_slice(&FORMAT.to_le_bytes());
            let boot = boot_id().unwrap_or_default();
            bytes.extend_from_slice(&crc32c::crc32c(&boot).to_le_bytes());
            bytes.extend_from_slice(&boot);
            let mut slots = FxHashMap::default();
            for (slot, (queue, place)) in marks.iter().enumerate() {
                bytes.extend_from_slice(&encode(*queue, *place));
                slots.insert(*queue, (slot, *place));
            }
            file.write_all_at(&bytes, 0)?;
            if durable {
                file.sync_data()?;
            }
            fs::rename(&fresh, &path)?;
            if durable {
                File::open(folder)?.sync_all()?;
            }
            Ok(Self { path: path.clone(), file, slots, free: Vec::new(), failing: false })
        };
        begin().map_err(StoreError::io("write to", &path))
    }

    /// Messages of the queue up to this place are about to be delivered. False when that could not be written.
    pub(super) fn pass(&mut self, queue: u64, place: u64) -> bool {
        let next = self.slots.len();
        let (slot, before) = match self.slots.get(&queue) {
            Some(known) => *known,
            None => (self.free.pop().unwrap_or(next), 0),
        };
        if place <= before {
            return true;
        }
        let at = SLOT_BYTES as u64 * (slot as u64 + 1);
        let written = self.file.write_all_at(&encode(queue, place), at);
        match written {
            Ok(()) => {
                self.failing = false;
                self.slots.insert(queue, (slot, place));
                true
            }
            Err(error) => {
                if before == 0 && slot != next {
                    self.free.push(slot);
                }
                if !std::mem::replace(&mut self.failing, true) {
                    let path = self.path.display();
                    tracing::warn!(%error, "cannot write to {path}: after a crash messages may come again unflagged");
                }
                false
            }
        }
    }

    /// A queue has gone. Its number does not come again, so what stands in its slot says nothing.
    pub(super) fn forget(&mut self, queue: u64) {
        if let Some((slot, _)) = self.slots.remove(&queue) {
            self.free.push(slot);
        }
    }

    /// All is in the log.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            let path = self.path.display();
            tracing::warn!(%error, "cannot remove {path}: messages that never were delivered may be flagged");
        }
    }
}

fn encode(queue: u64, place: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&queue.to_le_bytes());
    slot[8..16].copy_from_slice(&place.to_le_bytes());
    let crc = crc32c::crc32c(&slot[..16]);
    slot[16..20].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, u64)> {
    let queue = u64::from_le_bytes(*slot.first_chunk()?);
    let place = u64::from_le_bytes(*slot[8..].first_chunk()?);
    (slot == encode(queue, place)).then_some((queue, place))
}

/// Another one whenever the machine has been started; `None` where that is not told.
fn boot_id() -> Option<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = u128::from_str_radix(&text.trim().replace('-', ""), 16).ok()?;
    (id != 0).then(|| id.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(of: &[(u64, u64)]) -> FxHashMap<u64, u64> {
        of.iter().copied().collect()
    }

    #[test]
    fn what_a_killed_server_has_left_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(Marks::read(folder).unwrap(), Left::Nothing);
        let mut one = Marks::begin(folder, true, &marks(&[(7, 70)])).unwrap();
        assert!(one.pass(8, 80) && one.pass(9, 90) && one.pass(8, 85));
        // Never back.
        assert!(one.pass(8, 1));
        assert_eq!(Marks::read(folder).unwrap(), Left::Marks(marks(&[(7, 70), (8, 85), (9, 90)])));
        one.forget(8);
        assert!(one.pass(10, 100) && one.pass(11, 110));
        let left = marks(&[(7, 70), (10, 100), (9, 90), (11, 110)]);
        assert_eq!(Marks::read(folder).unwrap(), Left::Marks(left.clone()));
        drop(one);
        let next = Marks::begin(folder, false, &left).unwrap();
        assert_eq!(Marks::read(folder).unwrap(), Left::Marks(left));
        next.remove();
        assert_eq!(Marks::read(folder).unwrap(), Left::Nothing);
    }

    #[test]
    fn what_cannot_be_trusted_says_that_anything_was_delivered() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        drop(Marks::begin(folder, true, &marks(&[(7, 70), (8, 80)])).unwrap());
        let path = folder.join(NAME);
        let whole = fs::read(&path).unwrap();
        for at in 8..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            match Marks::read(folder) {
                Ok(left) => assert_eq!(left, Left::Anything, "damaged at {at}"),
                Err(error) => {
                    assert!(error.to_string().contains("this server reads format 1"), "{error}")
                }
            }
        }
        fs::write(&path, vec![0; whole.len()]).unwrap();
        assert_eq!(Marks::read(folder).unwrap(), Left::Anything);
        fs::write(&path, &whole[..20]).unwrap();
        assert_eq!(Marks::read(folder).unwrap(), Left::Anything);
        // Another start of the machine.
        let mut other = whole.clone();
        other[16] ^= 1;
        let crc = crc32c::crc32c(&other[16..32]).to_le_bytes();
        other[12..16].copy_from_slice(&crc);
        fs::write(&path, &other).unwrap();
        assert_eq!(Marks::read(folder).unwrap(), Left::Anything);
        fs::write(&path, [b'x'; 64]).unwrap();
        assert!(matches!(Marks::read(folder), Err(StoreError::Foreign { .. })));
    }

    #[test]
    fn a_fast_queue_writes_few_marks_and_a_slow_one_exact_ones() {
        let mut mark = Mark::default();
        let segment = 3 << 32;
        let mut written = 0;
        for place in segment..segment + 1_000_000 {
            if mark.is_passed_by(place) {
                assert!(place <= mark.pass(place, 1));
                written += 1;
            }
        }
        assert!(written <= 40, "{written} marks");
        for place in (segment + 3_000_000..).step_by(10).take(10) {
            assert_eq!(mark.pass(place, 2), place);
        }
        // A mark stays in its segment.
        let last = segment + u64::from(u32::MAX);
        (0..100).for_each(|_| assert_eq!(mark.pass(last, 2), last));
    }
}
