//! Starting fibers and hearing how they end.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use warren_fiber::{RawFiber, StackPool, StackSize};

use crate::fiber::{Fiber, Interrupt, Woke, as_interrupt};
use crate::hub::{self, Hub};
use crate::remote::{self, RemoteWaker};
use crate::sync::WaitList;

/// Why a fiber has no result.
#[non_exhaustive]
pub enum JoinError {
    /// It panicked.
    Panicked(Panic),
    /// It was killed, or its hub ended first.
    Killed,
}

/// A panic that ended a fiber.
pub struct Panic {
    message: Option<String>,
    /// Behind a lock that nobody waits for, so that the error may be shared between threads.
    payload: Mutex<Box<dyn Any + Send>>,
}

impl Panic {
    fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = match payload.downcast_ref::<&str>() {
            Some(text) => Some((*text).to_owned()),
            None => payload.downcast_ref::<String>().cloned(),
        };
        Self { message, payload: Mutex::new(payload) }
    }

    /// What `std::panic::catch_unwind` would have given.
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        self.payload.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JoinError {
    /// The text of the panic, when it has one.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Panicked(panic) => panic.message.as_deref(),
            Self::Killed => None,
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(_) => write!(f, "the fiber panicked: {}", self.message().unwrap_or("?")),
            Self::Killed => f.write_str("the fiber was killed"),
        }
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for JoinError {}

type Ending<T> = Result<T, JoinError>;

/// Where a fiber leaves its result.
struct Outcome<T> {
    ending: RefCell<Option<Ending<T>>>,
    waiting: WaitList,
}

/// Leaves a result in any case: what is dropped without having run was killed.
struct Finish<T>(Rc<Outcome<T>>);

impl<T> Finish<T> {
    fn with(&self, ending: Ending<T>) {
        *self.0.ending.borrow_mut() = Some(ending);
        self.0.waiting.wake_all();
    }
}

impl<T> Drop for Finish<T> {
    fn drop(&mut self) {
        if self.0.ending.borrow().is_none() && Rc::strong_count(&self.0) > 1 {
            self.with(Err(JoinError::Killed));
        }
    }
}

/// Starts a fiber that runs `body`. It runs when the present fiber waits, not before.
///
/// The fiber goes on when the handle is dropped.
///
/// ```
/// let answer = warren_hub::run(|| warren_hub::spawn(|| 6 * 7).join().unwrap());
/// assert_eq!(answer, 42);
/// ```
///
/// # Panics
/// When no hub runs on this thread, or no stack can be mapped.
pub fn spawn<T: 'static>(body: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    match Builder::new().spawn(body) {
        Ok(handle) => handle,
        Err(error) => panic!("no stack for a fiber: {error}"),
    }
}

/// A fiber's settings.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    name: Option<Box<str>>,
    stack_size: StackSize,
}

impl Builder {
    /// No name, and a stack of the default size.
    pub fn new() -> Self {
        Self::default()
    }

    /// A name for messages.
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The size of the stack. It is address space: memory is used as deep as calls go.
    pub fn stack_size(mut self, size: StackSize) -> Self {
        self.stack_size = size;
        self
    }

    /// As [`spawn`].
    ///
    /// # Errors
    /// When no stack can be mapped.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn spawn<T: 'static>(
        self,
        body: impl FnOnce() -> T + 'static,
    ) -> io::Result<JoinHandle<T>> {
        hub::with(|hub| self.spawn_on(hub, body))
    }

    fn spawn_on<T: 'static>(
        self,
        hub: &Hub,
        body: impl FnOnce() -> T + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let stack = StackPool::local().take(self.stack_size)?;
        let fiber = Fiber::new(hub.next_fiber_id(), self.name);
        let outcome = Rc::new(Outcome { ending: RefCell::new(None), waiting: WaitList::new() });
        let finish = Finish(outcome.clone());
        let own = Rc::downgrade(&fiber);
        fiber.set_coroutine(RawFiber::with_stack(stack, move |yielder, ()| {
            if let Some(fiber) = own.upgrade() {
                fiber.started(yielder);
            }
            drop(own);
            finish.with(match catch_unwind(AssertUnwindSafe(body)) {
                Ok(value) => Ok(value),
                Err(payload) if as_interrupt(&*payload) == Some(Interrupt::Kill) => {
                    Err(JoinError::Killed)
                }
                Err(payload) => Err(JoinError::Panicked(Panic::new(payload))),
            });
        }));
        hub.adopt(fiber.clone());
        Ok(JoinHandle { fiber, outcome })
    }
}

