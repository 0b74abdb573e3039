//! Who serves the connections of the listeners: this hub, or others, so that it has its time for the queues.
//!
//! ```text
//!   one hub:    listener --> PROXY header --> TLS --> broker
//!   several:    listener --another hub, in turn--> PROXY header --> TLS --> relay --this hub--> broker
//! ```

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use warren_hub::signal::Signal;
use warren_hub::sync::Event;
use warren_hub::{HubGroup, HubHandle, hub_local};
use warren_reactor::proxy_protocol::{ProxyFactory, ProxyOptions};
use warren_reactor::tls::{TlsFactory, TlsServerOptions};
use warren_reactor::{BoundPort, Factory, ListeningPort, RemoteFactory, relayed};

use super::listener::Listener;
use super::settings::Settings;
use super::tls::{self, TlsSettings};

/// How long clients may take to read what was said to them last.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Serve the connections of all listeners.
pub(super) enum Servers {
    /// This hub does. The listeners' factories, until they listen.
    Here(Vec<Option<Box<dyn Factory>>>),
    /// Others do. Their listeners' factories, by the numbers of the hubs.
    Outposts(HubGroup, Vec<Vec<RemoteFactory>>),
}

impl Servers {
    /// Lets connections of each listener have protocols of its factory.
    ///
    /// # Errors
    /// When a hub cannot be started, or cannot read the certificates.
    ///
    /// # Suspends
    /// Until all hubs run.
    pub(super) fn start(
        settings: &Settings,
        tls: Option<TlsServerOptions>,
        factories: Vec<Box<dyn Factory>>,
    ) -> Result<Self> {
        let way = Way {
            listen: settings.listen.clone(),
            tls: settings.tls.clone(),
            handshake: Duration::from_secs(settings.limits.handshake_s),
        };
        if settings.hubs == 1 {
            let factories = way.lead(tls, factories);
            return Ok(Self::Here(factories.into_iter().map(Some).collect()));
        }
        let homes: Vec<_> = factories.into_iter().map(RemoteFactory::here).collect();
        let group = HubGroup::start(settings.hubs - 1).context("cannot start a thread")?;
        let start = |number| {
            let (way, homes, encrypted) = (way.clone(), homes.clone(), tls.is_some());
            let started = group.spawn_on(number, move || -> Result<_> {
                // Each hub has its own: they are read again on each.
                let tls = if encrypted { Some(way.tls.build()?) } else { None };
                let relays = homes.iter().map(RemoteFactory::relay).collect();
                Ok(way.lead(tls, relays).into_iter().map(RemoteFactory::here).collect())
            });
            started?.join().map_err(|_| anyhow!("a thread has ended"))?
        };
        let factories = (0..group.len()).map(start).collect::<Result<_>>()?;
        tracing::info!(count = group.len(), "other threads serve the connections");
        Ok(Self::Outposts(group, factories))
    }

    /// Begins to accept the connections of a listener.
    pub(super) fn listen(&mut self, number: usize, port: BoundPort) -> io::Result<ListeningPort> {
        match self {
            Self::Here(factories) => match factories[number].take() {
                Some(factory) => port.listen(factory),
                None => Err(io::ErrorKind::AlreadyExists.into()),
            },
            Self::Outposts(_, factories) => {
                port.listen_at(factories.iter().map(|of| of[number].clone()).collect())
            }
        }
    }

    /// What has the certificates read again everywhere.
    pub(super) fn renewal(&self) -> impl Fn(Signal) + use<> {
        let others: Vec<HubHandle> = match self {
            Self::Here(_) => Vec::new(),
            Self::Outposts(group, _) => (0..group.len()).map(|n| group.handle(n).clone()).collect(),
        };
        move |_| {
            renew().0.set();
            for other in &others {
                // One that has ended reads none.
                let _ = other.post(|| renew().0.set());
            }
        }
    }

    /// Ends the other hubs once their clients have read what was said to them last.
    ///
    /// # Suspends
    /// Until then.
    pub(super) fn end(self) {
        let Self::Outposts(group, factories) = self else { return };
        drop(factories);
        let patience = || {
            let end = Instant::now() + LAST_WORDS;
            while relayed() != 0 && Instant::now() < end {
                warren_hub::sleep(Duration::from_millis(2));
            }
        };
        let waits: Vec<_> =
            (0..group.len()).map(|number| group.spawn_on(number, patience)).collect();
        for wait in waits.into_iter().flatten() {
            let _ = wait.join();
        }
        group.shutdown();
    }
}

/// From a socket to the broker, on any hub.
#[derive(Clone)]
struct Way {
    listen: Vec<Listener>,
    tls: TlsSettings,
    handshake: Duration,
}

impl Way {
    /// Puts before each listener's factory what its connections pass first.
    fn lead(
        &self,
        tls: Option<TlsServerOptions>,
        factories: Vec<Box<dyn Factory>>,
    ) -> Vec<Box<dyn Factory>> {
        if let Some(options) = &tls {
            tls::keep_fresh(self.tls.clone(), options.clone(), renew());
        }
        let lead = |(listener, factory): (&Listener, Box<dyn Factory>)| {
            let mut factory = factory;
            if let Some(options) = tls.as_ref().filter(|_| listener.is_tls()) {
                factory = Box::new(TlsFactory::new(options, factory));
            }
            // Proxies speak before TLS does.
            if let Some(sources) = listener.proxies() {
                let (sources, timeout) = (sources.to_vec(), self.handshake);
                factory = Box::new(ProxyFactory::new(factory, ProxyOptions { sources, timeout }));
            }
            factory
        };
        self.listen.iter().zip(factories).map(lead).collect()
    }
}

/// Set when the certificates of this hub are to be read again.
pub(super) struct Renew(pub(super) Event);

fn renew() -> Rc<Renew> {
    hub_local(|| Renew(Event::new()))
}
