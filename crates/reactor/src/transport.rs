//! [`Transport`]: a protocol's handle on its connection, and the rules of its life.
//!
//! ```text
//!   Open --lose_connection--> Closing --output drained--> Lost
//!     |                          |                          ^
//!     +----abort_connection------+--> Aborting -------------+   also: end of file, error
//! ```
//! What moves the bytes is a [`Medium`]: a socket, or a test's memory.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::rc::Rc;

use bytes::Bytes;

use crate::output::Output;
use crate::protocol::{PeerAddr, Protocol, Reason};

/// Output beyond this is offered to the system at once: the memory is still warm, and the peer gets on.
const WRITE_EARLY_BYTES: usize = 256 * 1024;

/// What carries a transport's bytes.
pub(crate) trait Medium {
    /// Arranges that [`Transport::settle`] is called at the end of this turn.
    fn schedule(&self, transport: &Transport);
    /// Writes what the system takes now.
    fn write(&self, output: &mut Output) -> io::Result<()>;
    /// Reading has been resumed: bytes may wait.
    fn resume_reading(&self);
    /// Ends it. `gracefully`: all output has been written, and the peer should get to read it.
    fn close(&self, gracefully: bool);
    /// Sends small segments at once, or gathers them (Nagle's algorithm).
    fn set_tcp_nodelay(&self, nodelay: bool) -> io::Result<()>;
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

/// A handle on a connection. Cheap to clone; belongs to the hub it was made on.
///
/// Methods never call a protocol and never fail: what goes wrong is told to
/// [`connection_lost`](Protocol::connection_lost) later.
#[derive(Clone)]
pub struct Transport(Rc<Inner>);

struct Inner {
    id: u64,
    peer: PeerAddr,
    host: PeerAddr,
    state: Cell<State>,
    reading: Cell<bool>,
    producing: Cell<bool>,
    /// Whether the medium will call `settle`.
    scheduled: Cell<bool>,
    limits: Cell<WriteLimits>,
    /// What the system said to an early write, until `settle` tells.
    failure: RefCell<Option<io::Error>>,
    output: RefCell<Output>,
    /// Borrowed during its callbacks; `None` once the connection is lost.
    protocol: RefCell<Option<Box<dyn Protocol>>>,
    medium: Box<dyn Medium>,
}

impl Transport {
    /// Appends `data` to the output.
    pub fn write(&self, data: &[u8]) {
        self.write_with(|output| output.extend_from_slice(data));
    }

    /// Lets `fill` append to the output buffer: for encoders that would otherwise need a buffer of their
    /// own. `fill` must only append, and must not use this transport.
    ///
    /// # Panics
    /// When `fill` writes to the same transport.
    pub fn write_with<R>(&self, fill: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        if self.0.state.get() != State::Open {
            return fill(&mut Vec::new());
        }
        let mut output = self.0.output.borrow_mut();
        let result = fill(output.tail());
        self.appended(&mut output);
        result
    }

    /// Appends a shared body. A large one is not copied, but held until it is written.
    pub fn write_bytes(&self, data: Bytes) {
        if self.0.state.get() == State::Open {
            let mut output = self.0.output.borrow_mut();
            output.push(data);
            self.appended(&mut output);
        }
    }

    fn appended(&self, output: &mut Output) {
        if WRITE_EARLY_BYTES < output.len()
            && self.0.producing.get()
            && self.0.failure.borrow().is_none()
            && let Err(error) = self.0.medium.write(output)
        {
            *self.0.failure.borrow_mut() = Some(error);
        }
        self.schedule();
    }

    fn schedule(&self) {
        if !self.0.scheduled.replace(true) {
            self.0.medium.schedule(self);
        }
    }

    /// Closes the connection once all output has been written. Nothing more is received or written.
    pub fn lose_connection(&self) {
        if self.0.state.get() == State::Open {
            self.0.state.set(State::Closing);
            self.schedule();
        }
    }

    /// Closes the connection at the end of this turn and drops the output that waits.
    pub fn abort_connection(&self) {
        if matches!(self.0.state.get(), State::Open | State::Closing) {
            self.0.state.set(State::Aborting);
            self.schedule();
        }
    }

    /// Whether the connection is being or has been closed.
    pub fn is_closing(&self) -> bool {
        self.0.state.get() != State::Open
    }

