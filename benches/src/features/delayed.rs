//! A million messages that wait for a time of their own.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow};
use warren::perf::{Client, Message, Options};
use warren_amqp::method::{exchange, queue};
use warren_amqp::{BasicProperties, FieldTable};

use super::{Bench, Rate, Sizes, Stint, delete_queues};
use crate::load::{bytes, fill, measured, quiet};

const MESSAGES: Sizes = Sizes::same(1_000_000);
/// Different ones.
const DELAYS: usize = 10_000;
/// The shortest delay, and how much longer the longest is.
const FIRST: Duration = Duration::from_secs(12);
const SPREAD: Duration = Duration::from_secs(10);
const EXCHANGE: &str = "bench-delayed";

pub(super) fn run(bench: &Bench) -> Result<()> {
    // RabbitMQ's plugin does not come with it.
    let Some(side) = bench.sides.iter().find(|side| !side.is_rabbitmq) else { return Ok(()) };
    let count = MESSAGES.of(side, bench.effort) as u64;
    let scale = if bench.effort.divisor == 1 { 1 } else { 20 };
    let (first, spread) = (FIRST / scale, SPREAD / scale);
    println!("## {}\n", MESSAGES.told("delayed messages", bench.effort));
    println!(
        "Of 16 B, with delays of {:.0} s to {:.0} s in random order. How late one came is measured where it was consumed, from \
         when it had been published by the client. RabbitMQ's plugin for them does not come with it.\n",
        first.as_secs_f64(),
        (first + spread).as_secs_f64()
    );
    let (queues, mut client) = (["bench-due".to_owned()], Client::open(&side.url)?);
    let arguments = FieldTable::new().with("x-delayed-type", "fanout");
    let (exchange, kind) = (EXCHANGE, "x-delayed-message");
    client.call(&exchange::Declare {
        exchange,
        kind,
        arguments,
        ..exchange::Declare::default()
    })?;
    client.call(&queue::Declare { queue: &queues[0], ..queue::Declare::default() })?;
    client.call(&queue::Bind { queue: &queues[0], exchange, ..queue::Bind::default() })?;
    let memory = side.group.resident_bytes();
    let consume = Options {
        producers: 0,
        queue: queues.to_vec(),
        predeclared: true,
        autoack: true,
        cmessages: Some(count),
        ..quiet(&side.url)
    };
    let publish = Options {
        exchange: Some(exchange.into()),
        kind: Some(kind.into()),
        messages: messages(first, spread),
        size: bytes(16),
        ..quiet(&side.url)
    };
    let (published, waiting, stint, consumed) = thread::scope(|scope| {
        let consumed = scope.spawn(|| measured(consume));
        let published = fill(count, publish)?;
        let waiting = (side.group.resident_bytes() - memory).max(0.0);
        let stint = Stint::start(side);
        let consumed = consumed.join().map_err(|_| anyhow!("the consumer has panicked"))??;
        anyhow::Ok((published, waiting, stint.end(count), consumed))
    })?;
    bench.rates(
        "messages/s",
        "message",
        &[("scheduled".into(), vec![Rate::published(&published)])],
    );
    let late = consumed.deliver_latency.map_or([f64::NAN; 3], |late| {
        [late.p50_us, late.p99_us, late.max_us].map(|us| us / 1000.0)
    });
    bench.figures(
        "when all are scheduled, and when they are due",
        &[
            ("bytes of memory per message that waits".into(), vec![waiting / count as f64]),
            ("µs of CPU for each that is due and delivered".into(), vec![stint.cpu_us]),
            ("ms late, median".into(), vec![late[0]]),
            ("ms late, 99 of 100 at most".into(), vec![late[1]]),
            ("ms late, at most".into(), vec![late[2]]),
        ],
    );
    if first.as_secs_f64() < published.seconds {
        println!("The first were due before all were scheduled.\n");
    }
    client.call(&exchange::Delete { exchange, ..exchange::Delete::default() })?;
    delete_queues(&mut client, &queues)
}

/// Of many delays, in random order.
fn messages(first: Duration, spread: Duration) -> Vec<Message> {
    let mut random = 1;
    let message = |_| {
        random = next_random(random);
        let delay = first + spread.mul_f64((random >> 32) as f64 / u32::MAX as f64);
        let delay_ms = delay.as_millis() as u32;
        Message {
            properties: BasicProperties::new().with_header("x-delay", delay_ms.cast_signed()),
            due_after: Duration::from_millis(delay_ms.into()),
            ..Message::default()
        }
    };
    (0..DELAYS).map(message).collect()
}

/// Knuth's generator, of which the upper bits are good enough to spread times.
fn next_random(last: u64) -> u64 {
    last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}
