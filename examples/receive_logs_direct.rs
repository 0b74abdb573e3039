//! Tutorial 4, routing: receives log messages of some severities.
//!
//! `cargo run --example receive_logs_direct -- error`

use std::process::exit;

use warren::amqp::client::{Connection, ConsumeOptions, Error, ExchangeOptions, QueueOptions};

fn main() -> Result<(), Error> {
    let severities: Vec<String> = std::env::args().skip(1).collect();
    if severities.is_empty() {
        eprintln!("Usage: receive_logs_direct [info] [warning] [error]");
        exit(1);
    }
    warren::hub::run(move || receive_logs_direct(&severities))
}

fn receive_logs_direct(severities: &[String]) -> Result<(), Error> {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1:5672".into());
    let channel = Connection::open(&url)?.channel()?;
    channel.exchange_declare("direct_logs", "direct", ExchangeOptions::default())?;
    let own = QueueOptions { exclusive: true, ..QueueOptions::default() };
    let queue = channel.queue_declare("", own)?.queue;
    for severity in severities {
        channel.queue_bind(&queue, "direct_logs", severity)?;
    }
    let no_ack = ConsumeOptions { no_ack: true, ..ConsumeOptions::default() };
    let deliveries = channel.basic_consume(&queue, no_ack)?;
    println!(" [*] Waiting for logs. To exit press CTRL+C");
    for delivery in deliveries {
        let delivery = delivery?;
        println!(" [x] {}:{}", delivery.routing_key, String::from_utf8_lossy(&delivery.body));
    }
    Ok(())
}
