//! The server models of `examples/server_models/` side by side.
//!
//! `cargo xtask bench models` builds them and runs this.
//!
//! Start at [`SUITE`].

use crate::harness::client::BUSY;
use crate::harness::{Figure, Job, Kind, Peer, Scenario, Served, Size, Style, Suite};

/// The models.
pub const SUITE: Suite = Suite {
    name: "models",
    plots: "models-",
    title: "Server models side by side",
    story: "Every model is the same example, `server_models`, bound to one core and given another name: a process for \
            each connection, a thread for each, a loop by hand on `select`, `poll` or `epoll`, the reactor's protocols, \
            a fiber for each. What is done with the bytes is the same code.",
    scenarios: SCENARIOS,
    serve: |_, _| {},
    ours: Peer::Reactor,
    targets: &[],
    aims: &[],
};

const SCENARIOS: &[&Scenario] = &[&ECHO, &FEW_BUSY, &HTTP, &CONNECT];

const ECHO: Scenario = Scenario {
    name: "echo",
    title: "Echo on connections that stay",
    story: "A client on the other core keeps one request of 64 bytes on its way on each connection. Memory is that of \
            all processes of the server; pages that some of them share count once. What the kernel holds for sockets, \
            threads and processes is not in it.",
    figures: &[
        Figure::more("requests per second"),
        Figure::more("requests per CPU second of the server").unplotted(),
        Figure::less("MiB of the server", 1),
        Figure::less("KiB per connection", 1).unplotted(),
    ],
    sizes: &[
        Size::new("10 connections", 10, 1),
        Size::new("1,000 connections", 1_000, 1),
        Size::new("10,000 connections", 10_000, 1),
    ],
    peers: &[
        Peer::Process,
        Peer::Thread,
        Peer::Select,
        Peer::Poll,
        Peer::Epoll,
        Peer::Reactor,
        Peer::Fibers,
    ],
    kind: Kind::Server(
        Style::Echo { bytes: 64 },
        &[Served::PerSecond, Served::PerCpuSecond, Served::MibAll, Served::KibEach],
    ),
};

const FEW_BUSY: Scenario = Scenario {
    name: "few-busy",
    title: "Echo on ten connections among many that are idle",
    story: "The same when all connections but ten say nothing. `select` and `poll` hand all of them to the kernel at each \
            turn, which looks at each.",
    figures: &[Figure::more("requests per second"), ECHO.figures[1]],
    sizes: &[
        Size::new("all of 10", BUSY, 1),
        Size::new("10 of 1,000", 1_000, 1),
        Size::new("10 of 10,000", 10_000, 1),
    ],
    kind: Kind::Server(Style::FewBusy, &[Served::PerSecond, Served::PerCpuSecond]),
    ..ECHO
};

const HTTP: Scenario = Scenario {
    name: "http",
    title: "HTTP on connections that stay",
    story: "The same with a small request of HTTP and a small answer.",
    kind: Kind::Server(
        Style::Http,
        &[Served::PerSecond, Served::PerCpuSecond, Served::MibAll, Served::KibEach],
    ),
    ..ECHO
};

const CONNECT: Scenario = Scenario {
    name: "connect",
    title: "HTTP, a connection for each request",
    story: "One process per request, one thread per request: the client connects, asks, gets the answer and resets the \
            connection; so many connections at the same time, each replaced by the next.",
    figures: &[
        Figure::more("requests per second"),
        Figure::more("requests per CPU second of the server").unplotted(),
    ],
    sizes: &[Size::new("1 at a time", 1, 1), Size::new("64 at a time", 64, 1)],
    kind: Kind::Server(Style::Connect(Job::Http), &[Served::PerSecond, Served::PerCpuSecond]),
    ..ECHO
};
