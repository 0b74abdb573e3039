//! Values of one's own: per greenlet, else per fiber of an event loop, else per thread.
//!
//! Python's `contextvars` as greenlet uses them, and what `gevent.local` is for. A greenlet or fiber begins with no
//! values: each [`FiberLocal`] has its initial one. The set of values is a [`Locals`], which may be copied, shared
//! between greenlets, or put in place for the time of a call.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use crate::context;

/// A variable of which each greenlet, fiber and thread has one of its own, made when first asked for. Declared
/// with [`fiber_local!`](crate::fiber_local).
///
/// ```
/// use std::cell::Cell;
/// use warren_fiber::{Greenlet, fiber_local};
///
/// fiber_local! {
///     /// How many requests this one has seen.
///     static SEEN: Cell<u32> = Cell::new(0);
/// }
///
/// SEEN.with(|seen| seen.set(7));
/// let greenlet = Greenlet::new(|()| SEEN.with(|seen| assert_eq!(seen.get(), 0)));
/// greenlet.switch(());
/// assert_eq!(SEEN.with(Cell::get), 7);
/// ```
pub struct FiberLocal<T: 'static> {
    initial: fn() -> T,
}

/// Declares [`FiberLocal`]s, as `thread_local!` declares thread-locals.
#[macro_export]
macro_rules! fiber_local {
    ($($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty = $initial:expr);* $(;)?) => {$(
        $(#[$attribute])*
        $visibility static $name: $crate::FiberLocal<$type> = $crate::FiberLocal::new(|| $initial);
    )*};
}

impl<T: 'static> FiberLocal<T> {
    /// With a function that makes the initial value. [`fiber_local!`](crate::fiber_local) calls it.
    pub const fn new(initial: fn() -> T) -> Self {
        Self { initial }
    }

    /// Calls `f` with the value of the code that runs, which is made if there is none yet. The value stays the
    /// same for `f` whatever happens to the variable meanwhile.
    ///
    /// # Suspends
    /// When `f` does.
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        f(&self.value())
    }

    /// The value of the code that runs.
    pub fn get(&'static self) -> T
    where
        T: Clone,
    {
        self.with(T::clone)
    }

    /// Gives the variable another value in the present set of values; copies of the set keep the old one.
    pub fn set(&'static self, value: T) {
        let old = context::scope().locals().0.replace(self.key(), Some(Rc::new(value)));
        // Its destructor may ask for locals.
        drop(old);
    }

    /// Takes the value away: the next who asks gets the initial one.
    pub fn reset(&'static self) {
        let old = context::scope().locals().0.replace(self.key(), None);
        drop(old);
    }

    fn value(&'static self) -> Rc<T> {
        let locals = context::scope().locals();
        let known = locals.0.find(self.key()).and_then(|value| value.downcast::<T>().ok());
        known.unwrap_or_else(|| {
            // No borrow is held: making it may ask for other locals, or switch.
            let value = Rc::new((self.initial)());
            drop(locals.0.replace(self.key(), Some(value.clone())));
            value
        })
    }

    /// A static has an address of its own.
    fn key(&'static self) -> usize {
        (&raw const *self).addr()
    }
}

impl<T: 'static> fmt::Debug for FiberLocal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FiberLocal").finish_non_exhaustive()
    }
}

/// A set of values of [`FiberLocal`]s: Python's `contextvars.Context`. Clones are the same set.
#[derive(Clone, Default)]
pub struct Locals(Rc<Values>);

#[derive(Default)]
struct Values {
    /// Few: searched from the front.
    entries: RefCell<Vec<(usize, Rc<dyn Any>)>>,
}

impl Locals {
    /// No values: every variable has its initial one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The set that counts for the code that runs.
    pub fn current() -> Self {
        context::scope().locals()
    }

    /// Another set with the same values: Python's `copy_context`. Values are shared until they are
    /// [`set`](FiberLocal::set) in one of the two.
    pub fn copy(&self) -> Self {
        let entries = RefCell::new(self.0.entries.borrow().clone());
        Self(Rc::new(Values { entries }))
    }

    /// Runs `f` with this set in place of the present one: Python's `Context.run`.
    ///
    /// # Suspends
    /// When `f` does. The set stays that of the greenlet or fiber which called this, also while others run.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Restore(Rc<Scope>, Option<Locals>);
        impl Drop for Restore {
            fn drop(&mut self) {
                let inner = std::mem::replace(&mut *self.0.0.borrow_mut(), self.1.take());
                drop(inner);
            }
        }
        let scope = context::scope();
        let before = scope.0.borrow_mut().replace(self.clone());
        let _restore = Restore(scope, before);
        f()
    }
}

impl fmt::Debug for Locals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Locals").field("values", &self.0.entries.borrow().len()).finish()
    }
}

impl Values {
    fn find(&self, key: usize) -> Option<Rc<dyn Any>> {
        let entries = self.entries.borrow();
        entries.iter().find(|(known, _)| *known == key).map(|(_, value)| value.clone())
    }

    /// Returns the one before, which the caller drops outside of the borrow.
    fn replace(&self, key: usize, value: Option<Rc<dyn Any>>) -> Option<Rc<dyn Any>> {
        let mut entries = self.entries.borrow_mut();
        let place = entries.iter().position(|(known, _)| *known == key);
        match (place, value) {
            (Some(place), Some(value)) => Some(std::mem::replace(&mut entries[place].1, value)),
            (Some(place), None) => Some(entries.swap_remove(place).1),
            (None, Some(value)) => {
                entries.push((key, value));
                None
            }
            (None, None) => None,
        }
    }
}

/// Where a greenlet, a fiber or a thread has its locals. `None` until it has some.
#[derive(Default)]
pub(crate) struct Scope(RefCell<Option<Locals>>);

impl Scope {
    pub(crate) fn locals(&self) -> Locals {
        self.0.borrow_mut().get_or_insert_default().clone()
    }

    pub(crate) fn set_locals(&self, locals: Locals) {
        let old = self.0.borrow_mut().replace(locals);
        drop(old);
    }
}
