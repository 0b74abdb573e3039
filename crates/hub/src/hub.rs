//! The loop of a thread.
//!
//! One turn:
//!
//! ```text
//!   timers -> callbacks -> readiness -> fibers (at most a burst) -> inbox -> turn hooks -> wait
//! ```
//! The wait is for the driver's events or another thread, until the next timer; while work is left the driver is
//! asked without waiting, and not in every turn. Nothing of the hub is borrowed while a fiber or a callback runs,
//! so both may call anything of this crate.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use slab::Slab;
use warren_fiber::StackPool;

use crate::arena::Arena;
use crate::driver::{Driver, Event, Source};
use crate::fiber::{Fiber, FiberRef, Interrupt, Shield, State, Waiter, WaitsFor, Woke};
use crate::inbox::{HubHandle, Inbox, Letter};
use crate::io::{IoHandler, Readiness, Registration, wait_fd};
use crate::join::FiberId;
use crate::remote::Remotes;
use crate::report::{FiberInfo, RunInfo};
use crate::switch::SwitchHook;
use crate::turn::{Phase, TurnHook};
use crate::watchdog::Pulse;
use crate::wheel::{Key, Wheel};

/// While there is work, the driver is asked for events this often only.
const POLL_INTERVAL: Duration = Duration::from_micros(50);
/// The name of the inbox's bell among the driver's events.
const INBOX_KEY: u64 = u64::MAX;
/// How long fibers that are killed at the end may take with their destructors.
const FAREWELL: Duration = Duration::from_secs(5);
/// I/O calls a fiber may make in one go, none of which had to wait. Then others have their turn.
const IO_BUDGET: u32 = 128;
/// How many fibers before its turn a fiber's stack is fetched, and its place: memory takes longer than one switch.
const STACK_AHEAD: usize = 2;
const FIBER_AHEAD: usize = 4;

/// Free stacks that keep their memory, for the next fibers.
const WARM_STACKS: usize = 256;
/// A hub that is idle for so long gives memory of the others back.
const TRIM_AFTER: Duration = Duration::from_millis(500);

thread_local! {
    /// The hub that runs on this thread; null when none does.
    static HUB: Cell<*const Hub> = const { Cell::new(std::ptr::null()) };
    /// Fibers of the thread's hubs that wait while they unwind. As long as there are any, every fiber finds the thread
    /// panicking.
    static PARKED_UNWINDING: Cell<u32> = const { Cell::new(0) };
}

/// What a timer does when it fires.
pub(crate) enum Alarm {
    Wake(Waiter),
    Timeout(FiberRef, u64),
    Start(FiberRef),
    Call(Box<dyn FnOnce()>),
}

struct IoSlot {
    handler: Rc<dyn IoHandler>,
    generation: u32,
}

pub(crate) struct Hub {
    /// Unique in the process.
    pub(crate) number: u32,
    pub(crate) fibers: Arena,
    pub(crate) stacks: StackPool,
    last_fiber_id: Cell<u64>,
    last_timeout_id: Cell<u64>,
    /// Fibers that can go on, by their places in the arena.
    ready: RefCell<VecDeque<u32>>,
    /// The fiber that runs, or null.
    current: Cell<*const Fiber>,
    /// While above zero, the running fiber must not wait.
    no_wait: Cell<u32>,
    io_budget: Cell<u32>,
    /// Fibers that wait for the loop to have nothing else to do.
    idle: RefCell<VecDeque<Waiter>>,
    /// Run as soon as the present fiber is off its stack.
    after: RefCell<VecDeque<Box<dyn FnOnce()>>>,
    callbacks: RefCell<VecDeque<Box<dyn FnOnce()>>>,
    timers: RefCell<Wheel<Alarm>>,
    io: RefCell<Slab<IoSlot>>,
    last_io_generation: Cell<u32>,
    /// Handlers to be called in the next turn.
    io_again: RefCell<Vec<Event>>,
    hooks: RefCell<[Vec<Rc<dyn TurnHook>>; 2]>,
    has_switch_hooks: Cell<bool>,
    switch_hooks: RefCell<Vec<Rc<dyn SwitchHook>>>,
    pub(crate) remotes: Remotes,
    locals: RefCell<BTreeMap<TypeId, Rc<dyn Any>>>,
    pub(crate) driver: Box<dyn Driver>,
    /// The driver chooses who runs, and keeps a trace.
    simulated: bool,
    inbox: Arc<Inbox>,
    pub(crate) pulse: Arc<Pulse>,
    /// Moved on by each turn and each resume.
    beats: Cell<u64>,
    epoch: Instant,
    now: Cell<Instant>,
    polled: Cell<Instant>,
    /// Reused from turn to turn.
    events: Cell<Vec<Event>>,
    fired: Cell<Vec<Alarm>>,
}

