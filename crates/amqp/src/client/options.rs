//! What calls on a channel take and give.

use crate::{BasicProperties, FieldTable, ReplyCode};

/// How a queue is declared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueueOptions {
    /// Only ask whether it exists.
    pub passive: bool,
    /// Survives the server.
    pub durable: bool,
    /// Belongs to this connection and goes with it.
    pub exclusive: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// Such as `x-queue-type`.
    pub arguments: FieldTable,
}

/// How an exchange is declared.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExchangeOptions {
    /// Only ask whether it exists.
    pub passive: bool,
    /// Survives the server.
    pub durable: bool,
    /// Goes with its last binding.
    pub auto_delete: bool,
    /// Takes messages from other exchanges only.
    pub internal: bool,
    /// Such as `alternate-exchange`.
    pub arguments: FieldTable,
}

/// How a queue is consumed from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumeOptions {
    /// The consumer's name on this channel; empty: the server makes one.
    pub consumer_tag: String,
    /// Deliveries count as acknowledged when they are sent.
    pub no_ack: bool,
    /// Nobody else may consume from the queue.
    pub exclusive: bool,
    /// For the server.
    pub arguments: FieldTable,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Empty: the default exchange, where the key is a queue's name.
    pub exchange: &'a str,
    /// What the exchange routes by.
    pub routing_key: &'a str,
    /// Come back if no queue takes it.
    pub mandatory: bool,
}

impl<'a> Publish<'a> {
    /// To an exchange, with a key.
    pub fn to(exchange: &'a str, routing_key: &'a str) -> Self {
        Self { exchange, routing_key, mandatory: false }
    }

    /// The same, and come back if no queue takes it.
    pub fn mandatory(self) -> Self {
        Self { mandatory: true, ..self }
    }
}

/// A queue as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDeclared {
    /// Its name, which the server may have made.
    pub queue: String,
    /// Messages that are ready.
    pub message_count: u32,
    /// Its consumers.
    pub consumer_count: u32,
}

/// A mandatory message that no queue took.
#[derive(Clone, Debug, PartialEq)]
pub struct Returned {
    /// Such as 312.
    pub code: ReplyCode,
    /// Such as `NO_ROUTE`.
    pub text: String,
    /// Where it was published.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
    /// Its properties.
    pub properties: BasicProperties,
    /// Its body.
    pub body: Vec<u8>,
}