    /// Stops reading: the peer will be held back by the system's buffers. The loss of the connection may go
    /// unnoticed meanwhile.
    pub fn pause_reading(&self) {
        self.0.reading.set(false);
    }

    /// Reads on.
    pub fn resume_reading(&self) {
        if !self.0.reading.replace(true) {
            self.0.medium.resume_reading();
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

    /// Bytes of output that wait.
    pub fn buffered(&self) -> usize {
        self.0.output.borrow().len()
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
        self.0.medium.set_tcp_nodelay(nodelay)
    }

    /// The other end.
    pub fn peer(&self) -> &PeerAddr {
        &self.0.peer
    }

    /// Our end.
    pub fn host(&self) -> &PeerAddr {
        &self.0.host
    }

    /// A number no other transport of this thread has had.
    pub fn id(&self) -> u64 {
        self.0.id
    }
}

/// The medium's side: it calls the protocol, from the top of the loop only.
impl Transport {
    pub(crate) fn new(
        peer: PeerAddr,
        host: PeerAddr,
        protocol: Box<dyn Protocol>,
        medium: Box<dyn Medium>,
    ) -> Self {
        thread_local! {
            static LAST_ID: Cell<u64> = const { Cell::new(0) };
        }
        let id = LAST_ID.get() + 1;
        LAST_ID.set(id);
        Self(Rc::new(Inner {
            id,
            peer,
            host,
            state: Cell::new(State::Open),
            reading: Cell::new(true),
            producing: Cell::new(true),
            scheduled: Cell::new(false),
            limits: Cell::default(),
            failure: RefCell::default(),
            output: RefCell::default(),
            protocol: RefCell::new(Some(protocol)),
            medium,
        }))
    }

    pub(crate) fn made(&self) {
        self.tell(|protocol| protocol.connection_made(self));
    }

    pub(crate) fn received(&self, data: &[u8]) {
        self.tell(|protocol| protocol.data_received(self, data));
    }

    /// Whether the protocol wants bytes now.
    pub(crate) fn wants_data(&self) -> bool {
        self.0.reading.get() && self.0.state.get() == State::Open
    }

    /// The end of a turn: writes, tells the producer where the water stands, closes when that was asked.
    pub(crate) fn settle(&self) {
        self.0.scheduled.set(false);
        match self.0.state.get() {
            State::Lost => return,
            State::Aborting => {
                self.0.medium.close(false);
                return self.lost(Reason::Aborted);
            }
            State::Open | State::Closing => {}
        }
        let failure = self.0.failure.take();
        let written = match failure {
            Some(error) => Err(error),
            None => self.0.medium.write(&mut self.0.output.borrow_mut()),
        };
        if let Err(error) = written {
            self.0.medium.close(false);
            return self.lost(Reason::Error(error));
        }
        let waiting = self.buffered();
        if waiting == 0 && self.0.state.get() == State::Closing {
            self.0.medium.close(true);
            return self.lost(Reason::Closed);
        }
        let limits = self.0.limits.get();
        if self.0.producing.get() && limits.high_bytes < waiting {
            self.0.producing.set(false);
            self.tell(|protocol| protocol.pause_producing(self));
        } else if !self.0.producing.get() && waiting <= limits.low_bytes {
            self.0.producing.set(true);
            self.tell(|protocol| protocol.resume_producing(self));
        }
    }

    /// The end: the protocol hears why, and is dropped. The medium has been closed.
    pub(crate) fn lost(&self, reason: Reason) {
        self.0.state.set(State::Lost);
        self.0.output.borrow_mut().clear();
        let protocol = self.0.protocol.borrow_mut().take();
        if let Some(mut protocol) = protocol {
            protocol.connection_lost(&reason);
        }
    }

    /// There may be room for output again.
    pub(crate) fn settle_later(&self) {
        self.schedule();
    }

    pub(crate) fn close_medium(&self) {
        self.0.medium.close(false);
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.0.state.get() == State::Lost
    }

    fn tell(&self, call: impl FnOnce(&mut dyn Protocol)) {
        if let Some(protocol) = self.0.protocol.borrow_mut().as_mut() {
            call(protocol.as_mut());
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("id", &self.0.id)
            .field("peer", &self.0.peer)
            .field("buffered", &self.buffered())
            .field("closing", &self.is_closing())
            .finish_non_exhaustive()
    }
}
