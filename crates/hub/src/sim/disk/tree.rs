//! Names: which file or directory they stand for now, and which after a crash.
//!
//! A change of names is an entry of `pending` until the directory is synced. At a crash either the first of them have
//! reached the disk (a journal), or some of them in any combination (a file system without one); a rename always as a
//! whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use rustix::io::Errno;

use super::content::{Content, Survival};
use crate::driver::{Entry, FileType, Metadata};
use crate::sim::Random;

/// The number of the root directory.
const ROOT: u64 = 1;
/// Permissions of a directory.
const DIR_MODE: u32 = 0o755;

type Names = BTreeMap<OsString, u64>;

enum Kind {
    File(Content),
    Dir { now: Names, kept: Names },
}

struct Inode {
    kind: Kind,
    mode: u32,
    modified: SystemTime,
}

/// Which names are meant: those programs see, or those on the disk.
#[derive(Clone, Copy)]
enum Seen {
    Now,
    AfterCrash,
}

/// One change of names, which happens as a whole or not at all.
struct Change {
    removed: Option<(u64, OsString)>,
    added: Option<(u64, OsString, u64)>,
}

impl Change {
    fn touches(&self, dir: u64) -> bool {
        self.removed.as_ref().is_some_and(|(from, _)| *from == dir)
            || self.added.as_ref().is_some_and(|(to, ..)| *to == dir)
    }
}

pub(super) struct Tree {
    inodes: BTreeMap<u64, Inode>,
    last: u64,
    pending: Vec<Change>,
}

impl Tree {
    /// With a root and `/tmp`, both on the disk.
    pub(super) fn new() -> Self {
        let mut tree = Self { inodes: BTreeMap::new(), last: 0, pending: Vec::new() };
        let root = tree.add(dir(), DIR_MODE, SystemTime::UNIX_EPOCH);
        debug_assert_eq!(root, ROOT);
        let made = tree.create_dir(Path::new("/tmp"), SystemTime::UNIX_EPOCH);
        debug_assert!(made.is_ok());
        tree.sync_names(ROOT);
        tree
    }

    fn add(&mut self, kind: Kind, mode: u32, modified: SystemTime) -> u64 {
        self.last += 1;
        self.inodes.insert(self.last, Inode { kind, mode, modified });
        self.last
    }

    fn names(&self, inode: u64) -> Result<&Names, Errno> {
        match self.inodes.get(&inode).map(|inode| &inode.kind) {
            Some(Kind::Dir { now, .. }) => Ok(now),
            Some(Kind::File(_)) => Err(Errno::NOTDIR),
            None => Err(Errno::NOENT),
        }
    }

    /// What a path stands for.
    pub(super) fn find(&self, path: &Path) -> Result<u64, Errno> {
        normal(path)
            .iter()
            .try_fold(ROOT, |dir, name| self.names(dir)?.get(name).copied().ok_or(Errno::NOENT))
    }

    /// The directory that a path lies in, and its name there.
    fn parent(&self, path: &Path) -> Result<(u64, OsString), Errno> {
        let normal = normal(path);
        let name = normal.file_name().ok_or(Errno::BUSY)?.to_owned();
        let dir = self.find(normal.parent().unwrap_or(Path::new("")))?;
        self.names(dir)?;
        Ok((dir, name))
    }

    pub(super) fn content(&mut self, inode: u64) -> Result<&mut Content, Errno> {
        match self.inodes.get_mut(&inode).map(|inode| &mut inode.kind) {
            Some(Kind::File(content)) => Ok(content),
            Some(Kind::Dir { .. }) => Err(Errno::ISDIR),
            None => Err(Errno::STALE),
        }
    }

