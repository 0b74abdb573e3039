//! One call of a patched function: whether it may park, and how it waits.
//!
//! ```text
//!   begin --(not patched, no fiber)--> the real function
//!     |
//!   try without blocking --(done)--> end
//!     |  would block
//!   the caller wants to be told so (O_NONBLOCK, MSG_DONTWAIT)? --> EAGAIN
//!     |  no
//!   wait: park the fiber, or block the thread and take the time --> try again
//! ```
//! Nothing is remembered of a descriptor between calls: its flags and timeouts are asked for when it would
//! block, which is when they matter. So `fcntl`, `ioctl`, `dup` and `setsockopt` need no hooks.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::os::fd::{BorrowedFd, RawFd};
use std::thread::panicking;
use std::time::{Duration, Instant};

use warren_hub::io::{Readiness, wait_fd};
use warren_hub::{Interrupted, hold_interrupts};

use crate::detect;
use crate::hooks::{select, time};
use crate::state::{self, Part};

/// How long to stay away from a descriptor that says it is ready and is not.
const RESPITE: Duration = Duration::from_millis(1);
/// Longer than any wait; a sleep without an end takes this long.
pub(crate) const VERY_LONG: Duration = Duration::from_secs(1 << 30);
/// Calls in a row that need not wait, after which others have their turn.
const BUDGET: u32 = 128;

thread_local! {
    /// Calls since the last wait.
    static EASY_CALLS: Cell<u32> = const { Cell::new(0) };
}

/// What a call that would block does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The fiber parks.
    Park,
    /// The thread blocks, and somebody hears of it.
    Watch,
}

impl Mode {
    fn of(part: Part) -> Option<Self> {
        if !warren_hub::is_running() {
            None
        } else if state::is_patched(part) && may_park() {
            Some(Self::Park)
        } else if state::is_detecting() && detect::is_heard() {
            Some(Self::Watch)
        } else {
            None
        }
    }
}

/// Why a wait has ended without what it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unready {
    /// Its time was over.
    TimedOut,
    /// An error number.
    Error(c_int),
}

impl Unready {
    /// The error number, with one for the time being over.
    pub(crate) fn errno(self, timed_out: c_int) -> c_int {
        match self {
            Self::TimedOut => timed_out,
            Self::Error(errno) => errno,
        }
    }
}

pub(crate) struct Call {
    function: &'static str,
    fd: Option<RawFd>,
    mode: Mode,
    /// As the caller left it. A success must not change it, and other fibers do.
    errno: c_int,
    /// How long the thread was blocked, if it was.
    blocked: Option<Duration>,
    waited: bool,
}

impl Call {
    /// `None` when the real function is to be called.
    #[inline]
    pub(crate) fn begin(function: &'static str, part: Part, fd: Option<RawFd>) -> Option<Self> {
        if state::is_off() { None } else { Self::begin_on_hub(function, part, fd) }
    }

    fn begin_on_hub(function: &'static str, part: Part, fd: Option<RawFd>) -> Option<Self> {
        let mode = Mode::of(part)?;
        Some(Self { function, fd, mode, errno: errno(), blocked: None, waited: false })
    }

    /// The call turns out to belong to `part`. False when the real function is to be called.
    pub(crate) fn narrow(&mut self, part: Part) -> bool {
        let mode = Mode::of(part);
        self.mode = mode.unwrap_or(self.mode);
        mode.is_some()
    }

    /// Leaves `errno` behind beside a result that is no error by itself.
    pub(crate) fn leave_errno(&mut self, errno: c_int) {
        self.errno = errno;
    }

    /// Hands the result over, as C functions do.
    pub(crate) fn end<R: Failure>(self, result: Result<R, c_int>) -> R {
        if let Some(blocked) = self.blocked {
            detect::report(self.function, self.fd, blocked);
        }
        let (result, errno) = match result {
            Ok(value) => (value, self.errno),
            Err(errno) => (R::FAILURE, errno),
        };
        set_errno(errno);
        result
    }

    /// Calls `attempt`, which must not block, until it does not fail with `EAGAIN`; in between waits for
    /// `interest`. `timeout`: the socket option that bounds the wait.
    pub(crate) fn retry(
        &mut self,
        fd: RawFd,
        interest: Readiness,
        timeout: Option<c_int>,
        mut attempt: impl FnMut() -> isize,
    ) -> Result<isize, c_int> {
        let mut wait = None;
        loop {
            match outcome(attempt()) {
                Err(libc::EAGAIN) => {}
                done => {
                    if !self.waited {
                        self.be_fair(fd);
                    }
                    return done;
                }
            }
            let deadline = match wait {
                Some(deadline) => {
                    // Said to be ready, and was not. To be told so at once again is no news.
                    if select::is_ready(fd, interest) {
                        self.sleep(RESPITE)?;
                    }
                    deadline
                }
                None if is_nonblocking(fd) => return Err(libc::EAGAIN),
                None => {
                    let timeout = timeout.and_then(|option| socket_timeout(fd, option));
                    *wait.insert(timeout.and_then(after))
                }
            };
            self.wait(fd, interest, deadline).map_err(|unready| unready.errno(libc::EAGAIN))?;
        }
    }

