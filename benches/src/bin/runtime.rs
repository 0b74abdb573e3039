//! Our hub beside tokio, may, gevent and Go.
//!
//! `cargo xtask bench runtime` installs the peers and runs this; what is measured is in `runtime::SCENARIOS`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use warren_benches::runtime::client::{self, Style};
use warren_benches::runtime::{Kind, Load, Peer, Plan, SCENARIOS, echo, run, write};

/// Compares runtimes.
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
    /// Python with gevent.
    #[arg(long, env = "WARREN_BENCH_PYTHON")]
    python: Option<PathBuf>,
    /// The program of `benches/peers/go`.
    #[arg(long, env = "WARREN_BENCH_GO")]
    go: Option<PathBuf>,
}

/// What the children do that this program starts.
#[derive(Subcommand)]
enum Part {
    /// One peer does one scenario and prints its figures, or serves.
    #[command(hide = true)]
    Case {
        #[arg(long)]
        peer: Peer,
        scenario: String,
        #[arg(default_value_t = 0)]
        n: usize,
        #[arg(default_value_t = 0)]
        operations: usize,
    },
    /// Loads a server and prints the figures.
    #[command(hide = true)]
    Client {
        addr: SocketAddr,
        process: u32,
        connections: usize,
        bytes: usize,
        milliseconds: u64,
        style: String,
    },
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    match arguments.part {
        Some(Part::Case { peer, scenario, .. }) if scenario == "serve" => echo::serve(peer),
        Some(Part::Case { peer, scenario, n, operations }) => {
            let found = SCENARIOS.iter().find(|known| known.name == scenario);
            if let Some(Kind::OneCore(case) | Kind::AllCores(case)) = found.map(|found| found.kind)
            {
                print_figures(&case(peer, Load { n, operations }));
            }
        }
        Some(Part::Client { addr, process, connections, bytes, milliseconds, style }) => {
            let style = if style == "connect" { Style::Connect } else { Style::Echo { bytes } };
            let time = Duration::from_millis(milliseconds);
            print_figures(&client::load(style, addr, process, connections, time)?);
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
            };
            write(&run(&plan), &plan, arguments.output.as_deref())?;
        }
    }
    Ok(())
}

fn print_figures(figures: &[f64]) {
    let words: Vec<String> = figures.iter().map(f64::to_string).collect();
    println!("{}", words.join(" "));
}
