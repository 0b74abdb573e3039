//! What is started, and how it is connected: [`ProcessCommand`], [`spawn_process`].

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use super::ProcessProtocol;
use super::transport::{ProcessTransport, Ways};
use crate::pipe::open::{Input, Outlet};

/// A program to be started, with all that it is given. Its three streams are pipes, unless said otherwise.
pub struct ProcessCommand {
    command: Command,
    child_fds: BTreeMap<i32, ChildFd>,
    pty: bool,
}

/// What a child finds under the number of a descriptor.
#[derive(Debug)]
pub enum ChildFd {
    /// The end of a pipe to write to, from which we read. Twisted's `"r"`.
    Read,
    /// The end of a pipe to read from, to which we write. Twisted's `"w"`.
    Write,
    /// This descriptor.
    Inherit(OwnedFd),
    /// Nothing: `/dev/null`.
    Null,
}

impl ProcessCommand {
    /// Without arguments, with this process's environment and folder. A name without a slash is looked for in `PATH`.
    pub fn new(executable: impl AsRef<OsStr>) -> Self {
        let child_fds = [(0, ChildFd::Write), (1, ChildFd::Read), (2, ChildFd::Read)];
        Self { command: Command::new(executable), child_fds: child_fds.into(), pty: false }
    }

    /// One more argument, after the program's own name.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// The name that the program is told as its own, when it is not that of the executable.
    #[must_use]
    pub fn arg0(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.arg0(name);
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Takes all variables out of the environment.
    #[must_use]
    pub fn env_clear(mut self) -> Self {
        self.command.env_clear();
        self
    }

    /// The folder in which the program runs.
    #[must_use]
    pub fn path(mut self, folder: impl AsRef<Path>) -> Self {
        self.command.current_dir(folder);
        self
    }

    /// The user the program runs as, with no other groups than [`gid`](Self::gid). For root only.
    #[must_use]
    pub fn uid(mut self, id: u32) -> Self {
        self.command.uid(id);
        self
    }

    /// The group the program runs as. For root only.
    #[must_use]
    pub fn gid(mut self, id: u32) -> Self {
        self.command.gid(id);
        self
    }

    /// What the child finds under the number `child_fd`, 0 to 2 being its streams.
    ///
    /// # Panics
    /// When the number is below 0.
    #[must_use]
    pub fn child_fd(mut self, child_fd: i32, what: ChildFd) -> Self {
        assert!(0 <= child_fd, "{child_fd} is no number of a descriptor");
        self.child_fds.insert(child_fd, what);
        self
    }

    /// Whether the child's three streams are one terminal of its own, in a session of its own. What it writes is
    /// [`out_received`](ProcessProtocol::out_received); neither direction can be closed alone.
    #[must_use]
    pub fn use_pty(mut self, pty: bool) -> Self {
        self.pty = pty;
        self
    }

    /// Opens what lies between us and the child. Gives our ends by the child's numbers.
    fn connect(&mut self, command: &mut warren_hub::process::Command) -> io::Result<Ways> {
        let mut ways = Ways::new();
        let mut child_fds = std::mem::take(&mut self.child_fds);
        let mut streams = [Stdio::null(), Stdio::null(), Stdio::null()];
        if self.pty {
            child_fds.retain(|number, _| 2 < *number);
            let (master, terminal) = terminal()?;
            for stream in &mut streams {
                *stream = terminal.try_clone()?.into();
            }
            let both = (Input::own_master(master.try_clone()?), Outlet::own(master, false));
            ways.insert(1, (Some(both.0), Some(both.1)));
            command.controlling_terminal(true);
        }
        for (number, what) in child_fds {
            let theirs = match what {
                ChildFd::Read => {
                    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
                    rustix::io::ioctl_fionbio(&reader, true)?;
                    ways.insert(number, (Some(Input::own_pipe(reader)), None));
                    Some(writer)
                }
                ChildFd::Write => {
                    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
                    rustix::io::ioctl_fionbio(&writer, true)?;
                    ways.insert(number, (None, Some(Outlet::own(writer, true))));
                    Some(reader)
                }
                ChildFd::Inherit(fd) => Some(fd),
                ChildFd::Null if number <= 2 => None,
                ChildFd::Null => {
                    Some(std::fs::File::options().read(true).write(true).open("/dev/null")?.into())
                }
            };
            match (usize::try_from(number).ok().and_then(|at| streams.get_mut(at)), theirs) {
                (Some(stream), Some(fd)) => *stream = fd.into(),
                (None, Some(fd)) => {
                    command.child_fd(number, fd);
                }
                (_, None) => {}
            }
        }
        let [stdin, stdout, stderr] = streams;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        Ok(ways)
    }
}

impl fmt::Debug for ProcessCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.command.fmt(f)
    }
}

/// Both sides of a new terminal, ours first.
fn terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let terminal = ioctl_tiocgptpeer(&master, flags)?;
    rustix::io::ioctl_fionbio(&master, true)?;
    Ok((master, terminal))
}

/// Starts a program, of which `protocol` is told; it hears [`connection_made`](ProcessProtocol::connection_made) before
/// this returns. The thread is blocked until the program has started: a millisecond or so.
///
/// The child gets the descriptors it is given and no other of this crate's. It is reaped as soon as it ends, and not
/// ended when the transport is dropped.
///
/// ```
/// use std::rc::Rc;
/// use warren_hub::sync::Queue;
/// use warren_reactor::{
///     ProcessCommand, ProcessProtocol, ProcessReason, ProcessTransport, spawn_process,
/// };
///
/// struct Words(Rc<Queue<String>>);
///
/// impl ProcessProtocol for Words {
///     fn connection_made(&mut self, transport: &ProcessTransport) {
///         transport.write(b"one two three");
///         transport.close_stdin();
///     }
///     fn out_received(&mut self, _transport: &ProcessTransport, data: &[u8]) {
///         self.0.put(String::from_utf8_lossy(data).trim().into()).unwrap();
///     }
///     fn process_ended(&mut self, reason: &ProcessReason) {
///         self.0.put(reason.to_string()).unwrap();
///     }
/// }
///
/// warren_hub::run(|| -> std::io::Result<()> {
///     let told = Rc::new(Queue::unbounded());
///     spawn_process(Box::new(Words(told.clone())), ProcessCommand::new("wc").arg("-w"))?;
///     assert_eq!(told.get().unwrap(), "3");
///     assert_eq!(told.get().unwrap(), "the process has ended with exit code 0");
///     Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// When there is no such program, or the system refuses a process, a pipe or a terminal; with the program's name.
///
/// # Panics
/// When no hub runs on this thread.
pub fn spawn_process(
    protocol: Box<dyn ProcessProtocol>,
    mut command: ProcessCommand,
) -> io::Result<ProcessTransport> {
    let program = command.command.get_program().to_owned();
    let std = std::mem::replace(&mut command.command, Command::new(&program));
    let mut started = warren_hub::process::Command::from(std);
    let spawned = command.connect(&mut started).and_then(|ways| Ok((started.spawn()?, ways)));
    // Their ends are the child's alone now.
    drop(started);
    let (child, ways) = spawned.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot run {program:?}: {error}"))
    })?;
    ProcessTransport::start(child, ways, command.pty, protocol)
}
