//! Asking servers: UDP, TCP for what UDP cannot carry, one server after the other.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::super::{TcpStream, UdpSocket};
use super::config::Config;
use super::message::{Kind, Message, query};
use crate::hub;

/// How a question went at its server (RFC 1035 §4.1.1).
pub(super) const NO_ERROR: u8 = 0;
const FORMAT_ERROR: u8 = 1;
pub(super) const NO_SUCH_NAME: u8 = 3;
/// More than we announce to take, in case a server does not listen.
const BUFFER_BYTES: usize = 4096;

/// Asks the servers until one answers, beginning with number `first`.
///
/// # Suspends
/// Until there is an answer.
///
/// # Errors
/// What the last server said, or that it said nothing.
pub(super) fn ask(config: &Config, first: usize, name: &str, kind: Kind) -> io::Result<Message> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "there is no name server to ask");
    for _ in 0..config.attempts {
        for number in 0..config.servers.len() {
            let server = config.servers[(first + number) % config.servers.len()];
            match ask_server(config, server, name, kind) {
                Ok(message) if matches!(message.code, NO_ERROR | NO_SUCH_NAME) => {
                    return Ok(message);
                }
                Ok(message) => {
                    let text =
                        format!("the name server {server} answers with code {}", message.code);
                    last = io::Error::other(text);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(error),
                Err(error) => {
                    let text = format!("the name server {server} does not answer: {error}");
                    last = io::Error::new(error.kind(), text);
                }
            }
        }
    }
    Err(last)
}

fn ask_server(config: &Config, server: SocketAddr, name: &str, kind: Kind) -> io::Result<Message> {
    let message = ask_once(config, server, name, kind, true)?;
    if message.code == FORMAT_ERROR {
        // A server from before EDNS (RFC 6891 §7).
        return ask_once(config, server, name, kind, false);
    }
    Ok(message)
}

fn ask_once(
    config: &Config,
    server: SocketAddr,
    name: &str,
    kind: Kind,
    edns: bool,
) -> io::Result<Message> {
    // Chance makes an answer hard to forge (RFC 5452): in the number here, in the port by the system.
    let mut id = [0; 2];
    hub::with(|hub| hub.driver.random(&mut id));
    let question = Question { id: u16::from_be_bytes(id), name, kind };
    let bytes = query(question.id, name, kind, edns)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let deadline = hub::with(|hub| hub.driver.now()) + config.timeout;
    if !config.tcp_only {
        let message = question.by_udp(server, &bytes, deadline)?;
        if !message.is_truncated {
            return Ok(message);
        }
    }
    question.by_tcp(server, &bytes, deadline)
}

struct Question<'a> {
    id: u16,
    name: &'a str,
    kind: Kind,
}

impl Question<'_> {
    fn by_udp(&self, server: SocketAddr, query: &[u8], deadline: Instant) -> io::Result<Message> {
        let any = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        // Hears of nobody else from now on.
        socket.connect(server)?;
        socket.send(query)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            socket.set_read_timeout(Some(left(deadline)?));
            let count = socket.recv(&mut buffer)?;
            // What is not the answer may be an attempt to forge one: the real one is still waited for.
            match Message::parse(&buffer[..count]) {
                Ok(message) if self.is_answered_by(&message) => return Ok(message),
                _ => {}
            }
        }
    }

    fn by_tcp(&self, server: SocketAddr, query: &[u8], deadline: Instant) -> io::Result<Message> {
        let mut stream = TcpStream::connect_timeout(server, left(deadline)?)?;
        // Each message comes behind its length (RFC 1035 §4.2.2).
        let mut framed = (query.len() as u16).to_be_bytes().to_vec();
        framed.extend(query);
        stream.set_write_timeout(Some(left(deadline)?));
        stream.write_all(&framed)?;
        let mut length = [0; 2];
        self.read(&mut stream, &mut length, deadline)?;
        let mut bytes = vec![0; u16::from_be_bytes(length).into()];
        self.read(&mut stream, &mut bytes, deadline)?;
        match Message::parse(&bytes) {
            Ok(message) if self.is_answered_by(&message) => Ok(message),
            Ok(_) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the answer to something else"))
            }
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// Reads all of it before `deadline`, however slowly it comes.
    fn read(
        &self,
        stream: &mut TcpStream,
        mut buffer: &mut [u8],
        deadline: Instant,
    ) -> io::Result<()> {
        while !buffer.is_empty() {
            stream.set_read_timeout(Some(left(deadline)?));
            match stream.read(buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => buffer = &mut buffer[count..],
            }
        }
        Ok(())
    }

    fn is_answered_by(&self, message: &Message) -> bool {
        let asked = message.question.as_ref();
        message.id == self.id
            && message.is_response
            && asked.is_some_and(|(name, kind)| {
                *kind == self.kind.code()
                    && name.eq_ignore_ascii_case(self.name.trim_end_matches('.'))
            })
    }
}

/// The time until `deadline`.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(hub::with(|hub| hub.driver.now()));
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(left)
}
