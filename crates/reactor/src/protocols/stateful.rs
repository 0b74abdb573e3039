//! Protocols that say at each step what they expect next.

use super::body::Body;
use super::strings::{StringProtocol, StringTransport};
use super::{NetstringParseError, forward_callbacks, handler_callbacks};
use crate::{Protocol, Reason, Transport};

/// Steps in a row that expect no bytes. More of them are taken for a loop without end.
const IDLE_STEPS_MAX: usize = 1_000;

/// What a [`StatefulReceiver`] drives: a protocol whose state is how many bytes it expects, and what is to be done with
/// them.
///
/// ```
/// use warren_reactor::Transport;
/// use warren_reactor::protocols::{State, StatefulProtocol, StatefulReceiver};
/// use warren_reactor::testing::TestConnection;
///
/// /// One byte says how many follow; they are sent back.
/// struct Repeat;
///
/// impl Repeat {
///     fn length(&mut self, _transport: &Transport, byte: &[u8]) -> Option<State<Self>> {
///         Some(State::new(Self::body, byte[0].into()))
///     }
///
///     fn body(&mut self, transport: &Transport, body: &[u8]) -> Option<State<Self>> {
///         transport.write(body);
///         Some(self.initial_state())
///     }
/// }
///
/// impl StatefulProtocol for Repeat {
///     fn initial_state(&mut self) -> State<Self> {
///         State::new(Self::length, 1)
///     }
/// }
///
/// let mut connection = TestConnection::new(Box::new(StatefulReceiver::new(Repeat)));
/// connection.feed(b"\x02hi\x03yo");
/// connection.feed(b"u");
/// assert_eq!(connection.take_output(), b"hiyou");
/// ```
pub trait StatefulProtocol: Sized {
    /// What is expected first.
    fn initial_state(&mut self) -> State<Self>;

    handler_callbacks!(Transport);
}

/// A number of bytes, and what is called with them: it says what is expected next, or `None` for the same again.
pub struct State<P> {
    function: StateFunction<P>,
    bytes: usize,
}

/// What is called in a [`State`].
pub type StateFunction<P> = fn(&mut P, &Transport, &[u8]) -> Option<State<P>>;

impl<P> State<P> {
    /// Once `bytes` bytes have come, `function` is called with them.
    ///
    /// There is no limit but what is asked for here: a number that the peer has sent is to be checked first.
    pub fn new(function: StateFunction<P>, bytes: usize) -> Self {
        Self { function, bytes }
    }
}

impl<P> Clone for State<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for State<P> {}

/// Cuts a stream into what a [`StatefulProtocol`] expects.
///
/// # Panics
/// Its callbacks do, which ends the connection, when a thousand states in a row expect no bytes.
pub struct StatefulReceiver<P> {
    protocol: P,
    transport: Option<Transport>,
    /// Once something has been received.
    state: Option<State<P>>,
    body: Body,
}

impl<P: StatefulProtocol> StatefulReceiver<P> {
    /// A receiver that drives `protocol`.
    pub fn new(protocol: P) -> Self {
        Self { protocol, transport: None, state: None, body: Body::default() }
    }

    fn forget(&mut self) {
        self.body = Body::default();
    }
}

impl<P: StatefulProtocol> Protocol for StatefulReceiver<P> {
    fn connection_made(&mut self, transport: &Transport) {
        let transport = self.transport.insert(transport.clone());
        self.protocol.connection_made(transport);
        self.state = Some(self.protocol.initial_state());
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let Some(mut state) = self.state else { return };
        let mut rest = data;
        let mut idle_steps = 0;
        while transport.wants_data()
            && let Some(bytes) = self.body.next(&mut rest, state.bytes)
        {
            idle_steps = if bytes.is_empty() { idle_steps + 1 } else { 0 };
            assert!(idle_steps < IDLE_STEPS_MAX, "states that expect no bytes follow without end");
            if let Some(next) = (state.function)(&mut self.protocol, transport, &bytes) {
                state = next;
            }
        }
        self.state = Some(state);
        transport.unread(rest.len());
    }

    forward_callbacks!(protocol.transport);
}

