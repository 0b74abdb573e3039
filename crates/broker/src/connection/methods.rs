//! The methods of an open channel.

use compact_str::CompactString;
use warren_amqp::method::{access, basic, channel, confirm, exchange, queue, tx};
use warren_amqp::{FieldTable, Method, ReplyCode};

use super::content::{Incoming, interrupted, not_open};
use super::{SessionState, Slot};
use crate::auth::Access;
use crate::channel::{ChannelKey, Ending, Verdict};
use crate::connection::ConnectionKey;
use crate::engine::replies::REPLY_TO;
use crate::engine::{Engine, refuse_default};
use crate::exception::Exception;
use crate::exchange::{Destination, ExchangeKey};
use crate::vhost::VhostRef;

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
                    Method::ChannelOpen(_) => return Err(open_twice()),
                    _ => {}
                }
                return Ok(());
            }
            Some(slot @ Slot::Ending(_)) if slot.is_free(engine) => {
                self.slots.remove(&number);
                return self.open_channel(engine, connection, number, &method);
            }
            Some(Slot::Ending(_)) => {
                let opens = matches!(method, Method::ChannelOpen(_));
                return if opens { Err(open_twice()) } else { Ok(()) };
            }
            Some(Slot::Open { incoming: Some(incoming), .. }) => return Err(interrupted(incoming)),
            Some(Slot::Open { key, .. }) => *key,
        };
        match method {
            Method::BasicPublish(publish) => {
                let begun = Incoming::new(engine, key, &publish, &mut self.spare_key)?;
                if let Some(Slot::Open { incoming, .. }) = self.slots.get_mut(&number) {
                    *incoming = Some(begun);
                }
                Ok(())
            }
            Method::ChannelOpen(_) => Err(open_twice()),
            Method::ChannelClose(_) => {
                if engine.end_channel(key, Ending::Channel) {
                    self.slots.remove(&number);
                    self.send(engine, number, &channel::CloseOk {});
                } else {
                    self.slots.insert(number, Slot::Ending(key));
                }
                Ok(())
            }
            Method::ChannelFlowOk(_) => Ok(()),
            Method::ChannelFlow(flow) => {
                engine.set_flow(key, flow.active);
                self.send(engine, number, &channel::FlowOk { active: flow.active });
                Ok(())
            }
            Method::AccessRequest(_) => {
                self.send(engine, number, &access::RequestOk { ticket: 1 });
                Ok(())
            }
            method => {
                // Its answer waits for what it changes itself, and not for what went before it without an answer.
                engine.take_defined();
                let vhost = engine.connections.get(connection).map(|connection| &connection.vhost);
                let vhost = vhost.cloned().unwrap_or_else(VhostRef::nowhere);
                let fetches = matches!(method, Method::BasicGet(_));
                Call { engine, connection, vhost, key }.run(method)?;
                if fetches {
                    self.paused |= engine.has_fetched_enough(key);
                }
                Ok(())
            }
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
        if usize::from(self.channel_max) <= self.slots.len() {
            self.slots.retain(|_, slot| !slot.is_free(engine));
        }
        // As in RabbitMQ, their number counts, and not the highest of their numbers.
        if usize::from(self.channel_max) <= self.slots.len() {
            let text = format!(
                "number of channels opened ({}) has reached the negotiated channel_max ({})",
                self.slots.len(),
                self.channel_max
            );
            return Err(Exception::hard(ReplyCode::NOT_ALLOWED, text).at(0, 0));
        }
        engine.check_channels(connection)?;
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
    vhost: VhostRef,
    key: ChannelKey,
}

