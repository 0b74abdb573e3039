//! Priorities.

use std::io;

use warren_amqp::method::queue;
use warren_amqp::{BasicProperties, FieldTable};

use super::flow::Backlog;
use super::{Bench, Sizes};
use crate::load::{BATCH, Batch};

const MESSAGES: Sizes = Sizes { warren: 500_000, rabbitmq: 100_000 };

pub(super) fn run(bench: &Bench) -> io::Result<()> {
    println!("## A queue of 10 priorities\n");
    let name = "bench-levels";
    let arguments = FieldTable::new().with("x-max-priority", 10);
    let queue = queue::Declare { queue: name, arguments, ..queue::Declare::default() };
    let mut batch = Batch::default();
    for number in 0..BATCH {
        let priority = Some((number % 11) as u8);
        let properties = BasicProperties { priority, ..BasicProperties::new() };
        batch.push("", name, &properties, &[b'x'; 16]);
    }
    let runs = bench.each(|side| {
        let count = (MESSAGES.of(side, bench.effort) as u64).next_multiple_of(BATCH);
        let backlog = Backlog { queue: &queue, batch: &batch, count, confirms: false };
        backlog.run(side, || {})
    })?;
    let what = MESSAGES.told("messages of 16 B", bench.effort);
    let rows = [
        (format!("{what}, enqueued"), runs.iter().map(|(filled, _)| *filled).collect()),
        (format!("{what}, drained"), runs.iter().map(|(_, emptied)| *emptied).collect()),
    ];
    bench.rates("messages/s", "message", &rows);
    Ok(())
}
