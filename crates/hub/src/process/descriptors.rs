//! What a child gets beyond its three streams: more descriptors, a terminal that it obeys.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::fcntl_dupfd_cloexec;

/// What the child does before it runs the program. Kept by the command, which has no way to forget a closure: so what
/// is to be done is handed over for each start.
type Task = Arc<Mutex<Vec<(RawFd, RawFd)>>>;

/// Starts the program. `descriptors`: what it finds under which number. `controlled`: its standard input is to be the
/// terminal of a session of its own.
pub(super) fn spawn(
    command: &mut Command,
    descriptors: Vec<(RawFd, OwnedFd)>,
    controlled: bool,
) -> io::Result<Child> {
    // Above all numbers that are given, so that none is overwritten before it is used.
    let above = descriptors.iter().map(|(number, _)| number + 1).max().unwrap_or(3);
    let mut sources = Vec::with_capacity(descriptors.len());
    for (number, fd) in descriptors {
        sources.push((number, fcntl_dupfd_cloexec(&fd, above)?));
    }
    // The standard library opens a pipe by which the child tells that it could not run the program. It must not get a
    // number that the child gives to something else: so all of them are taken, here or already.
    let mut taken = Vec::with_capacity(sources.len());
    for (number, fd) in &sources {
        let fd = fcntl_dupfd_cloexec(fd, *number)?;
        if fd.as_raw_fd() == *number {
            taken.push(fd);
        }
    }
    let task = sources.iter().map(|(number, fd)| (*number, fd.as_raw_fd())).collect::<Vec<_>>();
    let task: Task = Arc::new(Mutex::new(task));
    prepare(command, task.clone(), controlled);
    let child = command.spawn();
    // The command may start another program, for which these numbers mean nothing.
    task.lock().unwrap_or_else(PoisonError::into_inner).clear();
    child
}

/// What a terminal says by signals. Who ignores some of them, as `nohup` does, hands that on, and the keys of a new terminal
/// would do nothing.
const SIGNALS_OF_TERMINALS: [libc::c_int; 6] =
    [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

fn prepare(command: &mut Command, task: Task, controlled: bool) {
    let in_child = move || {
        if controlled {
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            for key in SIGNALS_OF_TERMINALS {
                // SAFETY: it changes this process, which will run another program.
                if unsafe { libc::signal(key, libc::SIG_DFL) } == libc::SIG_ERR {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        // Nobody holds it: this is the only thread of the child, and the parent's waits in `spawn`.
        if let Ok(task) = task.try_lock() {
            for &(number, source) in task.iter() {
                // SAFETY: `dup2` takes any numbers. `number` is nothing that lives here: the parent holds it for this,
                // or has something there that the program is not to get.
                if unsafe { libc::dup2(source, number) } < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        Ok(())
    };
    // SAFETY: it makes system calls only, takes a lock that is free, and allocates nothing: an error of the system
    // holds a number.
    unsafe { command.pre_exec(in_child) };
}
