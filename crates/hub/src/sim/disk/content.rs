//! The bytes of one file, twice: as programs see them, and as the disk has them.
//!
//! ```text
//!   write --> now --sync--> kept       a crash: now = kept, and of the pages that were not synced
//!              |             ^         each by chance: the old one, the new one, or sectors of both
//!              +-- by chance +
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::sim::Random;

/// The unit in which the system writes.
pub(super) const PAGE: usize = 4096;
/// The unit that a disk writes whole or not at all.
const SECTOR: usize = 512;

type Page = Rc<[u8; PAGE]>;

/// What survives a crash of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Survival {
    Nothing,
    Everything,
    /// Each page decides for itself, and may be torn.
    Some,
}

#[derive(Clone, Default)]
struct Version {
    len: u64,
    /// A page that is not there holds zeros.
    pages: BTreeMap<u64, Page>,
}

impl Version {
    fn set(&mut self, number: u64, page: Option<Page>) {
        match page {
            Some(page) => self.pages.insert(number, page),
            None => self.pages.remove(&number),
        };
    }

    /// Forgets what lies beyond the end.
    fn clip(&mut self) {
        let whole = self.len / PAGE as u64;
        let rest = (self.len % PAGE as u64) as usize;
        if let Some(last) = self.pages.get_mut(&whole) {
            Rc::make_mut(last)[rest..].fill(0);
        }
        let end = self.len.div_ceil(PAGE as u64);
        drop(self.pages.split_off(&end));
    }
}

#[derive(Default)]
pub(super) struct Content {
    now: Version,
    kept: Version,
    /// Pages in which the two differ, and the system knows.
    dirty: BTreeSet<u64>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.now.len
    }

    /// Bytes it takes on the disk.
    pub(super) fn occupied(&self) -> u64 {
        (self.now.pages.len() * PAGE) as u64
    }

    /// Appends to `buffer` what is at `offset`, at most `count` bytes.
    pub(super) fn read(&self, offset: u64, count: usize, buffer: &mut Vec<u8>) {
        let end = self.now.len.min(offset.saturating_add(count as u64));
        let mut at = offset;
        while at < end {
            let (number, within) = place(at);
            let count = (PAGE - within).min((end - at) as usize);
            match self.now.pages.get(&number) {
                Some(page) => buffer.extend_from_slice(&page[within..within + count]),
                None => buffer.resize(buffer.len() + count, 0),
            }
            at += count as u64;
        }
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset;
        let mut left = data;
        while !left.is_empty() {
            let (number, within) = place(at);
            let (part, rest) = left.split_at((PAGE - within).min(left.len()));
            let page = self.now.pages.entry(number).or_insert_with(|| Rc::new([0; PAGE]));
            Rc::make_mut(page)[within..within + part.len()].copy_from_slice(part);
            self.dirty.insert(number);
            at += part.len() as u64;
            left = rest;
        }
        self.now.len = self.now.len.max(at);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let shrinks = len < self.now.len;
        self.now.len = len;
        if shrinks {
            let first = len / PAGE as u64;
            self.dirty.extend(self.now.pages.range(first..).map(|(&number, _)| number));
            self.now.clip();
        }
    }

    /// Gives a range of the file room on the disk.
    pub(super) fn allocate(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        for number in offset / PAGE as u64..end.div_ceil(PAGE as u64) {
            let dirty = &mut self.dirty;
            self.now.pages.entry(number).or_insert_with(|| {
                dirty.insert(number);
                Rc::new([0; PAGE])
            });
        }
        self.now.len = self.now.len.max(end);
    }

    pub(super) fn sync(&mut self) {
        for number in std::mem::take(&mut self.dirty) {
            self.kept.set(number, self.now.pages.get(&number).cloned());
        }
        self.kept.len = self.now.len;
        self.kept.clip();
    }

    /// The system has written a page at its own time.
    pub(super) fn write_back(&mut self, random: &Random) {
        let number = self.dirty.iter().nth(random.index(self.dirty.len())).copied();
        if let Some(number) = number {
            self.dirty.remove(&number);
            self.kept.set(number, self.now.pages.get(&number).cloned());
        }
    }

    /// A sync failed: some pages were written, and of the others the system knows no more that they were not. What
    /// programs read is what they wrote, until a crash.
    pub(super) fn fail_sync(&mut self, random: &Random) {
        for number in std::mem::take(&mut self.dirty) {
            if random.chance(0.5) {
                self.kept.set(number, self.now.pages.get(&number).cloned());
            }
        }
    }

    /// The power is gone: what is there when it comes back.
    pub(super) fn crash(&mut self, survival: Survival, random: &Random) {
        for number in std::mem::take(&mut self.dirty) {
            let (old, new) = (self.kept.pages.get(&number), self.now.pages.get(&number));
            let survivor = match survival {
                Survival::Nothing => continue,
                Survival::Everything => new.cloned(),
                Survival::Some => match random.below(3) {
                    0 => continue,
                    1 => new.cloned(),
                    _ => Some(torn(old, new, random)),
                },
            };
            self.kept.set(number, survivor);
        }
        let (old, new) = (self.kept.len, self.now.len);
        self.kept.len = match survival {
            Survival::Nothing => old,
            Survival::Everything => new,
            Survival::Some => match random.below(3) {
                0 => old,
                1 => new,
                _ => random.within(old.min(new)..=old.max(new)),
            },
        };
        self.kept.clip();
        self.now = self.kept.clone();
    }

    /// Turns a bit that rests on the disk. False when there is none.
    pub(super) fn flip(&mut self, random: &Random) -> bool {
        let number = random.below(self.now.len);
        if self.now.len == 0 {
            return false;
        }
        let (number, within) = place(number);
        let bit = 1 << random.below(8);
        for version in [&mut self.now, &mut self.kept] {
            if let Some(page) = version.pages.get_mut(&number) {
                Rc::make_mut(page)[within] ^= bit;
            }
        }
        true
    }
}

