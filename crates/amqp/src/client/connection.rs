//! [`Connection`]: one socket, a fiber that reads, a fiber that writes, a fiber that watches the time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use warren_hub::sync::{Event, Mutex};
use warren_hub::{spawn, with_timeout};

use super::channel::Channel;
use super::error::{Close, Error};
use super::handshake::{Tuned, handshake};
use super::state::ChannelState;
use super::stream::Stream;
use crate::frame::{self, Frame, FrameReader};
use crate::method::{EncodeMethod, channel, connection};
use crate::{AmqpUri, FieldTable, Method, ReplyCode};

/// Output beyond this makes publishers wait.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// What one read takes from the socket.
const READ_BYTES: usize = 64 * 1024;
/// How long a server may take to answer `connection.close`.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// An open connection to a server.
///
/// Clones are the same connection. When the last handle goes, channels included, it is closed in order, if
/// that happens on a fiber.
#[derive(Clone)]
pub struct Connection(Rc<Handle>);

/// What users hold. The fibers of the connection hold only [`Shared`], so that this one's end is noticed.
struct Handle(Rc<Shared>);

/// The connection itself.
pub(super) struct Shared {
    stream: Stream,
    pub(super) frame_max: u32,
    channel_max: u16,
    heartbeat: u16,
    server_properties: FieldTable,
    channels: RefCell<BTreeMap<u16, Rc<ChannelState>>>,
    output: RefCell<Vec<u8>>,
    /// There is output to write, or nothing will be written any more.
    has_output: Event,
    /// There is room in the output.
    has_room: Event,
    /// Why it has ended.
    end: RefCell<Option<Error>>,
    ended: Event,
    closing: Cell<bool>,
    read_at: Cell<Instant>,
    wrote_at: Cell<Instant>,
    /// Why the server takes no publishes.
    blocked: RefCell<Option<String>>,
    /// It takes them, or the connection has ended.
    unblocked: Event,
    on_blocked: RefCell<Option<OnBlocked>>,
    /// New secrets wait for one another.
    secret: Mutex<()>,
    /// The answer to the last one has come, or the connection has ended.
    secret_taken: Event,
}

type OnBlocked = Rc<dyn Fn(Option<&str>)>;

impl Connection {
    /// Connects, logs in and opens the virtual host that `url` names:
    /// `amqp://user:password@host:port/vhost?heartbeat=60`. See [`AmqpUri`] for its parts and defaults.
    ///
    /// # Suspends
    /// Until the server has answered.
    ///
    /// # Errors
    /// When the URL is wrong, the server cannot be reached, or it refuses: [`Error::code`] tells why.
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn open(url: &str) -> Result<Self, Error> {
        Self::open_uri(&url.parse::<AmqpUri>()?)
    }

