//! Calls that are repeated: [`LoopingCall`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::completion::{Completion, complete};
use crate::deferred::{Deferred, Resolver};
use crate::time::{WeakDelayedCall, call_later, call_soon, now};

/// Calls a function again and again, at moments that lie whole intervals after its start. Clones are the same call.
/// It goes on without them until it is stopped.
///
/// One call has to be through before the next one: when the function gives a [`Deferred`] or a fiber, that is waited for,
/// and the moments that pass meanwhile are left out. [`with_count`](Self::with_count) tells how many.
///
/// ```
/// use std::{cell::Cell, rc::Rc, time::Duration};
/// use warren_reactor::{LoopingCall, testing::Clock};
///
/// let clock = Clock::install();
/// let count = Rc::new(Cell::new(0));
/// let counter = count.clone();
/// let call = LoopingCall::new(move || counter.set(counter.get() + 1));
/// let stopped = call.start(Duration::from_secs(10), true);
/// clock.pump([Duration::from_secs(10); 3]);
/// assert_eq!(count.get(), 4);
/// call.stop();
/// assert!(stopped.wait().is_ok());
/// ```
#[derive(Clone)]
pub struct LoopingCall(Rc<Inner>);

struct Inner {
    function: RefCell<Function>,
    state: RefCell<State>,
    interval: Cell<Duration>,
    /// From here the intervals are counted.
    start: Cell<Option<Instant>>,
    run_at_start: Cell<bool>,
    /// When the function was called last with a count above zero.
    counted: Cell<Option<Instant>>,
    stopped: RefCell<Option<Resolver<()>>>,
    /// Tells calls of the loop that were asked for and are not wanted any more.
    round: Cell<u64>,
}

enum Function {
    Plain(Box<dyn FnMut() -> Deferred<()>>),
    Counting(Box<dyn FnMut(u64) -> Deferred<()>>),
}

#[derive(Default)]
enum State {
    #[default]
    Stopped,
    /// The next call is due in the next turn of the loop, or by this timer.
    Waiting(Option<WeakDelayedCall>),
    /// The function runs, or what it gave is not through.
    Calling { stop: bool },
}

/// Why a [`LoopingCall`] does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the looping call runs already: stop it before it is started again, and wait until it has stopped"
)]
pub struct AlreadyLooping;

impl LoopingCall {
    /// Will call `function`. To stop itself it may give an error; if it holds a clone of this, both are kept until it
    /// lets go of that.
    pub fn new<R: Completion>(mut function: impl FnMut() -> R + 'static) -> Self {
        Self::of(Function::Plain(Box::new(move || complete(&mut function))))
    }

    /// Will call `function` with the number of moments that have come since its last call: 1, unless the loop was busy or
    /// one call took longer than an interval. With an interval of zero it is always 1. Each start counts anew, where Twisted
    /// goes on from the last call before it.
    pub fn with_count<R: Completion>(mut function: impl FnMut(u64) -> R + 'static) -> Self {
        Self::of(Function::Counting(Box::new(move |count| complete(|| function(count)))))
    }

    fn of(function: Function) -> Self {
        Self(Rc::new(Inner {
            function: RefCell::new(function),
            state: RefCell::default(),
            interval: Cell::default(),
            start: Cell::default(),
            run_at_start: Cell::default(),
            counted: Cell::default(),
            stopped: RefCell::default(),
            round: Cell::default(),
        }))
    }

    /// Calls the function every `interval`, for the first time right now, or after the first interval when `now` is
    /// false. An interval of zero means in every turn of the loop.
    ///
    /// The `Deferred` fires when the calls have stopped. It fails when the function does, which stops them; and with
    /// [`AlreadyLooping`] when they have been started already. Cancelling it stops them.
    ///
    /// # Panics
    /// When no hub runs on this thread, and no test's clock.
    #[track_caller]
    pub fn start(&self, interval: Duration, now: bool) -> Deferred<()> {
        if self.is_running() || self.is_calling() {
            return Deferred::fail(AlreadyLooping);
        }
        let own = Rc::downgrade(&self.0);
        let (deferred, resolver) = Deferred::pending_with_canceller(move || {
            if let Some(own) = own.upgrade() {
                Self(own).stop();
            }
        });
        let start = crate::time::now();
        *self.0.stopped.borrow_mut() = Some(resolver);
        self.0.interval.set(interval);
        self.0.start.set(Some(start));
        self.0.run_at_start.set(now);
        self.0.counted.set(None);
        if now {
            self.call();
        } else {
            self.schedule(start);
        }
        deferred
    }

