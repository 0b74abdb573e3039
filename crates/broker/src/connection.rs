//! A client's connection: from bytes to the engine and back.
//!
//! ```text
//!   Header --AMQP0091--> Start --start-ok--> Checking ----> Tune --tune-ok--> Open --open--> Running
//!      |                                                          |             |
//!      +-- anything else: our header, end                         +-- error --> Closing --close-ok--> end
//! ```
//! [`Session`] is the protocol that the reactor drives; the parts are the [`handshake`], the [`methods`] of an
//! open connection and the [`content`] of messages that arrives in pieces. [`Connection`] is what the engine
//! knows of it.

mod content;
mod endings;
mod handshake;
mod methods;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

use compact_str::CompactString;
use rustc_hash::FxHashMap;
use warren_amqp::constants::{
    FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_MAX_BEFORE_TUNING, FRAME_METHOD,
};
use warren_amqp::frame::{self, Frame, FrameReader};
use warren_amqp::method::{EncodeMethod, channel, connection, method_name};
use warren_amqp::{DecodeError, Fault, Method, ReplyCode};
use warren_reactor::{Protocol, Reason, Transport};

use crate::auth::LoginOptions;
use crate::channel::ChannelKey;
use crate::engine::login::Login;
use crate::engine::{Actor, Engine};
use crate::erlang;
use crate::exception::Exception;
use crate::message::Content;
use crate::queue::QueueKey;
use crate::table::Key;
use crate::vhost::VhostRef;
use content::Incoming;

pub(crate) type ConnectionKey = Key<Connection>;

/// What the engine knows of a connection.
pub(crate) struct Connection {
    pub(crate) transport: Transport,
    pub(crate) user: String,
    /// What the client calls itself: `connection_name` of its properties.
    pub(crate) client_name: Option<String>,
    /// How the user logs in or has done so; empty before.
    pub(crate) mechanism: &'static str,
    pub(crate) frame_max: u32,
    /// The highest channel number agreed on.
    pub(crate) channel_max: u16,
    pub(crate) vhost: VhostRef,
    /// When it was made, in milliseconds since 1970.
    pub(crate) connected_ms: u64,
    /// What the client says of itself: the pairs of an encoded table.
    pub(crate) client_properties: Box<[u8]>,
    /// Seconds; 0: none.
    pub(crate) heartbeat: u64,
    /// When something was read last, on the engine's clock.
    pub(crate) read_at: u64,
    pub(crate) login: Login,
    /// The client wants to hear of a refused login.
    close_on_refusal: bool,
    /// The client understands `basic.cancel` from the server.
    pub(crate) cancel_notify: bool,
    /// The client understands `connection.blocked`.
    pub(crate) blocked_notify: bool,
    /// It has published during an alarm and is not read.
    pub(crate) blocked: bool,
    /// It has fetched behind an answer that waits for the store, and is not read until that has gone.
    pub(crate) awaits_answer: bool,
    pub(crate) channels: Vec<ChannelKey>,
    pub(crate) exclusive_queues: Vec<QueueKey>,
    /// Channels that the broker has closed, which the session is to hear of.
    pub(crate) closed_channels: Vec<u16>,
    /// When to give up waiting for the client's next step, on the engine's clock.
    deadline: Option<u64>,
    /// One side has closed it: nothing more is said but the answer to that.
    closing: bool,
    /// Its client has closed it and gets an answer once its channels have theirs.
    pub(crate) ending: bool,
}

impl Connection {
    /// Appends a method to the output.
    pub(crate) fn send(&self, channel: u16, method: &impl EncodeMethod) {
        self.transport.write_with(|out| frame::write_method(out, channel, method));
    }

