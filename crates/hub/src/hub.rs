//! The loop of a thread.
//!
//! One turn:
//!
//! ```text
//!   timers -> callbacks -> readiness -> fibers (at most 64 resumes) -> inbox -> turn hooks -> wait
//! ```
//! The wait is for the kernel or another thread, until the next timer; it is skipped when work is left. Nothing
//! of the hub is borrowed while a fiber or a callback runs, so both may call anything of this crate.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::fiber::{Fiber, Interrupt, State, Waiter, Woke};
use crate::inbox::{HubHandle, Inbox, Letter};
use crate::io::{IoHandler, Readiness, Registration};
use crate::poller::Poller;
use crate::turn::{Phase, TurnHook};
use crate::wheel::{Key, Wheel};

/// Fibers resumed in one turn before the loop looks at timers and sockets again.
const RESUMES_PER_TURN: usize = 64;
/// The name of the inbox's own descriptor among the kernel's events.
const INBOX_KEY: u64 = u64::MAX;
/// How long fibers that are killed at the end may take with their destructors.
const FAREWELL: Duration = Duration::from_secs(5);

thread_local! {
    /// The hub that runs on this thread; null when none does.
    static HUB: Cell<*const Hub> = const { Cell::new(std::ptr::null()) };
}

/// What a timer does when it fires.
pub(crate) enum Alarm {
    Wake(Waiter),
    Interrupt(Rc<Fiber>, Interrupt),
    Call(Box<dyn FnOnce()>),
}

struct IoSlot {
    handler: Rc<dyn IoHandler>,
    generation: u32,
}

pub(crate) struct Hub {
    fibers: RefCell<Slab<Rc<Fiber>>>,
    last_fiber_id: Cell<u64>,
    last_timeout_id: Cell<u64>,
    ready: RefCell<VecDeque<Rc<Fiber>>>,
    current: RefCell<Option<Rc<Fiber>>>,
    callbacks: RefCell<VecDeque<Box<dyn FnOnce()>>>,
    timers: RefCell<Wheel<Alarm>>,
    io: RefCell<Slab<IoSlot>>,
    last_io_generation: Cell<u32>,
    /// Handlers to be called in the next turn.
    io_again: RefCell<Vec<(u64, Readiness)>>,
    hooks: RefCell<[Vec<Rc<dyn TurnHook>>; 2]>,
    poller: RefCell<Poller>,
    inbox: Arc<Inbox>,
    epoch: Instant,
    now: Cell<Instant>,
}

/// Calls `f` with this thread's hub.
///
/// # Panics
/// When no hub runs on this thread.
pub(crate) fn with<R>(f: impl FnOnce(&Hub) -> R) -> R {
    match try_with(f) {
        Some(result) => result,
        None => panic!("no hub runs on this thread: call this from within warren_hub::run"),
    }
}

/// As [`with`], `None` without a hub.
pub(crate) fn try_with<R>(f: impl FnOnce(&Hub) -> R) -> Option<R> {
    let hub = HUB.get();
    if hub.is_null() {
        return None;
    }
    // SAFETY: `Running::enter` sets the pointer to a hub that outlives it and clears it before the hub goes.
    // The reference is shared; a hub is reached through cells only.
    Some(f(unsafe { &*hub }))
}

/// The fiber that runs.
///
/// # Panics
/// Outside a fiber.
pub(crate) fn current_fiber() -> Rc<Fiber> {
    match with(|hub| hub.current.borrow().clone()) {
        Some(fiber) => fiber,
        None => panic!(
            "this would block the event loop: callbacks must not wait. Spawn a fiber for what waits"
        ),
    }
}

/// Parks the running fiber until `waiter`, made for it just now, is woken or `deadline` comes.
///
/// # Suspends
/// Always.
pub(crate) fn park(waiter: &Waiter, deadline: Option<Instant>) -> Woke {
    struct Armed(Key);
    impl Drop for Armed {
        fn drop(&mut self) {
            with(|hub| hub.cancel(self.0));
        }
    }
    let _armed =
        deadline.map(|deadline| Armed(with(|hub| hub.at(deadline, Alarm::Wake(waiter.clone())))));
    current_fiber().park()
}

/// Marks a hub as this thread's for as long as it lives.
struct Running;

impl Running {
    fn enter(hub: &Hub) -> Self {
        assert!(HUB.get().is_null(), "a hub already runs on this thread");
        HUB.set(hub);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        HUB.set(std::ptr::null());
    }
}