    /// Stops the calls. When one is not through yet, the `Deferred` of [`start`](Self::start) fires after it. False when
    /// they do not run.
    pub fn stop(&self) -> bool {
        let mut state = self.0.state.borrow_mut();
        match &mut *state {
            State::Stopped | State::Calling { stop: true } => return false,
            State::Calling { stop } => {
                *stop = true;
                return true;
            }
            State::Waiting(_) => {}
        }
        let waiting = std::mem::take(&mut *state);
        drop(state);
        self.0.round.set(self.0.round.get() + 1);
        if let State::Waiting(Some(timer)) = waiting {
            timer.cancel();
        }
        self.end(Ok(()));
        true
    }

    /// Leaves out the next call, and counts the intervals from now. False when the calls do not run. While one is not
    /// through it changes nothing.
    pub fn reset(&self) -> bool {
        if let State::Waiting(timer) = &mut *self.0.state.borrow_mut() {
            if let Some(timer) = timer.take() {
                timer.cancel();
            }
        } else {
            return self.is_running();
        }
        let start = now();
        self.0.start.set(Some(start));
        self.schedule(start);
        true
    }

    /// Whether it was started, and neither stopped nor failed since.
    pub fn is_running(&self) -> bool {
        !matches!(*self.0.state.borrow(), State::Stopped | State::Calling { stop: true })
    }

    fn is_calling(&self) -> bool {
        matches!(*self.0.state.borrow(), State::Calling { .. })
    }

    /// The interval of the last start.
    pub fn interval(&self) -> Duration {
        self.0.interval.get()
    }

    fn call(&self) {
        *self.0.state.borrow_mut() = State::Calling { stop: false };
        let through = match &mut *self.0.function.borrow_mut() {
            Function::Plain(function) => function(),
            Function::Counting(function) => match self.0.count() {
                0 => Deferred::succeed(()),
                count => function(count),
            },
        };
        let own = self.clone();
        let ended = through.add_both(move |result| {
            let stop = matches!(*own.0.state.borrow(), State::Calling { stop: true });
            if stop || result.is_err() {
                *own.0.state.borrow_mut() = State::Stopped;
                own.end(result);
            } else {
                own.schedule(now());
            }
            Ok(())
        });
        drop(ended);
    }

    /// Sets the timer for the next moment after `last`.
    fn schedule(&self, last: Instant) {
        let round = self.0.round.get() + 1;
        self.0.round.set(round);
        // The loop keeps it alive, and it holds what the loop keeps weakly: so all of it goes with the loop.
        let own = self.clone();
        let call = move || {
            if own.0.round.get() == round {
                own.call();
            }
        };
        let interval = self.0.interval.get();
        let timer = if interval.is_zero() {
            call_soon(call);
            None
        } else {
            Some(call_later(self.0.until_next(last), call).downgrade())
        };
        *self.0.state.borrow_mut() = State::Waiting(timer);
    }

    fn end(&self, result: Result<(), crate::Failure>) {
        let stopped = self.0.stopped.take();
        if let Some(stopped) = stopped {
            stopped.resolve(result);
        }
    }
}

impl Inner {
    /// How long it takes from `last` to the next moment.
    fn until_next(&self, last: Instant) -> Duration {
        let interval = self.interval.get();
        let since = last.saturating_duration_since(self.start.get().unwrap_or(last));
        let into = since.as_nanos() % interval.as_nanos();
        // The remainder is below the interval, so both parts fit.
        interval - Duration::new((into / 1_000_000_000) as u64, (into % 1_000_000_000) as u32)
    }

    /// The number of moments since the last call.
    fn count(&self) -> u64 {
        let now = now();
        let Some(start) = self.start.get() else { return 1 };
        if self.interval.get().is_zero() {
            return 1;
        }
        let last = match self.counted.get() {
            Some(last) => self.moment(start, last),
            // The first moment is the start itself, or comes an interval after it.
            None => -i128::from(self.run_at_start.get()),
        };
        let count = u64::try_from(self.moment(start, now) - last).unwrap_or(0);
        if count > 0 {
            self.counted.set(Some(now));
        }
        count
    }

    /// The number of the last moment up to `at`. After a [reset](LoopingCall::reset) `at` may lie before the start.
    fn moment(&self, start: Instant, at: Instant) -> i128 {
        let nanos = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
        let since =
            nanos(at.saturating_duration_since(start)) - nanos(start.saturating_duration_since(at));
        since / nanos(self.interval.get())
    }
}

impl fmt::Debug for LoopingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopingCall")
            .field("interval", &self.interval())
            .field("running", &self.is_running())
            .finish_non_exhaustive()
    }
}
