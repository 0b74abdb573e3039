//! Sockets as a transport's medium, and the reactor of a thread: one read buffer for all, one flush per turn.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::net::Shutdown;
use std::rc::{Rc, Weak};
use std::time::Duration;

use warren_hub::io::{IoHandler, Readiness, Registration, Source};
use warren_hub::{
    Phase, Timer, TurnHook, TurnHookGuard, call_later, call_soon, hub_local, on_turn_end,
};

use crate::output::Output;
use crate::protocol::{PeerAddr, Protocol, Reason};
use crate::remote::Link;
use crate::transport::{Close, Medium, Transport};

/// The buffer that all connections of a thread read into.
pub(crate) const READ_BYTES: usize = 128 * 1024;
/// Reads of one connection in one turn. Then others have theirs.
pub(crate) const READS_PER_TURN: usize = 4;
/// How long a closed connection may take to read what we sent last. Closing at once could make the kernel throw
/// that away on the other side, when bytes we have not read are on their way (RFC 1122 §4.2.2.13).
const LINGER: Duration = Duration::from_secs(2);

/// What the connections of a thread share.
pub(crate) struct Reactor {
    /// Those with something to flush or to close, in the order in which they asked.
    scheduled: RefCell<Vec<Transport>>,
    /// Ways to other hubs.
    links: RefCell<Vec<Weak<dyn Link>>>,
    pub(crate) buffer: Cell<Vec<u8>>,
}

impl Reactor {
    /// Lets `transport` settle at the end of this turn.
    pub(crate) fn schedule(&self, transport: &Transport) {
        self.scheduled.borrow_mut().push(transport.clone());
    }

    /// Lets `link` be flushed at the end of each turn.
    pub(crate) fn add_link(&self, link: Weak<dyn Link>) {
        let mut links = self.links.borrow_mut();
        links.retain(|link| link.strong_count() != 0);
        links.push(link);
    }

    fn flush_links(&self) {
        if self.links.borrow().is_empty() {
            return;
        }
        let links: Vec<_> = self.links.borrow().iter().filter_map(Weak::upgrade).collect();
        links.iter().for_each(|link| link.flush());
    }
}

impl TurnHook for Reactor {
    fn turn_end(&self) {
        let mut transports = self.scheduled.take();
        let mut told = false;
        for transport in transports.drain(..) {
            told |= transport.settle();
        }
        let mut scheduled = self.scheduled.borrow_mut();
        if told || !scheduled.is_empty() {
            // What protocols have written since, and what they have asked of others, whose work in this turn is done:
            // another turn, before the loop sleeps.
            call_soon(|| {});
        }
        if scheduled.is_empty() {
            // Its memory serves the next turn.
            *scheduled = transports;
        }
        drop(scheduled);
        self.flush_links();
    }
}

/// The reactor of this thread's hub, which lives as long as the hub.
pub(crate) fn reactor() -> Rc<Reactor> {
    struct Hooked {
        reactor: Rc<Reactor>,
        /// For as long as the hub runs: the hook costs a glance per turn.
        _hook: TurnHookGuard,
    }
    let hooked = hub_local(|| {
        let reactor = Rc::new(Reactor {
            scheduled: RefCell::default(),
            links: RefCell::default(),
            buffer: Cell::default(),
        });
        let hook = on_turn_end(Phase::Flush, reactor.clone());
        Hooked { reactor, _hook: hook }
    });
    hooked.reactor.clone()
}

/// The state of a socket, shared by the medium and the hub's handler.
struct Socket {
    transport: OnceCell<Transport>,
    reactor: Rc<Reactor>,
    registration: RefCell<Option<Registration>>,
    source: RefCell<Option<Source>>,
    /// What may be read: bytes that were not because reading was paused, and the end, which is news only once.
    news: Cell<Readiness>,
    lingering: Cell<bool>,
    linger_timer: Cell<Option<Timer>>,
}

