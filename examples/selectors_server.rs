//! An echo server in one thread and without fibers: the example of Python's `selectors`. What a connection does not take
//! at once is kept for it.
//!
//! `cargo run --example selectors_server 127.0.0.1:7001`

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use rustix::process::{Resource, getrlimit, setrlimit};
use warren::hub::selectors::{DefaultSelector, Events};

/// What is watched. Shared, so that the selector may change while one is served.
enum File {
    Listener(TcpListener),
    Connection(TcpStream),
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Listener(listener) => listener.as_fd(),
            Self::Connection(stream) => stream.as_fd(),
        }
    }
}

/// What a connection still has to be sent.
type Unsent = Rc<RefCell<Vec<u8>>>;
type Selector = DefaultSelector<Rc<File>, Unsent>;

fn accept(selector: &mut Selector, listener: &TcpListener) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                let file = Rc::new(File::Connection(stream));
                selector
                    .register(file, Events::READ, Unsent::default())
                    .map_err(io::Error::other)?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Sends back what has come, as far as the connection takes it. False when it has ended.
fn serve(mut stream: &TcpStream, unsent: &mut Vec<u8>) -> io::Result<bool> {
    if unsent.is_empty() {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer)? {
            0 => return Ok(false),
            count => unsent.extend_from_slice(&buffer[..count]),
        }
    }
    match stream.write(unsent) {
        Ok(count) => drop(unsent.drain(..count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    Ok(true)
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7001".into());
    // As many connections as the system allows at most.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    let listener = TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    let mut selector = Selector::new()?;
    let listener = Rc::new(File::Listener(listener));
    selector.register(listener, Events::READ, Unsent::default()).map_err(io::Error::other)?;
    loop {
        // Copied, so that the selector is free for changes.
        let ready: Vec<_> =
            selector.select(None)?.into_iter().map(|(key, _)| key.clone()).collect();
        for key in ready {
            let stream = match &*key.fileobj {
                File::Listener(listener) => {
                    accept(&mut selector, listener)?;
                    continue;
                }
                File::Connection(stream) => stream,
            };
            let goes_on = serve(stream, &mut key.data.borrow_mut());
            let wanted = match key.data.borrow().is_empty() {
                true => Events::READ,
                false => Events::WRITE,
            };
            let file = &*key.fileobj;
            match goes_on {
                Ok(true) if wanted == key.events => {}
                Ok(true) => drop(
                    selector.modify(file, wanted, key.data.clone()).map_err(io::Error::other)?,
                ),
                // An error ends that connection and no other.
                Ok(false) | Err(_) => drop(selector.unregister(file).map_err(io::Error::other)?),
            }
        }
    }
}
