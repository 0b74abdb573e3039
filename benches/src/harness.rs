//! How peers are measured side by side, whatever is measured.
//!
//! Each measurement is one (scenario, size, peer) in a process of its own, which prints its figures: so no peer
//! disturbs another, and one that dies leaves a gap in a table and nothing else. Rust peers are this program
//! called with other arguments; those of other languages are small programs in `benches/peers/` that know the same
//! scenarios under the same names.
//!
//! Start at [`Suite`].

mod cli;
mod measure;
mod peers;
mod plot;
mod report;
mod targets;

pub mod client;

pub use cli::main;
pub use client::{Job, Served, Style};
pub use peers::Peer;
pub(crate) use peers::{join_all, may_with, tokio_local, tokio_multi};
pub use targets::{Aim, Goal, Target};

/// A program of scenarios, which writes one report.
pub struct Suite {
    /// What the command line, the program and the report's file are called.
    pub name: &'static str,
    /// How the files of its plots begin.
    pub plots: &'static str,
    /// The heading of the report.
    pub title: &'static str,
    /// What the report says first.
    pub story: &'static str,
    /// What is measured, in the order of the report.
    pub scenarios: &'static [&'static Scenario],
    /// Serves for ever as one of the Rust peers, and prints the address as its first line.
    pub serve: fn(Peer, Job),
    /// Whose figures are to reach something.
    pub ours: Peer,
    /// What single figures were to reach.
    pub targets: &'static [Target],
    /// What every row was to reach.
    pub aims: &'static [Aim],
}

/// Something that runtimes do, measured at several sizes.
pub struct Scenario {
    /// What the command line calls it.
    pub name: &'static str,
    /// The heading of its tables.
    pub title: &'static str,
    /// What is done, and what one operation is.
    pub story: &'static str,
    /// Each is a table, and a plot if it says so.
    pub figures: &'static [Figure],
    /// The rows.
    pub sizes: &'static [Size],
    /// The columns.
    pub peers: &'static [Peer],
    /// How a measurement is made.
    pub kind: Kind,
}

/// How a measurement is made.
#[derive(Clone, Copy)]
pub enum Kind {
    /// The peer's process, bound to one core, measures itself. The function runs the peers that are written in
    /// Rust.
    OneCore(fn(Peer, Load) -> Vec<f64>),
    /// The same on all cores.
    AllCores(fn(Peer, Load) -> Vec<f64>),
    /// The peer's process serves on the first core; a client on the second one loads it. What is measured is in the
    /// order of the figures.
    Server(Style, &'static [Served]),
}

/// How much is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What the rows of the table vary: fibers, timers, a variant.
    pub n: usize,
    /// Operations, all together.
    pub operations: usize,
}

/// A row.
#[derive(Clone, Copy)]
pub struct Size {
    /// What the table calls it.
    pub label: &'static str,
    /// Fibers, timers, connections, or the number of a variant.
    pub n: usize,
    /// Operations of one measurement. Peers that are far slower do a part of them.
    pub operations: usize,
}

/// What a measurement gives.
#[derive(Clone, Copy)]
pub struct Figure {
    /// The heading, with the unit.
    pub title: &'static str,
    /// Digits after the point.
    pub digits: usize,
    /// Whether a plot is drawn.
    pub plot: bool,
    /// Whether more is better.
    pub more_is_better: bool,
}

impl Figure {
    /// A figure of which less is better, with a plot.
    pub(crate) const fn less(title: &'static str, digits: usize) -> Self {
        Self { title, digits, plot: true, more_is_better: false }
    }

    /// A figure of which more is better, with a plot.
    pub(crate) const fn more(title: &'static str) -> Self {
        Self { title, digits: 0, plot: true, more_is_better: true }
    }

    /// The same without a plot.
    pub(crate) const fn unplotted(self) -> Self {
        Self { plot: false, ..self }
    }
}

impl Size {
    pub(crate) const fn new(label: &'static str, n: usize, operations: usize) -> Self {
        Self { label, n, operations }
    }
}

/// Measures what is done from its start on.
pub(crate) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Nanoseconds per operation, as the one figure of a measurement.
    pub(crate) fn per(&self, operations: usize) -> Vec<f64> {
        vec![self.elapsed().as_nanos() as f64 / operations as f64]
    }

    pub(crate) fn elapsed(&self) -> std::time::Duration {
        self.0.elapsed()
    }
}

/// Measures the processor time of this process: what else the machine does is no part of it, nor is waiting.
pub(crate) struct ProcessorWatch(std::time::Duration);

impl ProcessorWatch {
    pub(crate) fn start() -> Self {
        Self(processor_time())
    }

    /// Operations per second of processor time, as the one figure of a measurement.
    pub(crate) fn per_second(&self, operations: usize) -> Vec<f64> {
        vec![operations as f64 / (processor_time() - self.0).as_secs_f64()]
    }
}

fn processor_time() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    std::time::Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
