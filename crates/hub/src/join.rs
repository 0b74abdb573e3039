//! Hearing how a fiber ends: [`JoinHandle`], gevent's `Greenlet` from the outside.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::fiber::{FiberRef, Interrupt, State, Waiter, WaitsFor, Woke};
use crate::hub;
use crate::links::{LinkId, Links};
use crate::pooled::Pooled;
use crate::sync::WaitList;
use crate::timer::TimedOut;

/// Why a fiber has no result.
#[non_exhaustive]
pub enum JoinError {
    /// It panicked.
    Panicked(Panic),
    /// It was killed, or its hub ended first.
    Killed,
}

/// A panic that ended a fiber.
// Boxed: results are moved about, and few of them are panics.
pub struct Panic(Box<Caught>);

struct Caught {
    message: Option<String>,
    /// Behind a lock that nobody waits for, so that the error may be shared between threads.
    payload: Mutex<Box<dyn Any + Send>>,
}

impl Panic {
    /// Of what `std::panic::catch_unwind` gave.
    pub fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = match payload.downcast_ref::<&str>() {
            Some(text) => Some((*text).to_owned()),
            None => payload.downcast_ref::<String>().cloned(),
        };
        Self(Box::new(Caught { message, payload: Mutex::new(payload) }))
    }

    /// The text, when it has one.
    pub fn message(&self) -> Option<&str> {
        self.0.message.as_deref()
    }

    /// What `std::panic::catch_unwind` would have given.
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        self.0.payload.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Panic").field(&self.message().unwrap_or("?")).finish()
    }
}

impl JoinError {
    /// The text of the panic, when it has one.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Panicked(panic) => panic.message(),
            Self::Killed => None,
        }
    }

    /// Whether the fiber was killed.
    pub fn is_killed(&self) -> bool {
        matches!(self, Self::Killed)
    }

    /// Panics as the fiber did, with the same payload, without the panic hook being told again.
    ///
    /// # Panics
    /// Always; with a text of its own when the fiber was killed.
    #[track_caller]
    pub fn resume(self) -> ! {
        match self {
            Self::Panicked(panic) => resume_unwind(panic.into_payload()),
            Self::Killed => panic!("the fiber was killed before it had a result"),
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

pub(crate) type Ending<T> = Result<T, JoinError>;

type Link<T> = Box<dyn FnOnce(&Ending<T>)>;

/// Where a fiber leaves its result.
pub(crate) struct Outcome<T> {
    ended: Cell<bool>,
    /// `None` until the end, and again once it was taken.
    ending: RefCell<Option<Ending<T>>>,
    /// The first fiber that waits for the end, which is nearly always the only one: cheaper than a list.
    joiner: Cell<Option<Waiter>>,
    pub(crate) waiting: WaitList,
    /// Made when first needed.
    told: OnceCell<Box<Told<T>>>,
}

/// Those who are told of the end without waiting for it.
struct Told<T> {
    links: Links<Link<T>>,
    wakers: RefCell<Vec<Waker>>,
}

impl<T: 'static> Outcome<T> {
    pub(crate) fn new() -> Pooled<Self> {
        Pooled::new(|| Self {
            ended: Cell::new(false),
            ending: RefCell::new(None),
            joiner: Cell::new(None),
            waiting: WaitList::new(),
            told: OnceCell::new(),
        })
    }

    pub(crate) fn take(&self) -> Option<Ending<T>> {
        self.ending.take()
    }

    fn told(&self) -> &Told<T> {
        let new = || Box::new(Told { links: Links::new(), wakers: RefCell::default() });
        self.told.get_or_init(new)
    }

    #[cold]
    fn wait_always(&self) {
        while !self.ended.get() {
            self.waiting.wait_always(None);
        }
    }

    /// The ending is there: those who want to know are told.
    fn ended(own: &Pooled<Self>) {
        own.ended.set(true);
        if let Some(joiner) = own.joiner.take() {
            joiner.wake();
        }
        if !own.waiting.is_empty() {
            own.waiting.wake_all();
        }
        if own.told.get().is_some() {
            Self::tell(own);
        }
    }

    #[cold]
    fn tell(own: &Pooled<Self>) {
        let told = own.told();
        for waker in told.wakers.take() {
            let _ = contain("a waker", || waker.wake());
        }
        if !told.links.is_empty() {
            let own = own.clone();
            hub::try_with(|hub| hub.call_after(Box::new(move || own.call_links())));
        }
    }

    /// Waits for the end, at most until `deadline`; not while the fiber that waits unwinds.
    #[inline(always)]
    fn wait(&self, deadline: Option<Instant>) {
        /// Leaves the place also when the wait ends by unwinding.
        struct Joining<'a>(&'a Cell<Option<Waiter>>, Waiter);
        impl Drop for Joining<'_> {
            fn drop(&mut self) {
                if self.0.get() == Some(self.1) {
                    self.0.set(None);
                }
            }
        }
        while !self.ended.get() {
            let woke = if self.joiner.get().is_none() {
                let joining = Joining(&self.joiner, Waiter::current());
                self.joiner.set(Some(joining.1));
                hub::park_for(&joining.1, deadline, WaitsFor::Join)
            } else {
                self.waiting.wait_for(deadline, WaitsFor::Join)
            };
            if woke == Woke::TimedOut {
                return;
            }
        }
    }

    /// On the loop, in the order in which they were made, before any fiber that waits goes on.
    fn call_links(&self) {
        for link in self.told().links.take() {
            let ending = self.ending.borrow();
            let Some(ending) = &*ending else { return };
            let _ = contain("a link", || link(ending));
        }
    }
}

