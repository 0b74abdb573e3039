//! Child processes, shaped like `std::process`, with the fiber parked meanwhile: gevent's `subprocess`.
//!
//! ```
//! use warren_hub::process::Command;
//!
//! let output = warren_hub::run(|| Command::new("sh").args(["-c", "echo $((6 * 7))"]).output())?;
//! assert_eq!((output.stdout.as_slice(), output.status.code()), (&b"42\n"[..], Some(0)));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! | Python's `subprocess` | here |
//! |---|---|
//! | `run(capture_output=True)` | [`Command::output`] |
//! | `call`, `run` | [`Command::status`] |
//! | `check_output` | [`Command::check_output`] |
//! | `timeout=` | [`Command::output_timeout`], [`Child::wait_timeout`], [`Child::communicate_timeout`] |
//! | `Popen` | [`Command::spawn`] |
//! | `communicate` | [`Child::communicate`] |
//! | `poll`, `wait` | [`Child::try_wait`], [`Child::wait`] |
//! | `terminate`, `kill`, `send_signal` | [`Child::terminate`], [`Child::kill`], [`Child::signal`] |
//!
//! A child is waited for by a descriptor of its own (`pidfd`), so no handler of `SIGCHLD` is installed and children of
//! other parts of the program are left alone. One that nobody waits for is reaped all the same, as long as the hub runs.

mod child;
mod descriptors;
mod exit;

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::Duration;

pub use child::Child;
pub use std::process::{ExitStatus, Output, Stdio};

/// A program to be started, with all that it is given.
pub struct Command {
    std: std::process::Command,
    /// What was set by hand; the rest goes by what is done with the child.
    set: [bool; 3],
    kill_on_drop: bool,
    /// What the program finds under other numbers than those of the three streams.
    descriptors: Vec<(i32, OwnedFd)>,
    /// Whether its standard input is the terminal that it obeys.
    controlled: bool,
}

/// The three streams, as indices.
const STDIN: usize = 0;
const STDOUT: usize = 1;
const STDERR: usize = 2;

impl From<std::process::Command> for Command {
    /// Takes all settings over. Streams that were set there must be set here again, if [`output`](Self::output) is to
    /// leave them alone.
    fn from(std: std::process::Command) -> Self {
        Self {
            std,
            set: [false; 3],
            kill_on_drop: false,
            descriptors: Vec::new(),
            controlled: false,
        }
    }
}

