//! How a hub is run: [`run`], [`Options`].

use std::io;
use std::panic::{Location, resume_unwind};
use std::time::Duration;

#[cfg(feature = "io-uring")]
use crate::driver::Uring;
use crate::driver::{Driver, Epoll};
use crate::hub::{self, Hub};
use crate::join::JoinError;
use crate::spawn::Builder;

/// What a hub waits for the kernel with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DriverKind {
    /// epoll, edge-triggered: available everywhere, and as fast as anything else in most uses.
    #[default]
    Epoll,
    /// io_uring: sockets as with epoll, files in the same queue. Linux 5.13 or later, where the administrator allows
    /// it; there is no falling back.
    #[cfg(feature = "io-uring")]
    IoUring,
}

/// Settings of a hub.
///
/// ```
/// use warren_hub::Options;
///
/// let core = Options::new().pin_to(0).run(|| 7)?;
/// assert_eq!(core, 7);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    driver: DriverKind,
    core: Option<usize>,
    files_on_threads: bool,
    spin: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { driver: DriverKind::default(), core: None, files_on_threads: false, spin: hub::SPIN }
    }
}

impl Options {
    /// epoll, on whatever core the system chooses.
    pub fn new() -> Self {
        Self::default()
    }

    /// What to wait with.
    pub fn driver(mut self, driver: DriverKind) -> Self {
        self.driver = driver;
        self
    }

    /// Keeps the thread on one core, counted from 0 among all of the machine. It stays there when the hub has ended.
    pub fn pin_to(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// Leaves files to threads, which is what happens anyway where io_uring cannot be used, or without the feature
    /// `io-uring`.
    pub fn files_on_threads(mut self) -> Self {
        self.files_on_threads = true;
        self
    }

    /// How long the hub looks for events, at most, before it sleeps, when its last sleeps were brief: in a dialogue with
    /// one peer, sleeping and being woken take longer than all else. A hub that looks in vain, and one that has little
    /// to do, does so less and less. 10 microseconds if not set; zero: never. On a machine with one processor, it never
    /// does.
    pub fn spin(mut self, longest: Duration) -> Self {
        self.spin = longest;
        self
    }

    /// As [`run`], with these settings.
    ///
    /// # Errors
    /// When the system refuses an epoll descriptor, an eventfd, a stack, or the core.
    ///
    /// # Panics
    /// As [`run`] for `main`'s own panics.
    #[track_caller]
    pub fn run<T: 'static>(&self, main: impl FnOnce() -> T + 'static) -> io::Result<T> {
        if let Some(core) = self.core {
            pin(core)?;
        }
        let driver: Box<dyn Driver> = match self.driver {
            DriverKind::Epoll => Box::new(Epoll::new(!self.files_on_threads)?),
            #[cfg(feature = "io-uring")]
            DriverKind::IoUring => Box::new(Uring::new(!self.files_on_threads)?),
        };
        let spawned_at = Location::caller();
        let mut handle = None;
        let mut refused = None;
        Hub::run(driver, self.spin, || {
            let mut target = None;
            let main = Builder::new().name("main").prepare_at(spawned_at, main, |hub, fiber| {
                target = Some(fiber);
                hub.start(fiber);
            });
            match main {
                Ok(join) => handle = Some(join),
                Err(error) => refused = Some(error),
            }
            target
        })?;
        if let Some(error) = refused {
            return Err(error);
        }
        match handle.and_then(|handle| handle.outcome().take()) {
            Some(Ok(value)) => Ok(value),
            Some(Err(JoinError::Panicked(panic))) => resume_unwind(panic.into_payload()),
            Some(Err(JoinError::Killed)) | None => panic!("the main fiber was killed"),
        }
    }
}

/// Keeps this thread on one core.
fn pin(core: usize) -> io::Result<()> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    if core >= CpuSet::MAX_CPU {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("there is no core {core}"),
        ));
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Runs a hub on this thread, and `main` on its first fiber; returns what `main` returns. Fibers that still run
/// then are killed.
///
/// ```
/// use std::time::Duration;
/// use warren_hub::{run, sleep, spawn};
///
/// run(|| {
///     let other = spawn(|| println!("meanwhile"));
///     sleep(Duration::from_millis(1));
///     other.join().unwrap();
/// });
/// ```
///
/// # Panics
/// When `main` panics, with its payload. When a hub already runs on this thread, when the system refuses an
/// epoll descriptor, and in `main` when it waits for what can never happen.
#[track_caller]
pub fn run<T: 'static>(main: impl FnOnce() -> T + 'static) -> T {
    match try_run(main) {
        Ok(value) => value,
        Err(error) => panic!("cannot run a hub: {error}"),
    }
}

/// As [`run`].
///
/// # Errors
/// When the system refuses an epoll descriptor, an eventfd or a stack.
///
/// # Panics
/// As [`run`] for `main`'s own panics.
#[track_caller]
pub fn try_run<T: 'static>(main: impl FnOnce() -> T + 'static) -> io::Result<T> {
    Options::new().run(main)
}

/// The one value of type `T` that belongs to the hub of this thread, made by `make` at the first use. It is dropped
/// when the hub ends. For what a library keeps per event loop, where a thread-local would be too long-lived.
///
/// # Panics
/// When no hub runs on this thread.
pub fn hub_local<T: 'static>(make: impl FnOnce() -> T) -> std::rc::Rc<T> {
    match hub::with(|hub| hub.known_local()) {
        Some(known) => known,
        None => {
            // The hub is not borrowed: `make` may yield from a generator, and come back when it has gone.
            let made = make();
            hub::with(|hub| hub.local(|| made))
        }
    }
}
