//! A service that keeps a connection.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::Service;
use super::ready::Shared;
use crate::chance::Chance;
use crate::connect::{Connector, connect_tcp, connect_unix};
use crate::deferred::{AnyError, Deferred, Failure, Resolver};
use crate::protocol::{ClientFactory, Factory, PeerAddr, Protocol, Reason};
use crate::time::{DelayedCall, call_later, call_soon};
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
/// connection, and has stopped when that is gone. Clones are the same service.
///
/// ```
/// use std::net::SocketAddr;
/// use warren_reactor::service::{ClientService, MultiService};
/// use warren_reactor::{PeerAddr, Protocol};
///
/// # fn new_protocol() -> Box<dyn Protocol> { unimplemented!() }
/// let server = SocketAddr::from(([127, 0, 0, 1], 1234));
/// let client = ClientService::tcp(server, |_: &PeerAddr| Some(new_protocol()));
/// let services = MultiService::new();
/// services.add_service(client.clone())?;
/// let connected = client.when_connected();
/// # drop(connected);
/// # Ok::<(), warren_reactor::service::ServiceError>(())
/// ```
#[derive(Clone)]
pub struct ClientService(Rc<Inner>);

struct Inner {
    connect: Box<dyn Fn(Box<dyn ClientFactory>) -> io::Result<Connector>>,
    factory: Shared,
    backoff: Backoff,
    chance: Chance,
    state: RefCell<State>,
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
    Waiting(DelayedCall),
    Connecting(Connector),
    Connected(Connector, Transport),
}

impl ClientService {
    /// Will connect to `addr` by TCP.
    pub fn tcp(addr: SocketAddr, factory: impl Factory + 'static) -> Self {
        Self::with_backoff(factory, Backoff::default(), move |factory| {
            Ok(connect_tcp(addr, factory))
        })
    }

    /// Will connect to the Unix socket at `path`.
    pub fn unix(path: impl Into<PathBuf>, factory: impl Factory + 'static) -> Self {
        let path = path.into();
        Self::with_backoff(factory, Backoff::default(), move |factory| connect_unix(&path, factory))
    }

    /// Will connect by `connect`, which is called for each attempt, and wait as `backoff` says in between.
    pub fn with_backoff(
        factory: impl Factory + 'static,
        backoff: Backoff,
        connect: impl Fn(Box<dyn ClientFactory>) -> io::Result<Connector> + 'static,
    ) -> Self {
        Self(Rc::new(Inner {
            connect: Box::new(connect),
            factory: Shared::new(factory),
            chance: Chance::new(backoff.seed),
            backoff,
            state: RefCell::new(State::Idle),
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
        if let State::Connected(_, transport) = &*self.0.state.borrow() {
            return Deferred::succeed(transport.clone());
        }
        let (deferred, resolver) = Deferred::pending();
        self.0.wanting.borrow_mut().push(Wanting { attempts_left, resolver });
        deferred
    }

    /// The connection, if it stands.
    pub fn transport(&self) -> Option<Transport> {
        match &*self.0.state.borrow() {
            State::Connected(_, transport) => Some(transport.clone()),
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
        let state = self.0.state.replace(State::Idle);
        match &state {
            State::Idle => return Deferred::succeed(()),
            State::Waiting(call) => {
                call.cancel();
                return Deferred::succeed(());
            }
            State::Connecting(connector) | State::Connected(connector, _) => connector.disconnect(),
        }
        *self.0.state.borrow_mut() = state;
        let (deferred, resolver) = Deferred::pending();
        self.0.stopping.borrow_mut().push(resolver);
        deferred
    }
}

impl Inner {
    fn connect(self: &Rc<Self>) {
        let attempt = Attempt { service: Rc::downgrade(self), factory: self.factory.clone() };
        match (self.connect)(Box::new(attempt)) {
            Ok(connector) => *self.state.borrow_mut() = State::Connecting(connector),
            Err(error) => {
                // Never from within the start.
                let own = Rc::downgrade(self);
                let failed = call_later(Duration::ZERO, move || {
                    if let Some(own) = own.upgrade() {
                        own.gone(Some(&error.to_string()));
                    }
                });
                *self.state.borrow_mut() = State::Waiting(failed);
            }
        }
    }

    /// In the turn after the protocol was built: the connection stands, unless it is lost again.
    fn connected(&self) {
        let mut state = self.state.borrow_mut();
        let State::Connecting(connector) = &*state else { return };
        let Some(transport) = connector.transport() else { return };
        *state = State::Connected(connector.clone(), transport.clone());
        drop(state);
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
    fn gone(self: &Rc<Self>, refused: Option<&str>) {
        let state = self.state.replace(State::Idle);
        drop(state);
        let stopping = self.stopping.take();
        stopping.into_iter().for_each(|resolver| resolver.callback(()));
        // Those who were told may have started or stopped it.
        if !self.running.get() || !matches!(*self.state.borrow(), State::Idle) {
            return;
        }
        if let Some(reason) = refused {
            self.disappoint(reason);
        }
        self.failures.set(self.failures.get().saturating_add(1));
        let delay = self.backoff.delay(self.failures.get(), &self.chance);
        tracing::info!(?delay, reason = refused, "connecting again");
        let own = self.clone();
        let call = call_later(delay, move || own.connect());
        *self.state.borrow_mut() = State::Waiting(call);
    }

    /// Tells those who wanted no more attempts than there were.
    fn disappoint(&self, reason: &str) {
        let (failed, left) = self
            .wanting
            .take()
            .into_iter()
            .partition(|wanting: &Wanting| wanting.attempts_left == Some(1));
        let mut left: Vec<Wanting> = left;
        for wanting in &mut left {
            wanting.attempts_left = wanting.attempts_left.map(|attempts| attempts - 1);
        }
        *self.wanting.borrow_mut() = left;
        for wanting in failed {
            wanting.resolver.errback(AnyError::new(format!("cannot connect: {reason}")));
        }
    }
}

/// Hears how one connection is made and lost.
struct Attempt {
    service: Weak<Inner>,
    factory: Shared,
}

impl Factory for Attempt {
    fn build_protocol(&mut self, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        let service = self.service.clone();
        call_soon(move || {
            if let Some(service) = service.upgrade() {
                service.connected();
            }
        });
        self.factory.build_protocol(peer)
    }

    fn start_factory(&mut self) {
        self.factory.start_factory();
    }

    fn stop_factory(&mut self) {
        self.factory.stop_factory();
    }
}

impl ClientFactory for Attempt {
    fn client_connection_failed(&mut self, _connector: &Connector, reason: &Reason) {
        if let Some(service) = self.service.upgrade() {
            service.gone(Some(&reason.to_string()));
        }
    }

    fn client_connection_lost(&mut self, _connector: &Connector, _reason: &Reason) {
        if let Some(service) = self.service.upgrade() {
            service.gone(None);
        }
    }
}

impl fmt::Debug for ClientService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &*self.0.state.borrow() {
            State::Idle => "idle",
            State::Waiting(_) => "waiting",
            State::Connecting(_) => "connecting",
            State::Connected(..) => "connected",
        };
        f.debug_struct("ClientService").field("state", &state).finish_non_exhaustive()
    }
}
