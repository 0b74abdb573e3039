//! What the fibers of a connection know of a channel: who waits for what.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use warren_hub::sync::{Event, Mutex, Queue};

use super::connection::Shared;
use super::consumer::{DeliveryQueue, Received};
use super::error::{Close, Error};
use super::options::Returned;
use super::publish::Confirms;
use crate::frame::Frame;
use crate::method::{EncodeMethod, channel};
use crate::{BasicProperties, Method, ReplyCode};

pub(super) type OnReturn = Rc<dyn Fn(Returned)>;
pub(super) type OnCancel = Rc<dyn Fn(&str)>;

/// What the connection's fibers know of a channel.
pub(super) struct ChannelState {
    pub(super) number: u16,
    pub(super) connection: Rc<Shared>,
    /// Calls wait for one another: answers carry no name.
    calling: Mutex<()>,
    /// Payloads of the methods that answer, with content for `basic.get-ok`.
    replies: Queue<Reply>,
    /// Answers still to come to calls whose fiber has been killed or has run out of time.
    abandoned: Cell<u32>,
    pub(super) consumers: RefCell<HashMap<String, DeliveryQueue>>,
    incoming: RefCell<Option<Incoming>>,
    pub(super) on_return: RefCell<Option<OnReturn>>,
    pub(super) on_cancel: RefCell<Option<OnCancel>>,
    pub(super) confirms: RefCell<Option<Confirms>>,
    pub(super) confirmed: Event,
    pub(super) end: RefCell<Option<Error>>,
    /// It has ended by itself, and not with its connection.
    pub(super) ended_alone: Cell<bool>,
}

/// An answer: the payload of its method, and its content if it is a `basic.get-ok`.
struct Reply {
    method: Vec<u8>,
    content: Option<(BasicProperties, Vec<u8>)>,
}

/// A content of which more is to come.
struct Incoming {
    method: Vec<u8>,
    header: Option<(BasicProperties, usize)>,
    body: Vec<u8>,
}

impl ChannelState {
    pub(super) fn new(number: u16, connection: Rc<Shared>) -> Self {
        Self {
            number,
            connection,
            calling: Mutex::new(()),
            replies: Queue::unbounded(),
            abandoned: Cell::new(0),
            consumers: RefCell::default(),
            incoming: RefCell::default(),
            on_return: RefCell::default(),
            on_cancel: RefCell::default(),
            confirms: RefCell::default(),
            confirmed: Event::new(),
            end: RefCell::default(),
            ended_alone: Cell::new(false),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        match &*self.end.borrow() {
            Some(error) => Err(error.clone()),
            None => self.connection.check(),
        }
    }

    pub(super) fn send(&self, method: &impl EncodeMethod) -> Result<(), Error> {
        self.check()?;
        self.connection.send(self.number, method)
    }

    /// Lets `fill` append to the output, if the channel is still open when there is room.
    ///
    /// # Suspends
    /// While too much waits to be written.
    pub(super) fn send_with(&self, fill: impl FnOnce(&mut Vec<u8>)) -> Result<(), Error> {
        self.connection.wait_for_room()?;
        self.check()?;
        self.connection.send_with(fill)
    }

    /// Sends a method and waits for its answer, of which `pick` takes what matters.
    pub(super) fn call<T>(
        &self,
        method: &impl EncodeMethod,
        wanted: &'static str,
        pick: impl FnOnce(Method<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        self.call_for_content(method, wanted, |method, _| pick(method))
    }

    pub(super) fn call_for_content<T>(
        &self,
        method: &impl EncodeMethod,
        wanted: &'static str,
        pick: impl FnOnce(Method<'_>, Option<(BasicProperties, Vec<u8>)>) -> Option<T>,
    ) -> Result<T, Error> {
        /// Counts the answer as abandoned when the wait for it is unwound.
        struct Waiting<'a>(&'a ChannelState);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                // It may have come between the interruption and this.
                if self.0.replies.try_get().is_err() {
                    self.0.abandoned.set(self.0.abandoned.get() + 1);
                }
            }
        }
        let _turn = self.calling.lock();
        self.send(method)?;
        let waiting = Waiting(self);
        let reply = self.replies.get();
        std::mem::forget(waiting);
        let Ok(reply) = reply else {
            self.check()?;
            return Err(Error::Closed);
        };
        let method = Method::decode(&reply.method)?;
        let got = method.name();
        pick(method, reply.content).ok_or(Error::Unexpected { got, wanted })
    }

    /// A frame for this channel, on the reading fiber: nothing here may wait.
    pub(super) fn frame(&self, frame: Frame<'_>) -> Result<(), Error> {
        match frame {
            Frame::Method { payload, .. } => {
                let method = Method::decode(payload)?;
                if method.has_content() {
                    let method = payload.to_vec();
                    *self.incoming.borrow_mut() =
                        Some(Incoming { method, header: None, body: Vec::new() });
                    return Ok(());
                }
                self.method(method, payload)
            }
            Frame::Header { properties, body_size, .. } => {
                if let Some(incoming) = &mut *self.incoming.borrow_mut() {
                    incoming.header =
                        Some((BasicProperties::decode(properties)?, body_size as usize));
                }
                self.complete()
            }
            Frame::Body { payload, .. } => {
                if let Some(incoming) = &mut *self.incoming.borrow_mut() {
                    incoming.body.extend_from_slice(payload);
                }
                self.complete()
            }
            Frame::Heartbeat => Ok(()),
        }
    }

