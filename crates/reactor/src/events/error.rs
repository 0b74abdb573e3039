//! What can go wrong with events, and with their handlers.

use std::fmt;

use super::handler::{Fault, HandlerId};

/// An event or a handler was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// As many events wait as may: the handlers are slower than those who post.
    #[error(
        "the event {event} was not posted: {limit} events wait already, as many as the queue may hold. Post less, or make \
         the queue with a higher limit"
    )]
    Full {
        /// The event's name.
        event: String,
        /// How many may wait.
        limit: usize,
    },
    /// All events of one name carry the same type of payload, which the first handler decides.
    #[error(
        "the event {event} carries a {known}, and not a {given}: use another name, or the same type"
    )]
    OtherPayload {
        /// The event's name.
        event: String,
        /// The type known under this name.
        known: &'static str,
        /// The type of the refused event or handler.
        given: &'static str,
    },
    /// Handlers have fired events from within one another, which would not end before the stack does.
    #[error(
        "the event {event} was not fired: handlers have fired events from within one another {depth_max} times. Post it \
         instead"
    )]
    TooDeep {
        /// The event's name.
        event: String,
        /// How deep they may be nested.
        depth_max: usize,
    },
    /// [`EventQueue::close`](super::EventQueue::close) was called, or the queue is gone, or its hub.
    #[error("the event queue is closed")]
    Closed,
}

/// A handler has panicked or given an error, or an event could not be handed to any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventFailure {
    /// The event's name.
    pub event: String,
    /// Which handler it was; `None` for an event that reached none.
    pub handler: Option<HandlerId>,
    /// The text of the error, or of the panic.
    pub error: String,
    /// It was a panic.
    pub panicked: bool,
}

impl EventFailure {
    pub(super) fn of(event: &str, handler: HandlerId, fault: Fault) -> Self {
        let panicked = matches!(fault, Fault::Panic(_));
        let error = match fault {
            Fault::Error(text) | Fault::Panic(text) => text,
            Fault::Nested => {
                "it would have been called while it runs, by an event it fired itself; \
                              `register` takes handlers that can be"
                    .into()
            }
        };
        Self { event: event.to_owned(), handler: Some(handler), error, panicked }
    }

    /// Of an event that waited, which can be told to nobody else.
    pub(super) fn lost(event: &str, error: &EventError) -> Self {
        let (handler, panicked) = (None, false);
        Self { event: event.to_owned(), handler, error: error.to_string(), panicked }
    }
}

impl fmt::Display for EventFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.panicked { "panicked" } else { "failed" };
        match self.handler {
            Some(handler) => write!(f, "{handler} of {} {how}: {}", self.event, self.error),
            None => write!(f, "{} was lost: {}", self.event, self.error),
        }
    }
}
