//! Blocking calls, on threads of their own.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::driver::Job;
use crate::threadpool::ThreadPool;
use crate::{hub, remote};

/// Threads at most. They wait more than they compute, so this does not go by the number of cores.
const THREADS_MAX: usize = 64;

/// One pool for the process.
static POOL: LazyLock<ThreadPool> =
    LazyLock::new(|| ThreadPool::named("warren-offload", THREADS_MAX));

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

/// Gives the job to the pool of the process.
pub(crate) fn submit(job: Job) -> io::Result<()> {
    POOL.submit(job)
}
