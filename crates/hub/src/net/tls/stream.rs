//! [`TlsStream`].

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{Connection, ProtocolVersion};

use super::super::TcpStream;
use super::super::split::{Duplex, ReadHalf, WriteHalf, split};
use super::error::explain;
use crate::sync::{Mutex, MutexGuard};
use crate::timer::with_timeout;

/// What is read from the socket at once at first. It doubles with each read that fills it: a connection that is idle or
/// has small messages keeps little memory.
const READ_BYTES_MIN: usize = 2 * 1024;
/// The largest record fits (RFC 8446 §5.2), so that a stream in full flow needs one read for each.
const READ_BYTES_MAX: usize = 18 * 1024;

/// An encrypted stream over the stream `S`.
///
/// `&TlsStream` is `Read` and `Write` too, so that one fiber may read while another writes; several that read or several
/// that write take turns. Timeouts are those of the stream below, see [`get_ref`](Self::get_ref): an operation that has
/// timed out may be repeated.
///
/// Dropping it closes the stream below without a word, which the peer takes for a truncation: call
/// [`close`](Self::close) when all is said.
pub struct TlsStream<S = TcpStream> {
    below: S,
    /// In a box: it is large, and streams are moved about.
    session: Box<RefCell<Connection>>,
    incoming: Mutex<Incoming>,
    outgoing: Mutex<Outgoing>,
}

/// Bytes from the socket that the session has not seen yet: `buffer[start..end]`.
struct Incoming {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// Bytes of the session that the socket has not taken yet: `buffer[start..]`.
#[derive(Default)]
struct Outgoing {
    buffer: Vec<u8>,
    start: usize,
}

impl<S: Duplex> TlsStream<S> {
    /// Makes the handshake.
    pub(super) fn handshake(
        below: S,
        session: Connection,
        timeout: Option<Duration>,
    ) -> io::Result<Self> {
        let stream = Self {
            below,
            session: Box::new(RefCell::new(session)),
            incoming: Mutex::new(Incoming { buffer: Vec::new(), start: 0, end: 0 }),
            outgoing: Mutex::default(),
        };
        let shake = || {
            let mut incoming = stream.incoming.lock();
            loop {
                stream.flush_session()?;
                if !stream.session.borrow().is_handshaking() {
                    return Ok(());
                }
                if !stream.receive(&mut incoming)? {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the peer has closed the connection in the TLS handshake",
                    ));
                }
            }
        };
        match timeout {
            None => shake()?,
            Some(timeout) => match with_timeout(timeout, shake) {
                Ok(shaken) => shaken?,
                Err(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the TLS handshake timed out",
                    ));
                }
            },
        }
        Ok(stream)
    }

    /// Says that nothing more will be written (`close_notify`), after all that was. Reading goes on until the peer says
    /// the same.
    ///
    /// # Suspends
    /// While there is no room in the socket's buffer, or another fiber writes.
    ///
    /// # Errors
    /// As writing does.
    pub fn close(&self) -> io::Result<()> {
        let mut outgoing = self.outgoing.lock();
        self.session.borrow_mut().send_close_notify();
        self.send(&mut outgoing)
    }

    /// Hands bytes of the socket to the session, waiting for them when there are none. False at the socket's end.
    fn receive(&self, incoming: &mut Incoming) -> io::Result<bool> {
        if incoming.start == incoming.end {
            if incoming.buffer.is_empty() {
                incoming.buffer.resize(READ_BYTES_MIN, 0);
            } else if incoming.end == incoming.buffer.len() && incoming.end < READ_BYTES_MAX {
                incoming.buffer.resize(READ_BYTES_MAX.min(2 * incoming.end), 0);
            }
            let count = self.below.read_some(&mut incoming.buffer)?;
            (incoming.start, incoming.end) = (0, count);
            if count == 0 {
                // The session judges whether it may end here.
                let mut session = self.session.borrow_mut();
                session.read_tls(&mut io::empty())?;
                session.process_new_packets().map_err(explain)?;
                return Ok(false);
            }
        }
        let fed = self.feed(incoming);
        if fed.is_err() {
            // The session has an alert for the peer. Nobody waits for it: the connection is lost anyway.
            let _ = self.flush_session();
        }
        fed.map(|()| true)
    }

    /// Hands bytes to the session until it has plaintext, of which it keeps a bounded amount.
    fn feed(&self, incoming: &mut Incoming) -> io::Result<()> {
        let mut session = self.session.borrow_mut();
        while incoming.start < incoming.end {
            let mut bytes = &incoming.buffer[incoming.start..incoming.end];
            let taken = session.read_tls(&mut bytes)?;
            incoming.start += taken;
            let state = session.process_new_packets().map_err(explain)?;
            if state.plaintext_bytes_to_read() > 0 {
                break;
            }
            if taken == 0 {
                // After the peer's `close_notify` nothing counts any more.
                incoming.start = incoming.end;
            }
        }
        Ok(())
    }

    /// Sends what the session has to say by itself: handshake, alerts, key updates. When another fiber writes just now,
    /// it will.
    fn flush_session(&self) -> io::Result<()> {
        if !self.session.borrow().wants_write() {
            return Ok(());
        }
        match self.outgoing.try_lock() {
            Some(mut outgoing) => self.send(&mut outgoing),
            None => Ok(()),
        }
    }

    /// Writes everything that the session has for the socket. What is left after an error goes with the next call.
    fn send(&self, outgoing: &mut MutexGuard<'_, Outgoing>) -> io::Result<()> {
        loop {
            while outgoing.start < outgoing.buffer.len() {
                let count = self.below.write_some(&outgoing.buffer[outgoing.start..])?;
                if count == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                outgoing.start += count;
            }
            outgoing.start = 0;
            outgoing.buffer.clear();
            let mut session = self.session.borrow_mut();
            if !session.wants_write() {
                if READ_BYTES_MAX < outgoing.buffer.capacity() {
                    // Kept by a busy writer only, not by each connection that once wrote much.
                    outgoing.buffer.shrink_to(READ_BYTES_MAX);
                }
                return Ok(());
            }
            while session.wants_write() {
                session.write_tls(&mut outgoing.buffer)?;
            }
        }
    }

    fn read_plain(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(read) = self.take_plain(buffer) {
                return read;
            }
            let mut incoming = self.incoming.lock();
            // Another fiber may have received it while this one waited for its turn.
            if let Some(read) = self.take_plain(buffer) {
                return read;
            }
            self.receive(&mut incoming)?;
            drop(incoming);
            self.flush_session()?;
        }
    }

    /// What the session has decrypted; `None` when it needs more.
    fn take_plain(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        match self.session.borrow_mut().reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            read => Some(read),
        }
    }

    fn write_plain(&self, data: &[u8]) -> io::Result<usize> {
        let mut outgoing = self.outgoing.lock();
        // What is accepted counts as written. So first what was accepted before: if that does not leave, neither is this
        // accepted, and whoever repeats the write sends nothing twice.
        self.send(&mut outgoing)?;
        let count = self.session.borrow_mut().writer().write(data)?;
        match self.send(&mut outgoing) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(count),
            sent => sent.map(|()| count),
        }
    }
}

