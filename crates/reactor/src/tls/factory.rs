//! Connections that speak TLS from their first byte.

use std::fmt;

use super::TlsOptions;
use crate::delegate::{delegate_client_factory, delegate_factory, delegate_protocol};
use crate::protocol::{ClientFactory, Factory, PeerAddr, Protocol, Reason};
use crate::transport::Transport;

/// A factory whose protocols speak TLS from the first byte (Twisted's `TLSMemoryBIOFactory`): for listeners and
/// connections that know nothing of it.
///
/// `O` is [`TlsServerOptions`](super::TlsServerOptions) or [`TlsClientOptions`](super::TlsClientOptions).
pub struct TlsFactory<O, F: ?Sized> {
    options: O,
    factory: Box<F>,
}

impl<O: TlsOptions, F: Factory + ?Sized> TlsFactory<O, F> {
    /// Lets the protocols of `factory` speak TLS.
    pub fn new(options: &O, factory: Box<F>) -> Self {
        Self { options: options.clone(), factory }
    }
}

impl<O: TlsOptions, F: Factory + ?Sized> Factory for TlsFactory<O, F> {
    fn build_protocol(&mut self, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        let protocol = self.factory.build_protocol(peer)?;
        Some(Box::new(Secured { protocol, options: self.options.clone() }))
    }

    delegate_factory!(factory);
}

impl<O: TlsOptions, F: ClientFactory + ?Sized> ClientFactory for TlsFactory<O, F> {
    delegate_client_factory!(factory);
}

impl<O, F: ?Sized> fmt::Debug for TlsFactory<O, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsFactory").finish_non_exhaustive()
    }
}

/// Starts TLS before its protocol hears of the connection.
struct Secured<O> {
    protocol: Box<dyn Protocol>,
    options: O,
}

impl<O: TlsOptions> Protocol for Secured<O> {
    fn connection_made(&mut self, transport: &Transport) {
        if let Err(error) = transport.start_tls(&self.options, b"") {
            // Nothing can be written in the clear from now on.
            transport.fail(Reason::Error(error));
        }
        self.protocol.connection_made(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.protocol.data_received(transport, data);
    }

    delegate_protocol!(
        protocol: handshake_completed, read_connection_lost,
        write_connection_lost, pause_producing, resume_producing
    );

    fn connection_lost(&mut self, reason: &Reason) {
        self.protocol.connection_lost(reason);
    }
}
