//! [`File`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;

use super::call::{ask, done, failed, metadata_of};
use super::{Metadata, OpenOptions};
use crate::driver::{Data, FileHandle, FileOp};
use crate::sync::Mutex;

/// Bytes that one read or write takes at most, because they are copied to or from a buffer of the operation's own.
const COPIED_MAX: usize = 256 << 10;

struct Inner {
    handle: FileHandle,
    path: Box<Path>,
    append: bool,
    position: Mutex<Position>,
    /// It cannot be positioned: a pipe, a terminal.
    stream: Cell<bool>,
    /// Reused from one copying operation to the next.
    buffer: RefCell<Vec<u8>>,
}

/// Where `Read` and `Write` go on.
#[derive(Clone, Copy, Debug)]
enum Position {
    At(u64),
    /// After an append, which does not tell where it went.
    End,
}

/// An open file.
///
/// `Read`, `Write` and `Seek` go by a position, which clones share; while one fiber reads or writes so, others that do
/// wait. After an append it is the end of the file, as that is when the position is next asked for. The `_at` methods do
/// not touch it, and any number of fibers may use them at a time. The file is closed when the last clone has gone and the
/// last operation is done.
pub struct File(Rc<Inner>);

impl File {
    pub(super) fn of(handle: FileHandle, path: &Path, append: bool) -> Self {
        Self(Rc::new(Inner {
            handle,
            path: path.into(),
            append,
            position: Mutex::new(Position::At(0)),
            stream: Cell::new(false),
            buffer: RefCell::default(),
        }))
    }

