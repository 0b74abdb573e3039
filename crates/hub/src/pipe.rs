//! Pipes: between fibers, between processes, and by path (FIFOs).

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::driver::Source;
use crate::net::socket::{Direction, Socket};
use crate::net::tasks::polled;

/// A new pipe: what is written to one end is read from the other.
///
/// ```
/// use std::io::{Read, Write};
///
/// warren_hub::run(|| -> std::io::Result<()> {
///     let (mut reader, mut writer) = warren_hub::pipe::pipe()?;
///     warren_hub::spawn(move || writer.write_all(b"through"));
///     let mut text = String::new();
///     reader.read_to_string(&mut text)?;
///     assert_eq!(text, "through");
///     Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// What the system says, such as that the process has no descriptor left.
///
/// # Panics
/// When no hub runs on this thread.
pub fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    Ok((PipeReader::of(reader)?, PipeWriter::of(writer)?))
}

/// The reading end of a pipe.
pub struct PipeReader {
    socket: Rc<Socket>,
}

/// The writing end of a pipe. The end of the stream is told when the last one is dropped.
pub struct PipeWriter {
    socket: Rc<Socket>,
}

macro_rules! end {
    ($end:ident) => {
        impl $end {
            fn of(fd: OwnedFd) -> io::Result<Self> {
                Ok(Self { socket: Rc::new(Socket::new(Source::Pipe(fd))?) })
            }

            /// Takes a descriptor over: of a pipe, such as a child's, of a terminal or another device. It is made
            /// non-blocking, for everyone who has it.
            ///
            /// # Errors
            /// When that is refused, or when it cannot be watched, as a plain file.
            ///
            /// # Panics
            /// When no hub runs on this thread.
            pub fn from_fd(fd: impl Into<OwnedFd>) -> io::Result<Self> {
                let fd = fd.into();
                rustix::io::ioctl_fionbio(&fd, true)?;
                Self::of(fd)
            }

            /// A descriptor of this end that blocks, as another program expects it of its input or output.
            ///
            /// # Errors
            /// What the system says, such as that the process has no descriptor left.
            pub fn into_blocking(self) -> io::Result<OwnedFd> {
                let fd = rustix::io::fcntl_dupfd_cloexec(self.as_fd(), 3)?;
                rustix::io::ioctl_fionbio(&fd, false)?;
                Ok(fd)
            }

            /// Another handle on the same end.
            ///
            /// # Errors
            /// None at present.
            pub fn try_clone(&self) -> io::Result<Self> {
                Ok(Self { socket: self.socket.clone() })
            }
        }

        polled!($end);

        impl AsFd for $end {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.socket.as_fd()
            }
        }

        impl fmt::Debug for $end {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($end)).field(self.socket.source()).finish()
            }
        }
    };
}
end!(PipeReader);
end!(PipeWriter);
polled!(PipeReader, read);
polled!(PipeWriter, write);

impl PipeReader {
    /// Opens the FIFO at `path` for reading. The first read waits until someone writes to it.
    ///
    /// # Errors
    /// What the system says, such as that there is none.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Self::of(rustix::fs::open(path.as_ref(), flags, Mode::empty())?)
    }
}

/// Reads from a pipe without waiting.
fn read(source: &Source, attempt: impl FnOnce(&Source) -> io::Result<usize>) -> io::Result<usize> {
    let count = attempt(source)?;
    if count > 0 {
        return Ok(count);
    }
    // The end, or a FIFO that nobody has opened for writing since we opened it, which has not hung up.
    let mut polled = [PollFd::new(source, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if polled[0].revents().is_empty() {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(0)
}

impl Read for &PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let attempt = |source: &Source| read(source, |source| source.read(buffer));
        self.socket.when_ready(Direction::Read, None, attempt)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if buffers.iter().all(|buffer| buffer.is_empty()) {
            return Ok(0);
        }
        let attempt = |source: &Source| read(source, |source| source.read_vectored(buffers));
        self.socket.when_ready(Direction::Read, None, attempt)
    }
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(buffers)
    }
}

impl PipeWriter {
    /// Opens the FIFO at `path` for writing.
    ///
    /// # Suspends
    /// Until someone has opened it for reading.
    ///
    /// # Errors
    /// What the system says, such as that there is none.
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        /// The kernel gives no news of a reader: it is asked again, later and later up to this.
        const PAUSE_MAX: Duration = Duration::from_millis(50);
        let mut pause = Duration::from_millis(1);
        loop {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            match rustix::fs::open(path.as_ref(), flags, Mode::empty()) {
                Err(Errno::NXIO) if !std::thread::panicking() => crate::sleep(pause),
                opened => return Self::of(opened?),
            }
            pause = PAUSE_MAX.min(2 * pause);
        }
    }
}

impl Write for &PipeWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.socket.when_ready(Direction::Write, None, |source| source.write(data))
    }

    fn write_vectored(&mut self, data: &[IoSlice<'_>]) -> io::Result<usize> {
        self.socket.when_ready(Direction::Write, None, |source| source.write_vectored(data))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for PipeWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn write_vectored(&mut self, data: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
