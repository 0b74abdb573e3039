//! One message to a thousand queues.

use std::io;

use warren_amqp::BasicProperties;
use warren_amqp::method::{exchange, queue};

use super::flow::Flow;
use super::{Bench, Rate, Sizes, declare_queues, definitions, names};
use crate::load::{Batch, Client, Consumer, Publisher};

const QUEUES: Sizes = Sizes::same(1_000);
/// Messages that stay in each of them.
const KEPT: Sizes = Sizes { warren: 1_000, rabbitmq: 200 };
const EXCHANGE: &str = "bench-fanout";

pub(super) fn run(bench: &Bench) -> io::Result<()> {
    let queues_told = QUEUES.told("queues", bench.effort);
    println!("## Fanout to {queues_told}\n");
    let body = [b'x'; 100];
    let mut rates = Vec::new();
    let mut kept = Vec::new();
    for side in &bench.sides {
        let queues = names("bench-fanout", QUEUES.of(side, bench.effort));
        let mut client = Client::open(&side.url)?;
        let exchange = EXCHANGE;
        client.call(&exchange::Declare {
            exchange,
            kind: "fanout",
            ..exchange::Declare::default()
        })?;
        declare_queues(&mut client, &queues, &queue::Declare::default())?;
        definitions::calls(&mut client, queues.len(), |at| queue::Bind {
            queue: &queues[at],
            exchange,
            ..queue::Bind::default()
        })?;
        let batch = Batch::same(1, EXCHANGE, "", &BasicProperties::new(), &body);
        // First what stays, while the server holds no memory that load has left behind.
        let (before, count) = (side.group.resident_bytes(), KEPT.of(side, bench.effort));
        let mut publisher = Publisher::open(&side.url, false)?;
        for _ in 0..count {
            publisher.publish(&batch)?;
        }
        publisher.settle(&queues[queues.len() - 1])?;
        let bytes = (side.group.resident_bytes() - before).max(0.0);
        kept.push(bytes / (count * queues.len()) as f64);
        let consumer = Consumer::of(&side.url, &queues)?;
        consumer.wait_for((count * queues.len()) as u64)?;
        let deliveries = queues.len() as u64;
        let flow = Flow { batch: &batch, deliveries, confirms: false, queue: &queues[0] };
        let rate = flow.run(side, bench.effort, Some(&consumer))?;
        rates.push(Rate {
            operations: rate.operations * deliveries,
            per_second: rate.per_second * deliveries as f64,
            cpu_us: rate.cpu_us / deliveries as f64,
        });
    }
    bench.rates("messages/s", "delivery", &[("100 B, delivered".into(), rates)]);
    let what = KEPT.told("messages of 100 B in each queue", bench.effort);
    bench.figures("bytes resident for a message in a queue", &[(what, kept)]);
    Ok(())
}
