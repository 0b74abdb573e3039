//! Datagrams: what a user of them implements, and the addresses they come from.
//!
//! A [`DatagramProtocol`] hears of each datagram with its sender, and answers through its [`DatagramTransport`]. The
//! same traits serve UDP ([`listen_udp`](crate::listen_udp)), whose addresses are [`SocketAddr`]s, and Unix sockets
//! ([`listen_unix_datagram`](crate::listen_unix_datagram)), whose addresses are [`UnixAddr`]s.

mod error;
mod transport;

use std::fmt;
use std::net::SocketAddr;

use warren_hub::io::Addr;
use warren_hub::{contain, no_wait};

pub use error::DatagramError;
pub(crate) use transport::set_peer;
pub use transport::{DatagramPort, DatagramTransport};

/// The address of a Unix socket: a path, an abstract name, or none.
pub type UnixAddr = std::os::unix::net::SocketAddr;

/// What is told of datagrams. All calls come from the loop, one at a time, and must not block; but for
/// [`start_protocol`](Self::start_protocol), which comes from within the call that listens. A callback that panics is
/// logged, and the port goes on.
pub trait DatagramProtocol<A: DatagramAddr = SocketAddr> {
    /// The port listens. Keep a clone of the transport to write later on one's own account.
    fn start_protocol(&mut self, _transport: &DatagramTransport<A>) {}

    /// A datagram has arrived, whole; it may be empty. `data` lies in a buffer that all ports of this thread share, so
    /// what is to be kept must be copied.
    fn datagram_received(&mut self, transport: &DatagramTransport<A>, data: &[u8], from: A);

    /// A datagram to the one peer of a [connected](DatagramTransport::connect) transport found nobody there. Others may
    /// find somebody.
    fn connection_refused(&mut self, _transport: &DatagramTransport<A>) {}

    /// The port has stopped; the last call.
    fn stop_protocol(&mut self) {}
}

/// As [`DatagramProtocol`], for a socket that speaks with one peer only
/// ([`connect_udp`](crate::connect_udp), [`connect_unix_datagram`](crate::connect_unix_datagram)).
pub trait ConnectedDatagramProtocol<A: DatagramAddr = SocketAddr> {
    /// The socket is connected: [`write`](DatagramTransport::write) needs no address.
    fn start_protocol(&mut self, _transport: &DatagramTransport<A>) {}

    /// The peer has sent a datagram. As [`DatagramProtocol::datagram_received`].
    fn datagram_received(&mut self, transport: &DatagramTransport<A>, data: &[u8]);

    /// A datagram found nobody at the peer's address.
    fn connection_refused(&mut self, _transport: &DatagramTransport<A>) {}

    /// The socket could not be connected; nothing else is called.
    fn connection_failed(&mut self, _error: &DatagramError) {}

    /// The socket is gone; the last call.
    fn stop_protocol(&mut self) {}
}

/// The kind of address that a socket's datagrams come from: [`SocketAddr`] or [`UnixAddr`], and no other.
pub trait DatagramAddr: Clone + fmt::Debug + sealed::Sealed + 'static {}

impl DatagramAddr for SocketAddr {}
impl DatagramAddr for UnixAddr {}

pub(crate) mod sealed {
    use super::{Addr, SocketAddr, UnixAddr};

    pub trait Sealed: Sized {
        /// The longest datagram that is received. Longer ones are dropped.
        const BYTES_MAX: usize;
        /// Of UDP: the kernel tells when there is room again also for a socket that is not connected, and names of
        /// sockets are unique.
        const IP: bool;

        fn to_addr(&self) -> Addr;
        fn of(addr: Addr) -> Option<Self>;
        /// Whether a socket at `self` can send to `other` at all.
        fn reaches(&self, other: &Self) -> bool;
        /// Whether both name the same socket.
        fn is(&self, other: &Self) -> bool;
    }

    impl Sealed for SocketAddr {
        /// The length field of UDP counts no more (RFC 768), so nothing is ever cut.
        const BYTES_MAX: usize = 65_535;
        const IP: bool = true;

        fn to_addr(&self) -> Addr {
            (*self).into()
        }

        fn of(addr: Addr) -> Option<Self> {
            addr.as_ip()
        }

        fn reaches(&self, other: &Self) -> bool {
            self.is_ipv4() == other.is_ipv4()
        }

        fn is(&self, other: &Self) -> bool {
            // The scope and flow of IPv6 may be told by one and left open by the other.
            self.ip() == other.ip() && self.port() == other.port()
        }
    }

    impl Sealed for UnixAddr {
        /// Linux lets a socket send about 208 KiB at once, unless its buffer was enlarged.
        const BYTES_MAX: usize = 256 * 1024;
        const IP: bool = false;

        fn to_addr(&self) -> Addr {
            self.clone().into()
        }

        fn of(addr: Addr) -> Option<Self> {
            match addr {
                Addr::Unix(addr) => Some(addr),
                Addr::Ip(_) => None,
            }
        }

        fn reaches(&self, other: &Self) -> bool {
            !other.is_unnamed()
        }

        fn is(&self, other: &Self) -> bool {
            use std::os::linux::net::SocketAddrExt;
            self.as_pathname() == other.as_pathname()
                && self.as_abstract_name() == other.as_abstract_name()
        }
    }
}

/// Tells a protocol that its socket could not be connected.
pub(crate) fn failed<A: DatagramAddr>(
    protocol: &mut dyn ConnectedDatagramProtocol<A>,
    error: &DatagramError,
) {
    // What has gone wrong is in the log.
    let _ = contain("a datagram protocol", || no_wait(|| protocol.connection_failed(error)));
}

/// A [`ConnectedDatagramProtocol`] as the other kind.
pub(crate) struct Connected<A>(pub(crate) Box<dyn ConnectedDatagramProtocol<A>>);

impl<A: DatagramAddr> DatagramProtocol<A> for Connected<A> {
    fn start_protocol(&mut self, transport: &DatagramTransport<A>) {
        self.0.start_protocol(transport);
    }

    fn datagram_received(&mut self, transport: &DatagramTransport<A>, data: &[u8], _from: A) {
        self.0.datagram_received(transport, data);
    }

    fn connection_refused(&mut self, transport: &DatagramTransport<A>) {
        self.0.connection_refused(transport);
    }

    fn stop_protocol(&mut self) {
        self.0.stop_protocol();
    }
}
