//! [`ThreadPool`]: real threads for what would block a hub.
//!
//! A thread is started when a job finds none idle, up to the pool's bound; it ends after a while without work.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::driver::Job;
use crate::hub;
use crate::remote_join::{self, RemoteJoin};
use crate::shared::SharedEvent;
use crate::timer::TimedOut;

/// How long an idle thread stays.
const IDLE: Duration = Duration::from_secs(10);

/// At most so many threads, which run jobs that may block or compute for long, while fibers go on. gevent's
/// `ThreadPool`. Clones are the same pool. [`offload`](crate::offload()) is the short way, with a pool that everybody
/// shares.
///
/// Dropped, the pool runs no more jobs: those that wait are dropped, and their handles tell so; those that run go on
/// to their ends.
///
/// ```
/// use warren_hub::{ThreadPool, run};
///
/// run(|| {
///     let threads = ThreadPool::new(2);
///     assert_eq!(threads.map(|n: u32| n.pow(2), 1..=3), [1, 4, 9]);
///     assert_eq!(threads.apply(|| "done elsewhere"), "done elsewhere");
/// });
/// ```
#[derive(Clone)]
pub struct ThreadPool(Arc<Owner>);

/// Ends the threads when the last clone of a pool is dropped: they hold the workers, and not this.
struct Owner(Arc<Workers>);

struct Workers {
    name: Box<str>,
    state: Mutex<State>,
    /// Rung for a job, and at the end.
    work: Condvar,
    /// Set while there is nothing to do.
    done: SharedEvent,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads_max: usize,
    threads: usize,
    idle: usize,
    /// Jobs that wait or run.
    unfinished: usize,
    /// The pool is dropped or killed.
    ended: bool,
}

impl ThreadPool {
    /// A pool of at most `threads_max` threads, none of which is started yet.
    ///
    /// # Panics
    /// When `threads_max` is 0.
    pub fn new(threads_max: usize) -> Self {
        Self::named("warren-pool", threads_max)
    }

    /// As [`new`](Self::new), with a name for the threads.
    ///
    /// # Panics
    /// When `threads_max` is 0.
    pub fn named(name: &str, threads_max: usize) -> Self {
        assert!(threads_max > 0, "a pool needs a thread");
        let done = SharedEvent::new();
        done.set();
        let state = Mutex::new(State { threads_max, ..State::default() });
        let work = Condvar::new();
        let workers = Workers { name: name.into(), state, work, done };
        Self(Arc::new(Owner(Arc::new(workers))))
    }

    /// Runs `job` on a thread of the pool, as soon as one is free. To wait for its result parks a fiber.
    ///
    /// A pool that is killed, and a system that refuses the pool its first thread, drop the job: its handle says
    /// that it was killed.
    pub fn spawn<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> RemoteJoin<T> {
        let (join, job) = remote_join::remote(job);
        let job: Job = Box::new(job);
        let submitted = if hub::try_with(|_| ()).is_some() {
            hub::with(|hub| hub.driver.run_on(self, job))
        } else {
            self.submit(job)
        };
        if let Err(error) = submitted {
            tracing::error!(%error, pool = %self.0.0.name, "cannot start a thread");
        }
        join
    }

