//! The last messages of an exchange (`x-recent-history`), for bindings yet to come. They are in memory alone, as
//! RabbitMQ's are.

use std::collections::VecDeque;

use warren_amqp::value::RawValue;
use warren_amqp::{FieldTable, RawProperties};

use super::positive;
use crate::channel::Publish;
use crate::exception::Exception;

/// Messages that are kept if no argument says how many: RabbitMQ's number.
const LENGTH: u64 = 20;
const NO_STORE: &str = "x-recent-history-no-store";

pub(crate) struct History {
    length: u64,
    messages: VecDeque<Publish>,
}

impl History {
    pub(super) fn new(arguments: &FieldTable) -> Result<Self, Exception> {
        let length = positive(arguments, "x-recent-history-length")?.unwrap_or(LENGTH);
        Ok(Self { length, messages: VecDeque::new() })
    }

    /// Keeps a message, unless it says that it is not to be kept.
    pub(crate) fn keep(&mut self, publish: &Publish) {
        let headers = RawProperties::new(publish.message.content.properties()).headers();
        let no_store = headers.and_then(|headers| headers.get(NO_STORE));
        if no_store == Some(RawValue::Bool(true)) {
            return;
        }
        if self.length <= self.messages.len() as u64 {
            self.messages.pop_front();
        }
        self.messages.push_back(publish.clone());
    }

    /// The oldest first.
    pub(crate) fn messages(&self) -> Vec<Publish> {
        self.messages.iter().cloned().collect()
    }
}
