//! The command line of the programs: measure all and write the report, or be one of the children that do it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use super::measure::{Plan, run};
use super::report::write;
use super::{Job, Kind, Load, Peer, Suite, client};

/// Compares peers.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// A hundredth of the work, without the largest sizes: to see that all works. The figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Of how many measurements the median is taken.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long a server is loaded, in milliseconds.
    #[arg(long, default_value_t = 800)]
    load_ms: u64,
    /// Only these scenarios.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these peers.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<Peer>,
    /// Where the report and the plots go; without it, the report is printed.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Python with its peers.
    #[arg(long, env = "WARREN_BENCH_PYTHON")]
    python: Option<PathBuf>,
    /// The program of `benches/peers/go`.
    #[arg(long, env = "WARREN_BENCH_GO")]
    go: Option<PathBuf>,
    /// The example `server_models`.
    #[arg(long, env = "WARREN_BENCH_MODELS")]
    models: Option<PathBuf>,
}

/// What the children do that this program starts.
#[derive(Subcommand)]
enum Part {
    /// One peer does one scenario and prints its figures, or serves.
    #[command(hide = true)]
    Case {
        #[arg(long)]
        peer: Peer,
        /// A scenario or a [`Job`].
        what: String,
        #[arg(default_value_t = 0)]
        n: usize,
        #[arg(default_value_t = 0)]
        operations: usize,
    },
    /// Loads a server and prints the figures.
    #[command(hide = true)]
    Client { scenario: String, addr: SocketAddr, group: u32, connections: usize, milliseconds: u64 },
}

/// What a program of one suite does.
pub fn main(suite: &Suite) -> ExitCode {
    match act(suite) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn act(suite: &Suite) -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let kind_of = |scenario: &str| {
        suite.scenarios.iter().find(|known| known.name == scenario).map(|found| found.kind)
    };
    match arguments.part {
        Some(Part::Case { peer, what, n, operations }) => match (Job::of(&what), kind_of(&what)) {
            (Some(job), _) => (suite.serve)(peer, job),
            (_, Some(Kind::OneCore(case) | Kind::AllCores(case))) => {
                print_figures(&case(peer, Load { n, operations }));
            }
            _ => return Err(std::io::Error::other(format!("there is no scenario {what}"))),
        },
        Some(Part::Client { scenario, addr, group, connections, milliseconds }) => {
            let Some(Kind::Server(style, _)) = kind_of(&scenario) else {
                return Err(std::io::Error::other(format!("{scenario} has no server")));
            };
            let time = Duration::from_millis(milliseconds);
            print_figures(&client::load(style, addr, group, connections, time)?);
        }
        None => {
            let plan = Plan {
                rounds: if arguments.quick { 1 } else { arguments.rounds },
                quick: arguments.quick,
                only: arguments.only,
                peers: arguments.peers,
                time: Duration::from_millis(if arguments.quick { 200 } else { arguments.load_ms }),
                python: arguments.python,
                go: arguments.go,
                models: arguments.models,
            };
            write(suite, &run(suite, &plan)?, &plan, arguments.output.as_deref())?;
        }
    }
    Ok(())
}

fn print_figures(figures: &[f64]) {
    let words: Vec<String> = figures.iter().map(f64::to_string).collect();
    println!("{}", words.join(" "));
}
