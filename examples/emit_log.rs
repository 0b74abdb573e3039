//! Tutorial 3, publish/subscribe: sends a log message to all who listen.
//!
//! `cargo run --example emit_log -- "info: it works"`

use warren::amqp::BasicProperties;
use warren::amqp::client::{Connection, Error, ExchangeOptions, Publish};

fn main() -> Result<(), Error> {
    warren::hub::run(emit_log)
}

fn emit_log() -> Result<(), Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let message = if words.is_empty() { "info: Hello World!".into() } else { words.join(" ") };
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1:5672".into());
    let connection = Connection::open(&url)?;
    let channel = connection.channel()?;
    channel.exchange_declare("logs", "fanout", ExchangeOptions::default())?;
    channel.basic_publish(Publish::to("logs", ""), &BasicProperties::new(), message.as_bytes())?;
    println!(" [x] Sent {message}");
    connection.close()
}
