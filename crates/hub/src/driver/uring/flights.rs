//! File operations that are with the kernel, each with what it needs and who waits for it.
//!
//! A flight owns its paths, its buffer and its file until the kernel has answered. So nothing the kernel may still write
//! to is ever freed, whatever becomes of the fiber that asked: when a ring ends before its flights, they are waited for,
//! and what does not end is leaked.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use io_uring::types::{Fd, FsyncFlags};
use io_uring::{Probe, opcode, squeue};
use rustix::io::Errno;
use slab::Slab;

use super::ring::{Ring, RingDone};
use crate::driver::{Answer, Completion, Data, FileHandle, FileOp, FileType, Metadata, Reply};

/// Names of flights begin with these two bits; a hub's keys, and those of this driver's own, do not.
const FLIGHT: u64 = 0b10 << 62;
/// What the kernel moves by one operation at most.
const BYTES_MAX: usize = 0x7fff_f000;
/// How long the end of a ring may wait for its flights.
const SETTLE: Duration = Duration::from_secs(5);

pub(crate) struct Flights {
    probe: Probe,
    flights: Slab<Flight>,
}

/// Boxed parts do not move when the table grows.
struct Flight {
    op: FileOp,
    done: Completion,
    paths: [CString; 2],
    stat: Option<Box<libc::statx>>,
}

/// An operation that a ring cannot do.
pub(crate) type Refused = (FileOp, Completion);

impl Flights {
    pub(crate) fn new(ring: &Ring) -> Self {
        Self { probe: ring.probe(), flights: Slab::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Queues an operation, or gives it back.
    pub(crate) fn start(
        &mut self,
        ring: &mut Ring,
        op: FileOp,
        done: Completion,
    ) -> Result<(), Refused> {
        let Some(paths) = paths(&op) else { return Err((op, done)) };
        let vacant = self.flights.vacant_entry();
        let key = FLIGHT | vacant.key() as u64;
        let flight = vacant.insert(Flight { op, done, paths, stat: None });
        let entry = flight.entry().filter(|entry| {
            self.probe.is_supported(u8::try_from(entry.get_opcode()).unwrap_or(u8::MAX))
        });
        let Some(entry) = entry else {
            let flight = self.flights.remove(key as u32 as usize);
            return Err((flight.op, flight.done));
        };
        // SAFETY: what the request names belongs to the flight, which stays until its completion is taken.
        unsafe { ring.push(entry.user_data(key)) };
        Ok(())
    }

    /// Whether a completion is one of these.
    pub(crate) fn owns(key: u64) -> bool {
        key >> 62 == FLIGHT >> 62
    }

    /// Ends the flight of a completion. `None` when the operation was interrupted and goes on.
    pub(crate) fn land(&mut self, ring: &mut Ring, done: RingDone) -> Option<(Completion, Answer)> {
        let index = done.key as u32 as usize;
        if done.result == -Errno::INTR.raw_os_error()
            && let Some(entry) = self.flights.get_mut(index).and_then(Flight::entry)
        {
            // SAFETY: as in `start`.
            unsafe { ring.push(entry.user_data(done.key)) };
            return None;
        }
        let flight = self.flights.try_remove(index)?;
        let result = match done.result {
            count @ 0.. => Ok(count as usize),
            error => Err(io::Error::from_raw_os_error(-error)),
        };
        Some(flight.answer(result))
    }

    /// Waits for what is under way, gives up what may wait for ever, and leaks what does not end.
    pub(crate) fn settle(&mut self, ring: &mut Ring) {
        if self.is_empty() {
            return;
        }
        for (index, flight) in &self.flights {
            let waits = match &flight.op {
                // Of a named pipe.
                FileOp::Open { .. } => true,
                // Of a terminal, a pipe.
                FileOp::Read { offset: None, .. } | FileOp::Write { offset: None, .. } => true,
                _ => false,
            };
            if waits {
                ring.cancel(FLIGHT | index as u64);
            }
        }
        let deadline = Instant::now() + SETTLE;
        let mut landed = Vec::new();
        while !self.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || ring.enter(Some(left)).is_err() {
                break;
            }
            ring.take(&mut landed);
            for done in landed.drain(..).filter(|done| Self::owns(done.key)) {
                let _ = self.land(ring, done);
            }
        }
        if !self.is_empty() {
            tracing::error!(
                count = self.flights.len(),
                "file operations do not end; their buffers are leaked"
            );
            std::mem::forget(std::mem::take(&mut self.flights));
        }
    }
}

/// The paths of an operation for the kernel; `None` for what a ring cannot do.
fn paths(op: &FileOp) -> Option<[CString; 2]> {
    let path = |path: &Path| CString::new(path.as_os_str().as_bytes()).ok();
    match op {
        FileOp::Open { path: one, .. }
        | FileOp::Metadata { path: one, .. }
        | FileOp::RemoveFile { path: one }
        | FileOp::CreateDir { path: one }
        | FileOp::RemoveDir { path: one } => Some([path(one)?, CString::default()]),
        FileOp::Rename { from, to } => Some([path(from)?, path(to)?]),
        FileOp::CreateDirAll { .. }
        | FileOp::RemoveDirAll { .. }
        | FileOp::ReadDir { .. }
        | FileOp::SyncDir { .. } => None,
        FileOp::Read { file, .. }
        | FileOp::Write { file, .. }
        | FileOp::SyncData { file }
        | FileOp::SyncAll { file }
        | FileOp::SetLen { file, .. }
        | FileOp::Allocate { file, .. }
        | FileOp::FileMetadata { file } => file.kernel().map(|_| Default::default()),
    }
}

fn fd(file: &FileHandle) -> Option<Fd> {
    file.kernel().map(|fd| Fd(fd.as_raw_fd()))
}

impl Flight {
    /// The request. What it points to belongs to `self`.
    fn entry(&mut self) -> Option<squeue::Entry> {
        let here = Fd(libc::AT_FDCWD);
        let [path, other] = [self.paths[0].as_ptr(), self.paths[1].as_ptr()];
        let room = |len: usize| len.min(BYTES_MAX) as u32;
        // The kernel reads this as "where the stream is".
        let place = |offset: &Option<u64>| offset.unwrap_or(u64::MAX);
        Some(match &mut self.op {
            FileOp::Open { how, .. } => {
                opcode::OpenAt::new(here, path).flags(how.flags().ok()?).mode(how.mode).build()
            }
            FileOp::Read { file, buffer, offset } => {
                let spare = buffer.spare_capacity_mut();
                opcode::Read::new(fd(file)?, spare.as_mut_ptr().cast(), room(spare.len()))
                    .offset(place(offset))
                    .build()
            }
            FileOp::Write { file, data, from, offset } => {
                let rest = data.as_slice().get(*from..).unwrap_or_default();
                opcode::Write::new(fd(file)?, rest.as_ptr(), room(rest.len()))
                    .offset(place(offset))
                    .build()
            }
            FileOp::SyncData { file } => {
                opcode::Fsync::new(fd(file)?).flags(FsyncFlags::DATASYNC).build()
            }
            FileOp::SyncAll { file } => opcode::Fsync::new(fd(file)?).build(),
            FileOp::SetLen { file, len } => opcode::Ftruncate::new(fd(file)?, *len).build(),
            FileOp::Allocate { file, offset, len } => {
                opcode::Fallocate::new(fd(file)?, *len).offset(*offset).build()
            }
            FileOp::FileMetadata { file } => {
                let dir = fd(file)?;
                statx(&mut self.stat, dir, path, libc::AT_EMPTY_PATH)
            }
            FileOp::Metadata { follow: true, .. } => statx(&mut self.stat, here, path, 0),
            FileOp::Metadata { follow: false, .. } => {
                statx(&mut self.stat, here, path, libc::AT_SYMLINK_NOFOLLOW)
            }
            FileOp::Rename { .. } => opcode::RenameAt::new(here, path, here, other).build(),
            FileOp::RemoveFile { .. } => opcode::UnlinkAt::new(here, path).build(),
            FileOp::RemoveDir { .. } => {
                opcode::UnlinkAt::new(here, path).flags(libc::AT_REMOVEDIR).build()
            }
            FileOp::CreateDir { .. } => opcode::MkDirAt::new(here, path).mode(0o777).build(),
            FileOp::CreateDirAll { .. }
            | FileOp::RemoveDirAll { .. }
            | FileOp::ReadDir { .. }
            | FileOp::SyncDir { .. } => return None,
        })
    }

