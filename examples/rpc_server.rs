//! Tutorial 6, RPC: computes Fibonacci numbers for whoever asks.
//!
//! `cargo run --example rpc_server`

use warren::amqp::BasicProperties;
use warren::amqp::client::{Connection, ConsumeOptions, Error, Publish, QueueOptions};

fn main() -> Result<(), Error> {
    warren::hub::run(rpc_server)
}

fn fib(n: u64) -> u64 {
    (0..n).fold((0, 1), |(one, two), _| (two, one + two)).0
}

fn rpc_server() -> Result<(), Error> {
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1:5672".into());
    let channel = Connection::open(&url)?.channel()?;
    channel.queue_declare("rpc_queue", QueueOptions::default())?;
    channel.basic_qos(1, false)?;
    let requests = channel.basic_consume("rpc_queue", ConsumeOptions::default())?;
    println!(" [x] Awaiting RPC requests");
    for request in requests {
        let request = request?;
        let number = String::from_utf8_lossy(&request.body).parse().unwrap_or(0);
        println!(" [.] fib({number})");
        let mut properties = BasicProperties::new();
        properties.correlation_id = request.properties.correlation_id.clone();
        let reply_to = request.properties.reply_to.as_deref().unwrap_or_default();
        let answer = fib(number).to_string();
        channel.basic_publish(Publish::to("", reply_to), &properties, answer.as_bytes())?;
        request.ack()?;
    }
    Ok(())
}
