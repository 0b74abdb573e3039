//! Generators: functions that yield values one by one and keep their place in between.
//!
//! Python's vocabulary and behaviour (PEP 255, 342, 380): [`yield_`](Yielder::yield_) and
//! [`delegate`](Yielder::delegate) inside, [`next`](Iterator::next), [`send`](Generator::send),
//! [`throw`](Generator::throw) and [`close`](Generator::close) outside. An exception is a panic here, and
//! `StopIteration` is `None`. Because a generator has a stack of its own, `yield_` works from any depth of calls.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::thread;

use corosensei::{Coroutine, CoroutineResult};

use crate::BODY_BYTES_MAX;
use crate::context::{self, Context};
use crate::stack::{Owner, Stack, StackPool, StackSize};

/// How often a generator is asked to end when it is dropped, before its stack is given up.
const EXITS_MAX: usize = 16;

/// What wakes a suspended `yield_`.
enum Resume<S> {
    Next,
    Send(S),
    Throw(Box<dyn Any + Send>),
    /// With [`Generator::entered_panicking`].
    Close(bool),
}

/// The payload of the panic that [`Generator::close`] raises at the `yield_` where the generator waits. One that
/// catches it has to end soon: without yielding again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneratorExit;

/// A generator of `T`s that may be sent `S`s and returns an `R`.
///
/// Dropping a suspended one closes it, so that its destructors run. A panic inside reaches the caller of
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
///
/// Values go in, too, and one comes out at the end:
///
/// ```
/// use warren_fiber::{Generator, Yielder};
///
/// let mut sum = Generator::new(|g: Yielder<'_, u32, u32>| {
///     let mut sum = 0;
///     while let Some(n) = g.yield_(sum) {
///         sum += n;
///     }
///     format!("{sum} in all")
/// });
/// assert_eq!(sum.next(), Some(0));
/// assert_eq!(sum.send(3), Some(3));
/// assert_eq!(sum.send(4), Some(7));
/// assert_eq!(sum.next(), None);
/// assert_eq!(sum.take_return().unwrap(), "7 in all");
/// ```
pub struct Generator<T: 'static, S: 'static = (), R: 'static = ()> {
    /// `None` once it has ended: the stack goes back to the pool at once. And while it runs: should the code that
    /// resumed it never come back (a fiber that is given up), nobody must resume it again, nor free its stack.
    coroutine: Option<Running<T, S, R>>,
    returned: Option<R>,
    /// Whether its caller was unwinding when it was resumed last.
    entered_panicking: bool,
}

type Running<T, S, R> = Coroutine<Resume<S>, T, R, Stack>;

/// The inside of a generator: where values leave.
///
/// For the generator's own code. A scoped fiber of an event loop can borrow it, but may not use it.
pub struct Yielder<'a, T, S = ()> {
    raw: &'a corosensei::Yielder<Resume<S>, T>,
    /// Whose code the generator is part of while it runs. `None` while it is suspended.
    home: Cell<Option<*const Context>>,
}