/// Calls `f`, whose panic is logged and concerns nobody else: for callbacks of others. Gives the panic's text.
///
/// # Errors
/// The text of the panic, `"?"` when it has none.
pub fn contain<R>(what: &str, f: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let panic = ManuallyDrop::new(Panic::new(payload));
        let text = panic.message().unwrap_or("?").to_owned();
        tracing::error!(error = text, "{what} has panicked");
        // Dropping the payload is the last chance of its kind to panic: then it is leaked.
        let _ = catch_unwind(AssertUnwindSafe(|| ManuallyDrop::into_inner(panic)))
            .map_err(std::mem::forget);
        text
    })
}

/// Leaves a result in any case: what is dropped without having run was killed.
pub(crate) struct Finish<T: 'static>(pub(crate) Pooled<Outcome<T>>);

impl<T> Finish<T> {
    // A value goes straight from the body to its place.
    #[inline(always)]
    pub(crate) fn with_value(self, value: T) {
        *self.0.ending.borrow_mut() = Some(Ok(value));
        Outcome::ended(&self.0);
    }

    pub(crate) fn with_error(self, error: JoinError) {
        *self.0.ending.borrow_mut() = Some(Err(error));
        Outcome::ended(&self.0);
    }
}

impl<T> Drop for Finish<T> {
    fn drop(&mut self) {
        if !self.0.ended.get() {
            *self.0.ending.borrow_mut() = Some(Err(JoinError::Killed));
            Outcome::ended(&self.0);
        }
    }
}

/// A fiber that was spawned. gevent's `Greenlet`, seen from outside.
///
/// Dropping it changes nothing for the fiber. It is a [`Future`] too, which gives what [`join`](Self::join) gives.
pub struct JoinHandle<T> {
    target: FiberRef,
    outcome: Pooled<Outcome<T>>,
}

