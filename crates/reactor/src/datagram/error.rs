//! What can go wrong with a datagram.

use std::io;

/// Why a datagram was not sent, or a socket of datagrams not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatagramError {
    /// More than the network carries in one piece.
    #[error(
        "a datagram of {bytes} bytes is too long (UDP over IPv4 carries 65507 at most): send it in pieces"
    )]
    TooLong {
        /// How long it was.
        bytes: usize,
    },
    /// Nobody has said where it should go.
    #[error(
        "the datagram has no address: give one to `write`, or connect the transport to its one peer first"
    )]
    NoAddress,
    /// The transport is connected to somebody else.
    #[error("the transport is connected to {peer}, and can send to nobody else ({to})")]
    Connected {
        /// Its one peer.
        peer: String,
        /// Where the datagram, or the connection, was to go.
        to: String,
    },
    /// The address is of another family than the socket, or no name at all.
    #[error(
        "a socket at {host} cannot send to {to}: they are of different families, or nobody can be there"
    )]
    Unreachable {
        /// Where the socket is.
        host: String,
        /// Where the datagram was to go.
        to: String,
    },
    /// It would have gone to everybody in a network, which was not allowed.
    #[error("{to} is a broadcast address: call `set_broadcast_allowed(true)` first")]
    Broadcast {
        /// Where the datagram was to go.
        to: String,
    },
    /// As many datagrams as may wait wait already, for the system or for a receiver who does not read.
    #[error("{waiting_bytes} bytes of datagrams wait for room, or none may: this one is dropped")]
    Full {
        /// Bytes that wait.
        waiting_bytes: usize,
    },
    /// Nobody receives at the peer's address.
    #[error("nobody receives datagrams at {to}")]
    Refused {
        /// Where the datagram was to go.
        to: String,
    },
    /// The port has been stopped.
    #[error("the port has been stopped: nothing can be sent from it any more")]
    Stopped,
    /// The system has refused.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
}

impl DatagramError {
    pub(crate) fn system(what: impl Into<String>, source: io::Error) -> Self {
        Self::System { what: what.into(), source }
    }
}

impl From<DatagramError> for io::Error {
    /// The system's own error where there is one, with what was tried.
    fn from(error: DatagramError) -> Self {
        let kind = match &error {
            DatagramError::System { source, .. } => source.kind(),
            DatagramError::Refused { .. } => io::ErrorKind::ConnectionRefused,
            DatagramError::Full { .. } => io::ErrorKind::WouldBlock,
            DatagramError::Stopped => io::ErrorKind::NotConnected,
            _ => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
