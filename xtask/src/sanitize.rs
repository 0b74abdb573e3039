//! `cargo xtask sanitize`: the tests of the crates with `unsafe` in them, where every wrong access is noticed.
//!
//! AddressSanitizer is told of each switch of stacks by corosensei, valgrind of each stack by our pool; both by features of
//! `warren-fiber`. As with the fuzz targets the compiler is the stable one, which is told that it may know the flag. Each
//! has a folder of its own to build in, beside the ordinary builds, with which it shares nothing.

use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

use crate::install::{VALGRIND, install_missing};
use crate::steps::{cargo, root, runner, target};
use crate::tally::Tally;

/// What looks at every access.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sanitizer {
    /// AddressSanitizer: compiled in, twice as slow.
    Asan,
    /// Valgrind's memcheck: sees uninitialised memory too, thirty times as slow.
    Valgrind,
}

/// A crate whose tests are run.
struct Suite {
    package: &'static str,
    /// Which crate has the features: itself, or one that it uses.
    switches: &'static str,
    /// Its folder of tests.
    tests: &'static str,
    /// Tests that the manifest names.
    named: &'static [&'static str],
    /// Test programs that are left out, and why.
    without: &'static [(&'static str, &'static str)],
    /// As `without`, under valgrind alone.
    without_in_valgrind: &'static [(&'static str, &'static str)],
}

const SUITES: &[Suite] = &[
    Suite {
        package: "warren-fiber",
        switches: "warren-fiber",
        tests: "crates/fiber/tests",
        named: &[],
        without: &[
            ("overflow", "runs over the ends of stacks on purpose"),
            ("mapping_limit", "counts mappings, of which a sanitizer has its own"),
            ("flat_memory", "measures memory"),
            ("compile_fail", "runs the compiler"),
        ],
        without_in_valgrind: &[("address_limit", "limits memory, of which valgrind needs its own")],
    },
    Suite {
        package: "warren-hub",
        switches: "warren-hub",
        tests: "crates/hub/tests",
        named: &["gevent"],
        without: &[
            ("allocations", "counts allocations with an allocator of its own"),
            ("leaks", "measures memory"),
            ("compile_fail", "runs the compiler"),
            ("model", "switches stacks of another library, which tells nobody"),
        ],
        without_in_valgrind: &[
            ("uring", "memory that a ring fills counts as uninitialised"),
            ("fs", "files go through a ring; `fs_threads` has the same tests without one"),
        ],
    },
    Suite {
        package: "warren-reactor",
        switches: "warren-hub",
        tests: "crates/reactor/tests",
        named: &["twisted"],
        without: &[],
        without_in_valgrind: &[],
    },
];

/// Tests that are left out by the beginning of their names, and why.
const SKIPPED: &[(&str, &str)] = &[
    ("an_overflow_on_a_hub", "runs over the end of a stack on purpose"),
    ("a_deep_recursion", "frames are several times as large"),
    ("recursion_goes_on_and_on", "frames are several times as large"),
    ("a_big_stack_carries", "frames are several times as large"),
    ("trimming_empties", "looks at which pages are in memory"),
    ("many_stacks_are_few_mappings", "counts mappings"),
    ("the_watchdog_names", "has a limit of milliseconds"),
];

/// What `cargo xtask test` runs, for it has minutes and not hours: what switches, unwinds and borrows.
const QUICK: &[&str] = &["traps", "scope", "fibers", "handles"];

/// Every suite under one of them, or under both.
pub(crate) fn sanitize(which: Option<Sanitizer>) -> Tally {
    let mut tally = Tally::default();
    for sanitizer in [Sanitizer::Asan, Sanitizer::Valgrind] {
        if which.is_none_or(|which| which == sanitizer) {
            for suite in SUITES {
                tally.add(run(sanitizer, suite, |_| true));
            }
        }
    }
    tally
}

/// The part that `cargo xtask test` has time for: fibers, and the core of the hub, under AddressSanitizer.
pub(crate) fn quick() -> Tally {
    let mut tally = run(Sanitizer::Asan, &SUITES[0], |_| true);
    tally.add(run(Sanitizer::Asan, &SUITES[1], |test| QUICK.contains(&test)));
    tally
}

fn run(sanitizer: Sanitizer, suite: &Suite, wanted: impl Fn(&str) -> bool) -> Tally {
    if sanitizer == Sanitizer::Valgrind
        && let Err(error) = install_missing(&[VALGRIND])
    {
        println!("cannot install valgrind: {error}");
        return Tally::one(false);
    }
    let left_out = |test: &str| {
        let valgrind =
            suite.without_in_valgrind.iter().filter(|_| sanitizer == Sanitizer::Valgrind);
        suite.without.iter().chain(valgrind).find(|(name, _)| *name == test)
    };
    let mut command = cargo(&["test", "--locked", "--no-fail-fast", "-p", suite.package, "--lib"]);
    for test in tests(suite).iter().filter(|test| wanted(test)) {
        match left_out(test) {
            Some((_, reason)) => println!("left out: {test}, which {reason}"),
            None => _ = command.args(["--test", test]),
        }
    }
    let title = match sanitizer {
        Sanitizer::Asan => {
            under_asan(&mut command, suite);
            format!("{} under AddressSanitizer", suite.package)
        }
        Sanitizer::Valgrind => {
            under_valgrind(&mut command, suite);
            format!("{} under valgrind", suite.package)
        }
    };
    command.arg("--");
    for (test, _) in SKIPPED {
        command.args(["--skip", test]);
    }
    runner(&title, command)
}

/// The test programs of a crate: each file of the folder, each folder with a `main.rs`, and what the manifest names.
fn tests(suite: &Suite) -> Vec<String> {
    let entries = std::fs::read_dir(root().join(suite.tests)).into_iter().flatten().flatten();
    let is_program = |path: &Path| path.extension().is_some_and(|it| it == "rs");
    let programs = entries
        .map(|entry| entry.path())
        .filter(|path| is_program(path) || path.join("main.rs").is_file())
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()));
    let mut tests: Vec<String> = programs.collect();
    tests.extend(suite.named.iter().map(|name| (*name).to_owned()));
    tests.sort();
    tests
}

fn under_asan(command: &mut Command, suite: &Suite) {
    command.args(["--features", &format!("{}/sanitizer", suite.switches)]);
    // Named, so that build scripts and macros are built without the flag.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    command.args(["--target", &host]).arg("--target-dir").arg(target().join("sanitize"));
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address");
    // Some tests lose stacks on purpose, and all that those own. What is leaked otherwise is for the tests of memory.
    command.env("ASAN_OPTIONS", "detect_leaks=0");
}

fn under_valgrind(command: &mut Command, suite: &Suite) {
    command.args(["--features", &format!("{}/valgrind", suite.switches)]);
    command.arg("--target-dir").arg(target().join("valgrind"));
    let host =
        format!("CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_RUNNER", std::env::consts::ARCH.to_uppercase());
    // Stacks lie far apart, which is no mistake of a single large frame.
    let valgrind =
        "valgrind --quiet --error-exitcode=99 --fair-sched=yes --max-stackframe=10000000";
    command.env(host, valgrind);
    // The kernel's newer guards are unknown to it.
    command.env("WARREN_STACK_GUARD", "mprotect");
}
