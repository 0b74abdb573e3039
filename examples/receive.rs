//! Tutorial 1, "Hello World!": receives messages.
//!
//! `cargo run --example receive`

use warren::amqp::FieldTable;
use warren::amqp::client::{Connection, ConsumeOptions, Error, QueueOptions};

fn main() -> Result<(), Error> {
    warren::hub::run(receive)
}

fn receive() -> Result<(), Error> {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1:5672".into());
    let channel = Connection::open(&url)?.channel()?;
    let options = QueueOptions {
        durable: true,
        arguments: FieldTable::new().with("x-queue-type", "quorum"),
        ..QueueOptions::default()
    };
    channel.queue_declare("hello", options)?;
    let no_ack = ConsumeOptions { no_ack: true, ..ConsumeOptions::default() };
    let deliveries = channel.basic_consume("hello", no_ack)?;
    println!(" [*] Waiting for messages. To exit press CTRL+C");
    for delivery in deliveries {
        println!(" [x] Received {}", String::from_utf8_lossy(&delivery?.body));
    }
    Ok(())
}
