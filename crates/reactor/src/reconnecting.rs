//! Connections that are made again when they are lost: [`ReconnectingClientFactory`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::chance::Chance;
use crate::connect::{Connector, WeakConnector};
use crate::protocol::{ClientFactory, Factory, PeerAddr, Protocol, Reason};
use crate::time::{WeakDelayedCall, call_later};
use crate::transport::Transport;

/// How long a [`ReconnectingClientFactory`] waits before each attempt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReconnectPolicy {
    /// What the delays grow from: the first one is this, times the factor. 1 s unless set.
    pub initial_delay: Duration,
    /// The longest delay. An hour unless set.
    pub max_delay: Duration,
    /// By what a delay is longer than the one before: 1 or more. *e* unless set.
    pub factor: f64,
    /// By how much of itself a delay varies, as the standard deviation of a normal distribution, so that clients which
    /// have lost the same server do not come back all at once: from 0 to 1. 0.12 unless set.
    pub jitter: f64,
    /// Attempts without a [`reset_delay`](Reconnecting::reset_delay) in between, after which it gives up. No limit unless
    /// set.
    pub max_retries: Option<u32>,
    /// Begins anew with the delays as soon as a connection stands. Otherwise, as in Twisted, the protocol says that all is
    /// well by [`reset_delay`](Reconnecting::reset_delay): a server which accepts a connection only to close it is then
    /// left in peace.
    pub reset_when_connected: bool,
    /// Where the jitter's random numbers begin. They are the hub's unless set.
    pub seed: Option<u64>,
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self {
            initial_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(3600),
            factor: std::f64::consts::E,
            // As many digits as Twisted has: they make no difference.
            jitter: 0.119_626_565_582,
            max_retries: None,
            reset_when_connected: false,
            seed: None,
        }
    }
}

/// Wraps a factory, and connects again when a connection was lost or could not be made, after delays that grow.
///
/// ```
/// use std::net::SocketAddr;
/// use warren_reactor::protocols::{for_protocol, wire::Echo};
/// use warren_reactor::{ReconnectingClientFactory, connect_tcp};
///
/// warren_hub::run(|| {
///     let factory = ReconnectingClientFactory::new(for_protocol(|| Echo));
///     let reconnecting = factory.handle();
///     let server = SocketAddr::from(([127, 0, 0, 1], 1));
///     connect_tcp(server, Box::new(factory));
///     // ... and when the program is to end:
///     reconnecting.stop_trying();
/// });
/// ```
pub struct ReconnectingClientFactory<F> {
    factory: F,
    state: Reconnecting,
}

/// The part of a [`ReconnectingClientFactory`] that protocols and others talk to. Clones are the same.
#[derive(Clone)]
pub struct Reconnecting(Rc<State>);

struct State {
    policy: ReconnectPolicy,
    chance: Chance,
    /// The delay before the last attempt, in seconds.
    delay: Cell<f64>,
    retries: Cell<u32>,
    trying: Cell<bool>,
    /// The connector owns the factory, and so this.
    connector: RefCell<Option<WeakConnector>>,
    call: RefCell<Option<WeakDelayedCall>>,
}

/// There is no connector: nothing has been connected yet, or nobody keeps it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no connection to make again: connect with the factory first")]
pub struct NothingToRetry;

impl<F: ClientFactory> ReconnectingClientFactory<F> {
    /// Connects again for ever, after delays that grow from 2.7 s to an hour, and vary.
    pub fn new(factory: F) -> Self {
        Self::with_policy(factory, ReconnectPolicy::default())
    }

    /// Connects again as `policy` says.
    ///
    /// # Panics
    /// When the factor is not a number from 1, or the jitter not one from 0 to 1.
    pub fn with_policy(factory: F, policy: ReconnectPolicy) -> Self {
        assert!(
            policy.factor.is_finite() && policy.factor >= 1.0,
            "a factor of {} would let the delays shrink: it is 1 or more",
            policy.factor
        );
        assert!(
            (0.0..=1.0).contains(&policy.jitter),
            "a jitter of {} is not a part of the delay: it is from 0 to 1",
            policy.jitter
        );
        let state = State {
            chance: Chance::new(policy.seed),
            delay: Cell::new(policy.initial_delay.as_secs_f64()),
            policy,
            retries: Cell::default(),
            trying: Cell::new(true),
            connector: RefCell::default(),
            call: RefCell::default(),
        };
        Self { factory, state: Reconnecting(Rc::new(state)) }
    }

    /// What stops and resets it, for those who do not own the factory any more.
    pub fn handle(&self) -> Reconnecting {
        self.state.clone()
    }
}

impl<F: ClientFactory> Factory for ReconnectingClientFactory<F> {
    fn build_protocol(&mut self, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        if self.state.0.policy.reset_when_connected {
            self.state.reset_delay();
        }
        self.factory.build_protocol(peer)
    }