/// What [`StatefulStrings`] drives: a protocol of strings whose state is what is to be done with the next one.
///
/// ```
/// use warren_reactor::protocols::{
///     Int8StringReceiver, NextStringState, StatefulStringProtocol, StatefulStrings, StringState,
///     StringTransport,
/// };
/// use warren_reactor::testing::TestConnection;
///
/// struct Door;
///
/// impl Door {
///     fn password(&mut self, transport: &StringTransport, string: &[u8]) -> NextStringState<Self> {
///         if string == b"sesame" { NextStringState::Next(Self::inside) } else { NextStringState::Done }
///     }
///
///     fn inside(&mut self, transport: &StringTransport, string: &[u8]) -> NextStringState<Self> {
///         let _ = transport.send_string(string);
///         NextStringState::Same
///     }
/// }
///
/// impl StatefulStringProtocol for Door {
///     fn initial_state(&mut self) -> StringState<Self> {
///         Self::password
///     }
/// }
///
/// let mut connection =
///     TestConnection::new(Box::new(Int8StringReceiver::new(StatefulStrings::new(Door))));
/// connection.feed(b"\x06sesame\x04gold");
/// assert_eq!(connection.take_output(), b"\x04gold");
/// ```
pub trait StatefulStringProtocol: Sized {
    /// What is called with the first string.
    fn initial_state(&mut self) -> StringState<Self>;

    /// As [`StringProtocol::length_limit_exceeded`].
    fn length_limit_exceeded(&mut self, transport: &StringTransport, _length: usize) {
        transport.lose_connection();
    }

    /// As [`StringProtocol::parse_failed`].
    fn parse_failed(&mut self, transport: &StringTransport, _error: NetstringParseError) {
        transport.lose_connection();
    }

    handler_callbacks!(StringTransport);
}

/// What is called with the next string.
pub type StringState<P> = fn(&mut P, &StringTransport, &[u8]) -> NextStringState<P>;

/// What a state says of the string after its own.
pub enum NextStringState<P> {
    /// It is for the same state.
    Same,
    /// It is for this one.
    Next(StringState<P>),
    /// There is none: the connection is lost, once what has been sent is written.
    Done,
}

/// Drives a [`StatefulStringProtocol`], in any receiver of strings.
pub struct StatefulStrings<P> {
    protocol: P,
    state: Option<StringState<P>>,
}

impl<P: StatefulStringProtocol> StatefulStrings<P> {
    /// Drives `protocol`.
    pub fn new(protocol: P) -> Self {
        Self { protocol, state: None }
    }
}

impl<P: StatefulStringProtocol> StringProtocol for StatefulStrings<P> {
    fn string_received(&mut self, transport: &StringTransport, string: &[u8]) {
        let state = match self.state {
            Some(state) => state,
            None => self.protocol.initial_state(),
        };
        self.state = match state(&mut self.protocol, transport, string) {
            NextStringState::Same => Some(state),
            NextStringState::Next(next) => Some(next),
            NextStringState::Done => return transport.lose_connection(),
        };
    }

    fn length_limit_exceeded(&mut self, transport: &StringTransport, length: usize) {
        self.protocol.length_limit_exceeded(transport, length);
    }

    fn parse_failed(&mut self, transport: &StringTransport, error: NetstringParseError) {
        self.protocol.parse_failed(transport, error);
    }

    fn connection_made(&mut self, transport: &StringTransport) {
        self.protocol.connection_made(transport);
    }

    fn handshake_completed(&mut self, transport: &StringTransport) {
        self.protocol.handshake_completed(transport);
    }

    fn read_connection_lost(&mut self, transport: &StringTransport) {
        self.protocol.read_connection_lost(transport);
    }

    fn write_connection_lost(&mut self, transport: &StringTransport) {
        self.protocol.write_connection_lost(transport);
    }

    fn pause_producing(&mut self, transport: &StringTransport) {
        self.protocol.pause_producing(transport);
    }

    fn resume_producing(&mut self, transport: &StringTransport) {
        self.protocol.resume_producing(transport);
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.protocol.connection_lost(reason);
    }
}
