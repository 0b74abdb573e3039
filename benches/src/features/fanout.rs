//! One message to a thousand queues.

use anyhow::Result;
use warren::perf::{Client, Message, Options};
use warren_amqp::method::{exchange, queue};

use super::flow::Flow;
use super::{Bench, Sizes, declare_queues, names};
use crate::load::{bytes, calls, drain, fill, quiet};

const QUEUES: Sizes = Sizes::same(1_000);
/// Messages that stay in each of them.
const KEPT: Sizes = Sizes { warren: 1_000, rabbitmq: 200 };
const BODY_BYTES: usize = 100;
const EXCHANGE: &str = "bench-fanout";

pub(super) fn run(bench: &Bench) -> Result<()> {
    let queues_told = QUEUES.told("queues", bench.effort);
    println!("## Fanout to {queues_told}\n");
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
        calls(&mut client, queues.len(), |at| queue::Bind {
            queue: &queues[at],
            exchange,
            ..queue::Bind::default()
        })?;
        // First what stays, while the server holds no memory that load has left behind.
        let (before, count) = (side.group.resident_bytes(), KEPT.of(side, bench.effort));
        fill(
            count as u64,
            Options {
                exchange: Some(EXCHANGE.into()),
                kind: Some("fanout".into()),
                queue: queues.clone(),
                size: bytes(BODY_BYTES),
                ..quiet(&side.url)
            },
        )?;
        let stay = (side.group.resident_bytes() - before).max(0.0);
        kept.push(stay / (count * queues.len()) as f64);
        drain(&side.url, &queues, (count * queues.len()) as u64)?;
        let flow = Flow {
            exchange: (EXCHANGE, "fanout"),
            messages: &[Message::default()],
            body_bytes: BODY_BYTES,
            confirms: false,
            queues: &queues,
            arrives: true,
        };
        rates.push(flow.run(side, bench.effort)?.1);
    }
    bench.rates("messages/s", "delivery", &[("100 B, delivered".into(), rates)]);
    let what = KEPT.told("messages of 100 B in each queue", bench.effort);
    bench.figures("bytes resident for a message in a queue", &[(what, kept)]);
    Ok(())
}
