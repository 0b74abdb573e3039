//! The project's own tasks. `cargo xtask test` is the whole check, the one CI runs.
//!
//! Every step runs a command, shows its output, and adds to one tally; the last line printed counts
//! the tests of all steps: `N passed, N failed`. A step that is not a test runner (format, lints,
//! documentation) counts as one test.

mod steps;
mod tally;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Format, lints, documentation, unit, doc and property tests.
    Test,
}

fn main() -> ExitCode {
    match Arguments::parse().task {
        Task::Test => {
            let tally = steps::test();
            // Alone on its line, and last: CI counts the tests by it.
            println!("\n{tally}");
            if tally.is_green() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
    }
}
