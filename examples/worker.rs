//! Tutorial 2, work queues: works on tasks, a second for each dot, one task at a time.
//!
//! `cargo run --example worker`

use std::time::Duration;

use warren::amqp::FieldTable;
use warren::amqp::client::{Connection, ConsumeOptions, Error, QueueOptions};
use warren::hub::sleep;

fn main() -> Result<(), Error> {
    warren::hub::run(worker)
}

fn worker() -> Result<(), Error> {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1:5672".into());
    let channel = Connection::open(&url)?.channel()?;
    let options = QueueOptions {
        durable: true,
        arguments: FieldTable::new().with("x-queue-type", "quorum"),
        ..QueueOptions::default()
    };
    channel.queue_declare("task_queue", options)?;
    // Whoever is busy gets nothing more: the next task goes to another worker.
    channel.basic_qos(1, false)?;
    let deliveries = channel.basic_consume("task_queue", ConsumeOptions::default())?;
    println!(" [*] Waiting for messages. To exit press CTRL+C");
    for delivery in deliveries {
        let delivery = delivery?;
        let task = String::from_utf8_lossy(&delivery.body);
        println!(" [x] Received {task}");
        let dots = task.matches('.').count() as u32;
        sleep(Duration::from_secs(1) * dots);
        println!(" [x] Done {task}");
        delivery.ack()?;
    }
    Ok(())
}
