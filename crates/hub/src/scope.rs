//! Fibers that borrow: joined before the scope that they borrow from ends.
//!
//! Sound because [`scope`] does not return, or unwind further, before its last fiber has ended, and because the stack
//! of a fiber that never ends is never freed: where the hub gives up on a fiber, the scope is given up with it.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use crate::fiber::{FiberRef, Interrupt, Waiter, WaitsFor, as_interrupt};
use crate::hub::{self, Hub, Unwinding};
use crate::join::{FiberId, JoinError, JoinHandle};
use crate::spawn::Builder;

/// Where fibers can be spawned that borrow from outside; see [`scope`].
#[derive(Debug)]
pub struct Scope<'scope, 'env: 'scope> {
    children: Rc<Children>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

#[derive(Debug, Default)]
struct Children {
    running: RefCell<Vec<FiberRef>>,
    /// The fiber that waits at the end of the scope.
    waiter: Cell<Option<Waiter>>,
    /// A child has panicked, and nobody has joined it.
    panicked: Cell<bool>,
}

impl Children {
    fn kill(&self) {
        hub::try_with(|hub| {
            for child in &*self.running.borrow() {
                hub.interrupt(*child, Interrupt::Kill);
            }
        });
    }

    /// Parks until all have ended. What interrupts the parent meanwhile kills them, and is delivered to it later.
    ///
    /// Never returns or unwinds before: where it cannot wait, such as on the loop, the process is aborted.
    fn wait(&self) {
        let mut killed = false;
        while !self.running.borrow().is_empty() {
            let waited = hub::try_with(|hub| {
                // Nor must it where others rely on it: a generator may have brought the scope there.
                let Some(fiber) = hub.current().filter(|_| !hub.forbids_waiting()) else {
                    return false;
                };
                // Within a destructor, perhaps.
                let _unwinding = Unwinding::of(hub, fiber);
                if fiber.is_interrupted() && !killed {
                    killed = true;
                    self.kill();
                }
                self.waiter.set(Some(Waiter::new(hub.number, fiber)));
                fiber.park(WaitsFor::Join);
                true
            });
            if waited != Some(true) {
                eprintln!(
                    "a scope ends where it cannot wait for its fibers, which borrow from it: aborting"
                );
                std::process::abort();
            }
        }
    }

    /// A child has ended.
    fn ended(&self, child: FiberRef) {
        self.running.borrow_mut().retain(|other| *other != child);
        if self.running.borrow().is_empty()
            && let Some(waiter) = self.waiter.take()
        {
            waiter.wake();
        }
    }
}

