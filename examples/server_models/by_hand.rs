//! One loop for all connections: ask who is ready, serve those, ask again. `select` hands the kernel a table of all
//! descriptors below 1024 each time, `poll` a list of all of any number, `epoll` tells it once and hears of the ready ones.
//!
//! Nothing waits but the loop, so each connection must remember where it was: what it has not been sent yet, and
//! whether it ends after that.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use warren::hub::selectors::{Backend, Events, Selector};

use crate::job::{Job, Session};

/// What is watched. Shared, so that the selector may change while one is served.
enum File {
    Listener(TcpListener),
    Connection(Connection),
}

struct Connection {
    stream: TcpStream,
    session: RefCell<Session>,
    unsent: RefCell<Vec<u8>>,
    /// Until all is sent.
    ends: Cell<bool>,
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Listener(listener) => listener.as_fd(),
            Self::Connection(connection) => connection.stream.as_fd(),
        }
    }
}

pub(crate) fn serve<B: Backend>(listener: TcpListener, job: Job) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut selector = Selector::<B, _, ()>::new()?;
    let listener = Rc::new(File::Listener(listener));
    selector.register(listener, Events::READ, ()).map_err(io::Error::other)?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        // Copied, so that the selector is free for changes.
        let ready: Vec<_> =
            selector.select(None)?.into_iter().map(|(key, _)| key.clone()).collect();
        for key in ready {
            let connection = match &*key.fileobj {
                File::Listener(listener) => {
                    accept(&mut selector, listener, job)?;
                    continue;
                }
                File::Connection(connection) => connection,
            };
            let wanted = match connection.serve(&mut buffer) {
                Ok(wanted) => wanted,
                // An error ends that connection and no other.
                Err(_) => Events::empty(),
            };
            if wanted.is_empty() {
                selector.unregister(&*key.fileobj).map_err(io::Error::other)?;
            } else if wanted != key.events {
                selector.modify(&*key.fileobj, wanted, ()).map_err(io::Error::other)?;
            }
        }
    }
}

fn accept<B: Backend>(
    selector: &mut Selector<B, Rc<File>, ()>,
    listener: &TcpListener,
    job: Job,
) -> io::Result<()> {
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let file = Rc::new(File::Connection(Connection {
            stream,
            session: RefCell::new(Session::new(job)),
            unsent: RefCell::default(),
            ends: Cell::new(false),
        }));
        // `select` has no room for descriptors of 1024 and more. Dropping the connection closes it.
        if let Err(error) = selector.register(file, Events::READ, ()) {
            eprintln!("a connection was refused: {error}");
        }
    }
}

impl Connection {
    /// Does what can be done without waiting. What is to be waited for next; nothing when it has ended.
    fn serve(&self, buffer: &mut [u8]) -> io::Result<Events> {
        let mut unsent = self.unsent.borrow_mut();
        // A client that does not read is not read from: its answers would pile up here.
        if unsent.is_empty() {
            match (&self.stream).read(buffer) {
                Ok(0) => return Ok(Events::empty()),
                Ok(count) => {
                    let goes_on = self.session.borrow_mut().receive(&buffer[..count], &mut unsent);
                    self.ends.set(!goes_on);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Events::READ),
                Err(error) => return Err(error),
            }
        }
        if !unsent.is_empty() {
            match (&self.stream).write(&unsent) {
                Ok(count) => drop(unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(match (unsent.is_empty(), self.ends.get()) {
            (false, _) => Events::WRITE,
            (true, false) => Events::READ,
            (true, true) => Events::empty(),
        })
    }
}
