//! TLS 1.2 and 1.3 for transports, by rustls (the crate's feature `tls`).
//!
//! A server has [`TlsServerOptions`], made by [`CertificateOptions`], a client [`TlsClientOptions`], made by
//! [`options_for_client_tls`]. With them [`listen_ssl`] and [`connect_ssl`] make connections that are encrypted from
//! their first byte, and [`Transport::start_tls`] encrypts one that has begun in the clear (STARTTLS). A protocol is the
//! same with TLS and without: what it writes before the handshake has been completed waits, and it hears of that in
//! [`handshake_completed`](crate::Protocol::handshake_completed), if it wants to; [`Transport::tls_info`] tells what was
//! agreed upon.
//!
//! - [`Transport::lose_connection`] ends with TLS' own farewell (`close_notify`), and so does
//!   [`lose_write_connection`](Transport::lose_write_connection), after which the peer may go on to send. A peer that
//!   closes the connection without it may have been cut off: that is an error, `UnexpectedEof`.
//! - All errors arrive in [`connection_lost`](crate::Protocol::connection_lost) as
//!   [`Reason::Error`], and say what to do about them; within is a [`TlsError`]. The peer is told
//!   by an alert.
//! - A handshake has 10 s, unless the options say otherwise.
//! - Sessions are resumed (by tickets); there is no renegotiation, no compression and no early data (0-RTT).
//! - A connection that waits owns rustls' session, and no buffers.
//!
//! In a test the same works in memory:
//!
//! ```
//! use warren_reactor::testing::TestConnection;
//! use warren_reactor::tls::{CertificateOptions, TlsFactory, options_for_client_tls};
//! use warren_reactor::{Factory, PeerAddr, Protocol, Reason, Transport};
//!
//! /// Answers what it is asked, and asks if it is to.
//! struct Talk(Option<&'static str>);
//!
//! impl Protocol for Talk {
//!     fn connection_made(&mut self, transport: &Transport) {
//!         // Waits for the handshake.
//!         transport.write(self.0.unwrap_or_default().as_bytes());
//!     }
//!     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
//!         assert_eq!(data, b"secret");
//!         assert_eq!(transport.tls_info().unwrap().server_name.as_deref(), Some("localhost"));
//!         transport.lose_connection();
//!     }
//!     fn connection_lost(&mut self, _reason: &Reason) {}
//! }
//!
//! let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
//! let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
//! let server = CertificateOptions::from_pem(&certificate, &key).build()?;
//! let client = options_for_client_tls("localhost").roots(&certificate).build()?;
//!
//! let secured = |protocol: Option<Box<dyn Protocol>>| TestConnection::new(protocol.unwrap());
//! let serve = |_: &PeerAddr| Some(Box::new(Talk(None)) as Box<dyn Protocol>);
//! let ask = |_: &PeerAddr| Some(Box::new(Talk(Some("secret"))) as Box<dyn Protocol>);
//! let mut server = secured(TlsFactory::new(&server, Box::new(serve)).build_protocol(&PeerAddr::Memory));
//! let mut client = secured(TlsFactory::new(&client, Box::new(ask)).build_protocol(&PeerAddr::Memory));
//! while !server.is_lost() || !client.is_lost() {
//!     server.feed(&client.take_output());
//!     client.feed(&server.take_output());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod factory;
mod options;
mod session;

use std::any::Any;
use std::io;
use std::net::SocketAddr;

pub use factory::TlsFactory;
pub use options::{
    CertificateOptions, ClientTlsBuilder, TlsClientOptions, TlsOptions, TlsServerOptions,
    options_for_client_tls,
};
pub use warren_hub::net::tls::{ClientAuth, TlsError, TlsVersion, rustls};

use rustls::pki_types::CertificateDer;
use rustls::{CipherSuite, HandshakeKind, ProtocolVersion};

use crate::connect::{ConnectOptions, Connector, connect_tcp_with};
use crate::listen::{ListeningPort, listen_tcp};
use crate::protocol::{ClientFactory, Factory, Reason};
use crate::time::{call_later, has_time};
use crate::transport::Transport;
use session::TlsLayer;

