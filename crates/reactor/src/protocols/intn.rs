//! Strings with their length before them, in one, two or four bytes, the highest first.
//!
//! ```text
//! | length: N bytes | string: `length` bytes | length ...
//! ```

use super::body::Body;
use super::strings::{Framing, StringProtocol, StringTransport, longest};
use super::{MAX_STRING_LENGTH, forward_callbacks};
use crate::{Protocol, Transport};

/// Cuts strings out of a stream, each with its length before it in `N` bytes: 1 to 4 of them.
///
/// A length beyond [`max_length`](Self::max_length) ends the connection before anything is kept for it.
pub struct IntNStringReceiver<H, const N: usize> {
    protocol: H,
    transport: Option<StringTransport>,
    max_length: usize,
    /// What has come of a length: its bytes, and how many.
    prefix: ([u8; 4], usize),
    /// Of the string that is coming, once known. Not above `max_length`.
    length: Option<usize>,
    body: Body,
}

/// Strings of at most 255 bytes.
pub type Int8StringReceiver<H> = IntNStringReceiver<H, 1>;
/// Strings of at most 65,535 bytes.
pub type Int16StringReceiver<H> = IntNStringReceiver<H, 2>;
/// Strings of at most [`max_length`](IntNStringReceiver::max_length) bytes.
pub type Int32StringReceiver<H> = IntNStringReceiver<H, 4>;

impl<H: StringProtocol, const N: usize> IntNStringReceiver<H, N> {
    const PREFIX_BYTES: usize = {
        assert!(1 <= N && N <= 4, "a length is told in 1 to 4 bytes");
        N
    };

    /// A receiver that tells `protocol`.
    pub fn new(protocol: H) -> Self {
        Self {
            protocol,
            transport: None,
            max_length: MAX_STRING_LENGTH.min(longest(Self::PREFIX_BYTES)),
            prefix: ([0; 4], 0),
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
        (self.prefix, self.length, self.body) = (([0; 4], 0), None, Body::default());
    }

    /// The length of the next string, once its bytes are there.
    fn next_length(&mut self, rest: &mut &[u8]) -> Option<usize> {
        let mut value = [0; 4];
        if self.prefix.1 == 0
            && let Some((whole, after)) = rest.split_at_checked(N)
        {
            value[4 - N..].copy_from_slice(whole);
            *rest = after;
            return Some(u32::from_be_bytes(value) as usize);
        }
        let (bytes, have) = &mut self.prefix;
        while *have < N {
            let (&byte, after) = rest.split_first()?;
            bytes[4 - N + *have] = byte;
            *have += 1;
            *rest = after;
        }
        let length = u32::from_be_bytes(*bytes) as usize;
        self.prefix = ([0; 4], 0);
        Some(length)
    }
}

impl<H: StringProtocol, const N: usize> Protocol for IntNStringReceiver<H, N> {
    fn connection_made(&mut self, transport: &Transport) {
        let transport = self.transport.insert(StringTransport::new(transport, Framing::Prefix(N)));
        self.protocol.connection_made(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let mut rest = data;
        while transport.wants_data() {
            let length = match self.length {
                Some(length) => length,
                None => match self.next_length(&mut rest) {
                    Some(length) => length,
                    None => break,
                },
            };
            let Some(strings) = &self.transport else { return };
            if self.max_length < length {
                self.protocol.length_limit_exceeded(strings, length);
                return transport.lose_connection();
            }
            let Some(string) = self.body.next(&mut rest, length) else {
                self.length = Some(length);
                break;
            };
            self.length = None;
            self.protocol.string_received(strings, &string);
        }
        transport.unread(rest.len());
    }

    forward_callbacks!(protocol.transport);
}