    /// Appends a method with its content to the output.
    pub(crate) fn send_content(&self, channel: u16, method: &impl EncodeMethod, content: &Content) {
        let Some(mut rest) = content.shared_body() else {
            return self
                .transport
                .write_with(|out| self.encode_content(out, channel, method, content));
        };
        let (class, body_bytes) = (method.info().class_id, rest.len() as u64);
        self.transport.write_with(|out| {
            frame::write_method(out, channel, method);
            frame::write_content_header(out, channel, class, content.properties(), body_bytes);
        });
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(frame::body_bytes_max(self.frame_max)));
            let kind = warren_amqp::constants::FRAME_BODY;
            self.transport.write(&frame::frame_header(kind, channel, piece.len() as u32));
            self.transport.write_bytes(piece);
            self.transport.write(&[warren_amqp::constants::FRAME_END]);
        }
    }

    /// Appends a method with its content to `out`.
    pub(crate) fn encode_content(
        &self,
        out: &mut Vec<u8>,
        channel: u16,
        method: &impl EncodeMethod,
        content: &Content,
    ) {
        let (properties, body) = (content.properties(), content.body());
        frame::write_method(out, channel, method);
        let class = method.info().class_id;
        frame::write_content(out, channel, class, properties, body, self.frame_max);
    }

    /// What it is called where RabbitMQ's own connections are: from where to where.
    pub(crate) fn name(&self) -> String {
        let (peer, host) = (self.transport.peer(), self.transport.host());
        format!("{peer} -> {host}")
    }

    /// Logged in, and its virtual host opened.
    pub(crate) fn is_open(&self) -> bool {
        self.deadline.is_none() && !self.closing
    }

    /// What it is doing, in the word of a listing.
    pub(crate) fn state(&self, alarm: bool) -> &'static str {
        match self.is_open() {
            _ if self.closing => "closing",
            false => "starting",
            true if self.blocked => "blocked",
            true if alarm => "blocking",
            true => "running",
        }
    }
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    Start,
    /// Who the client says it is is being looked at: what else it sends stays unread.
    Checking,
    Tune,
    Open,
    Running,
    /// We have sent `connection.close`.
    Closing,
    /// Nothing more is read.
    Ended,
}

/// A channel number in use.
enum Slot {
    Open {
        key: ChannelKey,
        incoming: Option<Incoming>,
    },
    /// We have sent `channel.close`: everything is ignored until `close-ok`.
    Closing,
    /// The client has sent `channel.close`, and our answer waits as long as the engine has the channel.
    Ending(ChannelKey),
}

impl Slot {
    /// Nobody uses the number any more.
    fn is_free(&self, engine: &Engine) -> bool {
        matches!(self, Slot::Ending(key) if engine.channels.get(*key).is_none())
    }
}

/// The protocol of one connection.
pub(crate) struct Session {
    reader: FrameReader,
    state: SessionState,
}

/// Apart from the reader, which is borrowed while a frame is handled.
pub(crate) struct SessionState {
    engine: Rc<RefCell<Engine>>,
    key: Option<ConnectionKey>,
    stage: Stage,
    /// The first bytes of the protocol header.
    header: Vec<u8>,
    /// The limit to set in the reader.
    frame_max: u32,
    /// The highest channel number.
    channel_max: u16,
    login: Rc<LoginOptions>,
    /// Reading is paused until the client has read.
    paused: bool,
    /// It has published during an alarm: what else has come stays unread.
    blocked: bool,
    slots: FxHashMap<u16, Slot>,
    /// For the key of the next publish.
    spare_key: CompactString,
}

impl Session {
    pub(crate) fn new(engine: Rc<RefCell<Engine>>, login: Rc<LoginOptions>) -> Self {
        Self {
            reader: FrameReader::new(FRAME_MAX_BEFORE_TUNING),
            state: SessionState {
                engine,
                key: None,
                stage: Stage::Header,
                header: Vec::new(),
                frame_max: FRAME_MAX_BEFORE_TUNING,
                channel_max: 0,
                login,
                paused: false,
                blocked: false,
                slots: FxHashMap::default(),
                spare_key: CompactString::default(),
            },
        }
    }
}