impl Hub {
    /// Makes a hub and runs it on this thread until the fiber that `main` spawns has ended; then kills the
    /// other fibers.
    /// Without a fiber from `main`, there is nothing to run.
    pub(crate) fn run(main: impl FnOnce(&Hub) -> Option<Rc<Fiber>>) -> io::Result<()> {
        assert!(HUB.get().is_null(), "a hub already runs on this thread");
        let hub = Rc::new(Self::new()?);
        let running = Running::enter(&hub);
        if let Some(main) = main(&hub) {
            hub.turns(Some(&main), || main.state.get() == State::Done)?;
        }
        hub.farewell()?;
        // What callbacks and handlers own may still use the hub when it is dropped.
        hub.callbacks.take();
        hub.hooks.take();
        let slots: Vec<IoSlot> = hub.io.borrow_mut().drain().collect();
        drop(slots);
        let timers = std::mem::replace(&mut *hub.timers.borrow_mut(), Wheel::new());
        drop(timers);
        hub.inbox.close();
        drop(running);
        Ok(())
    }

    fn new() -> io::Result<Self> {
        let inbox = Arc::new(Inbox::new()?);
        let poller = Poller::new()?;
        poller.add_level(inbox.as_fd(), INBOX_KEY)?;
        let now = Instant::now();
        Ok(Self {
            fibers: RefCell::default(),
            last_fiber_id: Cell::new(0),
            last_timeout_id: Cell::new(0),
            ready: RefCell::default(),
            current: RefCell::default(),
            callbacks: RefCell::default(),
            timers: RefCell::new(Wheel::new()),
            io: RefCell::default(),
            last_io_generation: Cell::new(0),
            io_again: RefCell::default(),
            hooks: RefCell::default(),
            poller: RefCell::new(poller),
            inbox,
            epoch: now,
            now: Cell::new(now),
        })
    }

