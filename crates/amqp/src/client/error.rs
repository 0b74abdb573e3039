//! What can go wrong between client and server.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::options::Returned;
use crate::method::method_name;
use crate::{DecodeError, EncodeError, FrameError, ReplyCode, UriError};

/// The reason a channel or a connection was closed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Such as 404.
    pub code: ReplyCode,
    /// The server's own words.
    pub text: String,
    /// The class of the method at fault, or 0.
    pub class_id: u16,
    /// The method at fault, or 0.
    pub method_id: u16,
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code.0, self.text)?;
        match method_name(self.class_id, self.method_id) {
            Some(name) => write!(f, " (in answer to {name})"),
            None => Ok(()),
        }
    }
}

/// Why a call failed. A channel or connection that has failed answers every call with the same error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL cannot be read.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// No connection could be made.
    #[error("cannot connect to {addr}: {source}")]
    Connect {
        /// Host and port.
        addr: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(Arc<io::Error>),
    /// The server refused the login and hung up without a word, or is no AMQP server.
    #[error("{addr} hung up during the handshake: {step}")]
    Handshake {
        /// Host and port.
        addr: String,
        /// How far it had come.
        step: &'static str,
    },
    /// There is no URL.
    #[error("no URL names a server to connect to")]
    NoServer,
    /// None of the ways to log in that are wanted is among those that the server has.
    #[error(
        "the server offers the logins {offered}, of which {wanted} is none: see auth_mechanism of the URL"
    )]
    NoMechanism {
        /// What the URL allows.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// The server closed the channel.
    #[error("the server closed the channel: {0}")]
    ChannelClosed(Arc<Close>),
    /// The server closed the connection.
    #[error("the server closed the connection: {0}")]
    ConnectionClosed(Arc<Close>),
    /// We closed it.
    #[error("the channel or connection has been closed here")]
    Closed,
    /// The server has been silent for two heartbeat intervals.
    #[error("missed heartbeats from the server, {0} s apart")]
    HeartbeatMissed(u16),
    /// What the server sent is no AMQP.
    #[error("the server sent a bad frame: {0}")]
    Frame(#[from] FrameError),
    /// What the server sent is no AMQP.
    #[error("the server sent a bad method: {0}")]
    Decode(#[from] DecodeError),
    /// The server sent something else than the answer.
    #[error("the server sent {got} where {wanted} was expected")]
    Unexpected {
        /// What came.
        got: &'static str,
        /// What should have come.
        wanted: &'static str,
    },
    /// A name or key is too long.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The server refused messages that were to be confirmed.
    #[error("the server refused {0} of the messages published")]
    Nacked(u64),
    /// No queue took a mandatory message.
    #[error("no queue took a message for exchange '{}' with routing key '{}': {} {}", .0.exchange, .0.routing_key, .0.code.0, .0.text)]
    Returned(Arc<Returned>),
    /// No answer within the time given.
    #[error("timed out")]
    TimedOut,
    /// All channel numbers are in use.
    #[error("all {0} channels of the connection are in use")]
    NoChannel(u16),
}

impl Error {
    /// The server's reason, if it gave one.
    pub fn close(&self) -> Option<&Close> {
        match self {
            Self::ChannelClosed(close) | Self::ConnectionClosed(close) => Some(close),
            _ => None,
        }
    }

    /// The server's reply code, such as 404, if it gave one.
    pub fn code(&self) -> Option<ReplyCode> {
        self.close().map(|close| close.code)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
