//! The standard input and output of this process as a connection.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::pipe;
use crate::pipe::open::{Input, Outlet};
use crate::{Protocol, Transport};

/// Connects a protocol to standard input and output: what is read is
/// [`data_received`](Protocol::data_received), and what is [written](Transport::write) goes out. Twisted's `StandardIO`.
///
/// They may be terminals, pipes, sockets, files, `/dev/null`, or different things. Neither is made non-blocking for the
/// others who share them, such as the shell on the same terminal: where the system allows it (`/proc`), a pipe or a
/// terminal is opened once more; else threads do what would block. So there is nothing to be restored at the end, also
/// when the process is killed.
///
/// The end of the input is [`read_connection_lost`](Protocol::read_connection_lost), which ends the connection unless the
/// protocol says otherwise. When the reader of a pipe on standard output is gone, so is the connection
/// ([`Reason::Error`](crate::Reason::Error) with `BrokenPipe`). After
/// [`lose_write_connection`](Transport::lose_write_connection) the reader of the output sees its end, and what this
/// process prints goes to `/dev/null`; any other end of the connection leaves both streams to the process, which may
/// print on.
///
/// ```no_run
/// use std::rc::Rc;
/// use warren_hub::sync::Event;
/// use warren_reactor::stdio::StandardIo;
/// use warren_reactor::{Protocol, Reason, Transport};
///
/// struct Shout(Rc<Event>);
///
/// impl Protocol for Shout {
///     fn connection_made(&mut self, transport: &Transport) {
///         transport.write(b"say something\n");
///     }
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
///         transport.write(&data.to_ascii_uppercase());
///     }
///     fn connection_lost(&mut self, _reason: &Reason) {
///         self.0.set();
///     }
/// }
///
/// warren_hub::run(|| -> std::io::Result<()> {
///     let done = Rc::new(Event::new());
///     StandardIo::new().start(Box::new(Shout(done.clone())))?;
///     done.wait();
///     Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct StandardIo {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
}

impl StandardIo {
    /// The standard input and output of this process.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `stdin` instead, which may be shared with others. It is closed at its end.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Writes to `stdout` instead, which may be shared with others. It is closed at its end.
    #[must_use]
    pub fn stdout(mut self, stdout: impl Into<OwnedFd>) -> Self {
        self.stdout = Some(stdout.into());
        self
    }

    /// Begins. The protocol hears [`connection_made`](Protocol::connection_made) before this returns, and the rest from
    /// the loop.
    ///
    /// # Errors
    /// When a stream is closed or cannot be used, or the process has no descriptor left. `Unsupported` in a simulation.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn start(self, protocol: Box<dyn Protocol>) -> io::Result<Transport> {
        let input = match self.stdin {
            Some(stdin) => Input::given(stdin),
            None => Input::shared(io::stdin().as_fd()),
        };
        let outlet = match self.stdout {
            Some(stdout) => Outlet::given(stdout),
            None => Outlet::stdout(),
        };
        let named = |what, error: io::Error| {
            io::Error::new(error.kind(), format!("cannot use the standard {what}: {error}"))
        };
        let input = input.map_err(|error| named("input", error))?;
        let outlet = outlet.map_err(|error| named("output", error))?;
        pipe::adopt(Some(input), Some(outlet), protocol)
    }
}
