//! Closing connections on which nothing happens.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::wrapping::{Admission, Policy, ProtocolWrapper, WrappingFactory};
use crate::{DelayedCall, PeerAddr, Protocol, Transport, call_later};

/// As Twisted's.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// A time within which something is to happen, or else the connection is closed: a field of a protocol (Twisted's
/// `TimeoutMixin`). Dropping it stops it.
///
/// ```
/// use std::time::Duration;
/// use warren_reactor::policies::IdleTimeout;
/// use warren_reactor::testing::{Clock, TestConnection};
/// use warren_reactor::{Protocol, Reason, Transport};
///
/// #[derive(Default)]
/// struct Impatient(Option<IdleTimeout>);
///
/// impl Protocol for Impatient {
///     fn connection_made(&mut self, transport: &Transport) {
///         let timeout = self.0.insert(IdleTimeout::new(transport));
///         timeout.set_timeout(Some(Duration::from_secs(10)));
///     }
///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) {
///         if let Some(timeout) = &self.0 {
///             timeout.reset_timeout();
///         }
///     }
///     fn connection_lost(&mut self, _reason: &Reason) {}
/// }
///
/// let clock = Clock::install();
/// let mut connection = TestConnection::new(Box::new(Impatient::default()));
/// clock.advance(Duration::from_secs(9));
/// connection.feed(b"still here");
/// clock.advance(Duration::from_secs(9));
/// assert!(!connection.is_lost());
/// clock.advance(Duration::from_secs(1));
/// assert!(connection.is_lost());
/// ```
pub struct IdleTimeout {
    period: Cell<Option<Duration>>,
    /// Until it is made or cancelled.
    call: RefCell<Option<DelayedCall>>,
    timeout_connection: Rc<dyn Fn()>,
}

impl IdleTimeout {
    /// A timeout that is not set yet, after which `transport` loses its connection: once what was written is sent.
    pub fn new(transport: &Transport) -> Self {
        let transport = transport.clone();
        Self::with(move || transport.lose_connection())
    }

    /// A timeout that is not set yet, after which `timeout_connection` is called: on the loop, and from no callback of
    /// the protocol.
    pub fn with(timeout_connection: impl Fn() + 'static) -> Self {
        Self {
            period: Cell::default(),
            call: RefCell::default(),
            timeout_connection: Rc::new(timeout_connection),
        }
    }

    /// From now on the timeout is over once `period` has passed without [`reset_timeout`](Self::reset_timeout); with
    /// `None`, never. Gives the period that was set before.
    ///
    /// # Panics
    /// When no hub runs on this thread, and no test's clock.
    pub fn set_timeout(&self, period: Option<Duration>) -> Option<Duration> {
        let before = self.period.replace(period);
        let call = self.call.take();
        let active = match (call, period) {
            (Some(call), Some(period)) if call.reset(period) => Some(call),
            (call, period) => {
                if let Some(call) = call {
                    call.cancel();
                }
                period.map(|period| {
                    let timeout_connection = self.timeout_connection.clone();
                    call_later(period, move || timeout_connection())
                })
            }
        };
        *self.call.borrow_mut() = active;
        before
    }

    /// Something has happened: the period begins anew. Does nothing when none is set or it is over already. Cheap: the
    /// timer stays where it is, and looks again when its time has come.
    pub fn reset_timeout(&self) {
        if let Some(period) = self.period.get()
            && let Some(call) = &*self.call.borrow()
        {
            call.reset(period);
        }
    }

    /// The period that is set.
    pub fn timeout(&self) -> Option<Duration> {
        self.period.get()
    }
}

impl Drop for IdleTimeout {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            call.cancel();
        }
    }
}

impl fmt::Debug for IdleTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdleTimeout").field("period", &self.period.get()).finish_non_exhaustive()
    }
}

/// Closes the connections of a factory when neither side has sent anything for a while.
pub type TimeoutFactory<F> = WrappingFactory<F, Timeouts>;

/// The policy of a [`TimeoutFactory`].
pub struct Timeouts {
    period: Duration,
    timeout_connection: Rc<dyn Fn(&Transport)>,
}

impl<F> WrappingFactory<F, Timeouts> {
    /// Wraps `factory`. Twisted's default for `period` is half an hour: see [`Timeouts::default`].
    pub fn new(factory: F, period: Duration) -> Self {
        Self::with(factory, Timeouts { period, ..Timeouts::default() })
    }

    /// What is done with a connection whose time is over. Unless set, it is lost: closed once what was written is
    /// sent, and that waits for a peer who does not read. To be rid of those as well, abort it.
    #[must_use]
    pub fn timeout_connection(mut self, timed_out: impl Fn(&Transport) + 'static) -> Self {
        self.policy.timeout_connection = Rc::new(timed_out);
        self
    }
}

impl Default for Timeouts {
    /// Half an hour; then the connection is lost.
    fn default() -> Self {
        Self { period: TIMEOUT, timeout_connection: Rc::new(Transport::lose_connection) }
    }
}

impl Policy for Timeouts {
    type Wrapper = Timed;

    fn admit(&mut self, _peer: &PeerAddr) -> Admission<Timed> {
        Admission::Accept(Timed {
            period: self.period,
            timeout_connection: self.timeout_connection.clone(),
            timeout: None,
        })
    }
}

/// The wrapper of a [`TimeoutFactory`].
pub struct Timed {
    period: Duration,
    timeout_connection: Rc<dyn Fn(&Transport)>,
    timeout: Option<Rc<IdleTimeout>>,
}

impl ProtocolWrapper for Timed {
    fn connection_made(&mut self, inner: &mut dyn Protocol, transport: &Transport) {
        let (timed_out, kept) = (self.timeout_connection.clone(), transport.clone());
        let timeout = Rc::new(IdleTimeout::with(move || timed_out(&kept)));
        timeout.set_timeout(Some(self.period));
        let written = timeout.clone();
        transport.watch_output(move |_| written.reset_timeout());
        self.timeout = Some(timeout);
        inner.connection_made(transport);
    }

    fn data_received(&mut self, inner: &mut dyn Protocol, transport: &Transport, data: &[u8]) {
        if let Some(timeout) = &self.timeout {
            timeout.reset_timeout();
        }
        inner.data_received(transport, data);
    }
}
