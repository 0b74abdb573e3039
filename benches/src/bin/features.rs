//! What the features of a broker cost, in Warren and in RabbitMQ.
//!
//! `cargo xtask bench features` runs this once for each part, with servers of its own.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use warren_benches::features::{Bench, PARTS, heading};
use warren_benches::machine::ProcessGroup;
use warren_benches::side::{Effort, Side};

/// Compares two brokers, or measures one.
#[derive(Parser)]
struct Arguments {
    /// Prints the names of the parts wanted, and ends.
    #[arg(long)]
    list: bool,
    /// Prints what a report begins with, and ends.
    #[arg(long)]
    head: bool,
    /// What is measured.
    #[arg(value_parser = PARTS.iter().map(|(name, _)| *name).collect::<Vec<_>>())]
    parts: Vec<String>,
    /// Warren.
    #[arg(long, env = "WARREN_URL")]
    warren: Option<String>,
    /// Its process group.
    #[arg(long, env = "WARREN_PID", default_value_t = 0)]
    warren_pid: u32,
    /// Its data directory.
    #[arg(long, env = "WARREN_DATA")]
    warren_data: Option<PathBuf>,
    /// RabbitMQ.
    #[arg(long, env = "RABBITMQ_URL")]
    rabbitmq: Option<String>,
    /// Its process group.
    #[arg(long, env = "RABBITMQ_PID", default_value_t = 0)]
    rabbitmq_pid: u32,
    /// Its data directory.
    #[arg(long, env = "RABBITMQ_DATA")]
    rabbitmq_data: Option<PathBuf>,
    /// How long each rate is measured.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Sizes are divided by it.
    #[arg(long, default_value_t = 1)]
    divisor: usize,
    /// A thousandth of the work: to see that all works. The figures mean nothing.
    #[arg(long)]
    quick: bool,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let wanted =
        |name: &str| arguments.parts.is_empty() || arguments.parts.iter().any(|part| part == name);
    let parts: Vec<_> = PARTS.iter().filter(|(name, _)| wanted(name)).collect();
    if arguments.list {
        parts.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    }
    let time = Duration::from_secs_f64(arguments.seconds);
    let effort = match arguments.quick {
        true => Effort::QUICK,
        false => Effort { time, divisor: arguments.divisor },
    };
    if arguments.head {
        println!("{}", heading(effort));
        return Ok(());
    }
    let side = |url: Option<String>, pid, data, is_rabbitmq| {
        let data = Option::unwrap_or_default(data);
        url.map(|url| Side { url, group: ProcessGroup(pid), data, is_rabbitmq })
    };
    let warren = side(arguments.warren, arguments.warren_pid, arguments.warren_data, false);
    let rabbitmq = side(arguments.rabbitmq, arguments.rabbitmq_pid, arguments.rabbitmq_data, true);
    let bench = Bench { sides: warren.into_iter().chain(rabbitmq).collect(), effort };
    parts.into_iter().try_for_each(|(_, run)| run(&bench))
}