/// Hands a connected, non-blocking socket to `protocol`.
pub(crate) fn adopt(
    source: Source,
    peer: PeerAddr,
    host: PeerAddr,
    protocol: Box<dyn Protocol>,
) -> io::Result<Transport> {
    let socket = Rc::new(Socket {
        transport: OnceCell::new(),
        reactor: reactor(),
        registration: RefCell::default(),
        source: RefCell::default(),
        news: Cell::new(Readiness::empty()),
        lingering: Cell::new(false),
        linger_timer: Cell::default(),
    });
    let registration = source.watch(socket.clone())?;
    *socket.registration.borrow_mut() = Some(registration);
    *socket.source.borrow_mut() = Some(source);
    let transport =
        Transport::new(peer, host, protocol, Box::new(SocketMedium(Rc::downgrade(&socket))));
    let _ = socket.transport.set(transport.clone());
    transport.made();
    Ok(transport)
}

/// Lets small segments leave at once, if `source`, whose address is `addr`, is one of TCP. What a listening socket accepts
/// inherits it.
pub(crate) fn set_nodelay(source: &Source, addr: &PeerAddr) {
    if let (PeerAddr::Tcp(_), Some(socket)) = (addr, source.kernel()) {
        // A peer that has gone already is told of by reading.
        let _ = rustix::net::sockopt::set_tcp_nodelay(socket, true);
    }
}

/// The hub owns the socket, for as long as it watches it, and the socket its transport.
struct SocketMedium(Weak<Socket>);

impl Medium for SocketMedium {
    fn schedule(&self, transport: &Transport) {
        if let Some(socket) = self.0.upgrade() {
            socket.reactor.schedule(transport);
        }
    }

    fn write(&self, output: &mut Output) -> io::Result<()> {
        let Some(socket) = self.0.upgrade() else { return Ok(()) };
        let source = socket.source.borrow();
        let Some(source) = source.as_ref() else { return Ok(()) };
        output.write_by(|slices| match slices {
            // Spares the kernel the reading of a list.
            [one] => source.write(one),
            many => source.write_vectored(many),
        })
    }

    fn write_through(&self, data: &[u8]) -> io::Result<usize> {
        let Some(socket) = self.0.upgrade() else { return Ok(0) };
        let source = socket.source.borrow();
        let Some(source) = source.as_ref() else { return Ok(0) };
        match source.write(data) {
            Err(error) if is_passing(&error) => Ok(0),
            other => other,
        }
    }

    fn resume_reading(&self) {
        if let Some(socket) = self.0.upgrade()
            && !socket.news.get().is_empty()
            && let Some(registration) = &*socket.registration.borrow()
        {
            registration.again(socket.news.get());
        }
    }

    fn end_writing(&self) -> io::Result<()> {
        match self.source() {
            Some(source) => source.shutdown(Shutdown::Write),
            None => Ok(()),
        }
    }

    fn close(&self, how: Close) {
        let Some(socket) = self.0.upgrade() else { return };
        match how {
            Close::Gracefully => socket.linger(),
            Close::AtOnce => socket.close(),
            Close::Reset => socket.reset(),
        }
    }

    fn source(&self) -> Option<Source> {
        self.0.upgrade().and_then(|socket| socket.source.borrow().clone())
    }
}

/// No room now, or a signal came: there is another time.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl IoHandler for Socket {
    fn io_ready(&self, ready: Readiness) {
        if self.lingering.get() {
            return self.drain();
        }
        let Some(transport) = self.transport.get() else { return };
        if ready.contains(Readiness::WRITABLE) && transport.buffered() > 0 {
            transport.settle_later();
        }
        if ready.contains(Readiness::ERROR) && transport.has_input_ended() {
            // Nothing is read any more that would tell.
            return self.fail(transport);
        }
        let news = ready & (Readiness::READABLE | Readiness::CLOSED | Readiness::ERROR);
        if !news.is_empty() {
            self.news.set(self.news.get() | news);
            self.read(transport);
        }
    }
}

