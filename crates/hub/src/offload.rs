//! Blocking calls, on threads of their own.
//!
//! One pool for the process. A thread is started when a job finds none idle, up to a bound that leaves room for
//! jobs that sleep in the kernel; it ends after a while without work.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::driver::Job;
use crate::{hub, remote};

/// Threads at most. They wait more than they compute, so this does not go by the number of cores.
const THREADS_MAX: usize = 64;
/// How long an idle thread stays.
const IDLE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Pool {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { jobs: VecDeque::new(), threads: 0, idle: 0 });
static WORK: Condvar = Condvar::new();

/// Runs `job` on another thread while the other fibers of this hub go on: for files, name resolution, long
/// computations.
///
/// A fiber that is killed meanwhile goes at once; the job runs to its end, and its result is dropped.
///
/// ```
/// use warren_hub::{offload, run};
///
/// let sum: u64 = run(|| offload(|| (1..=1_000_000).sum()));
/// assert_eq!(sum, 500_000_500_000);
/// ```
///
/// # Suspends
/// Until the job is done.
///
/// # Panics
/// When the job does, with its payload. Outside a fiber. When the system refuses the pool its first thread.
pub fn offload<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    let result = Arc::new(Mutex::new(None));
    let place = result.clone();
    remote::wait(move |waker| {
        let job = Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(job));
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
            waker.wake();
        });
        // Refused, the waker is dropped, which ends the wait; the missing result tells below.
        drop(hub::with(|hub| hub.driver.run_blocking(job)));
    });
    let outcome = result.lock().unwrap_or_else(PoisonError::into_inner).take();
    match outcome {
        Some(Ok(value)) => value,
        Some(Err(payload)) => resume_unwind(payload),
        None => panic!("no thread could be started for a blocking call"),
    }
}

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the job to an idle thread, to a new one, or to the first that becomes idle.
pub(crate) fn submit(job: Job) -> io::Result<()> {
    let mut pool = pool();
    pool.jobs.push_back(job);
    if pool.jobs.len() <= pool.idle || pool.threads == THREADS_MAX {
        WORK.notify_one();
        return Ok(());
    }
    pool.threads += 1;
    let started = thread::Builder::new().name("warren-offload".into()).spawn(work);
    if let Err(error) = started {
        pool.threads -= 1;
        tracing::error!(%error, threads = pool.threads, "cannot start a thread for blocking calls");
        if pool.threads == 0 {
            // Nobody will ever run it.
            drop(pool.jobs.pop_back());
            return Err(error);
        }
    }
    Ok(())
}

fn work() {
    let mut pool = pool();
    loop {
        while let Some(job) = pool.jobs.pop_front() {
            drop(pool);
            job();
            pool = self::pool();
        }
        pool.idle += 1;
        let (woken, timeout) =
            WORK.wait_timeout(pool, IDLE).unwrap_or_else(PoisonError::into_inner);
        pool = woken;
        pool.idle -= 1;
        if timeout.timed_out() && pool.jobs.is_empty() {
            pool.threads -= 1;
            return;
        }
    }
}
