//! What the message log asks of a file system: a folder of flat files. Tests put a simulated one in its place.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};

/// A folder.
pub(super) trait Disk: Send + Sync {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes an empty file in the place of any of that name.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that is there.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Waits until names are as they are now even after a crash.
    fn sync_names(&self) -> io::Result<()>;
    /// For people.
    fn path(&self, name: &str) -> PathBuf;
}

/// An open file.
pub(super) trait DiskFile: Send {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reads as many bytes as `buffer` has.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Waits until content and length are on the device.
    fn sync(&self) -> io::Result<()>;
    /// Has room set aside, if the file system can; the length stays.
    fn reserve(&self, bytes: u64);
}

/// A folder of the system's.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Whether a sync waits for the device.
    durable: bool,
}

impl Folder {
    pub(super) fn new(path: &Path, durable: bool) -> Arc<Self> {
        Arc::new(Self { path: path.to_owned(), durable })
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let path = self.path.join(name);
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
        open.map(|file| Box::new(OsFile { file, durable: self.durable }) as Box<dyn DiskFile>)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Box::new(OsFile { file, durable: self.durable }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        if self.durable { File::open(&self.path)?.sync_all() } else { Ok(()) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

#[derive(Debug)]
struct OsFile {
    file: File,
    durable: bool,
}

impl DiskFile for OsFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        if self.durable { self.file.sync_data() } else { Ok(()) }
    }

    fn reserve(&self, bytes: u64) {
        // Where the file system cannot, blocks come as they are needed.
        let _ = fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, bytes);
    }
}

/// All of a file.
pub(super) fn read_all(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Octets of a large file that are handed to the device at once: what publishers wait for waits behind them.
const SLICE_BYTES: usize = 1024 * 1024;

/// Makes a file that is there whole, or not at all: under another name first.
pub(super) fn write_whole(disk: &dyn Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let fresh = format!("{name}.new");
    let write = || {
        let file = disk.create(&fresh)?;
        file.reserve(bytes.len() as u64);
        for (nth, slice) in bytes.chunks(SLICE_BYTES).enumerate() {
            file.write_at(slice, (nth * SLICE_BYTES) as u64)?;
            file.sync()?;
        }
        Ok(())
    };
    write().inspect_err(|_: &io::Error| {
        // The room it takes may be what is missing.
        let _ = disk.remove(&fresh);
    })?;
    disk.rename(&fresh, name)?;
    disk.sync_names()
}

/// Makes a folder with those it is in. Their names are on the device then.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_folder(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    File::open(parent)?.sync_all()
}

/// Removes a file, which may have gone.
pub(super) fn remove_if_there(disk: &dyn Disk, name: &str) -> io::Result<()> {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