impl<T: 'static> JoinHandle<T> {
    pub(crate) fn new(target: FiberRef, outcome: Pooled<Outcome<T>>) -> Self {
        Self { target, outcome }
    }

    pub(crate) fn target(&self) -> FiberRef {
        self.target
    }

    pub(crate) fn outcome(&self) -> &Outcome<T> {
        &self.outcome
    }

    /// Waits for the fiber's end, and takes its result.
    ///
    /// # Suspends
    /// Until the fiber has ended; also while the caller unwinds.
    ///
    /// # Errors
    /// When the fiber panicked or was killed.
    ///
    /// # Panics
    /// Outside a fiber, when there is something to wait for. When the result was taken by [`Future`] already.
    #[inline]
    pub fn join(self) -> Result<T, JoinError> {
        self.wait();
        if !self.outcome.ended.get() {
            // Only a fiber that unwinds gets here.
            self.outcome.wait_always();
        }
        self.outcome.take().expect("the result was taken already")
    }

    /// As [`join`](Self::join), at most for `timeout`; gives the handle back when that runs out.
    ///
    /// # Suspends
    /// Until the fiber has ended, or for `timeout`.
    ///
    /// # Errors
    /// The handle itself when the time is over.
    pub fn join_timeout(self, timeout: Duration) -> Result<Result<T, JoinError>, Self> {
        if self.wait_timeout(timeout) {
            return Ok(self.join());
        }
        Err(self)
    }

    /// Waits for the fiber's end; the result stays where it is. gevent's `join`.
    ///
    /// # Suspends
    /// Until the fiber has ended.
    #[inline]
    pub fn wait(&self) {
        self.outcome.wait(None);
    }

    /// As [`wait`](Self::wait), at most for `timeout`. Whether the fiber has ended.
    ///
    /// # Suspends
    /// Until the fiber has ended, or for `timeout`.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        if self.outcome.ended.get() {
            return true;
        }
        self.wait_until(hub::with(|hub| hub.driver.now()) + timeout)
    }

    fn wait_until(&self, deadline: Instant) -> bool {
        self.outcome.wait(Some(deadline));
        self.outcome.ended.get()
    }

    /// Whether the fiber has ended, in whatever way.
    pub fn is_finished(&self) -> bool {
        self.outcome.ended.get()
    }

    /// As [`is_finished`](Self::is_finished): gevent's name.
    pub fn ready(&self) -> bool {
        self.is_finished()
    }

    /// As [`is_finished`](Self::is_finished): greenlet's name.
    pub fn dead(&self) -> bool {
        self.is_finished()
    }

    /// Whether the fiber has run at all: it has begun, and may have ended.
    pub fn started(&self) -> bool {
        let state = hub::try_with(|hub| hub.fiber(self.target).map(|fiber| fiber.state.get()));
        match state.flatten() {
            Some(state) => !matches!(state, State::Later | State::New),
            None => true,
        }
    }

    /// Whether it has ended with a value, or because it was killed, which is no failure (gevent's `GreenletExit`).
    pub fn successful(&self) -> bool {
        matches!(&*self.outcome.ending.borrow(), Some(Ok(_) | Err(JoinError::Killed)))
    }

    /// A copy of the value, once there is one.
    pub fn value(&self) -> Option<T>
    where
        T: Clone,
    {
        self.outcome.ending.borrow().as_ref()?.as_ref().ok().cloned()
    }

    /// The text of the panic that ended the fiber; `None` before the end, and after any other end.
    pub fn exception(&self) -> Option<String> {
        match self.outcome.ending.borrow().as_ref()? {
            Err(JoinError::Panicked(panic)) => {
                Some(panic.0.message.clone().unwrap_or_else(|| "a panic without a text".into()))
            }
            _ => None,
        }
    }

    /// Waits for the fiber's end and copies its value. gevent's `get`; the handle stays usable.
    ///
    /// # Suspends
    /// Until the fiber has ended.
    ///
    /// # Errors
    /// When the fiber panicked or was killed: the text is the same, the panic's payload stays with the fiber.
    pub fn get(&self) -> Result<T, JoinError>
    where
        T: Clone,
    {
        self.wait();
        self.copy()
    }

    /// As [`get`](Self::get), at most for `timeout`.
    ///
    /// # Suspends
    /// Until the fiber has ended, or for `timeout`.
    ///
    /// # Errors
    /// [`TimedOut`]; within, as [`get`](Self::get).
    pub fn get_timeout(&self, timeout: Duration) -> Result<Result<T, JoinError>, TimedOut>
    where
        T: Clone,
    {
        if self.wait_timeout(timeout) { Ok(self.copy()) } else { Err(TimedOut) }
    }

    fn copy(&self) -> Result<T, JoinError>
    where
        T: Clone,
    {
        match &*self.outcome.ending.borrow() {
            Some(Ok(value)) => Ok(value.clone()),
            Some(Err(JoinError::Panicked(panic))) => {
                let text = panic.0.message.clone().unwrap_or_default();
                Err(JoinError::Panicked(Panic::new(Box::new(text))))
            }
            Some(Err(JoinError::Killed)) | None => Err(JoinError::Killed),
        }
    }

    /// Calls `callback` on the loop with the result when the fiber has ended; at once, in the next turn, when it has
    /// already. Before any fiber that waits for the end goes on. It must not wait; a panic in it is logged.
    pub fn link(&self, callback: impl FnOnce(&Result<T, JoinError>) + 'static) -> LinkId {
        let id = self.outcome.told().links.add(Box::new(callback));
        if self.outcome.ended.get() {
            let outcome = self.outcome.clone();
            hub::with(|hub| hub.call_soon(Box::new(move || outcome.call_links())));
        }
        id
    }

    /// As [`link`](Self::link), when the fiber ends with a value, or is killed, in which case there is none.
    pub fn link_value(&self, callback: impl FnOnce(Option<&T>) + 'static) -> LinkId {
        self.link(move |ending| match ending {
            Ok(value) => callback(Some(value)),
            Err(JoinError::Killed) => callback(None),
            Err(_) => {}
        })
    }

    /// As [`link`](Self::link), when the fiber panics.
    pub fn link_exception(&self, callback: impl FnOnce(&JoinError) + 'static) -> LinkId {
        self.link(move |ending| {
            if let Err(error @ JoinError::Panicked(_)) = ending {
                callback(error);
            }
        })
    }

    /// Takes a link back. False when it has been called or taken back before.
    pub fn unlink(&self, link: LinkId) -> bool {
        self.outcome.told().links.remove(link)
    }

    /// Ends the fiber: it unwinds from where it waits, or will wait next, and its destructors run. A fiber
    /// that has not started never does. Does not wait for the end; [`kill_wait`](Self::kill_wait) does.
    ///
    /// The unwinding is a panic that says nothing. Code that catches panics should pass it on: one that swallows it
    /// goes on until it is killed again.
    pub fn kill(&self) {
        hub::try_with(|hub| hub.interrupt(self.target, Interrupt::Kill));
    }

    /// As [`kill`](Self::kill), and waits for the end, at most for `timeout`. Whether it has ended.
    ///
    /// # Suspends
    /// Until the fiber has ended, or for `timeout`.
    pub fn kill_wait(&self, timeout: Option<Duration>) -> bool {
        self.kill();
        match timeout {
            Some(timeout) => self.wait_timeout(timeout),
            None => {
                self.wait();
                self.is_finished()
            }
        }
    }

    /// Raises a panic with `payload` where the fiber waits. It may catch it. gevent's `kill` with an exception.
    pub fn throw(&self, payload: Box<dyn Any + Send>) {
        hub::try_with(|hub| hub.interrupt(self.target, Interrupt::Throw(payload)));
    }

    /// The fiber's number, unique on its hub.
    pub fn id(&self) -> FiberId {
        FiberId(self.target.id)
    }
}

