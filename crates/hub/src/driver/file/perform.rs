//! File operations as blocking calls: on a thread of the pool.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{Answer, Data, Entry, FileHandle, FileOp, FileType, Metadata, Open, Reply};

impl FileOp {
    /// Does it, and blocks the thread meanwhile.
    pub(crate) fn perform(self) -> Answer {
        match self {
            Self::Read { file, mut buffer, offset } => {
                let result = uninterrupted(|| read(&file, &mut buffer, offset));
                Answer { result: result.map(Reply::Count), buffer: Some(Data::Owned(buffer)) }
            }
            Self::Write { file, data, from, offset } => {
                let rest = data.as_slice().get(from..).unwrap_or_default();
                let result = uninterrupted(|| write(&file, rest, offset));
                Answer { result: result.map(Reply::Count), buffer: Some(data) }
            }
            other => Answer { result: uninterrupted(|| other.perform_once()), buffer: None },
        }
    }

    fn perform_once(&self) -> io::Result<Reply> {
        match self {
            Self::Read { .. } | Self::Write { .. } => unreachable!("they own a buffer"),
            Self::Open { path, how } => {
                let flags = OFlags::from_bits_retain(how.flags()?.cast_unsigned());
                let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(how.mode))?;
                return Ok(Reply::Opened(FileHandle::Kernel(Arc::new(fd))));
            }
            Self::SyncData { file } => rustix::fs::fdatasync(fd(file)?)?,
            Self::SyncAll { file } => rustix::fs::fsync(fd(file)?)?,
            Self::SetLen { file, len } => rustix::fs::ftruncate(fd(file)?, *len)?,
            Self::Allocate { file, offset, len } => {
                rustix::fs::fallocate(fd(file)?, FallocateFlags::empty(), *offset, *len)?;
            }
            Self::FileMetadata { file } => {
                let file = fs::File::from(fd(file)?.try_clone_to_owned()?);
                return Ok(Reply::Metadata((&file.metadata()?).into()));
            }
            Self::Metadata { path, follow: true } => {
                return Ok(Reply::Metadata((&fs::metadata(path)?).into()));
            }
            Self::Metadata { path, follow: false } => {
                return Ok(Reply::Metadata((&fs::symlink_metadata(path)?).into()));
            }
            Self::Rename { from, to } => fs::rename(from, to)?,
            Self::RemoveFile { path } => fs::remove_file(path)?,
            Self::CreateDir { path } => fs::create_dir(path)?,
            Self::CreateDirAll { path } => fs::create_dir_all(path)?,
            Self::RemoveDir { path } => fs::remove_dir(path)?,
            Self::RemoveDirAll { path } => fs::remove_dir_all(path)?,
            Self::ReadDir { path } => return entries(path).map(Reply::Entries),
            Self::SyncDir { path } => fs::File::open(path)?.sync_all()?,
        }
        Ok(Reply::Done)
    }
}

/// Again, when a signal came in between.
fn uninterrupted<R>(mut call: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Only the kernel's files come here.
fn fd(file: &FileHandle) -> io::Result<BorrowedFd<'_>> {
    file.kernel().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

fn read(file: &FileHandle, buffer: &mut Vec<u8>, offset: Option<u64>) -> io::Result<usize> {
    let fd = fd(file)?;
    if buffer.len() == buffer.capacity() {
        return Ok(0);
    }
    let room = spare_capacity(buffer);
    Ok(match offset {
        Some(offset) => rustix::io::pread(fd, room, offset)?,
        None => rustix::io::read(fd, room)?,
    })
}

fn write(file: &FileHandle, data: &[u8], offset: Option<u64>) -> io::Result<usize> {
    let fd = fd(file)?;
    Ok(match offset {
        Some(offset) => rustix::io::pwrite(fd, data, offset)?,
        None => rustix::io::write(fd, data)?,
    })
}

impl Open {
    /// The flags of `open(2)`, by the rules of `std::fs::OpenOptions`.
    pub(crate) fn flags(&self) -> io::Result<i32> {
        let writes = self.write || self.append;
        let changes = self.truncate || self.create || self.create_new;
        let contradicts = (!writes && (!self.read || changes))
            || (self.append && self.truncate && !self.create_new);
        if contradicts {
            return Err(Errno::INVAL.into());
        }
        let access = match (self.read, writes) {
            (true, true) => OFlags::RDWR,
            (false, _) => OFlags::WRONLY,
            (true, false) => OFlags::RDONLY,
        };
        let mut flags = access | OFlags::CLOEXEC | OFlags::LARGEFILE;
        flags.set(OFlags::APPEND, self.append);
        flags.set(OFlags::CREATE, self.create || self.create_new);
        flags.set(OFlags::TRUNC, self.truncate && !self.create_new);
        flags.set(OFlags::EXCL, self.create_new);
        let custom = self.custom_flags & !OFlags::RWMODE.bits().cast_signed();
        Ok(flags.bits().cast_signed() | custom)
    }
}

fn entries(path: &Path) -> io::Result<Vec<Entry>> {
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        Ok(Entry { name: entry.file_name(), file_type: entry.file_type()?.into() })
    };
    fs::read_dir(path)?.map(entry).collect()
}

impl From<fs::FileType> for FileType {
    fn from(file_type: fs::FileType) -> Self {
        match file_type {
            is if is.is_file() => Self::File,
            is if is.is_dir() => Self::Dir,
            is if is.is_symlink() => Self::Symlink,
            _ => Self::Other,
        }
    }
}

impl From<&fs::Metadata> for Metadata {
    fn from(metadata: &fs::Metadata) -> Self {
        let epoch = std::time::SystemTime::UNIX_EPOCH;
        Self {
            file_type: metadata.file_type().into(),
            len: metadata.len(),
            mode: metadata.mode() & 0o7777,
            modified: metadata.modified().unwrap_or(epoch),
            accessed: metadata.accessed().unwrap_or(epoch),
        }
    }
}
