//! [`DatagramTransport`]: a protocol's handle on its socket; [`DatagramPort`]: what keeps the socket open.
//!
//! Cost of a datagram: one system call each way, no allocation. What the system has no room for is copied and waits.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::time::Duration;

use rustix::io::Errno;
use warren_hub::io::{IoHandler, Readiness, Registration, Source};
use warren_hub::{call_later, call_soon, contain, hub_local, is_running, no_wait};

use super::{DatagramAddr, DatagramError, DatagramProtocol};

/// Datagrams of one socket in one turn. Then others have theirs.
const DATAGRAMS_PER_TURN: usize = 128;
/// Datagrams that wait for the system to have room: so many bytes of them.
const WAITING_BYTES_MAX: usize = 256 * 1024;
/// What a datagram that waits counts beyond its bytes, so that empty ones do not wait without end.
const WAITING_BYTES_EACH: usize = 64;
/// How long to wait before receiving again after an error that the system gives no more news of.
const BACK_OFF: Duration = Duration::from_millis(100);

/// The buffer that all sockets of a thread receive into.
struct Received(Cell<Vec<u8>>);

fn received() -> Rc<Received> {
    hub_local(|| Received(Cell::default()))
}

/// A handle on a socket of datagrams. Cheap to clone; belongs to the hub it was made on.
///
/// Methods never call a protocol.
pub struct DatagramTransport<A: DatagramAddr = std::net::SocketAddr>(Rc<Port<A>>);

/// A socket that receives datagrams. Dropping it stops it: the protocol hears
/// [`stop_protocol`](DatagramProtocol::stop_protocol) from the loop.
#[must_use = "dropping it stops listening"]
pub struct DatagramPort<A: DatagramAddr = std::net::SocketAddr>(DatagramTransport<A>);

struct Port<A: DatagramAddr> {
    this: Weak<Self>,
    host: RefCell<A>,
    /// The one peer of a connected socket.
    peer: RefCell<Option<A>>,
    /// Until it is stopped. The protocol is told later.
    listening: Cell<bool>,
    /// Whether `connection_refused` is about to be called.
    refused: Cell<bool>,
    waiting: RefCell<Waiting<A>>,
    dropped: Cell<u64>,
    /// What is at its path in the file system, if it is in none of a simulation, is removed when it stops.
    path: Option<PathBuf>,
    received: Rc<Received>,
    /// Borrowed during its callbacks; `None` once stopped.
    protocol: RefCell<Option<Box<dyn DatagramProtocol<A>>>>,
    /// It goes before the source.
    registration: RefCell<Option<Registration>>,
    source: RefCell<Option<Source>>,
}

/// Datagrams for which the system has no room, in order.
struct Waiting<A> {
    datagrams: VecDeque<(Vec<u8>, Option<A>)>,
    bytes: usize,
}

impl<A: DatagramAddr> DatagramTransport<A> {
    /// Sends `data` to `addr`, or to the one peer of a connected transport, for which the address may be left out.
    ///
    /// A datagram for which the system has no room waits, up to 256 KiB of them; after that new ones are refused:
    /// what waits has been promised, and more memory would only make everything late. Unix sockets that are not
    /// connected let none wait: there the lack of room is the receiver's, the system gives no news of it, and one who
    /// does not read must not hold up the others.
    ///
    /// # Errors
    /// Why it was not sent. Whoever can bear the loss of a datagram may leave that unread.
    pub fn write(&self, data: &[u8], addr: impl Into<Option<A>>) -> Result<(), DatagramError> {
        self.0.write(data, addr.into())
    }

    /// Sends and receives to and from `addr` only, from now on: that nobody is there is told to
    /// [`connection_refused`](DatagramProtocol::connection_refused).
    ///
    /// # Errors
    /// [`DatagramError::Connected`] when it is already; what the system says.
    pub fn connect(&self, addr: A) -> Result<(), DatagramError> {
        self.0.connect(addr)
    }

    /// Where the socket is, with the real port; once connected, with the address from which the peer is reached.
    pub fn host(&self) -> A {
        self.0.host.borrow().clone()
    }

    /// The one peer of a connected transport.
    pub fn peer(&self) -> Option<A> {
        self.0.peer.borrow().clone()
    }

    /// Closes the socket; what waits to be sent is dropped. [`stop_protocol`](DatagramProtocol::stop_protocol) is called
    /// in the next turn.
    pub fn stop_listening(&self) {
        self.0.stop();
    }

    /// Whether the port has not been stopped.
    pub fn is_listening(&self) -> bool {
        self.0.listening.get()
    }

