//! Starting and stopping: [`run`], [`stop`], system events, signals.
//!
//! ```text
//!   run: main --> "startup" --> the loop turns ...  stop or a signal --> "shutdown" --> run returns
//!                 before                                                 before  (its Deferreds are waited for)
//!                 during  is_running() from here                         during  ... to here
//!                 after   call_when_running                              after
//! ```
//!
//! All of it belongs to a hub. [`run`] starts one, or joins the one that runs already: a program that is at home on a
//! hub gets ordered starts and stops by calling it on a fiber.

mod triggers;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::signal::{Signal, SignalWatch, on_signals};
use warren_hub::sync::Event;
use warren_hub::{Options, can_wait, contain, hub_local};

use crate::completion::Completion;
use crate::deferred::{Deferred, Failure};
use crate::threads::thread_pool;
use crate::time::call_soon;

use triggers::{Fired, Triggers};

pub use triggers::TriggerId;

/// What a trigger waits for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SystemEvent {
    /// The reactor starts.
    Startup,
    /// The reactor stops.
    Shutdown,
    /// An event of the program's own, for [`fire_system_event`].
    Named(Cow<'static, str>),
}

impl From<&'static str> for SystemEvent {
    fn from(name: &'static str) -> Self {
        match name {
            "startup" => Self::Startup,
            "shutdown" => Self::Shutdown,
            name => Self::Named(name.into()),
        }
    }
}

impl fmt::Display for SystemEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Startup => f.write_str("startup"),
            Self::Shutdown => f.write_str("shutdown"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

/// When a trigger is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriggerPhase {
    /// First. What these give is waited for.
    Before = 0,
    /// As soon as all of the first phase are through.
    During = 1,
    /// Right after.
    After = 2,
}

/// A hub's reactor, as far as starting and stopping go.
#[derive(Default)]
struct System {
    triggers: Rc<Triggers>,
    state: Cell<State>,
    cause: Cell<StopCause>,
    /// A signal that came while `main` ran.
    early: Cell<Option<Signal>>,
    shutdown_timeout: Cell<Option<Duration>>,
    shutdown: Cell<Fired>,
    /// Set when all is over.
    ended: Event,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    New,
    /// `main` runs.
    Preparing,
    /// The event "startup" is on its way.
    Starting,
    Running,
    /// Asked to stop; still running, for those who ask.
    Stopping,
    /// Past "shutdown".
    Ended,
}

/// Why the reactor stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopCause {
    /// [`stop`] was called.
    #[default]
    Call,
    /// The process received this signal.
    Signal(Signal),
}

/// How a run of the reactor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// What asked for the end.
    pub cause: StopCause,
    /// Triggers of the event "shutdown" that failed. What they said is in the log.
    pub failed: usize,
    /// Those of them that were not through within the [time limit](Runner::shutdown_timeout).
    pub late: usize,
}

impl Stopped {
    /// Success when all of the shutdown went well, whoever asked for it.
    pub fn exit_code(&self) -> ExitCode {
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Why the reactor does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Twisted's `ReactorAlreadyRunning`.
    #[error("the reactor of this hub runs already")]
    AlreadyRunning,
    /// Twisted's `ReactorNotRestartable`; but another hub has another reactor.
    #[error("the reactor of this hub has been stopped, and does not start again: run another hub")]
    NotRestartable,
    /// The system refuses what the hub or the watch of signals needs.
    #[error("the reactor cannot run: {0}")]
    Io(#[from] io::Error),
}

impl From<RunError> for io::Error {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Io(error) => error,
            other => Self::other(other),
        }
    }
}

/// [`stop`] was called for a reactor that does not run, or that stops already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reactor cannot be stopped: it does not run, or it stops already")]
pub struct ReactorNotRunning;

