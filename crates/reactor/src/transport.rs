//! [`Transport`]: a protocol's handle on its connection, and the rules of its life.
//!
//! ```text
//!   Open --lose_connection--> Closing --output drained--> Lost
//!     |                          |                          ^
//!     +----abort_connection------+--> Aborting -------------+   also: an error, a panic in a callback
//!
//!   within Open, each direction may end by itself:
//!     input:  end of file --> read_connection_lost
//!     output: lose_write_connection --output drained--> write_connection_lost
//! ```
//! What moves the bytes is a [`Medium`]: a socket, a pipe, or a test's memory. Between the two may lie a
//! [`Layer`](crate::layer::Layer): TLS.

mod input;
mod settle;
#[cfg(test)]
mod tests;
mod watch;

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use warren_hub::io::Source;

use crate::layer::Layered;
use crate::output::Output;
use crate::producer::{Consumer, Producer, Registered};
use crate::protocol::{PeerAddr, Protocol, Reason};
use crate::transport::input::Input;
use crate::transport::watch::Watched;

/// Output beyond this is offered to the system at once: the memory is still warm, and the peer gets on.
const WRITE_EARLY_BYTES: usize = 256 * 1024;
/// A write of so much is offered to the system as it is, when nothing waits before it: below, gathering the writes of a
/// turn saves more than the copy costs.
const WRITE_THROUGH_BYTES: usize = 8 * 1024;

/// What carries a transport's bytes.
pub(crate) trait Medium {
    /// Arranges that [`Transport::settle`] is called at the end of this turn.
    fn schedule(&self, transport: &Transport);
    /// Writes what the system takes now.
    fn write(&self, output: &mut Output) -> io::Result<()>;
    /// Writes what the system takes now of `data`, and tells how much that was: for writes that are not worth a copy.
    fn write_through(&self, data: &[u8]) -> io::Result<usize> {
        let _ = data;
        Ok(0)
    }
    /// Tells the peer that no more will be written. All output has been.
    fn end_writing(&self) -> io::Result<()>;
    /// Reading has been resumed: bytes may wait.
    fn resume_reading(&self);
    /// Ends it.
    fn close(&self, how: Close);
    /// The socket, if it is one and still open.
    fn source(&self) -> Option<Source> {
        None
    }
    /// What was agreed upon where TLS ends on the medium's far side.
    #[cfg(feature = "tls")]
    fn tls_info(&self) -> Option<crate::tls::TlsInfo> {
        None
    }
}

/// How a medium ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// All output has been written, and the peer should get to read it.
    Gracefully,
    /// At once.
    AtOnce,
    /// At once, and the peer is to see that this is no orderly end.
    Reset,
}

/// When a producer is told to pause and to resume, in bytes of waiting output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteLimits {
    /// More than this: pause.
    pub high_bytes: usize,
    /// This or less: resume. Not above `high_bytes`.
    pub low_bytes: usize,
}

impl Default for WriteLimits {
    /// 64 KiB, as Twisted's transports, and a quarter of it.
    fn default() -> Self {
        Self { high_bytes: 64 * 1024, low_bytes: 16 * 1024 }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Closing,
    Aborting,
    Lost,
}

/// How far the output of an open connection has come to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteHalf {
    Open,
    /// It ends once what waits is written.
    Ending,
    Ended,
}

/// A handle on a connection. Cheap to clone; belongs to the hub it was made on.
///
/// Methods never call a protocol and never fail: what goes wrong is told to
/// [`connection_lost`](Protocol::connection_lost) later.
#[derive(Clone)]
pub struct Transport(Rc<Inner>);

/// A [`Transport`] that does not keep the connection's memory once it is lost.
#[derive(Clone)]
pub struct WeakTransport(Weak<Inner>);

impl WeakTransport {
    /// The transport, until the connection is lost and nobody else has it any more.
    pub fn upgrade(&self) -> Option<Transport> {
        self.0.upgrade().map(Transport)
    }
}