impl<T: 'static, S: 'static, R: 'static> Generator<T, S, R> {
    /// A generator that runs `body` on a stack of the default size, from the first `next` on.
    ///
    /// # Panics
    /// When no stack can be mapped.
    #[track_caller]
    pub fn new(body: impl FnOnce(Yielder<'_, T, S>) -> R + 'static) -> Self {
        Self::with_stack_size(StackSize::default(), body)
    }

    /// As [`new`](Self::new), with a stack of the given size.
    ///
    /// # Panics
    /// When no stack can be mapped.
    #[track_caller]
    pub fn with_stack_size(
        size: StackSize,
        body: impl FnOnce(Yielder<'_, T, S>) -> R + 'static,
    ) -> Self {
        if BODY_BYTES_MAX < size_of_val(&body) {
            return Self::place(size, Box::new(body));
        }
        Self::place(size, body)
    }

    #[track_caller]
    fn place(size: StackSize, body: impl FnOnce(Yielder<'_, T, S>) -> R + 'static) -> Self {
        let stack = match StackPool::local().take(size) {
            Ok(stack) => stack,
            Err(error) => panic!("a generator cannot be made: {error}"),
        };
        // SAFETY: without a name.
        unsafe { stack.set_owner(Owner::new("generator", 0, Location::caller())) };
        // The first value is `Next`: there is no `yield_` yet for another one to arrive at.
        let coroutine = Coroutine::with_stack(stack, move |raw, _| {
            body(Yielder { raw, home: Cell::new(Some(context::current())) })
        });
        Self { coroutine: Some(coroutine), returned: None, entered_panicking: false }
    }

    /// Resumes the generator with `value`, which its `yield_` returns, and runs it to the next one.
    /// `None` when it ends, or has ended.
    ///
    /// # Panics
    /// When the generator does. When it has not started: there is no `yield_` that could return the value
    /// (PEP 342), so begin with `next`.
    pub fn send(&mut self, value: S) -> Option<T> {
        if self.coroutine.as_ref().is_some_and(|coroutine| !coroutine.started()) {
            panic!("a value cannot be sent to a generator that has not started");
        }
        self.resume(Resume::Send(value))
    }

    /// Raises a panic with `payload` at the `yield_` where the generator waits. If the generator catches
    /// it, this returns the next value it yields, or `None` when it ends.
    ///
    /// # Panics
    /// With `payload` when the generator does not catch it, has not started (which ends it), or has ended.
    pub fn throw(&mut self, payload: Box<dyn Any + Send>) -> Option<T> {
        if self.coroutine.as_ref().is_some_and(|coroutine| coroutine.started()) {
            return self.resume(Resume::Throw(payload));
        }
        self.coroutine = None;
        resume_unwind(payload)
    }

    /// Ends the generator: raises [`GeneratorExit`] where it waits. Further `next`s return `None`. One that catches
    /// the exit may return a value, which this returns.
    ///
    /// # Panics
    /// When the generator yields instead of ending; it may then be resumed or closed again. When it panics with
    /// something else.
    pub fn close(&mut self) -> Option<R> {
        let mut coroutine = self.coroutine.take()?;
        if !coroutine.started() {
            return None;
        }
        match exit(&mut coroutine, &mut self.entered_panicking) {
            Exit::Ended(value) => value,
            Exit::Panicked(payload) => resume_unwind(payload),
            Exit::Ignored => {
                self.coroutine = Some(coroutine);
                panic!("a generator ignored GeneratorExit: it yielded while it was being closed")
            }
        }
    }

    /// Whether it has returned, panicked or been closed.
    pub fn is_finished(&self) -> bool {
        self.coroutine.is_none()
    }

    /// What the body has returned, once: the value of Python's `StopIteration`. `None` before, and when it
    /// ended otherwise.
    pub fn take_return(&mut self) -> Option<R> {
        self.returned.take()
    }

    fn resume(&mut self, with: Resume<S>) -> Option<T> {
        let mut coroutine = self.coroutine.take()?;
        self.entered_panicking = thread::panicking();
        // If it panics, it is gone, and its stack is free at once.
        match coroutine.resume(with) {
            CoroutineResult::Yield(value) => {
                self.coroutine = Some(coroutine);
                Some(value)
            }
            CoroutineResult::Return(value) => {
                drop(coroutine);
                self.returned = Some(value);
                None
            }
        }
    }
}

/// What came of an attempt to end a suspended generator.
enum Exit<R> {
    Ended(Option<R>),
    Panicked(Box<dyn Any + Send>),
    /// It has yielded, and is suspended again.
    Ignored,
}

fn exit<T: 'static, S: 'static, R: 'static>(
    coroutine: &mut Running<T, S, R>,
    entered_panicking: &mut bool,
) -> Exit<R> {
    let close = Resume::Close(mem::replace(entered_panicking, thread::panicking()));
    match catch_unwind(AssertUnwindSafe(|| coroutine.resume(close))) {
        Ok(CoroutineResult::Return(value)) => Exit::Ended(Some(value)),
        Ok(CoroutineResult::Yield(_)) => Exit::Ignored,
        Err(payload) if payload.is::<GeneratorExit>() => Exit::Ended(None),
        Err(payload) => Exit::Panicked(payload),
    }
}

impl<T: 'static, S: 'static, R: 'static> Drop for Generator<T, S, R> {
    fn drop(&mut self) {
        let Some(mut coroutine) = self.coroutine.take() else { return };
        if !coroutine.started() {
            return;
        }
        for _ in 0..EXITS_MAX {
            match exit(&mut coroutine, &mut self.entered_panicking) {
                Exit::Ended(_) => return,
                // While unwinding it cannot go on; the hook has reported it.
                Exit::Panicked(_) if thread::panicking() => return,
                Exit::Panicked(payload) => resume_unwind(payload),
                Exit::Ignored => {}
            }
        }
        // A stack that is not unwound must not be used again. Whatever it borrows is `'static`.
        eprintln!(
            "a generator ignored GeneratorExit {EXITS_MAX} times when it was dropped: its stack is lost"
        );
        mem::forget(coroutine);
    }
}