/// The page that a byte lies in, and where there.
fn place(offset: u64) -> (u64, usize) {
    (offset / PAGE as u64, (offset % PAGE as u64) as usize)
}

/// A page of which the power's end has left some sectors unwritten.
fn torn(old: Option<&Page>, new: Option<&Page>, random: &Random) -> Page {
    let zeros = Rc::new([0; PAGE]);
    let (old, new) = (old.unwrap_or(&zeros), new.unwrap_or(&zeros));
    let mut page = **old;
    for sector in (0..PAGE).step_by(SECTOR) {
        if random.chance(0.5) {
            let range = sector..sector + SECTOR;
            page[range.clone()].copy_from_slice(&new[range]);
        }
    }
    Rc::new(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(content: &Content) -> Vec<u8> {
        let mut bytes = Vec::new();
        content.read(0, usize::MAX, &mut bytes);
        bytes
    }

    #[test]
    fn holes_and_what_was_cut_off_hold_zeros() {
        let mut content = Content::default();
        content.write(5000, b"abc");
        content.set_len(5001);
        content.set_len(5003);
        let mut want = vec![0; 5003];
        want[5000] = b'a';
        assert_eq!(all(&content), want);
        assert_eq!(content.occupied(), PAGE as u64, "the first page is a hole");
    }

    #[test]
    fn a_crash_takes_what_was_not_synced_and_nothing_else() {
        let mut survivors = BTreeSet::new();
        for seed in 0..200 {
            let random = Random::new(seed);
            let mut content = Content::default();
            content.write(0, &[1; 2 * PAGE]);
            content.sync();
            content.write(PAGE as u64, &[2; PAGE]);
            content.crash(Survival::Some, &random);
            let bytes = all(&content);
            assert_eq!(bytes.len(), 2 * PAGE);
            assert!(bytes[..PAGE] == [1; PAGE], "this page was synced, and not written again");
            let sectors = bytes[PAGE..].chunks(SECTOR);
            assert!(sectors.clone().all(|sector| sector == [sector[0]; SECTOR]));
            survivors.insert(sectors.filter(|sector| sector[0] == 2).count());
        }
        assert!(survivors.len() > 4, "{survivors:?}");
        assert!(survivors.contains(&0) && survivors.contains(&(PAGE / SECTOR)), "{survivors:?}");
    }

    #[test]
    fn what_a_failed_sync_has_lost_stays_lost() {
        let lost = (0..100).filter(|&seed| {
            let random = Random::new(seed);
            let mut content = Content::default();
            content.write(0, b"x");
            content.sync();
            content.write(0, b"y");
            content.fail_sync(&random);
            content.sync();
            assert_eq!(all(&content), b"y", "before the crash it looks well");
            content.crash(Survival::Everything, &random);
            all(&content) == b"x"
        });
        assert!((20..80).contains(&lost.count()));
    }
}
