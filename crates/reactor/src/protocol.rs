//! What a user of the reactor implements: [`Protocol`] and [`Factory`].

use std::any::Any;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use warren_hub::io::Addr;

use crate::{Connector, Transport};

/// One connection's state machine. All calls come from the loop, one at a time, and must not block: a call
/// that would park a fiber panics.
///
/// ```
/// use warren_reactor::{Protocol, Reason, Transport, testing::TestConnection};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn connection_made(&mut self, _transport: &Transport) {}
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
///         transport.write(data);
///     }
///     fn connection_lost(&mut self, _reason: &Reason) {}
/// }
///
/// let mut connection = TestConnection::new(Box::new(Echo));
/// connection.feed(b"hello");
/// assert_eq!(connection.take_output(), b"hello");
/// ```
pub trait Protocol {
    /// The connection stands. Keep a clone of the transport to write later on one's own account.
    fn connection_made(&mut self, transport: &Transport);

    /// Bytes have arrived: any number but zero, cut anywhere. `data` lies in a buffer that all connections of
    /// this thread share, so what is to be kept must be copied.
    fn data_received(&mut self, transport: &Transport, data: &[u8]);

    /// Input has arrived of which a [`Preparer`](crate::Preparer) has made something. Gives back what is not wanted now: it is
    /// told again, before anything else, once reading is resumed. Called only where connections are
    /// [relayed](crate::RemoteFactory::relay_prepared) with one, and then in place of [`data_received`](Self::data_received).
    fn prepared_received(
        &mut self,
        _transport: &Transport,
        _input: Box<dyn Any + Send>,
    ) -> Option<Box<dyn Any + Send>> {
        None
    }

    /// The transport's TLS handshake has succeeded; only then can anything be received or sent on it. Never called
    /// without TLS.
    fn handshake_completed(&mut self, _transport: &Transport) {}

    /// The peer will send no more, and may still read (Twisted's `IHalfCloseableProtocol`). Unless told otherwise,
    /// this ends the connection once what has been written is gone: then [`connection_lost`](Self::connection_lost)
    /// hears [`Reason::Done`].
    fn read_connection_lost(&mut self, transport: &Transport) {
        transport.lose_connection();
    }

    /// What was written before [`Transport::lose_write_connection`] is gone, and the peer has been told that this was
    /// all.
    fn write_connection_lost(&mut self, _transport: &Transport) {}

    /// More than the high-water mark of output waits for a peer who does not read. Producing more only
    /// costs memory, until [`resume_producing`](Self::resume_producing).
    fn pause_producing(&mut self, _transport: &Transport) {}

    /// The waiting output has fallen to the low-water mark.
    fn resume_producing(&mut self, _transport: &Transport) {}

    /// The connection is gone; the last call. The transport's methods do nothing from now on.
    fn connection_lost(&mut self, reason: &Reason);
}

/// Makes the protocol for each connection.
pub trait Factory {
    /// The protocol for a connection with `peer`, or `None` to refuse it: it is then closed at once.
    fn build_protocol(&mut self, peer: &PeerAddr) -> Option<Box<dyn Protocol>>;

    /// Called before the first use: a port has begun to listen, or a connection is about to be made.
    fn start_factory(&mut self) {}

    /// Called after the last use: the port listens no more, or the connection is gone and no other is being made.
    /// Connections that a port has accepted may live on.
    fn stop_factory(&mut self) {}
}

impl<F: FnMut(&PeerAddr) -> Option<Box<dyn Protocol>>> Factory for F {
    fn build_protocol(&mut self, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        self(peer)
    }
}

/// A factory that hears how its connections are made and lost.
pub trait ClientFactory: Factory {
    /// A connection is about to be made. It can still be given up.
    fn started_connecting(&mut self, _connector: &Connector) {}

    /// The connection stands, and its protocol has been told. With TLS, the handshake is still to come.
    fn client_connection_made(&mut self, _connector: &Connector, _transport: &Transport) {}

    /// The connection could not be made: refused, not in time, given up. [`Connector::connect`] tries again.
    fn client_connection_failed(&mut self, _connector: &Connector, _reason: &Reason) {}

    /// The connection is gone, and its protocol has been told. [`Connector::connect`] makes a new one.
    fn client_connection_lost(&mut self, _connector: &Connector, _reason: &Reason) {}
}

impl<F: FnMut(&PeerAddr) -> Option<Box<dyn Protocol>>> ClientFactory for F {}

/// Why a connection ended, or was not made.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The peer closed it in order.
    Done,
    /// We closed it with [`Transport::lose_connection`], and all output was handed to the system.
    Closed,
    /// We closed it with [`Transport::abort_connection`]: output that waited is lost.
    Aborted,
    /// The system reported an error, such as a reset by the peer, or TLS did.
    Error(io::Error),
    /// One of the protocol's own callbacks has panicked, with this text. Nobody else is harmed.
    Panicked(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("closed by the peer"),
            Self::Closed => f.write_str("closed here"),
            Self::Aborted => f.write_str("aborted here"),
            Self::Error(error) => write!(f, "{error}"),
            Self::Panicked(text) => write!(f, "the protocol panicked: {text}"),
        }
    }
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PeerAddr {
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A Unix socket; the path is known at the listening end only.
    Unix(Option<PathBuf>),
    /// Pipes, terminals or files: standard input and output, a child process.
    Pipe,
    /// In memory, in tests.
    Memory,
}

impl From<Addr> for PeerAddr {
    fn from(addr: Addr) -> Self {
        match addr {
            Addr::Ip(addr) => Self::Tcp(addr),
            Addr::Unix(addr) => Self::Unix(addr.as_pathname().map(Path::to_owned)),
        }
    }
}

impl PeerAddr {
    /// Whether the peer is on this machine: a loopback address (IPv4-mapped ones too), a Unix socket, memory.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Tcp(addr) => addr.ip().to_canonical().is_loopback(),
            Self::Unix(_) | Self::Pipe | Self::Memory => true,
        }
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Self::Unix(None) => f.write_str("unix:"),
            Self::Pipe => f.write_str("pipe"),
            Self::Memory => f.write_str("memory"),
        }
    }
}
