//! The load on echo servers: one thread, one epoll, the same for every server.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use crate::machine::ProcessGroup;

/// How the server is loaded.
#[derive(Clone, Copy, Debug)]
pub enum Style {
    /// One request of so many bytes at a time on each connection, echoed.
    Echo {
        /// Of one request.
        bytes: usize,
    },
    /// So many requests of [`REQUEST_BYTES`] at a time on each connection, sent by one call.
    Pipelined {
        /// Requests.
        depth: usize,
    },
    /// The same as `Echo` with [`REQUEST_BYTES`] on [`BUSY`] of the connections; the others say nothing.
    FewBusy,
    /// One small HTTP request at a time on each connection.
    Http,
    /// One request on each connection, then the next one.
    Connect(Job),
    /// One request of [`REQUEST_BYTES`] on each connection, then nothing.
    Idle,
}

/// What the server is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Send back what comes, as it comes.
    Echo,
    /// Send back each request of [`REQUEST_BYTES`] on its own.
    Requests,
    /// Answer HTTP requests.
    Http,
}

impl Job {
    /// What the server's program is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Requests => "requests",
            Self::Http => "http",
        }
    }

    /// The job of this name.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Echo, Self::Requests, Self::Http].into_iter().find(|job| job.name() == name)
    }
}

/// What is measured of a server, in the order in which [`load`] gives it.
#[derive(Clone, Copy, Debug)]
pub enum Served {
    /// The server's microseconds of processor time per request, or per connection where each has one.
    CpuMicros,
    /// Requests per second of processor time.
    PerCpuSecond,
    /// Requests per second.
    PerSecond,
    /// How much of the time the server had the processor, in percent. Well below 100, the client was the limit.
    BusyPercent,
    /// Growth of the server per connection, KiB.
    KibEach,
    /// Memory of the server with all connections, MiB.
    MibAll,
}

impl Style {
    /// What it asks the server for.
    pub fn job(self) -> Job {
        match self {
            Self::Echo { .. } | Self::FewBusy | Self::Idle => Job::Echo,
            Self::Pipelined { .. } => Job::Requests,
            Self::Http => Job::Http,
            Self::Connect(job) => job,
        }
    }

    /// How many of the connections do something.
    fn busy(self, connections: usize) -> usize {
        match self {
            Self::FewBusy => BUSY.min(connections),
            Self::Idle => 0,
            _ => connections,
        }
    }

    /// What is sent at once, and how many requests it is.
    fn request(self) -> (Vec<u8>, u64) {
        match self {
            Self::Echo { bytes } => (vec![b'x'; bytes], 1),
            Self::Pipelined { depth } => (vec![b'x'; depth * REQUEST_BYTES], depth as u64),
            Self::Connect(Job::Echo | Job::Requests) | Self::FewBusy | Self::Idle => {
                (vec![b'x'; REQUEST_BYTES], 1)
            }
            Self::Http | Self::Connect(Job::Http) => (HTTP_REQUEST.to_vec(), 1),
        }
    }
}

/// Connections that do something where most are idle.
pub const BUSY: usize = 10;
/// Of a small request.
pub const REQUEST_BYTES: usize = 64;
const HTTP_REQUEST: &[u8] =
    b"GET /hello HTTP/1.1\r\nHost: localhost\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n";
/// How long the server runs in before it is measured.
const WARM_UP: Duration = Duration::from_millis(200);
const EVENTS_MAX: usize = 1024;
/// Connections that are opened before the last of them has to be answered. More than a server's backlog holds would
/// be refused by silence, and tried again a second later.
const OPENED_AT_ONCE: usize = 64;