    fn start_factory(&mut self) {
        self.factory.start_factory();
    }

    fn stop_factory(&mut self) {
        self.factory.stop_factory();
    }
}

impl<F: ClientFactory> ClientFactory for ReconnectingClientFactory<F> {
    fn started_connecting(&mut self, connector: &Connector) {
        self.state.keep(connector);
        self.factory.started_connecting(connector);
    }

    fn client_connection_made(&mut self, connector: &Connector, transport: &Transport) {
        self.factory.client_connection_made(connector, transport);
    }

    fn client_connection_failed(&mut self, connector: &Connector, reason: &Reason) {
        self.factory.client_connection_failed(connector, reason);
        self.state.lost(connector);
    }

    fn client_connection_lost(&mut self, connector: &Connector, reason: &Reason) {
        self.factory.client_connection_lost(connector, reason);
        self.state.lost(connector);
    }
}

impl Reconnecting {
    /// Waits for the next delay and then connects. The factory does that by itself when a connection is gone. It gives up,
    /// and says so in the log, after [`stop_trying`](Self::stop_trying) and when there were too many attempts.
    ///
    /// # Errors
    /// [`NothingToRetry`].
    ///
    /// # Panics
    /// When no hub runs on this thread, and no test's clock.
    pub fn retry(&self) -> Result<(), NothingToRetry> {
        let state = &*self.0;
        let connector = state.connector.borrow().as_ref().and_then(WeakConnector::upgrade);
        let connector = connector.ok_or(NothingToRetry)?;
        if let Some(delay) = state.next_delay() {
            let call = call_later(delay, move || connector.connect());
            state.replace_call(Some(call.downgrade()));
        }
        Ok(())
    }

    /// Connects no more: not after a delay that runs, and an attempt that is under way is given up. A connection that
    /// stands is left alone.
    pub fn stop_trying(&self) {
        self.0.replace_call(None);
        self.0.trying.set(false);
        let connector = self.0.connector.borrow().as_ref().and_then(WeakConnector::upgrade);
        if let Some(connector) = connector {
            connector.stop_connecting();
        }
    }

    /// All is well: the next delay is the first one again, the attempts are counted from none, and what
    /// [`stop_trying`](Self::stop_trying) did is taken back.
    pub fn reset_delay(&self) {
        self.0.delay.set(self.0.policy.initial_delay.as_secs_f64());
        self.0.retries.set(0);
        self.0.trying.set(true);
    }

    /// Whether it connects again; false after [`stop_trying`](Self::stop_trying).
    pub fn is_trying(&self) -> bool {
        self.0.trying.get()
    }

    /// How often it has tried again since the beginning, or since [`reset_delay`](Self::reset_delay).
    pub fn retries(&self) -> u32 {
        self.0.retries.get()
    }

    /// The last delay.
    pub fn delay(&self) -> Duration {
        seconds(self.0.delay.get())
    }

    fn keep(&self, connector: &Connector) {
        *self.0.connector.borrow_mut() = Some(connector.downgrade());
    }

    fn lost(&self, connector: &Connector) {
        self.keep(connector);
        if self.is_trying() {
            // There is a connector.
            let _ = self.retry();
        }
    }
}

impl State {
    /// `None` when it gives up.
    fn next_delay(&self) -> Option<Duration> {
        if !self.trying.get() {
            tracing::info!("not connecting again, as was asked for");
            return None;
        }
        let retries = self.retries.get().saturating_add(1);
        self.retries.set(retries);
        if self.policy.max_retries.is_some_and(|most| retries > most) {
            tracing::warn!(attempts = retries, "giving up connecting");
            return None;
        }
        let most = self.policy.max_delay.as_secs_f64();
        let mean = (self.delay.get() * self.policy.factor).min(most);
        let mut delay = mean;
        if self.policy.jitter > 0.0 {
            delay = self.chance.normal(mean, mean * self.policy.jitter);
            if delay > most {
                // Mirrored, and not cut: or else half of all clients would wait for exactly the longest delay.
                delay = 2.0 * most - delay;
            }
        }
        self.delay.set(delay.max(0.0));
        Some(seconds(self.delay.get()).min(self.policy.max_delay))
    }

    fn replace_call(&self, call: Option<WeakDelayedCall>) {
        let before = self.call.replace(call);
        if let Some(before) = before {
            before.cancel();
        }
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

impl<F> fmt::Debug for ReconnectingClientFactory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReconnectingClientFactory").field(&self.state).finish()
    }
}

impl fmt::Debug for Reconnecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnecting")
            .field("trying", &self.is_trying())
            .field("retries", &self.retries())
            .field("delay", &self.delay())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
