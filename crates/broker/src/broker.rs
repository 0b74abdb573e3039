//! [`Broker`]: the engine on its hub.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::time::{Duration, SystemTime};

use warren_amqp::ReplyCode;
use warren_hub::{Phase, TurnHook, TurnHookGuard, call_later, call_soon, on_turn_end};
use warren_reactor::{Factory, PeerAddr, Protocol};

use crate::admin::{AdminError, Request};
use crate::alarms::{Alarms, MemoryLimit};
use crate::auth::{Hashing, LoginOptions, SlowCheck};
use crate::connection::Session;
use crate::definitions::Definitions;
use crate::engine::Engine;
use crate::exception::Exception;
use crate::interceptors::Interceptors;
use crate::limits::Limits;
use crate::store::{Durability, Store, StoreError};

/// Slow hashes computed at once: each takes 19 MiB.
const HASHES_MAX: usize = 4;

/// A broker's settings.
#[derive(Clone)]
pub struct Config {
    /// Where durable queues and persistent messages are kept. `None`: nowhere, nothing outlives the broker.
    pub data_dir: Option<PathBuf>,
    /// When what is confirmed is kept.
    pub durability: Durability,
    /// The administrator that a new server has. An old one has the users it had.
    pub default_user: String,
    /// Its password.
    pub default_pass: String,
    /// How new passwords are kept.
    pub password_hashing: Hashing,
    /// The memory from which on publishers have to wait.
    pub memory_limit: MemoryLimit,
    /// The free bytes of the data directory's disk below which publishers have to wait.
    pub disk_free_limit: u64,
    /// What clients may have.
    pub limits: Limits,
    /// What is written into messages as they come in.
    pub interceptors: Interceptors,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: None,
            durability: Durability::default(),
            default_user: "guest".into(),
            default_pass: "guest".into(),
            password_hashing: Hashing::default(),
            memory_limit: MemoryLimit::default(),
            // RabbitMQ's.
            disk_free_limit: 50_000_000,
            limits: Limits::default(),
            interceptors: Interceptors::default(),
        }
    }
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
    /// When the hub is to run the engine's timers.
    armed: Rc<Cell<Option<SystemTime>>>,
}

thread_local! {
    /// For the store's news, which come from another thread by the hub.
    static ENGINES: RefCell<Vec<(u64, Weak<RefCell<Engine>>)>> = const { RefCell::new(Vec::new()) };
}

impl TurnHook for Inner {
    fn turn_end(&self) {
        let mut engine = self.engine.borrow_mut();
        if engine.end_turn() {
            call_soon(|| {});
        }
        engine.set_now(warren_hub::system_time());
        engine.let_time_pass();
        self.arm(&engine);
    }
}

impl Inner {
    /// Lets the engine's timers run when the first of them is due.
    fn arm(&self, engine: &Engine) {
        let Some(delay_ms) = engine.next_timer() else { return };
        let due = warren_hub::system_time() + Duration::from_millis(delay_ms);
        if self.armed.get().is_some_and(|armed| armed <= due) {
            return;
        }
        self.armed.set(Some(due));
        let (engine, armed) = (self.engine.clone(), self.armed.clone());
        call_later(Duration::from_millis(delay_ms), move || {
            if armed.get() == Some(due) {
                armed.set(None);
            }
            let mut engine = engine.borrow_mut();
            engine.set_now(warren_hub::system_time());
            engine.run_timers();
        });
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
        engine.borrow_mut().tell_time_by(Rc::new(warren_hub::system_time));
        engine.borrow_mut().set_now(warren_hub::system_time());
        engine.borrow_mut().tenancy.hashing = config.password_hashing;
        let mut new = true;
        if let Some(folder) = &config.data_dir {
            let number = register(&engine);
            let hub = warren_hub::handle();
            let on_sync = move |outcome: Result<u64, String>| {
                // A hub that has gone has no publisher left to tell.
                let _ = hub.post(move || on_store(number, outcome));
            };
            let hub = warren_hub::handle();
            // A turn is all that is needed: at its end the engine looks what was read.
            engine.borrow_mut().wake_by(move || {
                // A hub that has gone needs no turn.
                let _ = hub.post(|| {});
            });
            let durability = config.durability;
            let (store, recovered) = Store::open_as(folder, durability, Box::new(on_sync))?;
            tracing::info!(durability = durability.name(), "the store is open");
            new = recovered.tenancy.is_empty();
            let mut engine = engine.borrow_mut();
            engine.recover_from(store, recovered);
        }
        if new {
            let mut engine = engine.borrow_mut();
            let Config { default_user, default_pass, password_hashing, .. } = &config;
            engine
                .seed(default_user, default_pass, *password_hashing)
                .map_err(StoreError::DefaultUser)?;
            engine.take_defined();
            tracing::info!(user = default_user, "the default user was made");
        }
        {
            let mut engine = engine.borrow_mut();
            let Config { memory_limit, disk_free_limit, data_dir, limits, interceptors, .. } =
                config;
            engine.limits = limits;
            engine.interceptors = interceptors;
            engine.alarms = Alarms::new(memory_limit, disk_free_limit, data_dir);
            engine.check_alarms();
        }
        hash_elsewhere(&engine);
        let inner = Rc::new(Inner { engine, closed: Cell::new(false), armed: Rc::default() });
        let hook = on_turn_end(Phase::Work, inner.clone());
        tick(inner.clone());
        Ok(Self { inner, _hook: hook })
    }

