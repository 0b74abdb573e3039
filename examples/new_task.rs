//! Tutorial 2, work queues: sends a task, which survives the server. Each dot stands for work.
//!
//! `cargo run --example new_task -- "A very hard task.."`

use warren::amqp::client::{Connection, Error, Publish, QueueOptions};
use warren::amqp::{BasicProperties, FieldTable};

fn main() -> Result<(), Error> {
    warren::hub::run(new_task)
}

fn new_task() -> Result<(), Error> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let message = if words.is_empty() { "Hello World!".into() } else { words.join(" ") };
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1:5672".into());
    let connection = Connection::open(&url)?;
    let channel = connection.channel()?;
    let options = QueueOptions {
        durable: true,
        arguments: FieldTable::new().with("x-queue-type", "quorum"),
        ..QueueOptions::default()
    };
    channel.queue_declare("task_queue", options)?;
    channel.basic_publish(
        Publish::to("", "task_queue"),
        &BasicProperties::persistent(),
        message.as_bytes(),
    )?;
    println!(" [x] Sent {message}");
    connection.close()
}
