//! (h): how long a server takes until it serves.

use anyhow::{Result, anyhow, ensure};
use warren::perf::Client;
use xtask::servers::Server;

use super::backlog::{MESSAGES, enqueue};
use super::{Bench, Case, Goal, Row, each};
use crate::side::Side;
use crate::table::median;

pub(super) const CASE: Case = Case {
    letter: 'h',
    title: "Start, empty and with 10,000,000 persistent messages (RabbitMQ: 500,000)",
    story: "From the start of the process until it takes connections (and, with messages, until a client has been told how many \
            there are), after it was ended in order and after it was killed.",
    run,
};

/// Of the short ones.
const ROUNDS: usize = 5;

fn run(bench: &Bench) -> Result<Vec<Row>> {
    let name = "bench-start";
    let runs = bench.both(|server, _| {
        let empty = (0..ROUNDS).map(|_| start(server, false)).collect::<Result<Vec<_>>>()?;
        // After a start it has another process and, if it takes any, another port.
        let side = Side::of(server);
        let count = MESSAGES.of(&side, bench.effort);
        enqueue(&side, name, count as u64, true)?;
        let mut full = |kill| -> Result<f64> {
            let ms = start(server, kill)?;
            let begun = std::time::Instant::now();
            let ready = Client::open(&server.url)?.ready(name)?;
            ensure!(ready as usize == count, "{ready} of {count} messages are there");
            Ok(ms + begun.elapsed().as_secs_f64() * 1e3)
        };
        let (ended, killed) = (full(false)?, full(true)?);
        Ok((median(empty), ended, killed))
    })?;
    Ok(vec![
        Row::cost("ms, empty", each(&runs, |run| run.0)).goal(Goal::AtMost(50.0)),
        Row::cost("s, with messages", each(&runs, |run| run.1 / 1e3)).goal(Goal::AtMost(2.0)),
        Row::cost("s, with messages, killed before", each(&runs, |run| run.2 / 1e3))
            .goal(Goal::AtMost(2.0)),
    ])
}

/// In milliseconds.
fn start(server: &mut Server, kill: bool) -> Result<f64> {
    let took = server.restart(kill).map_err(|error| anyhow!(error))?;
    Ok(took.as_secs_f64() * 1e3)
}
