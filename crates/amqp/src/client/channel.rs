//! [`Channel`]: where all work is done.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use warren_hub::spawn;

use super::connection::Connection;
use super::consumer::{Consumer, Delivery, DeliveryQueue};
use super::error::Error;
use super::options::{ConsumeOptions, ExchangeOptions, QueueDeclared, QueueOptions};
use super::state::ChannelState;
use crate::method::{basic, exchange, queue, tx};
use crate::{FieldTable, Method};

/// A message that was asked for.
#[derive(Debug)]
pub struct GetOk {
    /// The message.
    pub delivery: Delivery,
    /// Messages that are left in the queue.
    pub message_count: u32,
}

/// A channel. Clones are the same channel; it is closed when the last goes.
#[derive(Clone)]
pub struct Channel(Rc<Handle>);

/// What users hold.
struct Handle {
    state: Rc<ChannelState>,
    _connection: Connection,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if warren_hub::can_wait() && self.state.end.borrow().is_none() {
            let _ = self.state.close();
        }
    }
}

/// Waits for an answer that says nothing but "done".
macro_rules! done {
    ($channel:expr, $method:expr, $answer:ident, $wanted:literal) => {
        $channel
            .0
            .state
            .call(&$method, $wanted, |method| matches!(method, Method::$answer(_)).then_some(()))
    };
}

/// All methods that wait for the server's answer suspend until it comes, and fail when the server closes the
/// channel instead ([`Error::ChannelClosed`]) or the connection has ended.
impl Channel {
    pub(super) fn new(state: Rc<ChannelState>, connection: Connection) -> Self {
        Self(Rc::new(Handle { state, _connection: connection }))
    }

    pub(super) fn state(&self) -> &Rc<ChannelState> {
        &self.0.state
    }