impl<S> TlsStream<S> {
    /// The stream below: for its addresses and timeouts. What is read from or written to it directly breaks the
    /// encrypted stream.
    pub fn get_ref(&self) -> &S {
        &self.below
    }

    /// Looks at rustls' session, for what this type does not tell.
    pub fn session<R>(&self, look: impl FnOnce(&Connection) -> R) -> R {
        look(&self.session.borrow())
    }

    /// The protocol that both sides agreed upon (ALPN, RFC 7301); `None` when none was offered.
    pub fn alpn_protocol(&self) -> Option<Vec<u8>> {
        self.session.borrow().alpn_protocol().map(<[u8]>::to_vec)
    }

    /// On a server: the host that the client asked for (SNI, RFC 6066 §3).
    pub fn server_name(&self) -> Option<String> {
        match &*self.session.borrow() {
            Connection::Server(session) => session.server_name().map(str::to_owned),
            Connection::Client(_) => None,
        }
    }

    /// The peer's certificate and those that vouch for it, its own first; `None` when it showed none.
    pub fn peer_certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        self.session.borrow().peer_certificates().map(<[_]>::to_vec)
    }

    /// The version of TLS that is spoken.
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.session.borrow().protocol_version()
    }
}

impl<S: Duplex> TlsStream<S> {
    /// A half for reading and a half for writing, each for a fiber of its own. Dropping the writing half is
    /// [`close`](Self::close).
    pub fn into_split(self) -> (ReadHalf<Self>, WriteHalf<Self>) {
        split(self)
    }
}

impl<S: Duplex> Duplex for TlsStream<S> {
    fn read_some(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_plain(buffer)
    }

    fn write_some(&self, data: &[u8]) -> io::Result<usize> {
        self.write_plain(data)
    }

    fn close_write(&self) -> io::Result<()> {
        self.close()
    }
}

impl<S: Duplex> Read for &TlsStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_plain(buffer)
    }
}

impl<S: Duplex> Write for &TlsStream<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_plain(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send(&mut self.outgoing.lock())
    }
}

impl<S: Duplex> Read for TlsStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_plain(buffer)
    }
}

impl<S: Duplex> Write for TlsStream<S> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_plain(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

impl<S: fmt::Debug> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("below", &self.below).finish_non_exhaustive()
    }
}
