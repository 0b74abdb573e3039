//! A disk in memory that behaves as badly as disks may.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::super::disk::{Disk, DiskFile};

/// Numbers from a seed.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A change of a file that is not synced.
#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Default)]
struct Inode {
    /// What is read.
    now: Vec<u8>,
    /// What outlives the machine for certain, and what may be added to it.
    kept: Vec<u8>,
    changes: Vec<Change>,
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length as usize, 0),
            Self::Write(at, written) => {
                let end = *at as usize + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at as usize..end].copy_from_slice(written);
            }
        }
    }
}

/// A change of the folder that is not synced.
#[derive(Clone)]
enum Naming {
    Put(String, usize),
    Remove(String),
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Put(name, inode) => drop(names.insert(name.clone(), *inode)),
            Self::Remove(name) => drop(names.remove(name)),
        }
    }
}

struct Inner {
    chance: Chance,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    kept_names: BTreeMap<String, usize>,
    /// Steps that outlive the machine each as a whole.
    namings: Vec<Vec<Naming>>,
    refuses: bool,
    /// After so many more calls nothing is done any more, until the machine comes up again.
    dies_in: Option<u64>,
}

pub(in super::super) struct SimulatedDisk(Arc<Mutex<Inner>>);

impl SimulatedDisk {
    pub(in super::super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            chance: Chance(seed ^ 0x5eed),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            kept_names: BTreeMap::new(),
            namings: Vec::new(),
            refuses: false,
            dies_in: None,
        })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Now and then what is asked fails.
    pub(super) fn refuse(&self, refuses: bool) {
        self.inner().refuses = refuses;
    }

    /// The machine dies after so many calls.
    pub(super) fn die_in(&self, calls: u64) {
        self.inner().dies_in = Some(calls);
    }

    pub(super) fn refuses(&self) -> bool {
        let inner = self.inner();
        inner.refuses || inner.dies_in.is_some()
    }

    /// Power is lost: of what was not synced some is there, in any order, torn anywhere; names change in order.
    pub(super) fn crash(&self) {
        let inner = &mut *self.inner();
        inner.dies_in = None;
        // Of the names that were changed some are, each for itself: what a name was last is what counts.
        let mode = inner.chance.below(3);
        for step in std::mem::take(&mut inner.namings) {
            if mode == 1 || (mode == 2 && inner.chance.one_in(2)) {
                step.iter().for_each(|naming| naming.apply(&mut inner.kept_names));
            }
        }
        inner.names = inner.kept_names.clone();
        for inode in &mut inner.inodes {
            let mode = inner.chance.below(3);
            for change in std::mem::take(&mut inode.changes) {
                match (mode, change) {
                    // Nothing of it, or all.
                    (0, _) => {}
                    (1, change) => change.apply(&mut inode.kept),
                    (_, Change::Length(length)) => {
                        if inner.chance.one_in(2) {
                            Change::Length(length).apply(&mut inode.kept);
                        }
                    }
                    // Some parts of it.
                    (_, Change::Write(at, written)) => {
                        let piece = 1 + inner.chance.below(200) as usize;
                        for (nth, bytes) in written.chunks(piece).enumerate() {
                            if inner.chance.one_in(2) {
                                let at = at + (nth * piece) as u64;
                                Change::Write(at, bytes.to_vec()).apply(&mut inode.kept);
                            }
                        }
                    }
                }
            }
            inode.now = inode.kept.clone();
        }
    }

    /// Changes a bit of some file; its name.
    pub(super) fn flip_bit(&self) -> Option<String> {
        let inner = &mut *self.inner();
        let files: Vec<_> =
            inner.names.iter().map(|(name, inode)| (name.clone(), *inode)).collect();
        let (name, inode) = files.get(inner.chance.below(files.len() as u64) as usize)?.clone();
        let bytes = &mut inner.inodes[inode].now;
        let at = inner.chance.below(bytes.len() as u64) as usize;
        *bytes.get_mut(at)? ^= 1 << inner.chance.below(8);
        Some(name)
    }
}

impl Inner {
    fn ask(&mut self) -> io::Result<()> {
        if let Some(calls) = &mut self.dies_in {
            *calls = calls.saturating_sub(1);
            if *calls == 0 {
                return Err(io::Error::other("the machine has stopped"));
            }
        }
        if self.refuses && self.chance.one_in(3) {
            let out_of_room = self.chance.one_in(2);
            return Err(if out_of_room {
                io::ErrorKind::StorageFull.into()
            } else {
                io::Error::other("the device says no")
            });
        }
        Ok(())
    }

    fn rename(&mut self, step: Vec<Naming>) {
        step.iter().for_each(|naming| naming.apply(&mut self.names));
        self.namings.push(step);
    }

    fn inode(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.inner();
        inner.ask()?;
        let inode = match inner.inode(name) {
            Ok(inode) => inode,
            Err(_) => {
                inner.inodes.push(Inode::default());
                let inode = inner.inodes.len() - 1;
                inner.rename(vec![Naming::Put(name.into(), inode)]);
                inode
            }
        };
        inner.inodes[inode].now.clear();
        inner.inodes[inode].changes.push(Change::Length(0));
        Ok(Box::new(SimulatedFile { disk: self.0.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let inode = self.inner().inode(name)?;
        Ok(Box::new(SimulatedFile { disk: self.0.clone(), inode }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.ask()?;
        let inode = inner.inode(from)?;
        inner.rename(vec![Naming::Put(to.into(), inode), Naming::Remove(from.into())]);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.ask()?;
        inner.inode(name)?;
        inner.rename(vec![Naming::Remove(name.into())]);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.ask()?;
        inner.namings.clear();
        inner.kept_names = inner.names.clone();
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }
}

struct SimulatedFile {
    disk: Arc<Mutex<Inner>>,
    inode: usize,
}

impl DiskFile for SimulatedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.lock().unwrap();
        let refused = inner.ask();
        // A part may have been written then.
        let count = match refused {
            Ok(()) => bytes.len(),
            Err(_) => inner.chance.below(bytes.len() as u64) as usize,
        };
        let change = Change::Write(offset, bytes[..count].to_vec());
        let inode = &mut inner.inodes[self.inode];
        change.apply(&mut inode.now);
        inode.changes.push(change);
        refused
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.disk.lock().unwrap();
        let bytes = &inner.inodes[self.inode].now;
        let found = bytes.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().unwrap().inodes[self.inode].now.len() as u64)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut inner = self.disk.lock().unwrap();
        inner.ask()?;
        let inode = &mut inner.inodes[self.inode];
        Change::Length(bytes).apply(&mut inode.now);
        inode.changes.push(Change::Length(bytes));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.lock().unwrap();
        if let Err(error) = inner.ask() {
            // What a failed sync was to write may never be: the system believes that it is.
            let some: Vec<Change> = std::mem::take(&mut inner.inodes[self.inode].changes);
            let kept = inner.chance.below(some.len() as u64 + 1) as usize;
            let inode = &mut inner.inodes[self.inode];
            some.iter().take(kept).for_each(|change| change.apply(&mut inode.kept));
            return Err(error);
        }
        let inode = &mut inner.inodes[self.inode];
        inode.changes.drain(..).for_each(|change| change.apply(&mut inode.kept));
        Ok(())
    }

    fn reserve(&self, _bytes: u64) {}
}
