//! A door for whoever runs the program: a local socket that prints fibers. gevent's `backdoor`.
//!
//! ```text
//!   $ nc -U /run/service/backdoor
//!   fibers
//!   3 fibers, 1 timers, 2 descriptors, epoll
//!   main (fiber 1), spawned at src/main.rs:7:5: waits for a fiber's end
//!   ...
//! ```

use std::fs::Permissions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::join::JoinHandle;
use crate::net::{UnixListener, UnixStream};
use crate::report::run_info;
use crate::spawn::{Builder, spawn_raw};

/// A command is no longer than this.
const COMMAND_BYTES_MAX: u64 = 256;
const HELP: &str = "fibers    every fiber, what it waits for, and its stack\n\
                    count     how many fibers, timers and descriptors\n\
                    help      this\n\
                    quit      goodbye\n";

/// The open door. Dropping it closes it and removes the socket.
#[derive(Debug)]
#[must_use = "dropping it closes the door"]
pub struct Backdoor {
    path: PathBuf,
    accepting: JoinHandle<()>,
}

/// Listens on a Unix socket at `path`, which must not exist and which only this user may open. Each line that comes in
/// is a command; `help` lists them.
///
/// # Errors
/// What the system says, such as that the path is taken.
///
/// # Panics
/// When no hub runs on this thread.
pub fn backdoor(path: impl AsRef<Path>) -> io::Result<Backdoor> {
    let path = path.as_ref().to_owned();
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    let accepting = Builder::new().name("backdoor").spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            // Whoever hangs up in the middle wants no answer.
            spawn_raw(move || drop(serve(stream)));
        }
    })?;
    Ok(Backdoor { path, accepting })
}

impl Drop for Backdoor {
    fn drop(&mut self) {
        self.accepting.kill();
        // It may have been removed by someone else.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn serve(stream: UnixStream) -> io::Result<()> {
    let mut lines = BufReader::new(&stream);
    loop {
        let mut line = String::new();
        lines.by_ref().take(COMMAND_BYTES_MAX).read_line(&mut line)?;
        let answer = match line.trim() {
            "" if line.is_empty() => return Ok(()),
            "" => continue,
            "fibers" => run_info().to_string(),
            "count" => {
                let info = run_info().to_string();
                info.lines().next().unwrap_or_default().to_owned() + "\n"
            }
            "help" => HELP.to_owned(),
            "quit" => return Ok(()),
            other => format!("no command {other:?}; there are\n{HELP}"),
        };
        (&stream).write_all(answer.as_bytes())?;
    }
}
