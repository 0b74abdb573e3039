//! Dead letters.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Result;
use warren::perf::{self, Client, Options};
use warren_amqp::FieldTable;
use warren_amqp::method::queue;

use super::flow::{Flow, to};
use super::{Bench, Rate, Side, delete_queues};
use crate::load::quiet;

/// What a consumer holds that rejects.
const PREFETCH: u16 = 1_000;
/// What it rejects at once.
const AT_ONCE: u64 = 100;

pub(super) fn run(bench: &Bench) -> Result<()> {
    println!("## Dead letters\n");
    println!(
        "Each message of 16 B is published to one queue, leaves it for the reason told, goes on to a second one and is \
         consumed there.\n"
    );
    let expired = FieldTable::new().with("x-message-ttl", 0);
    let rows = [
        ("expired at once".into(), bench.each(|side| one(bench, side, expired.clone(), false))?),
        (
            format!("rejected by a consumer, {AT_ONCE} at once"),
            bench.each(|side| one(bench, side, FieldTable::new(), true))?,
        ),
    ];
    bench.rates("messages/s", "message", &rows);
    Ok(())
}

fn one(bench: &Bench, side: &Side, arguments: FieldTable, rejected: bool) -> Result<Rate> {
    let queues = ["bench-letters".to_owned(), "bench-dead".to_owned()];
    let mut client = Client::open(&side.url)?;
    let arguments =
        arguments.with("x-dead-letter-exchange", "").with("x-dead-letter-routing-key", &*queues[1]);
    client.call(&queue::Declare { queue: &queues[0], arguments, ..queue::Declare::default() })?;
    client.call(&queue::Declare { queue: &queues[1], ..queue::Declare::default() })?;
    let rejecting = Options {
        producers: 0,
        queue: queues[..1].to_vec(),
        predeclared: true,
        nack: true,
        requeue: false,
        multi_ack_every: AT_ONCE,
        qos: PREFETCH,
        ..quiet(&side.url)
    };
    let flow = Flow {
        exchange: ("amq.default", "direct"),
        messages: &[to(&queues[0])],
        body_bytes: 16,
        confirms: false,
        queues: &queues[1..],
        arrives: true,
    };
    let over = AtomicBool::new(false);
    let rate = thread::scope(|scope| {
        let rejecting = rejected.then(|| scope.spawn(|| perf::run(&rejecting, &over, &mut |_| {})));
        let rate = flow.run(side, bench.effort);
        over.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = rejecting.map(thread::ScopedJoinHandle::join) {
            return Err(error);
        }
        rate
    })?;
    delete_queues(&mut client, &queues)?;
    Ok(rate.1)
}
