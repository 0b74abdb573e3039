//! What all policies are made of: a factory round another, and a protocol round each of its protocols.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::delegate::{delegate_client_factory, delegate_factory};
use crate::{ClientFactory, Factory, PeerAddr, Protocol, Reason, Transport};

/// Sees every callback of a protocol, and hands it on. All methods do only that unless written anew.
///
/// ```
/// use std::{cell::Cell, rc::Rc};
/// use warren_reactor::policies::{ProtocolWrapper, WrappingFactory};
/// use warren_reactor::protocols::{for_protocol, wire};
/// use warren_reactor::testing::TestConnection;
/// use warren_reactor::{Factory, PeerAddr, Protocol, Transport};
///
/// struct Counting(Rc<Cell<usize>>);
///
/// impl ProtocolWrapper for Counting {
///     fn data_received(&mut self, inner: &mut dyn Protocol, transport: &Transport, data: &[u8]) {
///         self.0.set(self.0.get() + data.len());
///         inner.data_received(transport, data);
///     }
/// }
///
/// let bytes = Rc::new(Cell::new(0));
/// let counted = bytes.clone();
/// let policy = move |_peer: &PeerAddr| Some(Counting(counted.clone()));
/// let mut factory = WrappingFactory::with(for_protocol(|| wire::Echo), policy);
/// let mut connection = TestConnection::new(factory.build_protocol(&PeerAddr::Memory).unwrap());
/// connection.feed(b"hello");
/// assert_eq!((bytes.get(), connection.take_output()), (5, b"hello".to_vec()));
/// ```
pub trait ProtocolWrapper {
    /// As [`Protocol::connection_made`].
    fn connection_made(&mut self, inner: &mut dyn Protocol, transport: &Transport) {
        inner.connection_made(transport);
    }

    /// As [`Protocol::data_received`].
    fn data_received(&mut self, inner: &mut dyn Protocol, transport: &Transport, data: &[u8]) {
        inner.data_received(transport, data);
    }

    /// As [`Protocol::handshake_completed`].
    fn handshake_completed(&mut self, inner: &mut dyn Protocol, transport: &Transport) {
        inner.handshake_completed(transport);
    }

    /// As [`Protocol::read_connection_lost`].
    fn read_connection_lost(&mut self, inner: &mut dyn Protocol, transport: &Transport) {
        inner.read_connection_lost(transport);
    }

    /// As [`Protocol::write_connection_lost`].
    fn write_connection_lost(&mut self, inner: &mut dyn Protocol, transport: &Transport) {
        inner.write_connection_lost(transport);
    }

    /// As [`Protocol::pause_producing`].
    fn pause_producing(&mut self, inner: &mut dyn Protocol, transport: &Transport) {
        inner.pause_producing(transport);
    }

    /// As [`Protocol::resume_producing`].
    fn resume_producing(&mut self, inner: &mut dyn Protocol, transport: &Transport) {
        inner.resume_producing(transport);
    }

    /// As [`Protocol::connection_lost`]. Both are dropped after this.
    fn connection_lost(&mut self, inner: &mut dyn Protocol, reason: &Reason) {
        inner.connection_lost(reason);
    }
}

/// Decides which connections a [`WrappingFactory`] makes, and how they are wrapped. A closure from the peer to a wrapper
/// or `None` (which refuses it) is one.
pub trait Policy {
    /// What each protocol is wrapped in.
    type Wrapper: ProtocolWrapper + 'static;

    /// What becomes of a connection with `peer`.
    fn admit(&mut self, peer: &PeerAddr) -> Admission<Self::Wrapper>;
}

impl<M, W> Policy for M
where
    M: FnMut(&PeerAddr) -> Option<W>,
    W: ProtocolWrapper + 'static,
{
    type Wrapper = W;

    fn admit(&mut self, peer: &PeerAddr) -> Admission<W> {
        self(peer).map_or(Admission::Refuse, Admission::Accept)
    }
}

/// What becomes of a connection.
pub enum Admission<W> {
    /// The wrapped factory builds its protocol.
    Accept(W),
    /// The connection gets another protocol.
    Instead(W, Box<dyn Protocol>),
    /// It is closed at once.
    Refuse,
}

/// Wraps a factory, and each protocol it builds, by a [`Policy`].
pub struct WrappingFactory<F, P> {
    factory: F,
    pub(super) policy: P,
    connections: Connections,
}

impl<F, P: Policy> WrappingFactory<F, P> {
    /// Wraps `factory`.
    pub fn with(factory: F, policy: P) -> Self {
        Self { factory, policy, connections: Connections::default() }
    }

    /// The connections that stand: a handle to keep when the factory is given away.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }
}

impl<F: Factory, P: Policy> Factory for WrappingFactory<F, P> {
    fn build_protocol(&mut self, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        let (wrapper, inner) = match self.policy.admit(peer) {
            Admission::Accept(wrapper) => (wrapper, self.factory.build_protocol(peer)?),
            Admission::Instead(wrapper, inner) => (wrapper, inner),
            Admission::Refuse => return None,
        };
        let connections = self.connections.clone();
        Some(Box::new(Wrapped { wrapper, inner, connections, listed: None }))
    }

    delegate_factory!(factory);
}

impl<F: ClientFactory, P: Policy> ClientFactory for WrappingFactory<F, P> {
    delegate_client_factory!(factory);
}

/// The connections of a [`WrappingFactory`] that stand. Clones see the same.
#[derive(Clone, Default)]
pub struct Connections(Rc<RefCell<BTreeMap<u64, Transport>>>);

impl Connections {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Calls `f` with each, in the order in which they were made.
    pub fn for_each(&self, f: impl FnMut(&Transport)) {
        // What it does may end one.
        let transports: Vec<Transport> = self.0.borrow().values().cloned().collect();
        transports.iter().for_each(f);
    }

    /// Takes a connection into the list.
    pub(super) fn list(&self, transport: &Transport) -> Listed {
        self.0.borrow_mut().insert(transport.id(), transport.clone());
        Listed { connections: self.clone(), id: transport.id() }
    }
}

/// A place in the list. It is given back however a protocol ends.
pub(super) struct Listed {
    connections: Connections,
    id: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let gone = self.connections.0.borrow_mut().remove(&self.id);
        drop(gone);
    }
}

struct Wrapped<W> {
    wrapper: W,
    inner: Box<dyn Protocol>,
    connections: Connections,
    /// Once the connection is made.
    listed: Option<Listed>,
}

impl<W: ProtocolWrapper> Protocol for Wrapped<W> {
    fn connection_made(&mut self, transport: &Transport) {
        self.listed = Some(self.connections.list(transport));
        self.wrapper.connection_made(&mut *self.inner, transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.wrapper.data_received(&mut *self.inner, transport, data);
    }

    fn handshake_completed(&mut self, transport: &Transport) {
        self.wrapper.handshake_completed(&mut *self.inner, transport);
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.wrapper.read_connection_lost(&mut *self.inner, transport);
    }

    fn write_connection_lost(&mut self, transport: &Transport) {
        self.wrapper.write_connection_lost(&mut *self.inner, transport);
    }

    fn pause_producing(&mut self, transport: &Transport) {
        self.wrapper.pause_producing(&mut *self.inner, transport);
    }

    fn resume_producing(&mut self, transport: &Transport) {
        self.wrapper.resume_producing(&mut *self.inner, transport);
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.listed = None;
        self.wrapper.connection_lost(&mut *self.inner, reason);
    }
}