impl<T: 'static> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    /// # Panics
    /// When it is polled again after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.outcome.ended.get() {
            return Poll::Ready(self.outcome.take().expect("polled after it was ready"));
        }
        let mut wakers = self.outcome.told().wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl<T: 'static> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("fiber", &self.target.id)
            .field("finished", &self.is_finished())
            .finish()
    }
}

/// Waits for all, and gives their results in the order of the handles.
///
/// # Suspends
/// Until the last has ended.
pub fn join_all<T: 'static>(
    handles: impl IntoIterator<Item = JoinHandle<T>>,
) -> Vec<Result<T, JoinError>> {
    // All of them first: an iterator that spawns must not do so only as each is joined.
    let handles: Vec<JoinHandle<T>> = handles.into_iter().collect();
    handles.into_iter().map(JoinHandle::join).collect()
}

/// Kills all at once, and waits until they have ended, at most for `timeout`. Whether all have.
///
/// # Suspends
/// Until the last has ended, or for `timeout`.
pub fn kill_all<'a, T: 'static>(
    handles: impl IntoIterator<Item = &'a JoinHandle<T>>,
    timeout: Option<Duration>,
) -> bool {
    let handles: Vec<&JoinHandle<T>> = handles.into_iter().collect();
    for handle in &handles {
        handle.kill();
    }
    match timeout {
        None => handles.iter().for_each(|handle| handle.wait()),
        Some(timeout) => {
            let deadline = hub::with(|hub| hub.driver.now()) + timeout;
            for handle in &handles {
                handle.wait_until(deadline);
            }
        }
    }
    handles.iter().all(|handle| handle.is_finished())
}

/// A fiber's number, unique on its hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FiberId(pub(crate) u64);

impl fmt::Display for FiberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
