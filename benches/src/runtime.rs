//! Our hub beside other runtimes: the scenarios, and how they are measured.
//!
//! Each measurement is one (scenario, size, peer) in a process of its own, which prints its figures: so no peer
//! disturbs another, and one that dies leaves a gap in a table and nothing else. Rust peers are this program
//! called with other arguments; gevent and Go are small programs in `benches/peers/` that know the same
//! scenarios under the same names.
//!
//! Start at [`SCENARIOS`].

mod channels;
mod connections;
mod futures;
mod hubs;
mod kill;
mod measure;
mod offload;
mod parked;
mod peers;
mod plot;
mod report;
mod spawning;
mod switching;
mod timers;
mod yielding;

pub mod client;
pub mod echo;

pub use measure::{Plan, run};
pub use peers::Peer;
pub use report::write;

/// What is measured, in the order of the report.
pub const SCENARIOS: &[&Scenario] = &[
    &switching::SCENARIO,
    &yielding::SCENARIO,
    &spawning::SCENARIO,
    &parked::SCENARIO,
    &timers::SCENARIO,
    &timers::ANY,
    &channels::SCENARIO,
    &hubs::SCENARIO,
    &kill::SCENARIO,
    &futures::SCENARIO,
    &offload::SCENARIO,
    &echo::SMALL,
    &echo::LARGE,
    &connections::SCENARIO,
];

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
    /// The peer's process serves on the first core; a client on the second one loads and measures it.
    Server(client::Style),
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
    const fn less(title: &'static str, digits: usize) -> Self {
        Self { title, digits, plot: true, more_is_better: false }
    }
}

impl Size {
    const fn new(label: &'static str, n: usize, operations: usize) -> Self {
        Self { label, n, operations }
    }
}

/// Measures what is done from its start on.
struct Stopwatch(std::time::Instant);

impl Stopwatch {
    fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Nanoseconds per operation, as the one figure of a measurement.
    fn per(&self, operations: usize) -> Vec<f64> {
        vec![self.elapsed().as_nanos() as f64 / operations as f64]
    }

    fn elapsed(&self) -> std::time::Duration {
        self.0.elapsed()
    }
}
