//! A service that keeps a connection.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::Service;
use super::ready::Shared;
use crate::chance::Chance;
use crate::deferred::{AnyError, Canceller, Deferred, Failure, Resolver};
use crate::endpoints::StreamClientEndpoint;
use crate::policies::{ProtocolWrapper, WrappingFactory};
use crate::protocol::{Factory, PeerAddr, Protocol, Reason};
use crate::time::{WeakDelayedCall, call_later};
use crate::transport::Transport;

/// How long a [`ClientService`] waits after so many attempts in a row that have failed: the initial delay times the
/// factor to that power, up to the longest delay, and up to a second more at random (Twisted's `backoffPolicy`).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Backoff {
    /// 1 s unless set.
    pub initial_delay: Duration,
    /// 60 s unless set.
    pub max_delay: Duration,
    /// 1.5 unless set.
    pub factor: f64,
    /// Added to each delay, times a random number from 0 to 1. 1 s unless set.
    pub jitter: Duration,
    /// Where the random numbers begin. They are the hub's unless set.
    pub seed: Option<u64>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
            factor: 1.5,
            jitter: Duration::from_secs(1),
            seed: None,
        }
    }
}

impl Backoff {
    fn delay(&self, attempts: u32, chance: &Chance) -> Duration {
        let factor = self.factor.powi(attempts.min(100) as i32);
        let delay = self.initial_delay.as_secs_f64() * factor;
        let delay = Duration::try_from_secs_f64(delay).unwrap_or(Duration::MAX).min(self.max_delay);
        delay.saturating_add(self.jitter.mul_f64(chance.uniform()))
    }
}

/// Keeps a connection while it runs: makes it, and makes it again when it is lost or refused. Stopped, it closes the
/// connection, and has stopped when that is gone; cancelling the stop aborts it. Clones are the same service.
///
/// ```
/// use warren_reactor::endpoints::client_from_string;
/// use warren_reactor::protocols::{for_protocol, wire};
/// use warren_reactor::service::{ClientService, MultiService};
///
/// let endpoint = client_from_string("tcp:127.0.0.1:1234:timeout=5")?;
/// let client = ClientService::new(endpoint, for_protocol(|| wire::Discard));
/// let services = MultiService::new();
/// services.add_service(client.clone())?;
/// let connected = client.when_connected();
/// # drop(connected);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ClientService(Rc<Inner>);

struct Inner {
    endpoint: Box<dyn StreamClientEndpoint>,
    factory: Shared,
    backoff: Backoff,
    chance: Chance,
    state: RefCell<State>,
    /// Counts attempts, so that what is heard of one does not concern the next.
    attempt: Cell<u64>,
    /// In a row.
    failures: Cell<u32>,
    wanting: RefCell<Vec<Wanting>>,
    /// Those who have stopped it, and wait until the connection is gone.
    stopping: RefCell<Vec<Resolver<()>>>,
    running: Cell<bool>,
}

/// Somebody who waits for a connection, and for how many attempts.
struct Wanting {
    attempts_left: Option<u32>,
    resolver: Resolver<Transport>,
}

enum State {
    Idle,
    Waiting(WeakDelayedCall),
    Connecting(Canceller),
    Connected(Transport),
}

impl ClientService {
    /// Will connect to `endpoint`.
    pub fn new(
        endpoint: impl StreamClientEndpoint + 'static,
        factory: impl Factory + 'static,
    ) -> Self {
        Self::with_backoff(endpoint, factory, Backoff::default())
    }

    /// As [`new`](Self::new), and waits as `backoff` says between attempts.
    pub fn with_backoff(
        endpoint: impl StreamClientEndpoint + 'static,
        factory: impl Factory + 'static,
        backoff: Backoff,
    ) -> Self {
        Self(Rc::new(Inner {
            endpoint: Box::new(endpoint),
            factory: Shared::new(factory),
            chance: Chance::new(backoff.seed),
            backoff,
            state: RefCell::new(State::Idle),
            attempt: Cell::default(),
            failures: Cell::default(),
            wanting: RefCell::default(),
            stopping: RefCell::default(),
            running: Cell::default(),
        }))
    }

    /// Fires with the connection, as soon as there is one. It is cancelled when the service is stopped before.
    pub fn when_connected(&self) -> Deferred<Transport> {
        self.want(None)
    }

    /// As [`when_connected`](Self::when_connected), and fails with the error of the last attempt when so many have failed
    /// from now on.
    pub fn when_connected_within(&self, attempts: u32) -> Deferred<Transport> {
        self.want(Some(attempts.max(1)))
    }

    fn want(&self, attempts_left: Option<u32>) -> Deferred<Transport> {
        if let Some(transport) = self.transport() {
            return Deferred::succeed(transport);
        }
        let (deferred, resolver) = Deferred::pending();
        self.0.wanting.borrow_mut().push(Wanting { attempts_left, resolver });
        deferred
    }

    /// The connection, if it stands.
    pub fn transport(&self) -> Option<Transport> {
        match &*self.0.state.borrow() {
            State::Connected(transport) => Some(transport.clone()),
            _ => None,
        }
    }
}

