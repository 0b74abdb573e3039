//! Forwarding connections to another address (Twisted's `protocols.portforward`).
//!
//! ```text
//!   peer <--> ProxyServer <== each writes to the other's transport ==> ProxyClient <--> destination
//! ```
//! Neither side is read faster than the other writes, and each side's end of output is handed on to the other, so that
//! a request followed by a half close gets its answer.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::{
    ClientFactory, ConnectOptions, Connector, Factory, PeerAddr, Protocol, Reason, Transport,
    connect_tcp_with,
};

/// Makes a connection to one address for each that is accepted, and forwards what comes both ways.
///
/// ```
/// use warren_reactor::listen_tcp;
/// use warren_reactor::protocols::portforward::ProxyFactory;
///
/// # warren_hub::run(|| {
/// let destination = "127.0.0.1:5672".parse().unwrap();
/// let port = listen_tcp("127.0.0.1:0".parse().unwrap(), Box::new(ProxyFactory::new(destination)));
/// # let _ = port;
/// # });
/// ```
pub struct ProxyFactory {
    destination: SocketAddr,
    options: ConnectOptions,
}

impl ProxyFactory {
    /// Forwards to `destination`.
    pub fn new(destination: SocketAddr) -> Self {
        Self { destination, options: ConnectOptions::default() }
    }

    /// How the connections to the destination are made.
    #[must_use]
    pub fn connect_options(mut self, options: ConnectOptions) -> Self {
        self.options = options;
        self
    }
}

impl Factory for ProxyFactory {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        Some(Box::new(ProxyServer::new(self.destination, self.options.clone())))
    }
}

/// The side that was accepted. It reads nothing before the other is connected.
pub struct ProxyServer {
    destination: SocketAddr,
    options: ConnectOptions,
    pair: Rc<Pair>,
    connector: Option<Connector>,
}

/// What both sides know.
#[derive(Default)]
struct Pair {
    server: RefCell<Option<Transport>>,
    client: RefCell<Option<Transport>>,
}

impl ProxyServer {
    /// Forwards its connection to `destination`.
    pub fn new(destination: SocketAddr, options: ConnectOptions) -> Self {
        Self { destination, options, pair: Rc::default(), connector: None }
    }
}

impl Protocol for ProxyServer {
    fn connection_made(&mut self, transport: &Transport) {
        transport.pause_reading();
        *self.pair.server.borrow_mut() = Some(transport.clone());
        let dialer = Box::new(Dialer { pair: self.pair.clone() });
        self.connector = Some(connect_tcp_with(self.destination, dialer, self.options.clone()));
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        with(&self.pair.client, |client| client.write(data));
    }

    fn read_connection_lost(&mut self, _transport: &Transport) {
        with(&self.pair.client, Transport::lose_write_connection);
    }

    fn pause_producing(&mut self, _transport: &Transport) {
        with(&self.pair.client, Transport::pause_reading);
    }

    fn resume_producing(&mut self, _transport: &Transport) {
        with(&self.pair.client, Transport::resume_reading);
    }

    fn connection_lost(&mut self, reason: &Reason) {
        let gone = self.pair.server.take();
        drop(gone);
        end(&self.pair.client, reason);
        if let Some(connector) = &self.connector {
            connector.stop_connecting();
        }
    }
}

/// The side that connects to the destination.
struct ProxyClient {
    pair: Rc<Pair>,
}

impl Protocol for ProxyClient {
    fn connection_made(&mut self, transport: &Transport) {
        let server = self.pair.server.borrow().clone();
        match server {
            Some(server) => {
                *self.pair.client.borrow_mut() = Some(transport.clone());
                server.resume_reading();
            }
            // It has gone meanwhile.
            None => transport.abort_connection(),
        }
    }

    fn data_received(&mut self, _transport: &Transport, data: &[u8]) {
        with(&self.pair.server, |server| server.write(data));
    }

    fn read_connection_lost(&mut self, _transport: &Transport) {
        with(&self.pair.server, Transport::lose_write_connection);
    }

    fn pause_producing(&mut self, _transport: &Transport) {
        with(&self.pair.server, Transport::pause_reading);
    }

    fn resume_producing(&mut self, _transport: &Transport) {
        with(&self.pair.server, Transport::resume_reading);
    }

    fn connection_lost(&mut self, reason: &Reason) {
        let gone = self.pair.client.take();
        drop(gone);
        end(&self.pair.server, reason);
    }
}

/// Makes the client's side.
struct Dialer {
    pair: Rc<Pair>,
}

impl Factory for Dialer {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        Some(Box::new(ProxyClient { pair: self.pair.clone() }))
    }
}

impl ClientFactory for Dialer {
    fn client_connection_failed(&mut self, connector: &Connector, reason: &Reason) {
        with(&self.pair.server, |server| {
            let (peer, destination) = (server.peer(), connector.destination());
            tracing::warn!(%peer, %destination, %reason, "a connection could not be forwarded");
            server.lose_connection();
        });
    }
}

fn with(side: &RefCell<Option<Transport>>, f: impl FnOnce(&Transport)) {
    let transport = side.borrow().clone();
    if let Some(transport) = transport {
        f(&transport);
    }
}

/// One side is gone for `reason`: so is the other, once it has got what was meant for it. A cut is handed on as a cut.
fn end(side: &RefCell<Option<Transport>>, reason: &Reason) {
    with(side, |transport| match reason {
        Reason::Done | Reason::Closed => transport.lose_connection(),
        _ => transport.abort_connection(),
    });
}
