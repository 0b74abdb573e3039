//! Streams.

use std::io;

use warren_amqp::method::queue;
use warren_amqp::{BasicProperties, FieldTable};

use super::flow::Flow;
use super::{Bench, Rate, Side, Stint, delete_queues};
use crate::load::{BATCH, Batch, Client, Consumer, Settle};

/// What a reader holds unacknowledged.
const PREFETCH: u16 = 2_000;
const BODY_BYTES: usize = 100;

pub(super) fn run(bench: &Bench) -> io::Result<()> {
    println!("## Streams\n");
    println!(
        "Messages of {BODY_BYTES} B, published with confirms by one client; then read from the first on by another, which \
         acknowledges what each read has brought and holds {PREFETCH} at most.\n"
    );
    let runs = bench.each(|side| one(bench, side))?;
    let rows = [
        ("published, confirmed".into(), runs.iter().map(|run| run.0).collect()),
        ("replayed".into(), runs.iter().map(|run| run.1).collect()),
    ];
    bench.rates("messages/s", "message", &rows);
    Ok(())
}

fn one(bench: &Bench, side: &Side) -> io::Result<(Rate, Rate)> {
    let name = "bench-stream";
    let mut client = Client::open(&side.url)?;
    let arguments = FieldTable::new().with("x-queue-type", "stream");
    client.call(&queue::Declare {
        queue: name,
        durable: true,
        arguments,
        ..queue::Declare::default()
    })?;
    let batch = Batch::same(BATCH, "", name, &BasicProperties::persistent(), &[b'x'; BODY_BYTES]);
    let flow = Flow { batch: &batch, deliveries: 0, confirms: true, queue: name };
    let published = flow.run(side, bench.effort, None)?;
    let stint = Stint::start(side);
    let first = FieldTable::new().with("x-stream-offset", "first");
    let queues = [name.to_owned()];
    let consumer = Consumer::start(&side.url, &queues, Settle::Ack(PREFETCH), &first, |_| {})?;
    consumer.wait_for(published.operations)?;
    let replayed = stint.end(consumer.count());
    drop(consumer);
    delete_queues(&mut client, &queues)?;
    Ok((published, replayed))
}
