//! Publishing, and what the server says to it: confirms and returns.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use warren_hub::sync::AsyncResult;

use super::channel::Channel;
use super::error::Error;
use super::options::{Publish, Returned};
use crate::constants::CLASS_BASIC;
use crate::frame;
use crate::method::{EncodeMethod, basic, confirm};
use crate::{BasicProperties, Method};

/// Publishes that the server is to confirm.
#[derive(Default)]
pub(super) struct Confirms {
    /// The number of the last publish.
    pub(super) last: u64,
    /// Neither acknowledged nor refused, and who waits for it alone.
    open: BTreeMap<u64, Option<Rc<Waiting>>>,
    /// Refused, and nobody has heard of it yet.
    refused: u64,
}

/// Who waits for one confirm.
struct Waiting {
    outcome: AsyncResult<(), Error>,
    /// What a message that comes back is known by, if this one may.
    mandatory: Option<Letter>,
    returned: RefCell<Option<Arc<Returned>>>,
}

/// A mandatory message, as it is known again: a return does not say which publish it belongs to. Of two that agree in all
/// this, it does not matter which one it is.
#[derive(PartialEq)]
struct Letter {
    exchange: String,
    routing_key: String,
    message_id: Option<String>,
    correlation_id: Option<String>,
    body: Vec<u8>,
}

impl Confirms {
    /// A message is published: its number.
    fn publish(&mut self, waiting: Option<Rc<Waiting>>) -> u64 {
        self.last += 1;
        self.open.insert(self.last, waiting);
        self.last
    }

    /// The server has taken a message or refused it, or all up to it. True when it has told of all.
    pub(super) fn settle(&mut self, tag: u64, multiple: bool, refused: bool) -> bool {
        let settled = if multiple {
            let later = self.open.split_off(&tag.saturating_add(1));
            std::mem::replace(&mut self.open, later)
        } else {
            self.open.remove_entry(&tag).into_iter().collect()
        };
        for waiting in settled.into_values() {
            match waiting {
                Some(waiting) => waiting.settle(refused),
                None => self.refused += u64::from(refused),
            }
        }
        self.open.is_empty()
    }

    /// A message has come back, before its confirm.
    pub(super) fn returned(&self, returned: &Returned) {
        let mandatory = self.open.values().flatten();
        let known = mandatory
            .filter(|waiting| waiting.returned.borrow().is_none())
            .find(|waiting| waiting.mandatory.as_ref().is_some_and(|letter| letter.is(returned)));
        if let Some(waiting) = known {
            *waiting.returned.borrow_mut() = Some(Arc::new(returned.clone()));
        }
    }

    /// No confirm will come any more.
    pub(super) fn fail(&mut self, error: &Error) {
        for waiting in std::mem::take(&mut self.open).into_values().flatten() {
            // Nothing else was said.
            let _ = waiting.outcome.set_exception(error.clone());
        }
    }
}

impl Waiting {
    fn settle(&self, refused: bool) {
        let returned = self.returned.take();
        // It is settled once: it was open until now.
        let _ = match returned {
            _ if refused => self.outcome.set_exception(Error::Nacked(1)).map_err(drop),
            Some(returned) => self.outcome.set_exception(Error::Returned(returned)).map_err(drop),
            None => self.outcome.set(()).map_err(drop),
        };
    }
}

impl Letter {
    fn new(publish: &Publish<'_>, properties: &BasicProperties, body: &[u8]) -> Self {
        Self {
            exchange: publish.exchange.to_owned(),
            routing_key: publish.routing_key.to_owned(),
            message_id: properties.message_id.clone(),
            correlation_id: properties.correlation_id.clone(),
            body: body.to_owned(),
        }
    }

    fn is(&self, returned: &Returned) -> bool {
        self.exchange == returned.exchange
            && self.routing_key == returned.routing_key
            && self.message_id == returned.properties.message_id
            && self.correlation_id == returned.properties.correlation_id
            && self.body == returned.body
    }
}

/// The server's answer to one message that was published, which may still have to come.
#[must_use = "a message may be refused or come back: wait for it"]
pub struct Confirm {
    waiting: Rc<Waiting>,
    number: u64,
}

impl Confirm {
    /// The number of the message on its channel.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the answer has come.
    pub fn is_settled(&self) -> bool {
        self.waiting.outcome.ready()
    }

    /// Waits until the server has taken the message: on disk, if it is persistent and in a durable queue.
    ///
    /// # Suspends
    /// Until then.
    ///
    /// # Errors
    /// [`Error::Nacked`] when the server has refused it, [`Error::Returned`] when it was mandatory and no queue took
    /// it; when the channel has ended before, with the reason: it is not known then whether the message was taken.
    pub fn wait(&self) -> Result<(), Error> {
        self.waiting.outcome.get()
    }

    /// As [`wait`](Self::wait), at most for `timeout`. It can be waited again.
    ///
    /// # Suspends
    /// Until then.
    ///
    /// # Errors
    /// [`Error::TimedOut`], and as [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> Result<(), Error> {
        self.waiting.outcome.get_timeout(timeout).unwrap_or(Err(Error::TimedOut))
    }
}

