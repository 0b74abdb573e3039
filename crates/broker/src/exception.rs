//! What a client did wrong: the code and the text it is told, in RabbitMQ's words.

use warren_amqp::constants::{FRAME_HEARTBEAT, SHORT_STRING_MAX};
use warren_amqp::{DecodeError, FrameError, ReplyCode};

use crate::erlang;
use crate::vhost::VhostRef;

/// Ends a channel, or the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exception {
    pub(crate) code: ReplyCode,
    /// With the code's name in front, as it is sent.
    pub(crate) text: String,
    /// Whether the whole connection ends.
    pub(crate) hard: bool,
    /// Class and method at fault, where it is not the method being handled.
    pub(crate) ids: Option<(u16, u16)>,
}

impl Exception {
    /// An error with the scope that its code has (§1.2 of the reference: soft or hard).
    pub(crate) fn new(code: ReplyCode, detail: impl AsRef<str>) -> Self {
        let text = shortened(code.text(detail.as_ref()));
        Self { code, text, hard: code.is_connection_error(), ids: None }
    }

    /// An error that ends the connection whatever its code.
    pub(crate) fn hard(code: ReplyCode, detail: impl AsRef<str>) -> Self {
        Self { hard: true, ..Self::new(code, detail) }
    }

    /// The same, with another class and method at fault.
    pub(crate) fn at(self, class_id: u16, method_id: u16) -> Self {
        Self { ids: Some((class_id, method_id)), ..self }
    }

    pub(crate) fn not_found(kind: &str, name: &str, vhost: &VhostRef) -> Self {
        Self::new(ReplyCode::NOT_FOUND, format!("no {}", resource(kind, name, vhost)))
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
    pub(crate) fn inequivalent(argument: &str, what: &str, difference: &str) -> Self {
        Self::precondition(format!("inequivalent arg '{argument}' for {what}: {difference}"))
    }
}

/// A reply text is a short string. What does not fit is cut as RabbitMQ cuts it.
fn shortened(mut text: String) -> String {
    const MORE: &str = "...";
    if SHORT_STRING_MAX < text.len() {
        let fits = (0..=SHORT_STRING_MAX - MORE.len()).rev();
        let end = fits.into_iter().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push_str(MORE);
    }
    text
}

/// `queue 'tasks' in vhost '/'`.
pub(crate) fn resource(kind: &str, name: &str, vhost: &VhostRef) -> String {
    format!("{kind} '{name}' in vhost '{}'", vhost.name)
}

impl From<FrameError> for Exception {
    fn from(error: FrameError) -> Self {
        let text = match &error {
            FrameError::TooLarge { kind, payload_bytes, payload_bytes_max, .. } => format!(
                "{}: {{frame_too_large,{payload_bytes},{payload_bytes_max}}}",
                erlang::frame(*kind, &[])
            ),
            FrameError::UnknownType { kind, snippet, .. } => {
                format!("{}: unknown_frame", erlang::frame(*kind, snippet))
            }
            FrameError::BadEnd { kind, end, snippet, .. } => {
                format!("{}: {{invalid_frame_end_marker,{end}}}", erlang::frame(*kind, snippet))
            }
            FrameError::BadHeartbeat { payload_bytes: 0, .. } => {
                erlang::frame(FRAME_HEARTBEAT, &[])
            }
            other => other.to_string(),
        };
        Self::hard(error.reply_code(), text)
    }
}

impl From<DecodeError> for Exception {
    fn from(error: DecodeError) -> Self {
        Self::hard(error.reply_code(), error.to_string())
    }
}