    /// Datagrams that were given to [`write`](Self::write) and could not be sent.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.get()
    }

    /// Bytes of datagrams that wait for the system to have room.
    pub fn buffered(&self) -> usize {
        self.0.waiting.borrow().bytes
    }

    /// Calls `f` with the socket, for options that have no method here. `None` in a simulation, and once stopped.
    pub fn with_socket<R>(&self, f: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
        self.0.source.borrow().as_ref().and_then(|source| source.kernel().map(f))
    }

    /// Joins a group of a simulation, or leaves it. `None` outside of one.
    pub(crate) fn set_simulated_member(
        &self,
        group: IpAddr,
        joins: bool,
    ) -> Option<io::Result<()>> {
        let source = self.0.source.borrow();
        let source = source.as_ref().filter(|source| source.kernel().is_none());
        source.map(|source| source.set_simulated_member(group, joins))
    }

    /// Sets an option. A simulated socket takes every setting and changes nothing by it.
    pub(crate) fn set(
        &self,
        what: &str,
        set: impl FnOnce(BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Result<(), DatagramError> {
        if !self.is_listening() {
            return Err(DatagramError::Stopped);
        }
        let set = self.with_socket(set).unwrap_or(Ok(()));
        set.map_err(|error| DatagramError::system(what, error.into()))
    }

    /// Tells an option; a simulated socket has none to tell.
    pub(crate) fn get<R>(
        &self,
        what: &str,
        get: impl FnOnce(BorrowedFd<'_>) -> Result<R, Errno>,
    ) -> Result<R, DatagramError> {
        if !self.is_listening() {
            return Err(DatagramError::Stopped);
        }
        let got = self.with_socket(get).unwrap_or(Err(Errno::OPNOTSUPP));
        got.map_err(|error| DatagramError::system(what, error.into()))
    }
}

impl<A: DatagramAddr> Clone for DatagramTransport<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: DatagramAddr> DatagramPort<A> {
    /// Begins to listen with `source`: the protocol is started, and receives from the next turn on.
    pub(crate) fn start(
        source: Source,
        path: Option<PathBuf>,
        peer: Option<A>,
        protocol: Box<dyn DatagramProtocol<A>>,
    ) -> Result<Self, DatagramError> {
        let host = host(&source)?;
        let port = Rc::new_cyclic(|this| Port {
            this: this.clone(),
            host: RefCell::new(host),
            peer: RefCell::new(peer),
            listening: Cell::new(true),
            refused: Cell::new(false),
            waiting: RefCell::new(Waiting { datagrams: VecDeque::new(), bytes: 0 }),
            dropped: Cell::new(0),
            path,
            received: received(),
            protocol: RefCell::new(Some(protocol)),
            registration: RefCell::default(),
            source: RefCell::default(),
        });
        let registration = source.watch(port.clone());
        *port.source.borrow_mut() = Some(source);
        match registration {
            Ok(registration) => *port.registration.borrow_mut() = Some(registration),
            Err(error) => {
                port.close();
                return Err(DatagramError::system("watch a socket of datagrams", error));
            }
        }
        let port = Self(DatagramTransport(port));
        let transport = port.transport();
        // Also from a fiber, which must not wait in a callback any more than the loop.
        no_wait(|| transport.0.tell(|protocol| protocol.start_protocol(transport)));
        Ok(port)
    }

    /// The transport that the protocol has.
    pub fn transport(&self) -> &DatagramTransport<A> {
        &self.0
    }

    /// Where it listens, with the real port.
    pub fn host(&self) -> A {
        self.0.host()
    }

    /// Closes the socket, as [`DatagramTransport::stop_listening`].
    pub fn stop_listening(self) {}
}

impl<A: DatagramAddr> Drop for DatagramPort<A> {
    fn drop(&mut self) {
        self.0.stop_listening();
    }
}

fn host<A: DatagramAddr>(source: &Source) -> Result<A, DatagramError> {
    let what = "tell where a socket of datagrams is";
    let addr = source.local_addr().map_err(|error| DatagramError::system(what, error))?;
    A::of(addr).ok_or_else(|| DatagramError::system(what, io::ErrorKind::InvalidInput.into()))
}

impl<A: DatagramAddr> Port<A> {
    fn write(&self, data: &[u8], addr: Option<A>) -> Result<(), DatagramError> {
        if !self.listening.get() {
            return Err(DatagramError::Stopped);
        }
        let to = match (&*self.peer.borrow(), addr) {
            (Some(peer), Some(to)) if !peer.is(&to) => return Err(connected(peer, &to)),
            (Some(_), _) => None,
            (None, Some(to)) => Some(to),
            (None, None) => return Err(DatagramError::NoAddress),
        };
        if let Some(to) = &to
            && !self.host.borrow().reaches(to)
        {
            let host = self.host.borrow().to_addr().to_string();
            return Err(DatagramError::Unreachable { host, to: to.to_addr().to_string() });
        }
        let sent = if self.waiting.borrow().datagrams.is_empty() {
            self.send(data, to.as_ref())
        } else {
            // Those that came first go first.
            Err(io::ErrorKind::WouldBlock.into())
        };
        match sent {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait(data, to),
            Err(error) => {
                self.drop_one();
                Err(self.failed(data, to.as_ref(), error))
            }
        }
    }

    /// Sends a datagram now, or not at all.
    fn send(&self, data: &[u8], to: Option<&A>) -> io::Result<()> {
        let source = self.source.borrow();
        let Some(source) = source.as_ref() else { return Ok(()) };
        let mut refused = false;
        loop {
            let sent = match to {
                Some(to) => source.send_to(data, &to.to_addr()),
                None => source.write(data),
            };
            match sent {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if to.is_none() && is_refusal(&error) => {
                    self.refuse();
                    if std::mem::replace(&mut refused, true) {
                        return Err(io::ErrorKind::ConnectionRefused.into());
                    }
                    // Of UDP, this was said to an earlier one, and this one was not even tried.
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Keeps a datagram until there is room.
    fn wait(&self, data: &[u8], to: Option<A>) -> Result<(), DatagramError> {
        let mut waiting = self.waiting.borrow_mut();
        let bytes = waiting.bytes + data.len() + WAITING_BYTES_EACH;
        if WAITING_BYTES_MAX < bytes || (to.is_some() && !A::IP) {
            self.drop_one();
            return Err(DatagramError::Full { waiting_bytes: waiting.bytes });
        }
        waiting.bytes = bytes;
        waiting.datagrams.push_back((data.to_vec(), to));
        Ok(())
    }

    /// There is room: sends what waits.
    fn flush(&self) {
        loop {
            let mut waiting = self.waiting.borrow_mut();
            let Some((data, to)) = waiting.datagrams.front() else { return };
            match self.send(data, to.as_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.drop_one();
                    let error = self.failed(data, to.as_ref(), error);
                    tracing::debug!(%error, "a datagram that waited is dropped");
                }
                Ok(()) => {}
            }
            let bytes = data.len() + WAITING_BYTES_EACH;
            waiting.bytes -= bytes;
            waiting.datagrams.pop_front();
        }
    }

    fn drop_one(&self) {
        self.dropped.set(self.dropped.get() + 1);
    }

    fn failed(&self, data: &[u8], to: Option<&A>, error: io::Error) -> DatagramError {
        let to = match (to, &*self.peer.borrow()) {
            (Some(to), _) | (None, Some(to)) => to.to_addr().to_string(),
            (None, None) => "nobody".to_owned(),
        };
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::MSGSIZE) => DatagramError::TooLong { bytes: data.len() },
            Some(Errno::ACCESS) if A::IP => DatagramError::Broadcast { to },
            _ if error.kind() == io::ErrorKind::ConnectionRefused => DatagramError::Refused { to },
            _ => DatagramError::system(format!("send {} bytes to {to}", data.len()), error),
        }
    }

    fn connect(&self, to: A) -> Result<(), DatagramError> {
        if !self.listening.get() {
            return Err(DatagramError::Stopped);
        }
        if let Some(peer) = &*self.peer.borrow() {
            return Err(connected(peer, &to));
        }
        let source = self.source.borrow();
        let Some(source) = source.as_ref() else { return Err(DatagramError::Stopped) };
        set_peer(source, &to)?;
        *self.host.borrow_mut() = host(source)?;
        *self.peer.borrow_mut() = Some(to);
        Ok(())
    }

    /// Lets the protocol hear, from the loop, that nobody was there.
    fn refuse(&self) {
        if let Some(this) = self.this.upgrade()
            && !self.refused.replace(true)
        {
            call_soon(move || this.tell_refused());
        }
    }

    fn tell_refused(&self) {
        if self.refused.replace(false) && self.listening.get() {
            self.tell_with(|protocol, transport| protocol.connection_refused(transport));
        }
    }

    fn stop(&self) {
        if !self.listening.replace(false) {
            return;
        }
        self.close();
        // Else no loop is left to tell the protocol from.
        if let Some(this) = self.this.upgrade().filter(|_| is_running()) {
            call_soon(move || this.finish());
        }
    }

    fn finish(&self) {
        self.tell(|protocol| protocol.stop_protocol());
        let protocol = self.protocol.take();
        drop(protocol);
    }

    fn close(&self) {
        let registration = self.registration.take();
        drop(registration);
        let waiting = std::mem::take(&mut self.waiting.borrow_mut().datagrams);
        drop(waiting);
        self.waiting.borrow_mut().bytes = 0;
        let source = self.source.take();
        let in_folder = source.as_ref().is_some_and(|source| source.kernel().is_some());
        drop(source);
        if let Some(path) = &self.path
            && in_folder
        {
            // It may have been removed by someone else.
            let _ = std::fs::remove_file(path);
        }
    }

    fn tell(&self, call: impl FnOnce(&mut dyn DatagramProtocol<A>)) {
        if let Some(protocol) = self.protocol.borrow_mut().as_mut() {
            // What has gone wrong is in the log.
            let _ = contain("a datagram protocol", || call(protocol.as_mut()));
        }
    }

    fn tell_with(&self, call: impl FnOnce(&mut dyn DatagramProtocol<A>, &DatagramTransport<A>)) {
        if let Some(this) = self.this.upgrade() {
            let transport = DatagramTransport(this);
            self.tell(|protocol| call(protocol, &transport));
        }
    }
}

impl<A: DatagramAddr> IoHandler for Port<A> {
    fn io_ready(&self, ready: Readiness) {
        if ready.contains(Readiness::WRITABLE) {
            self.flush();
        }
        if ready.intersects(Readiness::READABLE | Readiness::CLOSED | Readiness::ERROR) {
            let mut buffer = self.received.0.take();
            // One more than is accepted: what fills it was cut.
            if buffer.len() <= A::BYTES_MAX {
                buffer.resize(A::BYTES_MAX + 1, 0);
            }
            self.receive(&mut buffer[..=A::BYTES_MAX]);
            self.received.0.set(buffer);
        }
    }
}

impl<A: DatagramAddr> Port<A> {
    /// Receives until nothing is left, or it is another's turn.
    fn receive(&self, buffer: &mut [u8]) {
        for _ in 0..DATAGRAMS_PER_TURN {
            let received = match &*self.source.borrow() {
                Some(source) if self.listening.get() => source.receive_from(buffer),
                _ => return,
            };
            match received {
                Ok((count, from)) => {
                    if count == buffer.len() {
                        tracing::warn!(%from, "a datagram of more than {} bytes is dropped", A::BYTES_MAX);
                    } else if let Some(from) = A::of(from) {
                        self.deliver(&buffer[..count], from);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Told by the loop already, and by the protocol's own wish from within.
                Err(error) if is_refusal(&error) => {
                    self.refused.set(true);
                    self.tell_refused();
                }
                Err(error) => return self.back_off(&error),
            }
        }
        if let Some(registration) = &*self.registration.borrow() {
            registration.again(Readiness::READABLE);
        }
    }

    fn deliver(&self, data: &[u8], from: A) {
        // What others had sent before it was connected.
        let strange = A::IP && self.peer.borrow().as_ref().is_some_and(|peer| !peer.is(&from));
        if !strange {
            self.tell_with(|protocol, transport| protocol.datagram_received(transport, data, from));
        }
    }

    /// The error may be one of a datagram's, or of the machine's for some time.
    fn back_off(&self, error: &io::Error) {
        tracing::warn!(%error, host = %self.host.borrow().to_addr(), "cannot receive datagrams; trying on");
        let again = self.registration.borrow().as_ref().map(Registration::again_later);
        if let Some(again) = again {
            call_later(BACK_OFF, move || again.again(Readiness::READABLE));
        }
    }
}

/// Of a socket that is connected. A Unix socket says it once, and then that it is not connected any more.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotConnected)
}

fn connected<A: DatagramAddr>(peer: &A, to: &A) -> DatagramError {
    DatagramError::Connected { peer: peer.to_addr().to_string(), to: to.to_addr().to_string() }
}

/// Connects the socket.
pub(crate) fn set_peer<A: DatagramAddr>(source: &Source, to: &A) -> Result<(), DatagramError> {
    let addr = to.to_addr();
    source.set_peer(&addr).map_err(|error| {
        DatagramError::system(format!("connect a socket of datagrams to {addr}"), error)
    })
}

impl<A: DatagramAddr> fmt::Debug for DatagramTransport<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramTransport")
            .field("host", &self.0.host.borrow())
            .field("peer", &self.0.peer.borrow())
            .field("buffered", &self.buffered())
            .field("listening", &self.is_listening())
            .finish_non_exhaustive()
    }
}

impl<A: DatagramAddr> fmt::Debug for DatagramPort<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatagramPort").field(&self.0.0.host.borrow()).finish()
    }
}
