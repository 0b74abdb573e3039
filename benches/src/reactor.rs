//! Our reactor beside others: tokio's current thread, Twisted, and asyncio's protocols on uvloop.
//!
//! `cargo xtask bench reactor` installs the peers and runs this.
//!
//! Start at [`SUITE`].

mod chains;
mod framing;
mod requests;
mod servers;
mod timers;

use crate::harness::{
    Aim, Figure, Goal, Job, Kind, Load, Peer, ProcessorWatch, Scenario, Served, Size, Style, Suite,
    Target, tokio_local,
};
use crate::runtime::echo;
use crate::runtime::timers::{duration, tokio_timers};

/// The reactor beside its peers.
pub const SUITE: Suite = Suite {
    name: "reactor",
    plots: "reactor-",
    title: "The reactor beside its peers",
    story: "Every peer has one thread, bound to one core. tokio is its current-thread runtime, with a task for each \
            connection that reads into a buffer of its own and writes; Twisted is on its epoll reactor; uvloop serves \
            asyncio's protocols.",
    scenarios: SCENARIOS,
    serve: requests::serve,
    ours: Peer::Protocol,
    targets: &[Target {
        what: "an idle connection: memory of ours",
        scenario: "idle",
        n: 10_000,
        figure: 0,
        goal: Goal::AtMost(1.0, "KiB"),
    }],
    aims: &[Aim { rival: Peer::Tokio, times: 1.2 }, Aim { rival: Peer::Twisted, times: 10.0 }],
};

const SCENARIOS: &[&Scenario] = &[
    &servers::SMALL,
    &servers::LARGE,
    &servers::PIPELINED,
    &servers::CONNECT,
    &servers::IDLE,
    &timers::CANCELLED,
    &timers::FIRED,
    &chains::SCENARIO,
    &framing::LINES,
    &framing::STRINGS,
    &framing::NETSTRINGS,
];

const PEERS: &[Peer] = &[Peer::Protocol, Peer::Tokio, Peer::Twisted, Peer::Uvloop];
