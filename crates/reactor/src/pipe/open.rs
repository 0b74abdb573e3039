//! Descriptors that may be others' too: how to use one without waiting, and without a change that others would feel.
//!
//! `O_NONBLOCK` belongs to the open file description, which a terminal's programs, the two ends of a shell's pipeline
//! and a parent with its children share: to set it on one's own standard input breaks theirs. So a pipe or a terminal
//! is opened once more, by `/proc/self/fd`, which gives a description of our own. What cannot be opened again is asked
//! before each read, and written by threads. Sockets have flags for each call.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fstat};
use rustix::io::fcntl_dupfd_cloexec;

/// How a descriptor is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// It never blocks.
    Plain,
    /// It may block: asked first.
    Asked,
    /// By a flag of each call.
    Socket,
    /// By a thread.
    Thread,
}

/// How a descriptor is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// It never blocks.
    Plain,
    /// By a flag of each call.
    Socket,
    /// By a thread.
    Thread,
}

/// Something to read from.
pub(crate) struct Input {
    /// Shared with a thread that reads.
    pub(super) fd: Arc<OwnedFd>,
    pub(super) reads: Reads,
    pub(super) is_pipe: bool,
    /// The master's side of a terminal.
    pub(super) is_master: bool,
    /// Closed with it.
    _origin: Origin,
}

/// Something to write to.
pub(crate) struct Outlet {
    /// Shared with a thread that writes.
    pub(super) fd: Arc<OwnedFd>,
    pub(super) writes: Writes,
    pub(super) is_pipe: bool,
    /// Closed with it.
    pub(super) origin: Origin,
}

/// What stands behind a descriptor that was opened again.
pub(crate) enum Origin {
    /// Nothing, or somebody else's.
    None,
    /// A descriptor that was handed over.
    Given(#[allow(dead_code, reason = "it is there to be closed")] OwnedFd),
    /// The standard output of this process.
    Stdout,
}

impl Input {
    /// A pipe's end that is ours alone and never blocks.
    pub(crate) fn own_pipe(fd: OwnedFd) -> Self {
        Self {
            fd: Arc::new(fd),
            reads: Reads::Plain,
            is_pipe: true,
            is_master: false,
            _origin: Origin::None,
        }
    }

    /// The master's side of a terminal, ours alone, which never blocks.
    pub(crate) fn own_master(fd: OwnedFd) -> Self {
        Self { is_pipe: false, is_master: true, ..Self::own_pipe(fd) }
    }

    /// A descriptor that others may share.
    pub(crate) fn shared(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let (fd, how, is_pipe) = share(fd, OFlags::RDONLY)?;
        let reads = match how {
            How::NeverBlocks => Reads::Plain,
            How::Socket => Reads::Socket,
            How::MayBlock => Reads::Asked,
        };
        Ok(Self { fd: Arc::new(fd), reads, is_pipe, is_master: false, _origin: Origin::None })
    }

    /// As [`shared`](Self::shared), for one that is handed over.
    pub(crate) fn given(fd: OwnedFd) -> io::Result<Self> {
        let shared = Self::shared(fd.as_fd())?;
        Ok(Self { _origin: Origin::Given(fd), ..shared })
    }
}

impl Outlet {
    /// A pipe's end, or the master's side of a terminal, that is ours alone and never blocks.
    pub(crate) fn own(fd: OwnedFd, is_pipe: bool) -> Self {
        Self { fd: Arc::new(fd), writes: Writes::Plain, is_pipe, origin: Origin::None }
    }

    /// A descriptor that others may share.
    pub(crate) fn shared(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let (fd, how, is_pipe) = share(fd, OFlags::WRONLY)?;
        let writes = match how {
            How::NeverBlocks => Writes::Plain,
            How::Socket => Writes::Socket,
            How::MayBlock => Writes::Thread,
        };
        Ok(Self { fd: Arc::new(fd), writes, is_pipe, origin: Origin::None })
    }

    /// As [`shared`](Self::shared), for one that is handed over.
    pub(crate) fn given(fd: OwnedFd) -> io::Result<Self> {
        let shared = Self::shared(fd.as_fd())?;
        Ok(Self { origin: Origin::Given(fd), ..shared })
    }

    /// The standard output of this process.
    pub(crate) fn stdout() -> io::Result<Self> {
        Ok(Self { origin: Origin::Stdout, ..Self::shared(io::stdout().as_fd())? })
    }
}

enum How {
    NeverBlocks,
    MayBlock,
    Socket,
}

/// A descriptor of ours for the same, how it may be used, and whether it is a pipe.
fn share(fd: BorrowedFd<'_>, access: OFlags) -> io::Result<(OwnedFd, How, bool)> {
    let kind = FileType::from_raw_mode(fstat(fd)?.st_mode);
    let is_pipe = kind == FileType::Fifo;
    if kind == FileType::Socket {
        return Ok((duplicate(fd)?, How::Socket, false));
    }
    if fcntl_getfl(fd)?.contains(OFlags::NONBLOCK) {
        // Somebody has done so already.
        return Ok((duplicate(fd)?, How::NeverBlocks, is_pipe));
    }
    if (is_pipe || is_slave(fd))
        && let Some(opened) = open_again(fd, access)
    {
        return Ok((opened, How::NeverBlocks, is_pipe));
    }
    Ok((duplicate(fd)?, How::MayBlock, is_pipe))
}

fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // Not below 3: the numbers of the standard streams may be free.
    Ok(fcntl_dupfd_cloexec(fd, 3)?)
}

/// Whether it is a terminal. To open the master's side of one makes a new terminal.
fn is_slave(fd: BorrowedFd<'_>) -> bool {
    fd.is_terminal() && rustix::pty::ptsname(fd, Vec::new()).is_err()
}

/// A description of our own for the same file, which never blocks.
fn open_again(fd: BorrowedFd<'_>, access: OFlags) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let (old, new) = (fstat(fd).ok()?, fstat(&opened).ok()?);
    let same = (old.st_dev, old.st_ino, old.st_rdev) == (new.st_dev, new.st_ino, new.st_rdev);
    same.then_some(opened)
}
