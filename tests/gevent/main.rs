//! Our fibers beside gevent's and greenlet's.
//!
//! Each scenario is a function that says lines. The same function in Python, under the same name, is in the file of
//! the same name beside these; `scenarios.py` ran it in the real gevent and wrote what it said to `expected.txt`,
//! and `cargo xtask test` runs it again. Where ours is made otherwise on purpose, the scenario says so, and still
//! says the same lines.

#[macro_use]
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

use said::{expected, names};

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
    let here: Vec<String> = SCENARIOS
        .iter()
        .flat_map(|(module, names)| names.iter().map(move |name| format!("{module}.{name}")))
        .collect();
    let missing: Vec<&str> = names().filter(|name| !here.iter().any(|here| here == name)).collect();
    assert_eq!(missing, [""; 0], "scenarios of gevent's that are not here");
    let unknown = here.iter().filter(|name| expected(name).is_empty());
    assert_eq!(unknown.collect::<Vec<_>>(), [""; 0], "scenarios that gevent does not have");
}
