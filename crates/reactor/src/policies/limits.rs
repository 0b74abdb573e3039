//! Limits on the number of connections.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

use super::wrapping::{Admission, Policy, ProtocolWrapper, WrappingFactory};
use crate::{PeerAddr, Protocol};

/// Of one peer, as Twisted's.
const CONNECTIONS_PER_PEER: usize = 5;
/// What one subscriber is given at least, and so what one machine can take addresses from (RFC 6177).
const IPV6_PREFIX_BITS: u32 = 64;

/// Limits how many connections a factory has at a time.
pub type LimitTotalConnectionsFactory<F> = WrappingFactory<F, TotalConnections>;

/// The policy of a [`LimitTotalConnectionsFactory`].
pub struct TotalConnections {
    limit: usize,
    count: Rc<Cell<usize>>,
    overflow: Option<Overflow>,
}

/// Builds the protocol for a connection that is one too many.
type Overflow = Box<dyn FnMut(&PeerAddr) -> Option<Box<dyn Protocol>>>;

impl<F> WrappingFactory<F, TotalConnections> {
    /// Wraps `factory`. More than `limit` connections at a time are refused: they are closed at once.
    pub fn new(factory: F, limit: usize) -> Self {
        Self::with(factory, TotalConnections { limit, count: Rc::default(), overflow: None })
    }

    /// Connections beyond the limit get the protocol that `build` gives, to be told that they are too many. It should
    /// close them soon: they count as the others do.
    #[must_use]
    pub fn overflow(
        mut self,
        build: impl FnMut(&PeerAddr) -> Option<Box<dyn Protocol>> + 'static,
    ) -> Self {
        self.policy.overflow = Some(Box::new(build));
        self
    }
}

impl Policy for TotalConnections {
    type Wrapper = Counted;

    fn admit(&mut self, peer: &PeerAddr) -> Admission<Counted> {
        if self.count.get() < self.limit {
            return Admission::Accept(Counted::new(&self.count));
        }
        match self.overflow.as_mut().and_then(|build| build(peer)) {
            Some(protocol) => Admission::Instead(Counted::new(&self.count), protocol),
            None => Admission::Refuse,
        }
    }
}

/// One of so many connections, until it is dropped.
pub struct Counted(Rc<Cell<usize>>);

impl Counted {
    pub(super) fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl ProtocolWrapper for Counted {}

/// Limits how many connections a factory has with one peer at a time.
///
/// A peer is an IPv4 address, or an IPv6 network of 64 bits, out of which one machine can take as many addresses as it
/// likes. Peers without an address, on Unix sockets, are not limited.
pub type LimitConnectionsByPeer<F> = WrappingFactory<F, ConnectionsByPeer>;

/// The policy of a [`LimitConnectionsByPeer`].
pub struct ConnectionsByPeer {
    limit: usize,
    ipv6_prefix_bits: u32,
    counts: Counts,
}

type Counts = Rc<RefCell<HashMap<IpAddr, usize>>>;

impl<F> WrappingFactory<F, ConnectionsByPeer> {
    /// Wraps `factory`. More than five connections of a peer are refused, as with Twisted.
    pub fn new(factory: F) -> Self {
        let policy = ConnectionsByPeer {
            limit: CONNECTIONS_PER_PEER,
            ipv6_prefix_bits: IPV6_PREFIX_BITS,
            counts: Counts::default(),
        };
        Self::with(factory, policy)
    }

    /// How many connections a peer may have at a time.
    #[must_use]
    pub fn max_connections(mut self, limit: usize) -> Self {
        self.policy.limit = limit;
        self
    }

    /// How many bits of an IPv6 address tell one peer from another.
    ///
    /// # Panics
    /// When they are more than 128.
    #[must_use]
    pub fn ipv6_prefix(mut self, bits: u32) -> Self {
        assert!(bits <= 128, "an IPv6 address has 128 bits");
        self.policy.ipv6_prefix_bits = bits;
        self
    }
}

impl ConnectionsByPeer {
    /// What `peer` is known by.
    fn key(&self, peer: &PeerAddr) -> Option<IpAddr> {
        let PeerAddr::Tcp(addr) = peer else { return None };
        Some(match addr.ip().to_canonical() {
            IpAddr::V6(ip) => {
                let host_bits = 128 - self.ipv6_prefix_bits;
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                Ipv6Addr::from_bits(ip.to_bits() & mask).into()
            }
            ip @ IpAddr::V4(_) => ip,
        })
    }
}

impl Policy for ConnectionsByPeer {
    type Wrapper = CountedByPeer;

    fn admit(&mut self, peer: &PeerAddr) -> Admission<CountedByPeer> {
        let Some(key) = self.key(peer) else { return Admission::Accept(CountedByPeer(None)) };
        let mut counts = self.counts.borrow_mut();
        let count = counts.get(&key).copied().unwrap_or(0);
        if self.limit <= count {
            return Admission::Refuse;
        }
        counts.insert(key, count + 1);
        Admission::Accept(CountedByPeer(Some((key, self.counts.clone()))))
    }
}

/// One of so many connections of a peer, until it is dropped.
pub struct CountedByPeer(Option<(IpAddr, Counts)>);

impl Drop for CountedByPeer {
    fn drop(&mut self) {
        let Some((key, counts)) = self.0.take() else { return };
        let mut counts = counts.borrow_mut();
        if let Some(count) = counts.get_mut(&key) {
            *count -= 1;
            // Peers that have gone take no memory.
            if *count == 0 {
                counts.remove(&key);
            }
        }
    }
}

impl ProtocolWrapper for CountedByPeer {}
