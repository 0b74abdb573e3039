//! Unix stream sockets.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Type};

use super::socket::{Direction, Socket, stream};

/// Accepts connections on a path.
pub struct UnixListener {
    socket: Socket<std::os::unix::net::UnixListener>,
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
        Self::from_std(std::os::unix::net::UnixListener::bind(path)?)
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
        Ok(Self { socket: Socket::new(listener)? })
    }

    /// The next connection.
    ///
    /// # Suspends
    /// Until there is one.
    ///
    /// # Errors
    /// What the system says, such as that the process has no descriptor left.
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        let (stream, peer) = self.socket.when_ready(
            Direction::Read,
            None,
            std::os::unix::net::UnixListener::accept,
        )?;
        Ok((UnixStream::from_std(stream)?, peer))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get().local_addr()
    }
}

impl AsFd for UnixListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for UnixListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.get().fmt(f)
    }
}

/// A connection through a Unix socket. As [`TcpStream`](super::TcpStream).
pub struct UnixStream {
    socket: Rc<Socket<std::os::unix::net::UnixStream>>,
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
        let addr = SockAddr::unix(path)?;
        loop {
            let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
            match socket.connect(&addr) {
                Ok(()) => return Self::from_nonblocking(OwnedFd::from(socket).into()),
                // A full backlog, of which the kernel gives no news: the one wait here that asks again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    crate::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
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
        let (one, other) = std::os::unix::net::UnixStream::pair()?;
        Ok((Self::from_std(one)?, Self::from_std(other)?))
    }
}
