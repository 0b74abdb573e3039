//! Messages that go through: published by one connection, consumed by another at the same time.

use anyhow::Result;
use warren::perf::{Message, Options};

use super::{Effort, Rate, Side};
use crate::load::{BACKLOG_MAX, UNCONFIRMED_MAX, bytes, quiet, timed};

/// Messages that go through.
pub(super) struct Flow<'f> {
    /// The exchange and its type.
    pub(super) exchange: (&'f str, &'f str),
    /// What is published, in turn.
    pub(super) messages: &'f [Message],
    pub(super) body_bytes: usize,
    pub(super) confirms: bool,
    /// Where it comes to, and is consumed.
    pub(super) queues: &'f [String],
    /// Whether anything comes there.
    pub(super) arrives: bool,
}

impl Flow<'_> {
    /// Publishes over and over while the consumer keeps up. Gives what was published, and what was delivered.
    pub(super) fn run(&self, side: &Side, effort: Effort) -> Result<(Rate, Rate)> {
        let report = timed(
            effort.time,
            Options {
                exchange: Some(self.exchange.0.into()),
                kind: Some(self.exchange.1.into()),
                predeclared: true,
                queue: self.queues.to_vec(),
                consumers: usize::from(self.arrives),
                autoack: true,
                messages: self.messages.to_vec(),
                size: bytes(self.body_bytes),
                confirm: self.confirms.then_some(UNCONFIRMED_MAX),
                backlog_max: self.arrives.then_some(BACKLOG_MAX),
                ..quiet(&side.url)
            },
        )?;
        Ok((Rate::published(&report), Rate::consumed(&report)))
    }
}

/// To this queue, through the default exchange.
pub(super) fn to(queue: &str) -> Message {
    Message { routing_key: queue.into(), ..Message::default() }
}
