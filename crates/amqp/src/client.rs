//! A client on fibers: every call reads as if it blocked, and only its own fiber waits.
//!
//! ```no_run
//! use warren_amqp::BasicProperties;
//! use warren_amqp::client::{Connection, ConsumeOptions, Publish, QueueOptions};
//!
//! warren_hub::run(|| {
//!     let connection = Connection::open("amqp://guest:guest@127.0.0.1:5672/")?;
//!     let channel = connection.channel()?;
//!     channel.queue_declare("tasks", QueueOptions { durable: true, ..QueueOptions::default() })?;
//!     channel.basic_publish(Publish::to("", "tasks"), &BasicProperties::persistent(), b"do this")?;
//!     for delivery in channel.basic_consume("tasks", ConsumeOptions::default())? {
//!         let delivery = delivery?;
//!         println!("{}", String::from_utf8_lossy(&delivery.body));
//!         delivery.ack()?;
//!     }
//!     connection.close()
//! })?;
//! # Ok::<(), warren_amqp::client::Error>(())
//! ```
//!
//! A [`RobustConnection`] comes back when it is lost, with what was declared and consumed over it.
//!
//! One fiber per connection reads and hands out what comes, one writes what calls have left in a buffer, so calls
//! of many fibers share their system calls. Handles are cheap to clone and belong to the hub they were made on.

mod channel;
mod connection;
mod consumer;
mod error;
mod handshake;
mod options;
mod publish;
mod recovery;
mod rpc;
mod state;
mod stream;

pub use channel::{Channel, GetOk};
pub use connection::Connection;
pub use consumer::{Consumer, Delivery};
pub use error::{Close, Error};
pub use options::{
    ConsumeOptions, ExchangeOptions, Publish, QueueDeclared, QueueOptions, Returned,
};
pub use publish::Confirm;
pub use recovery::{RecoveryOptions, RobustChannel, RobustConnection, RobustConsumer};
pub use rpc::RpcClient;
