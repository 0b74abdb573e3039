//! What all sockets share: try, park until ready, try again.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::driver::{Addr, Bind, Listen, Source};
use crate::fiber::{WaitsFor, Woke};
use crate::hub;
use crate::io::{IoHandler, Readiness};
use crate::net::tasks::Tasks;
use crate::sync::WaitList;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// The fibers, and the tasks of async code, that wait for one source.
#[derive(Default)]
struct Waiting {
    readers: WaitList,
    writers: WaitList,
    reading: Tasks,
    writing: Tasks,
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
            self.reading.wake_all();
        }
        if ready.contains(Readiness::WRITABLE) {
            self.writers.wake_all();
            self.writing.wake_all();
        }
    }
}

/// A source and those who wait for it.
pub(crate) struct Socket {
    waiting: Rc<Waiting>,
    /// The number of the hub that watches it.
    hub: u32,
    key: u64,
    source: Source,
}

impl Socket {
    /// Takes a source that never blocks.
    pub(crate) fn new(source: Source) -> io::Result<Self> {
        let waiting = Rc::new(Waiting { readable: Cell::new(true), ..Waiting::default() });
        let (hub, key) = hub::with(|hub| {
            Ok::<_, io::Error>((hub.number, hub.watch(&source, waiting.clone())?))
        })?;
        Ok(Self { waiting, hub, key, source })
    }

    /// Listens for connections.
    pub(crate) fn listen(addr: &Addr, how: Listen) -> io::Result<Self> {
        Self::new(hub::with(|hub| hub.driver.listen(addr, how))?)
    }

    /// Connects, and waits until that has succeeded.
    ///
    /// # Suspends
    /// Until connected, or `deadline`.
    pub(crate) fn connect(
        to: &Addr,
        from: Option<&Addr>,
        deadline: Option<Instant>,
    ) -> io::Result<Self> {
        let socket = Self::start_connect(to, from)?;
        while !socket.is_connected()? {
            socket.wait(Direction::Write, deadline)?;
        }
        Ok(socket)
    }

    /// Begins to connect; [`is_connected`](Self::is_connected) tells how that goes.
    pub(crate) fn start_connect(to: &Addr, from: Option<&Addr>) -> io::Result<Self> {
        Self::new(hub::with(|hub| hub.driver.connect(to, from))?)
    }

    /// Whether the connection stands: false while that is under way, and an error when it failed.
    pub(crate) fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.source.take_error()? {
            return Err(error);
        }
        match self.source.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Those who wait to write, or for the connection.
    pub(crate) fn writers(&self) -> &WaitList {
        &self.waiting.writers
    }

    /// A datagram socket.
    pub(crate) fn datagram(bind: &Addr) -> io::Result<Self> {
        Self::new(hub::with(|hub| hub.driver.datagram(bind, Bind::default()))?)
    }

    /// A datagram socket that shares its address with others.
    pub(crate) fn datagram_shared(bind: &Addr) -> io::Result<Self> {
        let how = Bind { reuse_port: true, ..Bind::default() };
        Self::new(hub::with(|hub| hub.driver.datagram(bind, how))?)
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The next connection.
    ///
    /// # Suspends
    /// Until there is one.
    pub(crate) fn accept(&self) -> io::Result<(Self, Addr)> {
        let (source, peer) = self.when_ready(Direction::Read, None, Source::accept)?;
        Ok((Self::new(source)?, peer))
    }

    /// Calls `attempt` until it does not answer "would block".
    ///
    /// Readiness is told once, when the loop asks for it. As no loop runs between a failed attempt and the parking,
    /// no news is lost in between.
    ///
    /// # Suspends
    /// Until ready, or for `timeout`; and when the fiber has used up its share of calls.
    pub(crate) fn when_ready<R>(
        &self,
        direction: Direction,
        timeout: Option<Duration>,
        mut attempt: impl FnMut(&Source) -> io::Result<R>,
    ) -> io::Result<R> {
        if !hub::with(|hub| hub.charge_io() || !hub.can_wait()) {
            crate::yield_now();
        }
        let mut deadline = None;
        loop {
            if let Some(done) = self.attempt(direction, &mut attempt) {
                return done;
            }
            if deadline.is_none() {
                deadline = timeout.map(|timeout| hub::with(|hub| hub.driver.now()) + timeout);
            }
            self.wait(direction, deadline)?;
        }
    }

    /// Calls `attempt`, unless that is known to be in vain. `None`: it would block, and news will come.
    fn attempt<R>(
        &self,
        direction: Direction,
        attempt: &mut impl FnMut(&Source) -> io::Result<R>,
    ) -> Option<io::Result<R>> {
        let reads = direction == Direction::Read;
        if reads && !self.waiting.readable.get() {
            return None;
        }
        loop {
            match attempt(&self.source) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if reads {
                        self.waiting.readable.set(false);
                    }
                    return None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Some(done),
            }
        }
    }

