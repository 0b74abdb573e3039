//! A host by its name: "happy eyeballs" (RFC 8305) for callbacks.
//!
//! ```text
//!   lookup (a fiber) --> addresses, the families by turns
//!     attempt 1 ------------------------- ... |
//!          attempt 2 (250 ms later) ----- stands: wins, the others are given up
//!               attempt 3 -- fails: the next one starts at once
//! ```

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use warren_hub::net::{dns, interleave};
use warren_hub::{JoinHandle, spawn};

use super::StreamClientEndpoint;
use super::clients::{not_connected, refused};
use crate::connect::{ConnectOptions, Connector, WeakConnector, connect_tcp_with};
use crate::deferred::{Deferred, Resolver};
use crate::protocol::{ClientFactory, Factory, PeerAddr, Protocol, Reason};
use crate::time::{DelayedCall, call_later};
use crate::transport::Transport;

/// "Connection Attempt Delay" (RFC 8305 §8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// A host and port of TCP to connect to, by name or by address (Twisted's `HostnameEndpoint`). The name is looked up with
/// each connection, by the hub's [resolver](warren_hub::net::dns). Of its addresses, IPv6 and IPv4 by turns, one is tried
/// after the other, a quarter of a second apart; the first that answers is taken. So a family that leads nowhere costs a
/// quarter of a second.
#[derive(Clone, Debug)]
pub struct HostnameEndpoint {
    host: String,
    port: u16,
    timeout: Duration,
    attempt_delay: Duration,
    bind: Option<SocketAddr>,
}

impl HostnameEndpoint {
    /// The port of `host`, which may be an address, also an IPv6 address in brackets.
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            timeout: ConnectOptions::default().timeout,
            attempt_delay: ATTEMPT_DELAY,
            bind: None,
        }
    }

    /// How long all of it may take, the lookup and every attempt: 30 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long an attempt is alone before the next one begins: 250 ms unless set.
    #[must_use]
    pub fn attempt_delay(mut self, delay: Duration) -> Self {
        self.attempt_delay = delay;
        self
    }

    /// The address to connect from; with port 0 the system chooses one. Addresses of the other family are left out.
    #[must_use]
    pub fn bind_address(mut self, addr: SocketAddr) -> Self {
        self.bind = Some(addr);
        self
    }
}

impl StreamClientEndpoint for HostnameEndpoint {
    fn connect(&self, factory: Box<dyn Factory>) -> Deferred<Transport, io::Error> {
        let (connected, resolver) = Deferred::pending();
        let race = Rc::new(Race {
            endpoint: self.clone(),
            factory: RefCell::new(factory),
            resolver: RefCell::default(),
            lookup: RefCell::default(),
            left: RefCell::default(),
            running: RefCell::default(),
            last_attempt: Cell::new(0),
            next: RefCell::default(),
            deadline: RefCell::default(),
            over: Cell::new(false),
            errors: RefCell::default(),
        });
        let weak = Rc::downgrade(&race);
        resolver.on_cancel(move || {
            if let Some(race) = weak.upgrade() {
                race.give_up();
            }
        });
        *race.resolver.borrow_mut() = Some(resolver);
        race.start();
        connected
    }
}

/// One connection that is being made.
struct Race {
    endpoint: HostnameEndpoint,
    factory: RefCell<Box<dyn Factory>>,
    resolver: RefCell<Option<Resolver<Transport, io::Error>>>,
    lookup: RefCell<Option<JoinHandle<()>>>,
    /// Addresses that have not been tried.
    left: RefCell<VecDeque<SocketAddr>>,
    /// The attempts that are under way, by their numbers.
    running: RefCell<Vec<(u32, WeakConnector)>>,
    last_attempt: Cell<u32>,
    /// Starts the next attempt.
    next: RefCell<Option<DelayedCall>>,
    deadline: RefCell<Option<DelayedCall>>,
    /// It is won, lost or given up: what attempts report now does not count.
    over: Cell<bool>,
    errors: RefCell<Vec<io::Error>>,
}

