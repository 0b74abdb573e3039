//! Our reactor beside Twisted.
//!
//! Each scenario is a function that says lines. The same function in Python, under the same name, is in the file of
//! the same name beside these; `scenarios.py` ran it in the real Twisted and wrote what it said to `expected.txt`,
//! and `cargo xtask test` runs it again. Where ours is made otherwise on purpose, the scenario says so. Connections are a
//! table, `connections.txt`, that both sides read.

#[macro_use]
#[path = "../support/compared.rs"]
mod compared;
mod heard;
mod said;

mod calls;
mod cancelling;
mod chains;
mod connections;
mod cooperating;
mod datagrams;
mod framing;
mod lists;
mod locks;
mod looping;
mod policies;
mod processes;
mod queues;
mod reconnecting;
mod services;
mod streams;
mod system;
mod timeouts;

/// What Twisted said.
pub(crate) const EXPECTED: &str = include_str!("expected.txt");

/// The scenarios that are here, module by module as there.
const SCENARIOS: &[(&str, &[&str])] = &[
    ("chains", chains::NAMES),
    ("cancelling", cancelling::NAMES),
    ("timeouts", timeouts::NAMES),
    ("lists", lists::NAMES),
    ("locks", locks::NAMES),
    ("queues", queues::NAMES),
    ("calls", calls::NAMES),
    ("services", services::NAMES),
    ("connections", connections::NAMES),
    ("datagrams", datagrams::NAMES),
    ("processes", processes::NAMES),
    ("streams", streams::NAMES),
    ("framing", framing::NAMES),
    ("policies", policies::NAMES),
    ("looping", looping::NAMES),
    ("cooperating", cooperating::NAMES),
    ("reconnecting", reconnecting::NAMES),
    ("system", system::NAMES),
];

#[test]
fn every_scenario_of_twisted_is_here() {
    compared::check_names(SCENARIOS);
}
