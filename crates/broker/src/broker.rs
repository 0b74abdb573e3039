//! [`Broker`]: the engine on its hub.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use warren_amqp::ReplyCode;
use warren_hub::{Phase, TurnHook, TurnHookGuard, call_later, call_soon, on_turn_end};
use warren_reactor::{Factory, PeerAddr, Protocol};

use crate::connection::Session;
use crate::engine::Engine;
use crate::exception::Exception;
use crate::store::{Store, StoreError};

/// A broker's settings.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where durable queues and persistent messages are kept. `None`: nowhere, nothing outlives the broker.
    pub data_dir: Option<PathBuf>,
}

/// A broker on the hub of this thread.
pub struct Broker {
    inner: Rc<Inner>,
    _hook: TurnHookGuard,
}

struct Inner {
    engine: Rc<RefCell<Engine>>,
    /// Ends the ticking.
    closed: Cell<bool>,
}

thread_local! {
    /// For the store's news, which come from another thread by the hub.
    static ENGINES: RefCell<Vec<(u64, std::rc::Weak<RefCell<Engine>>)>> = const { RefCell::new(Vec::new()) };
}

impl TurnHook for Inner {
    fn turn_end(&self) {
        let mut engine = self.engine.borrow_mut();
        if engine.end_turn() {
            call_soon(|| {});
        }
        engine.set_now(warren_hub::system_time());
    }
}

impl Broker {
    /// Opens a broker with what its data directory holds. Blocks while that is read.
    ///
    /// # Errors
    /// When the data directory cannot be used, in one line for people. Nothing has been changed then.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn open(config: Config) -> Result<Self, StoreError> {
        let engine = Rc::new(RefCell::new(Engine::new()));
        engine.borrow_mut().set_now(warren_hub::system_time());
        if let Some(folder) = &config.data_dir {
            let number = register(&engine);
            let hub = warren_hub::handle();
            let on_sync = move |outcome: Result<u64, String>| {
                // A hub that has gone has no publisher left to tell.
                let _ = hub.post(move || on_store(number, outcome));
            };
            let (store, recovered) = Store::open(folder, Box::new(on_sync))?;
            engine.borrow_mut().recover_from(store, recovered);
        }
        let inner = Rc::new(Inner { engine, closed: Cell::new(false) });
        let hook = on_turn_end(Phase::Work, inner.clone());
        tick(inner.clone());
        Ok(Self { inner, _hook: hook })
    }

    /// Makes the protocol for each connection of a listening port.
    pub fn factory(&self) -> Box<dyn Factory> {
        let engine = self.inner.engine.clone();
        Box::new(move |_: &PeerAddr| {
            Some(Box::new(Session::new(engine.clone())) as Box<dyn Protocol>)
        })
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.inner.engine.borrow().connections.len()
    }

    /// Asks all clients to close (320 CONNECTION_FORCED), waits until they have, at most for `patience`, and
    /// writes everything that is to be kept.
    ///
    /// # Suspends
    /// While clients close.
    pub fn shutdown(self, patience: Duration) {
        let exception = Exception::new(
            ReplyCode::CONNECTION_FORCED,
            "broker forced connection closure with reason 'shutdown'",
        );
        {
            let mut engine = self.inner.engine.borrow_mut();
            for key in engine.connections.keys() {
                engine.force_close(key, &exception);
            }
        }
        let inner = self.inner.clone();
        let _ = warren_hub::with_timeout(patience, move || {
            while inner.engine.borrow().connections.len() > 0 {
                warren_hub::sleep(Duration::from_millis(2));
            }
        });
        self.inner.closed.set(true);
        let store = self.inner.engine.borrow_mut().take_store();
        if let Some(store) = store {
            store.close();
        }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("connections", &self.connections()).finish()
    }
}

fn register(engine: &Rc<RefCell<Engine>>) -> u64 {
    thread_local! {
        static LAST: Cell<u64> = const { Cell::new(0) };
    }
    // Never the same number again: news of a store that has gone must not reach another engine.
    LAST.set(LAST.get() + 1);
    ENGINES.with_borrow_mut(|engines| {
        engines.retain(|(_, engine)| engine.strong_count() > 0);
        engines.push((LAST.get(), Rc::downgrade(engine)));
    });
    LAST.get()
}

fn on_store(number: u64, outcome: Result<u64, String>) {
    let engine = ENGINES.with_borrow(|engines| {
        let (_, engine) = engines.iter().find(|(other, _)| *other == number)?;
        engine.upgrade()
    });
    let Some(engine) = engine else { return };
    let mut engine = engine.borrow_mut();
    match outcome {
        Ok(batch) => engine.store_synced(batch),
        Err(_) => engine.store_failed(),
    }
}

/// Once a second: heartbeats and deadlines of all connections.
fn tick(inner: Rc<Inner>) {
    call_later(Duration::from_secs(1), move || {
        if inner.closed.get() {
            return;
        }
        {
            let mut engine = inner.engine.borrow_mut();
            engine.set_now(warren_hub::system_time());
            engine.tick();
            let clock = engine.clock;
            for (_, connection) in engine.connections.iter() {
                connection.tick(clock);
            }
        }
        tick(inner);
    });
}
