//! What the rest of the crate asks a hub for: its fibers, its clock and timers, values of its own, reports.

use std::any::TypeId;
use std::rc::Rc;
use std::time::Instant;

use super::entered::PARKED_UNWINDING;
use super::{Alarm, Hub};
use crate::fiber::{Fiber, FiberRef, Interrupt, State, Waiter, Woke};
use crate::inbox::HubHandle;
use crate::report::{FiberInfo, RunInfo};
use crate::wheel::Key;

impl Hub {
    /// The time at which the turn began.
    pub(crate) fn now(&self) -> Instant {
        self.now.get()
    }

    pub(crate) fn next_fiber_id(&self) -> u64 {
        let id = self.last_fiber_id.get() + 1;
        self.last_fiber_id.set(id);
        id
    }

    pub(crate) fn next_timeout_id(&self) -> u64 {
        let id = self.last_timeout_id.get() + 1;
        self.last_timeout_id.set(id);
        id
    }

    /// The fiber that runs; `None` on the loop.
    pub(crate) fn current(&self) -> Option<&Fiber> {
        let fiber = self.current.get();
        // SAFETY: set by `resume_ready` to a fiber in the arena, which lives as long as the hub.
        (!fiber.is_null()).then(|| unsafe { &*fiber })
    }

    /// The fiber that runs, which is about to wait.
    ///
    /// # Panics
    /// On the loop, and where waiting is forbidden.
    pub(crate) fn running(&self) -> &Fiber {
        let Some(fiber) = self.current() else {
            panic!(
                "this would block the event loop: callbacks must not wait. Spawn a fiber for what waits"
            )
        };
        assert!(
            self.no_wait.get() == 0,
            "this must not wait: it is called from a future's poll, or within warren_hub::no_wait"
        );
        fiber
    }

    /// Whether a call that waits would be allowed to.
    pub(crate) fn can_wait(&self) -> bool {
        !self.current.get().is_null() && self.no_wait.get() == 0 && !self.is_unwinding()
    }

    /// Whether code that runs has to be through before anything waits.
    pub(crate) fn forbids_waiting(&self) -> bool {
        self.no_wait.get() > 0
    }

    /// Whether the running fiber unwinds: this is called from a destructor.
    pub(crate) fn is_unwinding(&self) -> bool {
        std::thread::panicking()
            && (PARKED_UNWINDING.get() == 0
                || self.current().is_some_and(|fiber| fiber.unwinding.get()))
    }

    /// Forbids waiting (`true`) or ends that.
    pub(crate) fn forbid_waiting(&self, forbid: bool) {
        let count = self.no_wait.get();
        self.no_wait.set(if forbid { count + 1 } else { count - 1 });
    }

    /// Counts an I/O call that did not have to wait. False when the fiber should let others run.
    pub(crate) fn charge_io(&self) -> bool {
        let left = self.io_budget.get();
        self.io_budget.set(left.saturating_sub(1));
        left > 0
    }

    /// The fiber of this name, while it lives.
    pub(crate) fn fiber(&self, target: FiberRef) -> Option<&Fiber> {
        if target.hub != self.number {
            return None;
        }
        let fiber = self.fibers.get(target.index);
        (fiber.id.get() == target.id && fiber.state.get() != State::Vacant).then_some(fiber)
    }

    pub(crate) fn name_of(&self, fiber: &Fiber) -> FiberRef {
        FiberRef { hub: self.number, index: fiber.index, id: fiber.id.get() }
    }

    /// Starts a fiber that was put into its place. Does nothing when it was killed meanwhile.
    pub(crate) fn start(&self, target: FiberRef) {
        if let Some(fiber) = self.fiber(target)
            && fiber.state.get() == State::Later
        {
            fiber.state.set(State::New);
            self.make_ready(fiber);
        }
    }

    pub(crate) fn make_ready(&self, fiber: &Fiber) {
        self.ready.borrow_mut().push_back(fiber.index);
    }

