//! Services for what is needed most: a timer, a listening port.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::Service;
use crate::completion::Completion;
use crate::deferred::{AnyError, Deferred};
use crate::endpoints::StreamServerEndpoint;
use crate::listen::ListeningPort;
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

/// Listens while it runs (Twisted's `StreamServerEndpointService`). Connections live on when it stops.
///
/// It listens from the privileged part of the start, so that a port below 1024 can be bound.
///
/// ```
/// use warren_reactor::endpoints::server_from_string;
/// use warren_reactor::protocols::{for_protocol, wire};
/// use warren_reactor::service::{Application, StreamServerEndpointService};
///
/// let application = Application::new("echo");
/// let endpoint = server_from_string("tcp:0:interface=127.0.0.1")?;
/// let server = StreamServerEndpointService::new(endpoint, for_protocol(|| wire::Echo));
/// application.services().add_service(server)?;
/// // application.run_to_exit()
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct StreamServerEndpointService {
    endpoint: Box<dyn StreamServerEndpoint>,
    factory: Shared,
    port: RefCell<Option<ListeningPort>>,
}

impl StreamServerEndpointService {
    /// Will listen at `endpoint`.
    pub fn new(
        endpoint: impl StreamServerEndpoint + 'static,
        factory: impl Factory + 'static,
    ) -> Self {
        let factory = Shared::new(factory);
        Self { endpoint: Box::new(endpoint), factory, port: RefCell::default() }
    }

    /// Where it listens, with the real port; `None` while it does not.
    pub fn addr(&self) -> Option<PeerAddr> {
        self.port.borrow().as_ref().map(|port| port.addr().clone())
    }
}

impl Service for StreamServerEndpointService {
    fn privileged_start_service(&self) -> Result<(), AnyError> {
        if self.port.borrow().is_none() {
            let port = self.endpoint.listen(Box::new(self.factory.clone()))?;
            *self.port.borrow_mut() = Some(port);
        }
        Ok(())
    }

    fn start_service(&self) -> Result<(), AnyError> {
        self.privileged_start_service()
    }

    fn stop_service(&self) -> Deferred<()> {
        let port = self.port.take();
        drop(port);
        Deferred::succeed(())
    }
}

impl fmt::Debug for StreamServerEndpointService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamServerEndpointService")
            .field("addr", &self.addr())
            .finish_non_exhaustive()
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
