//! Priorities.

use anyhow::Result;
use warren::perf::{Client, Message, Options};
use warren_amqp::method::queue;
use warren_amqp::{BasicProperties, FieldTable};

use super::{Bench, Rate, Sizes, delete_queues};
use crate::load::{bytes, drain, fill, quiet};

const MESSAGES: Sizes = Sizes { warren: 500_000, rabbitmq: 100_000 };

pub(super) fn run(bench: &Bench) -> Result<()> {
    println!("## A queue of 10 priorities\n");
    let queues = ["bench-levels".to_owned()];
    // One of them is more than the queue has.
    let messages = (0..11).map(|priority| Message {
        routing_key: queues[0].clone(),
        properties: BasicProperties { priority: Some(priority), ..BasicProperties::new() },
        ..Message::default()
    });
    let messages: Vec<_> = messages.collect();
    let runs = bench.each(|side| {
        let arguments = FieldTable::new().with("x-max-priority", 10);
        let mut client = Client::open(&side.url)?;
        client.call(&queue::Declare { queue: &queues[0], arguments, ..Default::default() })?;
        let count = MESSAGES.of(side, bench.effort) as u64;
        let filled = fill(
            count,
            Options { messages: messages.clone(), size: bytes(16), ..quiet(&side.url) },
        )?;
        let drained = drain(&side.url, &queues, count)?;
        delete_queues(&mut client, &queues)?;
        Ok((Rate::published(&filled), Rate::consumed(&drained)))
    })?;
    let what = MESSAGES.told("messages of 16 B", bench.effort);
    let rows = [
        (format!("{what}, enqueued, confirmed"), runs.iter().map(|(filled, _)| *filled).collect()),
        (format!("{what}, drained"), runs.iter().map(|(_, drained)| *drained).collect()),
    ];
    bench.rates("messages/s", "message", &rows);
    Ok(())
}
