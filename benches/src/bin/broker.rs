//! Warren beside RabbitMQ: `cargo xtask bench broker` builds both and runs this.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use warren_benches::broker::{Bench, CASES, Section, heading, readme, with_table};
use warren_benches::machine::raise_open_files;
use warren_benches::side::Effort;

/// Compares two brokers.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    serve: Option<Serve>,
    /// Only these cases, by their letters: a,c
    #[arg(long, value_delimiter = ',', value_parser = letter)]
    only: Vec<char>,
    /// A thousandth of the work: to see that all works. The figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// The program that is Warren.
    #[arg(long, env = "WARREN_BENCH_WARREN")]
    warren: Option<PathBuf>,
    /// Leave RabbitMQ out.
    #[arg(long)]
    alone: bool,
    /// How long each rate is measured.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Of how many the middle one is taken, of two the lower.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// Where the report goes; without it, it is only printed.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The file whose table is renewed.
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Serve {
    /// Be a broker in this program: for tests, which have no other.
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        data_dir: PathBuf,
        #[arg(long)]
        listen: String,
        #[arg(long)]
        log: String,
    },
}

fn letter(text: &str) -> Result<char, String> {
    let known = CASES.iter().map(|case| case.letter);
    known.clone().find(|letter| text == letter.to_string()).ok_or_else(|| {
        format!("the cases are {}", known.map(String::from).collect::<Vec<_>>().join(", "))
    })
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Serve::Serve { data_dir, .. }) = arguments.serve {
        return serve(data_dir);
    }
    raise_open_files();
    let time = Duration::from_secs_f64(arguments.seconds);
    let bench = Bench {
        warren: arguments.warren.map_or_else(std::env::current_exe, Ok)?,
        rabbitmq: !arguments.alone,
        effort: if arguments.quick { Effort::QUICK } else { Effort { time, divisor: 1 } },
        rounds: if arguments.quick { 1 } else { arguments.rounds },
    };
    let mut report = heading(bench.effort);
    print!("{report}");
    let mut sections = Vec::new();
    let wanted = |letter| arguments.only.is_empty() || arguments.only.contains(&letter);
    for case in CASES.iter().filter(|case| wanted(case.letter)) {
        let rows = (case.run)(&bench).with_context(|| format!("case {}", case.letter))?;
        let section = Section { letter: case.letter, rows };
        let text = section.text();
        print!("{text}");
        std::io::stdout().flush()?;
        report += &text;
        sections.push(section);
    }
    if let Some(path) = arguments.output {
        fs::write(&path, report.trim_end().to_owned() + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    if let Some(path) = arguments.readme {
        let text = with_table(&fs::read_to_string(&path)?, &readme(&sections));
        let text =
            text.with_context(|| format!("{} has no place for the table", path.display()))?;
        fs::write(&path, text)?;
        println!("{}", path.display());
    }
    Ok(())
}

fn serve(data_dir: PathBuf) -> Result<()> {
    warren::hub::run(|| {
        let config = warren::broker::Config { data_dir: Some(data_dir), ..Default::default() };
        let broker =
            warren::broker::Broker::open(config).map_err(|error| anyhow::anyhow!("{error}"))?;
        let port = warren::reactor::listen_tcp("127.0.0.1:0".parse()?, broker.factory())?;
        println!("listening amqp://{}\nready", port.addr());
        let stop = std::rc::Rc::new(warren::hub::sync::Event::new());
        let told = stop.clone();
        let signals = [warren::hub::signal::Signal::TERM];
        let _signals = warren::hub::signal::on_signals(&signals, move |_| told.set())?;
        stop.wait();
        drop(port);
        broker.shutdown(Duration::from_secs(1));
        Ok(())
    })
}
