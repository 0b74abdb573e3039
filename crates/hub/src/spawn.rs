//! Starting fibers.

use std::io;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::time::Duration;

use warren_fiber::stack::Owner;
use warren_fiber::{BODY_BYTES_MAX, RawFiber, StackSize};

use crate::fiber::{FiberRef, Interrupt, as_interrupt};
use crate::hub::{self, Hub};
use crate::join::{FiberId, Finish, JoinError, JoinHandle, Outcome, Panic, contain};

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
#[track_caller]
pub fn spawn<T: 'static>(body: impl FnOnce() -> T + 'static) -> JoinHandle<T> {
    match Builder::new().spawn(body) {
        Ok(handle) => handle,
        Err(error) => panic!("no stack for a fiber: {error}"),
    }
}

/// Starts a fiber after `delay`. Killed before, it never runs.
///
/// # Panics
/// As [`spawn`]. The stack is taken now.
#[track_caller]
pub fn spawn_later<T: 'static>(
    delay: Duration,
    body: impl FnOnce() -> T + 'static,
) -> JoinHandle<T> {
    let started = Builder::new().prepare(body, |hub, fiber| {
        hub.at(hub.driver.now() + delay, hub::Alarm::Start(fiber));
    });
    match started {
        Ok(handle) => handle,
        Err(error) => panic!("no stack for a fiber: {error}"),
    }
}

/// Starts the cheapest of fibers: no handle, no result. A panic in it is reported by the panic hook only.
///
/// # Panics
/// As [`spawn`].
#[track_caller]
pub fn spawn_raw(body: impl FnOnce() + 'static) {
    let spawned_at = Location::caller();
    let spawned = hub::with(|hub| {
        let body = move || drop(catch_unwind(AssertUnwindSafe(body)));
        let fiber = Builder::new().place(hub, spawned_at, body)?;
        hub.start(fiber);
        io::Result::Ok(())
    });
    if let Err(error) = spawned {
        panic!("no stack for a fiber: {error}");
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
    #[track_caller]
    pub fn spawn<T: 'static>(
        self,
        body: impl FnOnce() -> T + 'static,
    ) -> io::Result<JoinHandle<T>> {
        self.prepare(body, Hub::start)
    }

    #[track_caller]
    pub(crate) fn prepare<T: 'static>(
        self,
        body: impl FnOnce() -> T + 'static,
        start: impl FnOnce(&Hub, FiberRef),
    ) -> io::Result<JoinHandle<T>> {
        self.prepare_at(Location::caller(), body, start)
    }

    pub(crate) fn prepare_at<T: 'static>(
        self,
        spawned_at: &'static Location<'static>,
        body: impl FnOnce() -> T + 'static,
        start: impl FnOnce(&Hub, FiberRef),
    ) -> io::Result<JoinHandle<T>> {
        let outcome = Outcome::new();
        let finish = Finish(outcome.clone());
        hub::with(|hub| {
            let target = self.place(hub, spawned_at, move || {
                let caught = catch_unwind(AssertUnwindSafe(|| {
                    // Something may have been thrown into it before it began.
                    hub::with(|hub| hub.running().deliver());
                    body()
                }));
                match caught {
                    Ok(value) => finish.with_value(value),
                    Err(payload) => finish.with_error(match as_interrupt(&*payload) {
                        Some(Interrupt::Kill) => JoinError::Killed,
                        _ => JoinError::Panicked(Panic::new(payload)),
                    }),
                }
            })?;
            start(hub, target);
            Ok(JoinHandle::new(target, outcome))
        })
    }

    /// Gives `body`, which must not unwind, a stack and a place among the hub's fibers. Does not start it.
    fn place(
        self,
        hub: &Hub,
        spawned_at: &'static Location<'static>,
        body: impl FnOnce() + 'static,
    ) -> io::Result<FiberRef> {
        if BODY_BYTES_MAX < size_of_val(&body) {
            return self.place_small(hub, spawned_at, Box::new(body));
        }
        self.place_small(hub, spawned_at, body)
    }

    fn place_small(
        self,
        hub: &Hub,
        spawned_at: &'static Location<'static>,
        body: impl FnOnce() + 'static,
    ) -> io::Result<FiberRef> {
        let stack = hub.stacks.take(self.stack_size)?;
        let id = hub.next_fiber_id();
        let mut owner = Owner::new("fiber", id, spawned_at);
        if let Some(name) = &self.name {
            owner = owner.named(name);
        }
        // SAFETY: the name's text lies in a box, which the fiber keeps until its stack is gone.
        unsafe { stack.set_owner(owner) };
        let coroutine = RawFiber::with_stack(stack, move |yielder, ()| {
            hub::with(|hub| hub.running().started(yielder));
            // It catches what is the user's; but dropping what it has caught may panic once more. A panic must not leave
            // the fiber: the loop would be left with the fiber's context.
            let _ = contain("a fiber's end", body);
        });
        // What was made above is moved as late as possible: a move right after the making waits for the memory.
        let fiber = hub.fibers.take();
        fiber.spawned_at.set(spawned_at);
        fiber.parent.set(hub.current().map_or(0, |parent| parent.id.get()));
        if self.name.is_some() {
            *fiber.name.borrow_mut() = self.name;
        }
        fiber.occupy(id, coroutine);
        Ok(hub.name_of(fiber))
    }
}

/// The number of the fiber that runs; `None` on the loop itself and outside a hub. gevent's `getcurrent`.
pub fn current() -> Option<FiberId> {
    hub::try_with(|hub| hub.current().map(|fiber| FiberId(fiber.id.get()))).flatten()
}

/// Whether a call that waits is allowed here: on a fiber, but not within [`no_wait`](crate::no_wait) or a future's poll,
/// and not in a destructor that runs because the fiber unwinds.
pub fn can_wait() -> bool {
    hub::try_with(Hub::can_wait).unwrap_or(false)
}
