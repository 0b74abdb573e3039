//! Readiness of descriptors, for callbacks: what the reactor and our own sockets are built on.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;

use crate::driver;
use crate::hub::{self, Hub};

mod datagram;
mod source;
pub(crate) mod wait_fd;

pub use crate::driver::Addr;
pub use source::Source;
pub use wait_fd::{closing, wait_fd};

bitflags::bitflags! {
    /// What may be done with a descriptor without waiting.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Readiness: u8 {
        /// Bytes, a connection to accept, or the end of the stream can be read.
        const READABLE = 1;
        /// Bytes can be written, or a connect has ended.
        const WRITABLE = 2;
        /// The peer will send no more. Comes with `READABLE`.
        const CLOSED = 4;
        /// An error waits to be fetched. Comes with `READABLE` and `WRITABLE`.
        const ERROR = 8;
    }
}

/// Hears of a descriptor's readiness.
///
/// Called on the loop and not on a fiber: it must not block, and a call that would park a fiber panics.
pub trait IoHandler {
    /// `ready` has changed for the better. Edge-triggered: told once; whoever does not use the readiness up,
    /// until the system answers "would block", must keep in mind that there is more, or ask to be called
    /// [`again`](Registration::again).
    fn io_ready(&self, ready: Readiness);
}

/// A descriptor watched by the hub. Dropping it ends the watch; it must go before the descriptor is closed.
#[derive(Debug)]
pub struct Registration {
    target: Target,
    /// The number of the hub. Another one of this thread may have given the same key.
    hub: u32,
    key: u64,
}

/// What is watched. Shared within the hub's thread, where a registration stays.
#[derive(Debug)]
enum Target {
    Fd(RawFd),
    Source(Rc<driver::Source>),
}

/// Lets `handler` hear of the readiness of `fd`, in both directions, from the next turn on. The first call
/// tells what is ready already.
///
/// # Errors
/// What `epoll_ctl` says, such as for a plain file.
///
/// # Panics
/// When no hub runs on this thread.
pub fn register(fd: BorrowedFd<'_>, handler: Rc<dyn IoHandler>) -> io::Result<Registration> {
    hub::with(|hub| hub.register(fd, handler))
}

/// A descriptor of our own for what this process was given under a number: by a service manager, or by a shell's
/// redirection. The number itself stays open. It is closed when another program is executed.
///
/// # Errors
/// `EBADF` when nothing is open under that number.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(rustix::io::Errno::BADF.into());
    }
    // SAFETY: the number is used for one call, which copies whatever is open under it or says that nothing is. Nothing
    // is assumed of it, and it is not closed.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    Ok(rustix::io::fcntl_dupfd_cloexec(borrowed, 3)?)
}

impl Registration {
    pub(crate) fn of_fd(hub: &Hub, fd: RawFd, key: u64) -> Self {
        Self { target: Target::Fd(fd), hub: hub.number, key }
    }

    fn of_source(hub: &Hub, source: Rc<driver::Source>, key: u64) -> Self {
        Self { target: Target::Source(source), hub: hub.number, key }
    }

    /// Calls the handler with `ready` once more in the next turn: for one that stops early to let others
    /// have their turn. Does nothing once the hub has ended.
    pub fn again(&self, ready: Readiness) {
        self.again_later().again(ready);
    }

    /// What calls the handler again at another time, such as from a timer. Does nothing once the
    /// registration is dropped.
    pub fn again_later(&self) -> Again {
        Again { hub: self.hub, key: self.key, not_send: PhantomData }
    }
}

/// Calls the handler of a [`Registration`] again.
#[derive(Debug)]
pub struct Again {
    hub: u32,
    key: u64,
    not_send: PhantomData<Rc<()>>,
}

impl Again {
    /// As [`Registration::again`].
    pub fn again(self, ready: Readiness) {
        hub::try_with(|hub| {
            if hub.number == self.hub {
                hub.ready_again(self.key, ready);
            }
        });
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        hub::try_with(|hub| match &self.target {
            _ if hub.number != self.hub => {}
            Target::Fd(fd) => hub.deregister(*fd, self.key),
            Target::Source(source) => hub.unwatch(source, self.key),
        });
    }
}
