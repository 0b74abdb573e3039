//! From a fresh socket to an open virtual host.

use std::io::{Read, Write};
use std::sync::Arc;

use super::error::{Close, Error};
use super::stream::Stream;
use crate::constants::{DEFAULT_FRAME_MAX, PROTOCOL_HEADER};
use crate::frame::{self, Frame, FrameReader};
use crate::method::{EncodeMethod, connection};
use crate::{AmqpUri, FieldTable, Method};

/// What a server says first.
const GREETING: &str = "connection.start";
/// How a server that expects TLS begins its answer to something else (RFC 8446 §5.1): no type of a frame.
const TLS_ALERT: u8 = 21;

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
    stream: &'a Stream,
    reader: FrameReader,
    /// Bytes read and not used yet.
    data: Vec<u8>,
    uri: &'a AmqpUri,
}

/// Logs in and opens the virtual host.
pub(super) fn handshake(stream: &Stream, uri: &AmqpUri) -> Result<Tuned, Error> {
    let mut handshake = Handshake { stream, reader: FrameReader::default(), data: Vec::new(), uri };
    handshake.write(&PROTOCOL_HEADER)?;
    let (server_properties, offered) =
        handshake.receive("no greeting", GREETING, |method| match method {
            Method::ConnectionStart(start) => {
                Some((start.server_properties, start.mechanisms.to_vec()))
            }
            _ => None,
        })?;
    handshake.log_in(&offered)?;
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
    fn log_in(&mut self, offered: &[u8]) -> Result<(), Error> {
        let Some((mechanism, response)) = self.uri.sasl(offered) else {
            let ours = self.uri.auth_mechanisms.iter().map(|mechanism| mechanism.name());
            return Err(Error::NoMechanism {
                wanted: ours.collect::<Vec<_>>().join(" "),
                offered: String::from_utf8_lossy(offered).into_owned(),
            });
        };
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
        let mut client_properties = FieldTable::new()
            .with("product", "Warren client")
            .with("version", env!("CARGO_PKG_VERSION"))
            .with("platform", "Rust")
            .with("capabilities", capabilities);
        if let Some(name) = &self.uri.connection_name {
            client_properties.push("connection_name", name.as_str());
        }
        self.send(&connection::StartOk {
            client_properties,
            mechanism: mechanism.name(),
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
            if wanted == GREETING && buffer[0] == TLS_ALERT {
                let addr = format!("{}:{}", self.uri.host, self.uri.port);
                return Err(Error::Handshake {
                    addr,
                    step: "it speaks TLS here: use an amqps:// URL",
                });
            }
            self.data.extend_from_slice(&buffer[..count]);
        }
    }
}
