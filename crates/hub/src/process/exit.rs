//! Waits for the end of a child by a descriptor that becomes readable then.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus};
use std::rc::Rc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, waitid};

use crate::fiber::Woke;
use crate::hub;
use crate::io::{IoHandler, Readiness, Registration, register};
use crate::sync::WaitList;

/// Owned by the hub, as the handler, until the child has ended; so it is reaped also when nobody waits.
pub(super) struct Exit {
    child: RefCell<Child>,
    /// Until the child has ended. It goes before the descriptor.
    registration: RefCell<Option<Registration>>,
    fd: OwnedFd,
    status: Cell<Option<ExitStatus>>,
    waiting: WaitList,
    /// Who is called when it has ended.
    told: Cell<Option<Told>>,
}

/// Hears on the loop how a child has ended, once.
pub(super) type Told = Box<dyn FnOnce(io::Result<ExitStatus>)>;

impl Exit {
    /// Takes a child over. Its streams must have been taken.
    pub(super) fn new(child: Child) -> io::Result<Rc<Self>> {
        let fd = descriptor(pid(&child), false);
        Self::watch(child, fd)
    }

    fn watch(mut child: Child, fd: io::Result<OwnedFd>) -> io::Result<Rc<Self>> {
        let fd = match fd {
            Ok(fd) => fd,
            Err(error) => {
                reap(&mut child);
                return Err(error);
            }
        };
        let exit = Rc::new(Self {
            child: RefCell::new(child),
            registration: RefCell::default(),
            fd,
            status: Cell::new(None),
            waiting: WaitList::new(),
            told: Cell::new(None),
        });
        match register(exit.fd.as_fd(), exit.clone()) {
            Ok(registration) => {
                exit.registration.replace(Some(registration));
                Ok(exit)
            }
            Err(error) => {
                reap(&mut exit.child.borrow_mut());
                Err(error)
            }
        }
    }

    pub(super) fn id(&self) -> u32 {
        self.child.borrow().id()
    }

    /// Whether it has ended. The standard library keeps the status, once it has it.
    pub(super) fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        if self.status.get().is_none() {
            self.status.set(self.child.borrow_mut().try_wait()?);
        }
        Ok(self.status.get())
    }

    /// # Suspends
    /// Until it has ended, or `deadline`. A fiber that unwinds does not wait: for it, the time has run out.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(Some(status));
            }
            if self.waiting.wait(deadline) == Woke::TimedOut {
                return self.try_wait();
            }
        }
    }

    /// Calls `told` on the loop when it has ended; soon, if it has.
    pub(super) fn on_end(self: &Rc<Self>, told: Told) {
        self.told.set(Some(told));
        if self.registration.borrow().is_none() {
            let this = self.clone();
            crate::call_soon(move || this.tell());
        }
    }

    fn tell(&self) {
        let Some(told) = self.told.take() else { return };
        match self.try_wait() {
            Ok(None) => self.told.set(Some(told)),
            Ok(Some(status)) => told(Ok(status)),
            Err(error) => told(Err(error)),
        }
    }

    /// Sends a signal, unless it has ended: then its number may be another's.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match self.try_wait()? {
            Some(_) => Err(io::Error::new(io::ErrorKind::NotFound, "the process has ended")),
            None => Ok(rustix::process::kill_process(pid(&self.child.borrow()), signal)?),
        }
    }
}

impl IoHandler for Exit {
    fn io_ready(&self, _: Readiness) {
        // What fails here fails for those who wait again, who are told.
        if matches!(self.try_wait(), Ok(None)) {
            return;
        }
        let registration = self.registration.take();
        self.waiting.wake_all();
        drop(registration);
        self.tell();
    }
}

/// Nobody would hear of its end: it must not stay as a zombie.
fn reap(child: &mut Child) {
    // It is there, and ours.
    let _ = child.kill();
    let _ = child.wait();
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// What becomes readable when the process has ended: a pidfd, or where the kernel has none (before Linux 5.3, or
/// `forced`) a pipe that is closed by a thread that waits.
fn descriptor(pid: Pid, forced: bool) -> io::Result<OwnedFd> {
    if !forced && let Ok(fd) = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
        return Ok(fd);
    }
    let (reader, writer) = io::pipe()?;
    let job = Box::new(move || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(pid), options), Err(Errno::INTR)) {}
        drop(writer);
    });
    hub::with(|hub| hub.driver.run_blocking(job))?;
    Ok(reader.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_pidfd_a_thread_waits() {
        crate::run(|| {
            let child = std::process::Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
            let fd = descriptor(pid(&child), true);
            let exit = Exit::watch(child, fd).unwrap();
            assert_eq!(exit.wait(None).unwrap().unwrap().code(), Some(3));
            // The thread may tell it later than the system.
            while exit.registration.borrow().is_some() {
                crate::sleep(std::time::Duration::from_millis(1));
            }
        });
    }
}
