//! [`RpcClient`]: calls over queues, as RabbitMQ's sixth tutorial has them.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use warren_hub::sync::AsyncResult;

use super::channel::Channel;
use super::connection::Connection;
use super::error::Error;
use super::options::{ConsumeOptions, Publish, QueueOptions};
use crate::BasicProperties;

type Answer = Rc<AsyncResult<Vec<u8>>>;

/// Sends requests to a queue and hands each answer to who asked. Any number of fibers may call at once.
pub struct RpcClient {
    channel: Channel,
    reply_to: String,
    last: Cell<u64>,
    waiting: Rc<RefCell<HashMap<String, Answer>>>,
}

impl RpcClient {
    /// Opens a channel with a queue for the answers.
    ///
    /// # Suspends
    /// Until the server has answered.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let channel = connection.channel()?;
        let options = QueueOptions { exclusive: true, ..QueueOptions::default() };
        let reply_to = channel.queue_declare("", options)?.queue;
        let waiting = Rc::<RefCell<HashMap<String, Answer>>>::default();
        let answered = waiting.clone();
        let no_ack = ConsumeOptions { no_ack: true, ..ConsumeOptions::default() };
        channel.basic_consume_with(&reply_to, no_ack, move |delivery| {
            let id = delivery.properties.correlation_id.unwrap_or_default();
            // An answer nobody waits for any more is dropped.
            let answer: Option<Answer> = answered.borrow_mut().remove(&id);
            if let Some(answer) = answer {
                let _ = answer.set(delivery.body);
            }
        })?;
        Ok(Self { channel, reply_to, last: Cell::new(0), waiting })
    }

    /// Sends `body` to the queue of a server and waits for its answer, at most for `timeout`.
    ///
    /// # Suspends
    /// Until the answer comes.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; when the channel has ended.
    pub fn call(&self, queue: &str, body: &[u8], timeout: Duration) -> Result<Vec<u8>, Error> {
        self.last.set(self.last.get() + 1);
        let id = self.last.get().to_string();
        let answer = Answer::new(AsyncResult::new());
        self.waiting.borrow_mut().insert(id.clone(), answer.clone());
        let properties = BasicProperties::new()
            .with_reply_to(self.reply_to.as_str())
            .with_correlation_id(id.as_str());
        let sent = self.channel.basic_publish(Publish::to("", queue), &properties, body);
        let answered = sent.and_then(|_| match answer.get_timeout(timeout) {
            Ok(Ok(body)) => Ok(body),
            Err(_) => Err(Error::TimedOut),
        });
        self.waiting.borrow_mut().remove(&id);
        answered
    }
}

impl Drop for RpcClient {
    fn drop(&mut self) {
        // Ends the fiber that takes the answers. Outside a fiber nobody can wait for that.
        if warren_hub::current().is_some() {
            let _ = self.channel.close();
        }
    }
}

impl fmt::Debug for RpcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcClient").field("reply_to", &self.reply_to).finish_non_exhaustive()
    }
}
