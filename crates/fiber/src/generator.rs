//! Generators: functions that yield values one by one and keep their place in between.
//!
//! Python's vocabulary: [`yield_`](Yielder::yield_) inside, [`next`](Iterator::next),
//! [`send`](Generator::send), [`throw`](Generator::throw) and [`close`](Generator::close) outside. Because
//! a generator has a stack of its own, `yield_` works from any depth of calls.

use std::any::Any;
use std::panic::{Location, resume_unwind};

use corosensei::{Coroutine, CoroutineResult};

use crate::stack::{Owner, Stack, StackPool, StackSize};

/// What wakes a suspended `yield_`.
enum Resume<S> {
    Next,
    Send(S),
    Throw(Box<dyn Any + Send>),
}

/// A generator of `T`s that may be sent `S`s.
///
/// Dropping a suspended one unwinds it, so that its destructors run. A panic inside reaches the caller of
/// `next`, `send` or `throw`, and ends the generator.
///
/// ```
/// use warren_fiber::Generator;
///
/// let mut evens: Generator<u32> = Generator::new(|g| {
///     for n in 0.. {
///         g.yield_(2 * n);
///     }
/// });
/// assert_eq!(evens.next(), Some(0));
/// assert_eq!(evens.by_ref().take(2).collect::<Vec<_>>(), [2, 4]);
/// ```
pub struct Generator<T: 'static, S: 'static = ()> {
    /// `None` once it has ended: the stack goes back to the pool at once.
    coroutine: Option<Coroutine<Resume<S>, T, (), Stack>>,
}

/// The inside of a generator: where values leave.
pub struct Yielder<'a, T, S = ()>(&'a corosensei::Yielder<Resume<S>, T>);

impl<T: 'static, S: 'static> Generator<T, S> {
    /// A generator that runs `body` on a stack of the default size, from the first `next` on.
    ///
    /// # Panics
    /// When no stack can be mapped.
    #[track_caller]
    pub fn new(body: impl FnOnce(Yielder<'_, T, S>) + 'static) -> Self {
        Self::with_stack_size(StackSize::default(), body)
    }

    /// As [`new`](Self::new), with a stack of the given size.
    ///
    /// # Panics
    /// When no stack can be mapped.
    #[track_caller]
    pub fn with_stack_size(
        size: StackSize,
        body: impl FnOnce(Yielder<'_, T, S>) + 'static,
    ) -> Self {
        let stack = match StackPool::local().take(size) {
            Ok(stack) => stack,
            Err(error) => panic!("a generator cannot be made: {error}"),
        };
        // SAFETY: without a name.
        unsafe { stack.set_owner(Owner::new("generator", 0, Location::caller())) };
        let coroutine = Coroutine::with_stack(stack, move |yielder, first| {
            // The first value has no `yield_` to arrive at, as in Python.
            drop(first);
            body(Yielder(yielder));
        });
        Self { coroutine: Some(coroutine) }
    }

    /// Resumes the generator with `value`, which its `yield_` returns, and runs it to the next one.
    /// `None` when it has ended. A value sent before the first `yield_` is dropped.
    pub fn send(&mut self, value: S) -> Option<T> {
        self.resume(Resume::Send(value))
    }

    /// Raises a panic with `payload` at the `yield_` where the generator waits. If the generator catches
    /// it, this returns the next value it yields, or `None` when it ends.
    ///
    /// # Panics
    /// With `payload` when the generator does not catch it, has not started, or has ended.
    pub fn throw(&mut self, payload: Box<dyn Any + Send>) -> Option<T> {
        if self.coroutine.as_ref().is_some_and(|coroutine| coroutine.started()) {
            return self.resume(Resume::Throw(payload));
        }
        self.close();
        resume_unwind(payload)
    }

    /// Ends the generator: unwinds it if it is suspended. Further `next`s return `None`.
    pub fn close(&mut self) {
        self.coroutine = None;
    }

    /// Whether it has returned, panicked or been closed.
    pub fn is_finished(&self) -> bool {
        self.coroutine.is_none()
    }

    fn resume(&mut self, with: Resume<S>) -> Option<T> {
        // Taken out while it runs: if it panics, it is gone and not half-alive.
        let mut coroutine = self.coroutine.take()?;
        match coroutine.resume(with) {
            CoroutineResult::Yield(value) => {
                self.coroutine = Some(coroutine);
                Some(value)
            }
            CoroutineResult::Return(()) => None,
        }
    }
}

impl<T: 'static, S: 'static> Iterator for Generator<T, S> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.resume(Resume::Next)
    }
}

impl<T: 'static, S: 'static> std::iter::FusedIterator for Generator<T, S> {}

impl<T: 'static, S: 'static> std::fmt::Debug for Generator<T, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}

impl<T, S> Yielder<'_, T, S> {
    /// Hands `value` out and waits. Returns what was sent, `None` when resumed by `next`.
    ///
    /// # Suspends
    /// Until the generator is resumed.
    ///
    /// # Panics
    /// With the payload given to [`Generator::throw`]. When the generator is dropped or closed, unwinds.
    pub fn yield_(&self, value: T) -> Option<S> {
        match self.0.suspend(value) {
            Resume::Next => None,
            Resume::Send(sent) => Some(sent),
            Resume::Throw(payload) => resume_unwind(payload),
        }
    }

    /// Yields everything `inner` yields: delegation to another generator or any iterator.
    ///
    /// # Suspends
    /// Once per value.
    pub fn yield_from(&self, inner: impl IntoIterator<Item = T>) {
        for value in inner {
            self.yield_(value);
        }
    }
}

#[cfg(test)]
mod tests;
