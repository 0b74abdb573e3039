//! UDP: ports, connected sockets, broadcast; [`multicast`] beside it.

pub(crate) mod multicast;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::sockopt;
use warren_hub::io::Source;

use crate::datagram::{
    Connected, ConnectedDatagramProtocol, DatagramError, DatagramPort, DatagramProtocol,
    DatagramTransport,
};

/// A port of UDP that listens.
pub type UdpPort = DatagramPort<SocketAddr>;

/// Listens for datagrams on `addr`; port 0 takes a free one. `[::]` is not `0.0.0.0`.
///
/// ```
/// use std::net::SocketAddr;
/// use warren_hub::net::UdpSocket;
/// use warren_reactor::{DatagramProtocol, DatagramTransport, listen_udp};
///
/// struct Echo;
///
/// impl DatagramProtocol for Echo {
///     fn datagram_received(&mut self, transport: &DatagramTransport, data: &[u8], from: SocketAddr) {
///         // An answer that cannot be sent is lost like any other datagram.
///         let _ = transport.write(data, from);
///     }
/// }
///
/// warren_hub::run(|| -> std::io::Result<()> {
///     let port = listen_udp("127.0.0.1:0".parse().unwrap(), Box::new(Echo))?;
///     let client = UdpSocket::bind("127.0.0.1:0")?;
///     client.send_to(b"hello", port.host())?;
///     assert_eq!(client.recv(&mut [0; 100])?, 5);
///     Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// What the system says, such as that the address is in use.
///
/// # Panics
/// When no hub runs on this thread.
pub fn listen_udp(
    addr: SocketAddr,
    protocol: Box<dyn DatagramProtocol>,
) -> Result<UdpPort, DatagramError> {
    listen(addr, false, protocol)
}

fn listen(
    addr: SocketAddr,
    shared: bool,
    protocol: Box<dyn DatagramProtocol>,
) -> Result<UdpPort, DatagramError> {
    DatagramPort::start(bind(addr, shared)?, None, None, protocol)
}

fn bind(addr: SocketAddr, shared: bool) -> Result<Source, DatagramError> {
    Source::datagram(&addr.into(), shared)
        .map_err(|error| DatagramError::system(format!("listen for datagrams on {addr}"), error))
}

/// A socket of UDP on a free port that speaks with `addr` only: a client's. That nobody is there is not known before
/// something was sent.
///
/// # Errors
/// What the system says, such as that there is no way to `addr`; the protocol has heard
/// [`connection_failed`](ConnectedDatagramProtocol::connection_failed) then.
///
/// # Panics
/// When no hub runs on this thread.
pub fn connect_udp(
    addr: SocketAddr,
    mut protocol: Box<dyn ConnectedDatagramProtocol>,
) -> Result<UdpPort, DatagramError> {
    let any: IpAddr = match addr {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = bind(SocketAddr::new(any, 0), false).and_then(|source| {
        crate::datagram::set_peer(&source, &addr)?;
        Ok(source)
    });
    match source {
        Ok(source) => DatagramPort::start(source, None, Some(addr), Box::new(Connected(protocol))),
        Err(error) => {
            crate::datagram::failed(&mut *protocol, &error);
            Err(error)
        }
    }
}

impl DatagramTransport<SocketAddr> {
    /// Whether datagrams may go to a broadcast address (`SO_BROADCAST`). Not unless allowed.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_broadcast_allowed(&self, allowed: bool) -> Result<(), DatagramError> {
        self.set("allow broadcasts", |socket| sockopt::set_socket_broadcast(socket, allowed))
    }

    /// Whether datagrams may go to a broadcast address.
    ///
    /// # Errors
    /// What the system says; a simulated socket has no options.
    pub fn broadcast_allowed(&self) -> Result<bool, DatagramError> {
        self.get("tell whether broadcasts are allowed", |socket| sockopt::socket_broadcast(socket))
    }
}
