//! What is patched, for the whole process.

use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::hooks;

/// A bit for each part that is patched, and one for detection. Zero: every call is passed on at once.
static STATE: AtomicU8 = AtomicU8::new(0);

/// The parts of [`Patch`], as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    Sockets = 1,
    Pipes = 2,
    /// One of the two: which, the descriptor says.
    Either = 3,
    Select = 4,
    Sleep = 8,
    Dns = 16,
    Process = 32,
    Locks = 64,
}

/// Somebody wants to hear of calls that block.
const DETECTING: u8 = 128;

/// Which blocking calls park the fiber. gevent's `monkey.patch_all(socket=..., dns=..., ...)`.
///
/// ```
/// use warren_patch::Patch;
///
/// Patch { process: false, ..Patch::ALL }.apply();
/// assert!(Patch::applied().sockets);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// `connect`, `accept`, `recv`, `send` and their variants, and `read` and `write` on sockets.
    pub sockets: bool,
    /// `read` and `write` on pipes, terminals, eventfds and whatever else is not a plain file; not on the
    /// standard streams.
    pub pipes: bool,
    /// `poll`, `select`, `epoll_wait` and their variants.
    pub select: bool,
    /// `sleep`, `usleep`, `nanosleep`, `clock_nanosleep`.
    pub sleep: bool,
    /// `getaddrinfo` and `getnameinfo`, which then run on another thread.
    pub dns: bool,
    /// `waitpid`, `wait4`, `waitid`, `wait`.
    pub process: bool,
    /// `flock`.
    pub locks: bool,
}

impl Patch {
    /// Everything.
    pub const ALL: Self = Self {
        sockets: true,
        pipes: true,
        select: true,
        sleep: true,
        dns: true,
        process: true,
        locks: true,
    };

    /// Nothing.
    pub const NONE: Self = Self {
        sockets: false,
        pipes: false,
        select: false,
        sleep: false,
        dns: false,
        process: false,
        locks: false,
    };

    /// Patches the parts that are true, in addition to those that are patched already, for the rest of the
    /// process's life. It may be called at any time and from any thread; libraries need not be loaded after it.
    ///
    /// A child made by `fork` starts without.
    pub fn apply(self) {
        prepare();
        STATE.fetch_or(self.bits(), Ordering::Relaxed);
    }

    /// The parts that are patched. gevent's `is_module_patched`.
    pub fn applied() -> Self {
        let state = STATE.load(Ordering::Relaxed);
        let has = |part: Part| state & part as u8 != 0;
        Self {
            sockets: has(Part::Sockets),
            pipes: has(Part::Pipes),
            select: has(Part::Select),
            sleep: has(Part::Sleep),
            dns: has(Part::Dns),
            process: has(Part::Process),
            locks: has(Part::Locks),
        }
    }

    fn bits(self) -> u8 {
        let bit = |wanted: bool, part: Part| if wanted { part as u8 } else { 0 };
        bit(self.sockets, Part::Sockets)
            | bit(self.pipes, Part::Pipes)
            | bit(self.select, Part::Select)
            | bit(self.sleep, Part::Sleep)
            | bit(self.dns, Part::Dns)
            | bit(self.process, Part::Process)
            | bit(self.locks, Part::Locks)
    }
}

/// Nothing is to be done, ever.
#[inline]
pub(crate) fn is_off() -> bool {
    STATE.load(Ordering::Relaxed) == 0
}

pub(crate) fn is_patched(part: Part) -> bool {
    STATE.load(Ordering::Relaxed) & part as u8 != 0
}

pub(crate) fn is_detecting() -> bool {
    STATE.load(Ordering::Relaxed) & DETECTING != 0
}

pub(crate) fn set_detecting(detecting: bool) {
    if detecting {
        prepare();
        STATE.fetch_or(DETECTING, Ordering::Relaxed);
    } else {
        STATE.fetch_and(!DETECTING, Ordering::Relaxed);
    }
}

fn prepare() {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        hooks::look_up();
        // SAFETY: the handler may run in a forked child: it stores to an atomic and nothing else.
        unsafe { libc::pthread_atfork(None, None, Some(forked)) };
    });
}

/// The child of a fork has a copy of the hub, which must not run in two processes.
extern "C" fn forked() {
    STATE.store(0, Ordering::Relaxed);
}
