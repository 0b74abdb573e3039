//! Dead letters.

use std::io;

use warren_amqp::method::queue;
use warren_amqp::{BasicProperties, FieldTable};

use super::flow::Flow;
use super::{Bench, Rate, Side, delete_queues};
use crate::load::{BATCH, Batch, Client, Consumer, Settle};

/// What a consumer holds that rejects.
const PREFETCH: u16 = 1_000;

pub(super) fn run(bench: &Bench) -> io::Result<()> {
    println!("## Dead letters\n");
    println!(
        "Each message of 16 B is published to one queue, leaves it for the reason told, goes on to a second one and is \
         consumed there.\n"
    );
    let expired = FieldTable::new().with("x-message-ttl", 0);
    let rows = [
        ("expired at once".into(), bench.each(|side| one(bench, side, expired.clone(), false))?),
        (
            format!("rejected by a consumer, {PREFETCH} at a time at most"),
            bench.each(|side| one(bench, side, FieldTable::new(), true))?,
        ),
    ];
    bench.rates("messages/s", "message", &rows);
    Ok(())
}

fn one(bench: &Bench, side: &Side, arguments: FieldTable, rejected: bool) -> io::Result<Rate> {
    let queues = ["bench-letters".to_owned(), "bench-dead".to_owned()];
    let mut client = Client::open(&side.url)?;
    let arguments =
        arguments.with("x-dead-letter-exchange", "").with("x-dead-letter-routing-key", &*queues[1]);
    client.call(&queue::Declare { queue: &queues[0], arguments, ..queue::Declare::default() })?;
    client.call(&queue::Declare { queue: &queues[1], ..queue::Declare::default() })?;
    let consumer = Consumer::of(&side.url, &queues[1..])?;
    let start =
        |settle| Consumer::start(&side.url, &queues[..1], settle, &FieldTable::new(), |_| {});
    let rejecting = rejected.then(|| start(Settle::Reject(PREFETCH))).transpose()?;
    let batch = Batch::same(BATCH, "", &queues[0], &BasicProperties::new(), &[b'x'; 16]);
    let flow = Flow { batch: &batch, deliveries: BATCH, confirms: false, queue: &queues[0] };
    let rate = flow.run(side, bench.effort, Some(&consumer))?;
    drop(rejecting);
    delete_queues(&mut client, &queues)?;
    Ok(rate)
}
