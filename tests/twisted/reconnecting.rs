//! Clients that connect again.

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::sync::Event;
use warren_reactor::{
    ClientFactory, Connector, Factory, PeerAddr, Protocol, Reason, ReconnectPolicy, Reconnecting,
    ReconnectingClientFactory, connect_unix,
};

scenarios! { on_hub:
    delays_that_grow
    the_longest_delay
    no_attempt_more
}

/// Hears that connections are refused.
struct Refused {
    policy: ReconnectPolicy,
    /// Once it is known.
    reconnecting: Rc<OnceCell<Reconnecting>>,
    attempts: u32,
    given_up: Rc<Event>,
}

impl Factory for Refused {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        None
    }
}

impl ClientFactory for Refused {
    fn started_connecting(&mut self, _connector: &Connector) {
        if self.attempts > 0
            && let Some(reconnecting) = self.reconnecting.get()
        {
            // Milliseconds are here what seconds are there.
            say!("delay {}", reconnecting.delay().as_millis());
        }
        self.attempts += 1;
        say!("connects");
    }

    fn client_connection_failed(&mut self, _connector: &Connector, _reason: &Reason) {
        if self.policy.max_retries.is_some_and(|most| most < self.attempts) {
            self.given_up.set();
        }
    }
}

/// Connects, again and again, to where nobody listens.
fn refused(change: impl FnOnce(&mut ReconnectPolicy)) {
    let folder = tempfile::tempdir().unwrap();
    let mut policy = ReconnectPolicy::default();
    policy.initial_delay = Duration::from_millis(1);
    policy.jitter = 0.0;
    change(&mut policy);
    let (reconnecting, given_up) = (Rc::<OnceCell<_>>::default(), Rc::new(Event::new()));
    let factory = Refused {
        policy: policy.clone(),
        reconnecting: reconnecting.clone(),
        attempts: 0,
        given_up: given_up.clone(),
    };
    let factory = ReconnectingClientFactory::with_policy(factory, policy);
    let handle = reconnecting.get_or_init(|| factory.handle()).clone();
    let _connector = connect_unix(&folder.path().join("nobody"), Box::new(factory)).unwrap();
    given_up.wait();
    say!("retries {}", handle.retries());
}

fn delays_that_grow() {
    refused(|policy| {
        policy.factor = 2.0;
        policy.max_retries = Some(4);
    });
}

fn the_longest_delay() {
    refused(|policy| {
        policy.factor = 3.0;
        policy.max_delay = Duration::from_millis(10);
        policy.max_retries = Some(5);
    });
}

fn no_attempt_more() {
    refused(|policy| policy.max_retries = Some(0));
}