    pub(crate) fn wake(&self, index: u32, ticket: u64, woke: Woke) -> bool {
        let fiber = self.fibers.get(index);
        let woken = fiber.wake(ticket, woke);
        if woken {
            self.make_ready(fiber);
        }
        woken
    }

    pub(crate) fn interrupt(&self, target: FiberRef, interrupt: Interrupt) {
        if let Some(fiber) = self.fiber(target)
            && fiber.interrupt(interrupt)
        {
            self.make_ready(fiber);
        }
    }

    /// Lets `waiter` go on when the loop has nothing else to do.
    pub(crate) fn when_idle(&self, waiter: Waiter) {
        self.idle.borrow_mut().push_back(waiter);
    }

    /// Calls `callback` on the loop as soon as the running fiber has ended.
    pub(crate) fn call_after(&self, callback: Box<dyn FnOnce()>) {
        self.after.borrow_mut().push_back(callback);
    }

    pub(crate) fn call_soon(&self, callback: Box<dyn FnOnce()>) {
        self.callbacks.borrow_mut().push_back(callback);
    }

    /// Sets an alarm. Deadlines are rounded up to whole milliseconds since the hub's start.
    pub(crate) fn at(&self, deadline: Instant, alarm: Alarm) -> Key {
        let after = deadline.saturating_duration_since(self.epoch);
        let tick = u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX / 2);
        self.timers.borrow_mut().insert(tick, alarm)
    }

    pub(crate) fn has_timer(&self, key: Key) -> bool {
        self.timers.borrow().contains(key)
    }

    pub(crate) fn cancel(&self, key: Key) -> bool {
        // Dropped after the borrow has ended: it may own something that uses timers.
        let cancelled = self.timers.borrow_mut().cancel(key);
        cancelled.is_some()
    }

    pub(crate) fn handle(&self) -> HubHandle {
        HubHandle::new(self.inbox.clone())
    }

    /// Whether it is this hub's.
    pub(crate) fn is(&self, handle: &HubHandle) -> bool {
        handle.reaches(&self.inbox)
    }

    /// The one value of type `T` that belongs to this hub; made at the first use. `make` is code of this crate.
    pub(crate) fn local<T: 'static>(&self, make: impl FnOnce() -> T) -> Rc<T> {
        self.known_local().unwrap_or_else(|| {
            // Made outside the borrow: it may use the hub.
            let made = Rc::new(make());
            self.locals.borrow_mut().insert(TypeId::of::<T>(), made.clone());
            made
        })
    }

    /// As [`local`](Self::local), if there is one.
    pub(crate) fn known_local<T: 'static>(&self) -> Option<Rc<T>> {
        self.locals.borrow().get(&TypeId::of::<T>())?.clone().downcast().ok()
    }

    /// Looks at every fiber.
    pub(crate) fn run_info(&self) -> RunInfo {
        let there = self.fibers.iter().filter(|fiber| fiber.state.get() != State::Vacant);
        let mut fibers: Vec<FiberInfo> = there.map(|fiber| FiberInfo::of(self, fiber)).collect();
        fibers.sort_by_key(|fiber| fiber.id);
        RunInfo {
            fibers,
            timers: self.timers.borrow().len(),
            descriptors: self.io.borrow().len(),
            driver: self.driver.name(),
        }
    }

    /// Says that nothing can happen any more, and who waits for what. gevent's `LoopExit`.
    pub(crate) fn stuck_report(&self) -> String {
        const FIBERS_MAX: usize = 20;
        let mut info = self.run_info();
        let more = info.fibers.len().saturating_sub(FIBERS_MAX);
        info.fibers.truncate(FIBERS_MAX);
        format!(
            "this hub waits for ever: no fiber can run, no timer or socket is left, and no other thread has a handle to \
             it. {info}{}",
            if more > 0 { format!("and {more} fibers more") } else { String::new() }
        )
    }
}
