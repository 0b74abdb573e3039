//! rustls as a layer: bytes in, bytes out.
//!
//! ```text
//!   medium --data--> [ incoming: the start of a record ] --> session --> plain --> protocol
//!   medium <--wire-- [ outgoing: what the session says ] <-- session <-- Output <- protocol
//! ```
//! Records are decrypted out of the buffer that all connections read into, and encrypted into the buffer that is handed
//! to the system. So between two records a connection owns no buffer at all.

use std::cell::Cell;
use std::io;
use std::sync::Arc;

use warren_hub::net::tls::explain;
use warren_hub::net::tls::rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use warren_hub::net::tls::rustls::pki_types::ServerName;
use warren_hub::net::tls::rustls::server::{
    ClientHello, ResolvesServerCert, ServerConnectionData, UnbufferedServerConnection,
};
use warren_hub::net::tls::rustls::sign::CertifiedKey;
use warren_hub::net::tls::rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedConnectionCommon,
    UnbufferedStatus, WriteTraffic,
};
use warren_hub::net::tls::rustls::{ClientConfig, Error, ServerConfig};

use super::TlsInfo;
use crate::layer::{Decoded, Layer};
use crate::output::{Output, pooled, recycle};
use crate::time::DelayedCall;

/// What waits encrypted before no more is encrypted: the system takes it first.
const WIRE_BYTES: usize = 128 * 1024;
/// Plaintext handed to the session at once: four full records.
const ENCRYPT_BYTES: usize = 64 * 1024;
/// Payload of a full record (RFC 8446 §5.1), and what encryption adds to one at most: header, explicit nonce (TLS 1.2),
/// content type (TLS 1.3) and tag.
const RECORD_BYTES: usize = 16 * 1024;
const RECORD_EXTRA_BYTES: usize = 5 + 8 + 1 + 16;
/// The header of a record: its type, version and length.
const HEADER_BYTES: usize = 5;
/// What may wait for its other part: the largest handshake message that rustls takes, and a record more. A peer that
/// sends larger ones is not served.
const INCOMING_BYTES_MAX: usize = 64 * 1024 + 18 * 1024;

enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What to do once the session has nothing more to say by itself.
enum Task<'a> {
    Nothing,
    /// Encrypt the first into the second.
    Encrypt(&'a mut Output, &'a mut Output),
    /// Say that nothing more will be written.
    Close,
}

enum Step {
    /// The session has said something.
    Said,
    /// It has something else to do.
    Again,
    /// The peer will send no more.
    PeerClosed,
    /// It needs more input, and the task was done if that is possible.
    Done,
}

impl Session {
    /// Goes one step on; how many bytes of `incoming` are used up.
    fn step(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
        outgoing: &mut Vec<u8>,
        task: &mut Task<'_>,
    ) -> (usize, Result<Step, Error>) {
        match self {
            Self::Client(session) => {
                handle(session.process_tls_records(incoming), plain, outgoing, task)
            }
            Self::Server(session) => {
                handle(session.process_tls_records(incoming), plain, outgoing, task)
            }
        }
    }

    fn is_handshaking(&self) -> bool {
        match self {
            Self::Client(session) => session.is_handshaking(),
            Self::Server(session) => session.is_handshaking(),
        }
    }

    /// Whether it has something to say that has not been fetched.
    fn has_said(&self) -> bool {
        match self {
            Self::Client(session) => session.wants_write(),
            Self::Server(session) => session.wants_write(),
        }
    }

    fn info(&self, server_name: Option<&str>) -> Option<TlsInfo> {
        match self {
            Self::Client(session) => info::<ClientConnectionData>(session, server_name),
            Self::Server(session) => info::<ServerConnectionData>(session, server_name),
        }
    }
}

fn info<D>(session: &UnbufferedConnectionCommon<D>, server_name: Option<&str>) -> Option<TlsInfo> {
    Some(TlsInfo {
        version: session.protocol_version()?,
        cipher_suite: session.negotiated_cipher_suite()?.suite(),
        alpn: session.alpn_protocol().map(<[u8]>::to_vec),
        server_name: server_name.map(str::to_owned),
        peer_certificates: session.peer_certificates().unwrap_or_default().to_vec(),
        handshake: session.handshake_kind()?,
    })
}

fn handle<D>(
    status: UnbufferedStatus<'_, '_, D>,
    plain: &mut Vec<u8>,
    outgoing: &mut Vec<u8>,
    task: &mut Task<'_>,
) -> (usize, Result<Step, Error>) {
    let discard = status.discard;
    let step = status.state.and_then(|state| {
        Ok(match state {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    plain.extend_from_slice(record?.payload);
                }
                Step::Again
            }
            ConnectionState::EncodeTlsData(data) => {
                say(data, outgoing);
                Step::Said
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                Step::Again
            }
            ConnectionState::PeerClosed => Step::PeerClosed,
            ConnectionState::WriteTraffic(mut traffic) => {
                match std::mem::replace(task, Task::Nothing) {
                    Task::Nothing => {}
                    Task::Encrypt(plain, wire) => encrypt(&mut traffic, plain, wire)?,
                    Task::Close => fill(outgoing, 2 * RECORD_EXTRA_BYTES, |room| {
                        traffic.queue_close_notify(room)
                    })?,
                }
                Step::Done
            }
            ConnectionState::BlockedHandshake | ConnectionState::Closed => Step::Done,
            // Early data is switched off, and so will be what there may be one day.
            _ => return Err(Error::General("a state of rustls that is not used here".into())),
        })
    });
    (discard, step)
}

