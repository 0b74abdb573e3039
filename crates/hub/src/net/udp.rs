//! UDP.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use super::ToAddrs;
use super::addr::first;
use super::datagram::datagram;
use super::socket::{Direction, Socket};
use super::tcp::ip;
use crate::driver::Source;
use std::time::Duration;

/// A UDP socket.
///
/// ```
/// use warren_hub::net::UdpSocket;
///
/// warren_hub::run(|| -> std::io::Result<()> {
///     let server = UdpSocket::bind("127.0.0.1:0")?;
///     let addr = server.local_addr()?;
///     warren_hub::spawn(move || {
///         let mut buffer = [0; 1500];
///         let (count, peer) = server.recv_from(&mut buffer).unwrap();
///         server.send_to(&buffer[..count], peer).unwrap();
///     });
///     let client = UdpSocket::bind("127.0.0.1:0")?;
///     client.connect(addr)?;
///     client.send(b"hello")?;
///     let mut answer = [0; 1500];
///     assert_eq!(client.recv(&mut answer)?, 5);
///     Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UdpSocket {
    pub(super) socket: Rc<Socket>,
    read_timeout: Cell<Option<Duration>>,
    write_timeout: Cell<Option<Duration>>,
}

datagram!(UdpSocket, std::net::UdpSocket);

impl UdpSocket {
    /// Binds to the first of the addresses that can be bound. Port 0 takes a free one.
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
        first(addrs, |addr| Ok(Self::of(Socket::datagram(&addr.into())?)))
    }

    /// As [`bind`](Self::bind), with others that bind to the same address in the same way (`SO_REUSEPORT`): the system
    /// gives all datagrams of one peer to the same of them. For one socket on each hub of a group.
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
        first(addrs, |addr| Ok(Self::of(Socket::datagram_shared(&addr.into())?)))
    }

    /// Sends to and receives from one peer only, the first of the addresses that the system accepts.
    ///
    /// # Suspends
    /// When a name has to be looked up.
    ///
    /// # Errors
    /// What the system says for the last address.
    pub fn connect(&self, addrs: impl ToAddrs) -> io::Result<()> {
        first(addrs, |addr| self.socket.source().connect(&addr.into()))
    }

    /// Sends a datagram to the first of the addresses. Gives the bytes sent, which are all of them.
    ///
    /// # Suspends
    /// While the kernel's buffer is full; when a name has to be looked up.
    ///
    /// # Errors
    /// What the system says, such as that the datagram is too long (65,507 bytes is the most that IPv4 carries).
    pub fn send_to(&self, data: &[u8], addrs: impl ToAddrs) -> io::Result<usize> {
        let to = addrs.to_addrs()?.first().copied();
        let to = to.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address"))?;
        let timeout = self.write_timeout.get();
        let send = |source: &Source| source.send_to(data, &to.into());
        self.socket.when_ready(Direction::Write, timeout, send)
    }

    /// The next datagram and its sender. What does not fit into `buffer` is lost.
    ///
    /// # Suspends
    /// Until there is one.
    ///
    /// # Errors
    /// `TimedOut` after the read timeout; what the system says.
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let receive = |source: &Source| source.receive_from(buffer);
        let timeout = self.read_timeout.get();
        let (count, from) = self.socket.when_ready(Direction::Read, timeout, receive)?;
        Ok((count, ip(&from)?))
    }

    /// As [`recv_from`](Self::recv_from), and leaves the datagram for the next call.
    ///
    /// # Suspends
    /// Until there is one.
    ///
    /// # Errors
    /// As [`recv_from`](Self::recv_from).
    pub fn peek_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let timeout = self.read_timeout.get();
        let peek = |source: &Source| source.peek(buffer);
        let (count, from) = self.socket.when_ready(Direction::Read, timeout, peek)?;
        Ok((count, ip(&from)?))
    }

    /// The one peer, when there is one.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        ip(&self.socket.source().peer_addr()?)
    }

    /// Our address, with the real port.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        ip(&self.socket.source().local_addr()?)
    }
}
