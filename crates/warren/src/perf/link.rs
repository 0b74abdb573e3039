//! A connection to the server: set up by calls that block, then read and written as the loop of a worker wants it.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustls::ClientConfig;
use warren_amqp::constants::PROTOCOL_HEADER;
use warren_amqp::frame::{self, Frame, FrameReader};
use warren_amqp::method::{EncodeMethod, connection, exchange, queue};
use warren_amqp::{AmqpUri, FieldTable, Method};

use super::plan::Plan;
use super::socket::Socket;

/// How long a server may take to say goodbye.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What a connection says of itself and wants.
pub(super) struct Greeting {
    pub(super) name: String,
    pub(super) frame_max: u32,
    pub(super) heartbeat: u16,
}

pub(super) struct Link {
    pub(super) socket: Socket,
    pub(super) reader: FrameReader,
    /// What is to be written, from `written` on.
    pub(super) out: Vec<u8>,
    written: usize,
    pub(super) frame_max: u32,
}

impl Link {
    /// Connection `index` of a run. Blocks.
    pub(super) fn open(plan: &Plan, index: usize) -> Result<Self> {
        let options = &plan.options;
        let greeting = Greeting {
            name: format!("{} {index}", plan.id),
            frame_max: options.framemax,
            heartbeat: options.heartbeat,
        };
        Self::connect(plan.server(index), plan.tls.as_ref(), &greeting)
    }

    /// Connects, logs in and opens the virtual host. Blocks.
    pub(super) fn connect(
        uri: &AmqpUri,
        tls: Option<&Arc<ClientConfig>>,
        greeting: &Greeting,
    ) -> Result<Self> {
        let place = || format!("cannot connect to {}:{}", uri.host, uri.port);
        let socket = Socket::connect(uri, tls).with_context(place)?;
        let mut link = Self {
            socket,
            reader: FrameReader::default(),
            out: Vec::new(),
            written: 0,
            frame_max: 0,
        };
        link.shake_hands(uri, greeting).with_context(place)?;
        Ok(link)
    }

    fn shake_hands(&mut self, uri: &AmqpUri, greeting: &Greeting) -> Result<()> {
        self.socket.write_all(&PROTOCOL_HEADER)?;
        let login = self.expect("connection.start", |method| match method {
            Method::ConnectionStart(start) => uri.sasl(start.mechanisms),
            _ => None,
        })?;
        let (mechanism, response) =
            login.context("the server offers no login that the URL allows")?;
        let capabilities = [
            "authentication_failure_close",
            "basic.nack",
            "connection.blocked",
            "consumer_cancel_notify",
            "publisher_confirms",
        ];
        let capabilities =
            capabilities.into_iter().fold(FieldTable::new(), |table, name| table.with(name, true));
        let client_properties = FieldTable::new()
            .with("product", "warren perf")
            .with("version", env!("CARGO_PKG_VERSION"))
            .with("connection_name", greeting.name.as_str())
            .with("capabilities", capabilities);
        let mechanism = mechanism.name();
        let locale = "en_US";
        self.send(
            0,
            &connection::StartOk { client_properties, mechanism, response: &response, locale },
        )?;
        let (channel_max, frame_max) = self.expect("connection.tune", |method| match method {
            Method::ConnectionTune(tune) => (tune.channel_max, tune.frame_max),
            _ => (0, 0),
        })?;
        let wanted = greeting.frame_max;
        let frame_max = if frame_max == 0 { wanted } else { wanted.min(frame_max) };
        let heartbeat = greeting.heartbeat;
        self.send(0, &connection::TuneOk { channel_max, frame_max, heartbeat })?;
        self.send(0, &connection::Open { virtual_host: &uri.vhost })?;
        self.expect("connection.open-ok", |_| ())?;
        self.frame_max = frame_max;
        self.reader.set_frame_max(frame_max);
        Ok(())
    }

    fn send(&mut self, channel: u16, method: &impl EncodeMethod) -> Result<()> {
        method.check()?;
        let mut out = Vec::new();
        frame::write_method(&mut out, channel, method);
        Ok(self.socket.write_all(&out)?)
    }

    /// Sends a method and waits for its answer. Blocks; nothing else may be on its way to us.
    pub(super) fn call(
        &mut self,
        channel: u16,
        method: &impl EncodeMethod,
        answer: &str,
    ) -> Result<()> {
        self.send(channel, method)?;
        self.expect(answer, |_| ()).with_context(|| format!("{} failed", method.info().name))
    }

