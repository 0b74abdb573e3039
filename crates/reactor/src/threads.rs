//! Between the loop and threads: calls from them into the loop, and jobs for them.
//!
//! Only [`ReactorHandle`] goes to other threads; all else of this crate belongs to the thread of its hub.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};

use warren_hub::{HubGone, HubHandle, Panic, ThreadPool, channel, contain, handle, hub_local};

use crate::deferred::{Deferred, Failure, Outcome, Resolver};
use crate::home::keep;

/// Threads of the reactor's own pool, as in Twisted.
const THREADS_MAX: usize = 10;

/// The way to the loop of one hub for all threads. Clones lead to the same loop.
///
/// While there is one, a hub that has nothing to do waits for what may come through it.
#[derive(Clone)]
pub struct ReactorHandle {
    hub: HubHandle,
    thread: ThreadId,
}

/// The way to the loop of this thread.
///
/// # Panics
/// When no hub runs on this thread.
pub fn reactor_handle() -> ReactorHandle {
    ReactorHandle { hub: handle(), thread: thread::current().id() }
}

impl ReactorHandle {
    /// Calls `callback` on the loop, which is woken for it. What one thread asks for is called in that order. A panic in
    /// it is logged, and harms nobody.
    ///
    /// ```
    /// use std::thread;
    /// use warren_reactor::reactor_handle;
    ///
    /// let sum = warren_hub::run(|| {
    ///     let reactor = reactor_handle();
    ///     let (sender, receiver) = warren_hub::channel(1);
    ///     thread::spawn(move || reactor.call_from_thread(move || drop(sender.try_send(1 + 2))));
    ///     receiver.recv().unwrap()
    /// });
    /// assert_eq!(sum, 3);
    /// ```
    ///
    /// # Errors
    /// [`HubGone`] when the hub has ended. One that ends before the call drops it.
    pub fn call_from_thread(
        &self,
        callback: impl FnOnce() + Send + 'static,
    ) -> Result<(), HubGone> {
        self.hub.post(move || drop(contain("a call from a thread", callback)))
    }

    /// Calls `callback` on the loop and waits for what becomes of it: of the `Deferred` or `Result` that it gives.
    ///
    /// ```
    /// use std::time::Duration;
    /// use warren_reactor::{AnyError, Deferred, call_later, reactor_handle, thread_pool};
    ///
    /// let answer = warren_hub::run(|| {
    ///     let reactor = reactor_handle();
    ///     let asking = thread_pool().spawn(move || {
    ///         reactor.blocking_call_from_thread(|| {
    ///             let (deferred, resolver) = Deferred::<_, AnyError>::pending();
    ///             call_later(Duration::from_millis(1), || resolver.callback(42));
    ///             deferred
    ///         })
    ///     });
    ///     asking.join().unwrap()
    /// });
    /// assert_eq!(answer.unwrap(), 42);
    /// ```
    ///
    /// # Suspends
    /// On a fiber of another hub, until there is a result. A thread without a hub blocks.
    ///
    /// # Errors
    /// The failure of the result. [`Failure::Panicked`] when `callback` panics; [`Failure::Dropped`] when the hub has
    /// ended, or ends before there is a result.
    ///
    /// # Panics
    /// On the hub's own thread, where it would wait for itself, and on the loop of another hub, which must not wait.
    pub fn blocking_call_from_thread<R, E>(
        &self,
        callback: impl FnOnce() -> R + Send + 'static,
    ) -> Result<R::Value, Failure<E>>
    where
        R: Outcome<E>,
        R::Value: Send + 'static,
        E: fmt::Debug + Send + 'static,
    {
        assert!(
            !self.is_here(),
            "blocking_call_from_thread is for other threads: on the loop's own it would wait for itself. Call the function, \
             and on a fiber wait for its Deferred"
        );
        let (sender, receiver) = channel(1);
        let posted = self.hub.post(move || {
            let result = Deferred::succeed(()).add_callback(|()| callback());
            let told = result.add_both(move |result| {
                // Nobody waits any more when the fiber that asked was killed.
                let _ = sender.try_send(result);
                Ok(())
            });
            drop(told);
        });
        match posted {
            Ok(()) => receiver.recv().unwrap_or(Err(Failure::Dropped)),
            Err(HubGone) => Err(Failure::Dropped),
        }
    }

