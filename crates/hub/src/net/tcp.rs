//! TCP.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Type};

use super::ToAddrs;
use super::socket::{Direction, Socket, stream};

/// Connections that the kernel holds until they are accepted. It lowers this to its own limit.
const BACKLOG: i32 = 1024;

/// Accepts TCP connections.
pub struct TcpListener {
    socket: Socket<std::net::TcpListener>,
}

impl TcpListener {
    /// Listens on the first of the addresses that can be bound. Port 0 takes a free one. The address may be
    /// taken again at once after a restart (`SO_REUSEADDR`).
    ///
    /// # Suspends
    /// When a name has to be looked up.
    ///
    /// # Errors
    /// What the system says for the last address.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn bind(addrs: impl ToAddrs) -> io::Result<Self> {
        let listener = first(addrs, |addr| {
            let socket =
                socket2::Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), None)?;
            socket.set_reuse_address(true)?;
            socket.bind(&addr.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })?;
        Ok(Self { socket: Socket::new(listener)? })
    }

    /// Takes a bound listener over from the standard library.
    ///
    /// # Errors
    /// When it cannot be made non-blocking or be watched.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { socket: Socket::new(listener)? })
    }

    /// The next connection, and where it comes from.
    ///
    /// # Suspends
    /// Until there is one.
    ///
    /// # Errors
    /// What the system says, such as that the process has no descriptor left.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) =
            self.socket.when_ready(Direction::Read, None, std::net::TcpListener::accept)?;
        Ok((TcpStream::from_std(stream)?, peer))
    }

    /// Accepts one connection after the other, without end.
    ///
    /// # Suspends
    /// As [`accept`](Self::accept), for each.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming(self)
    }

    /// Where it listens, with the real port.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get().local_addr()
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.get().fmt(f)
    }
}

/// The connections of a [`TcpListener`], one after the other.
#[derive(Debug)]
pub struct Incoming<'a>(&'a TcpListener);

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.accept().map(|(stream, _)| stream))
    }
}

/// A TCP connection. Reading and writing parks the fiber until there is something to read, or room to write.
///
/// `&TcpStream` is `Read` and `Write` too, so that one fiber may read while another writes.
///
/// ```
/// use std::io::{Read, Write};
/// use warren_hub::net::{TcpListener, TcpStream};
///
/// warren_hub::run(|| -> std::io::Result<()> {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let addr = listener.local_addr()?;
///     warren_hub::spawn(move || {
///         let (mut stream, _) = listener.accept().unwrap();
///         stream.write_all(b"hello").unwrap();
///     });
///     let mut text = String::new();
///     TcpStream::connect(addr)?.read_to_string(&mut text)?;
///     assert_eq!(text, "hello");
///     Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpStream {
    socket: Rc<Socket<std::net::TcpStream>>,
    read_timeout: Cell<Option<Duration>>,
    write_timeout: Cell<Option<Duration>>,
}

stream!(TcpStream, std::net::TcpStream);

impl TcpStream {
    /// Connects to the first of the addresses that answers.
    ///
    /// # Suspends
    /// Until connected.
    ///
    /// # Errors
    /// What the system says for the last address.
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn connect(addrs: impl ToAddrs) -> io::Result<Self> {
        first(addrs, |addr| Self::connect_until(addr, None))
    }

    /// Connects, and waits at most for `timeout`.
    ///
    /// # Suspends
    /// Until connected.
    ///
    /// # Errors
    /// `TimedOut`, or what the system says.
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn connect_timeout(addr: SocketAddr, timeout: Duration) -> io::Result<Self> {
        Self::connect_until(addr, Some(Instant::now() + timeout))
    }

    fn connect_until(addr: SocketAddr, deadline: Option<Instant>) -> io::Result<Self> {
        let kind = Type::STREAM.nonblocking();
        let socket = socket2::Socket::new(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
        let pending = match socket.connect(&SockAddr::from(addr)) {
            Ok(()) => false,
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
            {
                true
            }
            Err(error) => return Err(error),
        };
        let stream = Self::from_nonblocking(socket.into())?;
        if pending {
            stream.connected(deadline)?;
        }
        Ok(stream)
    }

    /// Waits for the end of a connect.
    fn connected(&self, deadline: Option<Instant>) -> io::Result<()> {
        loop {
            self.socket.wait(Direction::Write, deadline)?;
            if let Some(error) = self.take_error()? {
                return Err(error);
            }
            match self.peer_addr() {
                // News of something else.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                other => return other.map(drop),
            }
        }
    }

    /// Sends small writes at once (`true`), or gathers them (Nagle's algorithm).
    ///
    /// # Errors
    /// What the system says.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket.get().set_nodelay(nodelay)
    }

    /// The other end.
    ///
    /// # Errors
    /// What the system says.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get().peer_addr()
    }

    /// Our end.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get().local_addr()
    }
}

/// Tries one address after the other.
fn first<T>(
    addrs: impl ToAddrs,
    mut attempt: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address");
    for addr in addrs.to_addrs()? {
        match attempt(addr) {
            Ok(done) => return Ok(done),
            Err(error) => last = error,
        }
    }
    Err(last)
}
