//! Pipes, terminals and files as a transport's medium: a descriptor to read from, one to write to, or both.
//!
//! ```text
//!   whose description is it?     ours, never blocks    others have it too, and it may block
//!   read                         try, wait for epoll   ask `poll`, then read;  a file: a thread reads
//!   write                        try, wait for epoll   a thread writes
//! ```
//! [`open`] tells which way goes for a descriptor; the state of a connection is here.

pub(crate) mod open;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use warren_hub::io::{IoHandler, Readiness, Registration, register};
use warren_hub::{call_soon, hub_local, no_wait, offload, spawn};

use crate::output::{Output, SLICES_MAX};
use crate::protocol::{PeerAddr, Protocol, Reason};
use crate::socket::{READ_BYTES, READS_PER_TURN, Reactor, reactor};
use crate::transport::{Close, Medium, Transport};
use open::{Input, Origin, Outlet, Reads, Writes};

/// What a thread reads or writes at once.
const THREAD_BYTES: usize = 64 * 1024;

/// The connections of a hub, by the numbers of their transports, until they are closed. They end with the hub.
#[derive(Default)]
struct Open(RefCell<BTreeMap<u64, Rc<Pipe>>>);

/// The state of a connection, shared by the medium and the hub's handlers.
struct Pipe {
    open: Weak<Open>,
    /// Until it is closed.
    transport: RefCell<Option<Transport>>,
    reactor: Rc<Reactor>,
    input: RefCell<Option<Watched<Input>>>,
    outlet: RefCell<Option<Watched<Outlet>>>,
    /// What may be read: bytes that were not because reading was paused, and the end, which is news only once.
    news: Cell<Readiness>,
    /// What a thread has read while reading was paused.
    held: RefCell<Option<io::Result<Vec<u8>>>>,
    /// Whether a thread reads.
    thread_reads: Cell<bool>,
    thread_writes: Cell<bool>,
    /// What a thread has written, until it is taken off the output.
    written: Cell<Option<io::Result<usize>>>,
}

/// A descriptor and its watch, which goes first.
struct Watched<T> {
    registration: Option<Registration>,
    end: T,
}

/// Lets `protocol` speak through descriptors. It hears `connection_made` before this returns.
pub(crate) fn adopt(
    input: Option<Input>,
    outlet: Option<Outlet>,
    protocol: Box<dyn Protocol>,
) -> io::Result<Transport> {
    let open = hub_local(Open::default);
    let pipe = Rc::new(Pipe {
        open: Rc::downgrade(&open),
        transport: RefCell::default(),
        reactor: reactor(),
        input: RefCell::default(),
        outlet: RefCell::default(),
        // The end of a pipe whose writers have gone before is no news.
        news: Cell::new(Readiness::READABLE),
        held: RefCell::default(),
        thread_reads: Cell::new(false),
        thread_writes: Cell::new(false),
        written: Cell::new(None),
    });
    if let Some(mut input) = input {
        let registration = watch(&input.fd, Rc::new(Incoming(pipe.clone())))?;
        if registration.is_none() {
            // Epoll knows no files: they are always ready, and yet a disk may take its time.
            input.reads = Reads::Thread;
        }
        *pipe.input.borrow_mut() = Some(Watched { registration, end: input });
    }
    if let Some(mut outlet) = outlet {
        let registration = match outlet.writes {
            Writes::Thread => None,
            _ => watch(&outlet.fd, Rc::new(Outgoing(pipe.clone())))?,
        };
        if registration.is_none() {
            outlet.writes = Writes::Thread;
        }
        *pipe.outlet.borrow_mut() = Some(Watched { registration, end: outlet });
    }
    let medium = Box::new(PipeMedium(Rc::downgrade(&pipe)));
    let transport = Transport::new(PeerAddr::Pipe, PeerAddr::Pipe, protocol, medium);
    *pipe.transport.borrow_mut() = Some(transport.clone());
    open.0.borrow_mut().insert(transport.id(), pipe.clone());
    // Also from a fiber, which must not wait in a callback any more than the loop.
    no_wait(|| transport.made());
    pipe.resume();
    Ok(transport)
}

