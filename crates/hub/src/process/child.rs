//! [`Child`].

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Output};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::exit::Exit;
use crate::join::JoinHandle;
use crate::pipe::{PipeReader, PipeWriter};
use crate::signal::Signal;
use crate::{hub, spawn};

/// A program that was started. Dropping it leaves the program alone, unless it was
/// [asked for otherwise](super::Command::kill_on_drop).
pub struct Child {
    /// What it reads, if that is a pipe. Dropping it ends its input.
    pub stdin: Option<PipeWriter>,
    /// What it writes, if that is a pipe.
    pub stdout: Option<PipeReader>,
    /// What it complains of, if that is a pipe.
    pub stderr: Option<PipeReader>,
    exit: Rc<Exit>,
    kill_on_drop: bool,
    talk: Option<Talk>,
}

/// Fibers that feed a child and listen to it.
struct Talk {
    stdin: Option<JoinHandle<io::Result<()>>>,
    outputs: [Option<JoinHandle<io::Result<Vec<u8>>>>; 2],
}

impl Child {
    pub(super) fn new(mut child: std::process::Child, kill_on_drop: bool) -> io::Result<Self> {
        let stdin = child.stdin.take().map(OwnedFd::from);
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        let exit = Exit::new(child)?;
        Ok(Self {
            stdin: stdin.map(PipeWriter::from_fd).transpose()?,
            stdout: stdout.map(PipeReader::from_fd).transpose()?,
            stderr: stderr.map(PipeReader::from_fd).transpose()?,
            exit,
            kill_on_drop,
            talk: None,
        })
    }

    /// The number of the process. Another's, some time after it has ended.
    pub fn id(&self) -> u32 {
        self.exit.id()
    }

    /// Waits until the program has ended. Its input is closed first, if this process has it, so that it does not wait
    /// for us while we wait for it.
    ///
    /// # Suspends
    /// Until the program has ended.
    ///
    /// # Errors
    /// What the system says, such as that somebody else has reaped the process. `TimedOut` while the fiber unwinds.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        self.exit.wait(None)?.ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    /// As [`wait`](Self::wait), at most for `timeout`: `None` then. The input stays open.
    ///
    /// # Suspends
    /// Until the program has ended, or for `timeout`.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        self.exit.wait(Some(deadline(timeout)))
    }

    /// How it has ended, if it has.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.exit.try_wait()
    }

    /// Calls `told` on the loop once the program has ended, and no more than once: for those who have no fiber to
    /// [`wait`](Self::wait) on. It replaces what was given before. The hub keeps it, also when this handle is dropped.
    pub fn on_end(&self, told: impl FnOnce(io::Result<ExitStatus>) + 'static) {
        self.exit.on_end(Box::new(told));
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// `NotFound` when it has ended; what the system says.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.exit.signal(signal)
    }

    /// Asks the program to end: `SIGTERM`. Fine when it has ended.
    ///
    /// # Errors
    /// What the system says.
    pub fn terminate(&self) -> io::Result<()> {
        self.end_by(Signal::TERM)
    }

    /// Ends the program: `SIGKILL`. Fine when it has ended.
    ///
    /// # Errors
    /// What the system says.
    pub fn kill(&self) -> io::Result<()> {
        self.end_by(Signal::KILL)
    }

    fn end_by(&self, signal: Signal) -> io::Result<()> {
        match self.signal(signal) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            sent => sent,
        }
    }

    /// Writes `input` to the program and closes its input, reads all it writes, and waits for its end; all at once, so
    /// that no pipe that is full holds up another. Streams that are no pipes, or were taken, are left out. A program
    /// that ends without having read its input is no error.
    ///
    /// # Suspends
    /// Until the program has ended and its output too, which its own children may hold open.
    ///
    /// # Errors
    /// What the pipes say, and as [`wait`](Self::wait).
    pub fn communicate(&mut self, input: impl Into<Vec<u8>>) -> io::Result<Output> {
        let output = self.talk(input.into(), None)?;
        output.ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    /// As [`communicate`](Self::communicate), at most for `timeout`: `None` then, and the program goes on. Called once
    /// more, it goes on where it was, and nothing is lost; the input is not looked at then.
    ///
    /// # Suspends
    /// As [`communicate`](Self::communicate), or for `timeout`.
    ///
    /// # Errors
    /// As [`communicate`](Self::communicate).
    pub fn communicate_timeout(
        &mut self,
        input: impl Into<Vec<u8>>,
        timeout: Duration,
    ) -> io::Result<Option<Output>> {
        self.talk(input.into(), Some(deadline(timeout)))
    }

    fn talk(&mut self, input: Vec<u8>, deadline: Option<Instant>) -> io::Result<Option<Output>> {
        let (stdin, outputs) = (&mut self.stdin, [&mut self.stdout, &mut self.stderr]);
        let talk = self.talk.get_or_insert_with(|| Talk {
            stdin: stdin.take().map(|stdin| spawn(move || feed(stdin, &input))),
            outputs: outputs.map(|output| output.take().map(|output| spawn(|| listen(output)))),
        });
        let [stdout, stderr] = &talk.outputs;
        let ended = done(&talk.stdin, deadline) && done(stdout, deadline) && done(stderr, deadline);
        if !ended {
            return Ok(None);
        }
        let Some(status) = self.exit.wait(deadline)? else { return Ok(None) };
        let mut talk = self.talk.take().unwrap_or_else(|| unreachable!("it was there above"));
        result(talk.stdin.take())?;
        let [stdout, stderr] = &mut talk.outputs;
        let (stdout, stderr) = (result(stdout.take())?, result(stderr.take())?);
        Ok(Some(Output { status, stdout, stderr }))
    }
}

fn deadline(timeout: Duration) -> Instant {
    hub::with(|hub| hub.driver.now()) + timeout
}

/// Waits for a fiber. False when the time has run out.
fn done<T: 'static>(fiber: &Option<JoinHandle<T>>, deadline: Option<Instant>) -> bool {
    let Some(fiber) = fiber else { return true };
    match deadline {
        None => fiber.wait(),
        Some(deadline) => {
            let left = deadline.saturating_duration_since(hub::with(|hub| hub.driver.now()));
            fiber.wait_timeout(left);
        }
    }
    // Not so for a fiber that unwinds.
    fiber.is_finished()
}

fn result<T: Default + 'static>(fiber: Option<JoinHandle<io::Result<T>>>) -> io::Result<T> {
    match fiber.map(JoinHandle::join) {
        None => Ok(T::default()),
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(io::Error::other(error.to_string())),
    }
}

fn feed(mut stdin: PipeWriter, input: &[u8]) -> io::Result<()> {
    match stdin.write_all(input) {
        // It has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn listen(mut output: PipeReader) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Drop for Talk {
    fn drop(&mut self) {
        // They would wait for as long as the program runs.
        if let Some(stdin) = &self.stdin {
            stdin.kill();
        }
        for output in self.outputs.iter().flatten() {
            output.kill();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.kill_on_drop
            && let Err(error) = self.kill()
        {
            tracing::warn!(%error, id = self.id(), "cannot kill a child process");
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id()).finish_non_exhaustive()
    }
}