    /// Makes the protocol for each connection of a listening port.
    pub fn factory(&self) -> Box<dyn Factory> {
        self.factory_with(LoginOptions::default())
    }

    /// The same, where one logs in in other ways.
    pub fn factory_with(&self, login: LoginOptions) -> Box<dyn Factory> {
        let (engine, login) = (self.inner.engine.clone(), Rc::new(login));
        Box::new(move |_: &PeerAddr| {
            let session = Session::new(engine.clone(), login.clone());
            Some(Box::new(session) as Box<dyn Protocol>)
        })
    }

    /// Does what is asked, and waits until what it changes is on disk.
    ///
    /// # Errors
    /// When it cannot be done, or the disk refuses.
    ///
    /// # Suspends
    /// Until the disk has it.
    pub fn admin(&self, request: Request) -> Result<serde_json::Value, AdminError> {
        Admin(self.inner.clone()).ask(request)
    }

    /// A handle for [`admin`](Self::admin) that can be given away; it keeps the engine, not the broker's ticking.
    pub fn administrator(&self) -> Admin {
        Admin(self.inner.clone())
    }

    /// Takes definitions in, all or none, and waits until they are on disk.
    ///
    /// # Errors
    /// Which item is wrong, and why. Nothing has been changed then.
    ///
    /// # Suspends
    /// Until the disk has them.
    pub fn import(&self, definitions: &Definitions) -> Result<(), AdminError> {
        let import = |engine: &mut Engine| {
            engine.import(definitions, None).map_err(AdminError::Invalid)?;
            Ok(serde_json::Value::Null)
        };
        Admin(self.inner.clone()).run(import).map(drop)
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

/// Asks a broker, on its hub.
#[derive(Clone)]
pub struct Admin(Rc<Inner>);

impl Admin {
    /// As [`Broker::admin`].
    ///
    /// # Errors
    /// When it cannot be done, or the disk refuses.
    ///
    /// # Suspends
    /// Until the disk has it, and while a password is hashed.
    pub fn ask(&self, request: Request) -> Result<serde_json::Value, AdminError> {
        let part = self.0.engine.borrow().slow_part(&request)?;
        let slow = match part.is_slow() {
            true => warren_hub::offload(move || part.run()),
            false => part.run(),
        };
        self.run(|engine| engine.administer(request, slow))
    }

    fn run(
        &self,
        work: impl FnOnce(&mut Engine) -> Result<serde_json::Value, AdminError>,
    ) -> Result<serde_json::Value, AdminError> {
        let (answer, waits_for) = {
            let mut engine = self.0.engine.borrow_mut();
            engine.wake_up();
            // What somebody else has defined is theirs to wait for.
            engine.take_defined();
            (work(&mut engine)?, engine.take_defined())
        };
        loop {
            let engine = self.0.engine.borrow();
            if waits_for <= engine.synced() {
                return Ok(answer);
            }
            if engine.has_failed() || self.0.closed.get() {
                let text =
                    "the change holds, but the disk refuses to keep it: see the server's log";
                return Err(AdminError::Failed(text.into()));
            }
            drop(engine);
            // Rare, and about as long as a disk takes.
            warren_hub::sleep(Duration::from_millis(1));
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the password.
        f.debug_struct("Config")
            .field("data_dir", &self.data_dir)
            .field("default_user", &self.default_user)
            .field("password_hashing", &self.password_hashing)
            .field("memory_limit", &self.memory_limit)
            .field("disk_free_limit", &self.disk_free_limit)
            .field("limits", &self.limits)
            .field("interceptors", &self.interceptors)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("connections", &self.connections()).finish()
    }
}

/// Lets slow hashes of passwords be computed on other threads, one core left to this one if there is another.
fn hash_elsewhere(engine: &Rc<RefCell<Engine>>) {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let weak = Rc::downgrade(engine);
    let hasher = move |key, check: SlowCheck| {
        let weak = weak.clone();
        warren_hub::spawn_raw(move || {
            let turn = HashingTurn(weak);
            let (check, right) = warren_hub::offload(move || {
                let right = check.run();
                (check, right)
            });
            if let Some(engine) = turn.0.upgrade() {
                engine.borrow_mut().login_answered(key, &check, right);
            }
        });
    };
    let running_max = (cores - 1).clamp(1, HASHES_MAX);
    engine.borrow_mut().hash_by(Rc::new(hasher), running_max);
}

/// Lets the next hash be computed when this one has been, or has failed.
struct HashingTurn(Weak<RefCell<Engine>>);

impl Drop for HashingTurn {
    fn drop(&mut self) {
        if let Some(engine) = self.0.upgrade()
            && let Ok(mut engine) = engine.try_borrow_mut()
        {
            engine.hash_ended();
        }
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
            engine.check_alarms();
            engine.tend_memory();
            let clock = engine.clock;
            for (_, connection) in engine.connections.iter() {
                connection.tick(clock);
            }
        }
        tick(inner);
    });
}