/// Watches a descriptor; `None` for what epoll does not know.
fn watch(fd: &OwnedFd, handler: Rc<dyn IoHandler>) -> io::Result<Option<Registration>> {
    match register(fd.as_fd(), handler) {
        Ok(registration) => Ok(Some(registration)),
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

struct PipeMedium(Weak<Pipe>);

impl Medium for PipeMedium {
    fn schedule(&self, transport: &Transport) {
        if let Some(pipe) = self.0.upgrade() {
            pipe.reactor.schedule(transport);
        }
    }

    fn write(&self, output: &mut Output) -> io::Result<()> {
        let Some(pipe) = self.0.upgrade() else { return Ok(()) };
        let outlet = pipe.outlet.borrow();
        let Some(Watched { end: Outlet { fd, writes, .. }, .. }) = outlet.as_ref() else {
            // Nobody can be told any more.
            output.clear();
            return Ok(());
        };
        match writes {
            Writes::Plain => output.write_by(|slices| Ok(rustix::io::writev(&**fd, slices)?)),
            Writes::Socket => output.write_by(|slices| {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                Ok(rustix::net::send(&**fd, &slices[0], flags)?)
            }),
            Writes::Thread => pipe.write_by_thread(fd, output),
        }
    }

    fn write_through(&self, data: &[u8]) -> io::Result<usize> {
        let Some(pipe) = self.0.upgrade() else { return Ok(0) };
        match &*pipe.outlet.borrow() {
            Some(Watched { end: Outlet { fd, writes: Writes::Plain, .. }, .. }) => {
                match rustix::io::write(&**fd, data) {
                    Err(Errno::AGAIN | Errno::INTR) => Ok(0),
                    written => Ok(written?),
                }
            }
            _ => Ok(0),
        }
    }

    fn end_writing(&self) -> io::Result<()> {
        let outlet = self.0.upgrade().and_then(|pipe| pipe.outlet.take());
        if let Some(Watched { registration, end }) = outlet {
            drop(registration);
            end.finish()?;
        }
        Ok(())
    }

    fn resume_reading(&self) {
        if let Some(pipe) = self.0.upgrade() {
            pipe.resume();
        }
    }

    fn close(&self, _how: Close) {
        // What has been written lies in the pipe, and is read by whoever has its other end.
        if let Some(pipe) = self.0.upgrade() {
            pipe.close();
        }
    }
}

/// Hears of the descriptor that is read.
struct Incoming(Rc<Pipe>);

impl IoHandler for Incoming {
    fn io_ready(&self, ready: Readiness) {
        let news = ready & (Readiness::READABLE | Readiness::CLOSED | Readiness::ERROR);
        if !news.is_empty() {
            self.0.news.set(self.0.news.get() | news);
            self.0.read();
        }
    }
}

/// Hears of the descriptor that is written.
struct Outgoing(Rc<Pipe>);

impl IoHandler for Outgoing {
    fn io_ready(&self, ready: Readiness) {
        let Some(transport) = self.0.transport.borrow().clone() else { return };
        if ready.contains(Readiness::ERROR) && self.0.nobody_reads() {
            self.0.close();
            transport.lost(Reason::Error(Errno::PIPE.into()));
        } else if ready.contains(Readiness::WRITABLE) && transport.buffered() > 0 {
            transport.settle_later();
        }
    }
}

impl Pipe {
    /// Whether what is written is a pipe, of which an error says that its reader is gone.
    fn nobody_reads(&self) -> bool {
        self.outlet.borrow().as_ref().is_some_and(|outlet| outlet.end.is_pipe)
    }

    /// Reading has been resumed, or begins. Nothing is told from within.
    fn resume(self: &Rc<Self>) {
        let input = self.input.borrow();
        let Some(input) = input.as_ref() else { return };
        match &input.registration {
            Some(registration) => {
                if !self.news.get().is_empty() {
                    registration.again(self.news.get());
                }
            }
            None => {
                let this = self.clone();
                call_soon(move || this.read_by_thread());
            }
        }
    }

    /// Reads until nothing is left, the protocol has had enough, or it is another's turn.
    fn read(&self) {
        let Some(transport) = self.transport.borrow().clone() else { return };
        let mut buffer = self.reactor.buffer.take();
        buffer.resize(READ_BYTES, 0);
        let end = self.read_into(&mut buffer, &transport);
        self.reactor.buffer.set(buffer);
        if let Some(reason) = end {
            self.close();
            transport.lost(reason);
        }
    }

    fn read_into(&self, buffer: &mut [u8], transport: &Transport) -> Option<Reason> {
        // That there is nothing left to read does not undo the end.
        let emptied = || self.news.set(self.news.get() - Readiness::READABLE);
        for _ in 0..READS_PER_TURN {
            if !transport.reads() {
                return None;
            }
            let (read, is_pipe) = match &*self.input.borrow() {
                Some(input) => (input.end.read(buffer), input.end.is_pipe),
                None => return None,
            };
            match read {
                Ok(0) => {
                    self.end_input(transport);
                    return None;
                }
                Ok(count) => {
                    transport.received(&mut buffer[..count]);
                    // A short read has emptied a pipe; of a terminal it is a line. The end is news again, unless it
                    // was among this.
                    let ended = self.news.get().contains(Readiness::CLOSED);
                    if is_pipe && count < buffer.len() && !ended {
                        emptied();
                        return None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    emptied();
                    return None;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Some(Reason::Error(error)),
            }
        }
        if let Some(Watched { registration: Some(registration), .. }) = &*self.input.borrow() {
            registration.again(self.news.get());
        }
        None
    }

    fn end_input(&self, transport: &Transport) {
        let input = self.input.take();
        drop(input);
        transport.input_ended();
    }

    /// Lets a thread read what comes next, if it is wanted; tells what one has read.
    fn read_by_thread(self: &Rc<Self>) {
        let Some(transport) = self.transport.borrow().clone() else { return };
        if !transport.reads() {
            return;
        }
        let held = self.held.take();
        match held {
            None => {}
            Some(Ok(data)) if data.is_empty() => return self.end_input(&transport),
            Some(Ok(mut data)) => {
                transport.received(&mut data);
                // It may want no more.
                return self.resume();
            }
            Some(Err(error)) => {
                self.close();
                return transport.lost(Reason::Error(error));
            }
        }
        let fd = match &*self.input.borrow() {
            Some(input) if !self.thread_reads.replace(true) => input.end.fd.clone(),
            _ => return,
        };
        let this = self.clone();
        spawn(move || {
            let read = offload(move || read_whole(&fd));
            this.thread_reads.set(false);
            *this.held.borrow_mut() = Some(read);
            this.resume();
        });
    }

    /// Lets a thread write a piece of what waits, when none does.
    fn write_by_thread(self: &Rc<Self>, fd: &Arc<OwnedFd>, output: &mut Output) -> io::Result<()> {
        if let Some(written) = self.written.take() {
            output.consume(written?);
        }
        if output.is_empty() || self.thread_writes.replace(true) {
            return Ok(());
        }
        let mut piece = Vec::with_capacity(THREAD_BYTES.min(output.len()));
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = output.slices(&mut slices);
        for slice in &slices[..count] {
            let room = THREAD_BYTES - piece.len();
            piece.extend_from_slice(&slice[..room.min(slice.len())]);
        }
        let (this, fd) = (self.clone(), fd.clone());
        spawn(move || {
            let written = offload(move || write_whole(&fd, &piece));
            this.thread_writes.set(false);
            this.written.set(Some(written));
            if let Some(transport) = &*this.transport.borrow() {
                transport.settle_later();
            }
        });
        Ok(())
    }

    fn close(&self) {
        for registration in [
            self.input.borrow_mut().as_mut().and_then(|input| input.registration.take()),
            self.outlet.borrow_mut().as_mut().and_then(|outlet| outlet.registration.take()),
        ] {
            // The registration first: the hub forgets the descriptor before the number can be used again.
            drop(registration);
        }
        let ends = (self.input.take(), self.outlet.take(), self.held.take());
        drop(ends);
        let transport = self.transport.take();
        if let (Some(transport), Some(open)) = (transport, self.open.upgrade()) {
            let this = open.0.borrow_mut().remove(&transport.id());
            drop(this);
        }
    }
}

impl Input {
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.reads {
            Reads::Socket => {
                rustix::net::recv(&*self.fd, buffer, RecvFlags::DONTWAIT).map(|(count, _)| count)
            }
            Reads::Asked if !has_input(&self.fd)? => Err(Errno::AGAIN),
            _ => rustix::io::read(&*self.fd, buffer),
        };
        match read {
            // What the master of a terminal says once nobody has the terminal open.
            Err(Errno::IO) if self.is_master => Ok(0),
            read => Ok(read?),
        }
    }
}

/// Whether a read does not wait.
fn has_input(fd: &OwnedFd) -> io::Result<bool> {
    let mut polled = [PollFd::new(fd, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(!polled[0].revents().is_empty())
}

impl Outlet {
    /// Tells the reader that this was all.
    fn finish(self) -> io::Result<()> {
        if matches!(self.writes, Writes::Socket) {
            rustix::net::shutdown(&*self.fd, rustix::net::Shutdown::Write)?;
        }
        if matches!(self.origin, Origin::Stdout) {
            // The number must not come to mean something else, for those who print.
            let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
            rustix::stdio::dup2_stdout(&nowhere)?;
        }
        Ok(())
    }
}

/// On a thread: waits for what can be read.
fn read_whole(fd: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut data = vec![0; THREAD_BYTES];
    loop {
        match rustix::io::read(fd, &mut data) {
            Ok(count) => {
                data.truncate(count);
                return Ok(data);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(fd, PollFlags::IN)?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// On a thread: writes it all.
fn write_whole(fd: &OwnedFd, data: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < data.len() {
        match rustix::io::write(fd, &data[written..]) {
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(fd, PollFlags::OUT)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(written)
}

fn wait(fd: &OwnedFd, what: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(fd, what)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
