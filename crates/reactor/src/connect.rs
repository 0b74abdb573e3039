//! Making connections.
//!
//! ```text
//!   Disconnected --connect--> Connecting --> Connected
//!        ^  ^                     |              |
//!        |  +-- client_connection_failed         |
//!        +----- client_connection_lost ----------+
//! ```

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::time::Duration;

use warren_hub::io::{Addr, IoHandler, Readiness, Registration, Source};
use warren_hub::{call_soon, contain};

use crate::delegate::delegate_protocol;
use crate::protocol::{ClientFactory, PeerAddr, Protocol, Reason};
use crate::socket::{adopt, set_nodelay};
use crate::time::{DelayedCall, call_later};
use crate::transport::{Transport, WeakTransport};

/// How a connection is to be made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectOptions {
    /// How long the peer may take to answer. 30 s, as Twisted's, unless set.
    pub timeout: Duration,
    /// The address to connect from. The system chooses unless set.
    pub bind: Option<SocketAddr>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), bind: None }
    }
}

/// Connects to `addr` and lets `factory` build the protocol; the factory hears how that went. All of it happens on the
/// loop, after this has returned.
///
/// # Panics
/// When no hub runs on this thread.
pub fn connect_tcp(addr: SocketAddr, factory: Box<dyn ClientFactory>) -> Connector {
    connect_tcp_with(addr, factory, ConnectOptions::default())
}

/// As [`connect_tcp`], in a certain way.
///
/// # Panics
/// When no hub runs on this thread.
pub fn connect_tcp_with(
    addr: SocketAddr,
    factory: Box<dyn ClientFactory>,
    options: ConnectOptions,
) -> Connector {
    Connector::new(addr.into(), factory, options)
}

/// As [`connect_tcp`], to the Unix socket at `path`.
///
/// # Errors
/// `InvalidInput` when the path is too long for a socket.
///
/// # Panics
/// When no hub runs on this thread.
pub fn connect_unix(path: &Path, factory: Box<dyn ClientFactory>) -> io::Result<Connector> {
    let addr = std::os::unix::net::SocketAddr::from_pathname(path)?;
    Ok(Connector::new(addr.into(), factory, ConnectOptions::default()))
}

/// Where a [`Connector`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectorState {
    /// There is no connection, and none is being made.
    Disconnected,
    /// A connection is being made.
    Connecting,
    /// The connection stands.
    Connected,
}

/// Makes one connection after another to the same place, when it is told to. Clones are the same connector.
///
/// Methods never call the factory: it hears of what they do from the loop. Dropping a connector changes nothing.
#[derive(Clone)]
pub struct Connector(Rc<Inner>);

struct Inner {
    addr: Addr,
    options: ConnectOptions,
    factory: RefCell<Box<dyn ClientFactory>>,
    started: Cell<bool>,
    state: Cell<ConnectorState>,
    /// The connection was to be closed before its transport was known.
    leaving: Cell<bool>,
    /// `stop_connecting` was called, perhaps before anything was begun.
    giving_up: Cell<bool>,
    /// Counts the attempts, so that what was started for one does not concern the next.
    attempt: Cell<u64>,
    pending: RefCell<Option<Pending>>,
    /// Weak: the transport owns the protocol, which has this.
    transport: RefCell<Option<WeakTransport>>,
}

impl Inner {
    fn transport(&self) -> Option<Transport> {
        self.transport.borrow().as_ref()?.upgrade()
    }
}

/// A [`Connector`], for what its factory holds.
#[derive(Clone)]
pub(crate) struct WeakConnector(Weak<Inner>);

impl WeakConnector {
    pub(crate) fn upgrade(&self) -> Option<Connector> {
        self.0.upgrade().map(Connector)
    }
}

/// A connection that is being made.
struct Pending {
    source: Source,
    registration: Registration,
    timeout: DelayedCall,
}

impl Connector {
    pub(crate) fn new(
        addr: Addr,
        factory: Box<dyn ClientFactory>,
        options: ConnectOptions,
    ) -> Self {
        let connector = Self(Rc::new(Inner {
            addr,
            options,
            factory: RefCell::new(factory),
            started: Cell::new(false),
            state: Cell::new(ConnectorState::Disconnected),
            leaving: Cell::new(false),
            giving_up: Cell::new(false),
            attempt: Cell::new(0),
            pending: RefCell::default(),
            transport: RefCell::default(),
        }));
        connector.connect();
        connector
    }

    pub(crate) fn downgrade(&self) -> WeakConnector {
        WeakConnector(Rc::downgrade(&self.0))
    }

