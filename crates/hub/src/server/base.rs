//! What all servers share: accepting, room for handlers, pauses, and the end.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use crate::fiber::as_interrupt;
use crate::join::JoinHandle;
use crate::net::Addr;
use crate::pool::{Group, Pool};
use crate::spawn::Builder;
use crate::sync::{Event, Semaphore};
use crate::{sleep, yield_now};

/// Connections accepted in one go, before others have their turn.
const MAX_ACCEPT: usize = 100;
/// The pause after a first failure to accept, which doubles with each that follows.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause: descriptors that become free are used within this time.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a handler that is killed may take with its destructors before the server no longer waits for it.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection or a datagram, and what is done with it.
pub(super) type Job = Box<dyn FnOnce()>;

/// Where a server's work comes from.
pub(super) trait Intake {
    /// Waits for the next.
    fn next(&self) -> io::Result<Job>;
}

/// Starts a fiber for what is to be done, see [`Spawn::Custom`].
pub type Start = dyn Fn(Box<dyn FnOnce()>) -> JoinHandle<()>;

/// Which fiber handles a connection, and how many may be handled at once.
#[derive(Clone, Default)]
pub enum Spawn {
    /// A fiber for each, however many.
    #[default]
    Unlimited,
    /// A fiber for each, so many at most.
    Limited(usize),
    /// A fiber of this pool, which others may use too.
    Pool(Pool),
    /// The fiber that accepts: one after the other. A handler must not wait for long.
    Inline,
    /// Whatever fiber this starts.
    Custom(Rc<Start>),
}

impl fmt::Debug for Spawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("Unlimited"),
            Self::Limited(count) => f.debug_tuple("Limited").field(count).finish(),
            Self::Pool(pool) => f.debug_tuple("Pool").field(pool).finish(),
            Self::Inline => f.write_str("Inline"),
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}

/// What a server has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Connections or datagrams taken.
    pub accepted: u64,
    /// Handlers at work, but for [`Spawn::Inline`].
    pub active: usize,
    /// Attempts to accept that failed, such as for want of descriptors.
    pub errors: u64,
    /// Whether it pauses after such a failure.
    pub paused: bool,
}

/// A server of any kind: how it is started, asked and stopped. gevent's `BaseServer`. Clones are the same server.
///
/// It goes on when the last clone is dropped; only [`stop`](Self::stop), [`close`](Self::close) and the hub's end end it.
#[derive(Clone)]
pub struct BaseServer(Rc<Core>);

struct Core {
    address: Addr,
    /// Until it is closed.
    intake: RefCell<Option<Rc<dyn Intake>>>,
    spawn: RefCell<Spawn>,
    max_accept: Cell<usize>,
    handlers: Group,
    acceptor: RefCell<Option<JoinHandle<()>>>,
    /// The fiber that accepts is not within a handler: it may be killed.
    waits: Cell<bool>,
    closed: Event,
    stopped: Event,
    accepted: Cell<u64>,
    errors: Cell<u64>,
    paused: Cell<bool>,
}

impl BaseServer {
    pub(super) fn new(intake: Rc<dyn Intake>, address: Addr) -> Self {
        Self(Rc::new(Core {
            address,
            intake: RefCell::new(Some(intake)),
            spawn: RefCell::default(),
            max_accept: Cell::new(MAX_ACCEPT),
            handlers: Group::new(),
            acceptor: RefCell::default(),
            waits: Cell::new(true),
            closed: Event::new(),
            stopped: Event::new(),
            accepted: Cell::new(0),
            errors: Cell::new(0),
            paused: Cell::new(false),
        }))
    }

    pub(super) fn set_spawn(&self, spawn: Spawn) {
        self.0.spawn.replace(spawn);
    }

    pub(super) fn set_max_accept(&self, count: usize) {
        self.0.max_accept.set(count.max(1));
    }

    /// Starts to accept. Does nothing when that has been done.
    ///
    /// # Panics
    /// When no hub runs on this thread, or the system refuses a stack.
    pub fn start(&self) {
        if self.0.acceptor.borrow().is_some() {
            return;
        }
        let Some(intake) = self.0.intake.borrow().clone() else { return };
        let core = self.0.clone();
        let name = format!("server on {}", self.0.address);
        let started = Builder::new().name(name).spawn(move || core.accept_all(&*intake));
        match started {
            Ok(acceptor) => drop(self.0.acceptor.replace(Some(acceptor))),
            Err(error) => panic!("a server needs a fiber: {error}"),
        }
    }