    /// Whether this is the thread of the loop.
    pub fn is_here(&self) -> bool {
        self.thread == thread::current().id()
    }
}

impl fmt::Debug for ReactorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorHandle").field("thread", &self.thread).finish_non_exhaustive()
    }
}

/// As [`ReactorHandle::call_from_thread`], for the loop of this thread: after what other calls of it have asked for.
///
/// # Panics
/// When no hub runs on this thread.
pub fn call_from_thread(callback: impl FnOnce() + Send + 'static) {
    // A hub that runs has not gone.
    let _ = reactor_handle().call_from_thread(callback);
}

/// The pool of this hub's reactor: 10 threads, unless [`suggest_thread_pool_size`] says otherwise. It ends with the hub.
///
/// # Panics
/// When no hub runs on this thread.
pub fn thread_pool() -> ThreadPool {
    hub_local(|| ReactorPool(ThreadPool::named("warren-reactor", THREADS_MAX))).0.clone()
}

struct ReactorPool(ThreadPool);

/// Sets how many threads the reactor's pool may have.
///
/// # Panics
/// When `threads_max` is 0, and when no hub runs on this thread.
pub fn suggest_thread_pool_size(threads_max: usize) {
    thread_pool().set_threads_max(threads_max);
}

/// Runs `job` on a thread of the reactor's pool, and forgets it. A panic is logged.
///
/// # Panics
/// When no hub runs on this thread.
pub fn call_in_thread(job: impl FnOnce() + Send + 'static) {
    drop(thread_pool().spawn(move || drop(contain("a call in a thread", job))));
}

/// Runs `jobs` one after the other on one thread of the reactor's pool. A panic is logged, and ends the row, as an
/// exception does in Twisted.
///
/// # Panics
/// When no hub runs on this thread.
pub fn call_multiple_in_thread(jobs: impl IntoIterator<Item = Box<dyn FnOnce() + Send>>) {
    let jobs: Vec<_> = jobs.into_iter().collect();
    call_in_thread(move || jobs.into_iter().for_each(|job| job()));
}

/// Runs `job` on a thread of the reactor's pool; its result comes back through the `Deferred`, on the loop.
///
/// Cancelled before a thread has begun with it, the job never runs; after that it runs to its end for nothing.
///
/// ```
/// use warren_reactor::{AnyError, defer_to_thread};
///
/// let text = warren_hub::run(|| {
///     let read = defer_to_thread(|| Ok::<_, AnyError>(std::fs::read_to_string("/proc/self/comm")?));
///     read.add_callback(|text| Ok(text.len())).wait()
/// });
/// assert!(text.unwrap() > 1);
/// ```
///
/// # Panics
/// When no hub runs on this thread.
#[track_caller]
pub fn defer_to_thread<T, E>(job: impl FnOnce() -> Result<T, E> + Send + 'static) -> Deferred<T, E>
where
    T: Send + 'static,
    E: fmt::Debug + Send + 'static,
{
    defer_to_thread_pool(&thread_pool(), job)
}

/// As [`defer_to_thread`], on a thread of `pool`. A pool that is killed fails what waits for it with
/// [`Failure::Dropped`].
///
/// # Panics
/// When no hub runs on this thread.
#[track_caller]
pub fn defer_to_thread_pool<T, E>(
    pool: &ThreadPool,
    job: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Deferred<T, E>
where
    T: Send + 'static,
    E: fmt::Debug + Send + 'static,
{
    let wanted = Arc::new(AtomicBool::new(true));
    let unwanted = wanted.clone();
    let (deferred, resolver) =
        Deferred::pending_with_canceller(move || unwanted.store(false, Ordering::Relaxed));
    let ticket = keep(resolver);
    let join = pool.spawn(move || {
        if wanted.load(Ordering::Relaxed) {
            let result = match catch_unwind(AssertUnwindSafe(job)) {
                Ok(result) => result.map_err(Failure::Error),
                Err(payload) => Err(Failure::Panicked(Panic::new(payload))),
            };
            // A hub that has gone waits for nothing.
            let _ = ticket.redeem(move |resolver: Resolver<T, E>| resolver.resolve(result));
        }
    });
    drop(join);
    deferred
}
