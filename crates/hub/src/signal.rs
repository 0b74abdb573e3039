//! Signals, told on the loop or to fibers.

use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

pub use rustix::process::Signal;
use signal_hook::consts::FORBIDDEN;
use signal_hook::low_level::{pipe, unregister};

use crate::io::{IoHandler, Readiness, Registration, register};
use crate::sync::Queue;

/// Ends the watch when dropped. The signals do nothing then: their default action does not come back.
#[must_use = "dropping it ends the watch"]
pub struct SignalWatch(Vec<Watched>);

struct Watched {
    id: signal_hook::SigId,
    _registration: Registration,
    bell: Rc<Bell>,
}

impl fmt::Debug for SignalWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|watched| watched.bell.signal)).finish()
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        for watched in &self.0 {
            unregister(watched.id);
        }
    }
}

/// The reading end of a pipe into which the signal's handler writes.
struct Bell {
    reader: UnixStream,
    signal: Signal,
    callback: Rc<dyn Fn(Signal)>,
}

impl IoHandler for Bell {
    fn io_ready(&self, _ready: Readiness) {
        let mut rung = false;
        let mut bytes = [0; 64];
        while (&self.reader).read(&mut bytes).is_ok_and(|count| count > 0) {
            rung = true;
        }
        if rung {
            (self.callback)(self.signal);
        }
    }
}

/// Calls `callback` on the loop of this thread when the process receives one of `signals`, instead of what
/// the signal would do. Signals that come faster than the loop turns are told once.
///
/// # Errors
/// For signals that cannot be caught, and when the process has no descriptor left.
///
/// # Panics
/// When no hub runs on this thread.
pub fn on_signals(
    signals: &[Signal],
    callback: impl Fn(Signal) + 'static,
) -> io::Result<SignalWatch> {
    if let Some(signal) = signals.iter().find(|signal| FORBIDDEN.contains(&signal.as_raw())) {
        let text = format!("{signal:?} cannot be caught, or must not be");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let callback: Rc<dyn Fn(Signal)> = Rc::new(callback);
    let mut watch = SignalWatch(Vec::with_capacity(signals.len()));
    for &signal in signals {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        let bell = Rc::new(Bell { reader, signal, callback: callback.clone() });
        let registration = register(bell.reader.as_fd(), bell.clone())?;
        let id = pipe::register(signal.as_raw(), writer)?;
        watch.0.push(Watched { id, _registration: registration, bell });
    }
    Ok(watch)
}

/// Signals that the process receives, for fibers.
///
/// ```
/// use warren_hub::signal::{Signal, Signals};
///
/// warren_hub::run(|| -> std::io::Result<()> {
///     let mut signals = Signals::new(&[Signal::USR1])?;
///     rustix::process::kill_process(rustix::process::getpid(), Signal::USR1)?;
///     assert_eq!(signals.next(), Some(Signal::USR1));
///     Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Signals {
    arrived: Rc<Queue<Signal>>,
    _watch: SignalWatch,
}

impl Signals {
    /// Keeps what comes from now on, as [`on_signals`] hears it.
    ///
    /// # Errors
    /// As [`on_signals`].
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let arrived = Rc::new(Queue::unbounded());
        let queue = arrived.clone();
        let watch = on_signals(signals, move |signal| {
            // There is always room.
            let _ = queue.try_put(signal);
        })?;
        Ok(Self { arrived, _watch: watch })
    }

    /// The next one, at most after `timeout`.
    ///
    /// # Suspends
    /// Until there is one, or for `timeout`.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Signal> {
        self.arrived.get_timeout(timeout).ok()
    }
}

/// Ends only for a fiber that unwinds, which does not wait.
impl Iterator for Signals {
    type Item = Signal;

    fn next(&mut self) -> Option<Signal> {
        self.arrived.get().ok()
    }
}

/// Waits for one of `signals`, which do nothing else from now on. For more than one wait take [`Signals`], which misses
/// none in between.
///
/// # Suspends
/// Until one comes.
///
/// # Errors
/// As [`on_signals`]; `TimedOut` for a fiber that unwinds, which does not wait.
///
/// # Panics
/// Outside a fiber.
pub fn wait(signals: &[Signal]) -> io::Result<Signal> {
    Signals::new(signals)?.next().ok_or_else(|| io::ErrorKind::TimedOut.into())
}