impl Protocol for Session {
    fn connection_made(&mut self, transport: &Transport) {
        let mut engine = self.state.engine.borrow_mut();
        transport.set_write_buffer_limits(engine.output_share.write_limits());
        engine.wake_up();
        let (clock, handshake_s) = (engine.clock, engine.limits.handshake_s);
        let connected_ms = engine.now_ms();
        self.state.key = Some(engine.connections.insert(Connection {
            transport: transport.clone(),
            user: String::new(),
            client_name: None,
            mechanism: "",
            login: Login::None,
            close_on_refusal: false,
            vhost: VhostRef::nowhere(),
            connected_ms,
            client_properties: Box::default(),
            frame_max: FRAME_MAX_BEFORE_TUNING,
            channel_max: 0,
            heartbeat: 0,
            read_at: clock,
            cancel_notify: false,
            blocked_notify: false,
            blocked: false,
            awaits_answer: false,
            channels: Vec::new(),
            exclusive_queues: Vec::new(),
            closed_channels: Vec::new(),
            deadline: Some(clock + handshake_s),
            closing: false,
            ending: false,
        }));
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let engine = self.state.engine.clone();
        let mut engine = engine.borrow_mut();
        let Some(key) = self.state.key else { return };
        engine.wake_up();
        engine.set_actor(Actor::Client(key));
        let clock = engine.clock;
        if let Some(connection) = engine.connections.get_mut(key) {
            connection.read_at = clock;
            for number in connection.closed_channels.drain(..) {
                self.state.slots.insert(number, Slot::Closing);
            }
            self.state.blocked = connection.blocked;
            if connection.closing && self.state.stage != Stage::Ended {
                // By the broker, not by us.
                self.state.stage = Stage::Closing;
                self.state.slots.clear();
            }
        }
        self.state.paused = false;
        self.state.see_login(&engine);
        let mut data = data;
        if self.state.stage == Stage::Header
            && !self.state.read_header(&engine, transport, &mut data)
        {
            return;
        }
        while self.state.reads() {
            match self.reader.next_frame(&mut data) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if let Err((exception, class_id, method_id)) =
                        self.state.handle(&mut engine, frame)
                    {
                        self.state.fail(&mut engine, &exception, class_id, method_id);
                    }
                }
                Err(error) => {
                    self.state.fail(&mut engine, &error.into(), 0, 0);
                    // The stream is out of step: not even a close-ok can be found in it.
                    self.state.end(&mut engine);
                }
            }
            self.reader.set_frame_max(self.state.frame_max);
        }
        if self.state.stage == Stage::Checking {
            transport.pause_reading();
        }
        if transport.is_full() && engine.output_share.answer_bytes_max() < transport.buffered() {
            transport.pause_reading();
            self.state.paused = true;
        }
        if self.state.blocked || self.state.paused || self.state.stage == Stage::Checking {
            transport.unread(data.len());
        }
    }

    fn resume_producing(&mut self, transport: &Transport) {
        let mut engine = self.state.engine.borrow_mut();
        let connection = self.state.key.and_then(|key| engine.connections.get(key));
        let held = connection
            .is_some_and(|connection| connection.blocked || connection.login == Login::Checking);
        if self.state.paused && !held {
            transport.resume_reading();
        }
        if let Some(key) = self.state.key {
            engine.resume_connection(key);
        }
    }

    fn connection_lost(&mut self, reason: &Reason) {
        tracing::debug!(%reason, "a connection has ended");
        if let Some(key) = self.state.key {
            self.state.engine.borrow_mut().close_connection(key);
        }
    }
}

/// An exception, and the class and method at fault.
type Failure = (Exception, u16, u16);

