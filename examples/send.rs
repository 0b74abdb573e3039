//! Tutorial 1, "Hello World!": sends one message.
//!
//! `cargo run --example send`

use warren::amqp::client::{Connection, Error, Publish, QueueOptions};
use warren::amqp::{BasicProperties, FieldTable};

fn main() -> Result<(), Error> {
    warren::hub::run(send)
}

fn send() -> Result<(), Error> {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1:5672".into());
    let connection = Connection::open(&url)?;
    let channel = connection.channel()?;
    let options = QueueOptions {
        durable: true,
        arguments: FieldTable::new().with("x-queue-type", "quorum"),
        ..QueueOptions::default()
    };
    channel.queue_declare("hello", options)?;
    channel.basic_publish(Publish::to("", "hello"), &BasicProperties::new(), b"Hello World!")?;
    println!(" [x] Sent 'Hello World!'");
    connection.close()
}
