//! What a hub asks of a file system, as values: a driver hands them to a ring of the kernel, to a thread, or to a disk
//! in memory.
//!
//! Whatever an operation needs it owns, its buffer too: the fiber that asked may be killed meanwhile, and the operation
//! goes on to its end all the same. The buffer comes back with the [`Answer`], also when it failed.

mod perform;

use std::any::Any;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

/// A file that is open, shared by all who use it. It is closed when the last handle goes, or when the last operation
/// that has one is done.
#[derive(Clone)]
pub(crate) enum FileHandle {
    Kernel(Arc<OwnedFd>),
    /// Whatever the simulation finds its file by. It goes when the file is closed.
    Simulated(Arc<dyn Any + Send + Sync>),
}

impl FileHandle {
    /// The descriptor; `None` in a simulation.
    pub(crate) fn kernel(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Kernel(fd) => Some(fd.as_fd()),
            Self::Simulated(_) => None,
        }
    }
}

impl fmt::Debug for FileHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(fd) => fd.fmt(f),
            Self::Simulated(_) => f.write_str("simulated"),
        }
    }
}

/// How a file is opened: `std::fs::OpenOptions` as a plain value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
    pub(crate) truncate: bool,
    pub(crate) create: bool,
    pub(crate) create_new: bool,
    /// Permissions of a file that is made, before the process's mask.
    pub(crate) mode: u32,
    /// More flags of `open`, such as `O_DIRECT`.
    pub(crate) custom_flags: i32,
}

/// Bytes to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Owned(Vec<u8>),
    Shared(Bytes),
}

impl Data {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// One operation.
#[derive(Debug)]
pub(crate) enum FileOp {
    Open {
        path: PathBuf,
        how: Open,
    },
    /// Appends to `buffer` what is read, at most as much as it has spare capacity. Without an offset: from where the
    /// stream is, for files that cannot be positioned, such as a terminal.
    Read {
        file: FileHandle,
        buffer: Vec<u8>,
        offset: Option<u64>,
    },
    /// Writes `data`, the first `from` bytes of which are left out; perhaps not all of the rest. A file opened to
    /// append takes them at its end, whatever the offset.
    Write {
        file: FileHandle,
        data: Data,
        from: usize,
        offset: Option<u64>,
    },
    /// `fdatasync`.
    SyncData {
        file: FileHandle,
    },
    /// `fsync`.
    SyncAll {
        file: FileHandle,
    },
    SetLen {
        file: FileHandle,
        len: u64,
    },
    /// Reserves room on the disk, so that writing there cannot fail for want of it. The file grows as needed.
    Allocate {
        file: FileHandle,
        offset: u64,
        len: u64,
    },
    FileMetadata {
        file: FileHandle,
    },
    /// `follow`: of what a symbolic link points to.
    Metadata {
        path: PathBuf,
        follow: bool,
    },
    /// What has the name `to` goes.
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    RemoveFile {
        path: PathBuf,
    },
    CreateDir {
        path: PathBuf,
    },
    /// With those above it; fine when it is there already.
    CreateDirAll {
        path: PathBuf,
    },
    /// Empty ones only.
    RemoveDir {
        path: PathBuf,
    },
    RemoveDirAll {
        path: PathBuf,
    },
    ReadDir {
        path: PathBuf,
    },
    /// Makes what was created, renamed or removed in a directory last.
    SyncDir {
        path: PathBuf,
    },
}

/// What an operation that succeeded tells.
#[derive(Debug)]
pub(crate) enum Reply {
    /// It is done, and there is nothing to tell.
    Done,
    Opened(FileHandle),
    /// Bytes read or written.
    Count(usize),
    Metadata(Metadata),
    /// In no order.
    Entries(Vec<Entry>),
}

/// How an operation went, and the buffer it was given.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) result: io::Result<Reply>,
    /// Of a read or write.
    pub(crate) buffer: Option<Data>,
}

/// Hears how an operation went: on the loop or on another thread, but never before [`Driver::file`](super::Driver::file)
/// has returned. Dropped without being called when nobody can do the operation.
pub(crate) type Completion = Box<dyn FnOnce(Answer) + Send>;

/// What a name in the file system stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileType {
    /// A plain file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A socket, a pipe, a device.
    Other,
}

impl FileType {
    /// A plain file.
    pub fn is_file(&self) -> bool {
        *self == Self::File
    }

    /// A directory.
    pub fn is_dir(&self) -> bool {
        *self == Self::Dir
    }

    /// A symbolic link.
    pub fn is_symlink(&self) -> bool {
        *self == Self::Symlink
    }
}

/// What is known about a file besides its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub(crate) file_type: FileType,
    pub(crate) len: u64,
    pub(crate) mode: u32,
    pub(crate) modified: SystemTime,
    pub(crate) accessed: SystemTime,
}

impl Metadata {
    /// What it is.
    pub fn file_type(&self) -> FileType {
        self.file_type
    }

    /// A plain file.
    pub fn is_file(&self) -> bool {
        self.file_type.is_file()
    }

    /// A directory.
    pub fn is_dir(&self) -> bool {
        self.file_type.is_dir()
    }

    /// A symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.file_type.is_symlink()
    }

    /// Bytes in it.
    #[allow(clippy::len_without_is_empty, reason = "as std::fs::Metadata")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Who may do what with it: the lower twelve bits of `st_mode`.
    pub fn mode(&self) -> u32 {
        self.mode
    }

    /// When its content was changed last.
    pub fn modified(&self) -> SystemTime {
        self.modified
    }

    /// When it was read last, as far as the file system keeps count.
    pub fn accessed(&self) -> SystemTime {
        self.accessed
    }
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: OsString,
    pub(crate) file_type: FileType,
}
