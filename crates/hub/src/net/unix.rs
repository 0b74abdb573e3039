//! Unix stream sockets.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::socket::{Direction, Socket, stream};
use super::split::{ReadHalf, WriteHalf, split};
use super::tasks::polled;
use super::tcp::BACKLOG;
use crate::driver::{Addr, Listen, Source};
use crate::hub;

/// Accepts connections on a path.
pub struct UnixListener {
    socket: Socket,
}

impl UnixListener {
    /// Listens on `path`, which must not exist. It stays there when the listener goes.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        let addr = Addr::Unix(SocketAddr::from_pathname(path)?);
        let how = Listen { backlog: BACKLOG, reuse_port: false, only_v6: false };
        Ok(Self { socket: Socket::listen(&addr, how)? })
    }

    /// Takes a listener over from the standard library.
    ///
    /// # Errors
    /// When it cannot be made non-blocking or be watched.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn from_std(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { socket: Socket::new(Source::Kernel(OwnedFd::from(listener)))? })
    }

    /// The next connection.
    ///
    /// # Suspends
    /// Until there is one.
    ///
    /// # Errors
    /// What the system says, such as that the process has no descriptor left.
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (socket, peer) = self.socket.accept()?;
        Ok((UnixStream::of(socket), unix(peer)?))
    }

    /// As [`accept`](Self::accept), for async code, which must not park: the task is woken when there is a connection.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(UnixStream, SocketAddr)>> {
        let accepted = self.socket.poll_accept(cx);
        accepted.map(|accepted| {
            let (socket, peer) = accepted?;
            Ok((UnixStream::of(socket), unix(peer)?))
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        unix(self.socket.source().local_addr()?)
    }
}

impl AsFd for UnixListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for UnixListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnixListener").field("source", self.socket.source()).finish_non_exhaustive()
    }
}

/// The address of a Unix socket.
pub(super) fn unix(addr: Addr) -> io::Result<SocketAddr> {
    match addr {
        Addr::Unix(addr) => Ok(addr),
        Addr::Ip(_) => Err(io::Error::other("the socket has no path")),
    }
}

/// A connection through a Unix socket. As [`TcpStream`](super::TcpStream).
pub struct UnixStream {
    pub(super) socket: Rc<Socket>,
    read_timeout: Cell<Option<Duration>>,
    write_timeout: Cell<Option<Duration>>,
}

stream!(UnixStream, std::os::unix::net::UnixStream);

impl UnixStream {
    /// Connects to the listener on `path`.
    ///
    /// # Suspends
    /// While the listener's backlog is full.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        let addr = Addr::Unix(SocketAddr::from_pathname(path)?);
        loop {
            match Socket::connect(&addr, None, None) {
                // A full backlog, of which the kernel gives no news: the one wait here that asks again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    crate::sleep(Duration::from_millis(1));
                }
                connected => return connected.map(Self::of),
            }
        }
    }

    /// Two streams connected to each other.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = hub::with(|hub| hub.driver.pair())?;
        Ok((Self::of(Socket::new(one)?), Self::of(Socket::new(other)?)))
    }
}
