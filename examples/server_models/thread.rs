//! A thread for each connection. Straight-line code on a stack of its own; the kernel chooses who runs, and must be
//! asked for each switch.

use std::io;
use std::net::TcpListener;
use std::thread::Builder;

use crate::job::{Job, converse};

/// What `converse` needs, and some more.
const STACK_BYTES: usize = 64 * 1024;

pub(crate) fn serve(listener: &TcpListener, job: Job) -> io::Result<()> {
    for stream in listener.incoming() {
        let stream = stream?;
        stream.set_nodelay(true)?;
        let started = Builder::new().stack_size(STACK_BYTES).spawn(move || {
            // A client that goes away in the middle is no reason to say anything.
            let _ = converse(&stream, job);
        });
        if let Err(error) = started {
            eprintln!("a connection was refused: {error}");
        }
    }
    Ok(())
}