impl Call<'_> {
    fn reply(&mut self, no_wait: bool, method: &impl warren_amqp::method::EncodeMethod) {
        let waits_for = self.engine.take_defined();
        if !no_wait {
            self.engine.answer(self.key, waits_for, method);
        }
    }

    fn check(&self, access: Access, kind: &str, name: &str) -> Result<(), Exception> {
        self.engine.check_access(self.connection, access, kind, name)
    }

    /// Whether a topic exchange may be bound with this key.
    fn check_topic(&self, source: ExchangeKey, key: &str) -> Result<(), Exception> {
        self.engine.check_topic(self.connection, Access::Read, source, key)
    }

    fn run(mut self, method: Method<'_>) -> Result<(), Exception> {
        match method {
            Method::ExchangeDeclare(declare) => {
                if !declare.passive {
                    self.check(Access::Configure, "exchange", declare.exchange)?;
                    let alternate = declare.arguments.get("alternate-exchange");
                    if let Some(alternate) = alternate.and_then(|value| value.as_str()) {
                        self.check(Access::Read, "exchange", declare.exchange)?;
                        self.check(Access::Write, "exchange", alternate)?;
                    }
                }
                self.engine.declare_exchange(&self.vhost, &declare)?;
                self.reply(declare.no_wait, &exchange::DeclareOk {});
            }
            Method::ExchangeDelete(delete) => {
                self.check(Access::Configure, "exchange", delete.exchange)?;
                self.engine.delete_exchange(&self.vhost, delete.exchange, delete.if_unused)?;
                self.reply(delete.no_wait, &exchange::DeleteOk {});
            }
            Method::ExchangeBind(bind) => {
                refuse_default(bind.destination)?;
                self.check(Access::Write, "exchange", bind.destination)?;
                self.check(Access::Read, "exchange", bind.source)?;
                let source = self.engine.find_source(&self.vhost, bind.source)?;
                self.check_topic(source, bind.routing_key)?;
                let destination = Destination::Exchange(
                    self.engine.find_exchange(&self.vhost, bind.destination)?,
                );
                self.engine.bind(source, destination, bind.routing_key, &bind.arguments)?;
                self.reply(bind.no_wait, &exchange::BindOk {});
            }
            Method::ExchangeUnbind(unbind) => {
                refuse_default(unbind.destination)?;
                refuse_default(unbind.source)?;
                self.check(Access::Write, "exchange", unbind.destination)?;
                self.check(Access::Read, "exchange", unbind.source)?;
                let destination = self.engine.exchange_key(self.vhost.key, unbind.destination);
                self.unbind(
                    unbind.source,
                    destination.map(Destination::Exchange),
                    unbind.routing_key,
                    &unbind.arguments,
                )?;
                self.reply(unbind.no_wait, &exchange::UnbindOk {});
            }
            Method::QueueDeclare(declare) => self.declare_queue(&declare)?,
            Method::QueueBind(bind) => {
                let name = self.queue_name(bind.queue)?;
                self.check(Access::Write, "queue", &name)?;
                self.check(Access::Read, "exchange", bind.exchange)?;
                let source = self.engine.find_source(&self.vhost, bind.exchange)?;
                let queue = self.engine.find_queue(&self.vhost, &name, self.connection)?;
                let key = key_or_name(bind.queue, bind.routing_key, &name);
                self.check_topic(source, key)?;
                self.engine.bind(source, Destination::Queue(queue), key, &bind.arguments)?;
                self.reply(bind.no_wait, &queue::BindOk {});
            }
            Method::QueueUnbind(unbind) => {
                let name = self.queue_name(unbind.queue)?;
                refuse_default(unbind.exchange)?;
                self.check(Access::Write, "queue", &name)?;
                self.check(Access::Read, "exchange", unbind.exchange)?;
                let destination =
                    self.engine.queue_key(self.vhost.key, &name).map(Destination::Queue);
                let key = key_or_name(unbind.queue, unbind.routing_key, &name);
                self.unbind(unbind.exchange, destination, key, &unbind.arguments)?;
                self.reply(false, &queue::UnbindOk {});
            }
            Method::QueuePurge(purge) => {
                let name = self.queue_name(purge.queue)?;
                self.check(Access::Read, "queue", &name)?;
                let queue = self.engine.find_queue(&self.vhost, &name, self.connection)?;
                self.engine.refuse_stream(queue, "queue.purge")?;
                let message_count = self.engine.purge_queue(queue);
                self.reply(purge.no_wait, &queue::PurgeOk { message_count });
            }
            Method::QueueDelete(delete) => {
                let name = self.queue_name(delete.queue)?;
                self.check(Access::Configure, "queue", &name)?;
                let message_count =
                    self.engine.delete_queue(&self.vhost, self.connection, &delete, &name)?;
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
        match method {
            Method::BasicAck(ack) => {
                engine.settle(key, ack.delivery_tag, ack.multiple, Verdict::Ack)?
            }
            Method::BasicNack(nack) => {
                let verdict = if nack.requeue { Verdict::Requeue } else { Verdict::Discard };
                engine.settle(key, nack.delivery_tag, nack.multiple, verdict)?;
            }
            Method::BasicReject(reject) => {
                // Of the two only this one says that it was tried: RabbitMQ 4.3 draws that line.
                let verdict = if reject.requeue { Verdict::Fail } else { Verdict::Discard };
                engine.settle(key, reject.delivery_tag, false, verdict)?;
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
            Method::BasicConsume(consume) if consume.queue == REPLY_TO => {
                let tag = engine.consume_replies(key, &consume)?;
                self.reply(consume.no_wait, &basic::ConsumeOk { consumer_tag: &tag });
            }
            Method::BasicConsume(consume) => {
                let name = self.queue_name(consume.queue)?;
                self.check(Access::Read, "queue", &name)?;
                let queue = self.engine.find_queue(&self.vhost, &name, self.connection)?;
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
                self.check(Access::Read, "queue", &name)?;
                let queue = self.engine.find_queue(&self.vhost, &name, self.connection)?;
                self.engine.refuse_stream(queue, "basic.get")?;
                self.engine.get(key, queue, get.no_ack);
            }
            _ => return Err(Exception::hard(ReplyCode::COMMAND_INVALID, "unimplemented method")),
        }
        Ok(())
    }

    fn declare_queue(&mut self, declare: &queue::Declare<'_>) -> Result<(), Exception> {
        if declare.queue.starts_with(REPLY_TO) {
            // To whoever answers, this tells whether the asker is still there.
            if !self.engine.takes_replies(declare.queue) {
                return Err(Exception::not_found("queue", declare.queue, &self.vhost));
            }
            let answer =
                queue::DeclareOk { queue: declare.queue, message_count: 0, consumer_count: 1 };
            self.reply(declare.no_wait, &answer);
            return Ok(());
        }
        let (name, generated) = match declare.queue {
            // Passively, no name is no queue's name: it does not stand for the last one.
            "" if !declare.passive => (self.engine.generate_name("amq.gen-"), true),
            name => (name.into(), false),
        };
        if !declare.passive {
            self.check(Access::Configure, "queue", &name)?;
            let letters = declare.arguments.get("x-dead-letter-exchange");
            if let Some(exchange) = letters.and_then(|value| value.as_str()) {
                self.check(Access::Read, "queue", &name)?;
                self.check(Access::Write, "exchange", exchange)?;
            }
        }
        let key =
            self.engine.declare_queue(&self.vhost, self.connection, &name, generated, declare)?;
        if let Some(channel) = self.engine.channels.get_mut(self.key) {
            channel.last_queue = name.clone();
        }
        self.engine.expire(key);
        if let Some(queue) = self.engine.queues.get(key) {
            let (message_count, consumer_count) = (queue.len() as u32, queue.consumers_told());
            let answer = queue::DeclareOk { queue: &name, message_count, consumer_count };
            self.reply(declare.no_wait, &answer);
        }
        Ok(())
    }

    /// To take a binding away that is not there, or from what is not there, is no error.
    fn unbind(
        &mut self,
        source: &str,
        destination: Option<Destination>,
        routing_key: &str,
        arguments: &FieldTable,
    ) -> Result<(), Exception> {
        let (Some(source), Some(destination)) =
            (self.engine.exchange_key(self.vhost.key, source), destination)
        else {
            return Ok(());
        };
        self.engine.unbind(self.connection, source, destination, routing_key, arguments)
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

fn open_twice() -> Exception {
    Exception::hard(ReplyCode::CHANNEL_ERROR, "second 'channel.open' seen")
}

/// Where neither queue nor key is named, the key is the name of the last queue declared.
fn key_or_name<'a>(queue: &str, routing_key: &'a str, name: &'a str) -> &'a str {
    if queue.is_empty() && routing_key.is_empty() { name } else { routing_key }
}

fn recoverable(requeue: bool) -> Result<(), Exception> {
    if requeue { Ok(()) } else { Err(Exception::not_implemented("requeue=false")) }
}
