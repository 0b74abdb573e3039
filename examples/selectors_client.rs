//! Thousands of clients of an echo server in one thread and without fibers: the client to `selectors_server`.
//!
//! `cargo run --example selectors_client 127.0.0.1:7001 2000`

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Resource, getrlimit, setrlimit};
use warren::hub::selectors::{DefaultSelector, Events};

/// What each client says.
const MESSAGES: [&str; 2] = ["Message 1 from client.", "Message 2 from client."];

/// How far a client is.
#[derive(Clone, Copy)]
struct Client {
    number: usize,
    sent: usize,
    received: usize,
}

/// A connection under way: it can be written to once it stands.
fn begin(addr: SocketAddr) -> io::Result<TcpStream> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &addr) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// Does what can be done now. Sending first: a server that cannot send does not read either.
fn step(
    mut stream: &TcpStream,
    client: &mut Client,
    events: Events,
    text: &[u8],
) -> io::Result<()> {
    if events.contains(Events::WRITE) && client.sent < text.len() {
        client.sent += stream.write(&text[client.sent..])?;
    }
    if events.contains(Events::READ) {
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) if text[client.received..].starts_with(&buffer[..count]) => {
                client.received += count
            }
            Ok(_) => return Err(io::Error::other("something else came back")),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let addr = arguments.next().unwrap_or_else(|| "127.0.0.1:7001".into());
    let addr: SocketAddr = addr.parse().map_err(io::Error::other)?;
    let count = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(2000);
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;

    let text = MESSAGES.concat().into_bytes();
    let mut selector = DefaultSelector::new()?;
    for number in 0..count {
        let client = Client { number, sent: 0, received: 0 };
        let wanted = Events::READ | Events::WRITE;
        selector.register(Rc::new(begin(addr)?), wanted, client).map_err(io::Error::other)?;
    }
    let mut bytes = 0;
    while !selector.get_map().is_empty() {
        // Copied, so that the selector is free for changes.
        let ready = selector.select(None)?;
        let ready: Vec<_> = ready.into_iter().map(|(key, events)| (key.clone(), events)).collect();
        for (key, events) in ready {
            let (stream, mut client) = (&*key.fileobj, key.data);
            step(stream, &mut client, events, &text).map_err(|error| {
                io::Error::new(error.kind(), format!("client {}: {error}", client.number))
            })?;
            if client.received == text.len() {
                bytes += client.received;
                selector.unregister(stream).map_err(io::Error::other)?;
            } else {
                let mut wanted = Events::READ;
                wanted.set(Events::WRITE, client.sent < text.len());
                selector.modify(stream, wanted, client).map_err(io::Error::other)?;
            }
        }
    }
    println!("{count} clients at once have had {bytes} bytes back");
    Ok(())
}