/// Calls `f` with this thread's hub.
///
/// # Panics
/// When no hub runs on this thread.
#[inline]
pub(crate) fn with<R>(f: impl FnOnce(&Hub) -> R) -> R {
    match try_with(f) {
        Some(result) => result,
        None => panic!("no hub runs on this thread: call this from within warren_hub::run"),
    }
}

/// As [`with`], `None` without a hub.
#[inline]
pub(crate) fn try_with<R>(f: impl FnOnce(&Hub) -> R) -> Option<R> {
    let hub = HUB.get();
    if hub.is_null() {
        return None;
    }
    // SAFETY: `Entered::new` sets the pointer to a hub that outlives it and clears it before the hub goes.
    // The reference is shared; a hub is reached through cells only.
    Some(f(unsafe { &*hub }))
}

/// Parks the running fiber until `waiter`, made for it just now, is woken or `deadline` comes. A fiber that
/// unwinds does not wait: for it, the time has run out. `what` is for reports.
///
/// # Suspends
/// Always, but for a fiber that unwinds.
#[inline(always)]
pub(crate) fn park_for(waiter: &Waiter, deadline: Option<Instant>, what: WaitsFor) -> Woke {
    // Others should not run while this thread counts as panicking: a lock of the standard library that they drop
    // meanwhile would be poisoned.
    if with(Hub::is_unwinding) {
        return Woke::TimedOut;
    }
    park_always(waiter, deadline, what)
}

/// As [`park_for`], also while the fiber unwinds: for waits that have no other way to end, such as for a lock.
#[inline(always)]
pub(crate) fn park_always(waiter: &Waiter, deadline: Option<Instant>, what: WaitsFor) -> Woke {
    with(|hub| {
        let fiber = hub.running();
        let _unwinding = hub.is_unwinding().then(|| Unwinding::new(fiber));
        fiber.deliver();
        let _armed = deadline.map(|deadline| Armed(hub, hub.at(deadline, Alarm::Wake(*waiter))));
        let woke = fiber.park(what);
        if woke == Woke::Interrupted {
            fiber.deliver();
        }
        woke
    })
}

/// The wait of a fiber that unwinds: nothing more is thrown into it, which would end the process, and what the others
/// take from it is that the thread counts as panicking.
struct Unwinding<'a> {
    _shield: Shield<'a>,
}

impl<'a> Unwinding<'a> {
    fn new(fiber: &'a Fiber) -> Self {
        PARKED_UNWINDING.set(PARKED_UNWINDING.get() + 1);
        fiber.unwinding.set(true);
        Self { _shield: fiber.shield() }
    }
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        PARKED_UNWINDING.set(PARKED_UNWINDING.get() - 1);
    }
}

/// Cancels a timer at the end of a wait, however that comes.
struct Armed<'a>(&'a Hub, Key);

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.cancel(self.1);
    }
}

/// Marks a hub as this thread's for as long as it lives. What was there before comes back then.
pub(crate) struct Entered(*const Hub);

impl Entered {
    pub(crate) fn new(hub: &Hub) -> Self {
        Self(HUB.replace(hub))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        HUB.set(self.0);
    }
}

