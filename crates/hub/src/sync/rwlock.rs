//! [`RwLock`].

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::{Duration, Instant};

use super::{WaitList, deadline};
use crate::fiber::{WaitsFor, Woke};
use crate::timer::TimedOut;

/// A value that many fibers may read, or one may write, across waits.
///
/// Fair: those who wait are served in the order in which they came, so a reader that comes after a waiting
/// writer waits behind it, and writers do not starve. Therefore a fiber that reads must not ask to read once
/// more: with a writer in between, both would wait for ever. There is no poisoning.
///
/// ```
/// use warren_hub::{run, sync::RwLock};
///
/// run(|| {
///     let table = RwLock::new(vec![1]);
///     assert_eq!((table.read().len(), table.read()[0]), (1, 1));
///     table.write().push(2);
///     assert_eq!(*table.read(), [1, 2]);
/// });
/// ```
pub struct RwLock<T: ?Sized> {
    gate: Gate,
    value: RefCell<T>,
}

impl<T> RwLock<T> {
    /// A lock that nobody holds.
    pub const fn new(value: T) -> Self {
        Self { gate: Gate::new(), value: RefCell::new(value) }
    }

    /// The value, when nobody else has a reference.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until the value may be read.
    ///
    /// # Suspends
    /// While a fiber writes, or one that came before waits to write.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        while !self.gate.enter(Way::Read, None) {}
        self.reading()
    }

    /// As [`read`](Self::read), and waits at most for `timeout`.
    ///
    /// # Suspends
    /// As [`read`](Self::read).
    ///
    /// # Errors
    /// [`TimedOut`].
    pub fn read_timeout(&self, timeout: Duration) -> Result<RwLockReadGuard<'_, T>, TimedOut> {
        if self.gate.enter(Way::Read, deadline(timeout)) {
            Ok(self.reading())
        } else {
            Err(TimedOut)
        }
    }

    /// Lets this fiber read if no other writes or waits.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        self.gate.try_enter(Way::Read).then(|| self.reading())
    }

    /// Waits until no other fiber uses the value.
    ///
    /// # Suspends
    /// While others read or write, or wait in front.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        while !self.gate.enter(Way::Write, None) {}
        self.writing()
    }

    /// As [`write`](Self::write), and waits at most for `timeout`.
    ///
    /// # Suspends
    /// As [`write`](Self::write).
    ///
    /// # Errors
    /// [`TimedOut`].
    pub fn write_timeout(&self, timeout: Duration) -> Result<RwLockWriteGuard<'_, T>, TimedOut> {
        if self.gate.enter(Way::Write, deadline(timeout)) {
            Ok(self.writing())
        } else {
            Err(TimedOut)
        }
    }

    /// Lets this fiber write if no other uses the value or waits.
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        self.gate.try_enter(Way::Write).then(|| self.writing())
    }

    /// The value: who has the lock for itself needs not take it.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    fn reading(&self) -> RwLockReadGuard<'_, T> {
        RwLockReadGuard {
            value: self.value.borrow(),
            _turn: Turn { gate: &self.gate, way: Way::Read },
        }
    }

    fn writing(&self) -> RwLockWriteGuard<'_, T> {
        let turn = Turn { gate: &self.gate, way: Way::Write };
        RwLockWriteGuard { value: self.value.borrow_mut(), lock: self, turn }
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RwLock").field("value", &&self.value).finish_non_exhaustive()
    }
}

/// A reader's hold of an [`RwLock`], ended when dropped.
#[must_use = "a guard that is dropped releases the lock"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    // Ends before the turn does: fields are dropped in this order.
    value: Ref<'a, T>,
    _turn: Turn<'a>,
}

/// The writer's hold of an [`RwLock`], ended when dropped.
#[must_use = "a guard that is dropped releases the lock"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    // Ends before the turn does: fields are dropped in this order.
    value: RefMut<'a, T>,
    lock: &'a RwLock<T>,
    turn: Turn<'a>,
}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// Goes on reading, with no writer in between; readers in front of those who wait come in.
    pub fn downgrade(self) -> RwLockReadGuard<'a, T> {
        let Self { value, lock, turn } = self;
        drop(value);
        std::mem::forget(turn);
        lock.gate.downgrade();
        lock.reading()
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLockWriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Read,
    Write,
}

/// Who is in, and who waits: the lock without its value.
struct Gate {
    readers: Cell<usize>,
    writer: Cell<bool>,
    /// Tagged with the way. The first cannot come in; whenever something changes it is looked at again.
    waiting: WaitList,
}

impl Gate {
    const fn new() -> Self {
        Self { readers: Cell::new(0), writer: Cell::new(false), waiting: WaitList::new() }
    }

    fn admits(&self, way: Way) -> bool {
        !self.writer.get() && (way == Way::Read || self.readers.get() == 0)
    }

    fn let_in(&self, way: Way) {
        match way {
            Way::Read => self.readers.set(self.readers.get() + 1),
            Way::Write => self.writer.set(true),
        }
    }

    fn try_enter(&self, way: Way) -> bool {
        let enters = self.waiting.is_empty() && self.admits(way);
        if enters {
            self.let_in(way);
        }
        enters
    }

    fn enter(&self, way: Way, deadline: Option<Instant>) -> bool {
        if self.try_enter(way) {
            return true;
        }
        let woke = self.waiting.wait_or(way as u32, deadline, WaitsFor::Permit, |notified| {
            if notified {
                self.leave(way);
            } else {
                // A writer that gives up was perhaps all that kept the readers behind it out.
                self.admit_first();
            }
        });
        woke == Woke::Notified
    }

    fn leave(&self, way: Way) {
        match way {
            Way::Read => self.readers.set(self.readers.get() - 1),
            Way::Write => self.writer.set(false),
        }
        self.admit_first();
    }

    fn downgrade(&self) {
        self.writer.set(false);
        self.readers.set(1);
        self.admit_first();
    }

    /// Lets those in front in, as far as they can be together. Who is woken is in.
    fn admit_first(&self) {
        while let Some(tag) = self.waiting.first_tag() {
            let way = if tag == Way::Read as u32 { Way::Read } else { Way::Write };
            if !self.admits(way) {
                return;
            }
            // Not when it has just given up: then it is passed over.
            if self.waiting.wake_first() {
                self.let_in(way);
            }
        }
    }
}

/// A hold of the gate.
struct Turn<'a> {
    gate: &'a Gate,
    way: Way,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.gate.leave(self.way);
    }
}
