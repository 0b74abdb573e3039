//! A folder of which nothing is ever changed, whatever is asked of it: reading a log repairs it elsewhere.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::index;

pub(super) struct Frozen {
    path: PathBuf,
    /// Whether indexes are to be seen: without them everything is read.
    indexes: bool,
}

impl Frozen {
    pub(super) fn new(path: &Path, indexes: bool) -> Arc<Self> {
        Arc::new(Self { path: path.to_owned(), indexes })
    }

    fn hides(&self, name: &str) -> bool {
        // What was being written when its server died is removed by the next one.
        name.ends_with(".new") || (!self.indexes && index::number(name).is_some())
    }
}

impl Disk for Frozen {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        names.retain(|name| !self.hides(name));
        names.sort();
        Ok(names)
    }

    fn create(&self, _name: &str) -> io::Result<Box<dyn DiskFile>> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        if self.hides(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Box::new(FrozenFile(File::open(self.path.join(name))?)))
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

struct FrozenFile(File);

impl DiskFile for FrozenFile {
    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn reserve(&self, _bytes: u64) {}
}
