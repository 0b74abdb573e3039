//! One connection over a blocking socket: frames out, methods with their contents in.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use warren::amqp::frame::{self, Frame, FrameReader};
use warren::amqp::{BasicProperties, FieldValue};

use crate::methods::{Method, named, numbered};
use crate::patience;
use crate::values::{Value, show};

/// The channel on which a connection looks at queues and exchanges beside the case's own channels.
pub(crate) const LOOK: u16 = 1000;
/// The channel on which `publish` waits for its confirm.
pub(crate) const PUBLISH: u16 = 1001;

/// A method that came, with its content.
#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) channel: u16,
    pub(crate) method: &'static Method,
    pub(crate) fields: Vec<(&'static str, FieldValue)>,
    pub(crate) properties: Option<BasicProperties>,
    pub(crate) body: Vec<u8>,
    body_left: u64,
}

impl Received {
    pub(crate) fn field(&self, name: &str) -> &FieldValue {
        let found = self.fields.iter().find(|(field, _)| *field == name);
        found.map_or(&FieldValue::Void, |(_, value)| value)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.field(name).as_bytes().unwrap_or_default()).into_owned()
    }

    pub(crate) fn number(&self, name: &str) -> i64 {
        self.field(name).as_i64().unwrap_or_default()
    }

    /// As a step would expect it.
    pub(crate) fn show(&self) -> String {
        let mut text = format!("[{}] {}", self.channel, self.method.name);
        for (name, value) in self.fields.iter().filter(|(name, _)| !name.starts_with('_')) {
            text += &format!(" {name}={}", show(value));
        }
        if let Some(properties) = &self.properties {
            for (name, value) in property_values(properties) {
                text += &format!(" {name}={}", show(&value));
            }
            let body = &self.body[..self.body.len().min(200)];
            text += &format!(" body=\"{}\"", body.escape_ascii());
        }
        text
    }
}

/// A connection to the broker under test.
pub(crate) struct Wire {
    socket: TcpStream,
    reader: FrameReader,
    inbox: VecDeque<Received>,
    /// Contents that have not come whole, by channel.
    unfinished: HashMap<u16, Received>,
    /// Why nothing more comes.
    pub(crate) ended: Option<String>,
    /// The eight octets that a server writes which refuses the header.
    pub(crate) greeting: Vec<u8>,
    pub(crate) open: HashSet<u16>,
    /// Class and number of the last method sent, by channel; under 0 also of any channel.
    pub(crate) last_sent: HashMap<u16, (u16, u16)>,
    pub(crate) frame_max: u32,
    /// How many were published on [`PUBLISH`].
    pub(crate) published: i64,
    pub(crate) heartbeats: usize,
}

impl Wire {
    pub(crate) fn connect(address: &str) -> Result<Wire, String> {
        let socket = TcpStream::connect(address).map_err(|error| format!("{address}: {error}"))?;
        let _ = socket.set_nodelay(true);
        Ok(Wire {
            socket,
            reader: FrameReader::new(0),
            inbox: VecDeque::new(),
            unfinished: HashMap::new(),
            ended: None,
            greeting: Vec::new(),
            open: HashSet::new(),
            last_sent: HashMap::new(),
            frame_max: 131_072,
            published: 0,
            heartbeats: 0,
        })
    }