/// Runs `f`, which may spawn fibers that borrow what outlives this call; returns when all of them have ended.
///
/// When `f` panics, its fibers are waited for all the same. When the calling fiber is killed or times out, they are
/// killed first.
///
/// ```
/// use warren_hub::{run, scope, yield_now};
///
/// run(|| {
///     let words = vec!["a", "b"];
///     let mut count = 0;
///     scope(|s| {
///         let lengths = s.spawn(|| words.iter().map(|word| word.len()).sum::<usize>());
///         s.spawn(|| count += 1);
///         assert_eq!(lengths.join().unwrap(), 2);
///     });
///     assert_eq!((words.len(), count), (2, 1));
/// });
/// ```
///
/// # Suspends
/// Until the last of the scope's fibers has ended.
///
/// # Panics
/// As `f` does. When a fiber has panicked and nobody has joined it. Outside a fiber.
pub fn scope<'env, F, R>(f: F) -> R
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> R,
{
    // Refused at once where the end could not be waited for.
    hub::with(|hub| _ = hub.running());
    let scope = Scope { children: Rc::default(), scope: PhantomData, env: PhantomData };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    if let Err(payload) = &result
        && as_interrupt(&**payload).is_some()
    {
        scope.children.kill();
    }
    scope.children.wait();
    if result.is_ok() {
        // Not in a destructor of a fiber that unwinds, which would end the process.
        hub::with(|hub| {
            if !hub.is_unwinding() {
                hub.running().deliver();
            }
        });
    }
    match result {
        Ok(_) if scope.children.panicked.get() => panic!("a scoped fiber has panicked"),
        Ok(value) => value,
        Err(payload) => resume_unwind(payload),
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Starts a fiber that may borrow what outlives the scope.
    ///
    /// # Panics
    /// When no stack can be mapped.
    #[track_caller]
    pub fn spawn<T: 'scope>(
        &'scope self,
        body: impl FnOnce() -> T + 'scope,
    ) -> ScopedJoinHandle<'scope, T> {
        match self.spawn_with(Builder::new(), body) {
            Ok(handle) => handle,
            Err(error) => panic!("no stack for a fiber: {error}"),
        }
    }

    /// As [`spawn`](Self::spawn), with settings.
    ///
    /// # Errors
    /// When no stack can be mapped.
    #[track_caller]
    pub fn spawn_with<T: 'scope>(
        &'scope self,
        builder: Builder,
        body: impl FnOnce() -> T + 'scope,
    ) -> std::io::Result<ScopedJoinHandle<'scope, T>> {
        /// The result's place, and what tells the scope of the end: also when the fiber never ran.
        struct Child {
            children: Rc<Children>,
            own: Rc<Cell<Option<FiberRef>>>,
        }
        impl Drop for Child {
            fn drop(&mut self) {
                if let Some(own) = self.own.get() {
                    self.children.ended(own);
                }
            }
        }
        let place = Rc::new(RefCell::new(None::<std::thread::Result<T>>));
        let own = Rc::new(Cell::new(None));
        let child = Child { children: self.children.clone(), own: own.clone() };
        let children = self.children.clone();
        let result = place.clone();
        let run: Box<dyn FnOnce() + 'scope> = Box::new(move || {
            // Dropped last: what the closure borrows is done with before the scope hears of the end.
            let child = child;
            let caught = catch_unwind(AssertUnwindSafe(body));
            let interrupted = caught.as_ref().err().is_some_and(|p| as_interrupt(&**p).is_some());
            if interrupted {
                if let Err(payload) = caught {
                    drop(result);
                    drop(child);
                    resume_unwind(payload);
                }
                return;
            }
            if caught.is_err() && Rc::strong_count(&result) == 1 {
                child.children.panicked.set(true);
            }
            *result.borrow_mut() = Some(caught);
            drop(result);
            drop(child);
        });
        // SAFETY: only the lifetime is lengthened. The closure and all it borrows are used by the fiber alone, and the
        // scope neither returns nor unwinds further before `Child` is dropped, which happens after the closure's last
        // use: at its end, or when it is dropped unrun. A stack that is never unwound is leaked, with the scope's own.
        let run: Box<dyn FnOnce() + 'static> = unsafe { std::mem::transmute(run) };
        let handle = builder.prepare(run, |hub, fiber| {
            own.set(Some(fiber));
            children.running.borrow_mut().push(fiber);
            Hub::start(hub, fiber);
        })?;
        Ok(ScopedJoinHandle { handle, place, scope: PhantomData })
    }
}

/// A fiber of a [`scope`].
#[derive(Debug)]
pub struct ScopedJoinHandle<'scope, T> {
    handle: JoinHandle<()>,
    place: Rc<RefCell<Option<std::thread::Result<T>>>>,
    scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for the fiber's end, and takes its result.
    ///
    /// # Suspends
    /// Until the fiber has ended.
    ///
    /// # Errors
    /// When the fiber panicked or was killed.
    pub fn join(self) -> Result<T, JoinError> {
        let Self { handle, place, .. } = self;
        handle.join()?;
        match place.take() {
            Some(Ok(value)) => Ok(value),
            Some(Err(payload)) => Err(JoinError::Panicked(crate::join::Panic::new(payload))),
            None => Err(JoinError::Killed),
        }
    }

    /// Ends the fiber, see [`JoinHandle::kill`].
    pub fn kill(&self) {
        self.handle.kill();
    }

    /// Whether the fiber has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    /// The fiber's number, unique on its hub.
    pub fn id(&self) -> FiberId {
        self.handle.id()
    }
}
