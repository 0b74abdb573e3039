//! What a client did wrong: the code and the text it is told, in RabbitMQ's words.

use warren_amqp::{DecodeError, FrameError, ReplyCode};

/// Ends a channel, or the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exception {
    pub(crate) code: ReplyCode,
    /// With the code's name in front, as it is sent.
    pub(crate) text: String,
    /// Whether the whole connection ends.
    pub(crate) hard: bool,
}

impl Exception {
    /// An error with the scope that its code has (§1.2 of the reference: soft or hard).
    pub(crate) fn new(code: ReplyCode, detail: impl AsRef<str>) -> Self {
        Self { code, text: code.text(detail.as_ref()), hard: code.is_connection_error() }
    }

    /// An error that ends the connection whatever its code.
    pub(crate) fn hard(code: ReplyCode, detail: impl AsRef<str>) -> Self {
        Self { hard: true, ..Self::new(code, detail) }
    }

    pub(crate) fn not_found(kind: &str, name: &str) -> Self {
        Self::new(ReplyCode::NOT_FOUND, format!("no {}", resource(kind, name)))
    }

    pub(crate) fn precondition(detail: impl AsRef<str>) -> Self {
        Self::new(ReplyCode::PRECONDITION_FAILED, detail)
    }

    pub(crate) fn refused(detail: impl AsRef<str>) -> Self {
        Self::new(ReplyCode::ACCESS_REFUSED, detail)
    }

    pub(crate) fn not_implemented(detail: impl AsRef<str>) -> Self {
        Self::new(ReplyCode::NOT_IMPLEMENTED, detail)
    }

    /// Something was declared again, and differently.
    pub(crate) fn inequivalent(argument: &str, kind: &str, name: &str, difference: &str) -> Self {
        let what = resource(kind, name);
        Self::precondition(format!("inequivalent arg '{argument}' for {what}: {difference}"))
    }
}

/// `queue 'tasks' in vhost '/'`.
pub(crate) fn resource(kind: &str, name: &str) -> String {
    format!("{kind} '{name}' in vhost '/'")
}

impl From<FrameError> for Exception {
    fn from(error: FrameError) -> Self {
        Self::hard(error.reply_code(), error.to_string())
    }
}

impl From<DecodeError> for Exception {
    fn from(error: DecodeError) -> Self {
        Self::hard(error.reply_code(), error.to_string())
    }
}
