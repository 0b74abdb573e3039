//! Waiting for child processes.
//!
//! One process is waited for by its `pidfd`. For "any child", and for processes that only stop or go on, there is
//! no descriptor: the fiber looks again and again.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use libc::{id_t, idtype_t, pid_t, rusage, siginfo_t};
use warren_hub::io::Readiness;

use crate::call::{Call, outcome};
use crate::real::hooks;

/// How soon to look again for a child, and how late.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(20);

hooks! {
    Process(None)
    fn waitpid(pid: pid_t, status: *mut c_int, options: c_int) -> pid_t, |call| {
        // SAFETY: what the caller passed.
        reap(call, pid, options, |options| unsafe { real::waitpid(pid, status, options) })
    }

    Process(None)
    fn wait(status: *mut c_int) -> pid_t, |call| {
        // SAFETY: what the caller passed.
        reap(call, -1, 0, |options| unsafe { real::waitpid(-1, status, options) })
    }

    Process(None)
    fn wait4(
        pid: pid_t, status: *mut c_int, options: c_int, usage: *mut rusage,
    ) -> pid_t, |call| {
        // SAFETY: what the caller passed.
        reap(call, pid, options, |options| unsafe { real::wait4(pid, status, options, usage) })
    }

    Process(None)
    fn waitid(kind: idtype_t, id: id_t, info: *mut siginfo_t, options: c_int) -> c_int, |call| {
        if options & libc::WNOHANG != 0 {
            // SAFETY: what the caller passed.
            outcome(unsafe { real::waitid(kind, id, info, options) } as isize).map(|_| 0)
        } else {
            let mut wait = ChildWait::new(match kind {
                libc::P_PID if options & (libc::WSTOPPED | libc::WCONTINUED) == 0 => {
                    Watched::open(id as pid_t)
                }
                libc::P_PIDFD => Watched::Theirs(id as RawFd),
                _ => Watched::No,
            });
            loop {
                // SAFETY: all zero is a structure that names no process.
                let mut found: siginfo_t = unsafe { std::mem::zeroed() };
                // SAFETY: what the caller passed, and a place.
                let result = unsafe { real::waitid(kind, id, &mut found, options | libc::WNOHANG) };
                match outcome(result as isize) {
                    // SAFETY: filled in by waitid, or all zero.
                    Ok(_) if unsafe { found.si_pid() } == 0 => {}
                    Ok(_) => {
                        if !info.is_null() {
                            // SAFETY: the caller's place.
                            unsafe { *info = found };
                        }
                        break Ok(0);
                    }
                    Err(errno) => break Err(errno),
                }
                if let Err(errno) = wait.wait(call) {
                    break Err(errno);
                }
            }
        }
    }
}

/// `waitpid` and its kin: `attempt` is told the options.
fn reap(
    call: &mut Call,
    pid: pid_t,
    options: c_int,
    attempt: impl Fn(c_int) -> pid_t,
) -> Result<pid_t, c_int> {
    if options & libc::WNOHANG != 0 {
        return outcome(attempt(options) as isize).map(|pid| pid as pid_t);
    }
    let first = outcome(attempt(options | libc::WNOHANG) as isize)?;
    if first != 0 {
        return Ok(first as pid_t);
    }
    let ends_only = options & (libc::WUNTRACED | libc::WCONTINUED) == 0;
    let watched = if pid > 0 && ends_only { Watched::open(pid) } else { Watched::No };
    let mut wait = ChildWait::new(watched);
    loop {
        wait.wait(call)?;
        let found = outcome(attempt(options | libc::WNOHANG) as isize)?;
        if found != 0 {
            return Ok(found as pid_t);
        }
    }
}

/// What tells of a child's end.
enum Watched {
    Ours(OwnedFd),
    Theirs(RawFd),
    No,
}

impl Watched {
    fn open(pid: pid_t) -> Self {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Self::No;
        }
        // SAFETY: just opened, and nobody else's.
        Self::Ours(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
    }
}

struct ChildWait {
    watched: Watched,
    pause: Duration,
}

impl ChildWait {
    fn new(watched: Watched) -> Self {
        Self { watched, pause: PAUSE }
    }

    /// Waits until it is worth looking again.
    fn wait(&mut self, call: &mut Call) -> Result<(), c_int> {
        let fd = match &self.watched {
            Watched::Ours(fd) => fd.as_raw_fd(),
            Watched::Theirs(fd) => *fd,
            Watched::No => {
                call.sleep(self.pause)?;
                self.pause = (2 * self.pause).min(PAUSE_MAX);
                return Ok(());
            }
        };
        call.wait(fd, Readiness::READABLE, None).map_err(|unready| unready.errno(libc::EAGAIN))
    }
}