struct Inner {
    id: u64,
    peer: PeerAddr,
    host: PeerAddr,
    /// The real ones, behind a proxy that has told them.
    ends: OnceCell<Box<(PeerAddr, PeerAddr)>>,
    state: Cell<State>,
    reading: Cell<bool>,
    /// The peer will send no more.
    read_ended: Cell<bool>,
    write_half: Cell<WriteHalf>,
    /// `lose_connection` was called while a producer was registered: it is obeyed when that has finished.
    losing: Cell<bool>,
    producing: Cell<bool>,
    /// Whether the medium will call `settle`.
    scheduled: Cell<bool>,
    /// The protocol has been called since the last look.
    told: Cell<bool>,
    limits: Cell<WriteLimits>,
    /// Why it is over, until `settle` tells.
    failure: RefCell<Option<Reason>>,
    input: Input,
    output: RefCell<Output>,
    producer: RefCell<Option<Rc<Registered>>>,
    layer: RefCell<Option<Box<Layered>>>,
    watched: Watched,
    /// Borrowed during its callbacks; `None` once the connection is lost.
    protocol: RefCell<Option<Box<dyn Protocol>>>,
    medium: Box<dyn Medium>,
}

impl Transport {
    /// Appends `data` to the output.
    pub fn write(&self, data: &[u8]) {
        let data = match data.len() < WRITE_THROUGH_BYTES {
            true => data,
            false => self.write_through(data),
        };
        if data.is_empty() {
            // A producer may wait to hear that all has gone.
            self.producer_wrote();
            return self.schedule();
        }
        self.write_with(|output| output.extend_from_slice(data));
    }

