//! Our fibers beside gevent's and greenlet's.
//!
//! Each scenario is a function that says lines. The same function in Python, under the same name, is in the file of
//! the same name beside these; `scenarios.py` ran it in the real gevent and wrote what it said to `expected.txt`,
//! and `cargo xtask test` runs it again. Where ours is made otherwise on purpose, the scenario says so, and still
//! says the same lines.

#[macro_use]
#[path = "../support/compared.rs"]
mod compared;
mod said;

mod ending;
mod fibers;
mod generators;
mod greenlets;
mod links;
mod locks;
mod pools;
mod queues;
mod timeouts;
mod waiting;

/// What gevent said.
pub(crate) const EXPECTED: &str = include_str!("expected.txt");

/// The scenarios that are here, module by module as there.
const SCENARIOS: &[(&str, &[&str])] = &[
    ("fibers", fibers::NAMES),
    ("ending", ending::NAMES),
    ("links", links::NAMES),
    ("waiting", waiting::NAMES),
    ("timeouts", timeouts::NAMES),
    ("locks", locks::NAMES),
    ("queues", queues::NAMES),
    ("pools", pools::NAMES),
    ("greenlets", greenlets::NAMES),
    ("generators", generators::NAMES),
];

#[test]
fn every_scenario_of_gevent_is_here() {
    compared::check_names(SCENARIOS);
}