    /// Opens a file to read.
    ///
    /// # Suspends
    /// Until it is open.
    ///
    /// # Errors
    /// When it is not there or may not be read.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().read(true).open(path)
    }

    /// Opens a file to write; what it holds goes, and one that is not there is made.
    ///
    /// # Suspends
    /// Until it is open.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    /// As [`create`](Self::create), to read and write, for a file that must not be there.
    ///
    /// # Suspends
    /// Until it is open.
    ///
    /// # Errors
    /// `AlreadyExists`, or when it cannot be made.
    pub fn create_new(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    /// What can be set before opening.
    pub const fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// Takes a file over from the standard library. Its position starts from 0; of a file opened to append, all that
    /// is written goes to its end as before. `path` is for errors.
    pub fn from_std(file: std::fs::File, path: impl AsRef<Path>) -> Self {
        // Asked of the system, not of the disk.
        let append = rustix::fs::fcntl_getfl(&file)
            .is_ok_and(|flags| flags.contains(rustix::fs::OFlags::APPEND));
        let fd = OwnedFd::from(file);
        Self::of(FileHandle::Kernel(Arc::new(fd)), path.as_ref(), append)
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Another handle on the same file, with the same position.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.clone()))
    }

    /// Writes what the system still holds in memory to the disk: the bytes, and as much of the metadata as is needed to
    /// find them (`fdatasync`).
    ///
    /// # Suspends
    /// Until the disk has it.
    ///
    /// # Errors
    /// When the disk fails. What was written since the last success may be lost then, whatever a second try says.
    pub fn sync_data(&self) -> io::Result<()> {
        done("sync", &self.0.path, FileOp::SyncData { file: self.handle() })
    }

    /// As [`sync_data`](Self::sync_data), with all metadata (`fsync`).
    ///
    /// # Suspends
    /// Until the disk has it.
    ///
    /// # Errors
    /// As [`sync_data`](Self::sync_data).
    pub fn sync_all(&self) -> io::Result<()> {
        done("sync", &self.0.path, FileOp::SyncAll { file: self.handle() })
    }

    /// Cuts the file, or lets it grow with zeros.
    ///
    /// # Suspends
    /// Until done.
    ///
    /// # Errors
    /// When it is not open to write, or the disk is full.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        done("set the length of", &self.0.path, FileOp::SetLen { file: self.handle(), len })
    }

    /// Reserves room on the disk, so that a later write there cannot fail for want of it. The file grows as needed.
    ///
    /// # Suspends
    /// Until done.
    ///
    /// # Errors
    /// When there is no such room, and `Unsupported` of some file systems.
    pub fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let op = FileOp::Allocate { file: self.handle(), offset, len };
        done("reserve room for", &self.0.path, op)
    }

    /// What is known about it.
    ///
    /// # Suspends
    /// Until the system has answered.
    ///
    /// # Errors
    /// What the system says.
    pub fn metadata(&self) -> io::Result<Metadata> {
        metadata_of(&self.0.path, FileOp::FileMetadata { file: self.handle() })
    }

    /// Reads at an offset; 0 at the end. May read less than there is room for.
    ///
    /// # Suspends
    /// Until read.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.read_into(buffer, Some(offset))
    }

    /// As [`read_at`](Self::read_at), until the buffer is full.
    ///
    /// # Suspends
    /// Until read.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before.
    pub fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match self.read_at(buffer, offset)? {
                0 => return Err(self.failed("read", io::ErrorKind::UnexpectedEof.into())),
                count => {
                    buffer = &mut buffer[count..];
                    offset += count as u64;
                }
            }
        }
        Ok(())
    }

    /// Appends to `buffer` what there is at an offset, at most as much as it has spare capacity, without a copy. The
    /// buffer comes back with the result; it is lost when the fiber is killed meanwhile.
    ///
    /// # Suspends
    /// Until read.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_owned_at(&self, buffer: Vec<u8>, offset: u64) -> (io::Result<usize>, Vec<u8>) {
        self.ask_to_read(buffer, Some(offset))
    }

    /// As [`read_owned_at`](Self::read_owned_at), at the position.
    pub(super) fn read_owned(&mut self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        let mut position = self.0.position.lock();
        let offset = match self.offset(&mut position) {
            Ok(offset) => offset,
            Err(error) => return (Err(error), buffer),
        };
        let (mut read, buffer) = self.ask_to_read(buffer, offset);
        read = read.inspect(|count| position.advance(*count));
        (read, buffer)
    }

    /// Writes at an offset, perhaps not all. Of a file opened to append: at its end (POSIX has it otherwise, Linux so).
    ///
    /// # Suspends
    /// Until the system has taken it.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_at(&self, data: &[u8], offset: u64) -> io::Result<usize> {
        let data = &data[..data.len().min(COPIED_MAX)];
        self.write_from(data, Some(offset))
    }

    /// As [`write_at`](Self::write_at), all of it.
    ///
    /// # Suspends
    /// Until the system has taken it.
    ///
    /// # Errors
    /// What the system says; some of it may have been written.
    pub fn write_all_at(&self, mut data: &[u8], mut offset: u64) -> io::Result<()> {
        while !data.is_empty() {
            let count = self.write_at(data, offset)?;
            data = &data[count..];
            offset += count as u64;
        }
        Ok(())
    }

    /// As [`write_all_at`](Self::write_all_at), without a copy. The buffer comes back with the result; it is lost when
    /// the fiber is killed meanwhile.
    ///
    /// # Suspends
    /// Until the system has taken it.
    ///
    /// # Errors
    /// What the system says; some of it may have been written.
    pub fn write_owned_at(&self, data: Vec<u8>, offset: u64) -> (io::Result<()>, Vec<u8>) {
        let (written, data) = self.write_whole(Data::Owned(data), Some(offset));
        (written.map(drop), owned(data))
    }

    /// As [`write_all_at`](Self::write_all_at), for shared bytes, without a copy.
    ///
    /// # Suspends
    /// Until the system has taken it.
    ///
    /// # Errors
    /// What the system says; some of it may have been written.
    pub fn write_bytes_at(&self, data: Bytes, offset: u64) -> io::Result<()> {
        self.write_whole(Data::Shared(data), Some(offset)).0.map(drop)
    }

    /// All of `data`, at the position.
    pub(super) fn write_owned(&mut self, data: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
        let mut position = self.0.position.lock();
        let offset = match self.write_offset(&mut position) {
            Ok(offset) => offset,
            Err(error) => return (Err(error), data),
        };
        let (written, data) = self.write_whole(Data::Owned(data), offset);
        let written = written.map(|count| self.wrote(&mut position, count));
        (written, owned(data))
    }
}

