//! The one door to the outside: whatever a hub takes from elsewhere passes a [`Driver`].
//!
//! ```text
//!                    hub, net, fs, offload
//!                            |
//!                         Driver              time, readiness, sockets, files, chance, blocking jobs, the bell
//!           +----------------+----------------+
//!         Epoll             Uring            Sim
//!      readiness of       the same, and     a world in memory: virtual clock, seeded choice,
//!       the kernel        files by the ring  network and disk that fail on demand
//! ```
//! Sockets are tried first and waited for when they answer "would block", whatever the driver: a [`Source`] is a
//! descriptor of the kernel or an [`Endpoint`] of a simulation, and readiness comes as edges under a key.

mod epoll;
mod file;
mod kernel;
mod source;
#[cfg(feature = "io-uring")]
mod uring;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{EventfdFlags, eventfd};

use crate::io::Readiness;
use crate::sim::SimDriver;
use crate::threadpool::ThreadPool;

pub(crate) use epoll::{Epoll, EpollSet, EventFlags, readiness, timespec};
pub(crate) use file::{Answer, Completion, Data, Entry, FileHandle, FileOp, Open, Reply};
pub use file::{FileType, Metadata};
pub(crate) use kernel::listen;
pub use source::Addr;
pub(crate) use source::{Endpoint, Source};
#[cfg(feature = "io-uring")]
pub(crate) use uring::{FileRing, Ring, RingDone, Uring};

/// A call that may block, for another thread.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// What has become ready: the key it was watched under.
pub(crate) type Event = (u64, Readiness);

/// How a socket listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listen {
    /// Connections that wait to be accepted. The kernel lowers this to its own limit.
    pub(crate) backlog: i32,
    /// Several sockets may listen on the address, and share what comes (`SO_REUSEPORT`).
    pub(crate) reuse_port: bool,
    /// `[::]` leaves `0.0.0.0` to others; else that is as the system is set up.
    pub(crate) only_v6: bool,
}

/// How a datagram socket is bound.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bind {
    /// Several sockets of this user may be bound to the address (`SO_REUSEPORT`).
    pub(crate) reuse_port: bool,
    /// So may those of other programs that ask for it in the older way (`SO_REUSEADDR`).
    pub(crate) reuse_addr: bool,
    /// `[::]` leaves `0.0.0.0` to others; else that is as the system is set up.
    pub(crate) only_v6: bool,
    /// It hears the groups it has joined. Without this, Linux lets a socket on the unspecified address hear those that
    /// anybody on the machine has joined (`IP_MULTICAST_ALL`).
    pub(crate) only_own_groups: bool,
}

/// Where a hub gets time, readiness, sockets, files, chance and threads from.
///
/// None of the methods parks a fiber or waits, but for [`wait`](Self::wait).
pub(crate) trait Driver {
    /// A name for reports.
    fn name(&self) -> &'static str;

    /// The clock that timers go by.
    fn now(&self) -> Instant {
        Instant::now()
    }

    /// The time of day.
    fn system_time(&self) -> SystemTime {
        SystemTime::now()
    }

    /// Fills `bytes` by chance.
    fn random(&self, bytes: &mut [u8]) {
        kernel::random(bytes);
    }

    /// Whether the two methods below are of any use: the loop asks once.
    fn is_simulated(&self) -> bool {
        false
    }

    /// Which of `ready` fibers, counted from the one that waits longest, runs next.
    fn choose(&self, ready: usize) -> usize {
        let _ = ready;
        0
    }

    /// How many fibers are resumed before the loop looks at timers and callbacks again.
    fn burst(&self) -> usize {
        64
    }

    /// The simulation that this is part of.
    fn simulation(&self) -> Option<&SimDriver> {
        None
    }

    /// Notes that something observable happens; a simulation's trace is made of this.
    fn trace(&self, what: u64, which: u64) {
        let _ = (what, which);
    }

    /// Watches a descriptor of the kernel in both directions; news come as edges, the first of them tells what is
    /// ready already.
    fn watch_fd(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()>;

    /// Ends that watch.
    fn unwatch_fd(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()>;

    /// As [`watch_fd`](Self::watch_fd), for a source of this driver's making.
    fn watch(&self, source: &Source, key: u64) -> io::Result<()> {
        match source {
            Source::Kernel(fd) | Source::Pipe(fd) => self.watch_fd(fd.as_fd(), key),
            Source::Simulated(endpoint) => endpoint.watch(Some(key)),
        }
    }

    /// Ends that watch.
    fn unwatch(&self, source: &Source, key: u64) -> io::Result<()> {
        match source {
            Source::Kernel(fd) | Source::Pipe(fd) => self.unwatch_fd(fd.as_fd(), key),
            Source::Simulated(endpoint) => endpoint.watch(None),
        }
    }

    /// What other threads ring to end a wait; heard as an event with `key`.
    fn bell(&self, key: u64) -> io::Result<Bell>;

    /// Waits for events, at most for `timeout`, for ever without one, and appends them.
    fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// A socket that accepts connections.
    fn listen(&self, addr: &Addr, how: Listen) -> io::Result<Source> {
        kernel::listen(addr, how)
    }

    /// A stream socket that is being connected: once it is writable, its error tells how that went. `from`: the
    /// address to connect from.
    fn connect(&self, to: &Addr, from: Option<&Addr>) -> io::Result<Source> {
        kernel::connect(to, from)
    }

    /// Two stream sockets that are connected to each other.
    fn pair(&self) -> io::Result<(Source, Source)> {
        kernel::pair()
    }

    /// A datagram socket; unbound without a name.
    fn datagram(&self, bind: &Addr, how: Bind) -> io::Result<Source> {
        kernel::datagram(bind, how)
    }

    /// What a host's name stands for; `None`: the network's name servers are to be asked.
    fn resolve(&self, host: &str) -> Option<io::Result<Vec<IpAddr>>> {
        let _ = host;
        None
    }

    /// Does something with files. How it went is told to `done`, on the loop or on another thread, and not before
    /// this has returned; it is dropped uncalled when nobody can do it. The operation goes to its end, whoever
    /// waits for it.
    fn file(&self, op: FileOp, done: Completion) {
        self.file_on_a_thread(op, done);
    }

    /// As [`file`](Self::file), by blocking calls.
    fn file_on_a_thread(&self, op: FileOp, done: Completion) {
        // Refused, the job is dropped, and `done` with it.
        let _ = self.run_blocking(Box::new(move || done(op.perform())));
    }

    /// Runs `job` where it may block.
    fn run_blocking(&self, job: Job) -> io::Result<()> {
        crate::offload::submit(job)
    }

    /// Runs `job` on a thread of `pool`.
    fn run_on(&self, pool: &ThreadPool, job: Job) -> io::Result<()> {
        pool.submit(job)
    }
}

/// Ends the wait of a hub from another thread.
pub(crate) enum Bell {
    /// Each ring is an edge to who watches it. Nobody reads it: its counter has room for ever.
    Eventfd(OwnedFd),
    /// Nobody waits in the kernel: the simulation looks by itself.
    Silent,
}

impl Bell {
    pub(crate) fn eventfd() -> io::Result<Self> {
        Ok(Self::Eventfd(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(crate) fn ring(&self) {
        if let Self::Eventfd(fd) = self {
            // Cannot fail: it would take 2^64 rings.
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    }
}
