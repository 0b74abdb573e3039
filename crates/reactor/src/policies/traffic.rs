//! Seeing what passes on connections.

use std::fmt;
use std::rc::Rc;

use super::wrapping::{Admission, Policy, ProtocolWrapper, WrappingFactory};
use crate::{PeerAddr, Protocol, Reason, Transport};

/// Tells a function of all that passes on a factory's connections.
///
/// ```
/// use std::{cell::RefCell, rc::Rc};
/// use warren_reactor::policies::TrafficLoggingFactory;
/// use warren_reactor::protocols::{for_protocol, wire};
/// use warren_reactor::testing::TestConnection;
/// use warren_reactor::{Factory, PeerAddr};
///
/// let log = Rc::<RefCell<Vec<String>>>::default();
/// let lines = log.clone();
/// let echo = for_protocol(|| wire::Echo);
/// let mut factory = TrafficLoggingFactory::new(echo, move |number, traffic| {
///     lines.borrow_mut().push(format!("{number}: {traffic}"));
/// });
/// let mut connection = TestConnection::new(factory.build_protocol(&PeerAddr::Memory).unwrap());
/// connection.feed(b"hi\n");
/// connection.lose();
/// let said = ["1: connected to memory", r"1: received hi\n", r"1: wrote hi\n", "1: closed by the peer"];
/// assert_eq!(*log.borrow(), said);
/// ```
pub type TrafficLoggingFactory<F> = WrappingFactory<F, TrafficLog>;

/// The policy of a [`TrafficLoggingFactory`].
pub struct TrafficLog {
    /// The number of the last connection.
    last: u64,
    tell: Tell,
}

type Tell = Rc<dyn Fn(u64, &Traffic<'_>)>;

/// What has happened on a connection. Displayed, bytes that are no printable ASCII are escaped.
#[derive(Debug)]
#[non_exhaustive]
pub enum Traffic<'a> {
    /// It stands, with this peer.
    Made(&'a PeerAddr),
    /// The peer has sent this.
    Received(&'a [u8]),
    /// The protocol has written this.
    Wrote(&'a [u8]),
    /// It is gone.
    Lost(&'a Reason),
}

impl fmt::Display for Traffic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made(peer) => write!(f, "connected to {peer}"),
            Self::Received(data) => write!(f, "received {}", data.escape_ascii()),
            Self::Wrote(data) => write!(f, "wrote {}", data.escape_ascii()),
            Self::Lost(reason) => reason.fmt(f),
        }
    }
}

impl<F> WrappingFactory<F, TrafficLog> {
    /// Wraps `factory`. `tell` hears the number of the connection, counted from 1, and what has happened on it. It is
    /// called on the loop, so what it writes to should not be slow.
    pub fn new(factory: F, tell: impl Fn(u64, &Traffic<'_>) + 'static) -> Self {
        Self::with(factory, TrafficLog { last: 0, tell: Rc::new(tell) })
    }
}

impl Policy for TrafficLog {
    type Wrapper = Logged;

    fn admit(&mut self, _peer: &PeerAddr) -> Admission<Logged> {
        self.last += 1;
        Admission::Accept(Logged { number: self.last, tell: self.tell.clone() })
    }
}

/// The wrapper of a [`TrafficLoggingFactory`].
pub struct Logged {
    number: u64,
    tell: Tell,
}

impl ProtocolWrapper for Logged {
    fn connection_made(&mut self, inner: &mut dyn Protocol, transport: &Transport) {
        (self.tell)(self.number, &Traffic::Made(transport.peer()));
        let (number, tell) = (self.number, self.tell.clone());
        transport.watch_output(move |data| tell(number, &Traffic::Wrote(data)));
        inner.connection_made(transport);
    }

    fn data_received(&mut self, inner: &mut dyn Protocol, transport: &Transport, data: &[u8]) {
        (self.tell)(self.number, &Traffic::Received(data));
        inner.data_received(transport, data);
    }

    fn connection_lost(&mut self, inner: &mut dyn Protocol, reason: &Reason) {
        (self.tell)(self.number, &Traffic::Lost(reason));
        inner.connection_lost(reason);
    }
}