/// Loads a server, the leader of a process group, for a time. Gives all that [`Served`] names.
///
/// # Errors
/// When the server does not behave.
pub fn load(
    style: Style,
    server: SocketAddr,
    group: u32,
    connections: usize,
    time: Duration,
) -> io::Result<Vec<f64>> {
    let group = ProcessGroup(group);
    let before = group.proportional_bytes();
    let (request, requests) = style.request();
    let mut client = Client {
        style,
        server,
        epoll: epoll::create(CreateFlags::CLOEXEC)?,
        answer_bytes: request.len(),
        request,
        requests,
        scratch: vec![0; 64 * 1024],
        count: 0,
    };
    if style.job() == Job::Http {
        client.answer_bytes = http_answer_bytes(server)?;
    }
    let (mut cpu, mut start) = (group.processor_time(), Instant::now());
    let idle = connections - style.busy(connections);
    let idle = (0..idle).map(|index| client.open_idle(index)).collect::<io::Result<Vec<_>>>()?;
    let busy = 0..connections - idle.len();
    let mut table = busy.map(|index| client.open(index)).collect::<io::Result<Vec<_>>>()?;
    let mut count = connections as f64;
    if !table.is_empty() {
        client.run(&mut table, WARM_UP)?;
        // A server that takes its time to accept them all is warm when each connection has had an answer.
        while table.iter().any(|connection| connection.answers == 0) {
            client.run(&mut table, WARM_UP)?;
        }
        (cpu, start) = (group.processor_time(), Instant::now());
        let counted = client.count;
        client.run(&mut table, time)?;
        count = (client.count - counted) as f64;
    }
    let elapsed = start.elapsed();
    let cpu = (group.processor_time() - cpu).as_secs_f64();
    let memory = group.proportional_bytes();
    drop(idle);
    Ok(vec![
        cpu * 1e6 / count,
        count / cpu,
        count / elapsed.as_secs_f64(),
        cpu / elapsed.as_secs_f64() * 100.0,
        (memory - before) / 1024.0 / connections as f64,
        memory / (1024.0 * 1024.0),
    ])
}

/// The length of an answer to [`HTTP_REQUEST`], its head included.
fn http_answer_bytes(server: SocketAddr) -> io::Result<usize> {
    let mut stream = TcpStream::connect(server)?;
    stream.write_all(HTTP_REQUEST)?;
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer)? {
            0 => return Err(closed()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
        let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|length| length.trim().parse::<usize>().ok());
        return length
            .filter(|_| text.starts_with("http/1.1 200"))
            .map(|length| head + 4 + length)
            .ok_or_else(|| io::Error::other(format!("the answer was {text}")));
    }
}

fn closed() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "the server closed a connection")
}