    /// Runs the loop until `done`. When nothing can happen any more, `main` is told so by a panic.
    fn turns(&self, main: Option<&Rc<Fiber>>, done: impl Fn() -> bool) -> io::Result<()> {
        loop {
            self.now.set(Instant::now());
            self.fire_timers();
            self.call_back();
            self.call_handlers_again();
            self.resume_ready(&done);
            self.open_letters();
            self.run_hooks();
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

    fn fire_timers(&self) {
        let mut fired = Vec::new();
        let tick = self.now.get().duration_since(self.epoch).as_millis() as u64;
        self.timers.borrow_mut().advance(tick, &mut fired);
        for alarm in fired {
            match alarm {
                Alarm::Wake(waiter) => drop(waiter.wake_as(Woke::TimedOut)),
                Alarm::Interrupt(fiber, interrupt) => self.interrupt(&fiber, interrupt),
                Alarm::Call(callback) => callback(),
            }
        }
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
        for (key, ready) in self.io_again.take() {
            self.call_handler(key, ready);
        }
    }

    fn call_handler(&self, key: u64, ready: Readiness) {
        let (index, generation) = (key as u32 as usize, (key >> 32) as u32);
        let handler = match self.io.borrow().get(index) {
            Some(slot) if slot.generation == generation => slot.handler.clone(),
            // Deregistered since the kernel or the handler named it.
            _ => return,
        };
        handler.io_ready(ready);
    }

    fn resume_ready(&self, done: &impl Fn() -> bool) {
        for _ in 0..RESUMES_PER_TURN {
            let Some(fiber) = self.ready.borrow_mut().pop_front() else { return };
            if fiber.state.get() == State::New && fiber.is_killed() {
                // Its closure is dropped unrun, on this stack.
                self.fibers.borrow_mut().remove(fiber.slot.get());
                fiber.discard();
                continue;
            }
            *self.current.borrow_mut() = Some(fiber.clone());
            let ended = fiber.resume();
            *self.current.borrow_mut() = None;
            if ended {
                self.fibers.borrow_mut().remove(fiber.slot.get());
                if done() {
                    return;
                }
            }
        }
    }

    fn open_letters(&self) {
        self.inbox.drain(|letter: Letter| letter());
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

    fn has_work(&self) -> bool {
        !self.ready.borrow().is_empty()
            || !self.callbacks.borrow().is_empty()
            || !self.io_again.borrow().is_empty()
    }

    /// Nothing is to be done, no timer runs, no descriptor is watched, and no other thread can post.
    fn is_stuck(&self) -> bool {
        !self.has_work()
            && self.timers.borrow().len() == 0
            && self.io.borrow().is_empty()
            && Arc::strong_count(&self.inbox) == 1
            && self.inbox.is_empty()
    }

    /// Names some fibers that wait, for a message.
    pub(crate) fn waiting(&self) -> String {
        let fibers = self.fibers.borrow();
        let labels: Vec<String> = fibers.iter().take(10).map(|(_, fiber)| fiber.label()).collect();
        let more = if fibers.len() > labels.len() { ", ..." } else { "" };
        labels.join(", ") + more
    }

    fn wait(&self) -> io::Result<()> {
        let timeout = if self.has_work() {
            Some(Duration::ZERO)
        } else {
            let next = self.timers.borrow().next_tick();
            next.map(|tick| {
                let deadline = self.epoch + Duration::from_millis(tick);
                deadline.saturating_duration_since(Instant::now())
            })
        };
        let blocking = timeout != Some(Duration::ZERO);
        let timeout = if blocking && !self.inbox.sleep() { Some(Duration::ZERO) } else { timeout };
        let mut events = EVENTS.take();
        let polled = self.poller.borrow_mut().wait(timeout, |key, ready| events.push((key, ready)));
        if blocking {
            self.inbox.awake();
            self.now.set(Instant::now());
        }
        for (key, ready) in events.drain(..) {
            if key == INBOX_KEY {
                self.inbox.rung();
            } else {
                self.call_handler(key, ready);
            }
        }
        EVENTS.set(events);
        polled
    }

    /// Kills what still runs, and lets the destructors have their time.
    fn farewell(&self) -> io::Result<()> {
        let fibers: Vec<Rc<Fiber>> =
            self.fibers.borrow().iter().map(|(_, fiber)| fiber.clone()).collect();
        for fiber in &fibers {
            self.interrupt(fiber, Interrupt::Kill);
        }
        drop(fibers);
        let deadline = Instant::now() + FAREWELL;
        let timer = self.at(deadline, Alarm::Call(Box::new(|| {})));
        self.turns(None, || self.fibers.borrow().is_empty() || deadline <= self.now.get())?;
        self.cancel(timer);
        for fiber in self.fibers.borrow_mut().drain() {
            tracing::error!(fiber = %fiber.label(), "a killed fiber does not end; its stack is leaked");
            std::mem::forget(fiber);
        }
        self.ready.take();
        Ok(())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Only after a panic on the loop: to unwind fibers now would be to run them without a hub.
        for fiber in self.fibers.get_mut().drain() {
            std::mem::forget(fiber);
        }
    }
}

thread_local! {
    /// The events of one poll, reused.
    static EVENTS: Cell<Vec<(u64, Readiness)>> = const { Cell::new(Vec::new()) };
}

/// What the rest of the crate asks for.
impl Hub {
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

    /// Takes a new fiber in; it runs when its turn comes.
    pub(crate) fn adopt(&self, fiber: Rc<Fiber>) {
        let mut fibers = self.fibers.borrow_mut();
        let entry = fibers.vacant_entry();
        fiber.slot.set(entry.key());
        entry.insert(fiber.clone());
        self.make_ready(fiber);
    }

    pub(crate) fn make_ready(&self, fiber: Rc<Fiber>) {
        self.ready.borrow_mut().push_back(fiber);
    }

    pub(crate) fn interrupt(&self, fiber: &Rc<Fiber>, interrupt: Interrupt) {
        if fiber.interrupt(interrupt) {
            self.make_ready(fiber.clone());
        }
    }

    pub(crate) fn is_on_fiber(&self) -> bool {
        self.current.borrow().is_some()
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
        let generation = self.last_io_generation.get().wrapping_add(1) & (u32::MAX >> 1);
        self.last_io_generation.set(generation);
        let mut io = self.io.borrow_mut();
        let entry = io.vacant_entry();
        let key = u64::from(generation) << 32 | entry.key() as u64;
        self.poller.borrow().add(fd, key)?;
        entry.insert(IoSlot { handler, generation });
        Ok(Registration::new(fd.as_raw_fd(), key))
    }

    pub(crate) fn deregister(&self, fd: RawFd, key: u64) {
        let index = key as u32 as usize;
        let slot = {
            let mut io = self.io.borrow_mut();
            match io.get(index) {
                Some(slot) if slot.generation == (key >> 32) as u32 => io.remove(index),
                _ => return,
            }
        };
        // SAFETY: whoever owns a registration drops it before the descriptor, as its documentation asks. Were
        // it closed already, the kernel would answer EBADF, or drop a registration of ours.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        if let Err(error) = self.poller.borrow().remove(fd) {
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

    pub(crate) fn handle(&self) -> HubHandle {
        HubHandle::new(self.inbox.clone())
    }
}
