//! Which greenlets run, and whose fiber-locals count: per thread, or per fiber of an event loop.
//!
//! An event loop that switches fibers gives each a [`Context`] of its own and [`swap`]s it in and out around the
//! time the fiber runs. So every fiber is a root of its own for the greenlets it makes. A swap moves two pointers;
//! a context that has no fiber-locals is three words and owns no memory.

use std::any::{Any, TypeId};
use std::cell::{Cell, OnceCell};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use crate::local::{Locals, Scope};

thread_local! {
    /// Null: [`ROOT`].
    static CURRENT: Cell<*const Context> = const { Cell::new(ptr::null()) };
    /// Of the code that no event loop runs.
    static ROOT: Context = const { Context::new() };
    /// In its place while the thread ends, for destructors of other thread-locals.
    static LATE: ManuallyDrop<Context> = const { ManuallyDrop::new(Context::new()) };
}

/// The greenlets that run in one fiber, and the fiber's locals.
#[derive(Default)]
pub struct Context {
    /// The innermost of the greenlets that run here, each entered from the one before. `None`: at the root.
    running: Cell<Option<NonNull<dyn Runs>>>,
    /// Of the root. Made when first needed.
    scope: OnceCell<Rc<Scope>>,
}

/// A greenlet of any type.
pub(crate) trait Runs: Any {
    /// Where its fiber-locals are.
    fn scope(&self) -> &Rc<Scope>;
}

impl Context {
    /// At the root, without locals.
    pub const fn new() -> Self {
        Self { running: Cell::new(None), scope: OnceCell::new() }
    }

    /// The fiber-locals of code that runs in this context and in no greenlet. A handle: what is set through it is
    /// set there.
    pub fn locals(&self) -> Locals {
        self.scope().locals()
    }

    /// Replaces them, for a fiber that begins with a copy of its maker's, or shares them.
    pub fn set_locals(&self, locals: Locals) {
        self.scope().set_locals(locals);
    }

    fn scope(&self) -> &Rc<Scope> {
        self.scope.get_or_init(Rc::default)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("at_root", &self.running.get().is_none()).finish()
    }
}

/// Makes `context` the one that this thread's code runs in, and returns the one before. Null stands for the
/// thread's own root context, in both directions.
///
/// # Safety
/// `context` is null, or points to a context that stays where it is and alive until another one has been swapped
/// in, and that is current on no other thread meanwhile. The code of a fiber always runs in the same one: also
/// when it is unwound because its coroutine is dropped.
pub unsafe fn swap(context: *const Context) -> *const Context {
    CURRENT.replace(context)
}

/// The context that is current, to be compared: each fiber has another one, and all code of a thread that no event
/// loop runs has null.
pub(crate) fn current() -> *const Context {
    CURRENT.get()
}

/// Calls `f` with the context that is current.
#[inline(always)]
fn with_current<R>(f: impl FnOnce(&Context) -> R) -> R {
    let mut current = CURRENT.get();
    if current.is_null() {
        current =
            ROOT.try_with(ptr::from_ref).unwrap_or_else(|_| LATE.with(|late| &raw const **late));
    }
    // SAFETY: whoever swapped it in keeps it alive and in place until it is swapped out; and the thread's own
    // ones stay while the thread runs code.
    f(unsafe { &*current })
}

/// The greenlet that runs, when it is of this type. It runs at least until control leaves it.
pub(crate) fn innermost<T: Runs>() -> Option<NonNull<T>> {
    let running = with_current(|context| context.running.get())?;
    // SAFETY: `Inside::run` has set it, and takes it back before it lets go of the greenlet.
    let type_id = unsafe { running.as_ref() }.type_id();
    (type_id == TypeId::of::<T>()).then(|| running.cast())
}

/// Of the code that runs: its greenlet's, or its fiber's, or its thread's.
pub(crate) fn scope() -> Rc<Scope> {
    with_current(|context| match context.running.get() {
        // SAFETY: as in `innermost`.
        Some(running) => unsafe { running.as_ref() }.scope().clone(),
        None => context.scope().clone(),
    })
}

/// Calls `f` as the root of greenlets, with what it enters them by.
#[inline(always)]
pub(crate) fn at_root<R>(f: impl FnOnce(&Inside<'_>) -> R) -> R {
    with_current(|context| f(&Inside { context, outer: context.running.get() }))
}

/// Where a root enters greenlets, one at a time.
pub(crate) struct Inside<'a> {
    context: &'a Context,
    /// That of another type on whose stack the root is.
    outer: Option<NonNull<dyn Runs>>,
}

impl Inside<'_> {
    /// Calls `f`, during which `greenlet` is the one that runs.
    #[inline(always)]
    pub(crate) fn run<T: Runs, R>(&self, greenlet: &Rc<T>, f: impl FnOnce() -> R) -> R {
        /// Puts the outer one back, also when `f` panics.
        struct Leave<'a>(&'a Inside<'a>);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.context.running.set(self.0.outer);
            }
        }
        let _leave = Leave(self);
        // From the `Rc` itself, so that handles may be made of it.
        self.context.running.set(NonNull::new(Rc::as_ptr(greenlet).cast_mut() as *mut dyn Runs));
        f()
    }
}