    /// Octets as they are. That the other side is gone is seen when reading.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    pub(crate) fn frame(&mut self, kind: u8, channel: u16, payload: &[u8], end: u8) {
        let mut out = frame::frame_header(kind, channel, payload.len() as u32).to_vec();
        out.extend_from_slice(payload);
        out.push(end);
        self.bytes(&out);
    }

    /// Sends a method, without content.
    pub(crate) fn method(
        &mut self,
        channel: u16,
        method: &Method,
        fields: &[(String, Value)],
    ) -> Result<(), String> {
        let payload = method.encode(fields)?;
        self.last_sent.insert(channel, (method.class, method.id));
        self.last_sent.insert(0, (method.class, method.id));
        self.frame(1, channel, &payload, 0xCE);
        Ok(())
    }

    pub(crate) fn content(&mut self, channel: u16, properties: &BasicProperties, body: &[u8]) {
        let (mut raw, mut out) = (Vec::new(), Vec::new());
        properties.encode(&mut raw);
        frame::write_content(&mut out, channel, 60, &raw, body, self.frame_max);
        self.bytes(&out);
    }

    /// Sends a method whose fields are texts, and waits for its answer.
    pub(crate) fn call(
        &mut self,
        channel: u16,
        name: &str,
        fields: &[(&str, &str)],
    ) -> Result<Received, String> {
        let method = named(name)?;
        let mut given = Vec::new();
        for (field, value) in fields {
            let quoted = format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
            let bare = value.parse::<i64>().is_ok() || matches!(*value, "true" | "false");
            given.push(((*field).to_owned(), Value::parse(if bare { value } else { &quoted })?));
        }
        self.method(channel, method, &given)?;
        let replies = method.replies();
        self.expect(channel, |got| replies.contains(&got.method.name))
            .map_err(|got| format!("{name} was answered by {got}"))
    }

    /// Opens a channel, unless it is open.
    pub(crate) fn open_channel(&mut self, channel: u16) -> Result<(), String> {
        if self.open.insert(channel) {
            self.call(channel, "channel.open", &[])?;
        }
        Ok(())
    }

    /// The next method on this channel that is `wanted`; what else comes stays. A close that is not wanted
    /// is an error, and so is the end of patience.
    pub(crate) fn expect(
        &mut self,
        channel: u16,
        wanted: impl Fn(&Received) -> bool,
    ) -> Result<Received, String> {
        let start = Instant::now();
        loop {
            let at = self.inbox.iter().position(|got| got.channel == channel && wanted(got));
            if let Some(at) = at {
                return Ok(self.inbox.remove(at).expect("found above"));
            }
            let closes = |got: &&Received| {
                (got.channel == channel && got.method.name == "channel.close")
                    || got.method.name == "connection.close"
            };
            if let Some(close) = self.inbox.iter().find(closes) {
                return Err(close.show());
            }
            if !self.read(start) {
                return Err(match &self.ended {
                    Some(how) => how.clone(),
                    None => format!("nothing in {} s{}", patience().as_secs(), self.waiting()),
                });
            }
        }
    }

    /// The very next method on this channel.
    pub(crate) fn next(&mut self, channel: u16) -> Result<Received, String> {
        self.expect(channel, |_| true)
    }

    /// What came on a channel and nobody asked for.
    pub(crate) fn waiting_on(&self, channel: u16) -> Vec<String> {
        self.inbox.iter().filter(|got| got.channel == channel).map(Received::show).collect()
    }

    fn waiting(&self) -> String {
        if self.inbox.is_empty() {
            return String::new();
        }
        let shown: Vec<String> = self.inbox.iter().take(5).map(Received::show).collect();
        format!("; not asked for: {}", shown.join("; "))
    }

    /// Forgets what came on a channel that is closed.
    pub(crate) fn forget(&mut self, channel: u16) {
        self.open.remove(&channel);
        self.inbox.retain(|got| got.channel != channel);
    }

    /// Waits for the end of the stream, or for something else.
    pub(crate) fn wait_end(&mut self) -> Result<(), String> {
        let start = Instant::now();
        while self.ended.is_none() {
            if !self.read(start) && self.ended.is_none() {
                return Err(format!("the connection is still there{}", self.waiting()));
            }
        }
        Ok(())
    }

    /// Reads once; `false`: nothing came in time, or nothing will.
    pub(crate) fn read(&mut self, start: Instant) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let left = patience().saturating_sub(start.elapsed());
        if left < Duration::from_millis(1) {
            return false;
        }
        let _ = self.socket.set_read_timeout(Some(left));
        let mut buffer = vec![0; 65536];
        match self.socket.read(&mut buffer) {
            Ok(0) => self.ended = Some("the end of the stream".into()),
            Ok(count) => self.feed(&buffer[..count]),
            Err(error) => {
                use std::io::ErrorKind as Kind;
                if !matches!(error.kind(), Kind::WouldBlock | Kind::TimedOut | Kind::Interrupted) {
                    self.ended = Some(format!("the end of the stream ({error})"));
                }
                return error.kind() == Kind::Interrupted;
            }
        }
        true
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        if bytes.starts_with(b"AMQP") && self.open.is_empty() {
            self.greeting = bytes.to_vec();
            return;
        }
        let mut reader = std::mem::take(&mut self.reader);
        loop {
            let outcome = match reader.next_frame(&mut bytes) {
                Ok(None) => break,
                Ok(Some(frame)) => self.take(frame),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = outcome {
                self.ended = Some(error);
                break;
            }
        }
        self.reader = reader;
    }

    fn take(&mut self, frame: Frame<'_>) -> Result<(), String> {
        let channel = frame.channel();
        match frame {
            Frame::Heartbeat => self.heartbeats += 1,
            Frame::Method { payload, .. } => {
                let (ids, fields) = payload.split_first_chunk::<4>().ok_or("a short method")?;
                let class = u16::from_be_bytes([ids[0], ids[1]]);
                let id = u16::from_be_bytes([ids[2], ids[3]]);
                let method =
                    numbered(class, id).ok_or(format!("a method {class}.{id} from the server"))?;
                let fields = method.decode(fields)?;
                let properties = None;
                let got =
                    Received { channel, method, fields, properties, body: vec![], body_left: 0 };
                if method.has_content() {
                    self.unfinished.insert(channel, got);
                } else {
                    self.inbox.push_back(got);
                }
            }
            Frame::Header { body_size, properties, .. } => {
                let mut got = self.unfinished.remove(&channel).ok_or("a header on its own")?;
                let decoded = BasicProperties::decode(properties);
                got.properties = Some(decoded.map_err(|error| error.to_string())?);
                got.body_left = body_size;
                self.finish(got);
            }
            Frame::Body { payload, .. } => {
                let mut got = self.unfinished.remove(&channel).ok_or("a body on its own")?;
                got.body.extend_from_slice(payload);
                got.body_left = got.body_left.saturating_sub(payload.len() as u64);
                self.finish(got);
            }
        }
        Ok(())
    }

    fn finish(&mut self, got: Received) {
        if got.body_left == 0 {
            self.inbox.push_back(got);
        } else {
            self.unfinished.insert(got.channel, got);
        }
    }

    /// The socket goes, without a word.
    pub(crate) fn drop_socket(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Both);
        self.ended = Some("dropped by the case".into());
    }
}

