//! Netstrings (<https://cr.yp.to/proto/netstrings.txt>): `12:hello world!,`.

use super::body::Body;
use super::strings::{Framing, StringProtocol, StringTransport};
use super::{MAX_STRING_LENGTH, forward_callbacks};
use crate::{Protocol, Transport};

/// Cuts netstrings out of a stream.
///
/// What is no netstring, or a longer one than [`max_length`](Self::max_length), ends the connection as soon as that can
/// be told: a length is refused at the digit that makes it too large.
///
/// ```
/// use warren_reactor::protocols::{NetstringReceiver, StringProtocol, StringTransport};
/// use warren_reactor::testing::TestConnection;
///
/// struct Echo;
///
/// impl StringProtocol for Echo {
///     fn string_received(&mut self, transport: &StringTransport, string: &[u8]) {
///         let _ = transport.send_string(string); // Netstrings have no limit of their own.
///     }
/// }
///
/// let mut connection = TestConnection::new(Box::new(NetstringReceiver::new(Echo)));
/// connection.feed(b"5:hello,0:,9:half of it");
/// assert_eq!(connection.take_output(), b"5:hello,0:,");
/// ```
pub struct NetstringReceiver<H> {
    protocol: H,
    transport: Option<StringTransport>,
    max_length: usize,
    /// What the digits so far say, and whether there are any.
    digits: Option<usize>,
    /// Of the string that is coming, once its colon was there. Not above `max_length`.
    length: Option<usize>,
    body: Body,
}

/// Why bytes are no netstring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetstringParseError {
    /// The length is no decimal number without leading zeros and with a colon behind it.
    #[error(
        "byte {byte:#04x} in the length of a netstring, which is a decimal number without leading zeros and a colon"
    )]
    BadLength {
        /// The first that cannot be.
        byte: u8,
    },
    /// The length is beyond the receiver's limit.
    #[error("a netstring of {length} bytes or more; the limit is {max_length}")]
    TooLong {
        /// What the digits said when it was too much.
        length: usize,
        /// What would be accepted.
        max_length: usize,
    },
    /// The string does not end where its length says.
    #[error("byte {byte:#04x} in the place of the comma after a netstring of {length} bytes")]
    MissingComma {
        /// Of the string.
        length: usize,
        /// What is there instead.
        byte: u8,
    },
}

impl<H: StringProtocol> NetstringReceiver<H> {
    /// A receiver that tells `protocol`.
    pub fn new(protocol: H) -> Self {
        Self {
            protocol,
            transport: None,
            max_length: MAX_STRING_LENGTH,
            digits: None,
            length: None,
            body: Body::default(),
        }
    }

    /// The longest string that is accepted, in bytes. Twisted's default: 99,999.
    #[must_use]
    pub fn max_length(mut self, bytes: usize) -> Self {
        self.max_length = bytes;
        self
    }

    fn forget(&mut self) {
        (self.digits, self.length, self.body) = (None, None, Body::default());
    }

    /// The length of the next string, once its colon is there.
    fn next_length(&mut self, rest: &mut &[u8]) -> Result<Option<usize>, NetstringParseError> {
        while let Some((&byte, after)) = rest.split_first() {
            let digit = usize::from(byte.wrapping_sub(b'0'));
            let length = match (byte, self.digits) {
                (b':', Some(length)) => {
                    self.digits = None;
                    *rest = after;
                    return Ok(Some(length));
                }
                (b'0'..=b'9', None) => digit,
                (b'0'..=b'9', Some(length)) if 0 < length => {
                    length.saturating_mul(10).saturating_add(digit)
                }
                _ => return Err(NetstringParseError::BadLength { byte }),
            };
            if self.max_length < length {
                return Err(NetstringParseError::TooLong { length, max_length: self.max_length });
            }
            self.digits = Some(length);
            *rest = after;
        }
        Ok(None)
    }

    /// Tells of the next string. False when more must come first.
    fn next_string(&mut self, rest: &mut &[u8]) -> Result<bool, NetstringParseError> {
        let length = match self.length {
            Some(length) => length,
            None => match self.next_length(rest)? {
                Some(length) => length,
                None => return Ok(false),
            },
        };
        let Some(string) = self.body.next(rest, length.saturating_add(1)) else {
            self.length = Some(length);
            return Ok(false);
        };
        self.length = None;
        match string.split_last() {
            Some((b',', string)) => {
                if let Some(strings) = &self.transport {
                    self.protocol.string_received(strings, string);
                }
                Ok(true)
            }
            Some((&byte, _)) => Err(NetstringParseError::MissingComma { length, byte }),
            None => Ok(true),
        }
    }
}

impl<H: StringProtocol> Protocol for NetstringReceiver<H> {
    fn connection_made(&mut self, transport: &Transport) {
        let transport = self.transport.insert(StringTransport::new(transport, Framing::Netstring));
        self.protocol.connection_made(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let mut rest = data;
        while transport.wants_data() {
            match self.next_string(&mut rest) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    if let Some(strings) = &self.transport {
                        self.protocol.parse_failed(strings, error);
                    }
                    return transport.lose_connection();
                }
            }
        }
        transport.unread(rest.len());
    }

    forward_callbacks!(protocol.transport);
}
