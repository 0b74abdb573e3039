//! Numbers of the protocol: frame types, limits, reply codes (AMQP 0-9-1 §1.2 of the reference).

use std::fmt;

/// What a client sends first: `AMQP`, 0, and the version 0-9-1. A server that cannot speak the version
/// asked for answers with this and closes (§4.2.2).
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// Frame type of a method.
pub const FRAME_METHOD: u8 = 1;
/// Frame type of a content header.
pub const FRAME_HEADER: u8 = 2;
/// Frame type of a piece of a content body.
pub const FRAME_BODY: u8 = 3;
/// Frame type of a heartbeat.
pub const FRAME_HEARTBEAT: u8 = 8;
/// The octet after each frame's payload; anything else means that the two sides lost step.
pub const FRAME_END: u8 = 0xCE;

/// Octets of a frame beside its payload: type 1, channel 2, size 4, end 1. `frame_max` includes them.
pub const FRAME_OVERHEAD: usize = 8;
/// The smallest `frame_max` that may be negotiated, in octets (§1.2, frame-min-size).
pub const FRAME_MIN_SIZE: u32 = 4096;
/// The largest frame taken before `connection.tune-ok`, in octets. The specification says 4096; RabbitMQ
/// raised it to 8192 because large tokens as passwords did not fit.
pub const FRAME_MAX_BEFORE_TUNING: u32 = 8192;
/// What RabbitMQ proposes as `frame_max`, in octets.
pub const DEFAULT_FRAME_MAX: u32 = 131_072;
/// What RabbitMQ proposes as `channel_max`.
pub const DEFAULT_CHANNEL_MAX: u16 = 2047;
/// What RabbitMQ proposes as heartbeat, in seconds.
pub const DEFAULT_HEARTBEAT_S: u16 = 60;
/// The port of `amqp://`.
pub const DEFAULT_PORT: u16 = 5672;
/// The port of `amqps://`.
pub const DEFAULT_TLS_PORT: u16 = 5671;
/// The longest short string, in octets: its length is one octet.
pub const SHORT_STRING_MAX: usize = 255;

/// Class of `basic`, the only one whose methods carry content.
pub const CLASS_BASIC: u16 = 60;

/// A reply code of `channel.close`, `connection.close` or `basic.return`.
///
/// Any number may come from a peer, so this is a number with names, not an enumeration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyCode(pub u16);

macro_rules! reply_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal $scope:ident;)*) => {
        impl ReplyCode {
            $($(#[$doc])* pub const $name: ReplyCode = ReplyCode($code);)*

            /// The name as RabbitMQ prints it in a reply text, such as `NOT_FOUND`.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 { $($code => Some(stringify!($name)),)* _ => None }
            }

            /// Does this code end the whole connection rather than one channel? Unknown codes do.
            pub const fn is_connection_error(self) -> bool {
                match self.0 { $($code => reply_codes!(@ $scope),)* _ => true }
            }
        }
    };
    (@ connection) => { true };
    (@ channel) => { false };
    (@ success) => { false };
}

reply_codes! {
    /// Everything went well.
    REPLY_SUCCESS = 200 success;
    /// The content is larger than the peer accepts now.
    CONTENT_TOO_LARGE = 311 channel;
    /// A mandatory message reached no queue.
    NO_ROUTE = 312 channel;
    /// An immediate message found no ready consumer.
    NO_CONSUMERS = 313 channel;
    /// An operator or the server's shutdown ended the connection.
    CONNECTION_FORCED = 320 connection;
    /// An unknown virtual host.
    INVALID_PATH = 402 connection;
    /// The user may not do this, or the password is wrong.
    ACCESS_REFUSED = 403 channel;
    /// No such exchange, queue or virtual host.
    NOT_FOUND = 404 channel;
    /// Another connection owns the exclusive queue.
    RESOURCE_LOCKED = 405 channel;
    /// Something is not as the method requires: arguments, delivery tags, modes.
    PRECONDITION_FAILED = 406 channel;
    /// A malformed frame.
    FRAME_ERROR = 501 connection;
    /// A field with a value that cannot be.
    SYNTAX_ERROR = 502 connection;
    /// A method that is not allowed here, or an unknown exchange type.
    COMMAND_INVALID = 503 connection;
    /// A method on a channel that is not open.
    CHANNEL_ERROR = 504 connection;
    /// A frame that was not expected here, such as a body without a header.
    UNEXPECTED_FRAME = 505 connection;
    /// A limit of the server.
    RESOURCE_ERROR = 506 connection;
    /// Refused by policy: virtual host, limits, reused consumer tag.
    NOT_ALLOWED = 530 connection;
    /// The server does not have this.
    NOT_IMPLEMENTED = 540 connection;
    /// The server failed.
    INTERNAL_ERROR = 541 connection;
}

impl ReplyCode {
    /// The reply text in RabbitMQ's form: `NOT_FOUND - no queue 'x' in vhost '/'`.
    pub fn text(self, detail: &str) -> String {
        match self.name() {
            Some(name) => format!("{name} - {detail}"),
            None => detail.to_owned(),
        }
    }
}

impl fmt::Debug for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} {name}", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

impl From<ReplyCode> for u16 {
    fn from(code: ReplyCode) -> u16 {
        code.0
    }
}

impl From<u16> for ReplyCode {
    fn from(code: u16) -> ReplyCode {
        ReplyCode(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_know_their_names_and_scopes() {
        assert_eq!(ReplyCode::NOT_FOUND.text("no queue 'q'"), "NOT_FOUND - no queue 'q'");
        assert_eq!(ReplyCode(406).to_string(), "406 PRECONDITION_FAILED");
        assert_eq!(ReplyCode(999).to_string(), "999");
        assert!(!ReplyCode::RESOURCE_LOCKED.is_connection_error());
        assert!(ReplyCode::NOT_ALLOWED.is_connection_error());
        assert!(ReplyCode(999).is_connection_error());
    }
}
