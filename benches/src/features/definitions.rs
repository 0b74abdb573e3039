//! Declaring, binding and deleting.

use std::time::Duration;

use anyhow::Result;
use warren::perf::Client;
use warren_amqp::method::{EncodeMethod, exchange, queue};

use super::{Bench, Rate, Side, Sizes, Stint, names};
use crate::load::{PIPELINE, calls};

/// At most so many, and for as long as the effort says.
const PIPELINED: Sizes = Sizes { warren: 20_000, rabbitmq: 1_000 };
const SINGLE: Sizes = Sizes { warren: 5_000, rabbitmq: 500 };

pub(super) fn run(bench: &Bench) -> Result<()> {
    println!("## Declare, bind, delete\n");
    println!(
        "By one client on one channel, of which each request is answered before the next one is sent, or which sends up \
         to {PIPELINE} of them before it reads the answers. What is durable is on disk when Warren \
         answers.\n"
    );
    for durable in [false, true] {
        for pipeline in [1, PIPELINE] {
            let sizes = if pipeline == 1 { SINGLE } else { PIPELINED };
            let rounds = bench.each(|side| {
                let most = sizes.of(side, bench.effort);
                round(side, durable, pipeline, most, bench.effort.time / 2)
            })?;
            let rows: Vec<_> = STEPS
                .iter()
                .enumerate()
                .map(|(at, step)| {
                    let rates = rounds.iter().map(|rates| rates[at]).collect();
                    ((*step).to_owned(), rates)
                })
                .collect();
            let kind = if durable { "durable" } else { "transient" };
            let how = if pipeline == 1 { "one at a time" } else { "pipelined" };
            bench.rates(&format!("{kind}, {how}: requests/s"), "request", &rows);
        }
    }
    Ok(())
}

const STEPS: &[&str] = &[
    "exchange.declare",
    "queue.declare",
    "queue.bind",
    "queue.unbind",
    "queue.delete of a queue that is bound",
    "exchange.delete",
];

/// A rate for each of the steps. All that is declared is gone in the end.
fn round(
    side: &Side,
    durable: bool,
    pipeline: usize,
    most: usize,
    time: Duration,
) -> Result<Vec<Rate>> {
    let mut client = Client::open(&side.url)?;
    let (names, all) = (names("bench-definition", most), most);
    let exchange = exchange::Declare {
        exchange: "bench-definitions",
        kind: "direct",
        durable,
        ..exchange::Declare::default()
    };
    client.call(&exchange)?;
    let source = exchange.exchange;
    let mut rates = Vec::new();
    let exchanges = timed(side, &mut client, pipeline, all, time, |at| exchange::Declare {
        exchange: &names[at],
        ..exchange.clone()
    })?;
    let queues = timed(side, &mut client, pipeline, all, time, |at| queue::Declare {
        queue: &names[at],
        durable,
        ..queue::Declare::default()
    })?;
    let bind = |at: usize| queue::Bind {
        queue: &names[at],
        exchange: source,
        routing_key: &names[at],
        ..queue::Bind::default()
    };
    let forever = Duration::MAX;
    let bound = timed(side, &mut client, pipeline, queues.0, forever, bind)?;
    let unbound = timed(side, &mut client, pipeline, queues.0, forever, |at| queue::Unbind {
        queue: &names[at],
        exchange: source,
        routing_key: &names[at],
        ..queue::Unbind::default()
    })?;
    calls(&mut client, queues.0, bind)?;
    let deleted = timed(side, &mut client, pipeline, queues.0, forever, |at| queue::Delete {
        queue: &names[at],
        ..queue::Delete::default()
    })?;
    let gone = timed(side, &mut client, pipeline, exchanges.0, forever, |at| exchange::Delete {
        exchange: &names[at],
        ..exchange::Delete::default()
    })?;
    client.call(&exchange::Delete { exchange: source, ..exchange::Delete::default() })?;
    rates.extend([exchanges.1, queues.1, bound.1, unbound.1, deleted.1, gone.1]);
    Ok(rates)
}

/// How many requests were made until the time was over, and how fast.
fn timed<M: EncodeMethod>(
    side: &Side,
    client: &mut Client,
    pipeline: usize,
    most: usize,
    time: Duration,
    method: impl Fn(usize) -> M,
) -> Result<(usize, Rate)> {
    let stint = Stint::start(side);
    let mut made = 0;
    while made < most && (made == 0 || stint.elapsed() < time) {
        let count = pipeline.min(most - made);
        client.calls((made..made + count).map(&method))?;
        made += count;
    }
    Ok((made, stint.end(made as u64)))
}
