//! A server that takes its time: it is sent a number of milliseconds, and answers after them.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use warren::hub::net::{TcpListener, TcpStream};
use warren::hub::{run, sleep, spawn};

/// On a thread and a hub of its own, so that it disturbs nobody.
pub(crate) fn start() -> io::Result<SocketAddr> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        run(move || -> io::Result<()> {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let _ = sender.send(listener.local_addr()?);
            for stream in listener.incoming() {
                let stream = stream?;
                spawn(move || serve(&stream));
            }
            Ok(())
        })
    });
    receiver.recv().map_err(io::Error::other)
}

fn serve(mut stream: &TcpStream) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let milliseconds = line?.parse().map_err(io::Error::other)?;
        sleep(Duration::from_millis(milliseconds));
        stream.write_all(b"here you are\n")?;
    }
    Ok(())
}
