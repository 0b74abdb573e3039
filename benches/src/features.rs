//! What the features of a broker cost, in Warren and in RabbitMQ, with the same load in the same run.
//!
//! `cargo xtask bench features` starts both anew for each [`PARTS`] and runs it: what one has left behind in the
//! memory of a server does not count as another's. Rates are what a shared machine gave; the server's processor time
//! per operation says more, and is told beside them.

mod definitions;
mod delayed;
mod fanout;
mod flow;
mod idle;
mod letters;
mod levels;
mod routing;
mod streams;

use std::time::{Duration, Instant};

use anyhow::Result;
use warren::perf::{Client, Report};
use warren_amqp::method::queue;

use crate::load::calls;
use crate::machine::description;
use crate::side::{Effort, Side, Sizes};
use crate::table::{digits, thousands};

/// Both sides, and what is said of them.
pub struct Bench {
    /// Warren, then RabbitMQ if it is there.
    pub sides: Vec<Side>,
    /// How much is done.
    pub effort: Effort,
}

/// A part's name, and what it does.
pub type Part = (&'static str, fn(&Bench) -> Result<()>);

/// Each wants servers that have done nothing yet.
pub const PARTS: &[Part] = &[
    ("queues", idle::run),
    ("definitions", definitions::run),
    ("routing", routing::run),
    ("fanout", fanout::run),
    ("levels", levels::run),
    ("letters", letters::run),
    ("streams", streams::run),
    ("delayed", delayed::run),
];

/// What a report begins with.
pub fn heading(effort: Effort) -> String {
    let quick = match effort.divisor {
        1 => String::new(),
        divisor => format!("Sizes are divided by {divisor}, so the figures mean nothing. "),
    };
    format!(
        "# The broker's features beside RabbitMQ's\n\n\
         Written by\n\n```sh\ncargo xtask bench features\n```\n\n\
         {quick}{}. RabbitMQ is Debian's 3.10.8. Release builds; servers and load generator share the machine, and each part has \
         servers that were started for it. A rate is measured for {:.1} s. Rates depend on what else the machine did; the server's \
         processor time for each operation, user and system, hardly does. Ratios above 1 are in Warren's favour.\n",
        description(),
        effort.time.as_secs_f64(),
    )
}

impl Bench {
    /// The same on each side.
    fn each<T>(&self, mut measure: impl FnMut(&Side) -> Result<T>) -> Result<Vec<T>> {
        self.sides.iter().map(&mut measure).collect()
    }

    /// A table of rates and of what they cost.
    fn rates(&self, of_what: &str, per_what: &str, rows: &[(String, Vec<Rate>)]) {
        println!(
            "| {of_what} | Warren | RabbitMQ | ratio | Warren, µs of CPU per {per_what} | RabbitMQ | ratio |\n\
             |---|---:|---:|---:|---:|---:|---:|"
        );
        for (what, rates) in rows {
            let rate = |at: usize| rates.get(at).map(|rate| rate.per_second);
            let cpu = |at: usize| rates.get(at).map(|rate| rate.cpu_us);
            println!(
                "| {what} | {} | {} |",
                compared(rate(0), rate(1), true, thousands),
                compared(cpu(0), cpu(1), false, digits)
            );
        }
        println!();
    }

    /// A table of figures of which less is better.
    fn figures(&self, heading: &str, rows: &[(String, Vec<f64>)]) {
        println!("| {heading} | Warren | RabbitMQ | ratio |\n|---|---:|---:|---:|");
        for (what, values) in rows {
            let value = |at: usize| values.get(at).copied();
            println!("| {what} | {} |", compared(value(0), value(1), false, digits));
        }
        println!();
    }
}

/// `ours | theirs | ratio`, the ratio such that more is better for us; dashes where there is nothing.
fn compared(
    ours: Option<f64>,
    theirs: Option<f64>,
    more_is_better: bool,
    show: impl Fn(f64) -> String,
) -> String {
    let shown = |value: Option<f64>| value.map_or_else(|| "–".into(), &show);
    let ratio = ours.zip(theirs).map(|(ours, theirs)| match more_is_better {
        true => ours / theirs,
        false => theirs / ours,
    });
    let ratio = ratio.filter(|ratio| ratio.is_finite());
    let ratio = ratio.map_or_else(|| "–".into(), |ratio| format!("{ratio:.1}"));
    format!("{} | {} | {ratio}", shown(ours), shown(theirs))
}

/// How fast something was done, and what it cost the server.
#[derive(Clone, Copy, Debug)]
struct Rate {
    per_second: f64,
    /// Microseconds of processor time for one operation.
    cpu_us: f64,
}

impl Rate {
    fn published(report: &Report) -> Self {
        Self::new(report, report.published, report.publish_rate)
    }

    fn consumed(report: &Report) -> Self {
        Self::new(report, report.consumed, report.consume_rate)
    }

    fn new(report: &Report, operations: u64, per_second: f64) -> Self {
        let cpu = report.server.map_or(f64::NAN, |server| server.cpu_seconds);
        Self { per_second, cpu_us: cpu * 1e6 / operations as f64 }
    }
}

/// Measures from its start on.
struct Stint<'s> {
    side: &'s Side,
    start: Instant,
    processor: Duration,
}

impl<'s> Stint<'s> {
    fn start(side: &'s Side) -> Self {
        Self { side, processor: side.group.processor_time(), start: Instant::now() }
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn end(&self, operations: u64) -> Rate {
        let took = self.start.elapsed().as_secs_f64();
        let processor = self.side.group.processor_time().saturating_sub(self.processor);
        Rate {
            per_second: operations as f64 / took,
            cpu_us: processor.as_secs_f64() * 1e6 / operations as f64,
        }
    }
}

/// Queues of these names, all alike.
fn declare_queues(client: &mut Client, names: &[String], like: &queue::Declare<'_>) -> Result<()> {
    calls(client, names.len(), |at| queue::Declare { queue: &names[at], ..like.clone() })
}

fn delete_queues(client: &mut Client, names: &[String]) -> Result<()> {
    calls(client, names.len(), |at| queue::Delete { queue: &names[at], ..queue::Delete::default() })
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_a_dash() {
        assert_eq!(compared(Some(2.0), Some(1.0), true, digits), "2.00 | 1.00 | 2.0");
        assert_eq!(compared(Some(2.0), Some(1.0), false, digits), "2.00 | 1.00 | 0.5");
        assert_eq!(compared(Some(20.0), None, true, digits), "20.0 | – | –");
        assert_eq!(compared(Some(0.0), Some(1000.0), false, digits), "0.00 | 1,000 | –");
    }
}
