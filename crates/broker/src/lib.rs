//! A message broker that speaks AMQP 0-9-1 as RabbitMQ does.
//!
//! [`Broker`] lives on one hub. Its [`factory`](Broker::factory) makes the protocol for each connection that a
//! listening port of the reactor accepts:
//!
//! ```
//! use warren_broker::{Broker, Config};
//! use warren_reactor::listen_tcp;
//!
//! warren_hub::run(|| {
//!     let broker = Broker::open(Config::default())?;
//!     let port = listen_tcp("127.0.0.1:0".parse()?, broker.factory())?;
//!     println!("listening on {}", port.addr());
//!     broker.shutdown(std::time::Duration::from_secs(1));
//!     Ok::<(), Box<dyn std::error::Error>>(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! From the wire to the disk, module by module:
//!
//! ```text
//!   connection   frames and methods of one client            (state machine, no socket)
//!   engine       exchanges, queues, consumers, settling      (no bytes)
//!   exchange, queue, channel, message                        what the engine is made of
//!   store        definitions in SQLite, messages in a log    (a thread of its own)
//! ```

pub mod admin;
mod alarms;
mod auth;
mod broker;
mod channel;
mod connection;
mod definitions;
mod engine;
mod erlang;
mod exception;
mod exchange;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod interceptors;
mod limits;
mod memory;
mod message;
mod policy;
mod queue;
pub mod store;
pub mod stream;
mod table;
mod tenancy;
mod vhost;

pub use alarms::{MemoryLimit, parse_size};
pub use auth::{CertLogin, Hashing, LoginOptions, Mechanism, SanType};
pub use broker::{Admin, Broker, Config};
pub use definitions::Definitions;
pub use interceptors::{Existing, Interceptors};
pub use limits::Limits;
pub use store::{Durability, StoreError};
