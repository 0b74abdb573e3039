//! A connection with one channel, on a blocking socket.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use warren_amqp::constants::PROTOCOL_HEADER;
use warren_amqp::frame::{self, Frame, FrameReader};
use warren_amqp::method::{EncodeMethod, channel, connection};
use warren_amqp::{AmqpUri, FieldTable, Method};

use super::other;

/// Agreed with every server.
pub(crate) const FRAME_MAX: u32 = 131_072;

/// A connection with channel 1 open.
pub struct Client {
    stream: TcpStream,
    reader: FrameReader,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects, logs in, opens a channel.
    ///
    /// # Errors
    /// When the server cannot be reached, or answers otherwise than it should.
    pub fn open(url: &str) -> io::Result<Self> {
        let uri: AmqpUri = url.parse().map_err(other)?;
        let stream = TcpStream::connect((uri.host.as_str(), uri.port))?;
        stream.set_nodelay(true)?;
        let mut client =
            Self { stream, reader: FrameReader::new(FRAME_MAX), buffer: vec![0; 256 * 1024] };
        client.write(&PROTOCOL_HEADER)?;
        client.expect("connection.start")?;
        let response = format!("\0{}\0{}", uri.user, uri.password);
        client.send(
            0,
            &connection::StartOk {
                client_properties: FieldTable::new(),
                mechanism: "PLAIN",
                response: response.as_bytes(),
                locale: "en_US",
            },
        )?;
        client.expect("connection.tune")?;
        let agreed = connection::TuneOk { channel_max: 100, frame_max: FRAME_MAX, heartbeat: 0 };
        client.send(0, &agreed)?;
        client.send(0, &connection::Open { virtual_host: &uri.vhost })?;
        client.expect("connection.open-ok")?;
        client.call(&channel::Open {})?;
        Ok(client)
    }

    /// Sends a method on channel 1, and waits for the one that answers it.
    pub(crate) fn call(&mut self, method: &impl EncodeMethod) -> io::Result<()> {
        self.send(1, method)?;
        self.expect(&format!("{}-ok", method.info().name))
    }

    /// Writes requests that are encoded already, and waits for so many answers.
    pub(crate) fn calls(&mut self, requests: &[u8], count: usize) -> io::Result<()> {
        self.write(requests)?;
        let mut missing = count;
        while 0 < missing {
            self.methods(|method| missing -= usize::from(method.name().ends_with("-ok")))?;
        }
        Ok(())
    }

    fn send(&mut self, number: u16, method: &impl EncodeMethod) -> io::Result<()> {
        let mut out = Vec::new();
        frame::write_method(&mut out, number, method);
        self.write(&out)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads until a method of this name comes.
    fn expect(&mut self, name: &str) -> io::Result<()> {
        let mut found = false;
        while !found {
            self.methods(|method| found |= method.name() == name)?;
        }
        Ok(())
    }

    /// Reads once, and shows the methods that came. That the server closes is an error.
    pub(crate) fn methods(&mut self, mut each: impl FnMut(&Method<'_>)) -> io::Result<()> {
        let mut closed = None;
        self.read(|frame| {
            let Frame::Method { payload, .. } = frame else { return };
            match Method::decode(payload) {
                Ok(Method::ConnectionClose(close)) => closed = Some(close.reply_text.to_owned()),
                Ok(Method::ChannelClose(close)) => closed = Some(close.reply_text.to_owned()),
                Ok(method) => each(&method),
                Err(error) => closed = Some(error.to_string()),
            }
        })?;
        closed.map_or(Ok(()), |why| Err(other(why)))
    }

    /// Reads once, and shows the frames that came.
    pub(crate) fn read(&mut self, mut each: impl FnMut(Frame<'_>)) -> io::Result<()> {
        let count = self.stream.read(&mut self.buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.reader
            .feed(&self.buffer[..count], |frame| {
                each(frame);
                Ok::<(), warren_amqp::FrameError>(())
            })
            .map_err(other)
    }

    /// The socket once more: to write beside a thread that reads, and to end that by shutting it down.
    pub(crate) fn socket(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }
}