impl<T: 'static, S: 'static, R: 'static> Iterator for Generator<T, S, R> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.resume(Resume::Next)
    }
}

impl<T: 'static, S: 'static, R: 'static> std::iter::FusedIterator for Generator<T, S, R> {}

impl<T: 'static, S: 'static, R: 'static> fmt::Debug for Generator<T, S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    /// With the payload given to [`Generator::throw`]; with [`GeneratorExit`] when the generator is closed or
    /// dropped. A destructor that yields while a panic unwinds is left in peace: a close then counts as a `next`.
    /// On another stack than the generator's own, such as that of a scoped fiber.
    pub fn yield_(&self, value: T) -> Option<S> {
        let unwinding = thread::panicking();
        match self.suspend(value) {
            Resume::Next => None,
            Resume::Send(sent) => Some(sent),
            Resume::Throw(payload) => resume_unwind(payload),
            // A second panic in a destructor would end the process.
            Resume::Close(entered_panicking) if unwinding && !entered_panicking => None,
            Resume::Close(_) => resume_unwind(Box::new(GeneratorExit)),
        }
    }

    fn suspend(&self, value: T) -> Resume<S> {
        // Another fiber's stack cannot be left this way, nor this one while another fiber waits here.
        assert!(
            self.home.get() == Some(context::current()),
            "a generator yields from its own code only, and not from another fiber's"
        );
        self.home.set(None);
        let resumed = self.raw.suspend(value);
        self.home.set(Some(context::current()));
        resumed
    }

    /// Yields everything `inner` yields: any iterator, or a generator from which only values are wanted.
    ///
    /// # Suspends
    /// Once per value.
    pub fn yield_from(&self, inner: impl IntoIterator<Item = T>) {
        for value in inner {
            self.yield_(value);
        }
    }

    /// Puts `inner` in this generator's place until it ends: Python's `yield from` (PEP 380). Its values go to
    /// our caller, and what our caller sends, throws or closes arrives there. Returns what `inner`
    /// returned; `None` when it had ended before, or was closed and caught the exit.
    ///
    /// ```
    /// use warren_fiber::{Generator, Yielder};
    ///
    /// fn words(g: &Yielder<'_, &'static str, &'static str>) -> Option<usize> {
    ///     let mut inner = Generator::new(|g: Yielder<'_, _, &'static str>| {
    ///         g.yield_("your name?").map_or(0, str::len)
    ///     });
    ///     g.delegate(&mut inner)
    /// }
    /// let mut outer = Generator::new(|g: Yielder<'_, _, _>| words(&g));
    /// assert_eq!(outer.next(), Some("your name?"));
    /// assert_eq!(outer.send("Bob"), None);
    /// assert_eq!(outer.take_return(), Some(Some(3)));
    /// ```
    ///
    /// # Suspends
    /// Once per value.
    ///
    /// # Panics
    /// When `inner` does. With [`GeneratorExit`] when closed, after `inner` was closed.
    pub fn delegate<R>(&self, inner: &mut Generator<T, S, R>) -> Option<R>
    where
        T: 'static,
        S: 'static,
        R: 'static,
    {
        let mut step = inner.next();
        while let Some(value) = step {
            let unwinding = thread::panicking();
            step = match self.suspend(value) {
                Resume::Next => inner.next(),
                Resume::Send(sent) => inner.send(sent),
                Resume::Throw(payload) => inner.throw(payload),
                Resume::Close(entered_panicking) => {
                    inner.close();
                    if unwinding && !entered_panicking {
                        return None;
                    }
                    resume_unwind(Box::new(GeneratorExit))
                }
            };
        }
        inner.take_return()
    }
}

impl<T, S> fmt::Debug for Yielder<'_, T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Yielder").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