/// What both sides have agreed upon.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The version of TLS.
    pub version: ProtocolVersion,
    /// The cipher and what belongs to it.
    pub cipher_suite: CipherSuite,
    /// The protocol that is spoken inside (ALPN, RFC 7301); `None` when none was offered.
    pub alpn: Option<Vec<u8>>,
    /// The host that the client asked for (SNI, RFC 6066 §3); `None` when it asked for an address or for nothing.
    pub server_name: Option<String>,
    /// The peer's certificate and those that vouch for it, its own first; empty when it showed none. They have been
    /// checked.
    pub peer_certificates: Vec<CertificateDer<'static>>,
    /// Whether this is a new session or a resumed one.
    pub handshake: HandshakeKind,
}

/// Listens for TCP connections on `addr` and lets `factory` build a protocol for each, with TLS from the first byte
/// (Twisted's `listenSSL`).
///
/// # Errors
/// What the system says, such as that the address is in use.
///
/// # Panics
/// When no hub runs on this thread.
pub fn listen_ssl(
    addr: SocketAddr,
    factory: Box<dyn Factory>,
    options: &TlsServerOptions,
) -> io::Result<ListeningPort> {
    listen_tcp(addr, Box::new(TlsFactory::new(options, factory)))
}

/// Connects to `addr` and lets `factory` build the protocol, with TLS from the first byte (Twisted's `connectSSL`). When
/// the handshake fails, the factory hears that the connection was *lost*, and why.
///
/// # Panics
/// When no hub runs on this thread.
pub fn connect_ssl(
    addr: SocketAddr,
    factory: Box<dyn ClientFactory>,
    options: &TlsClientOptions,
) -> Connector {
    connect_ssl_with(addr, factory, options, ConnectOptions::default())
}

/// As [`connect_ssl`], in a certain way.
///
/// # Panics
/// When no hub runs on this thread.
pub fn connect_ssl_with(
    addr: SocketAddr,
    factory: Box<dyn ClientFactory>,
    options: &TlsClientOptions,
    connect: ConnectOptions,
) -> Connector {
    connect_tcp_with(addr, Box::new(TlsFactory::new(options, factory)), connect)
}

/// TLS on a transport.
impl Transport {
    /// Encrypts a connection that has begun in the clear: as the server with [`TlsServerOptions`], as the client with
    /// [`TlsClientOptions`]. What was written before still leaves as it is, all that is written from now on is encrypted;
    /// what comes in from now on must be TLS, beginning with `rest`: what has been received already beyond the last
    /// message in the clear. In a callback of one of the [receivers](crate::protocols) `rest` is empty: they hand back what
    /// they have not told.
    ///
    /// `rest` is a matter of security. An attacker in the middle can append commands of his own to the peer's last words
    /// in the clear; a protocol that keeps them in its buffer and obeys them once TLS runs takes them for the peer's
    /// (CVE-2011-0411 was this). So whatever is left in a protocol's buffer belongs in `rest`, where it is TLS or an
    /// error, and the buffer must be empty afterwards. A server whose clients have to wait for its permission to begin
    /// may as well close the connection when anything is left.
    ///
    /// # Errors
    /// `AlreadyExists` when the connection has TLS; `NotConnected` when it is being or has been closed; what is wrong with
    /// the options.
    pub fn start_tls(&self, options: &impl TlsOptions, rest: &[u8]) -> io::Result<()> {
        if self.is_closing() {
            let text = "TLS cannot be started on a connection that is being closed";
            return Err(io::Error::new(io::ErrorKind::NotConnected, text));
        }
        let mut start = options.start()?;
        if let Some(timeout) = start.timeout.filter(|_| has_time()) {
            let transport = self.downgrade();
            start.layer.deadline = Some(call_later(timeout, move || {
                if let Some(transport) = transport.upgrade() {
                    let text =
                        format!("the peer did not complete the TLS handshake in {timeout:?}");
                    let error = io::Error::new(io::ErrorKind::TimedOut, text);
                    transport.fail(Reason::Error(error));
                }
            }));
        }
        self.add_layer(Box::new(start.layer), rest).ok_or_else(|| {
            io::Error::new(io::ErrorKind::AlreadyExists, "the connection has TLS already")
        })
    }

    /// What was agreed upon; `None` without TLS, and before the handshake has been completed.
    pub fn tls_info(&self) -> Option<TlsInfo> {
        self.with_layer(|layer| (layer as &dyn Any).downcast_ref::<TlsLayer>()?.info())
            .unwrap_or_else(|| self.far_tls_info())
    }
}