    /// As [`open`](Self::open), for a URL that has been read.
    ///
    /// # Suspends
    /// Until the server has answered.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_uri(uri: &AmqpUri) -> Result<Self, Error> {
        let addr = format!("{}:{}", uri.host, uri.port);
        let failed = |source: std::io::Error| Error::Connect {
            addr: addr.clone(),
            source: Arc::new(source),
        };
        let opened = with_timeout(uri.connection_timeout, || {
            let stream = Stream::connect(uri).map_err(failed)?;
            let tuned = handshake(&stream, uri)?;
            Ok::<_, Error>((stream, tuned))
        });
        let (stream, tuned) = opened.map_err(|_| failed(std::io::ErrorKind::TimedOut.into()))??;
        Ok(Self::start(stream, tuned))
    }

    fn start(stream: Stream, tuned: Tuned) -> Self {
        let Tuned { channel_max, frame_max, heartbeat, reader, server_properties } = tuned;
        let shared = Rc::new(Shared {
            stream,
            frame_max,
            channel_max,
            heartbeat,
            server_properties,
            channels: RefCell::default(),
            output: RefCell::default(),
            has_output: Event::new(),
            has_room: Event::new(),
            end: RefCell::default(),
            ended: Event::new(),
            closing: Cell::new(false),
            read_at: Cell::new(warren_hub::now()),
            wrote_at: Cell::new(warren_hub::now()),
            blocked: RefCell::default(),
            unblocked: Event::new(),
            on_blocked: RefCell::default(),
            secret: Mutex::new(()),
            secret_taken: Event::new(),
        });
        shared.unblocked.set();
        let reading = shared.clone();
        spawn(move || reading.read(reader));
        let writing = shared.clone();
        spawn(move || writing.write());
        if heartbeat != 0 {
            let beating = shared.clone();
            spawn(move || beating.beat());
        }
        Self(Rc::new(Handle(shared)))
    }

    /// Opens a channel on the lowest number that is free.
    ///
    /// # Suspends
    /// Until the server has answered.
    ///
    /// # Errors
    /// When the connection has ended, or all channels are in use.
    pub fn channel(&self) -> Result<Channel, Error> {
        let shared = &self.0.0;
        shared.check()?;
        let state = {
            let mut channels = shared.channels.borrow_mut();
            let number = (1..=shared.channel_max)
                .find(|number| !channels.contains_key(number))
                .ok_or(Error::NoChannel(shared.channel_max))?;
            let state = Rc::new(ChannelState::new(number, shared.clone()));
            channels.insert(number, state.clone());
            state
        };
        state.call(&channel::Open {}, "channel.open-ok", |method| {
            matches!(method, Method::ChannelOpenOk(_)).then_some(())
        })?;
        Ok(Channel::new(state, self.clone()))
    }

    /// Closes the connection in order: everything published before is delivered to the server first.
    ///
    /// # Suspends
    /// Until the server has answered, at most for 10 s.
    ///
    /// # Errors
    /// When the connection had ended already, with the reason.
    pub fn close(&self) -> Result<(), Error> {
        self.0.0.close()
    }

    pub(super) fn is(&self, shared: &Rc<Shared>) -> bool {
        Rc::ptr_eq(&self.0.0, shared)
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.0.0.end.borrow().is_some()
    }

    /// What the server says about itself.
    pub fn server_properties(&self) -> &FieldTable {
        &self.0.0.server_properties
    }

    /// Why the server takes no publishes at present, if so (`connection.blocked`): it runs out of memory or disk.
    /// Publishing waits until it is over.
    pub fn blocked(&self) -> Option<String> {
        self.0.0.blocked.borrow().clone()
    }

    /// Calls `callback` with the reason when the server takes no publishes any more, and with `None` when it does again.
    /// It runs on the connection's fiber and must not wait.
    pub fn on_blocked(&self, callback: impl Fn(Option<&str>) + 'static) {
        *self.0.0.on_blocked.borrow_mut() = Some(Rc::new(callback));
    }

    /// Waits until the server takes publishes.
    ///
    /// # Suspends
    /// Until then.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn wait_until_unblocked(&self) -> Result<(), Error> {
        self.0.0.wait_until_unblocked()
    }

    /// Gives the server a new secret in place of the one of the login, such as a token that runs out.
    ///
    /// # Suspends
    /// Until the server has answered.
    ///
    /// # Errors
    /// When the server refuses it, which ends the connection; when the connection has ended.
    pub fn update_secret(&self, secret: &str, reason: &str) -> Result<(), Error> {
        let shared = &self.0.0;
        let _turn = shared.secret.lock();
        shared.secret_taken.clear();
        shared.check()?;
        let new_secret = secret.as_bytes();
        shared.send(0, &connection::UpdateSecret { new_secret, reason })?;
        shared.secret_taken.wait();
        shared.check()
    }

    /// Waits until the connection has ended, and gives the reason; [`Error::Closed`] is ours.
    ///
    /// # Suspends
    /// Until then.
    pub fn wait_closed(&self) -> Error {
        self.0.0.ended.wait();
        self.0.0.end.borrow().clone().unwrap_or(Error::Closed)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.0.0.stream)
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // On the loop, after the hub's end and while a fiber unwinds nobody can wait: the socket's end has to do.
        if warren_hub::can_wait() && self.0.end.borrow().is_none() {
            let _ = self.0.close();
        } else {
            self.0.finish(Error::Closed);
        }
    }
}

impl Shared {
    /// The reason, if the connection has ended.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &*self.end.borrow() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Lets `fill` append to the output.
    ///
    /// # Suspends
    /// While too much waits to be written.
    pub(super) fn send_with(&self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        self.wait_for_room()?;
        self.check()?;
        fill(&mut self.output.borrow_mut());
        self.has_output.set();
        Ok(())
    }

    /// # Suspends
    /// While too much waits to be written.
    pub(super) fn wait_for_room(&self) -> Result<(), Error> {
        while OUTPUT_BYTES_MAX < self.output.borrow().len() {
            self.check()?;
            self.has_room.clear();
            self.has_room.wait();
        }
        Ok(())
    }

    /// # Suspends
    /// While the server takes no publishes.
    pub(super) fn wait_until_unblocked(&self) -> Result<(), Error> {
        self.unblocked.wait();
        self.check()
    }

    pub(super) fn send(&self, number: u16, method: &impl EncodeMethod) -> Result<(), Error> {
        method.check()?;
        self.send_with(|out| frame::write_method(out, number, method))
    }

