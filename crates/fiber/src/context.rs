//! Which greenlets run: per thread, or per fiber of an event loop.
//!
//! An event loop that switches fibers gives each a [`Context`] of its own and [`swap`]s it in and out around the
//! time the fiber runs. So every fiber is a root of its own for the greenlets it makes. A swap moves two pointers;
//! a context that no greenlet was made in is one word and owns no memory.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::marker::PhantomData;
use std::ptr;
use std::rc::Rc;

thread_local! {
    /// Null: [`ROOT`].
    static CURRENT: Cell<*const Context> = const { Cell::new(ptr::null()) };
    /// Of the code that no event loop runs.
    static ROOT: Context = const { Context::new() };
}

/// The greenlets that run in one fiber.
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
    running: RefCell<Vec<Rc<dyn Any>>>,
}

impl Context {
    /// At the root.
    pub const fn new() -> Self {
        Self { inner: OnceCell::new(), _unsend: PhantomData }
    }

    fn inner(&self) -> &Inner {
        self.inner.get_or_init(Box::default)
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let running = self.inner.get().map_or(0, |inner| inner.running.borrow().len());
        f.debug_struct("Context").field("running", &running).finish()
    }
}

/// Makes `context` the one that this thread's code runs in, and returns the one before. Null stands for the
/// thread's own root context, in both directions.
///
/// # Safety
/// `context` is null, or points to a context that stays where it is and alive until another one has been swapped
/// in, and that is current on no other thread meanwhile.
pub unsafe fn swap(context: *const Context) -> *const Context {
    CURRENT.replace(context)
}

/// Calls `f` with the context that is current. `None` while the thread ends and its root context is gone.
fn with_current<R>(f: impl FnOnce(&Context) -> R) -> Option<R> {
    let current = CURRENT.get();
    if current.is_null() {
        return ROOT.try_with(f).ok();
    }
    // SAFETY: whoever swapped it in keeps it alive and in place until it is swapped out.
    Some(f(unsafe { &*current }))
}

/// The greenlet that runs, whatever its type.
pub(crate) fn innermost() -> Option<Rc<dyn Any>> {
    with_current(|context| context.inner.get()?.running.borrow().last().cloned()).flatten()
}

pub(crate) fn enter(greenlet: Rc<dyn Any>) {
    with_current(|context| context.inner().running.borrow_mut().push(greenlet));
}

pub(crate) fn leave() {
    // Dropped after the borrow has ended.
    let left = with_current(|context| context.inner().running.borrow_mut().pop());
    drop(left);
}
