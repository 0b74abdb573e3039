//! (f): ten million messages that wait, then go.

use anyhow::Result;
use warren::perf::{Client, Options};
use warren_amqp::method::queue;

use super::{Bench, Case, Goal, Row, Sizes, each, sizes};
use crate::load::{bytes, cpu_per_million, drain, fill, persistent, quiet};
use crate::machine::with_peak;
use crate::side::Side;

pub(super) const MESSAGES: Sizes = sizes(10_000_000, 500_000);

pub(super) const CASE: Case = Case {
    letter: 'f',
    title: "10,000,000 messages of 16 B (RabbitMQ: 500,000), enqueued and then drained",
    story: "One publisher with at most 2,000 unconfirmed messages, then one consumer without acknowledgements. Disk is what the \
            server has in use when the queue is full, whose name, a part of each stored message, has five letters.",
    run,
};

fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (is_persistent, kind) in [(false, "transient"), (true, "persistent")] {
        let runs = bench.both(|_, side| one(bench, side, is_persistent))?;
        let row =
            |what: &str, of: fn(&Run) -> f64| Row::cost(format!("{kind}: {what}"), each(&runs, of));
        let rate =
            |what: &str, of: fn(&Run) -> f64| Row::rate(format!("{kind}: {what}"), each(&runs, of));
        let disk = row("bytes of disk per message", |run| run.disk / run.count);
        rows.extend([
            rate("enqueued, messages/s", |run| run.filled.0),
            row("server's CPU to enqueue, s per million", |run| run.filled.1),
            rate("drained, messages/s", |run| run.drained.0),
            row("server's CPU to drain, s per million", |run| run.drained.1),
            row("MB resident when all are queued", |run| run.memory / 1e6).goal(Goal::AtMost(50.0)),
            row("MB resident at most", |run| run.peak / 1e6),
            row("bytes of memory per message", |run| (run.memory - run.empty).max(0.0) / run.count),
            if is_persistent { disk.goal(Goal::AtMost(45.0)) } else { disk },
        ]);
    }
    Ok(rows)
}

struct Run {
    count: f64,
    /// Messages per second, and what they cost.
    filled: (f64, f64),
    drained: (f64, f64),
    /// Resident bytes: of an empty server, with all that waits, and at most.
    empty: f64,
    memory: f64,
    peak: f64,
    disk: f64,
}

fn one(bench: &Bench, side: &Side, is_persistent: bool) -> Result<Run> {
    let count = MESSAGES.of(side, bench.effort) as u64;
    let name = "bench";
    let (empty, disk_before) = (side.group.resident_bytes(), side.disk_bytes());
    let mut full = (0.0, 0.0);
    let (runs, peak) = with_peak(side.group, || {
        let filled = enqueue(side, name, count, is_persistent)?;
        full = (side.group.resident_bytes(), side.disk_bytes());
        let drained = drain(&side.url, &[name.to_owned()], count)?;
        let drained = (drained.consume_rate, cpu_per_million(&drained));
        anyhow::Ok((filled, drained))
    });
    let (filled, drained) = runs?;
    let disk = (full.1 - disk_before).max(0.0);
    Ok(Run { count: count as f64, filled, drained, empty, memory: full.0, peak, disk })
}

/// Declares a queue and fills it. Gives messages per second and the server's seconds per million.
pub(super) fn enqueue(
    side: &Side,
    name: &str,
    count: u64,
    is_persistent: bool,
) -> Result<(f64, f64)> {
    let queue = queue::Declare { queue: name, durable: is_persistent, ..queue::Declare::default() };
    Client::open(&side.url)?.call(&queue)?;
    let options = Options {
        queue: vec![name.into()],
        size: bytes(16),
        flag: if is_persistent { persistent() } else { Vec::new() },
        ..quiet(&side.url)
    };
    let filled = fill(count, options)?;
    Ok((filled.publish_rate, cpu_per_million(&filled)))
}
