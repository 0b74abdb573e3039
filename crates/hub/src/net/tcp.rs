//! TCP.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::addr::{ToAddrs, first};
use super::race;
use super::socket::{Direction, Socket, stream};
use super::split::{ReadHalf, WriteHalf, split};
use super::tasks::polled;
use crate::driver::{Addr, Listen, Source};
use crate::hub;

/// Connections that the kernel holds until they are accepted. It lowers this to its own limit.
pub(super) const BACKLOG: i32 = 1024;

/// Accepts TCP connections.
pub struct TcpListener {
    pub(super) socket: Socket,
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
        Self::bind_with(addrs, Listen { backlog: BACKLOG, reuse_port: false, only_v6: false })
    }

    /// As [`bind`](Self::bind), with others that listen on the same address in the same way (`SO_REUSEPORT`): the
    /// system spreads connections over them. For one listener on each hub of a group.
    ///
    /// # Suspends
    /// When a name has to be looked up.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn bind_shared(addrs: impl ToAddrs) -> io::Result<Self> {
        Self::bind_with(addrs, Listen { backlog: BACKLOG, reuse_port: true, only_v6: false })
    }

    fn bind_with(addrs: impl ToAddrs, how: Listen) -> io::Result<Self> {
        first(addrs, |addr| Ok(Self { socket: Socket::listen(&addr.into(), how)? }))
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
        Ok(Self { socket: Socket::new(Source::Kernel(OwnedFd::from(listener)))? })
    }

    /// The next connection, and where it comes from.
    ///
    /// # Suspends
    /// Until there is one.
    ///
    /// # Errors
    /// What the system says, such as that the process has no descriptor left.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, peer) = self.socket.accept()?;
        Ok((TcpStream::of(socket), ip(&peer)?))
    }

    /// As [`accept`](Self::accept), for async code, which must not park: the task is woken when there is a connection.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        let accepted = self.socket.poll_accept(cx);
        accepted.map(|accepted| {
            let (socket, peer) = accepted?;
            Ok((TcpStream::of(socket), ip(&peer)?))
        })
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
        ip(&self.socket.source().local_addr()?)
    }
}

/// The address of an internet socket.
pub(super) fn ip(addr: &Addr) -> io::Result<SocketAddr> {
    addr.as_ip().ok_or_else(|| io::Error::other("the socket has no internet address"))
}

impl AsFd for TcpListener {
    /// # Panics
    /// In a simulation, where sockets have no descriptor.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("source", self.socket.source()).finish_non_exhaustive()
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
    pub(super) socket: Rc<Socket>,
    read_timeout: Cell<Option<Duration>>,
    write_timeout: Cell<Option<Duration>>,
}

stream!(TcpStream, std::net::TcpStream);

impl TcpStream {
    /// Connects to the first of the addresses that answers. When there are several, they are tried beside one another,
    /// a quarter of a second apart, the families by turns (RFC 8305).
    ///
    /// # Suspends
    /// Until connected.
    ///
    /// # Errors
    /// What the system says for the last address that failed.
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn connect(addrs: impl ToAddrs) -> io::Result<Self> {
        Ok(Self::of(race::connect(addrs.to_addrs()?, None, None)?))
    }

    /// As [`connect`](Self::connect), from an address of ours. Port 0 takes a free one.
    ///
    /// # Suspends
    /// Until connected.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); what the system says of `from`.
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn connect_from(from: SocketAddr, addrs: impl ToAddrs) -> io::Result<Self> {
        Ok(Self::of(race::connect(addrs.to_addrs()?, Some(from), None)?))
    }

    /// As [`connect`](Self::connect), at most for `timeout`, the lookup of a name not counted.
    ///
    /// # Suspends
    /// Until connected.
    ///
    /// # Errors
    /// `TimedOut`, or as [`connect`](Self::connect).
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn connect_timeout(addrs: impl ToAddrs, timeout: Duration) -> io::Result<Self> {
        let addrs = addrs.to_addrs()?;
        let deadline = hub::with(|hub| hub.driver.now()) + timeout;
        Ok(Self::of(race::connect(addrs, None, Some(deadline))?))
    }

    /// The other end.
    ///
    /// # Errors
    /// What the system says, such as that it has gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        ip(&self.socket.source().peer_addr()?)
    }

    /// Our end.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        ip(&self.socket.source().local_addr()?)
    }
}
