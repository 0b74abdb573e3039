//! Starting the processes that are measured, and gathering their figures.

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Kind, Load, Peer, SCENARIOS, Scenario, Size};
use crate::machine::{Bound, raise_open_files};
use crate::table::median;

/// What is to be measured, and how.
#[derive(Debug)]
pub struct Plan {
    /// Measurements of which the median is taken.
    pub rounds: usize,
    /// A hundredth of the operations, and no sizes above 10,000: to see that all works.
    pub quick: bool,
    /// Names of scenarios; all when empty.
    pub only: Vec<String>,
    /// Those to measure; all when empty.
    pub peers: Vec<Peer>,
    /// How long a server is loaded.
    pub time: Duration,
    /// Python with gevent, if it is there.
    pub python: Option<PathBuf>,
    /// The program made of `peers/go`, if it is there.
    pub go: Option<PathBuf>,
}

/// A table of figures: by size, then by peer. `None` where there is no measurement.
pub struct Outcome {
    /// What was measured.
    pub scenario: &'static Scenario,
    /// The columns.
    pub peers: Vec<Peer>,
    /// The rows: a cell for each peer.
    pub rows: Vec<(&'static Size, Vec<Option<Cell>>)>,
}

/// What one peer did at one size.
pub struct Cell {
    /// The medians, one for each figure.
    pub figures: Vec<f64>,
    /// How far apart the first figure's measurements were, as a part of their median.
    pub spread: f64,
}

/// A child that has not printed its figures by then has hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures all that is planned.
pub fn run(plan: &Plan) -> Vec<Outcome> {
    let open_files = raise_open_files();
    let wanted = |name: &str| plan.only.is_empty() || plan.only.iter().any(|only| only == name);
    let scenarios = SCENARIOS.iter().filter(|scenario| wanted(scenario.name));
    scenarios.map(|scenario| measure(plan, scenario, open_files)).collect()
}

fn measure(plan: &Plan, scenario: &'static Scenario, open_files: u64) -> Outcome {
    let there = |peer: &Peer| {
        let asked = plan.peers.is_empty() || plan.peers.contains(peer);
        asked && (peer.is_rust() || plan.program(*peer).is_some())
    };
    let peers: Vec<Peer> = scenario.peers.iter().copied().filter(there).collect();
    let mut rows = Vec::new();
    for size in scenario.sizes {
        if plan.quick && size.n > 10_000 {
            continue;
        }
        // Each end of a connection is a process of its own, with some more files than those.
        if matches!(scenario.kind, Kind::Server(_)) && size.n as u64 + 100 > open_files {
            eprintln!("{}: {} is over the limit of {open_files} files", scenario.name, size.label);
            continue;
        }
        let mut measured = vec![Vec::new(); peers.len()];
        // In turn, so that what else the machine does falls on all of them.
        for _ in 0..plan.rounds_of(scenario) {
            for (peer, measured) in peers.iter().zip(&mut measured) {
                match plan.child(scenario, size, *peer) {
                    Ok(figures) if figures.is_empty() => {}
                    Ok(figures) => measured.push(figures),
                    Err(error) => {
                        eprintln!("{}, {}, {}: {error}", scenario.name, size.label, peer.title());
                    }
                }
            }
        }
        let cells: Vec<_> = measured.iter().map(|rounds| Cell::of(rounds)).collect();
        progress(scenario, size, &peers, &cells);
        rows.push((size, cells));
    }
    Outcome { scenario, peers, rows }
}

fn progress(scenario: &Scenario, size: &Size, peers: &[Peer], cells: &[Option<Cell>]) {
    eprint!("{}, {}:", scenario.name, size.label);
    for (peer, cell) in peers.iter().zip(cells) {
        let first = cell.as_ref().map_or(f64::NAN, |cell| cell.figures[0]);
        eprint!(" {} {first:.2};", peer.title());
    }
    eprintln!();
}

impl Cell {
    fn of(rounds: &[Vec<f64>]) -> Option<Self> {
        let first = rounds.first()?;
        let column = |index: usize| rounds.iter().map(|round| round[index]).collect::<Vec<_>>();
        let figures: Vec<f64> = (0..first.len()).map(|index| median(column(index))).collect();
        let (least, most) =
            column(0).into_iter().fold((f64::INFINITY, 0.0_f64), |(least, most), value| {
                (least.min(value), most.max(value))
            });
        Some(Self { spread: (most - least) / figures[0], figures })
    }
}

impl Plan {
    /// Servers are measured over a longer time, and so less often.
    pub(super) fn rounds_of(&self, scenario: &Scenario) -> usize {
        match scenario.kind {
            Kind::Server(_) => self.rounds.div_ceil(2),
            Kind::OneCore(_) | Kind::AllCores(_) => self.rounds,
        }
    }

    /// The program of a peer that is not this one.
    fn program(&self, peer: Peer) -> Option<Command> {
        match peer {
            Peer::Gevent => {
                let mut command = Command::new(self.python.as_ref()?);
                let peers = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/peers"));
                command.arg(peers.join("gevent_peer.py")).env("PYTHONDONTWRITEBYTECODE", "1");
                Some(command)
            }
            Peer::Go => Some(Command::new(self.go.as_ref()?)),
            _ => {
                let mut command = Command::new(std::env::current_exe().ok()?);
                command.args(["case", &format!("--peer={}", name(peer))]);
                Some(command)
            }
        }
    }

    fn child(&self, scenario: &Scenario, size: &Size, peer: Peer) -> io::Result<Vec<f64>> {
        let part = peer.share() * if self.quick { 100 } else { 1 };
        let load = Load { n: size.n, operations: (size.operations / part).max(size.n) };
        let mut command = self.program(peer).ok_or(io::ErrorKind::NotFound)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        match scenario.kind {
            Kind::Server(style) => {
                command.arg("serve");
                let mut server = Process({
                    let _bound = Bound::to(0);
                    command.spawn()?
                });
                let mut addr = String::new();
                let stdout = server.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
                BufReader::new(stdout).read_line(&mut addr)?;
                let mut client = Command::new(std::env::current_exe()?);
                client.args(["client", addr.trim(), &server.0.id().to_string()]);
                client.args([size.n.to_string(), style.bytes().to_string()]);
                client.arg(self.time.as_millis().to_string());
                client.arg(if matches!(style, super::client::Style::Connect) {
                    "connect"
                } else {
                    "echo"
                });
                let _bound = Bound::to(1);
                figures(client.stdin(Stdio::null()).stdout(Stdio::piped()))
            }
            Kind::OneCore(_) => {
                command.args([scenario.name, &load.n.to_string(), &load.operations.to_string()]);
                let _bound = Bound::to(0);
                figures(&mut command)
            }
            Kind::AllCores(_) => {
                command.args([scenario.name, &load.n.to_string(), &load.operations.to_string()]);
                figures(&mut command)
            }
        }
    }
}

/// As the command line calls a peer.
fn name(peer: Peer) -> String {
    use clap::ValueEnum;
    peer.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// The figures that a process prints, on one line.
fn figures(command: &mut Command) -> io::Result<Vec<f64>> {
    let mut process = Process(command.spawn()?);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = process.0.try_wait()? {
            break status;
        }
        if PATIENCE < start.elapsed() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    process.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?.read_to_string(&mut text)?;
    if !status.success() {
        return Err(io::Error::other(format!("{status}")));
    }
    text.split_whitespace().map(|figure| figure.parse().map_err(io::Error::other)).collect()
}

/// A child that does not outlive its measurement.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
