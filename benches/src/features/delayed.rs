//! A million messages that wait for a time of their own.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use warren_amqp::method::{exchange, queue};
use warren_amqp::{BasicProperties, FieldTable};

use super::{Bench, Sizes, Stint, delete_queues};
use crate::load::{BATCH, Batch, Client, Consumer, Publisher};

const MESSAGES: Sizes = Sizes::same(1_000_000);
/// When the first of them is due, and how long after it the last one.
const FIRST: Duration = Duration::from_secs(12);
const SPREAD: Duration = Duration::from_secs(10);
const EXCHANGE: &str = "bench-delayed";

pub(super) fn run(bench: &Bench) -> io::Result<()> {
    // RabbitMQ's plugin does not come with it.
    let Some(side) = bench.sides.iter().find(|side| !side.is_rabbitmq) else { return Ok(()) };
    let count = MESSAGES.of(side, bench.effort) as u64;
    let scale = if bench.effort.divisor == 1 { 1 } else { 20 };
    let (first, spread) = (FIRST / scale, SPREAD / scale);
    println!("## {}\n", MESSAGES.told("delayed messages", bench.effort));
    println!(
        "Of 16 B, due in random order within {:.1} s. How late one came is measured where it was consumed, from when it \
         had been published by the client. RabbitMQ's plugin for them does not come with it.\n",
        spread.as_secs_f64()
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
    let lateness =
        Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3).map_err(io::Error::other)?;
    let lateness = Arc::new(Mutex::new(lateness));
    let (noted, epoch) = (lateness.clone(), Instant::now());
    let look = move |body: &[u8]| {
        let due_us = body.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let late_us = (epoch.elapsed().as_micros() as u64).saturating_sub(due_us);
        let mut lateness = noted.lock().unwrap_or_else(PoisonError::into_inner);
        lateness.saturating_record(late_us.max(1));
    };
    let settle = crate::load::Settle::NoAck;
    let consumer = Consumer::start(&side.url, &queues, settle, &FieldTable::new(), look)?;
    let memory = side.group.resident_bytes();
    let stint = Stint::start(side);
    let mut publisher = Publisher::open(&side.url, false)?;
    let mut random = 1;
    while publisher.published() < count {
        let now = epoch.elapsed();
        let mut batch = Batch::default();
        for _ in 0..BATCH {
            random = next_random(random);
            // From the same moment on for all of them, so that they are due in another order than they came.
            let due = first + spread.mul_f64((random >> 32) as f64 / u32::MAX as f64);
            let delay_ms = due.saturating_sub(now).as_millis() as i32;
            let due_us = (now + Duration::from_millis(delay_ms as u64)).as_micros() as u64;
            let properties = BasicProperties::new().with_header("x-delay", delay_ms);
            let body = [due_us.to_be_bytes(), [0; 8]].concat();
            batch.push(EXCHANGE, "", &properties, &body);
        }
        publisher.publish(&batch)?;
    }
    publisher.settle(&queues[0])?;
    let published = stint.end(publisher.published());
    let bytes = (side.group.resident_bytes() - memory).max(0.0);
    let early = consumer.count();
    let stint = Stint::start(side);
    consumer.wait_for(publisher.published())?;
    let delivered = stint.end(publisher.published() - early);
    bench.rates("messages/s", "message", &[("scheduled".into(), vec![published])]);
    let lateness = lateness.lock().unwrap_or_else(PoisonError::into_inner);
    let late = |quantile| lateness.value_at_quantile(quantile) as f64 / 1000.0;
    bench.figures(
        "when all are scheduled, and when they are due",
        &[
            ("bytes of memory per message that waits".into(), vec![bytes / count as f64]),
            ("µs of CPU for each that is due and delivered".into(), vec![delivered.cpu_us]),
            ("ms late, median".into(), vec![late(0.5)]),
            ("ms late, 99 of 100 at most".into(), vec![late(0.99)]),
            ("ms late, at most".into(), vec![lateness.max() as f64 / 1000.0]),
        ],
    );
    if 0 < early {
        println!("{early} were due before all were scheduled.\n");
    }
    drop(consumer);
    client.call(&exchange::Delete { exchange, ..exchange::Delete::default() })?;
    delete_queues(&mut client, &queues)
}

/// Knuth's generator, of which the upper bits are good enough to spread times.
fn next_random(last: u64) -> u64 {
    last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407)
}
