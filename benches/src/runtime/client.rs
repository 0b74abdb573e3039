//! The load on echo servers: one thread, one epoll, the same for every server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::machine::{Memory, processor_time};

/// How the server is loaded.
#[derive(Clone, Copy, Debug)]
pub enum Style {
    /// Requests of so many bytes on connections that stay.
    Echo {
        /// Of one request.
        bytes: usize,
    },
    /// One request of 64 bytes on each connection, then the next one.
    Connect,
}

impl Style {
    /// Octets of one request.
    pub fn bytes(self) -> usize {
        match self {
            Self::Echo { bytes } => bytes,
            Self::Connect => 64,
        }
    }
}

/// How long the server runs in before it is measured.
const WARM_UP: Duration = Duration::from_millis(200);
const EVENTS_MAX: usize = 1024;
/// Connections that are opened before the last of them has to be answered. More than a server's backlog holds would
/// be refused by silence, and tried again a second later.
const OPENED_AT_ONCE: usize = 64;

/// Loads the server for a time. Gives the server's microseconds of processor time per request (or connection),
/// requests per second, and the growth of the server per connection in KiB.
///
/// # Errors
/// When the server does not behave.
pub fn load(
    style: Style,
    server: SocketAddr,
    process: u32,
    connections: usize,
    time: Duration,
) -> io::Result<Vec<f64>> {
    let before = Memory::of(&process.to_string()).resident_bytes;
    let mut client = Client {
        style,
        server,
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        request: vec![b'x'; style.bytes()],
        scratch: vec![0; 64 * 1024],
        count: 0,
    };
    let mut table = Vec::with_capacity(connections);
    for index in 0..connections {
        table.push(client.open(index)?);
    }
    client.run(&mut table, WARM_UP)?;
    // A server that takes its time to accept them all is warm when each connection has had an answer.
    while table.iter().any(|connection| connection.answers == 0) {
        client.run(&mut table, WARM_UP)?;
    }
    let (cpu, start, count) = (processor_time(process)?, Instant::now(), client.count);
    client.run(&mut table, time)?;
    let count = (client.count - count) as f64;
    let rate = count / start.elapsed().as_secs_f64();
    let micros = (processor_time(process)? - cpu).as_micros() as f64 / count;
    let grown = Memory::of(&process.to_string()).resident_bytes - before;
    Ok(vec![micros, rate, grown / 1024.0 / connections as f64])
}

struct Client {
    style: Style,
    server: SocketAddr,
    epoll: OwnedFd,
    request: Vec<u8>,
    scratch: Vec<u8>,
    /// Answers, on all connections.
    count: u64,
}

struct Connection {
    stream: TcpStream,
    to_send: usize,
    to_get: usize,
    answers: u64,
}

impl Client {
    /// A connection that is (`Echo`) or will be (`Connect`) established. It may be written to.
    fn open(&self, index: usize) -> io::Result<Connection> {
        let stream = match self.style {
            Style::Echo { .. } => {
                let mut stream = TcpStream::connect(self.server)?;
                if index.is_multiple_of(OPENED_AT_ONCE) {
                    stream.write_all(b"accepted?")?;
                    stream.read_exact(&mut [0; 9])?;
                }
                stream.set_nonblocking(true)?;
                stream
            }
            Style::Connect => {
                let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
                let fd = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
                match connect(&fd, &self.server) {
                    Ok(()) | Err(Errno::INPROGRESS) => {}
                    Err(error) => return Err(error.into()),
                }
                // Closing resets: else the ports of this machine would be used up, waiting.
                sockopt::set_socket_linger(&fd, Some(Duration::ZERO))?;
                fd.into()
            }
        };
        stream.set_nodelay(true)?;
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(&self.epoll, &stream, EventData::new_u64(index as u64), interest)?;
        let bytes = self.request.len();
        Ok(Connection { stream, to_send: bytes, to_get: bytes, answers: 0 })
    }

    /// Keeps every connection busy for a time.
    fn run(&mut self, table: &mut [Connection], time: Duration) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let end = Instant::now() + time;
        while Instant::now() < end {
            events.clear();
            // Not for ever: a server may have nothing left to answer.
            let patience = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&patience))?;
            for Event { data, .. } in events.drain(..) {
                let index = data.u64() as usize;
                self.serve(&mut table[index], index)?;
            }
        }
        Ok(())
    }

    /// Sends and gets until this connection has to wait.
    fn serve(&mut self, connection: &mut Connection, index: usize) -> io::Result<()> {
        loop {
            while connection.to_send > 0 {
                let rest = &self.request[self.request.len() - connection.to_send..];
                match (&connection.stream).write(rest) {
                    Ok(sent) => connection.to_send -= sent,
                    Err(error) if is_pending(&error) => break,
                    Err(error) => return Err(error),
                }
            }
            match (&connection.stream).read(&mut self.scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(got) => connection.to_get -= got,
                Err(error) if is_pending(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            if connection.to_get == 0 {
                self.count += 1;
                connection.answers += 1;
                match self.style {
                    Style::Echo { bytes } => {
                        (connection.to_send, connection.to_get) = (bytes, bytes);
                    }
                    Style::Connect => {
                        let answers = connection.answers;
                        *connection = Connection { answers, ..self.open(index)? };
                        // Its events are still to come.
                        return Ok(());
                    }
                }
            }
        }
    }
}

/// Not connected yet, or nothing there yet.
fn is_pending(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}