impl Race {
    fn start(self: &Rc<Self>) {
        self.factory.borrow_mut().start_factory();
        let race = self.clone();
        let deadline = call_later(self.endpoint.timeout, move || {
            let text = format!("no answer in {:?}", race.endpoint.timeout);
            race.lose(io::Error::new(io::ErrorKind::TimedOut, text));
        });
        *self.deadline.borrow_mut() = Some(deadline);
        let HostnameEndpoint { host, port, .. } = &self.endpoint;
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return self.found(Ok(vec![SocketAddr::new(ip, *port)]));
        }
        let race = self.clone();
        let lookup = spawn(move || {
            let found = dns::getaddrinfo(&race.endpoint.host, race.endpoint.port);
            race.lookup.replace(None);
            race.found(found);
        });
        *self.lookup.borrow_mut() = Some(lookup);
    }

    fn found(self: &Rc<Self>, found: io::Result<Vec<SocketAddr>>) {
        if self.over.get() {
            return;
        }
        let addrs = match found {
            Ok(addrs) => addrs,
            Err(error) => return self.lose(error),
        };
        let bind = self.endpoint.bind;
        let fits = |addr: &SocketAddr| bind.is_none_or(|bind| bind.is_ipv6() == addr.is_ipv6());
        let addrs: Vec<_> = interleave(addrs).into_iter().filter(fits).collect();
        if addrs.is_empty() {
            let text = match bind {
                Some(bind) => format!("it has no address of the same family as {bind}"),
                None => "it has no address".to_owned(),
            };
            return self.lose(io::Error::new(io::ErrorKind::AddrNotAvailable, text));
        }
        self.left.borrow_mut().extend(addrs);
        self.try_next();
    }

    /// Starts the next attempt, if there is an address left; else it is lost once none runs any more.
    fn try_next(self: &Rc<Self>) {
        cancel(&self.next);
        let addr = self.left.borrow_mut().pop_front();
        let Some(addr) = addr else {
            if self.running.borrow().is_empty() {
                self.lose_for_errors();
            }
            return;
        };
        let number = self.last_attempt.get() + 1;
        self.last_attempt.set(number);
        let attempt = Attempt { race: self.clone(), number, won: false };
        let options = ConnectOptions {
            // That of the whole race counts.
            timeout: self.endpoint.timeout,
            bind: self.endpoint.bind,
        };
        let connector = connect_tcp_with(addr, Box::new(attempt), options);
        self.running.borrow_mut().push((number, connector.downgrade()));
        if !self.left.borrow().is_empty() {
            let race = self.clone();
            let next = call_later(self.endpoint.attempt_delay, move || race.try_next());
            *self.next.borrow_mut() = Some(next);
        }
    }

    fn attempt_failed(self: &Rc<Self>, number: u32, error: io::Error) {
        if self.over.get() {
            return;
        }
        self.running.borrow_mut().retain(|(other, _)| *other != number);
        self.errors.borrow_mut().push(error);
        self.try_next();
    }

    /// Attempt `winner` counts, or none; the others are given up.
    fn end(&self, winner: Option<u32>) {
        self.over.set(true);
        cancel(&self.next);
        cancel(&self.deadline);
        let lookup = self.lookup.take();
        if let Some(lookup) = lookup {
            lookup.kill();
        }
        for (number, connector) in self.running.take() {
            if Some(number) != winner
                && let Some(connector) = connector.upgrade()
            {
                connector.stop_connecting();
            }
        }
    }

    fn give_up(&self) {
        if !self.over.get() {
            self.end(None);
            self.factory.borrow_mut().stop_factory();
        }
    }

    fn lose(&self, error: io::Error) {
        if self.over.get() {
            return;
        }
        self.give_up();
        let HostnameEndpoint { host, port, .. } = &self.endpoint;
        let text = format!("cannot connect to {host}:{port}: {error}");
        self.fail(io::Error::new(error.kind(), text));
    }

    /// Every attempt has failed.
    fn lose_for_errors(&self) {
        let errors = self.errors.take();
        let kind = errors.last().map_or(io::ErrorKind::AddrNotAvailable, io::Error::kind);
        let texts: Vec<String> = errors.iter().map(io::Error::to_string).collect();
        self.lose(io::Error::new(kind, texts.join("; ")));
    }

    fn fail(&self, error: io::Error) {
        let resolver = self.resolver.take();
        if let Some(resolver) = resolver {
            resolver.errback(error);
        }
    }
}

fn cancel(call: &RefCell<Option<DelayedCall>>) {
    if let Some(call) = call.take() {
        call.cancel();
    }
}

/// One of the addresses.
struct Attempt {
    race: Rc<Race>,
    number: u32,
    won: bool,
}

impl Factory for Attempt {
    fn build_protocol(&mut self, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        if self.race.over.get() {
            // Another one was faster by a moment.
            return None;
        }
        self.won = true;
        self.race.end(Some(self.number));
        let protocol = self.race.factory.borrow_mut().build_protocol(peer);
        if protocol.is_none() {
            self.race.fail(refused(peer));
        }
        protocol
    }

    fn stop_factory(&mut self) {
        if self.won {
            self.race.factory.borrow_mut().stop_factory();
        }
    }
}

impl ClientFactory for Attempt {
    fn client_connection_made(&mut self, _connector: &Connector, transport: &Transport) {
        let resolver = self.race.resolver.take();
        if let Some(resolver) = resolver {
            resolver.callback(transport.clone());
        }
    }

    fn client_connection_failed(&mut self, connector: &Connector, reason: &Reason) {
        let error = not_connected(&connector.destination(), reason);
        self.race.attempt_failed(self.number, error);
    }

    fn client_connection_lost(&mut self, connector: &Connector, reason: &Reason) {
        if self.won {
            // Only if it could not be handed over.
            self.race.fail(not_connected(&connector.destination(), reason));
        }
    }
}