/// Runs a hub on this thread, and `main` on its first fiber; returns what `main` returns. Fibers that still run
/// then are killed.
///
/// ```
/// use std::time::Duration;
/// use warren_hub::{run, sleep, spawn};
///
/// run(|| {
///     let other = spawn(|| println!("meanwhile"));
///     sleep(Duration::from_millis(1));
///     other.join().unwrap();
/// });
/// ```
///
/// # Panics
/// When `main` panics, with its payload. When a hub already runs on this thread, when the system refuses an
/// epoll descriptor, and in `main` when it waits for what can never happen.
pub fn run<T: 'static>(main: impl FnOnce() -> T + 'static) -> T {
    match try_run(main) {
        Ok(value) => value,
        Err(error) => panic!("cannot run a hub: {error}"),
    }
}

/// As [`run`].
///
/// # Errors
/// When the system refuses an epoll descriptor, an eventfd or a stack.
///
/// # Panics
/// As [`run`] for `main`'s own panics.
pub fn try_run<T: 'static>(main: impl FnOnce() -> T + 'static) -> io::Result<T> {
    let mut handle = None;
    let mut refused = None;
    Hub::run(|hub| match Builder::new().name("main").spawn_on(hub, main) {
        Ok(join) => Some(handle.insert(join).fiber.clone()),
        Err(error) => {
            refused = Some(error);
            None
        }
    })?;
    if let Some(error) = refused {
        return Err(error);
    }
    match handle.and_then(|handle| handle.outcome.ending.take()) {
        Some(Ok(value)) => Ok(value),
        Some(Err(JoinError::Panicked(panic))) => resume_unwind(panic.into_payload()),
        Some(Err(JoinError::Killed)) | None => panic!("the main fiber was killed"),
    }
}

/// A fiber that was spawned.
pub struct JoinHandle<T> {
    fiber: Rc<Fiber>,
    outcome: Rc<Outcome<T>>,
}

impl<T> JoinHandle<T> {
    /// Waits for the fiber's end.
    ///
    /// # Suspends
    /// Until the fiber has ended.
    ///
    /// # Errors
    /// When the fiber panicked or was killed.
    pub fn join(self) -> Result<T, JoinError> {
        loop {
            if let Some(ending) = self.outcome.ending.take() {
                return ending;
            }
            self.outcome.waiting.wait(None);
        }
    }

    /// Waits for the fiber's end, at most for `timeout`; gives the handle back when that runs out.
    ///
    /// # Suspends
    /// Until the fiber has ended, or for `timeout`.
    ///
    /// # Errors
    /// The handle itself when the time is over.
    pub fn join_timeout(self, timeout: Duration) -> Result<Result<T, JoinError>, Self> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(ending) = self.outcome.ending.take() {
                return Ok(ending);
            }
            if self.outcome.waiting.wait(Some(deadline)) == Woke::TimedOut {
                return Err(self);
            }
        }
    }

    /// Whether the fiber has ended.
    pub fn is_finished(&self) -> bool {
        self.outcome.ending.borrow().is_some()
    }

    /// Ends the fiber: it unwinds from where it waits, or will wait next, and its destructors run. A fiber
    /// that has not started never does. Does not wait for the end; [`join`](Self::join) does.
    ///
    /// The unwinding is a panic that says nothing. Code that catches panics should pass it on.
    pub fn kill(&self) {
        hub::try_with(|hub| hub.interrupt(&self.fiber, Interrupt::Kill));
    }

    /// The fiber's number, unique on its hub.
    pub fn id(&self) -> FiberId {
        FiberId(self.fiber.id)
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("fiber", &self.fiber.label())
            .field("finished", &self.is_finished())
            .finish()
    }
}