/// The properties that are there, by the names the language has for them.
pub(crate) fn property_values(properties: &BasicProperties) -> Vec<(&'static str, FieldValue)> {
    let text = |text: &Option<String>| text.as_deref().map(FieldValue::from);
    let octet = |octet: Option<u8>| octet.map(FieldValue::U8);
    let p = properties;
    let all = [
        ("content_type", text(&p.content_type)),
        ("content_encoding", text(&p.content_encoding)),
        ("headers", p.headers.clone().map(FieldValue::Table)),
        ("delivery_mode", octet(p.delivery_mode)),
        ("priority", octet(p.priority)),
        ("correlation_id", text(&p.correlation_id)),
        ("reply_to", text(&p.reply_to)),
        ("expiration", text(&p.expiration)),
        ("message_id", text(&p.message_id)),
        ("timestamp", p.timestamp.map(FieldValue::Timestamp)),
        ("type", text(&p.kind)),
        ("user_id", text(&p.user_id)),
        ("app_id", text(&p.app_id)),
        ("cluster_id", text(&p.cluster_id)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Sets a property by its name; `false`: there is none of that name.
pub(crate) fn set_property(
    properties: &mut BasicProperties,
    name: &str,
    value: &Value,
) -> Result<bool, String> {
    let text = || Some(String::from_utf8_lossy(&value.bytes()).into_owned());
    let number = || value.number().ok_or(format!("{name} is a number"));
    match name {
        "content_type" => properties.content_type = text(),
        "content_encoding" => properties.content_encoding = text(),
        "headers" => properties.headers = Some(value.to_table()),
        "delivery_mode" => properties.delivery_mode = Some(number()? as u8),
        "priority" => properties.priority = Some(number()? as u8),
        "correlation_id" => properties.correlation_id = text(),
        "reply_to" => properties.reply_to = text(),
        "expiration" => properties.expiration = text(),
        "message_id" => properties.message_id = text(),
        "timestamp" => properties.timestamp = Some(number()? as u64),
        "type" => properties.kind = text(),
        "user_id" => properties.user_id = text(),
        "app_id" => properties.app_id = text(),
        "cluster_id" => properties.cluster_id = text(),
        _ => return Ok(false),
    }
    Ok(true)
}