    /// Calls `attempt`; when it answers "would block", the task of `cx` is woken when there is news.
    pub(crate) fn poll_ready<R>(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&Source) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        if hub::with(|hub| hub.current().is_some() && !hub.charge_io()) {
            // The fiber that polls has used up its share of calls: others have their turn first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.attempt(direction, &mut attempt) {
            Some(done) => Poll::Ready(done),
            None => {
                // After the attempt: no loop runs in between that could bring the news.
                match direction {
                    Direction::Read => self.waiting.reading.enlist(cx.waker()),
                    Direction::Write => self.waiting.writing.enlist(cx.waker()),
                }
                Poll::Pending
            }
        }
    }

    /// As [`read`](Self::read), as [`poll_ready`](Self::poll_ready).
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        room: usize,
        attempt: impl FnMut(&Source) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.poll_ready(Direction::Read, cx, attempt).map_ok(|count| self.took(count, room))
    }

    /// As [`accept`](Self::accept), as [`poll_ready`](Self::poll_ready).
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Self, Addr)>> {
        self.poll_ready(Direction::Read, cx, Source::accept)
            .map(|accepted| accepted.and_then(|(source, peer)| Ok((Self::new(source)?, peer))))
    }

    /// Reads from a stream, `room` bytes at most. Fewer mean that the socket is empty: what comes later is news.
    ///
    /// # Suspends
    /// As [`when_ready`](Self::when_ready).
    pub(crate) fn read(
        &self,
        timeout: Option<Duration>,
        room: usize,
        attempt: impl FnMut(&Source) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let count = self.when_ready(Direction::Read, timeout, attempt)?;
        Ok(self.took(count, room))
    }

    /// A read has taken `count` bytes.
    fn took(&self, count: usize, room: usize) -> usize {
        if count < room && !self.waiting.closed.get() {
            self.waiting.readable.set(false);
        }
        count
    }

    /// Parks until there is news. A fiber that unwinds does not wait: for it, the time has run out.
    ///
    /// # Suspends
    /// Always, but for a fiber that unwinds.
    pub(crate) fn wait(&self, direction: Direction, deadline: Option<Instant>) -> io::Result<()> {
        let fd = self.source.kernel().map_or(-1, |fd| fd.as_raw_fd());
        let (list, what) = match direction {
            Direction::Read => (&self.waiting.readers, WaitsFor::Read(fd)),
            Direction::Write => (&self.waiting.writers, WaitsFor::Write(fd)),
        };
        match list.wait_for(deadline, what) {
            Woke::TimedOut => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Before the source is closed: its number may be used again at once. Another hub, as one that came after this one
        // has ended, means something else by the key.
        hub::try_with(|hub| {
            if hub.number == self.hub {
                hub.unwatch(&self.source, self.key);
            }
        });
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

/// `Read`, `Write`, timeouts and the rest, which are the same for every stream.
macro_rules! stream {
    ($stream:ident, $std:ty) => {
        impl $stream {
            fn of(socket: Socket) -> Self {
                Self {
                    socket: Rc::new(socket),
                    read_timeout: Cell::new(None),
                    write_timeout: Cell::new(None),
                }
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
                Ok(Self::of(Socket::new(Source::Kernel(OwnedFd::from(io)))?))
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
                self.socket.source().shutdown(how)
            }

            /// Lets a read fail with `TimedOut` when nothing has come for so long; `None` for never.
            pub fn set_read_timeout(&self, timeout: Option<Duration>) {
                self.read_timeout.set(timeout);
            }

            /// Lets a write fail with `TimedOut` when nothing could be written for so long; `None` for never.
            pub fn set_write_timeout(&self, timeout: Option<Duration>) {
                self.write_timeout.set(timeout);
            }

            /// Reads without taking: the next read gives the same bytes. Nothing at the end of the stream.
            ///
            /// # Suspends
            /// Until there is something to read.
            ///
            /// # Errors
            /// As reading does.
            pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
                let timeout = self.read_timeout.get();
                let peek = |source: &Source| source.peek(buffer).map(|(count, _)| count);
                self.socket.when_ready(Direction::Read, timeout, peek)
            }

            /// A half for reading and a half for writing, each for a fiber of its own.
            pub fn into_split(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
                split(self)
            }

            /// The error that waits on the socket, which this takes off.
            ///
            /// # Errors
            /// When the system cannot tell.
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                self.socket.source().take_error()
            }
        }

        polled!($stream);
        polled!($stream, read);
        polled!($stream, write);

        impl Read for &$stream {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let timeout = self.read_timeout.get();
                self.socket.read(timeout, buffer.len(), |source| source.read(buffer))
            }

            fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                let room = buffers.iter().map(|buffer| buffer.len()).sum();
                let timeout = self.read_timeout.get();
                self.socket.read(timeout, room, |source| source.read_vectored(buffers))
            }
        }

        impl Write for &$stream {
            fn write(&mut self, data: &[u8]) -> io::Result<usize> {
                let timeout = self.write_timeout.get();
                self.socket.when_ready(Direction::Write, timeout, |source| source.write(data))
            }

            fn write_vectored(&mut self, data: &[IoSlice<'_>]) -> io::Result<usize> {
                let timeout = self.write_timeout.get();
                self.socket
                    .when_ready(Direction::Write, timeout, |source| source.write_vectored(data))
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
            /// # Panics
            /// In a simulation, where sockets have no descriptor.
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.socket.as_fd()
            }
        }

        impl fmt::Debug for $stream {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($stream))
                    .field("source", self.socket.source())
                    .finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use stream;