impl Command {
    /// Without arguments, with this process's environment and folder. A name without a slash is looked for in `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        std::process::Command::new(program).into()
    }

    /// One more argument.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.std.arg(argument);
        self
    }

    /// More arguments.
    pub fn args(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.std.args(arguments);
        self
    }

    /// Sets a variable of the environment.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.std.env(name, value);
        self
    }

    /// Sets variables of the environment.
    pub fn envs(
        &mut self,
        variables: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> &mut Self {
        self.std.envs(variables);
        self
    }

    /// Takes a variable out of the environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.std.env_remove(name);
        self
    }

    /// Takes all variables out of the environment.
    pub fn env_clear(&mut self) -> &mut Self {
        self.std.env_clear();
        self
    }

    /// Where the program runs.
    pub fn current_dir(&mut self, folder: impl AsRef<Path>) -> &mut Self {
        self.std.current_dir(folder);
        self
    }

    /// The user the program runs as.
    pub fn uid(&mut self, id: u32) -> &mut Self {
        self.std.uid(id);
        self
    }

    /// The group the program runs as.
    pub fn gid(&mut self, id: u32) -> &mut Self {
        self.std.gid(id);
        self
    }

    /// The process group the program joins; 0 for a new one, which a key pressed at the terminal does not reach.
    pub fn process_group(&mut self, group: i32) -> &mut Self {
        self.std.process_group(group);
        self
    }

    /// What the program reads. Unless set: what this process does, and nothing for [`output`](Self::output).
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.set[STDIN] = true;
        self.std.stdin(stdio);
        self
    }

    /// Where its output goes. Unless set: where that of this process goes, and a pipe for [`output`](Self::output).
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.set[STDOUT] = true;
        self.std.stdout(stdio);
        self
    }

    /// Where its complaints go; as [`stdout`](Self::stdout).
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.set[STDERR] = true;
        self.std.stderr(stdio);
        self
    }

    /// Gives the program a descriptor under the number `number`, beyond the three streams. It is closed here once a
    /// program was started, and not given to a second one.
    ///
    /// # Panics
    /// When the number is one of a stream, or below 0.
    pub fn child_fd(&mut self, number: i32, fd: impl Into<OwnedFd>) -> &mut Self {
        assert!(2 < number, "descriptor {number} is a stream: use stdin, stdout or stderr");
        self.descriptors.retain(|(other, _)| *other != number);
        self.descriptors.push((number, fd.into()));
        self
    }

    /// Starts a session of its own for the program, whose terminal is its standard input: keys such as Control-C are
    /// signals to it, and its end is a hang-up. Standard input must be a terminal that is nobody else's.
    pub fn controlling_terminal(&mut self, controlled: bool) -> &mut Self {
        self.controlled = controlled;
        self
    }

    /// Whether the program is killed when its [`Child`] is dropped before it has ended. Not unless said so.
    pub fn kill_on_drop(&mut self, kill: bool) -> &mut Self {
        self.kill_on_drop = kill;
        self
    }

    /// Starts the program. The thread is blocked until it has started: a millisecond or so.
    ///
    /// # Errors
    /// When there is no such program, or the system refuses a process or a pipe.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn spawn(&mut self) -> io::Result<Child> {
        Child::new(self.start()?, self.kill_on_drop)
    }

    fn start(&mut self) -> io::Result<std::process::Child> {
        let descriptors = std::mem::take(&mut self.descriptors);
        if descriptors.is_empty() && !self.controlled {
            // By `posix_spawn`, which copies no page table.
            return self.std.spawn();
        }
        descriptors::spawn(&mut self.std, descriptors, self.controlled)
    }

    fn spawn_for(&mut self, defaults: [fn() -> Stdio; 3]) -> io::Result<Child> {
        if !self.set[STDIN] {
            self.std.stdin(defaults[STDIN]());
        }
        if !self.set[STDOUT] {
            self.std.stdout(defaults[STDOUT]());
        }
        if !self.set[STDERR] {
            self.std.stderr(defaults[STDERR]());
        }
        // Nobody else could wait for it.
        Child::new(self.start()?, true)
    }

    /// Starts the program and waits until it ends. When this fiber is killed meanwhile, so is the program.
    ///
    /// # Suspends
    /// Until the program has ended.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        self.spawn_for([Stdio::inherit; 3])?.wait()
    }

    /// Starts the program, waits until it ends, and collects what it writes. When this fiber is killed meanwhile, so is
    /// the program.
    ///
    /// # Suspends
    /// Until the program has ended.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn output(&mut self) -> io::Result<Output> {
        self.captured()?.communicate(Vec::new())
    }

    /// As [`output`](Self::output), for a program that is killed when it runs longer than `timeout`.
    ///
    /// # Suspends
    /// Until the program has ended.
    ///
    /// # Errors
    /// `TimedOut`; as [`spawn`](Self::spawn).
    pub fn output_timeout(&mut self, timeout: Duration) -> io::Result<Output> {
        match self.captured()?.communicate_timeout(Vec::new(), timeout)? {
            Some(output) => Ok(output),
            None => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{:?} ran longer than {timeout:?}, and was killed", self.std.get_program()),
            )),
        }
    }

    /// As [`output`](Self::output), of a program that succeeds: what it writes to its standard output.
    ///
    /// # Suspends
    /// Until the program has ended.
    ///
    /// # Errors
    /// When it fails: with what it wrote to its standard error. As [`spawn`](Self::spawn).
    pub fn check_output(&mut self) -> io::Result<Vec<u8>> {
        let output = self.output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let (program, status) = (self.std.get_program(), output.status);
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("{program:?} failed ({status}): {}", complaint.trim_end())))
    }

    fn captured(&mut self) -> io::Result<Child> {
        self.spawn_for([Stdio::null, Stdio::piped, Stdio::piped])
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.std.fmt(f)
    }
}
