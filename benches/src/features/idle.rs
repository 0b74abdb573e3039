//! What queues take that nobody uses.

use anyhow::Result;
use warren::perf::Client;
use warren_amqp::method::queue;

use super::{Bench, Side, Sizes, declare_queues, names};

const QUEUES: Sizes = Sizes { warren: 10_000, rabbitmq: 2_000 };

pub(super) fn run(bench: &Bench) -> Result<()> {
    println!("## Idle queues\n");
    println!("Resident memory of a server that has done nothing else, divided by their number.\n");
    let mut rows = Vec::new();
    for (durable, kind) in [(false, "transient queues"), (true, "durable queues")] {
        let each = bench.each(|side| {
            let count = QUEUES.of(side, bench.effort);
            let names = names(&format!("bench-{durable}"), count);
            let mut client = Client::open(&side.url)?;
            let like = queue::Declare { durable, ..queue::Declare::default() };
            kib_each(side, count, || declare_queues(&mut client, &names, &like))
        })?;
        rows.push((QUEUES.told(kind, bench.effort), each));
    }
    bench.figures("KiB resident each", &rows);
    Ok(())
}

fn kib_each<T>(side: &Side, count: usize, make: impl FnOnce() -> Result<T>) -> Result<f64> {
    let before = side.group.resident_bytes();
    let made = make()?;
    let after = side.group.resident_bytes();
    drop(made);
    Ok((after - before).max(0.0) / 1024.0 / count as f64)
}