fn say<D>(mut data: EncodeTlsData<'_, D>, outgoing: &mut Vec<u8>) {
    let start = outgoing.len();
    // Asked with no room, it says how much it needs.
    while let Err(EncodeError::InsufficientSize(more)) = data.encode(&mut outgoing[start..]) {
        outgoing.resize(start + more.required_size, 0);
    }
}

fn encrypt<D>(
    traffic: &mut WriteTraffic<'_, D>,
    plain: &mut Output,
    wire: &mut Output,
) -> Result<(), Error> {
    while !plain.is_empty() && wire.len() < WIRE_BYTES {
        let first = plain.first();
        let piece = &first[..first.len().min(ENCRYPT_BYTES)];
        let records = piece.len().div_ceil(RECORD_BYTES);
        let room = piece.len() + records * RECORD_EXTRA_BYTES;
        fill(wire.tail(), room, |room| traffic.encrypt(piece, room))?;
        let count = piece.len();
        plain.consume(count);
    }
    Ok(())
}

/// Appends what `write` writes, which needs about `room` bytes.
fn fill(
    buffer: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), Error> {
    let start = buffer.len();
    loop {
        buffer.resize(start + room, 0);
        match write(&mut buffer[start..]) {
            Ok(written) => {
                buffer.truncate(start + written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(more)) => room = more.required_size,
            Err(EncryptError::EncryptExhausted) => {
                buffer.truncate(start);
                return Err(Error::EncryptError);
            }
        }
    }
}

/// TLS between a protocol and its medium.
pub(super) struct TlsLayer {
    session: Session,
    /// The start of a record, or of a handshake message in several.
    incoming: Vec<u8>,
    /// What the session has to say by itself: its handshake, tickets, alerts.
    outgoing: Vec<u8>,
    opened: bool,
    /// The peer has said that it will send no more: nothing that comes then counts (RFC 8446 §6.1).
    peer_closed: bool,
    failed: bool,
    /// The host that was asked for.
    server_name: Option<String>,
    /// Ends the connection when the handshake takes too long.
    pub(super) deadline: Option<DelayedCall>,
}

impl TlsLayer {
    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Error> {
        let asked = match &name {
            ServerName::DnsName(name) => Some(name.as_ref().to_owned()),
            _ => None,
        };
        let session = UnbufferedClientConnection::new(config, name)?;
        let mut layer = Self::new(Session::Client(session));
        layer.server_name = asked;
        // The client begins.
        layer.take_in(&mut [], &mut Vec::new())?;
        Ok(layer)
    }

    /// `config` must have been through [`note_names`].
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self::new(Session::Server(UnbufferedServerConnection::new(config)?)))
    }

    fn new(session: Session) -> Self {
        Self {
            session,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            opened: false,
            peer_closed: false,
            failed: false,
            server_name: None,
            deadline: None,
        }
    }

    /// What was agreed upon; `None` before the handshake has been completed.
    pub(super) fn info(&self) -> Option<TlsInfo> {
        self.opened.then(|| self.session.info(self.server_name.as_deref())).flatten()
    }

    /// Takes bytes in as far as they are whole. Gives how many.
    fn take_in(&mut self, data: &mut [u8], plain: &mut Vec<u8>) -> Result<usize, Error> {
        let mut taken = 0;
        while !self.peer_closed {
            let rest = &mut data[taken..];
            let (used, step) =
                self.session.step(rest, plain, &mut self.outgoing, &mut Task::Nothing);
            taken += used;
            match step {
                Ok(Step::Said | Step::Again) => {}
                Ok(Step::PeerClosed) => self.peer_closed = true,
                Ok(Step::Done) => break,
                Err(error) => {
                    self.failed = true;
                    self.last_words(&mut data[taken..]);
                    return Err(error);
                }
            }
        }
        Ok(taken)
    }

    /// The alert that tells the peer of our error.
    fn last_words(&mut self, rest: &mut [u8]) {
        // Whatever else it might do after an error, it shall not: so no step more than it has something to say.
        while self.session.has_said() {
            let (_, said) =
                self.session.step(rest, &mut Vec::new(), &mut self.outgoing, &mut Task::Nothing);
            if !matches!(said, Ok(Step::Said)) {
                return;
            }
        }
    }

    fn decode_all(&mut self, mut data: &mut [u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        while !self.incoming.is_empty() && !data.is_empty() {
            let (now, later) = data.split_at_mut(missing(&self.incoming).min(data.len()));
            self.incoming.extend_from_slice(now);
            data = later;
            let mut incoming = std::mem::take(&mut self.incoming);
            let taken = self.take_in(&mut incoming, plain)?;
            self.keep(incoming, taken);
        }
        if !data.is_empty() && !self.peer_closed {
            let taken = self.take_in(data, plain)?;
            if taken < data.len() {
                let mut rest = pooled();
                rest.extend_from_slice(&data[taken..]);
                self.keep(rest, 0);
            }
        }
        if INCOMING_BYTES_MAX < self.incoming.len() {
            self.failed = true;
            return Err(Error::PeerSentOversizedRecord);
        }
        Ok(())
    }

    /// Keeps what has not been taken in.
    fn keep(&mut self, mut incoming: Vec<u8>, taken: usize) {
        if taken == incoming.len() || self.peer_closed {
            recycle(incoming);
        } else {
            incoming.drain(..taken);
            self.incoming = incoming;
        }
    }

    /// Lets the session do `task` and say what it has to say.
    fn perform(&mut self, mut task: Task<'_>) -> io::Result<()> {
        // What waits here is no whole record, so nothing comes out; but the session wants to see it again.
        let (mut taken, mut plain) = (0, Vec::new());
        let mut incoming = std::mem::take(&mut self.incoming);
        let result = loop {
            let rest = &mut incoming[taken..];
            let (used, step) = self.session.step(rest, &mut plain, &mut self.outgoing, &mut task);
            taken += used;
            match step {
                Ok(Step::Done) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(explain(error)),
            }
        };
        debug_assert!(plain.is_empty(), "a whole record was left lying");
        self.keep(incoming, taken);
        result
    }

    fn hand_over(&mut self, wire: &mut Output) {
        if !self.outgoing.is_empty() {
            wire.tail().extend_from_slice(&self.outgoing);
            self.outgoing = Vec::new();
        }
    }
}

