//! Accepting connections.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use warren_hub::io::{Addr, IoHandler, Readiness, Registration, Source};
use warren_hub::{call_later, call_soon, contain};

use crate::protocol::{Factory, PeerAddr, Protocol};
use crate::remote::RemoteFactory;
use crate::socket::{adopt, set_nodelay};

/// Connections that the kernel holds until they are accepted. It lowers this to its own limit.
pub(crate) const BACKLOG: i32 = 4096;
/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 64;
/// How long to wait before accepting again when the process has no descriptor or memory left.
const BACK_OFF: Duration = Duration::from_millis(100);

/// A listening socket. Dropping it stops listening; connections live on.
pub struct ListeningPort(Rc<Listener>);

struct Listener {
    addr: PeerAddr,
    factory: RefCell<Box<dyn Factory>>,
    registration: RefCell<Option<Registration>>,
    source: RefCell<Option<Source>>,
    complained: Cell<bool>,
    /// The factory has been told that it is used.
    started: Cell<bool>,
    /// Who serves the connections, in turn; nobody else: the factory does.
    outposts: Vec<RemoteFactory>,
    /// Connections that were accepted for them.
    handed: Cell<usize>,
    /// The socket's path is removed when nobody listens any more.
    owns_path: bool,
}

/// A socket that is bound and holds connections in its backlog, but does not accept them yet: a server can
/// find out that a port is taken before it does anything else.
#[derive(Debug)]
pub struct BoundPort {
    source: Source,
    addr: PeerAddr,
    owns_path: bool,
}

/// Binds `addr`. Port 0 takes a free one. The address may be taken again at once after a restart
/// (`SO_REUSEADDR`).
///
/// # Errors
/// What the system says, such as that the address is in use.
pub fn bind_tcp(addr: SocketAddr) -> io::Result<BoundPort> {
    bind_tcp_with(addr, BACKLOG)
}

pub(crate) fn bind_tcp_with(addr: SocketAddr, backlog: i32) -> io::Result<BoundPort> {
    let source = Source::listen(&addr.into(), backlog)?;
    let addr = source.local_addr()?.into();
    Ok(BoundPort { source, addr, owns_path: false })
}

/// Binds a Unix socket at `path`. A socket that a dead process has left there is replaced; one that answers
/// is not.
///
/// # Errors
/// `AddrInUse` when something else is at `path`, and what the system says.
pub fn bind_unix(path: &Path) -> io::Result<BoundPort> {
    bind_unix_with(path, BACKLOG)
}

pub(crate) fn bind_unix_with(path: &Path, backlog: i32) -> io::Result<BoundPort> {
    let addr = Addr::Unix(std::os::unix::net::SocketAddr::from_pathname(path)?);
    let connects = |path: &Path| std::os::unix::net::UnixStream::connect(path).map(drop);
    let bound = match Source::listen(&addr, backlog) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path, connects) => {
            std::fs::remove_file(path)?;
            Source::listen(&addr, backlog)
        }
        other => other,
    };
    Ok(BoundPort { source: bound?, addr: PeerAddr::Unix(Some(path.to_owned())), owns_path: true })
}

/// Listens for TCP connections on `addr`, as [`bind_tcp`], and lets `factory` build a protocol for each.
///
/// # Errors
/// What the system says, such as that the address is in use.
///
/// # Panics
/// When no hub runs on this thread.
pub fn listen_tcp(addr: SocketAddr, factory: Box<dyn Factory>) -> io::Result<ListeningPort> {
    bind_tcp(addr)?.listen(factory)
}

/// Listens on a Unix socket at `path`, as [`bind_unix`], and lets `factory` build a protocol for each connection.
///
/// # Errors
/// `AddrInUse` when something else is at `path`, and what the system says.
///
/// # Panics
/// When no hub runs on this thread.
pub fn listen_unix(path: &Path, factory: Box<dyn Factory>) -> io::Result<ListeningPort> {
    bind_unix(path)?.listen(factory)
}

impl BoundPort {
    /// Where it is bound, with the real port.
    pub fn addr(&self) -> &PeerAddr {
        &self.addr
    }

    /// A socket that somebody else has bound, who also removes its path.
    pub(crate) fn of(source: Source) -> io::Result<Self> {
        let addr = source.local_addr()?.into();
        Ok(Self { source, addr, owns_path: false })
    }

    /// Accepts connections from now on, those that wait first.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn listen(self, factory: Box<dyn Factory>) -> io::Result<ListeningPort> {
        self.accept_for(Vec::new(), factory)
    }

    /// Accepts connections here from now on, and hands each to one of `outposts`, in turn, to be served on its hub.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    ///
    /// # Panics
    /// When no hub runs on this thread, or there are no outposts.
    pub fn listen_at(self, outposts: Vec<RemoteFactory>) -> io::Result<ListeningPort> {
        assert!(!outposts.is_empty(), "nobody is there to serve connections");
        self.accept_for(outposts, Box::new(|_: &PeerAddr| None))
    }

    fn accept_for(
        self,
        outposts: Vec<RemoteFactory>,
        factory: Box<dyn Factory>,
    ) -> io::Result<ListeningPort> {
        set_nodelay(&self.source, &self.addr);
        let port = ListeningPort::new(self.addr, factory, self.owns_path, outposts);
        let registration = self.source.watch(port.0.clone())?;
        *port.0.registration.borrow_mut() = Some(registration);
        *port.0.source.borrow_mut() = Some(self.source);
        port.start_factory();
        Ok(port)
    }
}

