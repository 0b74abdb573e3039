//! Warren beside RabbitMQ: rates, latencies, memory, disk and processor time, with one load generator in one run.
//!
//! `cargo xtask bench broker` builds both programs and runs this. Each case has servers that were started for it: what
//! one has left behind in the memory of a server does not count as another's. Start at [`CASES`].

mod backlog;
mod connections;
mod fanout;
mod latency;
mod report;
mod scaling;
mod startup;
mod throughput;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, anyhow};
use warren::perf::{Options, Report};
use xtask::servers::Server;

use crate::load::timed;
use crate::side::{Effort, Side, Sizes};

pub use report::{Cell, Goal, Row, Section, heading, readme, with_table};

/// One of the cases.
pub struct Case {
    /// What it is called on the command line.
    pub letter: char,
    /// What is done.
    pub title: &'static str,
    /// How.
    pub story: &'static str,
    /// Does it.
    pub run: fn(&Bench) -> Result<Vec<Row>>,
}

/// In the order of the report.
pub const CASES: &[Case] = &[
    throughput::TINY,
    throughput::SMALL,
    throughput::CONFIRMED,
    throughput::LARGE,
    latency::CASE,
    backlog::CASE,
    connections::CASE,
    startup::CASE,
    fanout::CASE,
    scaling::CASE,
];

/// Who is compared, and for how long.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The program that `serve` starts a Warren with.
    pub warren: PathBuf,
    /// Whether RabbitMQ is compared.
    pub rabbitmq: bool,
    /// How much is done.
    pub effort: Effort,
    /// Of how many rates the middle one is taken.
    pub rounds: usize,
}

impl Bench {
    /// What both do, each on a server of its own.
    fn both<T>(&self, mut work: impl FnMut(&mut Server, &Side) -> Result<T>) -> Result<Both<T>> {
        let warren = self.warren_with(&[], &mut work)?;
        Ok([Some(warren), self.rabbitmq(&mut work)?])
    }

    /// On a Warren with these arguments.
    fn warren_with<T>(
        &self,
        arguments: &[&str],
        work: impl FnOnce(&mut Server, &Side) -> Result<T>,
    ) -> Result<T> {
        let server = Server::warren(&self.warren, arguments).map_err(|error| anyhow!(error))?;
        on(server, work)
    }

    fn rabbitmq<T>(&self, work: impl FnOnce(&mut Server, &Side) -> Result<T>) -> Result<Option<T>> {
        if !self.rabbitmq {
            return Ok(None);
        }
        let server = Server::rabbitmq().map_err(|error| anyhow!(error))?;
        on(server, work).map(Some)
    }

    /// Whether `warren serve` knows this flag.
    fn serve_knows(&self, flag: &str) -> bool {
        let help = Command::new(&self.warren).args(["serve", "--help"]).output();
        help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains(flag))
    }

    /// As much as is done in so long a time, once the server has run in.
    fn timed(&self, options: Options) -> Result<Report> {
        timed(self.effort.time, options)
    }
}

/// Of Warren, and of RabbitMQ if it is there.
type Both<T> = [Option<T>; 2];

fn on<T>(mut server: Server, work: impl FnOnce(&mut Server, &Side) -> Result<T>) -> Result<T> {
    let side = Side::of(&server);
    work(&mut server, &side).map_err(|error| error.context(format!("on {}", server.name)))
}

/// The same for each.
fn each<T, U>(both: &Both<T>, of: impl Fn(&T) -> U) -> Both<U> {
    both.each_ref().map(|one| one.as_ref().map(&of))
}

const fn sizes(warren: usize, rabbitmq: usize) -> Sizes {
    Sizes { warren, rabbitmq }
}
