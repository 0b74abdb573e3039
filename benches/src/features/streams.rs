//! Streams.

use anyhow::Result;
use warren::perf::{Client, Options};
use warren_amqp::FieldTable;
use warren_amqp::method::queue;

use super::{Bench, Rate, Side, Sizes, delete_queues};
use crate::load::{bytes, fill, measured, persistent, quiet};

const MESSAGES: Sizes = Sizes { warren: 2_000_000, rabbitmq: 200_000 };
/// What a reader holds unacknowledged.
const PREFETCH: u16 = 2_000;
/// What it acknowledges at once.
const AT_ONCE: u64 = 500;
const BODY_BYTES: usize = 100;

pub(super) fn run(bench: &Bench) -> Result<()> {
    println!("## Streams\n");
    println!(
        "{} of {BODY_BYTES} B, published with confirms by one client; then read from the first on by another, which \
         acknowledges {AT_ONCE} at once and holds {PREFETCH} at most.\n",
        MESSAGES.told("messages", bench.effort)
    );
    let runs = bench.each(|side| one(bench, side))?;
    let rows = [
        ("published, confirmed".into(), runs.iter().map(|run| run.0).collect()),
        ("replayed".into(), runs.iter().map(|run| run.1).collect()),
    ];
    bench.rates("messages/s", "message", &rows);
    Ok(())
}

fn one(bench: &Bench, side: &Side) -> Result<(Rate, Rate)> {
    let queues = ["bench-stream".to_owned()];
    let mut client = Client::open(&side.url)?;
    let arguments = FieldTable::new().with("x-queue-type", "stream");
    client.call(&queue::Declare {
        queue: &queues[0],
        durable: true,
        arguments,
        ..queue::Declare::default()
    })?;
    let count = MESSAGES.of(side, bench.effort) as u64;
    let options = Options { queue: queues.to_vec(), predeclared: true, ..quiet(&side.url) };
    let (flag, size) = (persistent(), bytes(BODY_BYTES));
    let published = fill(count, Options { flag, size, ..options.clone() })?;
    let replayed = measured(Options {
        producers: 0,
        qos: PREFETCH,
        multi_ack_every: AT_ONCE,
        consumer_args: vec![("x-stream-offset".into(), "first".into())],
        cmessages: Some(count),
        ..options
    })?;
    delete_queues(&mut client, &queues)?;
    Ok((Rate::published(&published), Rate::consumed(&replayed)))
}
