//! Files for fibers, shaped like `std::fs`: the fiber parks while the disk works, and the others go on.
//!
//! The kernel cannot say whether a file's bytes are at hand, so reading one may block a thread. The hub hands each
//! operation to a ring of the kernel, or to a thread where there is none ([`DriverKind`](crate::DriverKind)), with a
//! buffer that belongs to the operation. A fiber that is killed meanwhile goes at once; its operation is carried out
//! all the same.
//!
//! ```
//! use std::io::{BufRead, BufReader, Write};
//! use warren_hub::{fs, run};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("list");
//! run(move || -> std::io::Result<()> {
//!     let mut file = fs::File::create(&path)?;
//!     writeln!(file, "one")?;
//!     file.sync_data()?;
//!     let lines: Vec<String> = BufReader::new(fs::File::open(&path)?).lines().collect::<Result<_, _>>()?;
//!     assert_eq!(lines, ["one"]);
//!     Ok(())
//! })?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Every function here suspends until the system has answered, fails with what the system says, and panics outside a
//! fiber. An error names the path; what the system said is its [`source`](std::error::Error::source), and its kind is
//! the same. A fiber that unwinds does not wait for its operation, which is carried out: it gets `TimedOut`.

mod call;
mod file;
mod options;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::driver::{Entry, FileOp};
use call::{call, done, metadata_of};

pub use crate::driver::{FileType, Metadata};
pub use file::File;
pub use options::OpenOptions;

/// Bytes that [`copy`] reads at once.
const COPY_BYTES: usize = 256 << 10;

/// All of a file.
///
/// # Errors
/// When it cannot be opened or read.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// All of a file that is text.
///
/// # Errors
/// When it cannot be opened or read; `InvalidData` when it is not UTF-8.
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Makes a file of these bytes, in place of what it held. They may not be on the disk yet: that takes a
/// [`File::sync_all`], and for a new file a [`sync_dir`].
///
/// # Errors
/// When it cannot be created or written.
pub fn write(path: impl AsRef<Path>, data: impl AsRef<[u8]>) -> io::Result<()> {
    File::create(path)?.write_all(data.as_ref())
}

/// Gives a file another name, in place of the one that has it. Whoever looks meanwhile sees the one or the other.
///
/// # Errors
/// When there is no `from`, or `to` is in another file system.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    done("rename", from, FileOp::Rename { from: from.into(), to: to.into() })
}

/// Copies a file's bytes and permissions, in place of what `to` held; the bytes copied.
///
/// # Errors
/// When one cannot be read or the other not be written, and for what is no plain file.
pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<u64> {
    let mut reader = File::open(&from)?;
    let metadata = reader.metadata()?;
    if !metadata.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file");
        return Err(call::failed("copy", from.as_ref(), error));
    }
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(metadata.mode());
    let mut writer = options.open(to)?;
    let mut buffer = Vec::with_capacity(COPY_BYTES);
    let mut total = 0;
    loop {
        buffer.clear();
        let (read, filled) = reader.read_owned(buffer);
        if read? == 0 {
            return Ok(total);
        }
        total += filled.len() as u64;
        let (written, emptied) = writer.write_owned(filled);
        written?;
        buffer = emptied;
    }
}

/// Removes a file, or a symbolic link. Whoever has it open keeps it.
///
/// # Errors
/// When it is not there, or is a directory.
pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    done("remove", path, FileOp::RemoveFile { path: path.into() })
}

/// Makes a directory.
///
/// # Errors
/// When something has the name already, or the one above is not there.
pub fn create_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    done("create", path, FileOp::CreateDir { path: path.into() })
}

/// Makes a directory and those above it, as far as they are not there.
///
/// # Errors
/// When one cannot be made.
pub fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    done("create", path, FileOp::CreateDirAll { path: path.into() })
}

/// Removes an empty directory.
///
/// # Errors
/// When it is not there or not empty.
pub fn remove_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    done("remove", path, FileOp::RemoveDir { path: path.into() })
}

/// Removes a directory and all that is in it. Symbolic links are removed and not followed.
///
/// # Errors
/// When it is not there, or something in it cannot be removed.
pub fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    done("remove", path, FileOp::RemoveDirAll { path: path.into() })
}

/// Makes names last that were created, given or removed in a directory: `fsync` of the directory. Without it, a file
/// that was synced itself may have no name after a loss of power.
///
/// # Errors
/// When it cannot be opened or synced.
pub fn sync_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    done("sync", path, FileOp::SyncDir { path: path.into() })
}

/// What is known about a file; of a symbolic link, about what it points to.
///
/// # Errors
/// When it is not there or not to be reached.
pub fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    let path = path.as_ref();
    metadata_of(path, FileOp::Metadata { path: path.into(), follow: true })
}

/// As [`metadata`], of a symbolic link itself.
///
/// # Errors
/// When it is not there or not to be reached.
pub fn symlink_metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    let path = path.as_ref();
    metadata_of(path, FileOp::Metadata { path: path.into(), follow: false })
}

/// Whether there is such a file; of a symbolic link, what it points to.
///
/// # Errors
/// When that cannot be found out.
pub fn exists(path: impl AsRef<Path>) -> io::Result<bool> {
    match metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is in a directory, in no order, without `.` and `..`: as it was when this was called.
///
/// # Errors
/// When it is not there, or no directory.
pub fn read_dir(path: impl AsRef<Path>) -> io::Result<ReadDir> {
    let path = path.as_ref();
    let entries = call("list", path, FileOp::ReadDir { path: path.into() })?.entries();
    Ok(ReadDir { path: path.into(), entries: entries.into_iter() })
}

/// The names in a directory; made by [`read_dir`].
#[derive(Debug)]
pub struct ReadDir {
    path: PathBuf,
    entries: std::vec::IntoIter<Entry>,
}

impl Iterator for ReadDir {
    type Item = DirEntry;

    fn next(&mut self) -> Option<DirEntry> {
        let entry = self.entries.next()?;
        Some(DirEntry { path: self.path.join(&entry.name), entry })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

/// One name in a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    path: PathBuf,
    entry: Entry,
}

impl DirEntry {
    /// The name, with the path that [`read_dir`] was given before it.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// The name alone.
    pub fn file_name(&self) -> OsString {
        self.entry.name.clone()
    }

    /// The name alone, borrowed.
    pub fn name(&self) -> &OsStr {
        &self.entry.name
    }

    /// What it is; a symbolic link is not followed.
    pub fn file_type(&self) -> FileType {
        self.entry.file_type
    }

    /// What is known about it; a symbolic link is not followed.
    ///
    /// # Errors
    /// When it has gone since.
    pub fn metadata(&self) -> io::Result<Metadata> {
        symlink_metadata(&self.path)
    }
}