/// Runs the reactor until [`stop`] is called, or SIGINT or SIGTERM comes: with the settings of [`Runner::new`].
///
/// `main` is called first, on a fiber: what a Twisted program does before `reactor.run()` is done there. What it gives is
/// kept to the end, so listening ports may be returned from it. If it gives an error, nothing is started.
///
/// ```
/// use std::io;
/// use std::net::SocketAddr;
/// use warren_reactor::{PeerAddr, Protocol, call_when_running, listen_tcp, run, stop};
///
/// let stopped = run(|| -> io::Result<_> {
///     let factory = |_: &PeerAddr| None::<Box<dyn Protocol>>;
///     let port = listen_tcp(SocketAddr::from(([127, 0, 0, 1], 0)), Box::new(factory))?;
///     call_when_running(|| stop().unwrap());
///     Ok(port)
/// })?;
/// assert_eq!(stopped.failed, 0);
/// # Ok::<(), io::Error>(())
/// ```
///
/// # Suspends
/// On a fiber of a hub, until the reactor has stopped. A thread without a hub runs one meanwhile.
///
/// # Errors
/// What `main` gives. A [`RunError`]: the hub's reactor runs already, or has been stopped; the system refuses something.
///
/// # Panics
/// When `main` does. In a callback of the loop, which cannot wait.
pub fn run<T, E>(main: impl FnOnce() -> Result<T, E> + 'static) -> Result<Stopped, E>
where
    T: 'static,
    E: From<RunError> + 'static,
{
    Runner::new().run(main)
}

/// Settings for [`run`].
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use warren_reactor::{Runner, call_when_running, stop};
///
/// let runner = Runner::new().shutdown_timeout(Duration::from_secs(10)).without_signals();
/// runner.run(|| -> io::Result<()> {
///     call_when_running(|| stop().unwrap());
///     Ok(())
/// })?;
/// # Ok::<(), io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Runner {
    signals: Vec<Signal>,
    shutdown_timeout: Option<Duration>,
    hub: Options,
}

impl Default for Runner {
    fn default() -> Self {
        Self::new()
    }
}

impl Runner {
    /// Stops on SIGINT and SIGTERM, waits for a shutdown as long as it takes, and runs on a hub as [`warren_hub::run`]
    /// makes it.
    pub fn new() -> Self {
        let signals = vec![Signal::INT, Signal::TERM];
        Self { signals, shutdown_timeout: None, hub: Options::new() }
    }

    /// Stops on these signals. The second one that comes ends the process at once, with exit code 128 and the signal's
    /// number, as shells have it.
    ///
    /// One that comes while `main` runs stops the reactor as soon as it has started. After the run they do nothing: their
    /// default action does not come back.
    pub fn signals(mut self, signals: &[Signal]) -> Self {
        self.signals = signals.to_vec();
        self
    }

    /// Leaves all signals alone: for a hub beside others in one process, and for simulations, which have none.
    pub fn without_signals(self) -> Self {
        self.signals(&[])
    }

