//! Connections that come back, with what was made over them.
//!
//! ```text
//!   RobustConnection --- a fiber that waits for the end of --- Connection
//!     |  topology: exchanges, queues, bindings                   |
//!     +- RobustChannel: prefetch, confirms ---------------- Channel
//!          +- RobustConsumer: queue, tag ------------------ Consumer
//! ```
//! The left side lives as long as the program holds it, the right side as long as a socket does. When the connection is
//! lost, the fiber makes another one, declares anew what was declared, opens the channels again and consumes again; what
//! is called meanwhile waits for that. What cannot be done twice is not: a message that was published and not confirmed
//! is its publisher's to publish again, and an acknowledgement of a delivery that came before is refused, for the server
//! delivers its message again.

mod channel;
mod consumer;
mod topology;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use warren_hub::spawn;
use warren_hub::sync::Event;

pub use channel::RobustChannel;
pub use consumer::RobustConsumer;

use super::connection::Connection;
use super::error::Error;
use crate::{AmqpUri, ReplyCode};
use channel::ChannelInner;
use topology::Topology;

/// How a connection is made again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryOptions {
    /// How long to wait before the first attempt. Each further one waits twice as long as the one before.
    pub delay: Duration,
    /// The longest wait.
    pub delay_max: Duration,
    /// How many attempts may fail before the connection is given up; `None`: any number.
    pub attempts: Option<u32>,
}

impl Default for RecoveryOptions {
    /// From a tenth of a second to half a minute, for ever.
    fn default() -> Self {
        let (delay, delay_max) = (Duration::from_millis(100), Duration::from_secs(30));
        Self { delay, delay_max, attempts: None }
    }
}

/// A connection that is made again when it is lost.
///
/// ```no_run
/// use warren_amqp::client::{ConsumeOptions, QueueOptions, RecoveryOptions, RobustConnection};
///
/// warren_hub::run(|| {
///     // Any of them will do.
///     let servers = ["amqp://one.example", "amqp://two.example"];
///     let connection = RobustConnection::open(&servers, RecoveryOptions::default())?;
///     let channel = connection.channel()?;
///     channel.basic_qos(10, false)?;
///     channel.queue_declare("tasks", QueueOptions { durable: true, ..QueueOptions::default() })?;
///     // Goes on over restarts of the server.
///     for delivery in channel.basic_consume("tasks", ConsumeOptions::default())? {
///         let delivery = delivery?;
///         println!("{}", String::from_utf8_lossy(&delivery.body));
///         // Refused if the connection was lost meanwhile: the message comes again.
///         let _ = delivery.ack();
///     }
///     connection.close()
/// })?;
/// # Ok::<(), warren_amqp::client::Error>(())
/// ```
///
/// Clones are the same connection. It is closed when the last goes, channels included.
#[derive(Clone)]
pub struct RobustConnection(Rc<Handle>);

/// What users hold; the fiber holds only [`Inner`].
struct Handle(Rc<Inner>);

type OnRecovery = Rc<dyn Fn()>;
type OnBlocked = Rc<dyn Fn(Option<&str>)>;

struct Inner {
    uris: Vec<AmqpUri>,
    /// Where the last attempt went.
    last: Cell<usize>,
    options: RecoveryOptions,
    /// The one that stands, or stood last.
    current: RefCell<Connection>,
    topology: RefCell<Topology>,
    channels: RefCell<Vec<Weak<ChannelInner>>>,
    /// There is a connection, or there will be none any more.
    settled: Event,
    /// Nobody wants a connection any more.
    closing: Event,
    end: RefCell<Option<Error>>,
    on_recovery: RefCell<Option<OnRecovery>>,
    on_blocked: RefCell<Option<OnBlocked>>,
}

impl RobustConnection {
    /// Connects to the first of these servers that can be reached. Later on, all are tried in turn.
    ///
    /// # Suspends
    /// Until one has answered.
    ///
    /// # Errors
    /// What the last one says when none can be reached: the first time is not tried again. A URL that is wrong.
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn open(urls: &[&str], options: RecoveryOptions) -> Result<Self, Error> {
        let uris: Result<Vec<AmqpUri>, _> = urls.iter().map(|url| url.parse()).collect();
        let uris = uris?;
        let mut outcome = Err(Error::NoServer);
        let mut last = 0;
        for (index, uri) in uris.iter().enumerate() {
            last = index;
            outcome = Connection::open_uri(uri);
            if outcome.is_ok() {
                break;
            }
        }
        let inner = Rc::new(Inner {
            uris,
            last: Cell::new(last),
            options,
            current: RefCell::new(outcome?),
            topology: RefCell::default(),
            channels: RefCell::default(),
            settled: Event::new(),
            closing: Event::new(),
            end: RefCell::default(),
            on_recovery: RefCell::default(),
            on_blocked: RefCell::default(),
        });
        inner.settled.set();
        let watching = inner.clone();
        spawn(move || watching.watch());
        Ok(Self(Rc::new(Handle(inner))))
    }

    /// Opens a channel, which is opened again with the connection.
    ///
    /// # Suspends
    /// Until the server has answered, and while there is no connection.
    ///
    /// # Errors
    /// When the connection has been closed or given up, or all channels are in use.
    pub fn channel(&self) -> Result<RobustChannel, Error> {
        RobustChannel::open(self.clone())
    }