/// Waits for all, and gives their results in the order of the handles.
///
/// # Suspends
/// Until the last has ended.
pub fn join_all<T>(handles: impl IntoIterator<Item = JoinHandle<T>>) -> Vec<Result<T, JoinError>> {
    // All of them first: an iterator that spawns must not do so only as each is joined.
    let handles: Vec<JoinHandle<T>> = handles.into_iter().collect();
    handles.into_iter().map(JoinHandle::join).collect()
}

/// A fiber's number, unique on its hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FiberId(u64);

impl fmt::Display for FiberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of the fiber that runs; `None` on the loop itself and outside a hub.
pub fn current() -> Option<FiberId> {
    hub::try_with(|hub| hub.is_on_fiber().then(|| FiberId(hub::current_fiber().id))).flatten()
}

/// A fiber on a hub of another thread.
pub struct RemoteJoin<T>(Arc<RemoteOutcome<T>>);

struct RemoteOutcome<T> {
    state: Mutex<RemoteState<T>>,
    ended: Condvar,
}

struct RemoteState<T> {
    ending: Option<Ending<T>>,
    waker: Option<RemoteWaker>,
}

/// As [`Finish`], across threads.
struct RemoteFinish<T>(Arc<RemoteOutcome<T>>);

impl<T> RemoteFinish<T> {
    fn with(&self, ending: Ending<T>) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.ending.is_none() {
            state.ending = Some(ending);
            self.0.ended.notify_all();
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }
    }
}

impl<T> Drop for RemoteFinish<T> {
    fn drop(&mut self) {
        self.with(Err(JoinError::Killed));
    }
}

/// What runs `body` on another hub, and where its result can be awaited.
pub(crate) fn remote<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> (RemoteJoin<T>, impl FnOnce() + Send + 'static) {
    let outcome = Arc::new(RemoteOutcome {
        state: Mutex::new(RemoteState { ending: None, waker: None }),
        ended: Condvar::new(),
    });
    let finish = RemoteFinish(outcome.clone());
    let run = move || match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => finish.with(Ok(value)),
        Err(payload) => match as_interrupt(&*payload) {
            Some(_) => {
                finish.with(Err(JoinError::Killed));
                resume_unwind(payload)
            }
            None => finish.with(Err(JoinError::Panicked(Panic::new(payload)))),
        },
    };
    (RemoteJoin(outcome), run)
}

impl<T> RemoteJoin<T> {
    /// Waits for the fiber's end: on a fiber by parking it, on a thread without a hub by blocking.
    ///
    /// # Suspends
    /// On a fiber, until the other has ended.
    ///
    /// # Errors
    /// When the fiber panicked, was killed, or its hub ended before it.
    ///
    /// # Panics
    /// On the loop of a hub, which must not wait.
    pub fn join(self) -> Result<T, JoinError> {
        let locked = || self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if hub::try_with(|_| ()).is_some() {
            remote::wait(|waker| {
                let mut state = locked();
                match state.ending {
                    Some(_) => waker.wake(),
                    None => state.waker = Some(waker),
                }
            });
        }
        let mut state = locked();
        loop {
            match state.ending.take() {
                Some(ending) => return ending,
                None => state = self.0.ended.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Whether the fiber has ended.
    pub fn is_finished(&self) -> bool {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).ending.is_some()
    }
}

impl<T> fmt::Debug for RemoteJoin<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteJoin").field("finished", &self.is_finished()).finish()
    }
}
