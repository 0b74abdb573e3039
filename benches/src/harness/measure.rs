//! Starting the processes that are measured, and gathering their figures.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Job, Kind, Load, Peer, Scenario, Size, Suite};
use crate::machine::{Bound, raise_open_files};
use crate::table::median;

/// What is to be measured, and how.
pub(super) struct Plan {
    /// Measurements of which the median is taken.
    pub rounds: usize,
    /// A hundredth of the operations, and no sizes above 10,000: to see that all works.
    pub quick: bool,
    /// Names of scenarios of the suite; all when empty.
    pub only: Vec<String>,
    /// Those to measure; all when empty.
    pub peers: Vec<Peer>,
    /// How long a server is loaded.
    pub time: Duration,
    /// Python with its peers, if it is there.
    pub python: Option<PathBuf>,
    /// The program made of `peers/go`, if it is there.
    pub go: Option<PathBuf>,
    /// The example `server_models`, if it is there.
    pub models: Option<PathBuf>,
}

/// A table of figures: by size, then by peer. `None` where there is no measurement.
pub(super) struct Outcome {
    /// What was measured.
    pub scenario: &'static Scenario,
    /// The columns.
    pub peers: Vec<Peer>,
    /// The rows: a cell for each peer.
    pub rows: Vec<(&'static Size, Vec<Option<Cell>>)>,
    /// What could not be measured, and why.
    pub failures: Vec<String>,
}

/// What one peer did at one size.
pub(super) struct Cell {
    /// The medians, one for each figure.
    pub figures: Vec<f64>,
    /// How far apart the first figure's measurements were, as a part of their median.
    pub spread: f64,
}

/// A child that has not printed its figures by then has hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures all of the suite that is planned.
///
/// # Errors
/// When signals cannot be watched.
pub(super) fn run(suite: &Suite, plan: &Plan) -> io::Result<Vec<Outcome>> {
    end_together()?;
    let open_files = raise_open_files();
    let wanted = |name: &str| plan.only.is_empty() || plan.only.iter().any(|only| only == name);
    let scenarios = suite.scenarios.iter().filter(|scenario| wanted(scenario.name));
    Ok(scenarios.map(|scenario| measure(plan, scenario, open_files)).collect())
}

fn measure(plan: &Plan, scenario: &'static Scenario, open_files: u64) -> Outcome {
    let there = |peer: &Peer| {
        let asked = plan.peers.is_empty() || plan.peers.contains(peer);
        asked && (peer.is_rust() || plan.program(*peer).is_some())
    };
    let peers: Vec<Peer> = scenario.peers.iter().copied().filter(there).collect();
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for size in scenario.sizes {
        if plan.quick && size.n > 10_000 {
            continue;
        }
        // Each end of a connection is a process of its own, with some more files than those.
        if matches!(scenario.kind, Kind::Server(..)) && size.n as u64 + 100 > open_files {
            let failure = format!("{} are over the limit of {open_files} open files", size.label);
            eprintln!("{}: {failure}", scenario.name);
            failures.push(failure);
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
                        let failure = format!("{}, {}: {error}", size.label, peer.title());
                        eprintln!("{}, {failure}", scenario.name);
                        if !failures.contains(&failure) {
                            failures.push(failure);
                        }
                    }
                }
            }
        }
        let cells: Vec<_> = measured.iter().map(|rounds| Cell::of(rounds)).collect();
        progress(scenario, size, &peers, &cells);
        rows.push((size, cells));
    }
    Outcome { scenario, peers, rows, failures }
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
    pub(super) fn server_rounds(&self) -> usize {
        self.rounds.div_ceil(2)
    }

    fn rounds_of(&self, scenario: &Scenario) -> usize {
        match scenario.kind {
            Kind::Server(..) => self.server_rounds(),
            Kind::OneCore(_) | Kind::AllCores(_) => self.rounds,
        }
    }

    /// The program of a peer, if it is there.
    fn program(&self, peer: Peer) -> Option<Command> {
        match peer {
            peer if peer.is_python() => {
                let mut command = Command::new(self.python.as_ref()?);
                let peers = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/peers"));
                command.arg(peers.join(format!("{}_peer.py", peer.name())));
                command.env("PYTHONDONTWRITEBYTECODE", "1");
                Some(command)
            }
            Peer::Go => Some(Command::new(self.go.as_ref()?)),
            peer if peer.is_model() => {
                let mut command = Command::new(self.models.as_ref()?);
                command.arg(peer.name());
                Some(command)
            }
            _ => {
                let mut command = this_program().ok()?;
                command.args(["case", &format!("--peer={}", peer.name())]);
                Some(command)
            }
        }
    }

    fn child(&self, scenario: &Scenario, size: &Size, peer: Peer) -> io::Result<Vec<f64>> {
        let part = peer.share() * if self.quick { 100 } else { 1 };
        let load = Load { n: size.n, operations: (size.operations / part).max(size.n) };
        let mut command = self.program(peer).ok_or(io::ErrorKind::NotFound)?;
        command.stdin(Stdio::null());
        match scenario.kind {
            Kind::Server(style, served) => {
                let server = Server::start(&mut command, style.job())?;
                let mut client = this_program()?;
                client.args(["client", scenario.name, &server.addr, &server.id().to_string()]);
                client.args([size.n.to_string(), self.time.as_millis().to_string()]);
                let _bound = Bound::to(1);
                let figures = figures(client.stdin(Stdio::null()).stderr(Stdio::piped()));
                let all = figures.map_err(|error| server.why(error))?;
                Ok(served.iter().map(|served| all[*served as usize]).collect())
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

fn this_program() -> io::Result<Command> {
    std::env::current_exe().map(Command::new)
}

/// The process group of the server that runs. It is not the terminal's, so an interrupt would not end it.
static SERVING: Mutex<Option<Pid>> = Mutex::new(None);

/// Ends the server too when this program is interrupted.
fn end_together() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            if let Some(group) = *serving() {
                // It may have ended by itself.
                let _ = kill_process_group(group, Signal::KILL);
            }
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

fn serving() -> MutexGuard<'static, Option<Pid>> {
    SERVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server on the first core, with a process group of its own, as it may have children.
struct Server {
    process: Process,
    addr: String,
    /// What it says of errors.
    complaints: File,
}

impl Server {
    fn start(command: &mut Command, job: Job) -> io::Result<Self> {
        let complaints = tempfile::tempfile()?;
        command.arg(job.name()).stdout(Stdio::piped()).stderr(complaints.try_clone()?);
        let process = {
            let _bound = Bound::to(0);
            let mut serving = serving();
            let child = command.process_group(0).spawn()?;
            *serving = Some(Pid::from_child(&child));
            Process(child)
        };
        let mut server = Self { process, addr: String::new(), complaints };
        let mut line = String::new();
        let stdout = server.process.0.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        BufReader::new(stdout).read_line(&mut line)?;
        server.addr = line.split_whitespace().last().unwrap_or_default().to_owned();
        if server.addr.is_empty() {
            return Err(server.why(io::Error::other("the server did not start")));
        }
        Ok(server)
    }

    fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// An error of the client, with what the server said first.
    fn why(&self, error: io::Error) -> io::Error {
        let mut said = [0; 1024];
        let count = self.complaints.read_at(&mut said, 0).unwrap_or_default();
        match String::from_utf8_lossy(&said[..count]).lines().next() {
            Some(line) => io::Error::other(format!("{error}; the server: {line}")),
            None => error,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(group) = serving().take() {
            // It may have ended by itself, and left children.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The figures that a process prints, on one line.
fn figures(command: &mut Command) -> io::Result<Vec<f64>> {
    let mut process = Process(command.stdout(Stdio::piped()).spawn()?);
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
        let mut complaints = String::new();
        if let Some(mut stderr) = process.0.stderr.take() {
            stderr.read_to_string(&mut complaints)?;
        }
        let first = complaints.lines().next().map_or(format!("{status}"), str::to_owned);
        return Err(io::Error::other(first));
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