    /// The writing fiber: everything that has gathered, at once.
    fn write(&self) {
        let mut batch = Vec::new();
        loop {
            self.has_output.wait();
            self.has_output.clear();
            std::mem::swap(&mut batch, &mut *self.output.borrow_mut());
            self.has_room.set();
            if batch.is_empty() {
                if self.end.borrow().is_some() {
                    return;
                }
                continue;
            }
            self.wrote_at.set(warren_hub::now());
            if let Err(error) = (&self.stream).write_all(&batch) {
                // What the server has to say about it may still be readable: the reader ends the connection.
                tracing::debug!(%error, "cannot write to the server");
                return;
            }
            batch.clear();
        }
    }

    /// The reading fiber.
    fn read(self: Rc<Self>, mut reader: FrameReader) {
        let mut buffer = vec![0; READ_BYTES];
        let error = loop {
            let count = match (&self.stream).read(&mut buffer) {
                Ok(0) => break std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into(),
                Ok(count) => count,
                Err(error) => break error.into(),
            };
            self.read_at.set(warren_hub::now());
            let read = reader.feed(&buffer[..count], |frame| self.frame(frame));
            if let Err(error) = read {
                break error;
            }
        };
        self.finish(error);
    }

    fn frame(&self, frame: Frame<'_>) -> Result<(), Error> {
        if let Frame::Method { channel: 0, payload } = frame {
            return self.method(Method::decode(payload)?);
        }
        let channel = self.channels.borrow().get(&frame.channel()).cloned();
        match channel {
            Some(channel) => channel.frame(frame),
            // A heartbeat, or the rest of what a closed channel was sent.
            None => Ok(()),
        }
    }

    fn method(&self, method: Method<'_>) -> Result<(), Error> {
        match method {
            Method::ConnectionClose(close) => {
                let reason = Close {
                    code: close.reply_code.into(),
                    text: close.reply_text.to_owned(),
                    class_id: close.class_id,
                    method_id: close.method_id,
                };
                let _ = self.send(0, &connection::CloseOk {});
                // Time for the answer to leave before the socket is closed.
                warren_hub::yield_now();
                Err(Error::ConnectionClosed(Arc::new(reason)))
            }
            Method::ConnectionCloseOk(_) => Err(Error::Closed),
            Method::ConnectionBlocked(blocked) => {
                *self.blocked.borrow_mut() = Some(blocked.reason.to_owned());
                self.unblocked.clear();
                self.tell_blocked(Some(blocked.reason));
                Ok(())
            }
            Method::ConnectionUnblocked(_) => {
                *self.blocked.borrow_mut() = None;
                self.unblocked.set();
                self.tell_blocked(None);
                Ok(())
            }
            Method::ConnectionUpdateSecretOk(_) => {
                self.secret_taken.set();
                Ok(())
            }
            other => Err(Error::Unexpected { got: other.name(), wanted: "a method for channel 0" }),
        }
    }

    fn tell_blocked(&self, reason: Option<&str>) {
        let on_blocked = self.on_blocked.borrow().clone();
        if let Some(on_blocked) = on_blocked {
            on_blocked(reason);
        }
    }

    /// The fiber that sends signs of life, and looks for the server's.
    fn beat(&self) {
        let interval = Duration::from_secs(self.heartbeat.into());
        while self.ended.wait_timeout(interval / 2).is_err() {
            if interval * 2 < self.read_at.get().elapsed() {
                return self.finish(Error::HeartbeatMissed(self.heartbeat));
            }
            if interval / 2 <= self.wrote_at.get().elapsed() {
                let _ = self.send_with(frame::write_heartbeat);
            }
        }
    }

    fn close(&self) -> Result<(), Error> {
        self.check()?;
        if !self.closing.replace(true) {
            let close = connection::Close {
                reply_code: ReplyCode::REPLY_SUCCESS.0,
                reply_text: "Normal shutdown",
                class_id: 0,
                method_id: 0,
            };
            self.send(0, &close)?;
        }
        let answered = self.ended.wait_timeout(CLOSE_PATIENCE);
        self.finish(Error::Closed);
        match (answered, &*self.end.borrow()) {
            (Err(_), _) => Err(Error::TimedOut),
            (Ok(()), Some(Error::Closed) | None) => Ok(()),
            (Ok(()), Some(error)) => Err(error.clone()),
        }
    }

    /// The end, for everyone who waits. The first reason stays.
    fn finish(&self, error: Error) {
        if self.end.borrow().is_some() {
            return;
        }
        *self.end.borrow_mut() = Some(error.clone());
        self.ended.set();
        self.has_output.set();
        self.has_room.set();
        self.unblocked.set();
        self.secret_taken.set();
        let channels = std::mem::take(&mut *self.channels.borrow_mut());
        for channel in channels.into_values() {
            channel.finish(&error);
        }
        self.stream.shut_down();
    }

    pub(super) fn forget_channel(&self, number: u16) {
        let forgotten = self.channels.borrow_mut().remove(&number);
        drop(forgotten);
    }
}
