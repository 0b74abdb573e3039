//! The methods of an open channel.

use compact_str::CompactString;
use warren_amqp::method::{access, basic, channel, confirm, exchange, queue, tx};
use warren_amqp::{Method, ReplyCode};

use super::content::{Incoming, interrupted, not_open};
use super::{SessionState, Slot};
use crate::channel::{ChannelKey, Verdict};
use crate::connection::ConnectionKey;
use crate::engine::Engine;
use crate::exception::Exception;
use crate::exchange::Destination;

impl SessionState {
    pub(super) fn channel_method(
        &mut self,
        engine: &mut Engine,
        number: u16,
        method: Method<'_>,
    ) -> Result<(), Exception> {
        let Some(connection) = self.key else { return Ok(()) };
        let key = match self.slots.get(&number) {
            None => return self.open_channel(engine, connection, number, &method),
            Some(Slot::Closing) => {
                match method {
                    Method::ChannelCloseOk(_) => drop(self.slots.remove(&number)),
                    // Both sides have closed at the same time.
                    Method::ChannelClose(_) => self.send(engine, number, &channel::CloseOk {}),
                    _ => {}
                }
                return Ok(());
            }
            Some(Slot::Open { incoming: Some(incoming), .. }) => return Err(interrupted(incoming)),
            Some(Slot::Open { key, .. }) => *key,
        };
        match method {
            Method::BasicPublish(publish) => {
                let begun = Incoming::new(engine, &publish)?;
                if let Some(Slot::Open { incoming, .. }) = self.slots.get_mut(&number) {
                    *incoming = Some(begun);
                }
                Ok(())
            }
            Method::ChannelOpen(_) => {
                Err(Exception::hard(ReplyCode::CHANNEL_ERROR, "second 'channel.open' seen"))
            }
            Method::ChannelClose(_) => {
                self.slots.remove(&number);
                engine.close_channel(key);
                self.send(engine, number, &channel::CloseOk {});
                Ok(())
            }
            Method::ChannelCloseOk(_) | Method::ChannelFlowOk(_) => Ok(()),
            Method::ChannelFlow(flow) => {
                if !flow.active {
                    return Err(Exception::not_implemented("active=false"));
                }
                self.send(engine, number, &channel::FlowOk { active: true });
                Ok(())
            }
            Method::AccessRequest(_) => {
                self.send(engine, number, &access::RequestOk { ticket: 1 });
                Ok(())
            }
            method => Call { engine, connection, key }.run(method),
        }
    }

    fn open_channel(
        &mut self,
        engine: &mut Engine,
        connection: ConnectionKey,
        number: u16,
        method: &Method<'_>,
    ) -> Result<(), Exception> {
        if !matches!(method, Method::ChannelOpen(_)) {
            return Err(not_open());
        }
        if self.channel_max < number {
            let text = format!(
                "number of channels opened ({}) has reached the negotiated channel_max ({})",
                self.slots.len(),
                self.channel_max
            );
            return Err(Exception::hard(ReplyCode::NOT_ALLOWED, text));
        }
        let key = engine.open_channel(connection, number);
        self.slots.insert(number, Slot::Open { key, incoming: None });
        self.send(engine, number, &channel::OpenOk {});
        Ok(())
    }
}

/// A method and where it came from.
struct Call<'a> {
    engine: &'a mut Engine,
    connection: ConnectionKey,
    key: ChannelKey,
}

