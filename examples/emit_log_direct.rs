//! Tutorial 4, routing: sends a log message with a severity.
//!
//! `cargo run --example emit_log_direct -- error "Run. Run. Or it will explode."`

use warren::amqp::BasicProperties;
use warren::amqp::client::{Connection, Error, ExchangeOptions, Publish};

fn main() -> Result<(), Error> {
    warren::hub::run(emit_log_direct)
}

fn emit_log_direct() -> Result<(), Error> {
    let mut words = std::env::args().skip(1);
    let severity = words.next().unwrap_or_else(|| "info".into());
    let words: Vec<String> = words.collect();
    let message = if words.is_empty() { "Hello World!".into() } else { words.join(" ") };
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1:5672".into());
    let connection = Connection::open(&url)?;
    let channel = connection.channel()?;
    channel.exchange_declare("direct_logs", "direct", ExchangeOptions::default())?;
    let publish = Publish::to("direct_logs", &severity);
    channel.basic_publish(publish, &BasicProperties::new(), message.as_bytes())?;
    println!(" [x] Sent {severity}:{message}");
    connection.close()
}
