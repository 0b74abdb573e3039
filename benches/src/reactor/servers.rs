//! Servers under load.

use super::{Figure, Job, Kind, PEERS, Scenario, Served, Size, Style};

const FIGURES: &[Figure] = &[
    Figure::more("requests per CPU second of the server"),
    Figure::more("requests per second").unplotted(),
    Figure { more_is_better: true, ..Figure::less("server busy, %", 0).unplotted() },
];
const SERVED: &[Served] = &[Served::PerCpuSecond, Served::PerSecond, Served::BusyPercent];

pub(super) const SMALL: Scenario = Scenario {
    name: "echo",
    title: "Echo, 64 bytes",
    story: "The server, on one core, sends back what it gets. A client on the other core, one thread with one epoll, \
            keeps one request of 64 bytes on its way on each connection, and never sleeps, so that nobody pays for \
            waking it. A request costs the client two system calls, as it does the server: where the server was not \
            busy all the time, the rate is the client's, and the requests per second of the server's processor time, \
            its own and the kernel's, say what the server can do.",
    figures: FIGURES,
    sizes: &[
        Size::new("1 connection", 1, 1),
        Size::new("100 connections", 100, 1),
        Size::new("1,000 connections", 1_000, 1),
    ],
    peers: PEERS,
    kind: Kind::Server(Style::Echo { bytes: 64 }, SERVED),
};

pub(super) const LARGE: Scenario = Scenario {
    name: "echo-16k",
    title: "Echo, 16 KiB",
    story: "The same with requests of 16 KiB: most of the time goes into the kernel's copies.",
    kind: Kind::Server(Style::Echo { bytes: 16 * 1024 }, SERVED),
    ..SMALL
};

pub(super) const PIPELINED: Scenario = Scenario {
    name: "pipelined",
    title: "Requests of 64 bytes, 16 at a time",
    story: "The client sends sixteen requests of 64 bytes by one call, and the next ones when all have been answered. \
            The server knows where a request ends and writes each answer on its own: Warren, Twisted and uvloop hand \
            over what one turn has written together, and tokio's task gathers the answers to what it has read and \
            writes them by one call.",
    kind: Kind::Server(Style::Pipelined { depth: 16 }, SERVED),
    ..SMALL
};

pub(super) const CONNECT: Scenario = Scenario {
    name: "connect",
    title: "Connections that come and go",
    story: "The client connects, sends 64 bytes, gets them back and resets the connection; so many connections at the \
            same time, each replaced by the next. Most of the time is the kernel's.",
    figures: &[
        Figure::more("connections per CPU second of the server"),
        Figure::more("connections per second").unplotted(),
        FIGURES[2],
    ],
    sizes: &[Size::new("1 at a time", 1, 1), Size::new("64 at a time", 64, 1)],
    kind: Kind::Server(Style::Connect(Job::Echo), SERVED),
    ..SMALL
};

pub(super) const IDLE: Scenario = Scenario {
    name: "idle",
    title: "Idle connections",
    story: "So many connections have had an answer of 64 bytes each, and say nothing more. Memory is the growth of the \
            server's process per connection; what the kernel holds for a socket is not in it. A tokio task that \
            waits in `read` keeps its buffer of 16 KiB.",
    figures: &[Figure::less("KiB per connection", 2)],
    sizes: &[Size::new("10,000 connections", 10_000, 1)],
    kind: Kind::Server(Style::Idle, &[Served::KibEach]),
    ..SMALL
};
