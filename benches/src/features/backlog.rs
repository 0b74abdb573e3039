//! Ten million messages that wait, then go.

use std::io;

use warren_amqp::BasicProperties;
use warren_amqp::method::queue;

use super::flow::Backlog;
use super::{Bench, Side, Sizes};
use crate::load::{BATCH, Batch};
use crate::machine::with_peak;

const MESSAGES: Sizes = Sizes { warren: 10_000_000, rabbitmq: 500_000 };
const MIB: f64 = 1024.0 * 1024.0;

pub(super) fn run(bench: &Bench) -> io::Result<()> {
    println!(
        "## {} of 16 bytes, enqueued and then drained\n",
        MESSAGES.told("messages", bench.effort)
    );
    println!(
        "One publisher, then one consumer without acknowledgements. Memory is what the server has taken at most since it was \
         empty, disk what it had in use when the queue was full; both are divided by the number of messages too.\n"
    );
    for (persistent, kind) in [(false, "transient"), (true, "persistent, confirmed")] {
        let runs = bench.each(|side| one(bench, side, persistent))?;
        let rates = |at: usize| runs.iter().map(|run| run.rates[at]).collect();
        let rows = [("enqueued".into(), rates(0)), ("drained".into(), rates(1))];
        bench.rates(&format!("{kind}: messages/s"), "message", &rows);
        let rows: Vec<_> = ["bytes of memory per message", "bytes of disk per message"]
            .iter()
            .enumerate()
            .map(|(at, what)| {
                ((*what).to_owned(), runs.iter().map(|run| run.per_message[at]).collect())
            })
            .collect();
        bench.figures(kind, &rows);
        let all = runs.iter().zip(["Warren", "RabbitMQ"]).map(|(run, name)| {
            format!("{name} {:.0} MiB of memory and {:.0} MiB of disk", run.mib[0], run.mib[1])
        });
        println!("In all: {}.\n", all.collect::<Vec<_>>().join(", "));
    }
    Ok(())
}

struct Run {
    rates: [super::Rate; 2],
    /// Memory, disk: bytes.
    per_message: [f64; 2],
    mib: [f64; 2],
}

fn one(bench: &Bench, side: &Side, persistent: bool) -> io::Result<Run> {
    let count = (MESSAGES.of(side, bench.effort) as u64).next_multiple_of(BATCH);
    let name = "bench-backlog";
    let queue = queue::Declare { queue: name, durable: persistent, ..queue::Declare::default() };
    let properties =
        if persistent { BasicProperties::persistent() } else { BasicProperties::new() };
    let batch = Batch::same(BATCH, "", name, &properties, &[b'x'; 16]);
    let backlog = Backlog { queue: &queue, batch: &batch, count, confirms: persistent };
    let (memory, disk) = (side.group.resident_bytes(), side.disk_bytes());
    let mut used = 0.0;
    let (rates, peak) =
        with_peak(side.group, || backlog.run(side, || used = side.disk_bytes() - disk));
    let rates = rates?;
    let bytes = [(peak - memory).max(0.0), used.max(0.0)];
    Ok(Run {
        rates: [rates.0, rates.1],
        per_message: bytes.map(|bytes| bytes / count as f64),
        mib: bytes.map(|bytes| bytes / MIB),
    })
}
