//! Tutorial 3, publish/subscribe: receives all log messages from now on.
//!
//! `cargo run --example receive_logs`

use warren::amqp::client::{Connection, ConsumeOptions, Error, ExchangeOptions, QueueOptions};

fn main() -> Result<(), Error> {
    warren::hub::run(receive_logs)
}

fn receive_logs() -> Result<(), Error> {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1:5672".into());
    let channel = Connection::open(&url)?.channel()?;
    channel.exchange_declare("logs", "fanout", ExchangeOptions::default())?;
    // A queue of our own, whose name the server makes, and which goes with us.
    let own = QueueOptions { exclusive: true, ..QueueOptions::default() };
    let queue = channel.queue_declare("", own)?.queue;
    channel.queue_bind(&queue, "logs", "")?;
    let no_ack = ConsumeOptions { no_ack: true, ..ConsumeOptions::default() };
    let deliveries = channel.basic_consume(&queue, no_ack)?;
    println!(" [*] Waiting for logs. To exit press CTRL+C");
    for delivery in deliveries {
        println!(" [x] {}", String::from_utf8_lossy(&delivery?.body));
    }
    Ok(())
}
