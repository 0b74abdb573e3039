//! What the receivers of whole strings have in common.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use super::{NetstringParseError, handler_callbacks};
use crate::Transport;

/// What a receiver of strings tells: implement this, and wrap it in [`NetstringReceiver`](super::NetstringReceiver),
/// [`Int8StringReceiver`](super::Int8StringReceiver), [`Int16StringReceiver`](super::Int16StringReceiver) or
/// [`Int32StringReceiver`](super::Int32StringReceiver).
///
/// ```
/// use warren_reactor::protocols::{Int16StringReceiver, StringProtocol, StringTransport};
/// use warren_reactor::testing::TestConnection;
///
/// struct Upper;
///
/// impl StringProtocol for Upper {
///     fn string_received(&mut self, transport: &StringTransport, string: &[u8]) {
///         // No longer than what came, so it has room.
///         let _ = transport.send_string(&string.to_ascii_uppercase());
///     }
/// }
///
/// let mut connection = TestConnection::new(Box::new(Int16StringReceiver::new(Upper)));
/// connection.feed(b"\x00\x02hi\x00");
/// connection.feed(b"\x03you");
/// assert_eq!(connection.take_output(), b"\x00\x02HI\x00\x03YOU");
/// ```
pub trait StringProtocol {
    /// A whole string has come, its framing removed. What is to be kept of it must be copied.
    fn string_received(&mut self, transport: &StringTransport, string: &[u8]);

    /// A string of `length` bytes was announced, and that is beyond the receiver's limit. The connection is lost after
    /// this, for where the next string begins will not be known; abort it here to be quicker. Of receivers with an
    /// integer before each string only.
    fn length_limit_exceeded(&mut self, transport: &StringTransport, _length: usize) {
        transport.lose_connection();
    }

    /// What came is no netstring, or too long a one. The connection is lost after this. Of
    /// [`NetstringReceiver`](super::NetstringReceiver) only.
    fn parse_failed(&mut self, transport: &StringTransport, _error: NetstringParseError) {
        transport.lose_connection();
    }

    handler_callbacks!(StringTransport);
}

/// A [`Transport`] that knows how strings are framed on it. Cheap to clone.
#[derive(Clone)]
pub struct StringTransport {
    transport: Transport,
    framing: Framing,
}

/// How a string is told from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Netstring,
    /// By its length in so many bytes, the highest first.
    Prefix(usize),
}

impl StringTransport {
    pub(super) fn new(transport: &Transport, framing: Framing) -> Self {
        Self { transport: transport.clone(), framing }
    }

    /// Sends `string` in a frame.
    ///
    /// # Errors
    /// When its length cannot be told in the bytes before it. Nothing is sent then.
    pub fn send_string(&self, string: &[u8]) -> Result<(), StringTooLongError> {
        self.check(string.len())?;
        self.transport.write_with(|output| {
            output.reserve(string.len() + 24);
            self.begin(output, string.len());
            output.extend_from_slice(string);
            self.end(output);
        });
        Ok(())
    }

    /// Sends `string` in a frame. A large one is not copied, but held until it is written.
    ///
    /// # Errors
    /// As [`send_string`](Self::send_string).
    pub fn send_string_bytes(&self, string: Bytes) -> Result<(), StringTooLongError> {
        self.check(string.len())?;
        self.transport.write_with(|output| self.begin(output, string.len()));
        self.transport.write_bytes(string);
        self.transport.write_with(|output| self.end(output));
        Ok(())
    }

    fn check(&self, length: usize) -> Result<(), StringTooLongError> {
        match self.framing {
            Framing::Prefix(bytes) => {
                let max_length = longest(bytes);
                if max_length < length {
                    return Err(StringTooLongError { length, max_length });
                }
                Ok(())
            }
            Framing::Netstring => Ok(()),
        }
    }

    fn begin(&self, output: &mut Vec<u8>, length: usize) {
        match self.framing {
            Framing::Netstring => push_decimal(output, length),
            Framing::Prefix(bytes) => {
                let prefix = (length as u64).to_be_bytes();
                output.extend_from_slice(&prefix[prefix.len() - bytes..]);
            }
        }
    }

    fn end(&self, output: &mut Vec<u8>) {
        if self.framing == Framing::Netstring {
            output.push(b',');
        }
    }
}

/// The longest string whose length can be told in so many bytes.
pub(super) fn longest(prefix_bytes: usize) -> usize {
    let longest = u64::MAX >> (64 - 8 * prefix_bytes);
    usize::try_from(longest).unwrap_or(usize::MAX)
}

/// The number in decimal digits, and a colon.
fn push_decimal(output: &mut Vec<u8>, mut number: usize) {
    let mut text = *b"00000000000000000000:";
    let mut start = text.len() - 1;
    loop {
        start -= 1;
        text[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    output.extend_from_slice(&text[start..]);
}

impl Deref for StringTransport {
    type Target = Transport;

    fn deref(&self) -> &Transport {
        &self.transport
    }
}

impl fmt::Debug for StringTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StringTransport")
            .field("transport", &self.transport)
            .field("framing", &self.framing)
            .finish()
    }
}

/// The length of a string cannot be told in the bytes that the framing has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a string of {length} bytes does not fit its frame, whose length field reaches to {max_length}; send it in pieces"
)]
pub struct StringTooLongError {
    /// Of the string that was to be sent, in bytes.
    pub length: usize,
    /// The longest that could be.
    pub max_length: usize,
}
