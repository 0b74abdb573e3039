//! A process for each connection, as inetd starts them: it is this program again, and the connection is its standard
//! input. Nothing is shared, so nothing can be spoiled; each costs a start, and memory of its own.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::process::{WaitOptions, wait};

use crate::job::{Job, converse};

/// What such a process is told to be.
pub(crate) const ONE_CONNECTION: &str = "one-connection";

pub(crate) fn serve(listener: &TcpListener, job: Job) -> io::Result<()> {
    let program = std::env::current_exe()?;
    for stream in listener.incoming() {
        // The process goes on when its handle is dropped.
        let started = Command::new(&program)
            .args([ONE_CONNECTION, job.name()])
            .stdin(OwnedFd::from(stream?))
            .stdout(Stdio::null())
            .spawn();
        if let Err(error) = started {
            eprintln!("a connection was refused: {error}");
        }
        // Those that have ended are nothing any more but their exit status, until somebody asks for it.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
    }
    Ok(())
}

pub(crate) fn serve_one(job: Job) -> io::Result<()> {
    let stream = TcpStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.set_nodelay(true)?;
    // A client that goes away in the middle is no reason to say anything.
    let _ = converse(&stream, job);
    Ok(())
}
