//! Tutorial 6, RPC: asks for a Fibonacci number.
//!
//! `cargo run --example rpc_client 30`

use std::time::Duration;

use warren::amqp::client::{Connection, Error, RpcClient};

fn main() -> Result<(), Error> {
    warren::hub::run(rpc_client)
}

fn rpc_client() -> Result<(), Error> {
    let number = std::env::args().nth(1).unwrap_or_else(|| "30".into());
    let url = std::env::var("AMQP_URL").unwrap_or_else(|_| "amqp://127.0.0.1:5672".into());
    let connection = Connection::open(&url)?;
    let fibonacci = RpcClient::new(&connection)?;
    println!(" [x] Requesting fib({number})");
    let answer = fibonacci.call("rpc_queue", number.as_bytes(), Duration::from_secs(10))?;
    println!(" [.] Got {}", String::from_utf8_lossy(&answer));
    connection.close()
}