    /// Offers `data` to the system without a copy, unless something goes before it. Gives what is left.
    fn write_through<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        if !self.takes_output()
            || !self.0.output.borrow().is_empty()
            || self.0.failure.borrow().is_some()
            || self.0.layer.borrow().is_some()
            || self.0.watched.is_by_any()
        {
            return data;
        }
        match self.0.medium.write_through(data) {
            Ok(count) => &data[count..],
            Err(error) => {
                *self.0.failure.borrow_mut() = Some(Reason::Error(error));
                data
            }
        }
    }

    /// Appends each of `pieces` to the output.
    pub fn write_sequence<I>(&self, pieces: I)
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        self.write_with(|output| {
            for piece in pieces {
                output.extend_from_slice(piece.as_ref());
            }
        });
    }

    /// Lets `fill` append to the output buffer: for encoders that would otherwise need a buffer of their
    /// own. `fill` must only append, and must not use this transport.
    ///
    /// # Panics
    /// When `fill` writes to the same transport.
    pub fn write_with<R>(&self, fill: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        if !self.takes_output() {
            return fill(&mut Vec::new());
        }
        let mut output = self.0.output.borrow_mut();
        let before = output.tail().len();
        let result = fill(output.tail());
        if self.is_watched() {
            drop(output);
            self.tell_written(&self.0.output.borrow().last()[before..]);
            output = self.0.output.borrow_mut();
        }
        self.appended(&mut output);
        result
    }

    /// Appends a shared body. A large one is not copied, but held until it is written.
    pub fn write_bytes(&self, data: Bytes) {
        if self.takes_output() {
            if self.is_watched() {
                self.tell_written(&data);
            }
            let mut output = self.0.output.borrow_mut();
            output.push(data);
            self.appended(&mut output);
        }
    }

    /// Appends a buffer without a copy, unless it is small.
    pub(crate) fn write_owned(&self, data: Vec<u8>) {
        if self.takes_output() {
            if self.is_watched() {
                self.tell_written(&data);
            }
            let mut output = self.0.output.borrow_mut();
            output.push_owned(data);
            self.appended(&mut output);
        }
    }

    fn takes_output(&self) -> bool {
        let takes = match self.0.write_half.get() {
            WriteHalf::Open => true,
            // A producer goes on until it has finished.
            WriteHalf::Ending => self.0.producer.borrow().is_some(),
            WriteHalf::Ended => false,
        };
        takes && self.0.state.get() == State::Open
    }

    fn producer_wrote(&self) {
        if let Some(registered) = &*self.0.producer.borrow() {
            registered.wrote();
        }
    }

    fn appended(&self, output: &mut Output) {
        self.producer_wrote();
        if WRITE_EARLY_BYTES < output.len()
            && self.0.producing.get()
            && self.0.failure.borrow().is_none()
            && self.0.layer.borrow().is_none()
            && !self.is_output_held()
            && let Err(error) = self.send(output)
        {
            *self.0.failure.borrow_mut() = Some(Reason::Error(error));
        }
        self.schedule();
    }

    fn schedule(&self) {
        if !self.0.scheduled.replace(true) {
            self.0.medium.schedule(self);
        }
    }

    /// Closes the connection once all output has been written. Nothing more is received or written; but a producer
    /// that is registered goes on until it has finished.
    pub fn lose_connection(&self) {
        if self.0.state.get() != State::Open {
            return;
        }
        if self.0.producer.borrow().is_some() {
            self.0.losing.set(true);
        } else {
            self.0.state.set(State::Closing);
        }
        self.schedule();
    }

    /// Ends the output once all of it has been written, and goes on reading. A producer that is registered goes on until it
    /// has finished. The protocol hears [`write_connection_lost`](Protocol::write_connection_lost).
    pub fn lose_write_connection(&self) {
        if self.takes_output() {
            self.0.write_half.set(WriteHalf::Ending);
            self.schedule();
        }
    }

    /// Closes the connection at the end of this turn and drops the output that waits. A peer over TCP sees a reset.
    pub fn abort_connection(&self) {
        if matches!(self.0.state.get(), State::Open | State::Closing) {
            self.0.state.set(State::Aborting);
            self.schedule();
        }
    }

    /// Whether the connection is being or has been closed.
    pub fn is_closing(&self) -> bool {
        self.0.state.get() != State::Open || self.0.losing.get()
    }

    /// Stops reading: the peer will be held back by the system's buffers. The loss of the connection may go
    /// unnoticed meanwhile.
    pub fn pause_reading(&self) {
        self.0.reading.set(false);
    }

    /// Reads on.
    pub fn resume_reading(&self) {
        if !self.0.reading.replace(true) && !self.is_input_held() {
            self.read_on();
        }
    }

    fn read_on(&self) {
        self.0.medium.resume_reading();
        self.input_resumed();
        if self.0.layer.borrow().is_some() {
            // It may hold bytes that were received before the pause.
            self.schedule();
        }
    }

    /// Whether more output waits than the high-water mark. Once this has said so, the protocol will hear
    /// [`resume_producing`](Protocol::resume_producing) when there is room again.
    pub fn is_full(&self) -> bool {
        let full = self.0.limits.get().high_bytes < self.buffered();
        if full {
            self.0.producing.set(false);
        }
        full
    }

    /// Bytes of output that wait, with what TLS adds to them.
    pub fn buffered(&self) -> usize {
        let encoded = self.0.layer.borrow().as_ref().map_or(0, |layered| layered.wire.len());
        self.0.output.borrow().len() + encoded
    }

    /// Sets the water marks.
    ///
    /// # Panics
    /// When the low mark is above the high one.
    pub fn set_write_buffer_limits(&self, limits: WriteLimits) {
        assert!(limits.low_bytes <= limits.high_bytes, "the low-water mark is above the high one");
        self.0.limits.set(limits);
    }

    /// Sends small segments at once, or gathers them (Nagle's algorithm). No effect on other than TCP.
    /// Accepted and made connections start with `true`.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_tcp_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.tcp_option(|socket| Ok(rustix::net::sockopt::set_tcp_nodelay(socket, nodelay)?))
            .unwrap_or(Ok(()))
    }

    /// Whether small segments are sent at once. False on other than TCP.
    ///
    /// # Errors
    /// What the system says.
    pub fn tcp_nodelay(&self) -> io::Result<bool> {
        self.tcp_option(|socket| Ok(rustix::net::sockopt::tcp_nodelay(socket)?))
            .unwrap_or(Ok(false))
    }

    /// Lets the system probe a peer that is silent for hours. No effect on other than TCP.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_tcp_keep_alive(&self, keep_alive: bool) -> io::Result<()> {
        self.tcp_option(|socket| {
            Ok(rustix::net::sockopt::set_socket_keepalive(socket, keep_alive)?)
        })
        .unwrap_or(Ok(()))
    }

    /// Whether the system probes a silent peer. False on other than TCP.
    ///
    /// # Errors
    /// What the system says.
    pub fn tcp_keep_alive(&self) -> io::Result<bool> {
        self.tcp_option(|socket| Ok(rustix::net::sockopt::socket_keepalive(socket)?))
            .unwrap_or(Ok(false))
    }

    /// Calls `f` with the socket, for options that have no method here. `None` when there is no socket of the system, or
    /// it is closed.
    pub fn with_socket<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
        self.0.medium.source().and_then(|source| source.kernel().map(f))
    }

    fn tcp_option<R>(
        &self,
        f: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Option<io::Result<R>> {
        matches!(self.0.host, PeerAddr::Tcp(_)).then(|| self.with_socket(f)).flatten()
    }

    /// A handle that does not keep the connection's memory once it is lost.
    pub fn downgrade(&self) -> WeakTransport {
        WeakTransport(Rc::downgrade(&self.0))
    }

    /// The other end; behind a proxy that [tells](crate::proxy_protocol) it, the real one.
    pub fn peer(&self) -> &PeerAddr {
        self.0.ends.get().map_or(&self.0.peer, |ends| &ends.0)
    }

    /// Our end, or the end that the peer has connected to.
    pub fn host(&self) -> &PeerAddr {
        self.0.ends.get().map_or(&self.0.host, |ends| &ends.1)
    }

    /// What a proxy has told, once.
    pub(crate) fn set_ends(&self, peer: PeerAddr, host: PeerAddr) {
        let _ = self.0.ends.set(Box::new((peer, host)));
    }

    /// A number no other transport of this thread has had.
    pub fn id(&self) -> u64 {
        self.0.id
    }
}

