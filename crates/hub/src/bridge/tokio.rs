//! tokio on one thread beside the hubs, for libraries that call `tokio::spawn` or use its sockets and timers.
//!
//! The thread starts at the first use and runs a `current_thread` runtime for the rest of the process. What it
//! computes parks the fiber that asked, as an [`offload`](crate::offload) does; data crosses threads, so the closure
//! and its result are `Send`, but the future it makes need not be.
//!
//! ```
//! use std::time::Duration;
//! use warren_hub::bridge::tokio;
//!
//! let answer = warren_hub::run(|| {
//!     tokio::run(|| async {
//!         ::tokio::time::sleep(Duration::from_millis(1)).await;
//!         42
//!     })
//! });
//! assert_eq!(answer, 42);
//! ```
//!
//! A client of such a library (a `reqwest::Client`, a russh session) lives where its tasks run: make it within
//! [`run`], and hand clones of it to later calls.

use std::fmt;
use std::io;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::thread;

use ::tokio::runtime::{Builder, Handle};
use ::tokio::sync::{mpsc, oneshot};
use ::tokio::task::{self, LocalSet};

use crate::future;
use crate::join::{JoinError, Panic};
use crate::sim;

/// Runs the future that `make` makes on tokio's thread, and gives its output. A panic in it is passed on. When the
/// fiber is killed, or times out, the task is aborted.
///
/// # Suspends
/// Until the future is ready.
///
/// # Panics
/// As `make` and the future do. Outside a fiber. As [`spawn`].
pub fn run<F>(make: impl FnOnce() -> F + Send + 'static) -> F::Output
where
    F: Future + 'static,
    F::Output: Send + 'static,
{
    match spawn(make).join() {
        Ok(output) => output,
        Err(JoinError::Panicked(panic)) => resume_unwind(panic.into_payload()),
        Err(JoinError::Killed) => panic!("tokio's thread has ended"),
    }
}

/// Starts the future that `make` makes on tokio's thread.
///
/// # Panics
/// When the system refuses the thread. In a simulation: a thread would not go by its seed.
pub fn spawn<F>(make: impl FnOnce() -> F + Send + 'static) -> Task<F::Output>
where
    F: Future + 'static,
    F::Output: Send + 'static,
{
    assert!(
        sim::World::current().is_none(),
        "tokio's thread would not go by the simulation's seed: wait for the future on a fiber"
    );
    let (started, starting) = oneshot::channel();
    let job = move || {
        if !started.is_closed() {
            // Within the task, so that a panic of `make` is the task's.
            let task = Running(task::spawn_local(async move { make().await }));
            // Dropped by now? Then this aborts it.
            drop(started.send(task));
        }
    };
    // The thread takes jobs for as long as the process runs.
    let _ = sidecar().jobs.send(Box::new(job));
    Task(State::Starting(starting))
}

/// tokio's own handle to the runtime, to start what nobody waits for, and for libraries that ask for one.
///
/// Do not hold what its `enter` gives across a wait: other fibers would find themselves in it.
///
/// # Panics
/// When the system refuses the thread.
pub fn handle() -> Handle {
    sidecar().handle.clone()
}

/// A task on tokio's thread, and a future of its result. Dropping it aborts the task.
#[must_use = "a task that is dropped is aborted"]
pub struct Task<T>(State<T>);

enum State<T> {
    Starting(oneshot::Receiver<Running<T>>),
    Running(Running<T>),
}

/// Aborts its task when dropped.
struct Running<T>(task::JoinHandle<T>);

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Task<T> {
    /// Waits for the task's end, and takes its result.
    ///
    /// # Suspends
    /// Until the task has ended.
    ///
    /// # Errors
    /// When it has panicked.
    ///
    /// # Panics
    /// Outside a fiber.
    pub fn join(self) -> Result<T, JoinError> {
        future::wait(self)
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            match &mut self.0 {
                State::Starting(starting) => match ready!(Pin::new(starting).poll(cx)) {
                    Ok(running) => self.0 = State::Running(running),
                    Err(_) => return Poll::Ready(Err(JoinError::Killed)),
                },
                State::Running(running) => {
                    let ended = ready!(Pin::new(&mut running.0).poll(cx));
                    return Poll::Ready(ended.map_err(|error| match error.try_into_panic() {
                        Ok(payload) => JoinError::Panicked(Panic::new(payload)),
                        Err(_) => JoinError::Killed,
                    }));
                }
            }
        }
    }
}

impl<T> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

/// Starts a task. Run on tokio's thread.
type Job = Box<dyn FnOnce() + Send>;

struct Sidecar {
    /// Without a bound of its own: for each job somebody waits, so there are as many as fibers.
    jobs: mpsc::UnboundedSender<Job>,
    handle: Handle,
}

fn sidecar() -> &'static Sidecar {
    static SIDECAR: OnceLock<Sidecar> = OnceLock::new();
    SIDECAR.get_or_init(|| match start() {
        Ok(sidecar) => sidecar,
        Err(error) => panic!("cannot start tokio's thread: {error}"),
    })
}

fn start() -> io::Result<Sidecar> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (jobs, mut inbox) = mpsc::unbounded_channel::<Job>();
    thread::Builder::new().name("warren-tokio".into()).spawn(move || {
        LocalSet::new().block_on(&runtime, async move {
            while let Some(job) = inbox.recv().await {
                job();
            }
        });
    })?;
    Ok(Sidecar { jobs, handle })
}
