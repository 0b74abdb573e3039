//! So many connections, so many bytes a second, all connections of a factory together.
//!
//! Each direction has a bucket that holds a second's bytes and is refilled at the limit. What is received or sent is
//! taken out of it, at once and as a whole; while that leaves a debt, the direction is held up on all connections. So
//! over any time no more passes than the limit allows and a second's worth, and the last piece, beyond it; and an idle
//! factory has no timer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::limits::Counted;
use super::wrapping::{Admission, Connections, Listed, Policy, ProtocolWrapper, WrappingFactory};
use crate::{DelayedCall, PeerAddr, Protocol, Transport, call_later, now};

/// What a bucket holds, in time: what comes together after a while of nothing.
const BURST: Duration = Duration::from_secs(1);

/// Limits how many connections a factory has, and how many bytes a second they receive and send together.
///
/// Reading stops when too much has come, and the peers are held back by the system's buffers. When too much has been
/// sent, what is written waits, and above the high-water mark of a connection its producers are told to pause. (Twisted's tells
/// them only, so what has no producer is not limited there.) A protocol's own pause of reading stays in force.
///
/// ```
/// use warren_reactor::policies::ThrottlingFactory;
/// use warren_reactor::protocols::{for_protocol, wire};
///
/// let factory = ThrottlingFactory::new(for_protocol(|| wire::Echo))
///     .max_connection_count(1_000)
///     .read_limit(1_000_000)
///     .write_limit(1_000_000);
/// # let _ = factory;
/// ```
pub type ThrottlingFactory<F> = WrappingFactory<F, Throttling>;

/// The policy of a [`ThrottlingFactory`].
pub struct Throttling {
    max_connection_count: usize,
    count: Rc<Cell<usize>>,
    read: Option<Rc<Bucket>>,
    write: Option<Rc<Bucket>>,
}

impl<F> WrappingFactory<F, Throttling> {
    /// Wraps `factory`, without any limit yet.
    pub fn new(factory: F) -> Self {
        let policy = Throttling {
            max_connection_count: usize::MAX,
            count: Rc::default(),
            read: None,
            write: None,
        };
        Self::with(factory, policy)
    }

    /// More connections than this at a time are refused.
    #[must_use]
    pub fn max_connection_count(mut self, count: usize) -> Self {
        self.policy.max_connection_count = count;
        self
    }

    /// How many bytes a second are received.
    ///
    /// # Panics
    /// When it is zero.
    #[must_use]
    pub fn read_limit(mut self, bytes_per_second: u64) -> Self {
        let bucket = Bucket::new(bytes_per_second, Transport::hold_input, Transport::release_input);
        self.policy.read = Some(Rc::new(bucket));
        self
    }

    /// How many bytes a second are sent.
    ///
    /// # Panics
    /// When it is zero.
    #[must_use]
    pub fn write_limit(mut self, bytes_per_second: u64) -> Self {
        let bucket =
            Bucket::new(bytes_per_second, Transport::hold_output, Transport::release_output);
        self.policy.write = Some(Rc::new(bucket));
        self
    }
}

impl Policy for Throttling {
    type Wrapper = Throttled;

    fn admit(&mut self, peer: &PeerAddr) -> Admission<Throttled> {
        if self.max_connection_count <= self.count.get() {
            tracing::warn!(%peer, limit = self.max_connection_count, "refused: too many connections");
            return Admission::Refuse;
        }
        Admission::Accept(Throttled {
            read: self.read.clone(),
            write: self.write.clone(),
            listed: [None, None],
            _counted: Counted::new(&self.count),
        })
    }
}

/// The wrapper of a [`ThrottlingFactory`].
pub struct Throttled {
    read: Option<Rc<Bucket>>,
    write: Option<Rc<Bucket>>,
    /// In either bucket, once the connection is made.
    listed: [Option<Listed>; 2],
    _counted: Counted,
}

impl ProtocolWrapper for Throttled {
    fn connection_made(&mut self, inner: &mut dyn Protocol, transport: &Transport) {
        let buckets = [&self.read, &self.write];
        self.listed = buckets.map(|bucket| bucket.as_ref().map(|bucket| bucket.list(transport)));
        if let Some(bucket) = self.write.clone() {
            transport.watch_sent(move |bytes| bucket.take(bytes));
        }
        inner.connection_made(transport);
    }

    fn data_received(&mut self, inner: &mut dyn Protocol, transport: &Transport, data: &[u8]) {
        if let Some(bucket) = &self.read {
            bucket.take(data.len());
        }
        inner.data_received(transport, data);
    }
}

/// One direction of all connections.
struct Bucket {
    bytes_per_second: u64,
    /// When it will be full if nothing is taken; in the past, it is.
    full_at: Cell<Option<Instant>>,
    /// While the direction is held up, the call that lets it go on.
    held: RefCell<Option<DelayedCall>>,
    connections: Connections,
    hold: fn(&Transport),
    release: fn(&Transport),
}

impl Bucket {
    fn new(bytes_per_second: u64, hold: fn(&Transport), release: fn(&Transport)) -> Self {
        assert!(
            0 < bytes_per_second,
            "a limit of no bytes a second would stop everything for ever"
        );
        Self {
            bytes_per_second,
            full_at: Cell::default(),
            held: RefCell::default(),
            connections: Connections::default(),
            hold,
            release,
        }
    }

    /// Takes in a new connection, which is held up like the others.
    fn list(&self, transport: &Transport) -> Listed {
        if self.held.borrow().is_some() {
            (self.hold)(transport);
        }
        self.connections.list(transport)
    }

    /// Takes so many bytes out.
    fn take(self: &Rc<Self>, bytes: usize) {
        let now = now();
        let refill = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let full_at = self.full_at.get().map_or(now, |at| at.max(now)) + refill;
        self.full_at.set(Some(full_at));
        // One that takes longer than a whole bucket has less than nothing in it.
        let debt = full_at.saturating_duration_since(now + BURST);
        if debt.is_zero() {
            return;
        }
        if let Some(call) = &*self.held.borrow() {
            call.reset(debt);
            return;
        }
        let bucket = Rc::downgrade(self);
        let call = call_later(debt, move || {
            if let Some(bucket) = bucket.upgrade() {
                let made = bucket.held.take();
                drop(made);
                bucket.connections.for_each(bucket.release);
            }
        });
        *self.held.borrow_mut() = Some(call);
        self.connections.for_each(self.hold);
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        if let Some(call) = self.held.take() {
            call.cancel();
        }
    }
}
