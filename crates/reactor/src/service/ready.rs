//! Services for what is needed most: a timer, a listening port.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::Service;
use crate::completion::Completion;
use crate::deferred::{AnyError, Deferred};
use crate::listen::{BoundPort, ListeningPort, bind_tcp, bind_unix};
use crate::looping::LoopingCall;
use crate::protocol::{Factory, PeerAddr, Protocol};

/// Calls a function again and again while it runs, as a [`LoopingCall`] does, for the first time when it starts. When the
/// function fails, that is logged, and the calls end until the service is started again.
#[derive(Debug)]
pub struct TimerService {
    interval: Duration,
    call: LoopingCall,
    /// Fires when the calls have ended.
    ended: RefCell<Option<Deferred<()>>>,
}

impl TimerService {
    /// Will call `function` every `interval`.
    pub fn new<R: Completion>(interval: Duration, function: impl FnMut() -> R + 'static) -> Self {
        Self { interval, call: LoopingCall::new(function), ended: RefCell::default() }
    }

    /// The call it repeats.
    pub fn call(&self) -> &LoopingCall {
        &self.call
    }
}

impl Service for TimerService {
    fn start_service(&self) -> Result<(), AnyError> {
        let ended = self.call.start(self.interval, true).add_errback(|failure| {
            tracing::error!(%failure, "the function of a timer service has failed: it is called no more");
            Ok(())
        });
        let before = self.ended.replace(Some(ended));
        drop(before);
        Ok(())
    }

    fn stop_service(&self) -> Deferred<()> {
        self.call.stop();
        self.ended.take().unwrap_or_else(|| Deferred::succeed(()))
    }
}

/// Listens while it runs. Connections live on when it stops.
///
/// The port is bound in the privileged part of the start.
pub struct ServerService {
    bind: Box<dyn Fn() -> io::Result<BoundPort>>,
    factory: Shared,
    port: RefCell<Port>,
}

enum Port {
    Closed,
    Bound(BoundPort),
    Listening(ListeningPort),
}

impl ServerService {
    /// Will listen for TCP connections on `addr`, as [`listen_tcp`](crate::listen_tcp) does.
    pub fn tcp(addr: SocketAddr, factory: impl Factory + 'static) -> Self {
        Self::new(factory, move || bind_tcp(addr))
    }

    /// Will listen on a Unix socket at `path`, as [`listen_unix`](crate::listen_unix) does.
    pub fn unix(path: impl Into<PathBuf>, factory: impl Factory + 'static) -> Self {
        let path = path.into();
        Self::new(factory, move || bind_unix(&path))
    }

    /// Will listen on what `bind` gives, which is called at each start.
    pub fn new(
        factory: impl Factory + 'static,
        bind: impl Fn() -> io::Result<BoundPort> + 'static,
    ) -> Self {
        Self {
            bind: Box::new(bind),
            factory: Shared::new(factory),
            port: RefCell::new(Port::Closed),
        }
    }

    /// Where it listens, with the real port; `None` while it does not.
    pub fn addr(&self) -> Option<PeerAddr> {
        match &*self.port.borrow() {
            Port::Closed => None,
            Port::Bound(port) => Some(port.addr().clone()),
            Port::Listening(port) => Some(port.addr().clone()),
        }
    }
}

impl Service for ServerService {
    fn privileged_start_service(&self) -> Result<(), AnyError> {
        let bound = (self.bind)()?;
        let before = self.port.replace(Port::Bound(bound));
        drop(before);
        Ok(())
    }

    fn start_service(&self) -> Result<(), AnyError> {
        let port = match self.port.replace(Port::Closed) {
            Port::Bound(bound) => bound,
            other => {
                // Closed before it is bound again.
                drop(other);
                (self.bind)()?
            }
        };
        let port = port.listen(Box::new(self.factory.clone()))?;
        *self.port.borrow_mut() = Port::Listening(port);
        Ok(())
    }

    fn stop_service(&self) -> Deferred<()> {
        let port = self.port.replace(Port::Closed);
        drop(port);
        Deferred::succeed(())
    }
}

impl fmt::Debug for ServerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerService").field("addr", &self.addr()).finish_non_exhaustive()
    }
}

/// A factory that is used anew at each start.
#[derive(Clone)]
pub(super) struct Shared(Rc<RefCell<dyn Factory>>);

impl Shared {
    pub(super) fn new(factory: impl Factory + 'static) -> Self {
        Self(Rc::new(RefCell::new(factory)))
    }
}

impl Factory for Shared {
    fn build_protocol(&mut self, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        self.0.borrow_mut().build_protocol(peer)
    }

    fn start_factory(&mut self) {
        self.0.borrow_mut().start_factory();
    }

    fn stop_factory(&mut self) {
        self.0.borrow_mut().stop_factory();
    }
}