impl Hub {
    pub(crate) fn new(driver: Box<dyn Driver>) -> io::Result<Rc<Self>> {
        static LAST_NUMBER: AtomicU32 = AtomicU32::new(0);
        let inbox = Arc::new(Inbox::new(driver.bell(INBOX_KEY)?));
        let now = driver.now();
        Ok(Rc::new(Self {
            number: LAST_NUMBER.fetch_add(1, Ordering::Relaxed),
            fibers: Arena::new(),
            stacks: StackPool::local(),
            last_fiber_id: Cell::new(0),
            last_timeout_id: Cell::new(0),
            ready: RefCell::default(),
            current: Cell::new(std::ptr::null()),
            no_wait: Cell::new(0),
            io_budget: Cell::new(IO_BUDGET),
            idle: RefCell::default(),
            after: RefCell::default(),
            callbacks: RefCell::default(),
            timers: RefCell::new(Wheel::new()),
            io: RefCell::default(),
            last_io_generation: Cell::new(0),
            io_again: RefCell::default(),
            hooks: RefCell::default(),
            has_switch_hooks: Cell::new(false),
            switch_hooks: RefCell::default(),
            remotes: Remotes::new(),
            locals: RefCell::default(),
            simulated: driver.is_simulated(),
            driver,
            inbox,
            pulse: Arc::new(Pulse::new()),
            beats: Cell::new(1),
            epoch: now,
            now: Cell::new(now),
            polled: Cell::new(now),
            events: Cell::default(),
            fired: Cell::default(),
        }))
    }

    /// Makes a hub and runs it on this thread until the fiber that `main` spawns has ended; then kills the
    /// other fibers.
    /// Without a fiber from `main`, there is nothing to run.
    pub(crate) fn run(
        driver: Box<dyn Driver>,
        main: impl FnOnce() -> Option<FiberRef>,
    ) -> io::Result<()> {
        assert!(HUB.get().is_null(), "a hub already runs on this thread");
        let hub = Self::new(driver)?;
        let entered = Entered::new(&hub);
        if let Some(main) = main() {
            hub.turns(Some(main), || hub.fiber(main).is_none())?;
        }
        hub.farewell()?;
        hub.clear();
        drop(entered);
        Ok(())
    }

    /// Runs the loop until `done`. When nothing can happen any more, `main` is told so by a panic.
    fn turns(&self, main: Option<FiberRef>, done: impl Fn() -> bool) -> io::Result<()> {
        loop {
            self.turn(&done);
            if done() {
                return Ok(());
            }
            if self.is_stuck() {
                match main {
                    Some(main) => self.interrupt(main, Interrupt::Stuck),
                    None => return Ok(()),
                }
            }
            self.wait()?;
        }
    }

    /// Does what can be done now. Stops early once `done`.
    pub(crate) fn turn(&self, done: &impl Fn() -> bool) {
        self.now.set(self.driver.now());
        self.beat();
        self.fire_timers();
        self.call_back();
        self.call_handlers_again();
        self.resume_ready(done);
        self.open_letters();
        self.run_hooks();
    }

    fn fire_timers(&self) {
        let mut fired = self.fired.take();
        let tick = self.now.get().duration_since(self.epoch).as_millis() as u64;
        self.timers.borrow_mut().advance(tick, &mut fired);
        for alarm in fired.drain(..) {
            match alarm {
                Alarm::Wake(waiter) => drop(waiter.wake_as(Woke::TimedOut)),
                Alarm::Timeout(fiber, id) => self.interrupt(fiber, Interrupt::Timeout(id)),
                Alarm::Start(fiber) => self.start(fiber),
                Alarm::Call(callback) => callback(),
            }
        }
        self.fired.set(fired);
    }

    /// Calls what was there at the start: a callback that schedules itself must not stop the loop.
    fn call_back(&self) {
        let count = self.callbacks.borrow().len();
        for _ in 0..count {
            let callback = self.callbacks.borrow_mut().pop_front();
            if let Some(callback) = callback {
                callback();
            }
        }
    }

    fn call_handlers_again(&self) {
        if self.io_again.borrow().is_empty() {
            return;
        }
        for (key, ready) in self.io_again.take() {
            self.call_handler(key, ready);
        }
    }

    fn call_handler(&self, key: u64, ready: Readiness) {
        let (index, generation) = (key as u32 as usize, (key >> 32) as u32);
        let handler = match self.io.borrow().get(index) {
            Some(slot) if slot.generation == generation => slot.handler.clone(),
            // Deregistered since the driver or the handler named it.
            _ => return,
        };
        handler.io_ready(ready);
    }

