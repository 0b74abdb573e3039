//! Ready-made protocols: lines, netstrings, strings with a length before them, states, files, forwarded ports.
//!
//! A *receiver* is a [`Protocol`] that cuts frames out of a stream, wherever the network has cut the
//! stream itself, and hands each to a protocol of one's own:
//!
//! | Twisted | here | implements |
//! |---|---|---|
//! | `LineReceiver`, `LineOnlyReceiver` | [`LineReceiver`] | [`LineProtocol`] |
//! | `NetstringReceiver` | [`NetstringReceiver`] | [`StringProtocol`] |
//! | `Int8StringReceiver` and its kin | [`Int8StringReceiver`], [`Int16StringReceiver`], [`Int32StringReceiver`] | [`StringProtocol`] |
//! | `StatefulStringProtocol` | [`StatefulStrings`] in one of these | [`StatefulStringProtocol`] |
//! | `StatefulProtocol` | [`StatefulReceiver`] | [`StatefulProtocol`] |
//! | `basic.FileSender` | [`FileSender`] | |
//! | `protocols.wire`, `protocols.portforward` | [`wire`], [`portforward`] | |
//! | `Factory.forProtocol` | [`for_protocol`] | |
//!
//! What holds for all receivers:
//!
//! - A frame that lies whole in what was received is neither copied nor allocated for. One that comes in several pieces
//!   is put together once; the memory for it grows with what has come, up to the limit, and is given back with the
//!   frame. Each byte is looked at once, however small the pieces.
//! - Once the protocol has paused reading ([`Transport::pause_reading`](crate::Transport::pause_reading)), it hears of
//!   no further frame, also when many came together. [`resume_reading`](crate::Transport::resume_reading) may be called
//!   from anywhere; those that wait come at the end of the loop's turn.
//! - TLS may be started in any callback ([`Transport::start_tls`](crate::Transport), with an empty `rest`): what came
//!   together with the frame is decoded by it, and what is held of a frame from before is forgotten.
//! - After [`lose_connection`](crate::Transport::lose_connection) nothing more is told. (Twisted stops lines then, but
//!   tells of the other frames that came together.)

mod body;
mod file_sender;
mod intn;
mod line;
mod netstring;
pub mod portforward;
mod stateful;
mod strings;
pub mod wire;

use crate::{PeerAddr, Protocol};

pub use file_sender::{FileSender, FileSenderError};
pub use intn::{Int8StringReceiver, Int16StringReceiver, Int32StringReceiver, IntNStringReceiver};
pub use line::{LineOnlyReceiver, LineProtocol, LineReceiver, LineTransport};
pub use netstring::{NetstringParseError, NetstringReceiver};
pub use stateful::{
    NextStringState, State, StateFunction, StatefulProtocol, StatefulReceiver,
    StatefulStringProtocol, StatefulStrings, StringState,
};
pub use strings::{StringProtocol, StringTooLongError, StringTransport};

/// A factory whose protocols are all made alike.
///
/// ```
/// use warren_reactor::protocols::{for_protocol, wire};
///
/// # warren_hub::run(|| {
/// let port = warren_reactor::listen_tcp("127.0.0.1:0".parse().unwrap(), Box::new(for_protocol(|| wire::Echo)));
/// # let _ = port;
/// # });
/// ```
pub fn for_protocol<P: Protocol + 'static>(
    mut make: impl FnMut() -> P + 'static,
) -> impl FnMut(&PeerAddr) -> Option<Box<dyn Protocol>> + 'static {
    move |_peer| Some(Box::new(make()))
}

/// The longest string that is accepted unless told otherwise, in bytes, as with Twisted.
const MAX_STRING_LENGTH: usize = 99_999;

/// The callbacks of [`Protocol`](crate::Protocol) that a receiver hands on as they are, with its own kind of transport.
macro_rules! forward_callbacks {
    ($field:ident . $transport:ident) => {
        fn handshake_completed(&mut self, _transport: &crate::Transport) {
            // Whoever sits between the peers can send the beginning of a frame in the clear; it must not become part of
            // one that comes by TLS (CVE-2011-0411 was of this kind).
            self.forget();
            if let Some(transport) = &self.$transport {
                self.$field.handshake_completed(transport);
            }
        }

        fn read_connection_lost(&mut self, _transport: &crate::Transport) {
            if let Some(transport) = &self.$transport {
                self.$field.read_connection_lost(transport);
            }
        }

        fn write_connection_lost(&mut self, _transport: &crate::Transport) {
            if let Some(transport) = &self.$transport {
                self.$field.write_connection_lost(transport);
            }
        }

        fn pause_producing(&mut self, _transport: &crate::Transport) {
            if let Some(transport) = &self.$transport {
                self.$field.pause_producing(transport);
            }
        }

        fn resume_producing(&mut self, _transport: &crate::Transport) {
            if let Some(transport) = &self.$transport {
                self.$field.resume_producing(transport);
            }
        }

        fn connection_lost(&mut self, reason: &crate::Reason) {
            self.$field.connection_lost(reason);
        }
    };
}
use forward_callbacks;

/// The callbacks of [`Protocol`](crate::Protocol) besides data, as a handler of frames has them.
macro_rules! handler_callbacks {
    ($transport:ty) => {
        /// The connection stands. Keep a clone of the transport to write later on one's own account.
        fn connection_made(&mut self, _transport: &$transport) {}

        /// As [`Protocol::handshake_completed`](crate::Protocol::handshake_completed).
        fn handshake_completed(&mut self, _transport: &$transport) {}

        /// As [`Protocol::read_connection_lost`](crate::Protocol::read_connection_lost). A frame that has begun will
        /// not be completed any more.
        fn read_connection_lost(&mut self, transport: &$transport) {
            transport.lose_connection();
        }

        /// As [`Protocol::write_connection_lost`](crate::Protocol::write_connection_lost).
        fn write_connection_lost(&mut self, _transport: &$transport) {}

        /// As [`Protocol::pause_producing`](crate::Protocol::pause_producing).
        fn pause_producing(&mut self, _transport: &$transport) {}

        /// As [`Protocol::resume_producing`](crate::Protocol::resume_producing).
        fn resume_producing(&mut self, _transport: &$transport) {}

        /// The connection is gone; the last call.
        fn connection_lost(&mut self, _reason: &crate::Reason) {}
    };
}
use handler_callbacks;