    /// The reason, if it has ended.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.0.state.check()
    }

    /// Whether it has ended by itself: it was closed here or by the server.
    pub(super) fn ended_alone(&self) -> bool {
        self.0.state.ended_alone.get()
    }

    /// Whether it has ended with its connection.
    pub(super) fn is_lost(&self) -> bool {
        !self.ended_alone() && self.check().is_err()
    }

    pub(super) fn is_of(&self, connection: &Connection) -> bool {
        connection.is(&self.0.state.connection)
    }

    /// The channel's number on its connection.
    pub fn number(&self) -> u16 {
        self.0.state.number
    }

    /// Closes the channel.
    ///
    /// # Errors
    /// When it had ended already, with the reason.
    pub fn close(&self) -> Result<(), Error> {
        self.0.state.close()
    }

    /// Creates a queue, or checks that it is as described. An empty name lets the server make one.
    ///
    /// # Errors
    /// 404 (passive, and there is none), 405, 406, and see above.
    pub fn queue_declare(
        &self,
        queue: &str,
        options: QueueOptions,
    ) -> Result<QueueDeclared, Error> {
        let declare = queue::Declare {
            queue,
            passive: options.passive,
            durable: options.durable,
            exclusive: options.exclusive,
            auto_delete: options.auto_delete,
            no_wait: false,
            arguments: options.arguments,
        };
        self.0.state.call(&declare, "queue.declare-ok", |method| match method {
            Method::QueueDeclareOk(ok) => Some(QueueDeclared {
                queue: ok.queue.to_owned(),
                message_count: ok.message_count,
                consumer_count: ok.consumer_count,
            }),
            _ => None,
        })
    }

    /// Lets an exchange route messages to a queue.
    ///
    /// # Errors
    /// 404, and see above.
    pub fn queue_bind(&self, queue: &str, exchange: &str, routing_key: &str) -> Result<(), Error> {
        self.queue_bind_with(queue, exchange, routing_key, FieldTable::new())
    }

    /// As [`queue_bind`](Self::queue_bind), with arguments: for headers exchanges.
    ///
    /// # Errors
    /// 404, and see above.
    pub fn queue_bind_with(
        &self,
        queue: &str,
        exchange: &str,
        routing_key: &str,
        arguments: FieldTable,
    ) -> Result<(), Error> {
        let bind = queue::Bind { queue, exchange, routing_key, no_wait: false, arguments };
        done!(self, bind, QueueBindOk, "queue.bind-ok")
    }

    /// Takes a binding away.
    ///
    /// # Errors
    /// 404, and see above.
    pub fn queue_unbind(
        &self,
        queue: &str,
        exchange: &str,
        routing_key: &str,
        arguments: FieldTable,
    ) -> Result<(), Error> {
        let unbind = queue::Unbind { queue, exchange, routing_key, arguments };
        done!(self, unbind, QueueUnbindOk, "queue.unbind-ok")
    }

    /// Drops the messages of a queue that are ready; how many.
    ///
    /// # Errors
    /// 404, and see above.
    pub fn queue_purge(&self, queue: &str) -> Result<u32, Error> {
        let purge = queue::Purge { queue, no_wait: false };
        self.0.state.call(&purge, "queue.purge-ok", |method| match method {
            Method::QueuePurgeOk(ok) => Some(ok.message_count),
            _ => None,
        })
    }

    /// Deletes a queue; how many messages were in it. None, if there is no such queue.
    ///
    /// # Errors
    /// 406 when a condition does not hold, and see above.
    pub fn queue_delete(&self, queue: &str, if_unused: bool, if_empty: bool) -> Result<u32, Error> {
        let delete = queue::Delete { queue, if_unused, if_empty, no_wait: false };
        self.0.state.call(&delete, "queue.delete-ok", |method| match method {
            Method::QueueDeleteOk(ok) => Some(ok.message_count),
            _ => None,
        })
    }

    /// Creates an exchange of a kind (`direct`, `fanout`, `topic`, `headers`), or checks that it is as
    /// described.
    ///
    /// # Errors
    /// 404 (passive, and there is none), 406, and see above.
    pub fn exchange_declare(
        &self,
        exchange: &str,
        kind: &str,
        options: ExchangeOptions,
    ) -> Result<(), Error> {
        let declare = exchange::Declare {
            exchange,
            kind,
            passive: options.passive,
            durable: options.durable,
            auto_delete: options.auto_delete,
            internal: options.internal,
            no_wait: false,
            arguments: options.arguments,
        };
        done!(self, declare, ExchangeDeclareOk, "exchange.declare-ok")
    }

    /// Deletes an exchange, if there is one.
    ///
    /// # Errors
    /// 406 when it is in use and must not be, and see above.
    pub fn exchange_delete(&self, exchange: &str, if_unused: bool) -> Result<(), Error> {
        let delete = exchange::Delete { exchange, if_unused, no_wait: false };
        done!(self, delete, ExchangeDeleteOk, "exchange.delete-ok")
    }

    /// Lets an exchange route messages to another one.
    ///
    /// # Errors
    /// 404, and see above.
    pub fn exchange_bind(
        &self,
        destination: &str,
        source: &str,
        routing_key: &str,
    ) -> Result<(), Error> {
        self.exchange_bind_with(destination, source, routing_key, FieldTable::new())
    }

    /// As [`exchange_bind`](Self::exchange_bind), with arguments: for headers exchanges.
    ///
    /// # Errors
    /// 404, and see above.
    pub fn exchange_bind_with(
        &self,
        destination: &str,
        source: &str,
        routing_key: &str,
        arguments: FieldTable,
    ) -> Result<(), Error> {
        let bind = exchange::Bind { destination, source, routing_key, no_wait: false, arguments };
        done!(self, bind, ExchangeBindOk, "exchange.bind-ok")
    }

    /// Takes such a binding away.
    ///
    /// # Errors
    /// 404, and see above.
    pub fn exchange_unbind(
        &self,
        destination: &str,
        source: &str,
        routing_key: &str,
    ) -> Result<(), Error> {
        let arguments = FieldTable::new();
        let unbind =
            exchange::Unbind { destination, source, routing_key, no_wait: false, arguments };
        done!(self, unbind, ExchangeUnbindOk, "exchange.unbind-ok")
    }

    /// How many unacknowledged messages a consumer may hold that is made from now on; with `global`, all
    /// consumers of the channel together. 0: any number.
    ///
    /// # Errors
    /// See above.
    pub fn basic_qos(&self, prefetch_count: u16, global: bool) -> Result<(), Error> {
        let qos = basic::Qos { prefetch_size: 0, prefetch_count, global };
        done!(self, qos, BasicQosOk, "basic.qos-ok")
    }

    /// Consumes from a queue: an iterator of deliveries.
    ///
    /// # Errors
    /// 403, 404, 405, 530, and see above.
    pub fn basic_consume(&self, queue: &str, options: ConsumeOptions) -> Result<Consumer, Error> {
        let state = &self.0.state;
        let tag = if options.consumer_tag.is_empty() {
            // Made here, for the first delivery may come together with the answer.
            struct Last(Cell<u64>);
            let last = warren_hub::hub_local(|| Last(Cell::new(0)));
            last.0.set(last.0.get() + 1);
            format!("ctag{}.{}", self.number(), last.0.get())
        } else {
            options.consumer_tag
        };
        let deliveries = DeliveryQueue::default();
        state.consumers.borrow_mut().insert(tag.clone(), deliveries.clone());
        let consume = basic::Consume {
            queue,
            consumer_tag: &tag,
            no_local: false,
            no_ack: options.no_ack,
            exclusive: options.exclusive,
            no_wait: false,
            arguments: options.arguments,
        };
        let consumed = done!(self, consume, BasicConsumeOk, "basic.consume-ok");
        if let Err(error) = consumed {
            state.consumers.borrow_mut().remove(&tag);
            return Err(error);
        }
        Ok(Consumer::new(self.clone(), tag, deliveries))
    }

    /// Consumes from a queue on a fiber of its own, which calls `callback` with each delivery. It ends when
    /// the consumer is cancelled or the channel ends. Returns the consumer's tag.
    ///
    /// # Errors
    /// As [`basic_consume`](Self::basic_consume).
    pub fn basic_consume_with(
        &self,
        queue: &str,
        options: ConsumeOptions,
        callback: impl Fn(Delivery) + 'static,
    ) -> Result<String, Error> {
        let consumer = self.basic_consume(queue, options)?;
        let tag = consumer.tag().to_owned();
        spawn(move || consumer.flatten().for_each(callback));
        Ok(tag)
    }

    /// Calls `callback` with the tag of a consumer that the server has ended: its queue has gone. The consumer's
    /// iterator ends then, too. The callback runs on the connection's fiber and must not wait.
    pub fn on_cancel(&self, callback: impl Fn(&str) + 'static) {
        *self.0.state.on_cancel.borrow_mut() = Some(Rc::new(callback));
    }

    /// Ends a consumer. Its iterator ends after what has come already.
    ///
    /// # Errors
    /// See above.
    pub fn basic_cancel(&self, consumer_tag: &str) -> Result<(), Error> {
        done!(
            self,
            basic::Cancel { consumer_tag, no_wait: false },
            BasicCancelOk,
            "basic.cancel-ok"
        )?;
        let consumer = self.0.state.consumers.borrow_mut().remove(consumer_tag);
        if let Some(consumer) = consumer {
            consumer.close();
        }
        Ok(())
    }

    /// One message, if there is one.
    ///
    /// # Errors
    /// 404, and see above.
    pub fn basic_get(&self, queue: &str, no_ack: bool) -> Result<Option<GetOk>, Error> {
        let get = basic::Get { queue, no_ack };
        self.0.state.call_for_content(&get, "basic.get-ok", |method, content| {
            match (method, content) {
                (Method::BasicGetEmpty(_), _) => Some(None),
                (Method::BasicGetOk(ok), Some((properties, body))) => Some(Some(GetOk {
                    message_count: ok.message_count,
                    delivery: Delivery {
                        channel: self.clone(),
                        consumer_tag: String::new(),
                        delivery_tag: ok.delivery_tag,
                        redelivered: ok.redelivered,
                        exchange: ok.exchange.to_owned(),
                        routing_key: ok.routing_key.to_owned(),
                        properties,
                        body,
                    },
                })),
                _ => None,
            }
        })
    }

    /// Acknowledges a delivery, or all up to it.
    ///
    /// # Errors
    /// When the channel has ended. An unknown tag ends it (406), as a later call tells.
    pub fn basic_ack(&self, delivery_tag: u64, multiple: bool) -> Result<(), Error> {
        self.0.state.send(&basic::Ack { delivery_tag, multiple })
    }

    /// Refuses a delivery, or all up to it: back into the queue, or away.
    ///
    /// # Errors
    /// As [`basic_ack`](Self::basic_ack).
    pub fn basic_nack(
        &self,
        delivery_tag: u64,
        multiple: bool,
        requeue: bool,
    ) -> Result<(), Error> {
        self.0.state.send(&basic::Nack { delivery_tag, multiple, requeue })
    }

    /// Refuses a delivery: back into the queue, or away.
    ///
    /// # Errors
    /// As [`basic_ack`](Self::basic_ack).
    pub fn basic_reject(&self, delivery_tag: u64, requeue: bool) -> Result<(), Error> {
        self.0.state.send(&basic::Reject { delivery_tag, requeue })
    }

    /// Has everything that this channel holds delivered again.
    ///
    /// # Errors
    /// See above.
    pub fn basic_recover(&self) -> Result<(), Error> {
        done!(self, basic::Recover { requeue: true }, BasicRecoverOk, "basic.recover-ok")
    }

    /// Makes the channel transactional.
    ///
    /// # Errors
    /// 406 with confirms, and see above.
    pub fn tx_select(&self) -> Result<(), Error> {
        done!(self, tx::Select {}, TxSelectOk, "tx.select-ok")
    }

    /// Does what was published and settled since the last commit.
    ///
    /// # Errors
    /// 406 outside a transaction, and see above.
    pub fn tx_commit(&self) -> Result<(), Error> {
        done!(self, tx::Commit {}, TxCommitOk, "tx.commit-ok")
    }

    /// Forgets what was published and settled since the last commit.
    ///
    /// # Errors
    /// 406 outside a transaction, and see above.
    pub fn tx_rollback(&self) -> Result<(), Error> {
        done!(self, tx::Rollback {}, TxRollbackOk, "tx.rollback-ok")
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("number", &self.number()).finish_non_exhaustive()
    }
}