    /// Cancels what triggers before the shutdown wait for when it is not through after `timeout`, and goes on; and waits
    /// no longer than that for jobs of the [thread pool](thread_pool).
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = Some(timeout);
        self
    }

    /// Settings of the hub, unless one runs already.
    pub fn hub(mut self, options: Options) -> Self {
        self.hub = options;
        self
    }

    /// As [`run`](crate::run), with these settings.
    ///
    /// # Suspends
    /// As [`run`](crate::run).
    ///
    /// # Errors
    /// As [`run`](crate::run).
    ///
    /// # Panics
    /// As [`run`](crate::run).
    pub fn run<T, E>(&self, main: impl FnOnce() -> Result<T, E> + 'static) -> Result<Stopped, E>
    where
        T: 'static,
        E: From<RunError> + 'static,
    {
        if warren_hub::is_running() {
            return self.run_here(main);
        }
        let own = self.clone();
        match self.hub.run(move || own.run_here(main)) {
            Ok(ended) => ended,
            Err(error) => Err(RunError::Io(error).into()),
        }
    }

    fn run_here<T, E: From<RunError>>(
        &self,
        main: impl FnOnce() -> Result<T, E>,
    ) -> Result<Stopped, E> {
        let system = system();
        match system.state.get() {
            State::New => {}
            State::Ended => return Err(RunError::NotRestartable.into()),
            _ => return Err(RunError::AlreadyRunning.into()),
        }
        assert!(
            can_wait(),
            "the reactor is run by a fiber, which waits for its end: a callback of the loop must not wait"
        );
        let mut entered = Entered { system: &system, after: State::New };
        system.state.set(State::Preparing);
        system.shutdown_timeout.set(self.shutdown_timeout);
        // Before `main`, which may be what tells others that the program is there, and can be stopped.
        let signals = self.watch_signals().map_err(RunError::Io)?;
        let kept = main()?;
        entered.after = State::Ended;
        system.state.set(State::Starting);
        call_soon(|| self::system().start());
        if let Some(signal) = system.early.get() {
            // Just set to the state in which that is possible.
            let _ = system.stop(StopCause::Signal(signal));
        }
        system.ended.wait();
        self.wait_for_threads();
        // Only now: a second signal may come at any time before.
        drop((signals, kept));
        drop(entered);
        let Fired { failed, late } = system.shutdown.get();
        Ok(Stopped { cause: system.cause.get(), failed, late })
    }

    fn watch_signals(&self) -> io::Result<SignalWatch> {
        let told = Cell::new(false);
        on_signals(&self.signals, move |signal| {
            if told.replace(true) {
                tracing::warn!(?signal, "told to stop twice: ending at once");
                std::process::exit(128 + signal.as_raw());
            }
            let system = system();
            if system.state.get() == State::Preparing {
                tracing::info!(?signal, "stopping as soon as it has started");
                system.early.set(Some(signal));
                return;
            }
            match system.stop(StopCause::Signal(signal)) {
                Ok(()) => tracing::info!(?signal, "stopping"),
                Err(ReactorNotRunning) => tracing::info!(?signal, "stopping already"),
            }
        })
    }

    fn wait_for_threads(&self) {
        let pool = thread_pool();
        let waited = match self.shutdown_timeout {
            Some(timeout) => pool.join_timeout(timeout),
            None => {
                pool.join();
                Ok(())
            }
        };
        if waited.is_err() {
            tracing::error!(
                jobs = pool.len(),
                "jobs on threads are not through, and are left behind"
            );
        }
    }
}

/// Leaves the state behind that a run ends with, also when it unwinds.
struct Entered<'a> {
    system: &'a System,
    after: State,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.system.state.set(self.after);
    }
}