impl SessionState {
    fn connection<'e>(&self, engine: &'e mut Engine) -> Option<&'e mut Connection> {
        engine.connections.get_mut(self.key?)
    }

    /// Whether more of the input is to be looked at.
    fn reads(&self) -> bool {
        !self.blocked && !self.paused && !matches!(self.stage, Stage::Ended | Stage::Checking)
    }

    fn send(&self, engine: &mut Engine, channel: u16, method: &impl EncodeMethod) {
        if let Some(connection) = self.connection(engine) {
            connection.send(channel, method);
        }
    }

    fn handle(&mut self, engine: &mut Engine, frame: Frame<'_>) -> Result<(), Failure> {
        let no_method = |exception| (exception, 0, 0);
        if self.stage == Stage::Closing {
            return self.handle_closing(engine, frame).map_err(no_method);
        }
        let out_of_place = match frame {
            Frame::Heartbeat => false,
            Frame::Method { channel: 0, .. } => false,
            _ => frame.channel() == 0 || self.stage != Stage::Running,
        };
        if out_of_place {
            let (kind, payload) = raw(&frame);
            let text = erlang::frame(kind, &payload);
            return Err(no_method(Exception::hard(ReplyCode::UNEXPECTED_FRAME, text)));
        }
        match frame {
            Frame::Heartbeat => Ok(()),
            Frame::Method { channel, payload } => self.handle_method(engine, channel, payload),
            Frame::Header { channel, class_id, body_size, properties } => {
                let result = self.content_header(engine, channel, class_id, body_size, properties);
                self.soften(engine, channel, result, 60, 40)
            }
            Frame::Body { channel, payload } => {
                let result = self.content_body(engine, channel, payload);
                self.soften(engine, channel, result, 60, 40)
            }
        }
    }

    /// After our `connection.close` only the client's answer matters, or its own close.
    fn handle_closing(&mut self, engine: &mut Engine, frame: Frame<'_>) -> Result<(), Exception> {
        let Frame::Method { channel: 0, payload } = frame else { return Ok(()) };
        match Method::decode(payload) {
            Ok(Method::ConnectionCloseOk(_)) => self.end(engine),
            Ok(Method::ConnectionClose(_)) => {
                self.send(engine, 0, &connection::CloseOk {});
                self.end(engine);
            }
            _ => {}
        }
        Ok(())
    }

    /// Nothing on any channel counts any more.
    fn close_channels(&mut self, engine: &mut Engine) {
        self.slots.clear();
        if let Some(key) = self.key {
            engine.close_channels(key);
        }
    }

    /// Everything has been said.
    fn end(&mut self, engine: &mut Engine) {
        self.stage = Stage::Ended;
        let clock = engine.clock;
        if let Some(connection) = self.connection(engine) {
            connection.end(clock);
        }
    }

    fn handle_method(
        &mut self,
        engine: &mut Engine,
        channel: u16,
        payload: &[u8],
    ) -> Result<(), Failure> {
        let (class_id, method_id) = method_ids(payload);
        let method = Method::decode(payload).map_err(|error| {
            tracing::warn!(%error, "a method cannot be decoded");
            let exception = undecodable(&error, payload);
            let (class_id, method_id) = exception.ids.unwrap_or((class_id, method_id));
            (exception, class_id, method_id)
        })?;
        let result = if channel == 0 {
            self.connection_method(engine, method)
        } else {
            self.channel_method(engine, channel, method)
        };
        self.soften(engine, channel, result, class_id, method_id)
    }

    /// Lets a soft error end its channel only.
    fn soften(
        &mut self,
        engine: &mut Engine,
        number: u16,
        result: Result<(), Exception>,
        class_id: u16,
        method_id: u16,
    ) -> Result<(), Failure> {
        let ids = result.as_ref().err().and_then(|exception| exception.ids);
        let (class_id, method_id) = ids.unwrap_or((class_id, method_id));
        match result {
            Ok(()) => Ok(()),
            Err(exception) if exception.hard || number == 0 => {
                Err((exception, class_id, method_id))
            }
            Err(exception) => {
                tracing::info!(channel = number, error = exception.text, "closing a channel");
                if let Some(Slot::Open { key, .. }) = self.slots.insert(number, Slot::Closing) {
                    engine.close_channel(key);
                }
                self.send(
                    engine,
                    number,
                    &channel::Close {
                        reply_code: exception.code.0,
                        reply_text: &exception.text,
                        class_id,
                        method_id,
                    },
                );
                Ok(())
            }
        }
    }

    /// Closes the connection for a fault of the client's.
    fn fail(&mut self, engine: &mut Engine, exception: &Exception, class_id: u16, method_id: u16) {
        if self.stage == Stage::Closing {
            return;
        }
        let name = method_name(class_id, method_id).unwrap_or("none");
        tracing::warn!(error = exception.text, method = name, "closing a connection");
        let clock = engine.clock;
        self.close_channels(engine);
        let Some(connection) = self.connection(engine) else { return };
        connection.close(exception, class_id, method_id, clock);
        self.stage = Stage::Closing;
    }
}

/// A method that is none, in RabbitMQ's words: the octets after its numbers.
fn undecodable(error: &DecodeError, payload: &[u8]) -> Exception {
    match error.reply_code() {
        _ if error.fault == Fault::NotUtf8 => {
            Exception::hard(ReplyCode::FRAME_ERROR, "Malformed UTF-8 in shortstr").at(0, 0)
        }
        ReplyCode::FRAME_ERROR => {
            let fields = erlang::octets(payload.get(4..).unwrap_or_default());
            Exception::hard(ReplyCode::FRAME_ERROR, format!("cannot decode {fields}"))
        }
        _ => error.clone().into(),
    }
}

/// A frame's type and payload as they came.
fn raw(frame: &Frame<'_>) -> (u8, Vec<u8>) {
    match *frame {
        Frame::Method { payload, .. } => (FRAME_METHOD, payload.to_vec()),
        Frame::Body { payload, .. } => (FRAME_BODY, payload.to_vec()),
        Frame::Heartbeat => (FRAME_HEARTBEAT, Vec::new()),
        Frame::Header { class_id, body_size, properties, .. } => {
            let parts =
                [&class_id.to_be_bytes()[..], &[0, 0], &body_size.to_be_bytes(), properties];
            (FRAME_HEADER, parts.concat())
        }
    }
}

fn method_ids(payload: &[u8]) -> (u16, u16) {
    match payload.first_chunk() {
        Some(&[a, b, c, d]) => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        None => (0, 0),
    }
}
