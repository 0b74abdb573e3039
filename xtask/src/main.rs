//! The project's own tasks. `cargo xtask test` is the whole check, the one CI runs.
//!
//! Every step runs a command, shows its output, and adds to one tally; the last line printed counts
//! the tests of all steps: `N passed, N failed`. A step that is not a test runner (format, lints,
//! documentation) counts as one test.

mod bench;
mod install;
mod sanitize;
mod steps;
mod tally;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::sanitize::Sanitizer;

/// The project's own tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything: format, lints, documentation, all tests, on Warren and on RabbitMQ. Installs what it needs.
    Test {
        /// Leave out what needs other programs, and install nothing.
        #[arg(long)]
        local: bool,
    },
    /// The pika tests alone.
    Pika {
        /// `warren`, `rabbitmq`, or the URL of a broker that runs.
        broker: String,
        /// For pytest.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The cases of the contract alone.
    Contract {
        /// Which broker.
        #[arg(value_parser = ["warren", "rabbitmq"])]
        broker: String,
        /// Parts of the names of the cases wanted.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The programs of other clients alone.
    Clients {
        /// `warren` or `rabbitmq`.
        #[arg(value_parser = ["warren", "rabbitmq"])]
        broker: String,
        /// For pytest.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Kill the server again and again under a mixed load, and see that it breaks no promise.
    Crash {
        /// For how long: 30s, 10m, 2h.
        #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = seconds)]
        time: u64,
        /// The choices of an earlier run.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// The tests of fibers, hub and reactor under AddressSanitizer and valgrind.
    Sanitize {
        /// One of them alone.
        sanitizer: Option<Sanitizer>,
    },
    /// Measure against the peers, in release builds, and print tables.
    Bench {
        /// `broker`, `features`, `runtime`, `reactor` or `models`.
        #[arg(value_parser = ["broker", "features", "runtime", "reactor", "models"])]
        name: String,
        /// For the program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let tally = match Arguments::parse().task {
        Task::Test { local } => steps::test(local),
        Task::Pika { broker, arguments } => steps::pika_on(&broker, &arguments),
        Task::Contract { broker, arguments } => steps::contract_on(&broker, &arguments),
        Task::Clients { broker, arguments } => steps::clients_on(&broker, &arguments),
        Task::Crash { time, seed } => steps::crash(time, seed),
        Task::Sanitize { sanitizer } => sanitize::sanitize(sanitizer),
        Task::Bench { name, arguments } => {
            let green = bench::bench(&name, &arguments).is_green();
            return if green { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    };
    // Alone on its line, and last: CI counts the tests by it.
    println!("\n{tally}");
    if tally.is_green() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seconds(text: &str) -> Result<u64, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    units
        .into_iter()
        .find_map(|(unit, seconds)| Some(text.strip_suffix(unit)?.parse::<u64>().ok()? * seconds))
        .ok_or_else(|| "write 30s, 10m or 2h".into())
}