/// How many bytes are missing of the first record of `incoming`. All there are, when that is whole: it is part of a
/// message in several records.
fn missing(incoming: &[u8]) -> usize {
    let Some(header) = incoming.first_chunk::<HEADER_BYTES>() else {
        return HEADER_BYTES - incoming.len();
    };
    let size = HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
    match size.checked_sub(incoming.len()) {
        None | Some(0) => usize::MAX,
        Some(missing) => missing,
    }
}

impl Layer for TlsLayer {
    fn is_opening(&self) -> bool {
        !self.opened && !self.failed
    }

    fn decode(&mut self, data: &mut [u8], plain: &mut Vec<u8>) -> Decoded {
        let mut decoded = Decoded::default();
        if self.failed || self.peer_closed {
            return decoded;
        }
        let result = self.decode_all(data, plain);
        if !self.opened {
            if let Session::Server(_) = self.session
                && let Some(name) = ASKED.take()
            {
                self.server_name = Some(name);
            }
            if !self.session.is_handshaking() && !self.failed {
                self.opened = true;
                decoded.opened = true;
                self.no_deadline();
            }
        }
        decoded.end = match result {
            Err(error) => Some(Err(explain(error))),
            Ok(()) if self.peer_closed => Some(self.input_ended()),
            Ok(()) => None,
        };
        decoded
    }

    fn encode(&mut self, plain: &mut Output, wire: &mut Output) -> io::Result<()> {
        self.hand_over(wire);
        if !self.opened || self.failed || plain.is_empty() || WIRE_BYTES <= wire.len() {
            return Ok(());
        }
        self.perform(Task::Encrypt(plain, wire))
    }

    fn finish(&mut self, wire: &mut Output) {
        if self.opened && !self.failed {
            // It can say no more than that it has no more to say.
            let _ = self.perform(Task::Close);
        }
        self.hand_over(wire);
    }

    fn input_ended(&mut self) -> io::Result<()> {
        let text = if !self.opened {
            "the peer has closed the connection during the TLS handshake; its log may say why"
        } else if !self.peer_closed {
            "the peer has closed the connection without an end in TLS (close_notify): what it sent may have been cut off"
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))
    }
}

impl TlsLayer {
    fn no_deadline(&mut self) {
        if let Some(deadline) = self.deadline.take() {
            deadline.cancel();
        }
    }
}

impl Drop for TlsLayer {
    fn drop(&mut self) {
        self.no_deadline();
        recycle(std::mem::take(&mut self.incoming));
    }
}

thread_local! {
    /// The host that the client asked for whose greeting was taken in last. The session does not tell, so it is noted
    /// when a certificate is chosen, and fetched as soon as the session has returned.
    static ASKED: Cell<Option<String>> = const { Cell::new(None) };
}

#[derive(Debug)]
struct Noting(Arc<dyn ResolvesServerCert>);

impl ResolvesServerCert for Noting {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED.set(hello.server_name().map(str::to_owned));
        self.0.resolve(hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.0.only_raw_public_keys()
    }
}

/// Settings whose sessions tell the host that the client asked for.
pub(super) fn note_names(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.cert_resolver = Arc::new(Noting(config.cert_resolver));
    // Never answered before the handshake is completed, for it can be replayed (RFC 8446 §8).
    config.max_early_data_size = 0;
    Arc::new(config)
}
