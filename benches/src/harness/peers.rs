//! Who is measured, and how each is started.

use std::future::Future;

use clap::ValueEnum;

/// A runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// Fibers of our hub.
    Warren,
    /// The same with io_uring instead of epoll.
    Uring,
    /// Our reactor's protocols: callbacks on the same hub, without a stack per connection.
    Protocol,
    /// The stack switch under our fibers, alone: what no scheduler on it can beat.
    Corosensei,
    /// tokio's current-thread runtime with local tasks, its closest relative of a hub.
    Tokio,
    /// tokio's multi-thread runtime, with a worker per core it may use.
    TokioMulti,
    /// may's coroutines, with a worker per core it may use.
    May,
    /// gevent's greenlets.
    Gevent,
    /// Twisted's reactor, on epoll.
    Twisted,
    /// asyncio's protocols on uvloop: libuv's loop.
    Uvloop,
    /// Goroutines.
    Go,
    /// A model of `server_models`: a process for each connection.
    Process,
    /// A thread for each connection.
    Thread,
    /// A loop by hand on `select`.
    Select,
    /// A loop by hand on `poll`.
    Poll,
    /// A loop by hand on `epoll`.
    Epoll,
    /// Protocols of our reactor.
    Reactor,
    /// A fiber for each connection.
    Fibers,
}

impl Peer {
    /// As the tables call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Warren => "Warren",
            Self::Uring => "Warren, io_uring",
            Self::Protocol => "Warren, protocols",
            Self::Corosensei => "corosensei alone",
            Self::Tokio => "tokio, current thread",
            Self::TokioMulti => "tokio, multi thread",
            Self::May => "may",
            Self::Gevent => "gevent",
            Self::Twisted => "Twisted",
            Self::Uvloop => "uvloop",
            Self::Go => "Go",
            Self::Process => "a process each",
            Self::Thread => "a thread each",
            Self::Select => "select",
            Self::Poll => "poll",
            Self::Epoll => "epoll",
            Self::Reactor => "the reactor",
            Self::Fibers => "fibers",
        }
    }

    /// As the command line and its program call it.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Which part of a scenario's operations it does: Python takes its time.
    pub fn share(self) -> usize {
        if self.is_python() { 20 } else { 1 }
    }

    /// Whether it is a program in `peers/NAME_peer.py`.
    pub fn is_python(self) -> bool {
        matches!(self, Self::Gevent | Self::Twisted | Self::Uvloop)
    }

    /// Whether it is a model of the example `server_models`.
    pub fn is_model(self) -> bool {
        use Peer::{Epoll, Fibers, Poll, Process, Reactor, Select, Thread};
        matches!(self, Process | Thread | Select | Poll | Epoll | Reactor | Fibers)
    }

    /// Whether it is this program.
    pub fn is_rust(self) -> bool {
        !self.is_python() && !self.is_model() && self != Self::Go
    }
}

/// Runs a future on tokio's current-thread runtime, where `spawn_local` works.
pub(crate) fn tokio_local<T>(future: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio starts");
    runtime.block_on(tokio::task::LocalSet::new().run_until(future))
}

/// Runs a future as a task of tokio's multi-thread runtime.
pub(crate) fn tokio_multi<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("tokio starts");
    // Spawned, because what `block_on` runs itself is not on a worker.
    runtime.block_on(async { tokio::spawn(future).await.expect("no panic") })
}

/// Waits for tasks, one after the other.
pub(crate) async fn join_all<T>(tasks: Vec<tokio::task::JoinHandle<T>>) {
    for task in tasks {
        task.await.expect("no panic");
    }
}

/// Runs a function as a coroutine of may, on so many threads.
pub(crate) fn may_with<T: Send + 'static>(
    workers: usize,
    body: impl FnOnce() -> T + Send + 'static,
) -> T {
    // 32 KiB, twice its default: else `Instant` and formatting overflow in debug builds.
    may::config().set_workers(workers).set_stack_size(0x1000);
    may::go!(body).join().expect("no panic")
}
