//! Where to connect to.

use std::cell::OnceCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use warren_hub::io::Addr;

use super::StreamClientEndpoint;
use crate::connect::{ConnectOptions, Connector, WeakConnector};
use crate::deferred::{Deferred, Resolver};
use crate::protocol::{ClientFactory, Factory, PeerAddr, Protocol, Reason};
use crate::transport::Transport;

/// An address of TCP to connect to.
#[derive(Clone, Debug)]
pub struct TcpClientEndpoint {
    addr: SocketAddr,
    options: ConnectOptions,
}

impl TcpClientEndpoint {
    /// The address `addr`.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, options: ConnectOptions::default() }
    }

    /// How long the peer may take to answer: 30 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }

    /// The address to connect from; with port 0 the system chooses one.
    #[must_use]
    pub fn bind_address(mut self, addr: SocketAddr) -> Self {
        self.options.bind = Some(addr);
        self
    }
}

impl StreamClientEndpoint for TcpClientEndpoint {
    fn connect(&self, factory: Box<dyn Factory>) -> Deferred<Transport, io::Error> {
        connect_once(self.addr.into(), factory, self.options.clone())
    }
}

/// A Unix socket to connect to.
#[derive(Clone, Debug)]
pub struct UnixClientEndpoint {
    path: PathBuf,
    options: ConnectOptions,
}

impl UnixClientEndpoint {
    /// The socket at `path`.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), options: ConnectOptions::default() }
    }

    /// How long the peer may take to answer: 30 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = timeout;
        self
    }
}

impl StreamClientEndpoint for UnixClientEndpoint {
    fn connect(&self, factory: Box<dyn Factory>) -> Deferred<Transport, io::Error> {
        match std::os::unix::net::SocketAddr::from_pathname(&self.path) {
            Ok(addr) => connect_once(Addr::Unix(addr), factory, self.options.clone()),
            Err(error) => Deferred::fail(error),
        }
    }
}

/// Another endpoint, with TLS from the first byte. Made by [`wrap_client_tls`].
#[cfg(feature = "tls")]
#[derive(Clone, Debug)]
pub struct TlsClientEndpoint<E> {
    endpoint: E,
    options: crate::tls::TlsClientOptions,
}

/// `endpoint` with TLS from the first byte (Twisted's `wrapClientTLS`). The Deferred of its `connect` fires when the
/// connection stands; how the handshake went is told to the protocol, by
/// [`handshake_completed`](Protocol::handshake_completed) or [`connection_lost`](Protocol::connection_lost).
#[cfg(feature = "tls")]
pub fn wrap_client_tls<E: StreamClientEndpoint>(
    options: &crate::tls::TlsClientOptions,
    endpoint: E,
) -> TlsClientEndpoint<E> {
    TlsClientEndpoint { endpoint, options: options.clone() }
}

#[cfg(feature = "tls")]
impl<E: StreamClientEndpoint> StreamClientEndpoint for TlsClientEndpoint<E> {
    fn connect(&self, factory: Box<dyn Factory>) -> Deferred<Transport, io::Error> {
        self.endpoint.connect(Box::new(crate::tls::TlsFactory::new(&self.options, factory)))
    }
}

/// Any endpoint, such as one from a string.
impl<E: StreamClientEndpoint + ?Sized> StreamClientEndpoint for Box<E> {
    fn connect(&self, factory: Box<dyn Factory>) -> Deferred<Transport, io::Error> {
        (**self).connect(factory)
    }
}

impl fmt::Debug for dyn StreamClientEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamClientEndpoint").finish_non_exhaustive()
    }
}

/// Connects `protocol` to `endpoint`: for a protocol that is there already and needs no factory (Twisted's
/// `connectProtocol`).
///
/// # Panics
/// When no hub runs on this thread.
pub fn connect_protocol(
    endpoint: &(impl StreamClientEndpoint + ?Sized),
    protocol: impl Protocol + 'static,
) -> Deferred<Transport, io::Error> {
    let mut protocol = Some(Box::new(protocol) as Box<dyn Protocol>);
    endpoint.connect(Box::new(move |_: &PeerAddr| protocol.take()))
}

type Connecting = Resolver<Transport, io::Error>;

/// Makes one connection.
fn connect_once(
    addr: Addr,
    factory: Box<dyn Factory>,
    options: ConnectOptions,
) -> Deferred<Transport, io::Error> {
    let (connected, resolver) = Deferred::pending();
    // The canceller needs the connector, which needs the factory, which has the resolver.
    let place = Rc::new(OnceCell::<WeakConnector>::new());
    let connector = place.clone();
    resolver.on_cancel(move || {
        if let Some(connector) = connector.get().and_then(WeakConnector::upgrade) {
            connector.stop_connecting();
        }
    });
    let once = Once { factory, resolver: Some(resolver) };
    let _ = place.set(Connector::new(addr, Box::new(once), options).downgrade());
    connected
}

/// A client factory that fires a Deferred.
struct Once {
    factory: Box<dyn Factory>,
    resolver: Option<Connecting>,
}

impl Once {
    fn fail(&mut self, error: impl FnOnce() -> io::Error) {
        if let Some(resolver) = self.resolver.take() {
            resolver.errback(error());
        }
    }
}

impl Factory for Once {
    fn build_protocol(&mut self, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        let protocol = self.factory.build_protocol(peer);
        if protocol.is_none() {
            self.fail(|| refused(peer));
        }
        protocol
    }

    fn start_factory(&mut self) {
        self.factory.start_factory();
    }

    fn stop_factory(&mut self) {
        self.factory.stop_factory();
    }
}

impl ClientFactory for Once {
    fn client_connection_made(&mut self, _connector: &Connector, transport: &Transport) {
        if let Some(resolver) = self.resolver.take() {
            resolver.callback(transport.clone());
        }
    }

    fn client_connection_failed(&mut self, connector: &Connector, reason: &Reason) {
        self.fail(|| not_connected(&connector.destination(), reason));
    }

    fn client_connection_lost(&mut self, connector: &Connector, reason: &Reason) {
        self.fail(|| not_connected(&connector.destination(), reason));
    }
}

/// The factory has no protocol for `peer`.
pub(super) fn refused(peer: &PeerAddr) -> io::Error {
    let text = format!("connected to {peer}, but the factory has no protocol for it");
    io::Error::new(io::ErrorKind::ConnectionAborted, text)
}

/// A connection that was not made, with its name.
pub(super) fn not_connected(to: &dyn fmt::Display, reason: &Reason) -> io::Error {
    let kind = match reason {
        Reason::Error(error) => error.kind(),
        _ => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, format!("cannot connect to {to}: {reason}"))
}
