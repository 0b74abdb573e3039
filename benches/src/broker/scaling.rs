//! (j): several queues with as many connections, on one hub and on two.

use anyhow::Result;
use warren::perf::Options;

use super::throughput::measure;
use super::{Bench, Case, Goal, Row};
use crate::load::{bytes, quiet};
use crate::side::Side;

pub(super) const CASE: Case = Case {
    letter: 'j',
    title: "Two and four queues with as many connections, on one hub and on two",
    story: "16 B, transient: each queue has a publisher without confirms and a consumer without acknowledgements. The generator \
            shares the cores with the server; with two of them, scaling shows only as far as it leaves one free.",
    run,
};

/// What `warren serve` says how many hubs it runs with.
const HUBS: &str = "--hubs";

fn run(bench: &Bench) -> Result<Vec<Row>> {
    let one = |side: &Side, queues: usize| {
        let options = Options {
            size: bytes(16),
            autoack: true,
            queue: (0..queues).map(|number| format!("bench-scaling-{number}")).collect(),
            producers: queues,
            consumers: queues,
            ..quiet(&side.url)
        };
        measure(bench, options)
    };
    let both = |side: &Side| Ok([one(side, 2)?, one(side, 4)?]);
    let theirs = bench.rabbitmq(|_, side| both(side))?;
    let scales = bench.serve_knows(HUBS);
    let mut rows = Vec::new();
    let mut rates = Vec::new();
    for hubs in ["1", "2"].into_iter().take(if scales { 2 } else { 1 }) {
        let arguments = if scales { vec![HUBS, hubs] } else { Vec::new() };
        let ours = bench.warren_with(&arguments, |_, side| both(side))?;
        for (at, queues) in [2, 4].into_iter().enumerate() {
            let what = format!("{queues} queues, {hubs} hub{}", if hubs == "1" { "" } else { "s" });
            let their = theirs.as_ref().map(|runs| &runs[at]);
            let rate = [Some(ours[at].rate), their.map(|run| run.rate)];
            let cpu = [Some(ours[at].cpu), their.map(|run| run.cpu)];
            rows.push(Row::rate(format!("{what}: messages/s"), rate));
            rows.push(Row::cost(format!("{what}: server's CPU, s per million"), cpu));
        }
        rates.push(ours.map(|run| run.rate));
    }
    if let [one, two] = rates[..] {
        for (at, queues) in [2, 4].into_iter().enumerate() {
            let times = [Some(two[at] / one[at]), None];
            let row = Row::cost(format!("{queues} queues: two hubs, times the rate of one"), times);
            rows.push(row.goal(Goal::AtLeast(1.7)));
        }
    }
    Ok(rows)
}