impl fmt::Debug for Confirm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confirm")
            .field("number", &self.number)
            .field("settled", &self.is_settled())
            .finish()
    }
}

impl Channel {
    /// Publishes a message: it is in the connection's buffer when this returns. The number under which it will
    /// be confirmed, 0 without confirms. What the server has against it comes back as the failure of a later
    /// call, or by [`wait_for_confirms`](Self::wait_for_confirms).
    ///
    /// # Suspends
    /// While more than 1 MiB waits to be written, and while the server takes no publishes
    /// ([`blocked`](super::Connection::blocked)).
    ///
    /// # Errors
    /// When the channel or the connection has ended, or a name is too long.
    pub fn basic_publish(
        &self,
        publish: Publish<'_>,
        properties: &BasicProperties,
        body: &[u8],
    ) -> Result<u64, Error> {
        self.send_message(publish, properties, body, None)
    }

    /// Publishes a message, to wait for its confirm alone. The channel is put into confirm mode if it is not yet.
    ///
    /// ```no_run
    /// # use warren_amqp::BasicProperties;
    /// # use warren_amqp::client::{Channel, Error, Publish};
    /// # fn work(channel: &Channel) -> Result<(), Error> {
    /// let to = Publish::to("", "tasks").mandatory();
    /// channel.publish(to, &BasicProperties::persistent(), b"do this")?.wait()?;
    /// // Many at once: the server confirms them together.
    /// let confirms: Vec<_> = (0..100)
    ///     .map(|n| channel.publish(to, &BasicProperties::persistent(), &[n]))
    ///     .collect::<Result<_, _>>()?;
    /// confirms.iter().try_for_each(|confirm| confirm.wait())
    /// # }
    /// ```
    ///
    /// # Suspends
    /// As [`basic_publish`](Self::basic_publish).
    ///
    /// # Errors
    /// As [`basic_publish`](Self::basic_publish); 406 in a transaction.
    pub fn publish(
        &self,
        publish: Publish<'_>,
        properties: &BasicProperties,
        body: &[u8],
    ) -> Result<Confirm, Error> {
        if self.state().confirms.borrow().is_none() {
            self.confirm_select()?;
        }
        let mandatory = publish.mandatory.then(|| Letter::new(&publish, properties, body));
        let waiting = Rc::new(Waiting {
            outcome: AsyncResult::new(),
            mandatory,
            returned: RefCell::default(),
        });
        let number = self.send_message(publish, properties, body, Some(waiting.clone()))?;
        Ok(Confirm { waiting, number })
    }

    fn send_message(
        &self,
        publish: Publish<'_>,
        properties: &BasicProperties,
        body: &[u8],
        mut waiting: Option<Rc<Waiting>>,
    ) -> Result<u64, Error> {
        let state = self.state();
        state.check()?;
        let method = basic::Publish {
            exchange: publish.exchange,
            routing_key: publish.routing_key,
            mandatory: publish.mandatory,
            immediate: false,
        };
        method.check()?;
        properties.check()?;
        state.connection.wait_until_unblocked()?;
        let mut raw_properties = Vec::new();
        properties.encode(&mut raw_properties);
        let mut number = 0;
        state.send_with(|out| {
            // Counted with the writing: another fiber's publish may come between this call and now.
            if let Some(confirms) = &mut *state.confirms.borrow_mut() {
                number = confirms.publish(waiting.take());
                state.confirmed.clear();
            }
            frame::write_method(out, state.number, &method);
            let frame_max = state.connection.frame_max;
            frame::write_content(out, state.number, CLASS_BASIC, &raw_properties, body, frame_max);
        })?;
        Ok(number)
    }

    /// Lets the server confirm every publish from now on.
    ///
    /// # Suspends
    /// Until the server has answered.
    ///
    /// # Errors
    /// 406 in a transaction; when the channel has ended.
    pub fn confirm_select(&self) -> Result<(), Error> {
        let state = self.state();
        state.call(&confirm::Select { no_wait: false }, "confirm.select-ok", |method| {
            matches!(method, Method::ConfirmSelectOk(_)).then_some(())
        })?;
        state.confirms.borrow_mut().get_or_insert_default();
        Ok(())
    }

    /// Waits until every message published so far is confirmed.
    ///
    /// # Suspends
    /// Until then.
    ///
    /// # Errors
    /// [`Error::Nacked`] when the server has refused some since the last call, those left out that
    /// [`publish`](Self::publish) tells of; when the channel has ended.
    pub fn wait_for_confirms(&self) -> Result<(), Error> {
        let state = self.state();
        loop {
            state.check()?;
            match &mut *state.confirms.borrow_mut() {
                None => return Ok(()),
                Some(confirms) if confirms.open.is_empty() => {
                    return match std::mem::take(&mut confirms.refused) {
                        0 => Ok(()),
                        refused => Err(Error::Nacked(refused)),
                    };
                }
                Some(_) => {}
            }
            state.confirmed.clear();
            state.confirmed.wait();
        }
    }

    /// Calls `callback` with mandatory messages that come back. It runs on the connection's fiber and must
    /// not wait.
    pub fn on_return(&self, callback: impl Fn(Returned) + 'static) {
        *self.state().on_return.borrow_mut() = Some(Rc::new(callback));
    }
}