struct Client {
    style: Style,
    server: SocketAddr,
    epoll: OwnedFd,
    request: Vec<u8>,
    /// So many requests are in `request`.
    requests: u64,
    /// Of the answers to `request` together.
    answer_bytes: usize,
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
    /// A connection that is or (`Connect`) will be established. It may be written to.
    fn open(&mut self, index: usize) -> io::Result<Connection> {
        let stream = if matches!(self.style, Style::Connect(_)) {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let fd = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            match connect(&fd, &self.server) {
                Ok(()) | Err(Errno::INPROGRESS) => {}
                Err(error) => return Err(error.into()),
            }
            // Closing resets: else the ports of this machine would be used up, waiting.
            sockopt::set_socket_linger(&fd, Some(Duration::ZERO))?;
            fd.into()
        } else {
            self.open_idle(index)?
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(&self.epoll, &stream, EventData::new_u64(index as u64), interest)?;
        Ok(Connection {
            stream,
            to_send: self.request.len(),
            to_get: self.answer_bytes,
            answers: 0,
        })
    }

    /// A connection that is established; some have had an answer, and with `Idle` all.
    fn open_idle(&mut self, index: usize) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.server)?;
        if matches!(self.style, Style::Idle) || index.is_multiple_of(OPENED_AT_ONCE) {
            stream.write_all(&self.request)?;
            let answer = &mut self.scratch[..self.answer_bytes];
            stream.read_exact(answer).map_err(|_| closed())?;
        }
        Ok(stream)
    }

    /// Keeps every connection busy for a time. Never sleeps: to wake it would be on the server's bill.
    fn run(&mut self, table: &mut [Connection], time: Duration) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let end = Instant::now() + time;
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        while Instant::now() < end {
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&at_once))?;
            for Event { data, flags } in events.drain(..) {
                let index = data.u64() as usize;
                self.serve(&mut table[index], index, flags)?;
            }
        }
        Ok(())
    }

    /// Gets what is there, and sends the next request when that was all. What comes later is another event.
    fn serve(
        &mut self,
        connection: &mut Connection,
        index: usize,
        flags: EventFlags,
    ) -> io::Result<()> {
        let quiet = EventFlags::OUT;
        while !(flags - quiet).is_empty() && connection.to_get > 0 {
            match (&connection.stream).read(&mut self.scratch) {
                Ok(0) => return Err(closed()),
                Ok(got) => {
                    connection.to_get = connection.to_get.checked_sub(got).ok_or_else(|| {
                        io::Error::other("the server answers more than it was asked")
                    })?;
                    if got < self.scratch.len() {
                        break;
                    }
                }
                Err(error) if is_pending(&error) => break,
                Err(error) => return Err(error),
            }
        }
        if connection.to_get == 0 {
            self.count += self.requests;
            connection.answers += 1;
            if matches!(self.style, Style::Connect(_)) {
                let answers = connection.answers;
                // Its events are still to come.
                *connection = Connection { answers, ..self.open(index)? };
                return Ok(());
            }
            (connection.to_send, connection.to_get) = (self.request.len(), self.answer_bytes);
        }
        while connection.to_send > 0 {
            let rest = &self.request[self.request.len() - connection.to_send..];
            match (&connection.stream).write(rest) {
                Ok(sent) => connection.to_send -= sent,
                Err(error) if is_pending(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Not connected yet, or nothing there yet.
fn is_pending(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers each of what `request` recognizes, on a thread for each connection.
    fn serve(request: &'static [u8], answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let mut buffer = vec![0; request.len()];
                    while stream.read_exact(&mut buffer).is_ok() && buffer == request {
                        if stream.write_all(answer).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        addr
    }

    #[track_caller]
    fn check(style: Style, server: SocketAddr) {
        let group = rustix::process::getpgrp().as_raw_nonzero().get().try_into().unwrap();
        let time = Duration::from_millis(50);
        let figures = load(style, server, group, BUSY + 2, time).unwrap();
        assert_eq!(figures.len(), Served::MibAll as usize + 1);
        assert!(figures[Served::PerSecond as usize] > 0.0, "{figures:?}");
        assert!(figures[Served::MibAll as usize] > 0.0, "{figures:?}");
    }

    #[test]
    fn an_echo_is_loaded_in_every_style() {
        const REQUEST: &[u8] = &[b'x'; REQUEST_BYTES];
        for style in [
            Style::Echo { bytes: REQUEST_BYTES },
            Style::Echo { bytes: 100 * REQUEST_BYTES },
            Style::Pipelined { depth: 5 },
            Style::Connect(Job::Echo),
            Style::FewBusy,
            Style::Idle,
        ] {
            check(style, serve(REQUEST, REQUEST));
        }
    }

    #[test]
    fn an_http_server_is_loaded() {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: it\r\ncontent-length: 5\r\n\r\nhello";
        for style in [Style::Http, Style::Connect(Job::Http)] {
            check(style, serve(HTTP_REQUEST, ANSWER));
        }
    }

    #[test]
    fn a_server_that_behaves_badly_is_an_error() {
        let load = |style, server| {
            load(style, server, 0, 1, Duration::from_millis(50)).unwrap_err().to_string()
        };
        let refuses = serve(HTTP_REQUEST, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        assert!(load(Style::Http, refuses).starts_with("the answer was http/1.1 404"));
        let closes = serve(b"something else", b"");
        assert_eq!(load(Style::Idle, closes), "the server closed a connection");
        const LONG: &[u8] = &[b'x'; 2 * REQUEST_BYTES];
        let talks = serve(&[b'x'; REQUEST_BYTES], LONG);
        let error = load(Style::Connect(Job::Echo), talks);
        assert_eq!(error, "the server answers more than it was asked");
    }
}
