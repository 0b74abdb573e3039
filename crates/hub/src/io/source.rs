//! Sockets for callbacks: the hub's own, of the kernel or of a simulation, that never block.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use crate::driver::{self, Listen};
use crate::hub;
use crate::io::{Addr, IoHandler, Registration};

/// A socket whose calls answer `WouldBlock` instead of waiting; a handler hears when to try again ([`watch`](Self::watch)).
/// What the reactor is built on. Clones are the same socket, which is closed when the last one and its registration
/// are gone.
#[derive(Clone)]
pub struct Source(pub(super) Rc<driver::Source>);

impl Source {
    /// A socket that accepts connections on `addr`; `backlog` of them may wait, if the system allows so many. An address
    /// of TCP may be taken again at once after a restart (`SO_REUSEADDR`), and `[::]` is not `0.0.0.0`.
    ///
    /// # Errors
    /// What the system says, such as that the address is in use.
    pub fn listen(addr: &Addr, backlog: i32) -> io::Result<Self> {
        let how = Listen { backlog, reuse_port: false, only_v6: true };
        // A server may find out that a port is taken before it runs a hub.
        let listening = hub::try_with(|hub| hub.driver.listen(addr, how));
        Ok(Self::of(listening.unwrap_or_else(|| driver::listen(addr, how))?))
    }

    /// A socket that is being connected to `addr`, from `bind` when that is given. It becomes writable when that has ended; then
    /// [`take_error`](Self::take_error) tells how.
    ///
    /// # Errors
    /// What the system says at once.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn connect(addr: &Addr, bind: Option<&Addr>) -> io::Result<Self> {
        Ok(Self::of(hub::with(|hub| hub.driver.connect(addr, bind))?))
    }

    /// A descriptor that has been made non-blocking.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self::of(driver::Source::Kernel(fd))
    }

    /// The descriptor, to be given to another hub. `None` in a simulation, and while it is watched or there is another
    /// clone.
    pub fn into_fd(self) -> Option<OwnedFd> {
        match Rc::try_unwrap(self.0) {
            Ok(driver::Source::Kernel(fd)) => Some(fd),
            _ => None,
        }
    }

    pub(super) fn of(source: driver::Source) -> Self {
        Self(Rc::new(source))
    }

    /// Lets `handler` hear of readiness, as [`register`](super::register) does.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn watch(&self, handler: Rc<dyn IoHandler>) -> io::Result<Registration> {
        hub::with(|hub| {
            let key = hub.watch(&self.0, handler)?;
            Ok(Registration::of_source(hub, self.0.clone(), key))
        })
    }

    /// The next connection, and where it comes from.
    ///
    /// # Errors
    /// `WouldBlock` when there is none yet; what the system says.
    pub fn accept(&self) -> io::Result<(Self, Addr)> {
        let (source, peer) = self.0.accept()?;
        Ok((Self::of(source), peer))
    }

    /// Reads what is there; 0: the peer will send no more.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; what the system says.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; what the system says.
    pub fn write(&self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data)
    }

    /// As [`write`](Self::write), from several slices.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_vectored(&self, data: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(data)
    }

    /// Ends one or both directions.
    ///
    /// # Errors
    /// What the system says, such as that the peer has gone already.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.shutdown(how)
    }

    /// Lets the close be a reset: what the system still holds for the peer is thrown away (`SO_LINGER` of no time). No
    /// effect on other than TCP.
    pub fn reset_on_close(&self) {
        self.0.reset_on_close();
    }

    /// The error that waits on the socket, which this takes off.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.0.take_error()
    }

    /// Our end.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<Addr> {
        self.0.local_addr()
    }

    /// The other end.
    ///
    /// # Errors
    /// What the system says, such as that it has gone.
    pub fn peer_addr(&self) -> io::Result<Addr> {
        self.0.peer_addr()
    }

    /// The descriptor, for options that have no method here; `None` in a simulation.
    pub fn kernel(&self) -> Option<BorrowedFd<'_>> {
        self.0.kernel()
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
