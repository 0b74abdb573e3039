//! Servers that echo what they are sent.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use warren_reactor::{Protocol, Reason, Transport, listen_tcp};

use super::{
    Figure, Job, Kind, Peer, Scenario, Served, Size, Style, may_with, tokio_local, tokio_multi,
};

const PEERS: &[Peer] = &[
    Peer::Warren,
    Peer::Uring,
    Peer::Protocol,
    Peer::Tokio,
    Peer::TokioMulti,
    Peer::May,
    Peer::Gevent,
    Peer::Go,
];

const FIGURES: &[Figure] = &[
    Figure::less("server CPU us per request", 2),
    Figure { more_is_better: true, ..Figure::less("requests per second", 0) },
    Figure { plot: false, ..Figure::less("KiB resident per connection", 1) },
];

const SERVED: &[Served] = &[Served::CpuMicros, Served::PerSecond, Served::KibEach];

const SIZES: &[Size] = &[
    Size::new("1 connection", 1, 1),
    Size::new("100 connections", 100, 1),
    Size::new("1,000 connections", 1_000, 1),
    Size::new("10,000 connections", 10_000, 1),
];

/// Requests of 64 bytes.
pub(super) const SMALL: Scenario = Scenario {
    name: "echo",
    title: "Echo, 64 bytes",
    story: "The server, on one core, sends back what it gets. A client on the other core, one thread with one epoll, \
            keeps one request of 64 bytes on its way on each connection, and never sleeps, so that nobody pays for \
            waking it. It does as many system calls as the server, so the rate is partly its own; the processor time \
            of the server, its own and the kernel's, is the robust figure. Memory is the growth of the server per connection.",
    figures: FIGURES,
    sizes: SIZES,
    peers: PEERS,
    kind: Kind::Server(Style::Echo { bytes: 64 }, SERVED),
};

/// Requests of 16 KiB.
pub(super) const LARGE: Scenario = Scenario {
    name: "echo-16k",
    title: "Echo, 16 KiB",
    story: "The same with requests of 16 KiB: most of the time goes into the kernel's copies.",
    kind: Kind::Server(Style::Echo { bytes: 16 * 1024 }, SERVED),
    ..SMALL
};

/// Octets that a server reads at once.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;

/// Serves for ever. Prints the address as the first line.
///
/// # Panics
/// When there is no port.
pub(crate) fn serve(peer: Peer, _: Job) {
    match peer {
        Peer::Warren => warren_hub::run(warren),
        Peer::Uring => {
            let options = warren_hub::Options::new().driver(warren_hub::DriverKind::IoUring);
            options.run(warren).expect("io_uring can be used");
        }
        Peer::Protocol => serve_protocol(|| Box::new(Echo)),
        Peer::Tokio => tokio_local(tokio_serve(|stream| {
            tokio::task::spawn_local(tokio_echo(stream));
        })),
        Peer::TokioMulti => tokio_multi(tokio_serve(|stream| {
            tokio::spawn(tokio_echo(stream));
        })),
        _ => may_with(1, may_serve),
    }
}

fn say(addr: SocketAddr) {
    println!("{addr}");
}

fn warren() {
    let listener = warren_hub::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    say(listener.local_addr().expect("an address"));
    for stream in listener.incoming() {
        let stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("TCP");
        warren_hub::spawn(move || {
            let mut buffer = vec![0; BUFFER_BYTES];
            while let Ok(count @ 1..) = (&stream).read(&mut buffer) {
                if (&stream).write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        });
    }
}

struct Echo;

impl Protocol for Echo {
    fn connection_made(&mut self, _transport: &Transport) {}

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        transport.write(data);
    }

    fn connection_lost(&mut self, _reason: &Reason) {}
}

/// Serves each connection with a protocol of its own, for ever.
pub(crate) fn serve_protocol(build: fn() -> Box<dyn Protocol>) {
    let main = move || -> io::Result<_> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let port = listen_tcp(any, Box::new(move |_: &_| Some(build())))?;
        println!("{}", port.addr());
        Ok(port)
    };
    warren_reactor::run(main).expect("a free port");
}

/// Hands each connection to `spawn`, for ever.
pub(crate) async fn tokio_serve(spawn: impl Fn(tokio::net::TcpStream)) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    say(listener.local_addr().expect("an address"));
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("TCP");
        spawn(stream);
    }
}

async fn tokio_echo(mut stream: tokio::net::TcpStream) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
}

fn may_serve() {
    let listener = may::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    say(listener.local_addr().expect("an address"));
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("TCP");
        may::go!(move || {
            let mut buffer = vec![0; BUFFER_BYTES];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
        });
    }
}
