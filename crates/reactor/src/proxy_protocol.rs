//! The PROXY protocol, versions 1 and 2: behind a proxy that forwards connections, who has really connected
//! (Twisted's `HAProxyWrappingFactory`).
//!
//! The proxy says so in a header before anything else, TLS included. A [`ProxyFactory`] reads it and builds the protocol
//! of another factory only then, for the real peer; [`Transport::peer`] and [`host`](Transport::host) tell of the real ends
//! from then on.
//!
//! Anyone can write a header, so a port that reads them must be reachable for proxies only, or know them by
//! [`ProxyOptions::sources`]. There is no guessing: where a header is expected and none comes, the connection is
//! closed.
//!
//! ```
//! use warren_reactor::proxy_protocol::{ProxyFactory, ProxyOptions};
//! use warren_reactor::testing::TestConnection;
//! use warren_reactor::{Factory, PeerAddr, Protocol, Reason, Transport};
//!
//! struct Greeter;
//!
//! impl Protocol for Greeter {
//!     fn connection_made(&mut self, transport: &Transport) {
//!         transport.write(format!("hello {}", transport.peer()).as_bytes());
//!     }
//!     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {}
//!     fn connection_lost(&mut self, _reason: &Reason) {}
//! }
//!
//! let greet = |_: &PeerAddr| Some(Box::new(Greeter) as Box<dyn Protocol>);
//! let mut factory = ProxyFactory::new(Box::new(greet), ProxyOptions::default());
//! let mut connection = TestConnection::new(factory.build_protocol(&PeerAddr::Memory).unwrap());
//! connection.feed(b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 5672\r\n");
//! assert_eq!(connection.take_output(), b"hello 192.0.2.1:56324");
//! ```

mod header;
mod network;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

pub use header::{ProxyHeader, ProxyHeaderError};
pub use network::Network;

use crate::protocol::{Factory, PeerAddr, Protocol, Reason};
use crate::time::{DelayedCall, call_later, has_time};
use crate::transport::Transport;

/// How headers are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyOptions {
    /// Who sends headers, and has to; others are served as they are. Empty: everyone.
    pub sources: Vec<Network>,
    /// How long a header may take.
    pub timeout: Duration,
}

impl Default for ProxyOptions {
    /// Everyone has to send a header, within 10 s.
    fn default() -> Self {
        Self { sources: Vec::new(), timeout: Duration::from_secs(10) }
    }
}

impl ProxyOptions {
    fn expects_header(&self, peer: &PeerAddr) -> bool {
        match peer {
            _ if self.sources.is_empty() => true,
            PeerAddr::Tcp(addr) => self.sources.iter().any(|source| source.contains(addr.ip())),
            _ => false,
        }
    }
}

/// A factory for connections that come through proxies.
pub struct ProxyFactory {
    factory: Rc<RefCell<Box<dyn Factory>>>,
    options: ProxyOptions,
}

impl ProxyFactory {
    /// Lets `factory` build protocols for those whom proxies tell of.
    pub fn new(factory: Box<dyn Factory>, options: ProxyOptions) -> Self {
        Self { factory: Rc::new(RefCell::new(factory)), options }
    }
}

impl Factory for ProxyFactory {
    fn build_protocol(&mut self, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        if !self.options.expects_header(peer) {
            return self.factory.borrow_mut().build_protocol(peer);
        }
        Some(Box::new(Proxied {
            stage: Stage::Header { seen: Vec::new(), deadline: None },
            factory: self.factory.clone(),
            timeout: self.options.timeout,
        }))
    }

    fn start_factory(&mut self) {
        self.factory.borrow_mut().start_factory();
    }

    fn stop_factory(&mut self) {
        self.factory.borrow_mut().stop_factory();
    }
}

impl fmt::Debug for ProxyFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyFactory").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A connection, before and after its header.
struct Proxied {
    stage: Stage,
    factory: Rc<RefCell<Box<dyn Factory>>>,
    timeout: Duration,
}

enum Stage {
    Header {
        /// What has come of it: less than [`ProxyHeader::BYTES_MAX`].
        seen: Vec<u8>,
        deadline: Option<DelayedCall>,
    },
    /// Everything is the protocol's.
    Open(Box<dyn Protocol>),
    /// There was no header, or the factory wants nothing of this peer.
    Refused,
}

impl Proxied {
    fn inner(&mut self) -> Option<&mut dyn Protocol> {
        match &mut self.stage {
            Stage::Open(protocol) => Some(protocol.as_mut()),
            _ => None,
        }
    }

    fn end_of_header(&mut self) -> bool {
        let Stage::Header { deadline, .. } = std::mem::replace(&mut self.stage, Stage::Refused)
        else {
            return false;
        };
        if let Some(deadline) = deadline {
            deadline.cancel();
        }
        true
    }

    fn open(&mut self, transport: &Transport, header: ProxyHeader) {
        if let ProxyHeader::Proxied { source, destination } = header {
            transport.set_ends(PeerAddr::Tcp(source), PeerAddr::Tcp(destination));
        }
        let built = self.factory.borrow_mut().build_protocol(transport.peer());
        match built {
            Some(mut protocol) => {
                protocol.connection_made(transport);
                self.stage = Stage::Open(protocol);
            }
            None => transport.lose_connection(),
        }
    }
}

impl Protocol for Proxied {
    fn connection_made(&mut self, transport: &Transport) {
        let Stage::Header { deadline, .. } = &mut self.stage else { return };
        if has_time() {
            let (timeout, transport) = (self.timeout, transport.downgrade());
            *deadline = Some(call_later(timeout, move || {
                if let Some(transport) = transport.upgrade() {
                    let text = format!("no PROXY header has come in {timeout:?}");
                    transport.fail(Reason::Error(io::Error::new(io::ErrorKind::TimedOut, text)));
                }
            }));
        }
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let seen = match &mut self.stage {
            Stage::Open(protocol) => return protocol.data_received(transport, data),
            Stage::Refused => return,
            Stage::Header { seen, .. } => seen,
        };
        let before = seen.len();
        // A whole header and no more, so that what is behind it need not be kept.
        let more = data.len().min(ProxyHeader::BYTES_MAX - before);
        seen.extend_from_slice(&data[..more]);
        match ProxyHeader::parse(seen) {
            Ok(None) => {}
            Ok(Some((header, count))) => {
                self.end_of_header();
                self.open(transport, header);
                // With TLS from now on, if that is the protocol's way.
                transport.unread(data.len() - (count - before));
            }
            Err(error) => {
                self.end_of_header();
                transport.fail(Reason::Error(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }

    fn handshake_completed(&mut self, transport: &Transport) {
        if let Some(inner) = self.inner() {
            inner.handshake_completed(transport);
        }
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        match self.inner() {
            Some(inner) => inner.read_connection_lost(transport),
            None => transport.lose_connection(),
        }
    }

    fn write_connection_lost(&mut self, transport: &Transport) {
        if let Some(inner) = self.inner() {
            inner.write_connection_lost(transport);
        }
    }

    fn pause_producing(&mut self, transport: &Transport) {
        if let Some(inner) = self.inner() {
            inner.pause_producing(transport);
        }
    }

    fn resume_producing(&mut self, transport: &Transport) {
        if let Some(inner) = self.inner() {
            inner.resume_producing(transport);
        }
    }

    fn connection_lost(&mut self, reason: &Reason) {
        match self.inner() {
            Some(inner) => inner.connection_lost(reason),
            None => {
                self.end_of_header();
                tracing::warn!(%reason, "a connection that was to begin with a PROXY header has ended");
            }
        }
    }
}
