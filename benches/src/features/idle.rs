//! What connections and queues take that nobody uses.

use std::io;

use warren_amqp::method::queue;

use super::{Bench, Side, Sizes, declare_queues, names};
use crate::load::Client;
use crate::machine::raise_open_files;

const CONNECTIONS: Sizes = Sizes { warren: 10_000, rabbitmq: 1_000 };
const QUEUES: Sizes = Sizes { warren: 10_000, rabbitmq: 2_000 };

pub(super) fn connections(bench: &Bench) -> io::Result<()> {
    raise_open_files();
    println!("## Idle connections and queues\n");
    println!(
        "Resident memory of a server that has done nothing else, divided by their number. What the kernel holds for \
         sockets is not in it.\n"
    );
    let each = bench.each(|side| {
        let count = CONNECTIONS.of(side, bench.effort);
        let open = || (0..count).map(|_| Client::open(&side.url)).collect::<io::Result<Vec<_>>>();
        kib_each(side, count, open)
    })?;
    let what = CONNECTIONS.told("connections, one channel each", bench.effort);
    bench.figures("KiB resident each", &[(what, each)]);
    Ok(())
}

pub(super) fn queues(bench: &Bench) -> io::Result<()> {
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

fn kib_each<T>(side: &Side, count: usize, make: impl FnOnce() -> io::Result<T>) -> io::Result<f64> {
    let before = side.group.resident_bytes();
    let made = make()?;
    let after = side.group.resident_bytes();
    drop(made);
    Ok((after - before).max(0.0) / 1024.0 / count as f64)
}
