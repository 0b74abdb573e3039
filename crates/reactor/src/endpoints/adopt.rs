//! Sockets that others have opened.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::sockopt;
use warren_hub::io::Source;

use super::servers::named;
use crate::listen::{BoundPort, ListeningPort};
use crate::protocol::{Factory, PeerAddr, Protocol};
use crate::socket::adopt;
use crate::transport::Transport;

/// Hands a socket that is connected already to `protocol`, which hears that the connection was made before this returns
/// (Twisted's `adoptStreamConnection`). From now on the socket does not block, also for others who share it.
///
/// # Errors
/// `InvalidInput` when it is no stream socket, or not connected; what the system says.
///
/// # Panics
/// When no hub runs on this thread.
pub fn adopt_stream_connection(fd: OwnedFd, protocol: Box<dyn Protocol>) -> io::Result<Transport> {
    check(fd.as_fd(), "a connection", |fd| sockopt::socket_acceptconn(fd).map(|listens| !listens))?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    let source = Source::from_fd(fd);
    let peer = source.peer_addr().map_err(|error| named("adopt the socket", &error))?;
    let host = PeerAddr::from(source.local_addr()?);
    adopt(source, PeerAddr::from(peer), host, protocol)
}

/// Accepts connections on a socket that listens already, and lets `factory` build a protocol for each (Twisted's
/// `adoptStreamPort`). From now on the socket does not block, also for others who share it. The path of a Unix socket
/// stays when nobody listens any more: who has made it removes it.
///
/// # Errors
/// `InvalidInput` when it is no stream socket, or does not listen; what the system says.
///
/// # Panics
/// When no hub runs on this thread.
pub fn adopt_stream_port(fd: OwnedFd, factory: Box<dyn Factory>) -> io::Result<ListeningPort> {
    check(fd.as_fd(), "a listening socket", |fd| sockopt::socket_acceptconn(fd))?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    BoundPort::of(Source::from_fd(fd))?.listen(factory)
}

/// Whether it is a stream socket of the kind wanted.
fn check(
    fd: BorrowedFd<'_>,
    wanted: &str,
    is_it: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<bool>,
) -> io::Result<()> {
    let kind = sockopt::socket_type(fd);
    let stream = kind.is_ok_and(|kind| kind == rustix::net::SocketType::STREAM);
    if stream && is_it(fd)? {
        return Ok(());
    }
    let text = format!("what is to be adopted as {wanted} is not one: {fd:?}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}
