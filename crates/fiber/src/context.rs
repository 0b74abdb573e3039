//! Which greenlets run: per thread, or per fiber of an event loop.
//!
//! An event loop that switches fibers gives each a [`Context`] of its own and [`swap`]s it in and out around the
//! time the fiber runs. So every fiber is a root of its own for the greenlets it makes.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    /// From the root inwards: each entry's greenlet was entered from the one before. The last one runs.
    static RUNNING: RefCell<Vec<Rc<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// The greenlets that run in one fiber.
#[derive(Default)]
pub struct Context(Vec<Rc<dyn Any>>);

impl Context {
    /// At the root.
    pub const fn new() -> Self {
        Self(Vec::new())
    }
}

/// Exchanges this thread's context with `context`.
pub fn swap(context: &mut Context) {
    RUNNING.with_borrow_mut(|running| std::mem::swap(running, &mut context.0));
}

/// The greenlet that runs, whatever its type.
pub(crate) fn innermost() -> Option<Rc<dyn Any>> {
    RUNNING.with_borrow(|running| running.last().cloned())
}

pub(crate) fn enter(greenlet: Rc<dyn Any>) {
    RUNNING.with_borrow_mut(|running| running.push(greenlet));
}

pub(crate) fn leave() {
    // Dropped after the borrow has ended.
    let left = RUNNING.with_borrow_mut(Vec::pop);
    drop(left);
}