    /// Waits for `fd` until `deadline`.
    pub(crate) fn wait(
        &mut self,
        fd: RawFd,
        interest: Readiness,
        deadline: Option<Instant>,
    ) -> Result<(), Unready> {
        match self.mode {
            Mode::Park => self.park(|| {
                // SAFETY: the caller of the hook keeps the descriptor open for the call, or closes it by our
                // `close`, which ends the wait.
                let fd = unsafe { BorrowedFd::borrow_raw(fd) };
                match wait_fd(fd, interest, deadline) {
                    Ok(_) => Ok(()),
                    Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                        Err(Unready::TimedOut)
                    }
                    // Not to be waited for: it is always ready.
                    Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
                    Err(error) => Err(Unready::Error(error.raw_os_error().unwrap_or(libc::EIO))),
                }
            }),
            Mode::Watch => self.block(|| select::block(fd, interest, deadline)),
        }
    }

    /// Sleeps; for a fiber that has been killed, not at all.
    pub(crate) fn sleep(&mut self, duration: Duration) -> Result<(), c_int> {
        let duration = duration.min(VERY_LONG);
        match self.mode {
            Mode::Park => self
                .park(|| {
                    warren_hub::sleep(duration);
                    Ok(())
                })
                .map_err(|unready| unready.errno(libc::ETIMEDOUT)),
            Mode::Watch if duration.is_zero() => Ok(()),
            Mode::Watch => self.block(|| time::block(duration)),
        }
    }

    /// Runs `job`, which may block: on another thread, or here with a look at the clock.
    pub(crate) fn offload<T: Send + 'static>(
        &mut self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, c_int> {
        match self.mode {
            Mode::Park => self
                .park(|| Ok(warren_hub::offload(job)))
                .map_err(|unready| unready.errno(libc::ETIMEDOUT)),
            Mode::Watch => Ok(self.block(job)),
        }
    }

    /// A kill or a timeout of the fiber ends the wait and is an error for the caller, which may be C and cannot
    /// be unwound; the fiber unwinds where it waits next in code that can.
    fn park<T>(&mut self, wait: impl FnOnce() -> Result<T, Unready>) -> Result<T, Unready> {
        self.waited = true;
        EASY_CALLS.set(0);
        if panicking() {
            // A fiber that unwinds must not let others run.
            return Err(Unready::Error(libc::ECANCELED));
        }
        let interrupted = match hold_interrupts(wait) {
            Ok(result) => return result,
            Err(interrupted) => interrupted,
        };
        // Whoever tries again and again must not stop the hub.
        warren_hub::shield(warren_hub::yield_now);
        Err(Unready::Error(match interrupted {
            Interrupted::TimedOut => libc::ETIMEDOUT,
            _ => libc::ECANCELED,
        }))
    }

    fn block<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = wait();
        self.blocked = Some(self.blocked.unwrap_or_default() + started.elapsed());
        result
    }

    /// Lets others run after many calls that had no need to wait.
    fn be_fair(&mut self, fd: RawFd) {
        if self.mode == Mode::Watch {
            return;
        }
        let calls = EASY_CALLS.get() + 1;
        EASY_CALLS.set(calls);
        if calls < BUDGET {
            return;
        }
        EASY_CALLS.set(0);
        if !panicking() && !is_nonblocking(fd) {
            // An interrupt comes with the next wait.
            let _ = hold_interrupts(warren_hub::yield_now);
        }
    }
}

/// So long from now; `None` for never.
pub(crate) fn after(duration: Duration) -> Option<Instant> {
    Instant::now().checked_add(duration)
}

/// On a fiber that may wait, or one that unwinds: for it, what would wait fails.
fn may_park() -> bool {
    warren_hub::current().is_some() && (panicking() || warren_hub::can_wait())
}

/// What a function returns when it fails.
pub(crate) trait Failure {
    const FAILURE: Self;
}

impl Failure for c_int {
    const FAILURE: Self = -1;
}

impl Failure for isize {
    const FAILURE: Self = -1;
}

impl Failure for u32 {
    const FAILURE: Self = u32::MAX;
}

/// A C function's result as ours.
pub(crate) fn outcome(result: isize) -> Result<isize, c_int> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

pub(crate) fn errno() -> c_int {
    // SAFETY: the C library gives each thread its own.
    unsafe { *libc::__errno_location() }
}

pub(crate) fn set_errno(errno: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno }
}

/// Whether the caller wants to be told that a call would block. False for what is no descriptor: the attempt
/// says so.
pub(crate) fn is_nonblocking(fd: RawFd) -> bool {
    // SAFETY: F_GETFL takes no pointer.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags != -1 && flags & libc::O_NONBLOCK != 0
}

/// `SO_RCVTIMEO` or `SO_SNDTIMEO`; `None` for no bound.
pub(crate) fn socket_timeout(fd: RawFd, option: c_int) -> Option<Duration> {
    let mut value = libc::timeval { tv_sec: 0, tv_usec: 0 };
    socket_option(fd, option, &mut value)?;
    let micros = u32::try_from(value.tv_usec).unwrap_or(0);
    let timeout = Duration::new(value.tv_sec.try_into().unwrap_or(0), micros * 1000);
    (!timeout.is_zero()).then_some(timeout)
}

/// An option of the socket, if it has one.
pub(crate) fn socket_option<T: Copy>(fd: RawFd, option: c_int, value: &mut T) -> Option<T> {
    let mut size = size_of::<T>() as libc::socklen_t;
    let place = std::ptr::from_mut(value).cast::<c_void>();
    // SAFETY: the place has the size that is given.
    let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, option, place, &mut size) };
    (result == 0).then_some(*value)
}