fn owned(data: Option<Data>) -> Vec<u8> {
    match data {
        Some(Data::Owned(buffer)) => buffer,
        // The operation never came to an end.
        _ => Vec::new(),
    }
}

impl Position {
    fn advance(&mut self, count: usize) {
        if let Self::At(offset) = self {
            *offset += count as u64;
        }
    }
}

impl File {
    fn handle(&self) -> FileHandle {
        self.0.handle.clone()
    }

    fn failed(&self, what: &'static str, error: io::Error) -> io::Error {
        failed(what, &self.0.path, error)
    }

    /// The position as a number.
    fn resolve(&self, position: &mut Position) -> io::Result<u64> {
        match *position {
            Position::At(offset) => Ok(offset),
            Position::End => {
                let end = self.metadata()?.len();
                *position = Position::At(end);
                Ok(end)
            }
        }
    }

    /// Where a read at the position goes; `None` for a stream.
    fn offset(&self, position: &mut Position) -> io::Result<Option<u64>> {
        match self.0.stream.get() {
            true => Ok(None),
            false => self.resolve(position).map(Some),
        }
    }

    /// Where a write at the position goes: when appending, the system knows.
    fn write_offset(&self, position: &mut Position) -> io::Result<Option<u64>> {
        match self.0.append && !self.0.stream.get() {
            true => Ok(Some(0)),
            false => self.offset(position),
        }
    }

    fn wrote(&self, position: &mut Position, count: usize) {
        match self.0.append && count > 0 {
            true => *position = Position::End,
            false => position.advance(count),
        }
    }

    /// Whether a positioned operation failed because there are no positions: then it is tried again without.
    fn is_stream(&self, error: &io::Error) -> bool {
        let stream = error.raw_os_error() == Some(Errno::SPIPE.raw_os_error());
        self.0.stream.set(stream || self.0.stream.get());
        stream
    }

    fn ask_to_read(
        &self,
        mut buffer: Vec<u8>,
        mut offset: Option<u64>,
    ) -> (io::Result<usize>, Vec<u8>) {
        loop {
            let answer = ask(FileOp::Read { file: self.handle(), buffer, offset });
            buffer = owned(answer.buffer);
            match answer.result {
                Ok(reply) => return (Ok(reply.count()), buffer),
                Err(error) if offset.is_some() && self.is_stream(&error) => offset = None,
                Err(error) => return (Err(self.failed("read", error)), buffer),
            }
        }
    }

    fn read_into(&self, buffer: &mut [u8], offset: Option<u64>) -> io::Result<usize> {
        let mut copy = self.0.buffer.take();
        copy.clear();
        let room = buffer.len().min(COPIED_MAX);
        // Not more than was asked for may be read: the buffer at hand may be larger.
        if room < copy.capacity() {
            copy.shrink_to(room);
        }
        copy.reserve_exact(room);
        let (read, copy) = self.ask_to_read(copy, offset);
        let count = read?;
        let count = count.min(buffer.len());
        buffer[..count].copy_from_slice(&copy[..count]);
        self.0.buffer.replace(copy);
        Ok(count)
    }

    /// Writes the first bytes of `data`; how many.
    fn write_once(
        &self,
        data: Data,
        from: usize,
        offset: &mut Option<u64>,
    ) -> (io::Result<usize>, Option<Data>) {
        let mut data = data;
        loop {
            let answer = ask(FileOp::Write { file: self.handle(), data, from, offset: *offset });
            match (answer.result, answer.buffer) {
                (Ok(reply), buffer) => return (Ok(reply.count()), buffer),
                (Err(error), Some(buffer)) if offset.is_some() && self.is_stream(&error) => {
                    (data, *offset) = (buffer, None);
                }
                (Err(error), buffer) => return (Err(self.failed("write", error)), buffer),
            }
        }
    }

