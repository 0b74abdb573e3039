//! AMQP 0-9-1: the wire format as RabbitMQ speaks it, and a client on fibers that reads as blocking code.
//!
//! The codec does no I/O and knows no clock, so one and the same code serves the broker, the client, the
//! fuzzer and the tests. From the bottom up:
//!
//! | module | what |
//! |---|---|
//! | [`constants`] | frame types, reply codes, limits |
//! | [`value`] | field tables and their values |
//! | [`method`](mod@method) | every method, declared once in one table |
//! | [`properties`] | the fourteen properties of a content header |
//! | [`frame`] | frames cut out of a byte stream, and written |
//! | [`uri`] | `amqp://user:pass@host:port/vhost` |
//! | [`client`] | connections, channels, consumers |
//!
//! Decoding borrows: a method's strings point into the frame's payload, and only a field table that is
//! not empty allocates. Nothing here panics on bytes from outside; errors say which field of which method
//! was wrong, and which reply code the peer is to be told.

pub mod client;
pub mod constants;
mod error;
pub mod frame;
pub mod method;
pub mod properties;
pub mod uri;
pub mod value;
mod wire;

pub use constants::ReplyCode;
pub use error::{DecodeError, EncodeError, Fault};
pub use frame::{Frame, FrameError, FrameReader};
pub use method::Method;
pub use properties::{BasicProperties, RawProperties};
pub use uri::{AmqpUri, UriError};
pub use value::{FieldTable, FieldValue};
