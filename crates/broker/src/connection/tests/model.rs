//! The whole engine beside a plain model: random operations of a publisher and a consumer, whose every delivery, answer
//! and count must be the one that the model foretells, and after which both hold the same.
//!
//! ```text
//!   shape: what the queues are -------+                 +--> engine ----> frames --+
//!   steps: what is done with them ----+--> one by one --+                          +--> equal, or the seed is printed
//!                                                       +--> model ----> foretold -+
//! ```
//! Which of several consumers gets a message is left open, as far as priorities and single active consumers leave
//! it open; everything else is not. The parts: [`steps`] are what is done, [`plain`] is the model, [`routing`] and
//! [`deaths`] are parts of it, [`pair`] does a step on both sides and compares.
//!
//! A case is one number. `WARREN_MODEL_SEED=7` runs that case alone, `WARREN_MODEL_SEED=0..5000` so many;
//! `WARREN_MODEL_SECONDS=600` runs new ones for ten minutes.

mod deaths;
mod pair;
mod plain;
mod routing;
mod steps;

use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use pair::Pair;
use steps::{Place, case};

/// Runs cases that differ in nothing but their seeds, and says which failed.
fn check(place: Place, cases: u64) {
    let variable = |name: &str| std::env::var(name).ok();
    let (mut seeds, mut until) = (0..cases, None);
    if let Some(wanted) = variable("WARREN_MODEL_SEED") {
        let (first, end) = match wanted.split_once("..") {
            Some((first, end)) => (first.parse().unwrap(), end.parse().unwrap()),
            None => (wanted.parse().unwrap(), wanted.parse::<u64>().unwrap() + 1),
        };
        seeds = first..end;
    } else if let Some(seconds) = variable("WARREN_MODEL_SECONDS") {
        // Others than last time.
        seeds = u64::from(std::process::id()) << 32..u64::MAX;
        until = Some(Instant::now() + Duration::from_secs(seconds.parse().unwrap()));
    }
    for seed in seeds {
        if until.is_some_and(|until| until < Instant::now()) {
            break;
        }
        check_seed(place, seed);
    }
}

fn check_seed(place: Place, seed: u64) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let outcome = TestRunner::new_with_rng(config, random).run(&case(place), |case| {
        let run = || Pair::run(place, &case);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            TestCaseError::fail(text.unwrap_or("it panicked").to_owned())
        })
    });
    if let Err(TestError::Fail(why, case)) = outcome {
        panic!(
            "{why}\n\nin the smallest case found, which is\n{case}\nagain with\n  \
             WARREN_MODEL_SEED={seed} cargo test -p warren-broker --lib -- {}\n",
            std::thread::current().name().unwrap_or("model"),
        );
    }
}

#[test]
fn the_engine_does_what_a_plain_model_does() {
    check(Place::Memory, 192);
}

#[test]
fn a_server_that_ends_and_begins_again_does_what_a_plain_model_does() {
    check(Place::Disk, 12);
}
