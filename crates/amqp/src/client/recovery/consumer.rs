//! [`RobustConsumer`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use super::super::consumer::{Consumer, Delivery};
use super::super::error::Error;
use super::super::options::ConsumeOptions;
use super::channel::RobustChannel;

/// What is consumed, whatever the connection.
pub(super) struct Subscription {
    /// As the program knows it.
    pub(super) queue: String,
    options: ConsumeOptions,
    /// What held when it was made.
    pub(super) prefetch: Option<u16>,
    current: RefCell<Consumer>,
    /// It does not come back.
    over: Cell<bool>,
    /// Why it could not come back.
    failed: RefCell<Option<Error>>,
}

impl Subscription {
    pub(super) fn new(
        queue: &str,
        options: ConsumeOptions,
        prefetch: Option<u16>,
        found: Consumer,
    ) -> Self {
        // The tag stays, whoever has made it.
        let options = ConsumeOptions { consumer_tag: found.tag().to_owned(), ..options };
        Self {
            queue: queue.to_owned(),
            options,
            prefetch,
            current: RefCell::new(found),
            over: Cell::new(false),
            failed: RefCell::default(),
        }
    }

    pub(super) fn options(&self) -> ConsumeOptions {
        self.options.clone()
    }

    pub(super) fn tag(&self) -> &str {
        &self.options.consumer_tag
    }

    /// It is back, on another connection.
    pub(super) fn replace(&self, found: Consumer) {
        drop(self.current.replace(found));
    }

    /// The server refuses it for good.
    pub(super) fn fail(&self, error: Error) {
        self.over.set(true);
        *self.failed.borrow_mut() = Some(error);
    }

    pub(super) fn end(&self) {
        self.over.set(true);
    }

    /// It need not come back: it was cancelled, by us or by the server.
    pub(super) fn is_over(&self) -> bool {
        self.over.get() || self.current.borrow().is_cancelled()
    }
}

/// The deliveries of a consumer, as an iterator that goes on with each new connection. It ends when the consumer is
/// cancelled, its queue deleted, or the connection closed here; when it cannot go on otherwise, its last item is the
/// reason.
pub struct RobustConsumer {
    channel: RobustChannel,
    subscription: Rc<Subscription>,
    ended: bool,
}

impl RobustConsumer {
    pub(super) fn new(channel: RobustChannel, subscription: Rc<Subscription>) -> Self {
        Self { channel, subscription, ended: false }
    }

    /// The consumer's name on its channel.
    pub fn tag(&self) -> &str {
        self.subscription.tag()
    }

    /// Ends the consumer. What has come already can still be taken.
    ///
    /// # Suspends
    /// Until the server has answered.
    ///
    /// # Errors
    /// When the channel has ended.
    pub fn cancel(&self) -> Result<(), Error> {
        self.channel.basic_cancel(self.tag())
    }

    /// Whether the server has ended the consumer: its queue was deleted, or has expired.
    pub fn is_cancelled(&self) -> bool {
        self.subscription.current.borrow().is_cancelled()
    }

    fn last(&mut self, error: Error) -> Option<Result<Delivery, Error>> {
        self.ended = true;
        match error {
            Error::Closed => None,
            error => Some(Err(error)),
        }
    }
}

impl Iterator for RobustConsumer {
    type Item = Result<Delivery, Error>;

    /// # Suspends
    /// Until there is a delivery.
    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let mut current = self.subscription.current.borrow().share();
            if let Some(Ok(delivery)) = current.next() {
                return Some(Ok(delivery));
            }
            // It has ended: with its connection, or for good?
            if let Err(error) = self.channel.current() {
                return self.last(error);
            }
            if let Some(error) = self.subscription.failed.take() {
                return self.last(error);
            }
            if self.subscription.is_over() {
                self.ended = true;
                if self.is_cancelled() {
                    let queue = &self.subscription.queue;
                    self.channel.topology(|topology| topology.remove_queue(queue));
                }
            }
        }
        None
    }
}

impl fmt::Debug for RobustConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RobustConsumer").field("tag", &self.tag()).finish_non_exhaustive()
    }
}
