//! The loop of a thread.
//!
//! One turn:
//!
//! ```text
//!   timers -> callbacks -> readiness -> fibers (at most a burst) -> inbox -> turn hooks -> wait
//! ```
//! The wait is for the driver's events or another thread, until the next timer; after brief ones the hub [looks](spin) a
//! moment before it sleeps. While work is left the driver is
//! asked without waiting, and not in every turn. Nothing of the hub is borrowed while a fiber or a callback runs,
//! so both may call anything of this crate.

mod entered;
mod services;
mod spin;
mod watches;

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use slab::Slab;
use warren_fiber::StackPool;

use crate::arena::Arena;
use crate::driver::{Driver, Event};
use crate::fiber::{Fiber, FiberRef, Interrupt, State, Waiter, Woke};
use crate::inbox::{Inbox, Letter};
use crate::io::{IoHandler, Readiness, wait_fd};
use crate::join::FiberId;
use crate::remote::Remotes;
use crate::switch::SwitchHook;
use crate::turn::{Phase, TurnHook};
use crate::watchdog::Pulse;
use crate::wheel::Wheel;

pub(crate) use spin::SPIN;

use spin::Spin;

pub(crate) use entered::{
    Entered, Unwinding, current_fiber, keep, park_always, park_for, try_with, with,
};

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
    spin: Spin,
    /// Reused from turn to turn.
    events: Cell<Vec<Event>>,
    fired: Cell<Vec<Alarm>>,
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
            spin: Spin::off(),
            events: Cell::default(),
            fired: Cell::default(),
        }))
    }

    /// Makes a hub and runs it on this thread until the fiber that `main` spawns has ended; then kills the
    /// other fibers.
    /// Without a fiber from `main`, there is nothing to run.
    pub(crate) fn run(
        driver: Box<dyn Driver>,
        spin: Duration,
        main: impl FnOnce() -> Option<FiberRef>,
    ) -> io::Result<()> {
        assert!(try_with(|_| ()).is_none(), "a hub already runs on this thread");
        let hub = Self::new(driver)?;
        hub.spin.set(spin);
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
            return self.poll_now_and_then();
        }
        if self.wake_idle()? {
            return Ok(());
        }
        let timeout = self.next_deadline();
        let timeout = timeout.map(|deadline| deadline.saturating_duration_since(self.driver.now()));
        if timeout == Some(Duration::ZERO) {
            return self.poll(Some(Duration::ZERO));
        }
        if self.spin(timeout)? {
            return Ok(());
        }
        if !self.inbox.sleep() {
            return self.poll_now_and_then();
        }
        let trims = self.has_idle_stacks() && timeout.is_none_or(|timeout| TRIM_AFTER < timeout);
        let timeout = if trims { Some(TRIM_AFTER) } else { timeout };
        self.pulse.beat(0);
        let mut events = self.events.take();
        let asleep = self.spin.sleeps();
        let waited = self.driver.wait(timeout, &mut events);
        self.spin.slept(asleep);
        self.inbox.awake();
        self.beat();
        if trims && events.is_empty() {
            self.stacks.trim(WARM_STACKS);
        }
        self.hand_out(events);
        waited
    }

    /// Looks for events, a letter or work a little longer, where that has been worth it before. True when there are any:
    /// then the loop goes on.
    fn spin(&self, timeout: Option<Duration>) -> io::Result<bool> {
        let Some(longest) = self.spin.before_wait() else { return Ok(false) };
        let longest = timeout.map_or(longest, |timeout| timeout.min(longest));
        let start = Instant::now();
        let mut events = self.events.take();
        let mut waited = Ok(());
        let found = loop {
            waited = waited.and_then(|()| self.driver.wait(Some(Duration::ZERO), &mut events));
            if waited.is_err() || !events.is_empty() || self.has_work() {
                break true;
            }
            if longest < start.elapsed() {
                break false;
            }
            std::hint::spin_loop();
        };
        self.spin.looked(found);
        self.hand_out(events);
        waited.map(|()| found)
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

    /// There is work. The driver is asked all the same when it has not been for a while.
    fn poll_now_and_then(&self) -> io::Result<()> {
        let now = self.now.get();
        if now.saturating_duration_since(self.polled.get()) < POLL_INTERVAL {
            return Ok(());
        }
        self.polled.set(now);
        self.poll(Some(Duration::ZERO))
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
            // The inbox is looked into in every turn.
            if key != INBOX_KEY {
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
        // Or else other threads would wait for what it was asked.
        self.inbox.close();
    }
}