    /// Runs `job` on a thread of the pool and waits for its result.
    ///
    /// A fiber that is killed meanwhile goes at once; the job runs to its end, and its result is dropped.
    ///
    /// # Suspends
    /// Until the job is done. A thread without a hub blocks.
    ///
    /// # Panics
    /// When the job does, with its payload. When it was dropped, see [`spawn`](Self::spawn). On the loop of a hub.
    #[track_caller]
    pub fn apply<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.spawn(job).join().unwrap_or_else(|error| error.resume())
    }

    /// Calls `f` with each item on the pool's threads, and gives the results in the order of the items.
    ///
    /// # Suspends
    /// Until the last is done. A thread without a hub blocks.
    ///
    /// # Panics
    /// As [`apply`](Self::apply), with the first panic in the order of the items; the other jobs go on.
    #[track_caller]
    pub fn map<I: Send + 'static, T: Send + 'static>(
        &self,
        f: impl Fn(I) -> T + Send + Sync + 'static,
        items: impl IntoIterator<Item = I>,
    ) -> Vec<T> {
        let f = Arc::new(f);
        let start = |item| {
            let f = f.clone();
            self.spawn(move || f(item))
        };
        let joins: Vec<RemoteJoin<T>> = items.into_iter().map(start).collect();
        let value_of = |join: RemoteJoin<T>| join.join().unwrap_or_else(|error| error.resume());
        joins.into_iter().map(value_of).collect()
    }

    /// Waits until no job waits or runs.
    ///
    /// # Suspends
    /// Until then. A thread without a hub blocks.
    pub fn join(&self) {
        self.0.0.done.wait();
    }

    /// As [`join`](Self::join), at most for `timeout`.
    ///
    /// # Suspends
    /// As [`join`](Self::join).
    ///
    /// # Errors
    /// [`TimedOut`].
    pub fn join_timeout(&self, timeout: Duration) -> Result<(), TimedOut> {
        self.0.0.done.wait_timeout(timeout)
    }

    /// Takes no more jobs and drops those that wait. Those that run go on to their ends; [`join`](Self::join) waits
    /// for them.
    pub fn kill(&self) {
        self.0.0.end();
    }

    /// Changes how many threads there may be at most. Of those above it, idle ones end now, the others after their job.
    ///
    /// # Panics
    /// When `threads_max` is 0.
    pub fn set_threads_max(&self, threads_max: usize) {
        assert!(threads_max > 0, "a pool needs a thread");
        let workers = &self.0.0;
        let mut state = workers.lock();
        state.threads_max = threads_max;
        let wanted = state.jobs.len().saturating_sub(state.idle);
        for _ in state.threads..threads_max.min(state.threads + wanted) {
            if workers.start(&mut state).is_err() {
                break;
            }
        }
        drop(state);
        workers.work.notify_all();
    }

    /// How many threads there may be at most.
    pub fn threads_max(&self) -> usize {
        self.0.0.lock().threads_max
    }

    /// Jobs that wait or run.
    pub fn len(&self) -> usize {
        self.0.0.lock().unfinished
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Threads that live.
    pub fn threads(&self) -> usize {
        self.0.0.lock().threads
    }

    /// Gives the job to an idle thread, to a new one, or to the first that becomes idle.
    pub(crate) fn submit(&self, job: Job) -> io::Result<()> {
        let workers = &self.0.0;
        let mut state = workers.lock();
        if state.ended {
            drop(state);
            drop(job);
            return Ok(());
        }
        state.jobs.push_back(job);
        state.unfinished += 1;
        workers.done.clear();
        if state.jobs.len() <= state.idle || state.threads >= state.threads_max {
            workers.work.notify_one();
            return Ok(());
        }
        let Err(error) = workers.start(&mut state) else { return Ok(()) };
        if state.threads > 0 {
            return Ok(());
        }
        // Nobody will ever run it.
        let job = state.jobs.pop_back();
        workers.finished(&mut state, 1);
        drop(state);
        drop(job);
        Err(error)
    }
}

impl Workers {
    fn start(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let thread = thread::Builder::new().name(self.name.to_string());
        let workers = self.clone();
        match thread.spawn(move || workers.run()) {
            Ok(_) => {
                state.threads += 1;
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, threads = state.threads, "cannot start a thread of a pool");
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finished(&self, state: &mut State, jobs: usize) {
        state.unfinished -= jobs;
        if state.unfinished == 0 {
            self.done.set();
        }
    }

    fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        let jobs = std::mem::take(&mut state.jobs);
        self.finished(&mut state, jobs.len());
        drop(state);
        self.work.notify_all();
        drop(jobs);
    }

    /// A thread of the pool.
    fn run(&self) {
        let mut state = self.lock();
        loop {
            while let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A job tells of panics by itself; what comes through all the same must not end the thread.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.lock();
                self.finished(&mut state, 1);
                if state.threads > state.threads_max {
                    break;
                }
            }
            if state.ended || state.threads > state.threads_max {
                break;
            }
            state.idle += 1;
            let (woken, timeout) =
                self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.0.lock();
        f.debug_struct("ThreadPool")
            .field("threads", &state.threads)
            .field("unfinished", &state.unfinished)
            .finish_non_exhaustive()
    }
}
