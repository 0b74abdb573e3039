//! Deliveries, one after the other.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::sync::{GetError, Queue};

use super::channel::Channel;
use super::error::Error;
use crate::BasicProperties;

/// A delivery on its way from the reading fiber to the consumer's.
pub(super) struct Received {
    pub(super) consumer_tag: String,
    pub(super) delivery_tag: u64,
    pub(super) redelivered: bool,
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) properties: BasicProperties,
    pub(super) body: Vec<u8>,
}

/// Where they wait. Unbounded: `basic_qos` bounds it.
#[derive(Clone)]
pub(super) struct DeliveryQueue(Rc<Waiting>);

struct Waiting {
    deliveries: Queue<Result<Received, Error>>,
    /// The server has ended the consumer.
    cancelled: Cell<bool>,
}

impl DeliveryQueue {
    /// The server has ended the consumer: its queue has gone.
    pub(super) fn cancel(&self) {
        self.0.cancelled.set(true);
        self.close();
    }
}

impl Default for DeliveryQueue {
    fn default() -> Self {
        let deliveries = Queue::unbounded();
        Self(Rc::new(Waiting { deliveries, cancelled: Cell::new(false) }))
    }
}

impl std::ops::Deref for DeliveryQueue {
    type Target = Queue<Result<Received, Error>>;

    fn deref(&self) -> &Self::Target {
        &self.0.deliveries
    }
}

/// A message from a queue.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub(super) channel: Channel,
    /// The consumer it is for; empty for `basic_get`.
    pub consumer_tag: String,
    /// Its number on the channel.
    pub delivery_tag: u64,
    /// It may have been delivered before.
    pub redelivered: bool,
    /// Where it was published.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
    /// Its properties.
    pub properties: BasicProperties,
    /// Its body.
    pub body: Vec<u8>,
}

impl Delivery {
    /// Done: the queue may forget it.
    ///
    /// # Errors
    /// When the channel has ended.
    pub fn ack(&self) -> Result<(), Error> {
        self.channel.basic_ack(self.delivery_tag, false)
    }

    /// Not done: back into the queue, or away.
    ///
    /// # Errors
    /// When the channel has ended.
    pub fn nack(&self, requeue: bool) -> Result<(), Error> {
        self.channel.basic_nack(self.delivery_tag, false, requeue)
    }

    /// As [`nack`](Self::nack), in the words of the specification.
    ///
    /// # Errors
    /// When the channel has ended.
    pub fn reject(&self, requeue: bool) -> Result<(), Error> {
        self.channel.basic_reject(self.delivery_tag, requeue)
    }

    /// The channel it came on.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }
}

/// The deliveries of a consumer, as an iterator. It ends when the consumer is cancelled or its queue deleted;
/// when the channel or the connection ends otherwise, its last item is the reason.
pub struct Consumer {
    channel: Channel,
    tag: String,
    deliveries: DeliveryQueue,
}

impl Consumer {
    pub(super) fn new(channel: Channel, tag: String, deliveries: DeliveryQueue) -> Self {
        Self { channel, tag, deliveries }
    }

    /// The same consumer: each delivery goes to who asks first.
    pub(super) fn share(&self) -> Self {
        let deliveries = self.deliveries.clone();
        Self { channel: self.channel.clone(), tag: self.tag.clone(), deliveries }
    }

    /// The consumer's name on its channel.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Whether the server has ended the consumer: its queue was deleted, or has expired. What came before can still be
    /// taken.
    pub fn is_cancelled(&self) -> bool {
        self.deliveries.0.cancelled.get()
    }

    /// Ends the consumer. What has come already can still be taken.
    ///
    /// # Suspends
    /// Until the server has answered.
    ///
    /// # Errors
    /// When the channel has ended.
    pub fn cancel(&self) -> Result<(), Error> {
        self.channel.basic_cancel(&self.tag)
    }

    /// The next delivery, if it comes within `timeout`; `None` when the consumer has ended.
    ///
    /// # Suspends
    /// Until there is one.
    ///
    /// # Errors
    /// [`Error::TimedOut`], or the reason for the channel's end.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Delivery>, Error> {
        match self.deliveries.get_timeout(timeout) {
            Ok(received) => received.map(|received| Some(self.delivery(received))),
            Err(GetError::Closed) => Ok(None),
            Err(GetError::Empty) => Err(Error::TimedOut),
        }
    }

    fn delivery(&self, received: Received) -> Delivery {
        Delivery {
            channel: self.channel.clone(),
            consumer_tag: received.consumer_tag,
            delivery_tag: received.delivery_tag,
            redelivered: received.redelivered,
            exchange: received.exchange,
            routing_key: received.routing_key,
            properties: received.properties,
            body: received.body,
        }
    }
}

impl Iterator for Consumer {
    type Item = Result<Delivery, Error>;

    /// # Suspends
    /// Until there is a delivery.
    fn next(&mut self) -> Option<Self::Item> {
        let received = self.deliveries.get().ok()?;
        Some(received.map(|received| self.delivery(received)))
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("tag", &self.tag).finish_non_exhaustive()
    }
}