    fn complete(&self) -> Result<(), Error> {
        let whole = match &*self.incoming.borrow() {
            Some(Incoming { header: Some((_, size)), body, .. }) => *size <= body.len(),
            _ => false,
        };
        if !whole {
            return Ok(());
        }
        let Some(Incoming { method, header: Some((properties, _)), body }) = self.incoming.take()
        else {
            return Ok(());
        };
        match Method::decode(&method)? {
            Method::BasicDeliver(deliver) => {
                let consumer = self.consumers.borrow().get(deliver.consumer_tag).cloned();
                if let Some(consumer) = consumer {
                    let _ = consumer.put(Ok(Received {
                        consumer_tag: deliver.consumer_tag.to_owned(),
                        delivery_tag: deliver.delivery_tag,
                        redelivered: deliver.redelivered,
                        exchange: deliver.exchange.to_owned(),
                        routing_key: deliver.routing_key.to_owned(),
                        properties,
                        body,
                    }));
                }
            }
            Method::BasicReturn(returned) => {
                let returned = Returned {
                    code: returned.reply_code.into(),
                    text: returned.reply_text.to_owned(),
                    exchange: returned.exchange.to_owned(),
                    routing_key: returned.routing_key.to_owned(),
                    properties,
                    body,
                };
                if let Some(confirms) = &*self.confirms.borrow() {
                    confirms.returned(&returned);
                }
                let on_return = self.on_return.borrow().clone();
                if let Some(on_return) = on_return {
                    on_return(returned);
                }
            }
            _ => self.reply(Reply { method, content: Some((properties, body)) }),
        }
        Ok(())
    }

    fn method(&self, method: Method<'_>, payload: &[u8]) -> Result<(), Error> {
        match method {
            Method::BasicAck(ack) => self.settle(ack.delivery_tag, ack.multiple, false),
            Method::BasicNack(nack) => self.settle(nack.delivery_tag, nack.multiple, true),
            Method::BasicCancel(cancel) => {
                // The queue has gone.
                let consumer = self.consumers.borrow_mut().remove(cancel.consumer_tag);
                if let Some(consumer) = consumer {
                    consumer.cancel();
                }
                let on_cancel = self.on_cancel.borrow().clone();
                if let Some(on_cancel) = on_cancel {
                    on_cancel(cancel.consumer_tag);
                }
            }
            Method::ChannelFlow(flow) => self.send(&channel::FlowOk { active: flow.active })?,
            Method::ChannelClose(close) => {
                let reason = Close {
                    code: close.reply_code.into(),
                    text: close.reply_text.to_owned(),
                    class_id: close.class_id,
                    method_id: close.method_id,
                };
                let _ = self.send(&channel::CloseOk {});
                self.ended_alone.set(true);
                self.finish(&Error::ChannelClosed(Arc::new(reason)));
                self.connection.forget_channel(self.number);
            }
            _ => self.reply(Reply { method: payload.to_vec(), content: None }),
        }
        Ok(())
    }

    fn reply(&self, reply: Reply) {
        match self.abandoned.get() {
            // Nobody waits once the channel has ended.
            0 => drop(self.replies.put(reply)),
            abandoned => self.abandoned.set(abandoned - 1),
        }
    }

    fn settle(&self, tag: u64, multiple: bool, refused: bool) {
        if let Some(confirms) = &mut *self.confirms.borrow_mut()
            && confirms.settle(tag, multiple, refused)
        {
            self.confirmed.set();
        }
    }

    /// The end, for everyone who waits.
    pub(super) fn finish(&self, error: &Error) {
        if self.end.borrow().is_some() {
            return;
        }
        *self.end.borrow_mut() = Some(error.clone());
        self.replies.close();
        if let Some(confirms) = &mut *self.confirms.borrow_mut() {
            confirms.fail(error);
        }
        self.confirmed.set();
        for (_, consumer) in self.consumers.take() {
            if !matches!(error, Error::Closed) {
                let _ = consumer.put(Err(error.clone()));
            }
            consumer.close();
        }
    }

    pub(super) fn close(&self) -> Result<(), Error> {
        let close = channel::Close {
            reply_code: ReplyCode::REPLY_SUCCESS.0,
            reply_text: "Normal shutdown",
            class_id: 0,
            method_id: 0,
        };
        self.call(&close, "channel.close-ok", |method| {
            matches!(method, Method::ChannelCloseOk(_)).then_some(())
        })?;
        self.ended_alone.set(true);
        self.finish(&Error::Closed);
        self.connection.forget_channel(self.number);
        Ok(())
    }
}