    /// Starts, and waits until the server is stopped. A fiber that is killed here takes the server and its handlers with
    /// it.
    ///
    /// # Suspends
    /// Until then.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub fn serve_forever(&self) {
        struct Serving<'a>(&'a BaseServer);
        impl Drop for Serving<'_> {
            fn drop(&mut self) {
                if !self.0.0.closed.is_set() {
                    self.0.close();
                    self.0.0.handlers.kill();
                }
            }
        }
        self.start();
        let serving = Serving(self);
        self.0.stopped.wait();
        drop(serving);
    }

    /// Accepts nothing from now on: from the next turn of the loop on the address is free again, and whoever connects is
    /// refused. Handlers go on. May be called from one.
    pub fn close(&self) {
        self.0.closed.set();
        self.0.intake.take();
        if self.0.waits.get()
            && let Some(acceptor) = &*self.0.acceptor.borrow()
        {
            acceptor.kill();
        }
        // Who closes only is not stopped before its handlers have ended, but nobody counts them.
        self.0.stopped.set();
    }

    /// Accepts nothing from now on, waits for the handlers, and kills those that have not ended after `timeout`. Whether
    /// all ended by themselves. Not for handlers, which would wait for themselves: they [`close`](Self::close).
    ///
    /// # Suspends
    /// Until the handlers have ended, at most for `timeout` and as long again as the killed ones take with their
    /// destructors, a second at most.
    pub fn stop(&self, timeout: Duration) -> bool {
        /// Whoever serves for ever goes on, also when the fiber that stops the server is killed here.
        struct Stopped<'a>(&'a Event);
        impl Drop for Stopped<'_> {
            fn drop(&mut self) {
                self.0.set();
            }
        }
        let _stopped = Stopped(&self.0.stopped);
        self.0.closed.set();
        self.0.intake.take();
        let acceptor = self.0.acceptor.take();
        let mut in_time = true;
        if let Some(acceptor) = acceptor {
            // Within a handler of its own, it ends after it.
            if self.0.waits.get() || !acceptor.wait_timeout(timeout) {
                in_time = self.0.waits.get();
                acceptor.kill_wait(Some(KILL_TIMEOUT));
            }
        }
        if self.0.handlers.join_timeout(timeout).is_err() {
            in_time = false;
            if !self.0.handlers.kill_wait(Some(KILL_TIMEOUT)) {
                let (server, left) = (&self.0.address, self.0.handlers.len());
                tracing::warn!(%server, left, "killed handlers take their time");
            }
        }
        in_time
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> &Addr {
        &self.0.address
    }

    /// Whether it has been started, and not closed or stopped.
    pub fn started(&self) -> bool {
        self.0.acceptor.borrow().is_some() && !self.closed()
    }

    /// Whether it accepts no more.
    pub fn closed(&self) -> bool {
        self.0.closed.is_set()
    }

    /// What it has done so far.
    pub fn stats(&self) -> ServerStats {
        ServerStats {
            accepted: self.0.accepted.get(),
            active: self.0.handlers.len(),
            errors: self.0.errors.get(),
            paused: self.0.paused.get(),
        }
    }
}

impl fmt::Debug for BaseServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BaseServer")
            .field("address", &self.0.address)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Gives a place back however its handler ends, also unrun.
struct Room(Rc<Semaphore>);

impl Drop for Room {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// How an error of accepting is met.
enum Trouble {
    /// The connection has gone already (accept(2)): to the next.
    Connection,
    /// The socket is none any more.
    Fatal,
    /// Want of descriptors or memory, and what we do not know: later it may work.
    Resources,
}

fn trouble(error: &io::Error) -> Trouble {
    match Errno::from_io_error(error) {
        Some(
            Errno::CONNABORTED
            | Errno::CONNRESET
            | Errno::CONNREFUSED
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::PERM,
        ) => Trouble::Connection,
        Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP) => Trouble::Fatal,
        _ => Trouble::Resources,
    }
}

impl Core {
    fn accept_all(self: Rc<Self>, intake: &dyn Intake) {
        let spawn = self.spawn.borrow().clone();
        let limit = match spawn {
            Spawn::Limited(count) => Some(Rc::new(Semaphore::new(count))),
            _ => None,
        };
        let mut pause = PAUSE_MIN;
        let mut in_a_row = 0;
        while !self.closed.is_set() {
            let room = limit.as_ref().map(|limit| {
                limit.acquire().forget();
                Room(limit.clone())
            });
            if let Spawn::Pool(pool) = &spawn {
                pool.wait_available();
            }
            let handled = intake.next().and_then(|job| self.handle(&spawn, room, job));
            match handled {
                Ok(()) => {
                    self.accepted.set(self.accepted.get() + 1);
                    pause = PAUSE_MIN;
                }
                Err(error) => {
                    self.errors.set(self.errors.get() + 1);
                    if !self.recover(&error, &mut pause) {
                        break;
                    }
                }
            }
            in_a_row += 1;
            if self.max_accept.get() <= in_a_row {
                in_a_row = 0;
                yield_now();
            }
        }
    }

    /// After an error of accepting. Whether to go on.
    fn recover(&self, error: &io::Error, pause: &mut Duration) -> bool {
        let server = &self.address;
        match trouble(error) {
            Trouble::Connection => {
                tracing::debug!(%server, %error, "a connection was lost before it was accepted");
                yield_now();
                true
            }
            Trouble::Fatal => {
                tracing::error!(%server, %error, "cannot accept any more");
                self.closed.set();
                self.intake.take();
                self.stopped.set();
                false
            }
            Trouble::Resources => {
                tracing::warn!(%server, %error, ?pause, "cannot accept for now");
                self.paused.set(true);
                sleep(*pause);
                self.paused.set(false);
                *pause = PAUSE_MAX.min(2 * *pause);
                true
            }
        }
    }

    fn handle(&self, spawn: &Spawn, room: Option<Room>, job: Job) -> io::Result<()> {
        let handler = match spawn {
            Spawn::Unlimited => Builder::new().spawn(job)?,
            Spawn::Limited(_) => Builder::new().spawn(move || {
                let _room = room;
                job();
            })?,
            Spawn::Pool(pool) => pool.spawn(job),
            Spawn::Custom(start) => start(job),
            Spawn::Inline => {
                self.handle_inline(job);
                return Ok(());
            }
        };
        self.handlers.add(&handler);
        Ok(())
    }

    /// A panic ends its handler only, as it does on a fiber of its own.
    fn handle_inline(&self, job: Job) {
        self.waits.set(false);
        let handled = catch_unwind(AssertUnwindSafe(job));
        self.waits.set(true);
        match handled {
            Err(payload) if as_interrupt(&*payload).is_some() => resume_unwind(payload),
            Err(_) => tracing::error!(server = %self.address, "a handler has panicked"),
            Ok(()) => {}
        }
    }
}
