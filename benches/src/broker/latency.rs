//! (e): how long a message takes, at rates that do not wait for it.

use anyhow::Result;
use warren::perf::{Latency, Options, Report};

use super::{Bench, Both, Case, Cell, Goal, Row, each};
use crate::load::{bytes, cpu_per_million, persistent, quiet};
use crate::table::thousands;

pub(super) const CASE: Case = Case {
    letter: 'e',
    title: "Latency at 1,000 and at 50,000 messages/s",
    story: "16 B, one publisher with confirms, one consumer without acknowledgements. The loop is open: each message has a time at \
            which it is to be sent, and its latency counts from then on, however late it was sent. Milliseconds: the median, \
            99 of 100 and 999 of 1,000; the ratio is of 99 of 100. What is persistent is confirmed when the disk has it; its \
            delivery does not wait for that.",
    run,
};

/// More than ever waits: the loop stays open.
const UNCONFIRMED_MAX: usize = 1_000_000;

fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for is_persistent in [false, true] {
        let runs = bench.both(|_, side| {
            let run = |rate: f64| {
                bench.timed(Options {
                    size: bytes(16),
                    rate: Some(rate),
                    confirm: Some(UNCONFIRMED_MAX),
                    autoack: true,
                    flag: if is_persistent { persistent() } else { Vec::new() },
                    ..quiet(&side.url)
                })
            };
            Ok([run(1_000.0)?, run(50_000.0)?])
        })?;
        for (at, (rate, most)) in [(1_000.0, 0.2), (50_000.0, 0.5)].into_iter().enumerate() {
            let kind = if is_persistent { "persistent" } else { "transient" };
            let what = format!("{kind}, {}/s", thousands(rate));
            let latency = |of: fn(&Report) -> Option<Latency>| -> Both<Cell> {
                each(&runs, |runs| cell(of(&runs[at])?)).map(Option::flatten)
            };
            let deliver =
                Row::cells(format!("{what}: to deliver"), latency(|run| run.deliver_latency));
            let confirm =
                Row::cells(format!("{what}: to confirm"), latency(|run| run.confirm_latency));
            if is_persistent {
                rows.extend([deliver, confirm]);
            } else {
                rows.extend([deliver, confirm].map(|row| row.goal(Goal::AtMost(most))));
            }
            rows.push(Row::note(
                format!("{what}: reached, messages/s"),
                each(&runs, |runs| runs[at].consume_rate),
            ));
            let cpu = each(&runs, |runs| cpu_per_million(&runs[at]));
            rows.push(Row::cost(format!("{what}: server's CPU, s per million"), cpu));
        }
    }
    Ok(rows)
}

fn cell(latency: Latency) -> Option<Cell> {
    let ms = [latency.p50_us, latency.p99_us, latency.p999_us].map(|us| us / 1000.0);
    let shown = ms.map(|ms| if ms < 10.0 { format!("{ms:.3}") } else { thousands(ms) });
    Some(Cell { value: ms[1], shown: shown.join(" / ") })
}