    pub(super) fn touch(&mut self, inode: u64, now: SystemTime) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.modified = now;
        }
    }

    /// The file of this path, made if need be. `true`: it was made.
    pub(super) fn create(
        &mut self,
        path: &Path,
        mode: u32,
        now: SystemTime,
    ) -> Result<(u64, bool), Errno> {
        if let Ok(found) = self.find(path) {
            return Ok((found, false));
        }
        let (dir, name) = self.parent(path)?;
        let inode = self.add(Kind::File(Content::default()), mode, now);
        self.change(Change { removed: None, added: Some((dir, name, inode)) });
        Ok((inode, true))
    }

    pub(super) fn create_dir(&mut self, path: &Path, now: SystemTime) -> io::Result<()> {
        if self.find(path).is_ok() {
            return Err(Errno::EXIST.into());
        }
        let (parent, name) = self.parent(path)?;
        let inode = self.add(dir(), DIR_MODE, now);
        self.change(Change { removed: None, added: Some((parent, name, inode)) });
        Ok(())
    }

    pub(super) fn create_dir_all(&mut self, path: &Path, now: SystemTime) -> io::Result<()> {
        let mut above = PathBuf::new();
        for name in &normal(path) {
            above.push(name);
            match self.find(&above) {
                Ok(found) => drop(self.names(found)?),
                Err(_) => self.create_dir(&above, now)?,
            }
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.find(from)?;
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        if let Ok(replaced) = self.find(to) {
            match (self.names(inode).is_ok(), self.names(replaced)) {
                (true, Err(_)) => return Err(Errno::NOTDIR.into()),
                (false, Ok(_)) => return Err(Errno::ISDIR.into()),
                (true, Ok(names)) if !names.is_empty() => return Err(Errno::NOTEMPTY.into()),
                _ => {}
            }
        }
        if normal(to).starts_with(normal(from)) && normal(to) != normal(from) {
            return Err(Errno::INVAL.into());
        }
        self.change(Change {
            removed: Some((from_dir, from_name)),
            added: Some((to_dir, to_name, inode)),
        });
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        if self.names(self.find(path)?).is_ok() {
            return Err(Errno::ISDIR.into());
        }
        Ok(self.remove(path)?)
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        if !self.names(self.find(path)?)?.is_empty() {
            return Err(Errno::NOTEMPTY.into());
        }
        Ok(self.remove(path)?)
    }

    /// All names below first, as `rm -r` does.
    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let names: Vec<OsString> = self.names(self.find(path)?)?.keys().cloned().collect();
        for name in names {
            let below = path.join(name);
            match self.names(self.find(&below)?) {
                Ok(_) => self.remove_dir_all(&below)?,
                Err(_) => self.remove(&below)?,
            }
        }
        self.remove_dir(path)
    }

    fn remove(&mut self, path: &Path) -> Result<(), Errno> {
        let removed = Some(self.parent(path)?);
        self.change(Change { removed, added: None });
        Ok(())
    }

    pub(super) fn entries(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let names = self.names(self.find(path)?)?.iter();
        Ok(names
            .map(|(name, inode)| Entry { name: name.clone(), file_type: self.file_type(*inode) })
            .collect())
    }

    fn file_type(&self, inode: u64) -> FileType {
        if self.names(inode).is_ok() { FileType::Dir } else { FileType::File }
    }

    pub(super) fn metadata(&self, number: u64) -> io::Result<Metadata> {
        let inode = self.inodes.get(&number).ok_or(Errno::STALE)?;
        let len = match &inode.kind {
            Kind::File(content) => content.len(),
            Kind::Dir { .. } => 0,
        };
        let (file_type, mode, modified) = (self.file_type(number), inode.mode, inode.modified);
        Ok(Metadata { file_type, len, mode, modified, accessed: modified })
    }

    /// Bytes that all files take on the disk.
    pub(super) fn occupied(&self) -> u64 {
        let contents = self.inodes.values().filter_map(|inode| match &inode.kind {
            Kind::File(content) => Some(content.occupied()),
            Kind::Dir { .. } => None,
        });
        contents.sum()
    }

    /// Makes a change that programs see, and the disk does not have.
    fn change(&mut self, change: Change) {
        self.apply(&change, Seen::Now);
        self.pending.push(change);
    }

    fn apply(&mut self, change: &Change, seen: Seen) {
        if let Some((dir, name)) = &change.removed
            && let Some(names) = self.names_mut(*dir, seen)
        {
            names.remove(name);
        }
        if let Some((dir, name, inode)) = &change.added
            && let Some(names) = self.names_mut(*dir, seen)
        {
            names.insert(name.clone(), *inode);
        }
    }

    fn names_mut(&mut self, dir: u64, seen: Seen) -> Option<&mut Names> {
        match (&mut self.inodes.get_mut(&dir)?.kind, seen) {
            (Kind::Dir { now, .. }, Seen::Now) => Some(now),
            (Kind::Dir { kept, .. }, Seen::AfterCrash) => Some(kept),
            (Kind::File(_), _) => None,
        }
    }

    /// Puts the names of a directory on the disk.
    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.find(path)?;
        self.names(dir)?;
        self.sync_names(dir);
        Ok(())
    }

    fn sync_names(&mut self, dir: u64) {
        for change in std::mem::take(&mut self.pending) {
            if change.touches(dir) {
                self.apply(&change, Seen::AfterCrash);
            } else {
                self.pending.push(change);
            }
        }
    }

    /// The power is gone: what is there when it comes back.
    pub(super) fn crash(&mut self, survival: Survival, random: &Random) {
        let pending = std::mem::take(&mut self.pending);
        let journal = random.chance(0.5);
        let mut left = random.index(pending.len() + 1);
        for change in pending {
            let survives = match survival {
                Survival::Nothing => false,
                Survival::Everything => true,
                Survival::Some if journal => {
                    let first = left > 0;
                    left = left.saturating_sub(1);
                    first
                }
                Survival::Some => random.chance(0.5),
            };
            if survives {
                self.apply(&change, Seen::AfterCrash);
            }
        }
        for inode in self.inodes.values_mut() {
            match &mut inode.kind {
                Kind::Dir { now, kept } => now.clone_from(kept),
                Kind::File(content) => content.crash(survival, random),
            }
        }
        // What has no name left is gone.
        let mut named = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(dir) = open.pop() {
            if let Ok(names) = self.names(dir) {
                open.extend(names.values().filter(|&&inode| named.insert(inode)));
            }
        }
        self.inodes.retain(|number, _| named.contains(number));
    }
}

fn dir() -> Kind {
    Kind::Dir { now: Names::new(), kept: Names::new() }
}

/// From the root, without `.` and `..`: there are no symbolic links, and every program begins at the root.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push::<&OsStr>(name),
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    normal
}