    /// Closes the connection for good.
    ///
    /// # Suspends
    /// Until the server has answered.
    ///
    /// # Errors
    /// When it has ended already, with the reason.
    pub fn close(&self) -> Result<(), Error> {
        let inner = self.inner();
        inner.ended()?;
        inner.close()
    }

    /// Whether there is a connection at this moment.
    pub fn is_connected(&self) -> bool {
        self.inner().settled.is_set() && !self.inner().current.borrow().is_closed()
    }

    /// The connection as it stands. It is another one after a recovery.
    ///
    /// # Suspends
    /// While there is none.
    ///
    /// # Errors
    /// When the connection has been closed or given up.
    pub fn current(&self) -> Result<Connection, Error> {
        self.inner().standing()
    }

    /// Calls `callback` each time when the connection has come back, with all that was made over it.
    pub fn on_recovery(&self, callback: impl Fn() + 'static) {
        *self.inner().on_recovery.borrow_mut() = Some(Rc::new(callback));
    }

    /// As [`Connection::on_blocked`], for this connection and all that follow.
    pub fn on_blocked(&self, callback: impl Fn(Option<&str>) + 'static) {
        let callback: OnBlocked = Rc::new(callback);
        *self.inner().on_blocked.borrow_mut() = Some(callback);
        let current = self.inner().current.borrow().clone();
        self.inner().tell_blocked(&current);
    }

    fn inner(&self) -> &Rc<Inner> {
        &self.0.0
    }
}

impl fmt::Debug for RobustConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RobustConnection")
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // It may have ended, and on the loop nobody can wait.
        self.0.closing.set();
        if warren_hub::can_wait() {
            let _ = self.0.close();
        }
    }
}

impl Inner {
    /// The reason, if there will be no connection any more.
    fn ended(&self) -> Result<(), Error> {
        match &*self.end.borrow() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// The connection, once there is one.
    fn standing(&self) -> Result<Connection, Error> {
        loop {
            self.settled.wait();
            self.ended()?;
            let current = self.current.borrow().clone();
            if !current.is_closed() {
                return Ok(current);
            }
            // The fiber that watches it is woken already, and has not run yet.
            warren_hub::yield_now();
        }
    }

    fn close(&self) -> Result<(), Error> {
        self.closing.set();
        let current = self.current.borrow().clone();
        let closed = current.close();
        self.finish(Error::Closed);
        // What is lost already needs no goodbye.
        closed.or(Ok(()))
    }

    /// There will be no connection any more. The first reason stays.
    fn finish(&self, error: Error) {
        self.end.borrow_mut().get_or_insert(error);
        self.settled.set();
    }

    /// The fiber that makes the connection anew when it is lost.
    fn watch(&self) {
        loop {
            let lost = self.current.borrow().clone();
            let reason = lost.wait_closed();
            if self.closing.is_set() {
                return self.finish(Error::Closed);
            }
            self.settled.clear();
            tracing::warn!(%reason, "the connection is lost: making another");
            match self.connect_again() {
                Err(error) => return self.finish(error),
                Ok(connection) => drop(self.current.replace(connection)),
            }
            if self.closing.is_set() {
                // It was closed while it came back.
                let current = self.current.borrow().clone();
                let _ = current.close();
                return self.finish(Error::Closed);
            }
            self.settled.set();
            let on_recovery = self.on_recovery.borrow().clone();
            if let Some(on_recovery) = on_recovery {
                on_recovery();
            }
        }
    }

    fn connect_again(&self) -> Result<Connection, Error> {
        let RecoveryOptions { mut delay, delay_max, attempts } = self.options;
        let mut failed = 0;
        loop {
            if self.closing.wait_timeout(delay).is_ok() {
                return Err(Error::Closed);
            }
            self.last.set((self.last.get() + 1) % self.uris.len());
            match self.recover(&self.uris[self.last.get()]) {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    failed += 1;
                    tracing::warn!(%error, failed, "the connection did not come back");
                    if attempts.is_some_and(|attempts| attempts <= failed) {
                        return Err(error);
                    }
                }
            }
            delay = (delay * 2).min(delay_max);
        }
    }

    /// Connects, and makes everything anew.
    fn recover(&self, uri: &AmqpUri) -> Result<Connection, Error> {
        let connection = Connection::open_uri(uri)?;
        self.tell_blocked(&connection);
        self.recover_topology(&connection)?;
        let mut channels = self.channels.borrow_mut();
        channels.retain(|channel| channel.strong_count() != 0);
        let living: Vec<_> = channels.iter().filter_map(Weak::upgrade).collect();
        drop(channels);
        for channel in living {
            channel.recover(&connection, self)?;
        }
        Ok(connection)
    }

    fn tell_blocked(&self, connection: &Connection) {
        let on_blocked = self.on_blocked.borrow().clone();
        if let Some(on_blocked) = on_blocked {
            connection.on_blocked(move |reason| on_blocked(reason));
        }
    }
}

/// Whether a recovery that has failed for this is worth another attempt: the connection has ended again, or the server
/// has not noticed yet that the old one has, and keeps its exclusive queues.
fn is_passing(connection: &Connection, error: &Error) -> bool {
    connection.is_closed() || error.code() == Some(ReplyCode::RESOURCE_LOCKED)
}