/// Whether `path` is a socket on which nobody listens, by the kind of connection that it takes.
pub(crate) fn is_abandoned(path: &Path, connect: impl FnOnce(&Path) -> io::Result<()>) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
    // What is no socket refuses as well.
    is_socket && connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

impl ListeningPort {
    /// One that accepts nothing, at least not yet.
    pub(crate) fn without_socket(
        addr: PeerAddr,
        factory: Box<dyn Factory>,
        owns_path: bool,
    ) -> Self {
        Self::new(addr, factory, owns_path, Vec::new())
    }

    fn new(
        addr: PeerAddr,
        factory: Box<dyn Factory>,
        owns_path: bool,
        outposts: Vec<RemoteFactory>,
    ) -> Self {
        Self(Rc::new(Listener {
            addr,
            factory: RefCell::new(factory),
            registration: RefCell::default(),
            source: RefCell::default(),
            complained: Cell::new(false),
            started: Cell::new(false),
            outposts,
            handed: Cell::new(0),
            owns_path,
        }))
    }

    pub(crate) fn start_factory(&self) {
        self.0.started.set(true);
        let _ = contain("a factory", || self.0.factory.borrow_mut().start_factory());
    }

    /// The factory's protocol for a peer that has come by itself.
    pub(crate) fn build_protocol(&self, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        self.0.build_protocol(peer)
    }

    /// Where it listens, with the real port.
    pub fn addr(&self) -> &PeerAddr {
        &self.0.addr
    }

    /// Accepts no more. Connections live on.
    pub fn stop_listening(self) {}
}

impl Drop for ListeningPort {
    fn drop(&mut self) {
        let registration = self.0.registration.take();
        drop(registration);
        let source = self.0.source.take();
        let in_folder = source.as_ref().is_some_and(|source| source.kernel().is_some());
        drop(source);
        if self.0.factory.try_borrow_mut().is_ok() {
            self.0.stop_factory();
        } else {
            // Dropped by the factory itself, which is told when it has returned.
            let listener = self.0.clone();
            call_soon(move || listener.stop_factory());
        }
        if let PeerAddr::Unix(Some(path)) = &self.0.addr
            && in_folder
            && self.0.owns_path
        {
            // It may have been removed by someone else.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl fmt::Debug for ListeningPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ListeningPort").field(&self.0.addr).finish()
    }
}

impl IoHandler for Listener {
    fn io_ready(&self, _ready: Readiness) {
        for _ in 0..ACCEPTS_PER_TURN {
            let accepted = match &*self.source.borrow() {
                Some(source) => source.accept(),
                None => return,
            };
            match accepted {
                Ok((source, peer)) => self.welcome(source, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_passing(&error) => {}
                Err(error) => return self.back_off(&error),
            }
        }
        self.accept_again();
    }
}

/// The peer has gone again, or a signal came: the next connection is as good.
fn is_passing(error: &io::Error) -> bool {
    [Errno::INTR, Errno::CONNABORTED, Errno::PROTO]
        .iter()
        .any(|passing| error.raw_os_error() == Some(passing.raw_os_error()))
}

impl Listener {
    fn welcome(&self, source: Source, peer: Addr) {
        self.complained.set(false);
        let peer = match peer {
            Addr::Ip(addr) => PeerAddr::Tcp(addr),
            Addr::Unix(_) => PeerAddr::Unix(None),
        };
        let host = match &self.addr {
            // Which of the machine's addresses the peer has used.
            PeerAddr::Tcp(addr) if addr.ip().is_unspecified() => {
                source.local_addr().map_or_else(|_| self.addr.clone(), PeerAddr::from)
            }
            addr => addr.clone(),
        };
        if !self.outposts.is_empty() {
            return self.hand_on(source, peer, host);
        }
        let Some(protocol) = self.build_protocol(&peer) else { return };
        if let Err(error) = adopt(source, peer, host, protocol) {
            tracing::warn!(%error, "a connection could not be served");
        }
    }

    /// Lets another hub serve a connection.
    fn hand_on(&self, source: Source, peer: PeerAddr, host: PeerAddr) {
        let turn = self.handed.get();
        self.handed.set(turn.wrapping_add(1));
        match source.into_fd() {
            Some(socket) => self.outposts[turn % self.outposts.len()].serve(socket, peer, host),
            None => tracing::warn!("a simulated connection cannot go to another hub"),
        }
    }

    fn stop_factory(&self) {
        if self.started.replace(false) {
            let _ = contain("a factory", || self.factory.borrow_mut().stop_factory());
        }
    }

    /// One that panics refuses the connection.
    fn build_protocol(&self, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        contain("a factory", || self.factory.borrow_mut().build_protocol(peer)).ok().flatten()
    }

    fn accept_again(&self) {
        if let Some(registration) = &*self.registration.borrow() {
            registration.again(Readiness::READABLE);
        }
    }

    /// No descriptor or memory is left: those who wait stay in the backlog until some is free.
    fn back_off(&self, error: &io::Error) {
        if !self.complained.replace(true) {
            tracing::error!(%error, listener = %self.addr, "cannot accept connections; trying on");
        }
        let Some(key) = self.registration.borrow().as_ref().map(Registration::again_later) else {
            return;
        };
        call_later(BACK_OFF, move || key.again(Readiness::READABLE));
    }
}