    fn resume_ready(&self, done: &impl Fn() -> bool) {
        for _ in 0..self.driver.burst() {
            let Some(index) = self.next_ready() else { return };
            let fiber = self.fibers.get(index);
            if fiber.state.get() == State::New && fiber.is_killed() {
                // Its closure is dropped unrun, on this stack.
                self.ended(fiber);
                continue;
            }
            if self.simulated {
                self.driver.trace(1, fiber.id.get());
            }
            self.io_budget.set(IO_BUDGET);
            self.beat();
            let hooked = self.has_switch_hooks.get();
            if hooked {
                self.call_switch_hooks(|hook| hook.switched_in(FiberId(fiber.id.get())));
            }
            self.current.set(fiber);
            let ended = fiber.resume();
            self.current.set(std::ptr::null());
            if hooked {
                self.call_switch_hooks(|hook| hook.switched_out(FiberId(fiber.id.get())));
            }
            if ended {
                self.ended(fiber);
                if done() {
                    return;
                }
            }
        }
    }

    #[cold]
    fn call_switch_hooks(&self, call: impl Fn(&dyn SwitchHook)) {
        // Copied: a hook may add or remove hooks.
        let hooks = self.switch_hooks.borrow().clone();
        hooks.iter().for_each(|hook| call(&**hook));
    }

    fn next_ready(&self) -> Option<u32> {
        let mut ready = self.ready.borrow_mut();
        if !self.simulated {
            let first = ready.pop_front();
            if let Some(&soon) = ready.get(STACK_AHEAD) {
                self.fibers.get(soon).prefetch_stack();
                if let Some(&later) = ready.get(FIBER_AHEAD) {
                    self.fibers.get(later).prefetch();
                }
            }
            return first;
        }
        // The others keep their order.
        let choice = self.driver.choose(ready.len());
        ready.remove(choice)
    }

    fn ended(&self, fiber: &Fiber) {
        fiber.vacate();
        self.fibers.give_back(fiber);
        loop {
            let Some(callback) = self.after.borrow_mut().pop_front() else { return };
            callback();
        }
    }

    fn open_letters(&self) {
        self.inbox.drain(Letter::open);
    }

    fn run_hooks(&self) {
        for phase in [Phase::Work, Phase::Flush] {
            let mut index = 0;
            loop {
                let hook = self.hooks.borrow()[phase as usize].get(index).cloned();
                let Some(hook) = hook else { break };
                hook.turn_end();
                index += 1;
            }
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.ready.borrow().is_empty()
            || !self.callbacks.borrow().is_empty()
            || !self.io_again.borrow().is_empty()
            || !self.inbox.is_empty()
    }

    /// Nothing is to be done, no timer runs, no descriptor is watched, and no other thread can post.
    fn is_stuck(&self) -> bool {
        !self.has_work()
            && self.timers.borrow().len() == 0
            && self.io.borrow().len() == usize::from(wait_fd::is_idle())
            && self.idle.borrow().is_empty()
            && Arc::strong_count(&self.inbox) == 1
            && self.inbox.is_empty()
            && !self.fibers.iter().any(Fiber::may_be_woken_by_a_future)
    }

    /// When the next timer fires.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let tick = self.timers.borrow().next_tick()?;
        Some(self.epoch + Duration::from_millis(tick))
    }

    fn wait(&self) -> io::Result<()> {
        if self.has_work() {
            let now = self.now.get();
            if now.saturating_duration_since(self.polled.get()) < POLL_INTERVAL {
                return Ok(());
            }
            self.polled.set(now);
            return self.poll(Some(Duration::ZERO));
        }
        if self.wake_idle()? {
            return Ok(());
        }
        let timeout = self.next_deadline();
        let timeout = timeout.map(|deadline| deadline.saturating_duration_since(self.driver.now()));
        if timeout == Some(Duration::ZERO) || !self.inbox.sleep() {
            return self.poll(Some(Duration::ZERO));
        }
        let trims = self.has_idle_stacks() && timeout.is_none_or(|timeout| TRIM_AFTER < timeout);
        let timeout = if trims { Some(TRIM_AFTER) } else { timeout };
        self.pulse.beat(0);
        let mut events = self.events.take();
        let waited = self.driver.wait(timeout, &mut events);
        self.inbox.awake();
        self.beat();
        if trims && events.is_empty() {
            self.stacks.trim(WARM_STACKS);
        }
        self.hand_out(events);
        waited
    }

