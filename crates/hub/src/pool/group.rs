//! [`Group`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::imap::{Imap, ImapUnordered};
use crate::fiber::{FiberRef, Interrupt, WaitsFor, Woke};
use crate::hub;
use crate::join::{FiberId, JoinHandle};
use crate::spawn::{current, spawn};
use crate::sync::{Permit, Semaphore, WaitList, deadline};
use crate::timer::TimedOut;

/// Fibers that are waited for, and killed, together. gevent's `Group`. A fiber that has ended is in it no more. Clones
/// are the same group; fibers go on when the last is dropped.
///
/// ```
/// use warren_hub::{Group, run, yield_now};
///
/// run(|| {
///     let group = Group::new();
///     for _ in 0..3 {
///         group.spawn(yield_now);
///     }
///     assert_eq!(group.len(), 3);
///     group.join();
///     assert!(group.is_empty());
/// });
/// ```
#[derive(Clone)]
pub struct Group(Rc<Members>);

struct Members {
    fibers: RefCell<BTreeMap<FiberId, Member>>,
    /// Who waits for all to have ended.
    joining: WaitList,
    /// How many wait for the end of all they have killed: what is started meanwhile is killed too.
    killing: Cell<u32>,
    /// A permit for each member; `None` in a group without a limit.
    limit: Option<Semaphore>,
}

#[derive(Clone, Copy)]
struct Member {
    target: FiberRef,
    /// It was killed by the group, which does so once.
    dying: bool,
}

impl Group {
    /// A group without fibers.
    pub fn new() -> Self {
        Self::make(None)
    }

    pub(super) fn with_limit(size: usize) -> Self {
        Self::make(Some(Semaphore::new(size)))
    }

    fn make(limit: Option<Semaphore>) -> Self {
        let (fibers, joining, killing) = (RefCell::default(), WaitList::new(), Cell::new(0));
        Self(Rc::new(Members { fibers, joining, killing, limit }))
    }

