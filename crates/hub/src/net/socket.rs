//! What all sockets share: try, park until ready, try again.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::fiber::Woke;
use crate::io::{IoHandler, Readiness, Registration, register};
use crate::sync::WaitList;

#[derive(Clone, Copy)]
pub(super) enum Direction {
    Read,
    Write,
}

/// The fibers that wait for one descriptor.
struct Waiting {
    readers: WaitList,
    writers: WaitList,
    /// There may be something to read. Unset by a read that emptied the socket, which spares the next one an
    /// attempt in vain.
    readable: Cell<bool>,
    /// The peer will send no more: everything is news from now on.
    closed: Cell<bool>,
}

impl IoHandler for Waiting {
    fn io_ready(&self, ready: Readiness) {
        if ready.intersects(Readiness::CLOSED | Readiness::ERROR) {
            self.closed.set(true);
        }
        // An edge may serve several: all try, and those who come too late park again.
        if ready.contains(Readiness::READABLE) {
            self.readable.set(true);
            self.readers.wake_all();
        }
        if ready.contains(Readiness::WRITABLE) {
            self.writers.wake_all();
        }
    }
}

/// A non-blocking descriptor and those who wait for it.
pub(super) struct Socket<T> {
    waiting: Rc<Waiting>,
    /// Before `io`: it must end before the descriptor is closed.
    _registration: Registration,
    io: T,
}

impl<T: AsFd> Socket<T> {
    /// Takes a descriptor that has been made non-blocking.
    pub(super) fn new(io: T) -> io::Result<Self> {
        let waiting = Rc::new(Waiting {
            readers: WaitList::new(),
            writers: WaitList::new(),
            readable: Cell::new(true),
            closed: Cell::new(false),
        });
        let registration = register(io.as_fd(), waiting.clone())?;
        Ok(Self { waiting, _registration: registration, io })
    }

    pub(super) fn get(&self) -> &T {
        &self.io
    }

    /// Calls `attempt` until it does not answer "would block".
    ///
    /// The kernel tells of readiness once, when the loop asks it. As no loop runs between a failed attempt and
    /// the parking, no news is lost in between.
    pub(super) fn when_ready<R>(
        &self,
        direction: Direction,
        timeout: Option<Duration>,
        mut attempt: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        let mut deadline = None;
        let reads = matches!(direction, Direction::Read);
        loop {
            if !reads || self.waiting.readable.get() {
                match attempt(&self.io) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if reads {
                            self.waiting.readable.set(false);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    done => return done,
                }
            }
            if deadline.is_none() {
                deadline = timeout.map(|timeout| Instant::now() + timeout);
            }
            self.wait(direction, deadline)?;
        }
    }

    /// Reads from a stream, `room` bytes at most. Fewer mean that the socket is empty: what comes later is news.
    pub(super) fn read(
        &self,
        timeout: Option<Duration>,
        room: usize,
        attempt: impl FnMut(&T) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let count = self.when_ready(Direction::Read, timeout, attempt)?;
        if count < room && !self.waiting.closed.get() {
            self.waiting.readable.set(false);
        }
        Ok(count)
    }

    /// Parks until there is news.
    pub(super) fn wait(&self, direction: Direction, deadline: Option<Instant>) -> io::Result<()> {
        let list = match direction {
            Direction::Read => &self.waiting.readers,
            Direction::Write => &self.waiting.writers,
        };
        match list.wait(deadline) {
            Woke::TimedOut => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl<T: AsFd> AsFd for Socket<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

/// `Read`, `Write`, timeouts and the rest, which are the same for every stream.
macro_rules! stream {
    ($stream:ident, $std:ty) => {
        impl $stream {
            fn from_nonblocking(io: $std) -> io::Result<Self> {
                Ok(Self {
                    socket: Rc::new(Socket::new(io)?),
                    read_timeout: Cell::new(None),
                    write_timeout: Cell::new(None),
                })
            }

            /// Takes a connected stream over from the standard library.
            ///
            /// # Errors
            /// When it cannot be made non-blocking or be watched.
            ///
            /// # Panics
            /// When no hub runs on this thread.
            pub fn from_std(io: $std) -> io::Result<Self> {
                io.set_nonblocking(true)?;
                Self::from_nonblocking(io)
            }

            /// Another handle on the same connection, with timeouts of its own. The connection is closed
            /// when the last handle goes.
            pub fn try_clone(&self) -> io::Result<Self> {
                Ok(Self {
                    socket: self.socket.clone(),
                    read_timeout: self.read_timeout.clone(),
                    write_timeout: self.write_timeout.clone(),
                })
            }

            /// Ends one or both directions. Fibers that wait there are woken.
            ///
            /// # Errors
            /// What the system says, such as that the peer has gone already.
            pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                self.socket.get().shutdown(how)
            }

            /// Lets a read fail with `TimedOut` when nothing has come for so long; `None` for never.
            pub fn set_read_timeout(&self, timeout: Option<Duration>) {
                self.read_timeout.set(timeout);
            }

            /// Lets a write fail with `TimedOut` when nothing could be written for so long; `None` for never.
            pub fn set_write_timeout(&self, timeout: Option<Duration>) {
                self.write_timeout.set(timeout);
            }

            /// The error that waits on the socket, which this takes off.
            ///
            /// # Errors
            /// When the system cannot tell.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.socket.get().take_error()
            }
        }

        impl Read for &$stream {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.socket.read(self.read_timeout.get(), buffer.len(), |mut io| io.read(buffer))
            }

            fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                let room = buffers.iter().map(|buffer| buffer.len()).sum();
                self.socket.read(self.read_timeout.get(), room, |mut io| io.read_vectored(buffers))
            }
        }

        impl Write for &$stream {
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                self.socket
                    .when_ready(Direction::Write, self.write_timeout.get(), |mut io| io.write(data))
            }

            fn write_vectored(&mut self, data: &[IoSlice<'_>]) -> io::Result<usize> {
                self.socket.when_ready(Direction::Write, self.write_timeout.get(), |mut io| {
                    io.write_vectored(data)
                })
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl Read for $stream {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                (&*self).read(buffer)
            }

            fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                (&*self).read_vectored(buffers)
            }
        }

        impl Write for $stream {
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

        impl AsFd for $stream {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.socket.as_fd()
            }
        }

        impl fmt::Debug for $stream {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.socket.get().fmt(f)
            }
        }
    };
}
pub(super) use stream;