/// Runs the reactor until what `main` gives has fired, and gives its result: for programs that do one thing (Twisted's
/// `task.react`). `main` is called on the loop once the reactor runs.
///
/// When the reactor is stopped before, by [`stop`] or a signal, the `Deferred` is cancelled.
///
/// ```
/// use std::time::Duration;
/// use warren_reactor::{AnyError, defer_later, react};
///
/// let answer = react(|| defer_later::<_, AnyError>(Duration::from_millis(1), || Ok(42)));
/// assert_eq!(answer.unwrap(), 42);
/// ```
///
/// # Suspends
/// As [`run`].
///
/// # Errors
/// The failure of the `Deferred`; a [`RunError`].
///
/// # Panics
/// As [`run`]. A panic of `main` is a failure.
pub fn react<T, E>(main: impl FnOnce() -> Deferred<T, E> + 'static) -> Result<T, Failure<E>>
where
    T: 'static,
    E: From<RunError> + fmt::Debug + 'static,
{
    // Kept by `run` until the reactor has stopped, and looked into on this side of it.
    let outcome = Rc::new(RefCell::new(None));
    let place = outcome.clone();
    let ran = run(move || -> Result<(), E> {
        call_when_running(move || {
            let result = crate::maybe_deferred(main);
            let canceller = result.canceller();
            add_system_event_trigger(TriggerPhase::Before, SystemEvent::Shutdown, move || {
                canceller.cancel();
            });
            let ended = result.add_both(move |result| {
                *place.borrow_mut() = Some(result);
                // It may stop already.
                let _ = stop();
                Ok(())
            });
            drop(ended);
        });
        Ok(())
    });
    ran.map_err(Failure::Error)?;
    outcome.take().unwrap_or(Err(Failure::Dropped))
}

/// Has the reactor stop: in the next turn of the loop, triggers of the event "shutdown" are called, and what those of the
/// first phase give is waited for.
///
/// # Errors
/// [`ReactorNotRunning`], also when it stops already.
///
/// # Panics
/// When no hub runs on this thread.
pub fn stop() -> Result<(), ReactorNotRunning> {
    system().stop(StopCause::Call)
}

/// Whether the reactor of this hub runs: it has started, and its shutdown has not come past its first phase.
///
/// # Panics
/// When no hub runs on this thread.
pub fn is_running() -> bool {
    system().is_running()
}

/// Calls `callable` when `event` comes, which may be `"startup"`, `"shutdown"`, or one of the program's own. Triggers of a
/// phase are called on the loop in the order in which they were added, and once. A failure is logged, and stops nothing.
///
/// Those of the phase [`Before`](TriggerPhase::Before) may give something to be waited for: a [`Deferred`] or a fiber. The
/// other phases come when all of them are through.
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use warren_hub::{sleep, spawn};
/// use warren_reactor::{TriggerPhase, add_system_event_trigger, call_when_running, run, stop};
///
/// run(|| -> io::Result<()> {
///     add_system_event_trigger(TriggerPhase::Before, "shutdown", || {
///         spawn(|| sleep(Duration::from_millis(1)))
///     });
///     call_when_running(|| stop().unwrap());
///     Ok(())
/// })?;
/// # Ok::<(), io::Error>(())
/// ```
///
/// # Panics
/// When no hub runs on this thread.
pub fn add_system_event_trigger<R: Completion>(
    phase: TriggerPhase,
    event: impl Into<SystemEvent>,
    callable: impl FnOnce() -> R + 'static,
) -> TriggerId {
    system().triggers.add(phase, event.into(), callable)
}

/// Takes a trigger back. False when it was called or removed before.
///
/// # Panics
/// When no hub runs on this thread.
pub fn remove_system_event_trigger(id: &TriggerId) -> bool {
    system().triggers.remove(id)
}

/// Calls `callable` at once if the reactor runs, and otherwise when it has started: then this gives the trigger. A panic
/// in it is logged.
///
/// # Panics
/// When no hub runs on this thread.
pub fn call_when_running(callable: impl FnOnce() + 'static) -> Option<TriggerId> {
    let system = system();
    if system.is_running() {
        let _ = contain("a call when the reactor runs", callable);
        return None;
    }
    Some(system.triggers.add(TriggerPhase::After, SystemEvent::Startup, callable))
}

/// Calls the triggers of `event`. Fires when the last one has been called, which is after all of the first phase are
/// through. To stop the reactor, call [`stop`]: firing its event by hand only calls the triggers.
///
/// # Panics
/// When no hub runs on this thread.
pub fn fire_system_event(event: impl Into<SystemEvent>) -> Deferred<()> {
    system().triggers.fire(&event.into(), None).add_callback(|_| Ok(()))
}

fn system() -> Rc<System> {
    hub_local(System::default)
}

impl System {
    fn is_running(&self) -> bool {
        matches!(self.state.get(), State::Running | State::Stopping)
    }

    fn start(self: Rc<Self>) {
        let own = self.clone();
        // The first of its phase, for all that are added later find it running.
        let triggers = self.triggers.clone();
        let first = move || {
            if own.state.get() == State::Starting {
                own.state.set(State::Running);
            }
        };
        triggers.add_first(TriggerPhase::During, SystemEvent::Startup, first);
        drop(triggers.fire(&SystemEvent::Startup, None));
    }

    fn stop(self: &Rc<Self>, cause: StopCause) -> Result<(), ReactorNotRunning> {
        if !matches!(self.state.get(), State::Starting | State::Running) {
            return Err(ReactorNotRunning);
        }
        self.state.set(State::Stopping);
        self.cause.set(cause);
        let own = self.clone();
        call_soon(move || own.shut_down());
        Ok(())
    }

    fn shut_down(self: Rc<Self>) {
        let own = self.clone();
        let first = move || own.state.set(State::Ended);
        self.triggers.add_first(TriggerPhase::During, SystemEvent::Shutdown, first);
        let fired = self.triggers.fire(&SystemEvent::Shutdown, self.shutdown_timeout.get());
        let ended = fired.add_both(move |fired| {
            self.shutdown.set(fired.unwrap_or_default());
            self.ended.set();
            Ok(())
        });
        drop(ended);
    }
}
