//! Unix datagram sockets.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::datagram::datagram;
use super::socket::{Direction, Socket};
use super::unix::unix;
use crate::driver::{Addr, Source};
use crate::hub;

/// Datagrams between processes of one machine: none is lost, and they keep their order.
pub struct UnixDatagram {
    pub(super) socket: Rc<Socket>,
    read_timeout: Cell<Option<Duration>>,
    write_timeout: Cell<Option<Duration>>,
}

datagram!(UnixDatagram, std::os::unix::net::UnixDatagram);

impl UnixDatagram {
    /// Binds to `path`, which must not exist. It stays there when the socket goes.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::of(Socket::datagram(&SocketAddr::from_pathname(path)?.into())?))
    }

    /// A socket without a name: nobody can answer it.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn unbound() -> io::Result<Self> {
        Ok(Self::of(Socket::datagram(&Addr::unnamed()?)?))
    }

    /// Two sockets connected to each other.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = std::os::unix::net::UnixDatagram::pair()?;
        Ok((Self::from_std(one)?, Self::from_std(other)?))
    }

    /// Sends to and receives from the socket on `path` only.
    ///
    /// # Errors
    /// What the system says, such as that nobody is there.
    pub fn connect(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.socket.source().connect(&SocketAddr::from_pathname(path)?.into())
    }

    /// Sends a datagram to the socket on `path`. Gives the bytes sent, which are all of them.
    ///
    /// # Suspends
    /// While there is no room with the receiver.
    ///
    /// # Errors
    /// `TimedOut` after the write timeout; what the system says, such as that nobody is there.
    pub fn send_to(&self, data: &[u8], path: impl AsRef<Path>) -> io::Result<usize> {
        /// The kernel gives no news of room with a receiver that this socket is not connected to: it is asked again,
        /// later and later up to this.
        const PAUSE_MAX: Duration = Duration::from_millis(20);
        let to = SocketAddr::from_pathname(path)?.into();
        let now = || hub::with(|hub| hub.driver.now());
        let deadline = self.write_timeout.get().map(|timeout| now() + timeout);
        let mut pause = Duration::from_millis(1);
        loop {
            match self.socket.source().send_to(data, &to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                done => return done,
            }
            if deadline.is_some_and(|deadline| deadline <= now()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let again = now() + pause;
            let again = deadline.map_or(again, |deadline| deadline.min(again));
            let waited = self.socket.wait(Direction::Write, Some(again));
            if waited.is_err() && std::thread::panicking() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            pause = PAUSE_MAX.min(2 * pause);
        }
    }

    /// The next datagram and its sender. What does not fit into `buffer` is lost.
    ///
    /// # Suspends
    /// Until there is one.
    ///
    /// # Errors
    /// `TimedOut` after the read timeout; what the system says.
    pub fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let timeout = self.read_timeout.get();
        let receive = |source: &Source| source.receive_from(buffer);
        let (count, from) = self.socket.when_ready(Direction::Read, timeout, receive)?;
        Ok((count, unix(from)?))
    }

    /// Ends one or both directions. Fibers that wait there are woken.
    ///
    /// # Errors
    /// What the system says.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.source().shutdown(how)
    }

    /// Our address.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        unix(self.socket.source().local_addr()?)
    }

    /// The one peer, when there is one.
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        unix(self.socket.source().peer_addr()?)
    }
}
