//! A store on a disk that refuses to write when a test says so, for tests of those who use it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::store::disk::{Disk, DiskFile};
use crate::store::{Durability, OnSync, Recovered, Store};

/// The system's number of the error; 0: it writes.
#[derive(Clone, Default)]
pub(crate) struct Refusal(Arc<AtomicI32>);

impl Refusal {
    pub(crate) fn set(&self, errno: i32) {
        self.0.store(errno, Ordering::SeqCst);
    }

    fn check(&self) -> io::Result<()> {
        match self.0.load(Ordering::SeqCst) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

struct RefusingDisk(Arc<dyn Disk>, Refusal);

struct RefusingFile(Box<dyn DiskFile>, Refusal);

impl Store {
    /// Opens a store whose disk can be told to refuse.
    pub(crate) fn open_refusing(folder: &Path, on_sync: OnSync) -> (Self, Recovered, Refusal) {
        let refusal = Refusal::default();
        let between = |disk| Arc::new(RefusingDisk(disk, refusal.clone())) as Arc<dyn Disk>;
        let (store, recovered) =
            Self::open_on(folder, Durability::default(), between, on_sync).unwrap();
        (store, recovered, refusal)
    }
}

impl RefusingDisk {
    fn file(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(RefusingFile(file, self.1.clone()))
    }
}

impl Disk for RefusingDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.1.check()?;
        self.0.create(name).map(|file| self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.0.open(name).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.1.check()?;
        self.0.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.1.check()?;
        self.0.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.1.check()?;
        self.0.sync_names()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }
}

impl DiskFile for RefusingFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.check()?;
        self.0.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.1.check()?;
        self.0.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.1.check()?;
        self.0.sync()
    }

    fn reserve(&self, bytes: u64) {
        self.0.reserve(bytes);
    }
}