    /// More stacks are free than will be needed at once, and they hold memory.
    fn has_idle_stacks(&self) -> bool {
        let stacks = self.stacks.stats();
        !self.simulated && WARM_STACKS < stacks.free - stacks.cold.min(stacks.free)
    }

    /// Shows the watchdog that the loop goes on.
    fn beat(&self) {
        let beats = self.beats.get() + 1;
        self.beats.set(beats);
        self.pulse.beat(beats);
    }

    /// Wakes the first fiber that waits for an idle loop, if the loop is idle.
    fn wake_idle(&self) -> io::Result<bool> {
        if self.idle.borrow().is_empty() {
            return Ok(false);
        }
        self.poll(Some(Duration::ZERO))?;
        Ok(self.has_work() || self.wake_first_idle())
    }

    /// Wakes the first fiber that waits for an idle loop. False when there is none.
    pub(crate) fn wake_first_idle(&self) -> bool {
        loop {
            let first = self.idle.borrow_mut().pop_front();
            match first {
                Some(waiter) if waiter.wake() => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Takes events from the driver and hands them out.
    pub(crate) fn poll(&self, timeout: Option<Duration>) -> io::Result<()> {
        let mut events = self.events.take();
        let polled = self.driver.wait(timeout, &mut events);
        self.hand_out(events);
        polled
    }

    fn hand_out(&self, mut events: Vec<Event>) {
        self.polled.set(self.now.get());
        for (key, ready) in events.drain(..) {
            if key == INBOX_KEY {
                self.inbox.rung();
            } else {
                self.call_handler(key, ready);
            }
        }
        self.events.set(events);
    }

    /// Kills what still runs, and lets the destructors have their time.
    fn farewell(&self) -> io::Result<()> {
        self.kill_all();
        let deadline = self.driver.now() + FAREWELL;
        let timer = self.at(deadline, Alarm::Call(Box::new(|| {})));
        self.turns(None, || self.fibers.live() == 0 || deadline <= self.now.get())?;
        self.cancel(timer);
        self.leak_all();
        Ok(())
    }

    /// Kills every fiber: each ends where it waits, once it gets its turn.
    pub(crate) fn kill_all(&self) {
        for fiber in self.fibers.iter() {
            if fiber.interrupt(Interrupt::Kill) {
                self.make_ready(fiber);
            }
        }
    }

    /// Resumes fibers and opens letters, and nothing else: for a hub whose fibers are to unwind without the world's
    /// doing.
    pub(crate) fn wind_down(&self) {
        self.resume_ready(&|| false);
        self.open_letters();
    }

    /// Gives up on fibers that do not end.
    pub(crate) fn leak_all(&self) {
        for fiber in self.fibers.iter().filter(|fiber| fiber.state.get() != State::Vacant) {
            tracing::error!(fiber = %fiber.label(), "a killed fiber does not end; its stack is leaked");
            fiber.leak();
        }
        self.ready.take();
    }

    /// Drops what callbacks and handlers own, while they may still use the hub.
    pub(crate) fn clear(&self) {
        self.after.take();
        self.callbacks.take();
        self.hooks.take();
        self.switch_hooks.take();
        let slots: Vec<IoSlot> = self.io.borrow_mut().drain().collect();
        drop(slots);
        let timers = std::mem::replace(&mut *self.timers.borrow_mut(), Wheel::new());
        drop(timers);
        let locals = self.locals.take();
        drop(locals);
        self.inbox.close();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Only after a panic on the loop: to unwind fibers now would be to run them without a hub.
        for fiber in self.fibers.iter() {
            fiber.leak();
        }
    }
}

/// What the rest of the crate asks for.
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

    pub(crate) fn register(
        &self,
        fd: BorrowedFd<'_>,
        handler: Rc<dyn IoHandler>,
    ) -> io::Result<Registration> {
        let key = self.enter_handler(handler, |key| self.driver.watch_fd(fd, key))?;
        Ok(Registration::new(fd.as_raw_fd(), key))
    }

    /// As [`register`](Self::register), for a source of the driver's.
    pub(crate) fn watch(&self, source: &Source, handler: Rc<dyn IoHandler>) -> io::Result<u64> {
        self.enter_handler(handler, |key| self.driver.watch(source, key))
    }

    fn enter_handler(
        &self,
        handler: Rc<dyn IoHandler>,
        watch: impl FnOnce(u64) -> io::Result<()>,
    ) -> io::Result<u64> {
        let generation = self.last_io_generation.get().wrapping_add(1) & (u32::MAX >> 1);
        self.last_io_generation.set(generation);
        let mut io = self.io.borrow_mut();
        let entry = io.vacant_entry();
        let key = u64::from(generation) << 32 | entry.key() as u64;
        watch(key)?;
        entry.insert(IoSlot { handler, generation });
        Ok(key)
    }

    pub(crate) fn deregister(&self, fd: RawFd, key: u64) {
        // SAFETY: whoever owns a registration drops it before the descriptor, as its documentation asks. Were
        // it closed already, the kernel would answer EBADF, or drop a registration of ours.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        self.leave_handler(key, || self.driver.unwatch_fd(fd, key));
    }

    pub(crate) fn unwatch(&self, source: &Source, key: u64) {
        self.leave_handler(key, || self.driver.unwatch(source, key));
    }

    fn leave_handler(&self, key: u64, unwatch: impl FnOnce() -> io::Result<()>) {
        let index = key as u32 as usize;
        let slot = {
            let mut io = self.io.borrow_mut();
            match io.get(index) {
                Some(slot) if slot.generation == (key >> 32) as u32 => io.remove(index),
                _ => return,
            }
        };
        if let Err(error) = unwatch() {
            tracing::warn!(%error, "a descriptor was closed before its registration was dropped");
        }
        drop(slot);
    }

    pub(crate) fn ready_again(&self, key: u64, ready: Readiness) {
        self.io_again.borrow_mut().push((key, ready));
    }

    pub(crate) fn add_hook(&self, phase: Phase, hook: Rc<dyn TurnHook>) {
        self.hooks.borrow_mut()[phase as usize].push(hook);
    }

    pub(crate) fn remove_hook(&self, phase: Phase, hook: &Rc<dyn TurnHook>) {
        let removed = {
            let hooks = &mut self.hooks.borrow_mut()[phase as usize];
            let index = hooks.iter().position(|other| Rc::ptr_eq(other, hook));
            index.map(|index| hooks.remove(index))
        };
        drop(removed);
    }

    pub(crate) fn add_switch_hook(&self, hook: Rc<dyn SwitchHook>) {
        self.switch_hooks.borrow_mut().push(hook);
        self.has_switch_hooks.set(true);
    }

    pub(crate) fn remove_switch_hook(&self, hook: &Rc<dyn SwitchHook>) {
        let removed = {
            let mut hooks = self.switch_hooks.borrow_mut();
            let index = hooks.iter().position(|other| Rc::ptr_eq(other, hook));
            let removed = index.map(|index| hooks.remove(index));
            self.has_switch_hooks.set(!hooks.is_empty());
            removed
        };
        drop(removed);
    }

    pub(crate) fn handle(&self) -> HubHandle {
        HubHandle::new(self.inbox.clone())
    }

    /// Whether it is this hub's.
    pub(crate) fn is(&self, handle: &HubHandle) -> bool {
        handle.reaches(&self.inbox)
    }

    /// The one value of type `T` that belongs to this hub; made at the first use.
    pub(crate) fn local<T: 'static>(&self, make: impl FnOnce() -> T) -> Rc<T> {
        let known = self.locals.borrow().get(&TypeId::of::<T>()).cloned();
        if let Some(known) = known.and_then(|known| known.downcast().ok()) {
            return known;
        }
        // Made outside the borrow: it may use the hub.
        let made = Rc::new(make());
        self.locals.borrow_mut().insert(TypeId::of::<T>(), made.clone());
        made
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
