//! Our hub beside other runtimes: tokio, may, gevent and Go.
//!
//! `cargo xtask bench runtime` installs the peers and runs this.
//!
//! Start at [`SUITE`].

mod channels;
mod connections;
mod futures;
mod hubs;
mod kill;
mod offload;
mod parked;
mod spawning;
mod switching;
mod yielding;

pub(crate) mod echo;
pub(crate) mod timers;

use crate::harness::{
    Figure, Goal, Job, Kind, Load, Peer, Scenario, Served, Size, Stopwatch, Style, Suite, Target,
    join_all, may_with, tokio_local, tokio_multi,
};

/// The runtime beside its peers.
pub const SUITE: Suite = Suite {
    name: "runtime",
    plots: "",
    title: "The runtime beside its peers",
    story: "Unless it says otherwise, a peer is bound to one core, so that tokio's multi-thread runtime, may and Go have \
            one worker.",
    scenarios: SCENARIOS,
    serve: echo::serve,
    ours: Peer::Warren,
    targets: TARGETS,
    aims: &[],
};

const SCENARIOS: &[&Scenario] = &[
    &switching::SCENARIO,
    &yielding::SCENARIO,
    &spawning::SCENARIO,
    &parked::SCENARIO,
    &timers::SCENARIO,
    &timers::ANY,
    &channels::SCENARIO,
    &hubs::SCENARIO,
    &kill::SCENARIO,
    &futures::SCENARIO,
    &offload::SCENARIO,
    &echo::SMALL,
    &echo::LARGE,
    &connections::SCENARIO,
];

const TARGETS: &[Target] = &[
    Target {
        what: "spawn and join, beside tokio",
        scenario: "spawn",
        n: 1,
        figure: 0,
        goal: Goal::TimesTokio(4.0),
    },
    Target {
        what: "yield among 1,000, beside tokio",
        scenario: "yield",
        n: 1_000,
        figure: 0,
        goal: Goal::TimesTokio(1.0),
    },
    Target {
        what: "echo, 100 connections: requests per CPU second, beside tokio",
        scenario: "echo",
        n: 100,
        figure: 0,
        goal: Goal::TimesTokio(1.1),
    },
    Target {
        what: "echo, 1,000 connections: requests per CPU second, beside tokio",
        scenario: "echo",
        n: 1_000,
        figure: 0,
        goal: Goal::TimesTokio(1.1),
    },
    Target {
        what: "a million fibers that wait: memory of each",
        scenario: "parked",
        n: 1_000_000,
        figure: 0,
        goal: Goal::AtMost(4.5, "KiB"),
    },
    Target {
        what: "a million fibers that wait: time to create each (3 s for all)",
        scenario: "parked",
        n: 1_000_000,
        figure: 2,
        goal: Goal::AtMost(3_000.0, "ns"),
    },
    Target {
        what: "a timer among a million, set and cancelled",
        scenario: "timers",
        n: 1_000_000,
        figure: 0,
        goal: Goal::AtMost(50.0, "ns"),
    },
    Target { what: "kill", scenario: "kill", n: 1, figure: 0, goal: Goal::AtMost(5_000.0, "ns") },
];