    /// Starts a fiber in the group.
    ///
    /// # Suspends
    /// While a [`Pool`](super::Pool) is full; a group never is.
    ///
    /// # Panics
    /// As [`spawn`](crate::spawn()).
    #[track_caller]
    pub fn spawn<T: 'static>(&self, body: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        self.place().spawn(body)
    }

    /// Takes a fiber in that was started elsewhere.
    ///
    /// # Suspends
    /// While a [`Pool`](super::Pool) is full; a group never is.
    pub fn add<T: 'static>(&self, handle: &JoinHandle<T>) {
        if !self.contains(handle) {
            self.place().enter(handle);
        }
    }

    /// Lets a fiber go: it goes on, and the group knows it no more.
    pub fn discard<T: 'static>(&self, handle: &JoinHandle<T>) {
        self.0.leave(handle.id());
    }

    /// Whether the fiber is in the group.
    pub fn contains<T: 'static>(&self, handle: &JoinHandle<T>) -> bool {
        self.0.fibers.borrow().contains_key(&handle.id())
    }

    /// Fibers in the group.
    pub fn len(&self) -> usize {
        self.0.fibers.borrow().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether to start another would wait: never in a group, which is no [`Pool`](super::Pool).
    pub fn is_full(&self) -> bool {
        self.limit().is_some_and(Semaphore::locked)
    }

    /// The numbers of the fibers, in the order in which they were spawned.
    pub fn ids(&self) -> Vec<FiberId> {
        self.0.fibers.borrow().keys().copied().collect()
    }

    /// Waits until the group is empty, once.
    ///
    /// # Suspends
    /// Until then; not when it is.
    pub fn join(&self) {
        if !self.is_empty() {
            self.0.joining.wait_for(None, WaitsFor::Group);
        }
    }

    /// As [`join`](Self::join), at most for `timeout`.
    ///
    /// # Suspends
    /// Until the group is empty.
    ///
    /// # Errors
    /// [`TimedOut`].
    pub fn join_timeout(&self, timeout: Duration) -> Result<(), TimedOut> {
        if !self.is_empty()
            && self.0.joining.wait_for(deadline(timeout), WaitsFor::Group) == Woke::TimedOut
        {
            return Err(TimedOut);
        }
        Ok(())
    }

    /// Kills all fibers of the group, and does not wait for their ends. Each is killed once, however often this is
    /// called.
    pub fn kill(&self) {
        let mut targets = Vec::new();
        for member in self.0.fibers.borrow_mut().values_mut().filter(|member| !member.dying) {
            member.dying = true;
            targets.push(member.target);
        }
        targets.into_iter().for_each(kill);
    }

    /// Kills all fibers of the group, those that are started meanwhile too, and waits for their ends, at most for
    /// `timeout`. Whether the group is empty.
    ///
    /// # Suspends
    /// Until the group is empty, or for `timeout`.
    pub fn kill_wait(&self, timeout: Option<Duration>) -> bool {
        struct Killing<'a>(&'a Cell<u32>);
        impl Drop for Killing<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        self.0.killing.set(self.0.killing.get() + 1);
        let _killing = Killing(&self.0.killing);
        self.kill();
        match timeout {
            None => self.join(),
            Some(timeout) => drop(self.join_timeout(timeout)),
        }
        self.is_empty()
    }

    /// Kills one fiber, if it is in the group and was not killed by it before; does not wait for its end. gevent's
    /// `killone`.
    pub fn kill_one<T: 'static>(&self, handle: &JoinHandle<T>) {
        let target = {
            let mut fibers = self.0.fibers.borrow_mut();
            let member = fibers.get_mut(&handle.id()).filter(|member| !member.dying);
            member.map(|member| {
                member.dying = true;
                member.target
            })
        };
        target.into_iter().for_each(kill);
    }

    /// Runs `body` on a fiber of the group and waits for its result. Called by a fiber of the group, it runs `body`
    /// right there: in a full pool it would wait for itself.
    ///
    /// # Suspends
    /// Until `body` has ended, and before while a pool is full.
    ///
    /// # Panics
    /// As `body` does. When its fiber is killed.
    #[track_caller]
    pub fn apply<T: 'static>(&self, body: impl FnOnce() -> T + 'static) -> T {
        let me = current();
        if me.is_some_and(|me| self.0.fibers.borrow().contains_key(&me)) {
            return body();
        }
        value_of(self.spawn(body))
    }

    /// As [`spawn`](Self::spawn), but never waits: while a pool is full, the fiber waits for its place elsewhere, and
    /// is not yet one of the pool.
    ///
    /// # Panics
    /// As [`spawn`](crate::spawn()).
    #[track_caller]
    pub fn apply_async<T: 'static>(&self, body: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        match self.try_place() {
            Some(place) => place.spawn(body),
            None => {
                let group = self.clone();
                spawn(move || group.apply(body))
            }
        }
    }

    /// Calls `f` with each item, each on a fiber of the group, and gives the results in the order of the items.
    ///
    /// A caller that is killed meanwhile starts no more fibers; those it has started go on.
    ///
    /// # Suspends
    /// Until the last has ended.
    ///
    /// # Panics
    /// As `f` does: with the first of the panics, in the order of the items; the other fibers go on. When a fiber is
    /// killed.
    #[track_caller]
    pub fn map<I: 'static, T: 'static>(
        &self,
        f: impl Fn(I) -> T + 'static,
        items: impl IntoIterator<Item = I>,
    ) -> Vec<T> {
        let f = Rc::new(f);
        let start = |item| {
            let f = f.clone();
            self.spawn(move || f(item))
        };
        // All of them first, so that they run side by side.
        let handles: Vec<JoinHandle<T>> = items.into_iter().map(start).collect();
        handles.into_iter().map(value_of).collect()
    }

    /// As [`map`](Self::map), as an iterator that gives each result once it is there and those before it were given.
    ///
    /// # Suspends
    /// Not here; each step of the iterator until the next result is there.
    ///
    /// # Panics
    /// Each step as `f` does, and as the iterator of the items does. When a fiber is killed.
    #[track_caller]
    pub fn imap<I: 'static, T: 'static>(
        &self,
        f: impl Fn(I) -> T + 'static,
        items: impl IntoIterator<Item = I> + 'static,
    ) -> Imap<T> {
        Imap::new(self.imap_unordered(f, items))
    }

    /// As [`imap`](Self::imap), in the order in which the results come.
    ///
    /// # Suspends
    /// Not here; each step of the iterator until the next result is there.
    ///
    /// # Panics
    /// As [`imap`](Self::imap).
    #[track_caller]
    pub fn imap_unordered<I: 'static, T: 'static>(
        &self,
        f: impl Fn(I) -> T + 'static,
        items: impl IntoIterator<Item = I> + 'static,
    ) -> ImapUnordered<T> {
        ImapUnordered::start(self.clone(), f, items)
    }

    pub(super) fn limit(&self) -> Option<&Semaphore> {
        self.0.limit.as_ref()
    }

    /// Waits for room for one fiber.
    fn place(&self) -> Place<'_> {
        Place { group: self, permit: self.limit().map(Semaphore::acquire) }
    }

    pub(super) fn place_timeout(&self, timeout: Duration) -> Result<Place<'_>, TimedOut> {
        let permit = self.limit().map(|limit| limit.acquire_timeout(timeout)).transpose()?;
        Ok(Place { group: self, permit })
    }

    pub(super) fn try_place(&self) -> Option<Place<'_>> {
        match self.limit() {
            None => Some(Place { group: self, permit: None }),
            Some(limit) => Some(Place { group: self, permit: Some(limit.try_acquire()?) }),
        }
    }
}

/// Room for one fiber.
pub(super) struct Place<'a> {
    group: &'a Group,
    permit: Option<Permit<'a>>,
}

impl Place<'_> {
    #[track_caller]
    pub(super) fn spawn<T: 'static>(self, body: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
        let handle = spawn(body);
        self.enter(&handle);
        handle
    }

    fn enter<T: 'static>(self, handle: &JoinHandle<T>) {
        let id = handle.id();
        let dying = self.group.0.killing.get() > 0;
        let member = Member { target: handle.target(), dying };
        self.group.0.fibers.borrow_mut().insert(id, member);
        if dying {
            kill(member.target);
        }
        // The member has it now, and gives it back as it leaves.
        self.permit.into_iter().for_each(Permit::forget);
        let members = self.group.0.clone();
        handle.link(move |_| members.leave(id));
    }
}

impl Members {
    /// Does nothing for a fiber that has left already.
    fn leave(&self, id: FiberId) {
        let left = self.fibers.borrow_mut().remove(&id).is_some();
        if !left {
            return;
        }
        if self.fibers.borrow().is_empty() {
            self.joining.wake_all();
        }
        if let Some(limit) = &self.limit {
            limit.release();
        }
    }
}

fn kill(target: FiberRef) {
    hub::try_with(|hub| hub.interrupt(target, Interrupt::Kill));
}

/// What the fiber gives, or its panic.
#[track_caller]
fn value_of<T: 'static>(handle: JoinHandle<T>) -> T {
    match handle.join() {
        Ok(value) => value,
        Err(error) => error.resume(),
    }
}

impl Default for Group {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("len", &self.len()).finish_non_exhaustive()
    }
}