    fn expect<T>(&mut self, name: &str, pick: impl Fn(Method<'_>) -> T) -> Result<T> {
        let mut buffer = [0; 4096];
        loop {
            let count = match self.socket.read(&mut buffer) {
                Ok(0) => bail!("the server hung up before {name}"),
                Err(error) if is_pending(&error) => bail!("the server did not send {name} in time"),
                count => count?,
            };
            let mut data = &buffer[..count];
            let mut picked = None;
            while let Some(frame) = self.reader.next_frame(&mut data)? {
                let Frame::Method { payload, .. } = frame else { continue };
                match Method::decode(payload)? {
                    method if method.name() == name => picked = Some(pick(method)),
                    method => refusal(&method)?,
                }
            }
            if let Some(picked) = picked {
                return Ok(picked);
            }
        }
    }

    /// Messages that are ready in a queue. Blocks.
    pub(super) fn ready(&mut self, channel: u16, queue: &str) -> Result<u32> {
        let declare = queue::Declare { queue, passive: true, ..queue::Declare::default() };
        self.send(channel, &declare)?;
        self.expect("queue.declare-ok", |method| match method {
            Method::QueueDeclareOk(answer) => answer.message_count,
            _ => 0,
        })
    }

    /// Declares the exchange, these queues and their bindings. Blocks.
    pub(super) fn declare(&mut self, plan: &Plan, channel: u16, queues: &[usize]) -> Result<()> {
        let options = &plan.options;
        if options.predeclared {
            return Ok(());
        }
        if let Some(kind) = &plan.kind {
            let declare = exchange::Declare {
                exchange: &plan.exchange,
                kind,
                durable: plan.durable,
                auto_delete: plan.auto_delete,
                ..exchange::Declare::default()
            };
            self.call(channel, &declare, "exchange.declare-ok")?;
        }
        for &index in queues {
            let name = &plan.queues[index];
            let declare = queue::Declare {
                queue: name,
                durable: plan.durable,
                auto_delete: plan.auto_delete,
                arguments: plan.queue_arguments.clone(),
                ..queue::Declare::default()
            };
            self.call(channel, &declare, "queue.declare-ok")?;
            if !plan.exchange.is_empty() && !options.skip_binding_queues {
                let key = plan.binding_key(index);
                let bind = queue::Bind {
                    queue: name,
                    exchange: &plan.exchange,
                    routing_key: &key,
                    ..queue::Bind::default()
                };
                self.call(channel, &bind, "queue.bind-ok")?;
            }
        }
        Ok(())
    }

    /// Deletes what [`declare`](Self::declare) has declared. Blocks.
    pub(super) fn delete(&mut self, plan: &Plan, channel: u16) -> Result<()> {
        for name in &plan.queues {
            let delete = queue::Delete { queue: name, ..queue::Delete::default() };
            self.call(channel, &delete, "queue.delete-ok")?;
        }
        if plan.kind.is_some() {
            let delete =
                exchange::Delete { exchange: &plan.exchange, ..exchange::Delete::default() };
            self.call(channel, &delete, "exchange.delete-ok")?;
        }
        Ok(())
    }

    /// Writes what there is to write. Gives whether nothing is left.
    pub(super) fn flush(&mut self) -> std::io::Result<bool> {
        while self.written < self.out.len() {
            match self.socket.write(&self.out[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        self.socket.flush_held()
    }

    /// Says goodbye and waits for the answer, for a while. Blocks.
    pub(super) fn close(mut self) {
        let close =
            connection::Close { reply_code: 200, reply_text: "Goodbye", class_id: 0, method_id: 0 };
        frame::write_method(&mut self.out, 0, &close);
        let goodbye = || -> Result<()> {
            self.socket.set_nonblocking(false)?;
            self.socket.set_read_timeout(CLOSE_PATIENCE)?;
            self.flush()?;
            let mut buffer = vec![0; 64 * 1024];
            loop {
                let count = self.socket.read(&mut buffer)?;
                let mut data = &buffer[..count];
                while let Some(frame) = self.reader.next_frame(&mut data)? {
                    if let Frame::Method { channel: 0, payload } = frame
                        && matches!(Method::decode(payload)?, Method::ConnectionCloseOk(_))
                    {
                        return Ok(());
                    }
                }
                if count == 0 {
                    return Ok(());
                }
            }
        };
        // Whatever it says: the run is over.
        let mut goodbye = goodbye;
        let _ = goodbye();
    }
}

/// Whether a read or write would have blocked.
pub(super) fn is_pending(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The error, if a method closes the connection or a channel.
pub(super) fn refusal(method: &Method<'_>) -> Result<()> {
    match method {
        Method::ConnectionClose(close) => Err(anyhow!(
            "the server closed the connection: {} {}",
            close.reply_code,
            close.reply_text
        )),
        Method::ChannelClose(close) => {
            Err(anyhow!("the server closed the channel: {} {}", close.reply_code, close.reply_text))
        }
        _ => Ok(()),
    }
}
