//! [`DeferredSemaphore`] and [`DeferredLock`]: who may go on now.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::rc::Rc;

use super::{Deferred, Failure, Outcome, Resolver};

/// A limit to how many do something at the same time (Twisted's `DeferredSemaphore`). Who comes first is first; one
/// that waits can be cancelled. Clones are the same semaphore.
///
/// ```
/// use warren_reactor::{Deferred, DeferredSemaphore};
///
/// let semaphore = DeferredSemaphore::new(2);
/// let (one, two) = (semaphore.acquire().wait().unwrap(), semaphore.acquire().wait().unwrap());
/// let third = semaphore.run(|| Deferred::<&str>::succeed("my turn"));
/// assert!(!third.has_fired());
/// drop(one);
/// assert_eq!(third.wait().unwrap(), "my turn");
/// # drop(two);
/// ```
#[derive(Clone)]
pub struct DeferredSemaphore(Rc<Permits>);

/// The right to go on, from a [`DeferredSemaphore`] or a [`DeferredLock`]: given back when it is dropped.
#[must_use = "it is given back when it is dropped"]
pub struct DeferredPermit(Rc<Permits>);

/// A [`DeferredSemaphore`] of one (Twisted's `DeferredLock`). Clones are the same lock.
#[derive(Clone)]
pub struct DeferredLock(DeferredSemaphore);

struct Permits {
    limit: usize,
    /// 0 <= free <= limit; 0 while anybody waits, but while they are being handed out.
    free: Cell<usize>,
    waiting: RefCell<BTreeMap<u64, Resolver<DeferredPermit, Infallible>>>,
    last_waiter: Cell<u64>,
    /// A loop on the stack hands out what is given back meanwhile, so that many who are through at once need no stack.
    handing_out: Cell<bool>,
}

impl DeferredSemaphore {
    /// One with `limit` permits.
    ///
    /// # Panics
    /// When `limit` is 0: nobody would ever go on.
    pub fn new(limit: usize) -> Self {
        assert!(0 < limit, "a semaphore needs a permit to give");
        Self(Rc::new(Permits {
            limit,
            free: Cell::new(limit),
            waiting: RefCell::default(),
            last_waiter: Cell::default(),
            handing_out: Cell::default(),
        }))
    }

    /// Fires when there is a permit, at once if one is free. Cancelling it gives the place in the line up.
    #[track_caller]
    pub fn acquire(&self) -> Deferred<DeferredPermit> {
        self.wait_in_line().map_err(|never| match never {})
    }

    /// Calls `call` when there is a permit, and gives the permit back when what it gave has fired.
    ///
    /// Where many wait, each is called after the callbacks of the one before it are through, and not in the midst of
    /// them as in Twisted.
    #[track_caller]
    pub fn run<R, E>(&self, call: impl FnOnce() -> R + 'static) -> Deferred<R::Value, E>
    where
        R: Outcome<E> + 'static,
        R::Value: 'static,
        E: fmt::Debug + 'static,
    {
        self.wait_in_line().map_err(|never| match never {}).add_callback(move |permit| {
            Deferred::of_call(call).add_both(move |result: Result<_, Failure<E>>| {
                drop(permit);
                result
            })
        })
    }

    /// How many permits there are in all.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// How many are free.
    pub fn tokens(&self) -> usize {
        self.0.free.get()
    }

    /// How many wait for one.
    pub fn waiting(&self) -> usize {
        self.0.waiting.borrow().len()
    }

    #[track_caller]
    fn wait_in_line(&self) -> Deferred<DeferredPermit, Infallible> {
        let permits = &self.0;
        if let Some(free) = permits.free.get().checked_sub(1) {
            permits.free.set(free);
            return Deferred::succeed(DeferredPermit(permits.clone()));
        }
        let (deferred, resolver) = Deferred::pending();
        let waiter = permits.last_waiter.get() + 1;
        permits.last_waiter.set(waiter);
        let weak = Rc::downgrade(permits);
        resolver.on_cancel(move || {
            if let Some(permits) = weak.upgrade() {
                let cancelled = permits.waiting.borrow_mut().remove(&waiter);
                drop(cancelled);
            }
        });
        permits.waiting.borrow_mut().insert(waiter, resolver);
        deferred
    }
}

impl DeferredPermit {
    /// Gives it back, as dropping it does: the next who waits goes on before this returns.
    pub fn release(self) {}
}

impl Drop for DeferredPermit {
    fn drop(&mut self) {
        let permits = &self.0;
        permits.free.set(permits.free.get() + 1);
        if permits.handing_out.replace(true) {
            return;
        }
        while let Some(free) = permits.free.get().checked_sub(1) {
            let Some((_, waiter)) = permits.waiting.borrow_mut().pop_first() else { break };
            permits.free.set(free);
            waiter.callback(Self(permits.clone()));
        }
        permits.handing_out.set(false);
    }
}

impl DeferredLock {
    /// One that is free.
    pub fn new() -> Self {
        Self(DeferredSemaphore::new(1))
    }

    /// As [`DeferredSemaphore::acquire`].
    #[track_caller]
    pub fn acquire(&self) -> Deferred<DeferredPermit> {
        self.0.acquire()
    }

    /// As [`DeferredSemaphore::run`].
    #[track_caller]
    pub fn run<R, E>(&self, call: impl FnOnce() -> R + 'static) -> Deferred<R::Value, E>
    where
        R: Outcome<E> + 'static,
        R::Value: 'static,
        E: fmt::Debug + 'static,
    {
        self.0.run(call)
    }

    /// Whether somebody has it.
    pub fn is_locked(&self) -> bool {
        self.0.tokens() == 0
    }

    /// How many wait for it.
    pub fn waiting(&self) -> usize {
        self.0.waiting()
    }
}

impl Default for DeferredLock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for DeferredSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredSemaphore")
            .field("limit", &self.limit())
            .field("tokens", &self.tokens())
            .field("waiting", &self.waiting())
            .finish()
    }
}

impl fmt::Debug for DeferredPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredPermit").finish_non_exhaustive()
    }
}

impl fmt::Debug for DeferredLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredLock")
            .field("locked", &self.is_locked())
            .field("waiting", &self.waiting())
            .finish()
    }
}
