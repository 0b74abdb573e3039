//! (i): one message in a hundred durable queues.

use anyhow::Result;
use warren::perf::Options;

use super::{Bench, Case, Goal, Row, Sizes, each, sizes};
use crate::load::{bytes, measured, persistent, quiet};

const MESSAGES: Sizes = sizes(20_000, 500);
const QUEUES: usize = 100;
const BODY_BYTES: usize = 1024;

pub(super) const CASE: Case = Case {
    letter: 'i',
    title: "Fanout of 1 KiB to 100 durable queues",
    story: "One publisher with at most 1,000 unconfirmed messages, which stay in all queues. Bytes are those that the server has \
            given to the file system, counted by the kernel in pages; the target is the body once, and some bytes for each queue.",
    run,
};

fn run(bench: &Bench) -> Result<Vec<Row>> {
    let runs = bench.both(|_, side| {
        let count = MESSAGES.of(side, bench.effort);
        let before = side.group.written_bytes();
        let run = measured(Options {
            consumers: 0,
            kind: Some("fanout".into()),
            exchange: Some("bench-fanout".into()),
            queue: (0..QUEUES).map(|number| format!("bench-fanout-{number}")).collect(),
            auto_delete: Some(false),
            size: bytes(BODY_BYTES),
            flag: persistent(),
            confirm: Some(1000),
            pmessages: Some(count as u64),
            ..quiet(&side.url)
        })?;
        let written = (side.group.written_bytes() - before).max(0.0) / count as f64;
        let cpu_us = run.server.map_or(f64::NAN, |server| server.cpu_seconds * 1e6);
        Ok((written, run.publish_rate, cpu_us / (count * QUEUES) as f64))
    })?;
    // The body once, and a record of what is in which queue.
    let most = (BODY_BYTES + 64 + 8 * QUEUES) as f64;
    Ok(vec![
        Row::cost("bytes written per message", each(&runs, |run| run.0)).goal(Goal::AtMost(most)),
        Row::rate("messages/s, published and confirmed", each(&runs, |run| run.1)),
        Row::cost(
            "server's CPU, µs for each queue that a message comes to",
            each(&runs, |run| run.2),
        ),
    ])
}
