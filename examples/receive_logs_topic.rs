//! Tutorial 5, topics: receives log messages of some binding keys.
//!
//! `cargo run --example receive_logs_topic -- "kern.*" "*.critical"`

use std::process::exit;

use warren::amqp::client::{Connection, ConsumeOptions, Error, ExchangeOptions, QueueOptions};

fn main() -> Result<(), Error> {
    let binding_keys: Vec<String> = std::env::args().skip(1).collect();
    if binding_keys.is_empty() {
        eprintln!("Usage: receive_logs_topic [binding_key]...");
        exit(1);
    }
    warren::hub::run(move || receive_logs_topic(&binding_keys))
}

fn receive_logs_topic(binding_keys: &[String]) -> Result<(), Error> {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1:5672".into());
    let channel = Connection::open(&url)?.channel()?;
    channel.exchange_declare("topic_logs", "topic", ExchangeOptions::default())?;
    let own = QueueOptions { exclusive: true, ..QueueOptions::default() };
    let queue = channel.queue_declare("", own)?.queue;
    for binding_key in binding_keys {
        channel.queue_bind(&queue, "topic_logs", binding_key)?;
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