impl Socket {
    /// Reads until nothing is left, the protocol has had enough, or it is another's turn.
    fn read(&self, transport: &Transport) {
        let mut buffer = self.reactor.buffer.take();
        buffer.resize(READ_BYTES, 0);
        let end = self.read_into(&mut buffer, transport);
        self.reactor.buffer.set(buffer);
        match end {
            None => transport.answered(),
            Some(reason) => {
                self.close();
                transport.lost(reason);
            }
        }
    }

    fn read_into(&self, buffer: &mut [u8], transport: &Transport) -> Option<Reason> {
        // That there is nothing left to read does not undo the end.
        let emptied = || self.news.set(self.news.get() - Readiness::READABLE);
        for _ in 0..READS_PER_TURN {
            if !transport.reads() || transport.has_input_ended() {
                return None;
            }
            let read = match &*self.source.borrow() {
                Some(source) => source.read(buffer),
                None => return None,
            };
            match read {
                Ok(0) => {
                    self.news.set(Readiness::empty());
                    transport.input_ended();
                    return None;
                }
                Ok(count) => {
                    transport.received(&mut buffer[..count]);
                    // A short read has emptied the socket: the next bytes, or the end, are news again. Unless
                    // the end has been announced.
                    let over = Readiness::CLOSED | Readiness::ERROR;
                    if count < buffer.len() && !self.news.get().intersects(over) {
                        emptied();
                        return None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    emptied();
                    return None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Some(Reason::Error(error)),
            }
        }
        if let Some(registration) = &*self.registration.borrow() {
            registration.again(self.news.get());
        }
        None
    }

    /// The system has an error for us, such as that the peer is gone for good.
    fn fail(&self, transport: &Transport) {
        let error = match self.source.borrow().as_ref().map(Source::take_error) {
            Some(Ok(Some(error)) | Err(error)) => error,
            _ => return,
        };
        self.close();
        transport.lost(Reason::Error(error));
    }

    /// Nothing more will be written; waits a little for the peer to read and to close.
    fn linger(&self) {
        let shut = match &*self.source.borrow() {
            Some(source) => source.shutdown(Shutdown::Write),
            None => return,
        };
        let Some(transport) = self.transport.get() else { return };
        if shut.is_err() {
            return self.close();
        }
        self.lingering.set(true);
        let weak = transport.downgrade();
        let timer = call_later(LINGER, move || {
            if let Some(transport) = weak.upgrade() {
                transport.close_medium();
            }
        });
        self.linger_timer.set(Some(timer));
        // Bytes that were not read while reading was paused are no news.
        if let Some(registration) = &*self.registration.borrow() {
            registration.again(Readiness::READABLE);
        }
    }

    /// Reads what nobody wants any more, to see the end.
    fn drain(&self) {
        let mut buffer = self.reactor.buffer.take();
        buffer.resize(READ_BYTES, 0);
        let mut end = false;
        let mut empty = false;
        for _ in 0..READS_PER_TURN {
            let read = match &*self.source.borrow() {
                Some(source) => source.read(&mut buffer),
                None => Ok(0),
            };
            match read {
                Ok(0) => end = true,
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    empty = error.kind() == io::ErrorKind::WouldBlock;
                    end = !empty;
                }
            }
            break;
        }
        self.reactor.buffer.set(buffer);
        if end {
            self.close();
        } else if !empty && let Some(registration) = &*self.registration.borrow() {
            registration.again(Readiness::READABLE);
        }
    }

    /// Throws away what the system still holds for the peer, who sees a reset.
    fn reset(&self) {
        if let Some(source) = &*self.source.borrow() {
            source.reset_on_close();
        }
        self.close();
    }

    fn close(&self) {
        // The registration first: the hub forgets the descriptor before the number can be used again.
        let registration = self.registration.take();
        drop(registration);
        let source = self.source.take();
        drop(source);
        if let Some(timer) = self.linger_timer.take() {
            timer.cancel();
        }
    }
}
