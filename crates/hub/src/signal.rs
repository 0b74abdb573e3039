//! Signals, told on the loop.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

pub use rustix::process::Signal;
use signal_hook::low_level::{pipe, unregister};

use crate::io::{IoHandler, Readiness, Registration, register};

/// Ends the watch when dropped. The signals do nothing then: their default action does not come back.
#[must_use = "dropping it ends the watch"]
pub struct SignalWatch(Vec<Watched>);

struct Watched {
    id: signal_hook::SigId,
    _registration: Registration,
    _bell: Rc<Bell>,
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
    let callback: Rc<dyn Fn(Signal)> = Rc::new(callback);
    let mut watch = SignalWatch(Vec::with_capacity(signals.len()));
    for &signal in signals {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        let bell = Rc::new(Bell { reader, signal, callback: callback.clone() });
        let registration = register(bell.reader.as_fd(), bell.clone())?;
        let id = pipe::register(signal.as_raw(), writer)?;
        watch.0.push(Watched { id, _registration: registration, _bell: bell });
    }
    Ok(watch)
}