impl Service for ClientService {
    fn start_service(&self) -> Result<(), AnyError> {
        self.0.running.set(true);
        let idle = matches!(*self.0.state.borrow(), State::Idle);
        if idle {
            self.0.connect();
        }
        // Otherwise the connection of before has still to close; then there will be a new one.
        Ok(())
    }

    fn stop_service(&self) -> Deferred<()> {
        self.0.running.set(false);
        self.0.failures.set(0);
        let wanting = self.0.wanting.take();
        wanting.into_iter().for_each(|wanting| wanting.resolver.resolve(Err(Failure::Cancelled)));
        let (deferred, resolver) = Deferred::pending();
        let mut state = self.0.state.borrow_mut();
        match &*state {
            State::Idle => resolver.callback(()),
            State::Waiting(call) => {
                call.cancel();
                *state = State::Idle;
                resolver.callback(());
            }
            State::Connecting(canceller) => {
                let canceller = canceller.clone();
                drop(state);
                self.0.stopping.borrow_mut().push(resolver);
                canceller.cancel();
            }
            State::Connected(transport) => {
                let (losing, aborting) = (transport.clone(), transport.clone());
                drop(state);
                resolver.on_cancel(move || aborting.abort_connection());
                self.0.stopping.borrow_mut().push(resolver);
                losing.lose_connection();
            }
        }
        deferred
    }
}

impl Inner {
    fn connect(self: &Rc<Self>) {
        let attempt = self.attempt.get() + 1;
        self.attempt.set(attempt);
        let service = Rc::downgrade(self);
        let watch = move |_: &PeerAddr| Some(Watch { service: service.clone(), attempt });
        let factory = WrappingFactory::with(self.factory.clone(), watch);
        let connecting = self.endpoint.connect(Box::new(factory));
        *self.state.borrow_mut() = State::Connecting(connecting.canceller());
        let service = Rc::downgrade(self);
        let told = connecting.add_both(move |result| {
            match (service.upgrade(), result) {
                (Some(service), Ok(transport)) => service.connected(attempt, transport),
                (Some(service), Err(failure)) => service.gone(attempt, Some(&failure.to_string())),
                (None, Ok(transport)) => transport.lose_connection(),
                (None, Err(_)) => {}
            }
            Ok(())
        });
        drop(told);
    }

    fn connected(&self, attempt: u64, transport: Transport) {
        if attempt != self.attempt.get() || transport.is_lost() {
            return;
        }
        *self.state.borrow_mut() = State::Connected(transport.clone());
        if !self.running.get() {
            transport.lose_connection();
            return;
        }
        self.failures.set(0);
        for wanting in self.wanting.take() {
            wanting.resolver.callback(transport.clone());
        }
    }

    /// There is no connection any more; with the reason when there never was one.
    fn gone(self: &Rc<Self>, attempt: u64, refused: Option<&str>) {
        if attempt != self.attempt.get() {
            return;
        }
        self.attempt.set(attempt + 1);
        let state = self.state.replace(State::Idle);
        drop(state);
        let stopping = self.stopping.take();
        stopping.into_iter().for_each(|resolver| resolver.callback(()));
        // Those who were told may have started or stopped it.
        if !self.running.get() || !matches!(*self.state.borrow(), State::Idle) {
            return;
        }
        // Before those who are disappointed: they may stop it.
        self.failures.set(self.failures.get().saturating_add(1));
        let delay = self.backoff.delay(self.failures.get(), &self.chance);
        tracing::info!(?delay, reason = refused, "connecting again");
        let own = self.clone();
        let call = call_later(delay, move || own.connect());
        *self.state.borrow_mut() = State::Waiting(call.downgrade());
        if let Some(reason) = refused {
            self.disappoint(reason);
        }
    }

    /// Tells those who wanted no more attempts than there were.
    fn disappoint(&self, reason: &str) {
        let (failed, mut left): (Vec<Wanting>, Vec<Wanting>) =
            self.wanting.take().into_iter().partition(|wanting| wanting.attempts_left == Some(1));
        for wanting in &mut left {
            wanting.attempts_left = wanting.attempts_left.map(|attempts| attempts - 1);
        }
        *self.wanting.borrow_mut() = left;
        for wanting in failed {
            wanting.resolver.errback(AnyError::new(format!("cannot connect: {reason}")));
        }
    }
}

/// Hears how one connection is lost.
struct Watch {
    service: Weak<Inner>,
    attempt: u64,
}

impl ProtocolWrapper for Watch {
    fn connection_lost(&mut self, inner: &mut dyn Protocol, reason: &Reason) {
        inner.connection_lost(reason);
        if let Some(service) = self.service.upgrade() {
            service.gone(self.attempt, None);
        }
    }
}

impl fmt::Debug for ClientService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &*self.0.state.borrow() {
            State::Idle => "idle",
            State::Waiting(_) => "waiting",
            State::Connecting(_) => "connecting",
            State::Connected(_) => "connected",
        };
        f.debug_struct("ClientService").field("state", &state).finish_non_exhaustive()
    }
}
