//! (g): what a server takes that nobody uses, and what connections take that say nothing.

use anyhow::Result;
use warren::perf::Client;

use super::{Bench, Case, Goal, Row, Sizes, each, sizes};
use crate::machine::raise_open_files;

const CONNECTIONS: [Sizes; 2] = [sizes(1_000, 1_000), sizes(10_000, 10_000)];

pub(super) const CASE: Case = Case {
    letter: 'g',
    title: "Memory of a server and of connections that are idle",
    story: "Resident memory; connections have one channel each. What the kernel holds for sockets is not in it.",
    run,
};

fn run(bench: &Bench) -> Result<Vec<Row>> {
    raise_open_files();
    let runs = bench.both(|_, side| {
        let idle = side.group.resident_bytes();
        let mut clients = Vec::new();
        let kib = CONNECTIONS.map(|count| -> Result<f64> {
            let count = count.of(side, bench.effort);
            while clients.len() < count {
                clients.push(Client::open(&side.url)?);
            }
            Ok((side.group.resident_bytes() - idle).max(0.0) / 1024.0 / count as f64)
        });
        let [some, many] = kib;
        Ok((idle / 1e6, some?, many?))
    })?;
    let what = |at: usize| {
        format!("KiB for each of {}", CONNECTIONS[at].told("connections", bench.effort))
    };
    Ok(vec![
        Row::cost("MB, idle", each(&runs, |run| run.0)).goal(Goal::AtMost(10.0)),
        Row::cost(what(0), each(&runs, |run| run.1)).goal(Goal::AtMost(8.0)),
        Row::cost(what(1), each(&runs, |run| run.2)).goal(Goal::AtMost(8.0)),
    ])
}