    fn write_from(&self, data: &[u8], mut offset: Option<u64>) -> io::Result<usize> {
        let mut copy = self.0.buffer.take();
        copy.clear();
        copy.extend_from_slice(data);
        let (written, buffer) = self.write_once(Data::Owned(copy), 0, &mut offset);
        self.0.buffer.replace(owned(buffer));
        match written? {
            0 if !data.is_empty() => Err(self.failed("write", io::ErrorKind::WriteZero.into())),
            count => Ok(count),
        }
    }

    /// Writes all of `data`; how much that was.
    fn write_whole(
        &self,
        mut data: Data,
        mut offset: Option<u64>,
    ) -> (io::Result<usize>, Option<Data>) {
        let total = data.as_slice().len();
        let mut from = 0;
        while from < total {
            let (written, buffer) = self.write_once(data, from, &mut offset);
            let count = match written {
                Ok(0) => Err(self.failed("write", io::ErrorKind::WriteZero.into())),
                other => other,
            };
            match (count, buffer) {
                (Ok(count), Some(buffer)) => {
                    data = buffer;
                    from += count;
                    offset = offset.map(|offset| offset + count as u64);
                }
                (count, buffer) => return (count, buffer),
            }
        }
        (Ok(total), Some(data))
    }
}

impl Read for &File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut position = self.0.position.lock();
        let offset = self.offset(&mut position)?;
        let count = self.read_into(buffer, offset)?;
        position.advance(count);
        Ok(count)
    }

    fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let mut position = self.0.position.lock();
        let offset = self.offset(&mut position)?;
        let rest = match offset {
            Some(offset) => self.metadata()?.len().saturating_sub(offset),
            None => 0,
        };
        // One more, which tells the end apart from a file that grew.
        bytes.try_reserve(usize::try_from(rest).unwrap_or(usize::MAX).saturating_add(1))?;
        let start = bytes.len();
        let mut buffer = std::mem::take(bytes);
        loop {
            if buffer.len() == buffer.capacity() {
                buffer.reserve(4096);
            }
            let offset = self.offset(&mut position)?;
            let read;
            (read, buffer) = self.ask_to_read(buffer, offset);
            match read {
                Ok(0) => {
                    *bytes = buffer;
                    return Ok(bytes.len() - start);
                }
                Ok(count) => position.advance(count),
                Err(error) => {
                    *bytes = buffer;
                    return Err(error);
                }
            }
        }
    }
}

impl Write for &File {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut position = self.0.position.lock();
        let offset = self.write_offset(&mut position)?;
        let data = &data[..data.len().min(COPIED_MAX)];
        let count = self.write_from(data, offset)?;
        self.wrote(&mut position, count);
        Ok(count)
    }

    /// Nothing: what was written is with the system already.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut position = self.0.position.lock();
        let (base, by) = match to {
            SeekFrom::Start(offset) => (offset, 0),
            SeekFrom::Current(by) => (self.resolve(&mut position)?, by),
            SeekFrom::End(by) => (self.metadata()?.len(), by),
        };
        let Some(offset) = base.checked_add_signed(by) else {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "before the start of the file");
            return Err(self.failed("seek in", error));
        };
        *position = Position::At(offset);
        Ok(offset)
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }

    fn read_to_end(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        (&*self).read_to_end(bytes)
    }
}

impl Write for File {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self).seek(to)
    }
}

impl AsFd for File {
    /// # Panics
    /// In a simulation, where files have no descriptor.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.handle.kernel().expect("a simulated file has no descriptor")
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File")
            .field("path", &self.0.path)
            .field("handle", &self.0.handle)
            .finish_non_exhaustive()
    }
}
