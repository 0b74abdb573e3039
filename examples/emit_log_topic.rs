//! Tutorial 5, topics: sends a log message with a routing key.
//!
//! `cargo run --example emit_log_topic -- "kern.critical" "A critical kernel error"`

use warren::amqp::BasicProperties;
use warren::amqp::client::{Connection, Error, ExchangeOptions, Publish};

fn main() -> Result<(), Error> {
    warren::hub::run(emit_log_topic)
}

fn emit_log_topic() -> Result<(), Error> {
    let mut words = std::env::args().skip(1);
    let routing_key = words.next().unwrap_or_else(|| "anonymous.info".into());
    let words: Vec<String> = words.collect();
    let message = if words.is_empty() { "Hello World!".into() } else { words.join(" ") };
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1:5672".into());
    let connection = Connection::open(&url)?;
    let channel = connection.channel()?;
    channel.exchange_declare("topic_logs", "topic", ExchangeOptions::default())?;
    let publish = Publish::to("topic_logs", &routing_key);
    channel.basic_publish(publish, &BasicProperties::new(), message.as_bytes())?;
    println!(" [x] Sent {routing_key}:{message}");
    connection.close()
}
