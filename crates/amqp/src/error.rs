//! What can be wrong with bytes from outside, and with values that do not fit on the wire.

use thiserror::Error;

use crate::constants::ReplyCode;

/// Bytes that are no method, no table, no properties: what was being read, which field, and the fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{within}: {field}: {fault}")]
pub struct DecodeError {
    /// What was being decoded: a method's name such as `queue.declare`, `basic properties`, `field table`.
    pub within: &'static str,
    /// The field at which it went wrong.
    pub field: &'static str,
    /// What was wrong with it.
    pub fault: Fault,
}

/// What was wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// The bytes end within the field.
    #[error("{needed} bytes are needed and {left} are left")]
    Truncated {
        /// How many bytes the field takes.
        needed: usize,
        /// How many there are.
        left: usize,
    },
    /// A short string, a name or a key that is not UTF-8.
    #[error("malformed UTF-8 in a short string")]
    NotUtf8,
    /// A type octet that RabbitMQ does not know.
    #[error("unknown field type {0:#04x}")]
    UnknownFieldType(u8),
    /// Tables and arrays within one another beyond [`NESTING_MAX`](crate::value::NESTING_MAX).
    #[error("tables and arrays nested deeper than {max}")]
    NestedTooDeep {
        /// The limit.
        max: usize,
    },
    /// Bytes after the last field.
    #[error("{0} bytes too many")]
    TrailingBytes(usize),
    /// No method has these numbers.
    #[error("there is no method {method_id} in class {class_id}")]
    UnknownMethod {
        /// The class asked for.
        class_id: u16,
        /// The method asked for.
        method_id: u16,
    },
    /// Property flags that stand for no property.
    #[error("property flags {0:#06x} name properties that do not exist")]
    UnknownPropertyFlags(u16),
}

impl DecodeError {
    /// The code with which the connection is to be closed.
    ///
    /// RabbitMQ answers 501 FRAME_ERROR to anything it cannot decode, malformed UTF-8 in short strings
    /// included (`rabbit_binary_parser:assert_utf8`), although the specification has 502 for fields.
    pub fn reply_code(&self) -> ReplyCode {
        match self.fault {
            Fault::UnknownMethod { .. } => ReplyCode::NOT_IMPLEMENTED,
            _ => ReplyCode::FRAME_ERROR,
        }
    }
}

/// A value that has no place on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A short string (names, routing keys, tags, table keys) longer than its length octet can say.
    #[error("{within}: {field} has {bytes} bytes; a short string holds at most 255")]
    ShortStringTooLong {
        /// The method or structure.
        within: &'static str,
        /// The field.
        field: &'static str,
        /// How long it is.
        bytes: usize,
    },
}