impl Call<'_> {
    fn reply(&mut self, no_wait: bool, method: &impl warren_amqp::method::EncodeMethod) {
        let waits_for = self.engine.take_defined();
        if !no_wait {
            self.engine.answer(self.key, waits_for, method);
        }
    }

    fn run(mut self, method: Method<'_>) -> Result<(), Exception> {
        match method {
            Method::ExchangeDeclare(declare) => {
                self.engine.declare_exchange(&declare)?;
                self.reply(declare.no_wait, &exchange::DeclareOk {});
            }
            Method::ExchangeDelete(delete) => {
                self.engine.delete_exchange(delete.exchange, delete.if_unused)?;
                self.reply(delete.no_wait, &exchange::DeleteOk {});
            }
            Method::ExchangeBind(bind) => {
                let destination = self.exchange(bind.destination)?;
                self.engine.bind(bind.source, destination, bind.routing_key, &bind.arguments)?;
                self.reply(bind.no_wait, &exchange::BindOk {});
            }
            Method::ExchangeUnbind(unbind) => {
                let destination = self.exchange(unbind.destination)?;
                self.engine.unbind(
                    unbind.source,
                    destination,
                    unbind.routing_key,
                    &unbind.arguments,
                )?;
                self.reply(unbind.no_wait, &exchange::UnbindOk {});
            }
            Method::QueueDeclare(declare) => self.declare_queue(&declare)?,
            Method::QueueBind(bind) => {
                let name = self.queue_name(bind.queue)?;
                let queue = self.engine.find_queue(&name, self.connection)?;
                // RabbitMQ: without queue and key, the key is the queue's name.
                let key = if bind.queue.is_empty() && bind.routing_key.is_empty() {
                    name.as_str()
                } else {
                    bind.routing_key
                };
                let destination = Destination::Queue(queue);
                self.engine.bind(bind.exchange, destination, key, &bind.arguments)?;
                self.reply(bind.no_wait, &queue::BindOk {});
            }
            Method::QueueUnbind(unbind) => {
                let name = self.queue_name(unbind.queue)?;
                let queue = self.engine.find_queue(&name, self.connection)?;
                let destination = Destination::Queue(queue);
                self.engine.unbind(
                    unbind.exchange,
                    destination,
                    unbind.routing_key,
                    &unbind.arguments,
                )?;
                self.reply(false, &queue::UnbindOk {});
            }
            Method::QueuePurge(purge) => {
                let name = self.queue_name(purge.queue)?;
                let queue = self.engine.find_queue(&name, self.connection)?;
                let message_count = self.engine.purge_queue(queue);
                self.reply(purge.no_wait, &queue::PurgeOk { message_count });
            }
            Method::QueueDelete(delete) => {
                let name = self.queue_name(delete.queue)?;
                let message_count = self.engine.delete_queue(self.connection, &delete, &name)?;
                self.reply(delete.no_wait, &queue::DeleteOk { message_count });
            }
            Method::ConfirmSelect(select) => {
                self.engine.select_confirms(self.key)?;
                self.reply(select.no_wait, &confirm::SelectOk {});
            }
            Method::TxSelect(_) => {
                self.engine.select_tx(self.key)?;
                self.reply(false, &tx::SelectOk {});
            }
            // Its answer waits for the store.
            Method::TxCommit(_) => self.engine.commit(self.key)?,
            Method::TxRollback(_) => {
                self.engine.rollback(self.key)?;
                self.reply(false, &tx::RollbackOk {});
            }
            method => return self.basic(method),
        }
        Ok(())
    }

    fn basic(mut self, method: Method<'_>) -> Result<(), Exception> {
        let (engine, key) = (&mut *self.engine, self.key);
        let verdict = |requeue| if requeue { Verdict::Requeue } else { Verdict::Discard };
        match method {
            Method::BasicAck(ack) => {
                engine.settle(key, ack.delivery_tag, ack.multiple, Verdict::Ack)?
            }
            Method::BasicNack(nack) => {
                engine.settle(key, nack.delivery_tag, nack.multiple, verdict(nack.requeue))?;
            }
            Method::BasicReject(reject) => {
                engine.settle(key, reject.delivery_tag, false, verdict(reject.requeue))?;
            }
            Method::BasicRecover(recover) => {
                recoverable(recover.requeue)?;
                engine.recover(key);
                self.reply(false, &basic::RecoverOk {});
            }
            Method::BasicRecoverAsync(recover) => {
                recoverable(recover.requeue)?;
                engine.recover(key);
            }
            Method::BasicQos(qos) => {
                if qos.prefetch_size != 0 {
                    let text = format!("prefetch_size!=0 ({})", qos.prefetch_size);
                    return Err(Exception::not_implemented(text));
                }
                engine.set_prefetch(key, qos.prefetch_count, qos.global);
                self.reply(false, &basic::QosOk {});
            }
            Method::BasicConsume(consume) => {
                let name = self.queue_name(consume.queue)?;
                let queue = self.engine.find_queue(&name, self.connection)?;
                let tag = self.engine.consume(key, queue, &consume)?;
                self.reply(consume.no_wait, &basic::ConsumeOk { consumer_tag: &tag });
            }
            Method::BasicCancel(cancel) => {
                engine.cancel(key, cancel.consumer_tag);
                self.reply(cancel.no_wait, &basic::CancelOk { consumer_tag: cancel.consumer_tag });
            }
            // The client's answer to our notice.
            Method::BasicCancelOk(_) => {}
            Method::BasicGet(get) => {
                let name = self.queue_name(get.queue)?;
                let queue = self.engine.find_queue(&name, self.connection)?;
                self.engine.get(key, queue, get.no_ack);
            }
            method => {
                let text = format!("the server does not take '{}'", method.name());
                return Err(Exception::hard(ReplyCode::COMMAND_INVALID, text));
            }
        }
        Ok(())
    }

    fn declare_queue(&mut self, declare: &queue::Declare<'_>) -> Result<(), Exception> {
        let (name, generated) = match declare.queue {
            "" if declare.passive => (self.queue_name("")?, false),
            "" => (self.engine.generate_name("amq.gen-"), true),
            name => (name.into(), false),
        };
        let key = self.engine.declare_queue(self.connection, &name, generated, declare)?;
        if let Some(channel) = self.engine.channels.get_mut(self.key) {
            channel.last_queue = name.clone();
        }
        self.engine.expire(key);
        if let Some(queue) = self.engine.queues.get(key) {
            let (message_count, consumer_count) =
                (queue.len() as u32, queue.consumers.len() as u32);
            let answer = queue::DeclareOk { queue: &name, message_count, consumer_count };
            self.reply(declare.no_wait, &answer);
        }
        Ok(())
    }

    fn exchange(&self, name: &str) -> Result<Destination, Exception> {
        if name.is_empty() {
            return Err(Exception::refused("operation not permitted on the default exchange"));
        }
        self.engine.find_exchange(name).map(Destination::Exchange)
    }

    /// What an empty name stands for: the queue that was declared last on this channel.
    fn queue_name(&self, name: &str) -> Result<CompactString, Exception> {
        if !name.is_empty() {
            return Ok(name.into());
        }
        match self.engine.channels.get(self.key) {
            Some(channel) if !channel.last_queue.is_empty() => Ok(channel.last_queue.clone()),
            _ => Err(Exception::new(ReplyCode::NOT_FOUND, "no previously declared queue")),
        }
    }
}

fn recoverable(requeue: bool) -> Result<(), Exception> {
    if requeue { Ok(()) } else { Err(Exception::not_implemented("requeue=false")) }
}