    /// Makes a new connection. Does nothing while there is one.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn connect(&self) {
        if self.0.state.get() == ConnectorState::Disconnected {
            self.0.state.set(ConnectorState::Connecting);
            self.soon(Self::start);
        }
    }

    /// Gives up the connection that is being made, or closes the one that stands, once its output is written.
    pub fn disconnect(&self) {
        match self.0.state.get() {
            ConnectorState::Disconnected => {}
            ConnectorState::Connecting => self.stop_connecting(),
            ConnectorState::Connected => match self.0.transport() {
                Some(transport) => transport.lose_connection(),
                // It is just being made.
                None => self.0.leaving.set(true),
            },
        }
    }

    /// Gives up the connection that is being made: the factory hears [`Reason::Aborted`]. Does nothing otherwise.
    pub fn stop_connecting(&self) {
        if self.0.state.get() == ConnectorState::Connecting {
            self.0.giving_up.set(true);
            // At once: the answer may be there already.
            self.forget_pending();
            self.soon(|connector| connector.failed(Reason::Aborted));
        }
    }

    /// Whether there is a connection, or will be.
    pub fn state(&self) -> ConnectorState {
        self.0.state.get()
    }

    /// Where it connects to.
    pub fn destination(&self) -> PeerAddr {
        self.0.addr.clone().into()
    }

    /// Calls `f` on the loop, if this attempt has not ended by then.
    fn soon(&self, f: impl FnOnce(&Self) + 'static) {
        let (connector, attempt) = (self.clone(), self.0.attempt.get());
        call_soon(move || {
            let connecting = connector.0.state.get() == ConnectorState::Connecting;
            if connecting && connector.0.attempt.get() == attempt {
                f(&connector);
            }
        });
    }

    fn start(&self) {
        if !self.0.started.replace(true) {
            self.tell(|factory, _| factory.start_factory());
        }
        self.tell(|factory, connector| factory.started_connecting(connector));
        if self.0.giving_up.get() {
            return self.failed(Reason::Aborted);
        }
        if let Err(error) = self.begin() {
            self.failed(Reason::Error(error));
        }
    }

    fn begin(&self) -> io::Result<()> {
        let from = self.0.options.bind.map(Addr::from);
        let source = Source::connect(&self.0.addr, from.as_ref())?;
        let watcher = Watcher { connector: Rc::downgrade(&self.0) };
        let registration = source.watch(Rc::new(watcher))?;
        let timed_out = self.clone();
        let attempt = self.0.attempt.get();
        let timeout = call_later(self.0.options.timeout, move || {
            if timed_out.0.attempt.get() == attempt {
                timed_out.failed(Reason::Error(io::ErrorKind::TimedOut.into()));
            }
        });
        *self.0.pending.borrow_mut() = Some(Pending { source, registration, timeout });
        Ok(())
    }

    /// The system has an answer.
    fn answered(&self) {
        let Some(Pending { source, registration, timeout }) = self.0.pending.take() else { return };
        timeout.cancel();
        // This ends the watch; the transport begins its own.
        drop(registration);
        match source.take_error() {
            Ok(None) => self.connected(source),
            Ok(Some(error)) | Err(error) => self.failed(Reason::Error(error)),
        }
    }

    fn connected(&self, source: Source) {
        self.0.state.set(ConnectorState::Connected);
        self.0.leaving.set(false);
        let peer = self.destination();
        let host = source.local_addr().map_or(PeerAddr::Unix(None), PeerAddr::from);
        let mut built = None;
        self.tell(|factory, _| built = factory.build_protocol(&peer));
        let Some(protocol) = built else { return self.lost(&Reason::Closed) };
        let client = Client { protocol, connector: self.clone() };
        set_nodelay(&source, &peer);
        match adopt(source, peer, host, Box::new(client)) {
            // Unless it has been lost meanwhile.
            Ok(transport) if !transport.is_lost() => {
                if self.0.leaving.get() {
                    transport.lose_connection();
                }
                *self.0.transport.borrow_mut() = Some(transport.downgrade());
                self.tell(|factory, connector| {
                    factory.client_connection_made(connector, &transport);
                });
            }
            Ok(_) => {}
            Err(error) => self.lost(&Reason::Error(error)),
        }
    }

    fn failed(&self, reason: Reason) {
        self.forget_pending();
        self.ended(|factory, connector| factory.client_connection_failed(connector, &reason));
    }

    fn forget_pending(&self) {
        if let Some(pending) = self.0.pending.take() {
            pending.timeout.cancel();
            drop(pending.registration);
        }
    }

    fn lost(&self, reason: &Reason) {
        let transport = self.0.transport.take();
        drop(transport);
        self.ended(|factory, connector| factory.client_connection_lost(connector, reason));
    }

    fn ended(&self, tell: impl FnOnce(&mut dyn ClientFactory, &Self)) {
        self.0.state.set(ConnectorState::Disconnected);
        self.0.giving_up.set(false);
        self.0.attempt.set(self.0.attempt.get() + 1);
        self.tell(tell);
        // Unless the factory wants another one.
        if self.0.state.get() == ConnectorState::Disconnected && self.0.started.replace(false) {
            self.tell(|factory, _| factory.stop_factory());
        }
    }

    fn tell(&self, call: impl FnOnce(&mut dyn ClientFactory, &Self)) {
        let mut factory = self.0.factory.borrow_mut();
        // What has gone wrong is in the log; a factory that builds nothing refuses the connection.
        let _ = contain("a client factory", || call(factory.as_mut(), self));
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("destination", &self.destination())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

struct Watcher {
    connector: Weak<Inner>,
}

impl IoHandler for Watcher {
    fn io_ready(&self, ready: Readiness) {
        if ready.contains(Readiness::WRITABLE)
            && let Some(connector) = self.connector.upgrade()
        {
            Connector(connector).answered();
        }
    }
}

/// The protocol of a connection that the factory is to hear of.
struct Client {
    protocol: Box<dyn Protocol>,
    connector: Connector,
}

impl Protocol for Client {
    fn connection_made(&mut self, transport: &Transport) {
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
        // The factory must hear of it, whatever the protocol does.
        let _ = contain("a protocol", || self.protocol.connection_lost(reason));
        self.connector.lost(reason);
    }
}