impl Consumer for Transport {
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: bool) {
        if self.0.state.get() != State::Open || self.0.write_half.get() == WriteHalf::Ended {
            return producer.stop_producing();
        }
        let mut place = self.0.producer.borrow_mut();
        assert!(place.is_none(), "a producer is registered already: unregister it first");
        *place = Some(Registered::new(producer, streaming));
        drop(place);
        self.schedule();
    }

    fn unregister_producer(&self) {
        let registered = self.0.producer.take();
        drop(registered);
        if self.0.losing.replace(false) && self.0.state.get() == State::Open {
            self.0.state.set(State::Closing);
        }
        self.schedule();
    }

    fn write(&self, data: &[u8]) {
        Transport::write(self, data);
    }
}

/// As the producer of what it receives: what a proxy registers with the other connection.
impl Producer for Transport {
    fn resume_producing(&self) {
        self.resume_reading();
    }

    fn pause_producing(&self) {
        self.pause_reading();
    }

    fn stop_producing(&self) {
        self.lose_connection();
    }
}

impl fmt::Debug for WeakTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WeakTransport").field(&self.upgrade()).finish()
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("id", &self.0.id)
            .field("peer", self.peer())
            .field("buffered", &self.buffered())
            .field("closing", &self.is_closing())
            .finish_non_exhaustive()
    }
}
