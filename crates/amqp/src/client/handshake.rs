//! From a fresh socket to an open virtual host.

use std::io::{Read, Write};
use std::sync::Arc;

use warren_hub::net::TcpStream;

use super::error::{Close, Error};
use crate::constants::{DEFAULT_FRAME_MAX, PROTOCOL_HEADER};
use crate::frame::{self, Frame, FrameReader};
use crate::method::{EncodeMethod, connection};
use crate::uri::AuthMechanism;
use crate::{AmqpUri, FieldTable, Method};

/// What both sides have agreed on.
pub(super) struct Tuned {
    pub(super) channel_max: u16,
    pub(super) frame_max: u32,
    /// Seconds; 0: none.
    pub(super) heartbeat: u16,
    pub(super) reader: FrameReader,
    pub(super) server_properties: FieldTable,
}

struct Handshake<'a> {
    stream: &'a TcpStream,
    reader: FrameReader,
    /// Bytes read and not used yet.
    data: Vec<u8>,
    uri: &'a AmqpUri,
}

/// Logs in and opens the virtual host.
pub(super) fn handshake(stream: &TcpStream, uri: &AmqpUri) -> Result<Tuned, Error> {
    let mut handshake = Handshake { stream, reader: FrameReader::default(), data: Vec::new(), uri };
    handshake.write(&PROTOCOL_HEADER)?;
    let server_properties =
        handshake.receive("no greeting", "connection.start", |method| match method {
            Method::ConnectionStart(start) => Some(start.server_properties),
            _ => None,
        })?;
    handshake.log_in()?;
    let tune =
        handshake.receive("the login was refused", "connection.tune", |method| match method {
            Method::ConnectionTune(tune) => Some(tune),
            _ => None,
        })?;
    let channel_max = agree(tune.channel_max, uri.channel_max.unwrap_or(0));
    let channel_max = if channel_max == 0 { u16::MAX } else { channel_max };
    let frame_max = match agree(tune.frame_max, uri.frame_max.unwrap_or(0)) {
        0 => DEFAULT_FRAME_MAX,
        agreed => agreed,
    };
    // A heartbeat of 0 asked for is none; otherwise the server's, or what is less.
    let heartbeat = match uri.heartbeat {
        Some(0) => 0,
        wanted => agree(tune.heartbeat, wanted.unwrap_or(0)),
    };
    handshake.send(&connection::TuneOk { channel_max, frame_max, heartbeat })?;
    handshake.send(&connection::Open { virtual_host: &uri.vhost })?;
    handshake.reader.set_frame_max(frame_max);
    handshake.receive("the virtual host was refused", "connection.open-ok", |method| {
        matches!(method, Method::ConnectionOpenOk(_)).then_some(())
    })?;
    Ok(Tuned { channel_max, frame_max, heartbeat, reader: handshake.reader, server_properties })
}

/// The lesser of two limits, where 0 is none.
fn agree<T: Ord + Default + Copy>(server: T, client: T) -> T {
    let none = T::default();
    if server == none || client == none { server.max(client) } else { server.min(client) }
}

impl Handshake<'_> {
    fn log_in(&mut self) -> Result<(), Error> {
        let capabilities = [
            "authentication_failure_close",
            "basic.nack",
            "connection.blocked",
            "consumer_cancel_notify",
            "exchange_exchange_bindings",
            "publisher_confirms",
        ];
        let capabilities =
            capabilities.into_iter().fold(FieldTable::new(), |table, name| table.with(name, true));
        let client_properties = FieldTable::new()
            .with("product", "Warren client")
            .with("version", env!("CARGO_PKG_VERSION"))
            .with("platform", "Rust")
            .with("capabilities", capabilities);
        let (user, password) = (&self.uri.user, &self.uri.password);
        let (mechanism, response) = match self.uri.auth_mechanism {
            AuthMechanism::AmqPlain => {
                let mut table = Vec::new();
                let credentials = FieldTable::new()
                    .with("LOGIN", user.as_str())
                    .with("PASSWORD", password.as_str());
                credentials.encode(&mut table);
                ("AMQPLAIN", table[4..].to_vec())
            }
            _ => ("PLAIN", format!("\0{user}\0{password}").into_bytes()),
        };
        self.send(&connection::StartOk {
            client_properties,
            mechanism,
            response: &response,
            locale: "en_US",
        })
    }

    fn send(&mut self, method: &impl EncodeMethod) -> Result<(), Error> {
        method.check()?;
        let mut out = Vec::new();
        frame::write_method(&mut out, 0, method);
        self.write(&out)
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        Ok((&*self.stream).write_all(data)?)
    }

    /// Waits for a method, of which `pick` takes what matters.
    fn receive<T>(
        &mut self,
        step: &'static str,
        wanted: &'static str,
        mut pick: impl FnMut(Method<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        loop {
            let mut data = &self.data[..];
            while let Some(frame) = self.reader.next_frame(&mut data)? {
                let Frame::Method { payload, .. } = frame else { continue };
                let method = Method::decode(payload)?;
                let got = method.name();
                if let Method::ConnectionClose(close) = method {
                    return Err(Error::ConnectionClosed(Arc::new(Close {
                        code: close.reply_code.into(),
                        text: close.reply_text.to_owned(),
                        class_id: close.class_id,
                        method_id: close.method_id,
                    })));
                }
                let picked = pick(method).ok_or(Error::Unexpected { got, wanted })?;
                self.data = data.to_vec();
                return Ok(picked);
            }
            self.data.clear();
            let mut buffer = [0; 4096];
            let count = match (&*self.stream).read(&mut buffer) {
                Ok(0) | Err(_) => {
                    let addr = format!("{}:{}", self.uri.host, self.uri.port);
                    return Err(Error::Handshake { addr, step });
                }
                Ok(count) => count,
            };
            self.data.extend_from_slice(&buffer[..count]);
        }
    }
}
