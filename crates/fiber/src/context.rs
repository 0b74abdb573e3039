//! Which greenlets run, and whose fiber-locals count: per thread, or per fiber of an event loop.
//!
//! An event loop that switches fibers gives each a [`Context`] of its own and [`swap`]s it in and out around the
//! time the fiber runs. So every fiber is a root of its own for the greenlets it makes. A swap moves two pointers;
//! a context that no greenlet ran in, and that has no fiber-locals, is one word and owns no memory.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr;
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
    /// Made when first needed: most fibers never start a greenlet.
    inner: OnceCell<Box<Inner>>,
    /// What runs here belongs to one thread.
    _unsend: PhantomData<Rc<()>>,
}

#[derive(Default)]
struct Inner {
    /// From the root inwards: each entry's greenlet was entered from the one before. The last one runs.
    running: RefCell<Vec<Rc<dyn Runs>>>,
    /// Of the root.
    scope: Rc<Scope>,
}

/// A greenlet of any type.
pub(crate) trait Runs: Any {
    /// Where its fiber-locals are.
    fn scope(&self) -> &Rc<Scope>;
}

impl Context {
    /// At the root, without locals.
    pub const fn new() -> Self {
        Self { inner: OnceCell::new(), _unsend: PhantomData }
    }

    /// The fiber-locals of code that runs in this context and in no greenlet. A handle: what is set through it is
    /// set there.
    pub fn locals(&self) -> Locals {
        self.inner().scope.locals()
    }

    /// Replaces them, for a fiber that begins with a copy of its maker's, or shares them.
    pub fn set_locals(&self, locals: Locals) {
        self.inner().scope.set_locals(locals);
    }

    fn inner(&self) -> &Inner {
        self.inner.get_or_init(Box::default)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.inner.get().map_or(0, |inner| inner.running.borrow().len());
        f.debug_struct("Context").field("running", &running).finish()
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

/// Calls `f` with the context that is current.
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

/// The greenlet that runs, whatever its type.
pub(crate) fn innermost() -> Option<Rc<dyn Runs>> {
    with_current(|context| context.inner.get()?.running.borrow().last().cloned())
}

pub(crate) fn enter(greenlet: Rc<dyn Runs>) {
    with_current(|context| context.inner().running.borrow_mut().push(greenlet));
}

pub(crate) fn leave() {
    // Dropped after the borrow has ended.
    let left = with_current(|context| context.inner().running.borrow_mut().pop());
    drop(left);
}

/// Of the code that runs: its greenlet's, or its fiber's, or its thread's.
pub(crate) fn scope() -> Rc<Scope> {
    with_current(|context| {
        let inner = context.inner();
        match inner.running.borrow().last() {
            Some(greenlet) => greenlet.scope().clone(),
            None => inner.scope.clone(),
        }
    })
}