    fn answer(self, result: io::Result<usize>) -> (Completion, Answer) {
        let answer = match (self.op, result) {
            (FileOp::Read { mut buffer, .. }, result) => {
                if let Ok(count) = result {
                    // SAFETY: the kernel has written so many bytes to the spare capacity, which it was given.
                    unsafe { buffer.set_len(buffer.len() + count) };
                }
                Answer { result: result.map(Reply::Count), buffer: Some(Data::Owned(buffer)) }
            }
            (FileOp::Write { data, .. }, result) => {
                Answer { result: result.map(Reply::Count), buffer: Some(data) }
            }
            (_, Err(error)) => Answer { result: Err(error), buffer: None },
            (FileOp::Open { .. }, Ok(fd)) => {
                // SAFETY: the kernel has opened it for us just now.
                let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
                let file = FileHandle::Kernel(Arc::new(fd));
                Answer { result: Ok(Reply::Opened(file)), buffer: None }
            }
            (_, Ok(_)) => {
                let reply = self.stat.map_or(Reply::Done, |stat| Reply::Metadata(metadata(&stat)));
                Answer { result: Ok(reply), buffer: None }
            }
        };
        (self.done, answer)
    }
}

fn statx(
    stat: &mut Option<Box<libc::statx>>,
    dir: Fd,
    path: *const libc::c_char,
    flags: i32,
) -> squeue::Entry {
    // SAFETY: a structure of numbers, for which zeros are valid.
    let stat = stat.get_or_insert_with(|| Box::new(unsafe { std::mem::zeroed() }));
    let place: *mut libc::statx = &mut **stat;
    opcode::Statx::new(dir, path, place.cast()).flags(flags).mask(libc::STATX_BASIC_STATS).build()
}

fn metadata(stat: &libc::statx) -> Metadata {
    let mode = u32::from(stat.stx_mode);
    let time = |time: &libc::statx_timestamp| {
        let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
        let whole = match time.tv_sec {
            0.. => SystemTime::UNIX_EPOCH + seconds,
            _ => SystemTime::UNIX_EPOCH - seconds,
        };
        whole + Duration::from_nanos(time.tv_nsec.into())
    };
    Metadata {
        file_type: match mode & libc::S_IFMT {
            libc::S_IFREG => FileType::File,
            libc::S_IFDIR => FileType::Dir,
            libc::S_IFLNK => FileType::Symlink,
            _ => FileType::Other,
        },
        len: stat.stx_size,
        mode: mode & 0o7777,
        modified: time(&stat.stx_mtime),
        accessed: time(&stat.stx_atime),
    }
}
