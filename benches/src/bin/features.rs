//! What the features of a broker cost, in Warren and in RabbitMQ: `cargo xtask bench features` builds both and runs this.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::Parser;
use warren_benches::features::{Bench, PARTS, heading};
use warren_benches::machine::raise_open_files;
use warren_benches::side::{Effort, Side};
use xtask::servers::Server;

/// Compares two brokers. The report goes to standard output.
#[derive(Parser)]
struct Arguments {
    /// What is measured.
    #[arg(value_parser = PARTS.iter().map(|(name, _)| *name).collect::<Vec<_>>())]
    parts: Vec<String>,
    /// The program that is Warren.
    #[arg(long, env = "WARREN_BENCH_WARREN")]
    warren: PathBuf,
    /// Leave RabbitMQ out.
    #[arg(long)]
    alone: bool,
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

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    raise_open_files();
    let time = Duration::from_secs_f64(arguments.seconds);
    let effort = match arguments.quick {
        true => Effort::QUICK,
        false => Effort { time, divisor: arguments.divisor },
    };
    println!("{}", heading(effort));
    let wanted =
        |name: &str| arguments.parts.is_empty() || arguments.parts.iter().any(|part| part == name);
    for (_, run) in PARTS.iter().filter(|(name, _)| wanted(name)) {
        // What one part has left behind in the memory of a server does not count as another's.
        let mut servers =
            vec![Server::warren(&arguments.warren, &[]).map_err(|error| anyhow!(error))?];
        if !arguments.alone {
            servers.push(Server::rabbitmq().map_err(|error| anyhow!(error))?);
        }
        let sides = servers.iter().map(Side::of);
        run(&Bench { sides: sides.collect(), effort })?;
        std::io::stdout().flush()?;
    }
    Ok(())
}
