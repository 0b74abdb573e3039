//! [`RobustChannel`].

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::{Rc, Weak};

use warren_hub::spawn;

use super::super::channel::{Channel, GetOk};
use super::super::connection::Connection;
use super::super::consumer::Delivery;
use super::super::error::Error;
use super::super::options::{
    ConsumeOptions, ExchangeOptions, Publish, QueueDeclared, QueueOptions, Returned,
};
use super::super::publish::Confirm;
use super::consumer::{RobustConsumer, Subscription};
use super::topology::Binding;
use super::{Inner, RobustConnection, is_passing};
use crate::{BasicProperties, FieldTable};

/// A channel that is opened again with its connection. Clones are the same channel.
///
/// Calls wait while there is no connection. Those that can be repeated are, when the connection is lost before the
/// answer has come: declaring, binding, deleting, asking. Publishing is not, see [`publish`](Self::publish). An error
/// of the channel itself, such as 404, ends it for good.
#[derive(Clone)]
pub struct RobustChannel {
    connection: RobustConnection,
    inner: Rc<ChannelInner>,
}

type OnReturn = Rc<dyn Fn(Returned)>;

pub(super) struct ChannelInner {
    current: RefCell<Channel>,
    /// Of the consumers that are made from now on, and of the whole channel.
    prefetch: Cell<Option<u16>>,
    prefetch_global: Cell<Option<u16>>,
    confirms: Cell<bool>,
    consumers: RefCell<Vec<Weak<Subscription>>>,
    on_return: RefCell<Option<OnReturn>>,
}

impl ChannelInner {
    /// Opens the channel anew, as it was.
    pub(super) fn recover(&self, connection: &Connection, inner: &Inner) -> Result<(), Error> {
        if self.is_over() {
            return Ok(());
        }
        let channel = connection.channel()?;
        if let Some(prefetch) = self.prefetch_global.get() {
            channel.basic_qos(prefetch, true)?;
        }
        if self.confirms.get() {
            channel.confirm_select()?;
        }
        if let Some(on_return) = self.on_return.borrow().clone() {
            channel.on_return(move |message| on_return(message));
        }
        self.consumers.borrow_mut().retain(|consumer| consumer.strong_count() != 0);
        let living: Vec<_> = self.consumers.borrow().iter().filter_map(Weak::upgrade).collect();
        for consumer in living.iter().filter(|consumer| !consumer.is_over()) {
            if let Some(prefetch) = consumer.prefetch {
                channel.basic_qos(prefetch, false)?;
            }
            let queue = inner.topology.borrow().name(&consumer.queue).to_owned();
            match channel.basic_consume(&queue, consumer.options()) {
                Ok(found) => consumer.replace(found),
                Err(error) if is_passing(connection, &error) => return Err(error),
                Err(error) => {
                    // The error has ended the channel, and with it the consumers that are back already.
                    consumer.fail(error);
                    return self.recover(connection, inner);
                }
            }
        }
        if let Some(prefetch) = self.prefetch.get() {
            channel.basic_qos(prefetch, false)?;
        }
        // The old one goes when nothing is borrowed any more.
        drop(self.current.replace(channel));
        Ok(())
    }

    /// It was closed while its connection stood: by the program, or for an error of its own.
    fn is_over(&self) -> bool {
        self.current.borrow().ended_alone()
    }
}

impl RobustChannel {
    pub(super) fn open(connection: RobustConnection) -> Result<Self, Error> {
        let current = loop {
            let standing = connection.inner().standing()?;
            match standing.channel() {
                Err(_) if standing.is_closed() => {}
                opened => break opened?,
            }
        };
        let inner = Rc::new(ChannelInner {
            current: RefCell::new(current),
            prefetch: Cell::new(None),
            prefetch_global: Cell::new(None),
            confirms: Cell::new(false),
            consumers: RefCell::default(),
            on_return: RefCell::default(),
        });
        connection.inner().channels.borrow_mut().push(Rc::downgrade(&inner));
        Ok(Self { connection, inner })
    }

    /// The channel as it stands. It is another one after a recovery.
    ///
    /// # Suspends
    /// While there is no connection.
    ///
    /// # Errors
    /// When the channel or the connection has ended for good.
    pub fn current(&self) -> Result<Channel, Error> {
        loop {
            let current = self.inner.current.borrow().clone();
            if current.ended_alone() {
                return current.check().map(|()| current);
            }
            let standing = self.connection.inner().standing()?;
            let current = self.inner.current.borrow().clone();
            if current.is_of(&standing) {
                return Ok(current);
            }
            // Opened while the connection was lost, and so left out when it came back.
            self.inner.recover(&standing, self.connection.inner())?;
        }
    }

    /// Does what may be done again, until the connection lasts for so long.
    pub(super) fn repeat<T>(
        &self,
        work: impl Fn(&Channel) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            let current = self.current()?;
            match work(&current) {
                Err(_) if current.is_lost() => {}
                done => return done,
            }
        }
    }

    /// Closes the channel for good.
    ///
    /// # Suspends
    /// Until the server has answered.
    ///
    /// # Errors
    /// When it had ended already, with the reason.
    pub fn close(&self) -> Result<(), Error> {
        self.repeat(Channel::close)
    }

    /// As [`Channel::queue_declare`]. The queue is declared again with each new connection. One that the server has
    /// named gets another name then, and answers to the first one here.
    ///
    /// # Errors
    /// As [`Channel::queue_declare`].
    pub fn queue_declare(
        &self,
        queue: &str,
        options: QueueOptions,
    ) -> Result<QueueDeclared, Error> {
        let declared =
            self.repeat(|channel| channel.queue_declare(&self.name(queue), options.clone()))?;
        self.topology(|topology| topology.add_queue(queue, &declared.queue, &options));
        Ok(declared)
    }

    /// As [`Channel::queue_bind`]. The binding is made again with each new connection.
    ///
    /// # Errors
    /// As [`Channel::queue_bind`].
    pub fn queue_bind(&self, queue: &str, exchange: &str, routing_key: &str) -> Result<(), Error> {
        self.queue_bind_with(queue, exchange, routing_key, FieldTable::new())
    }

    /// As [`queue_bind`](Self::queue_bind), with arguments.
    ///
    /// # Errors
    /// As [`Channel::queue_bind`].
    pub fn queue_bind_with(
        &self,
        queue: &str,
        exchange: &str,
        routing_key: &str,
        arguments: FieldTable,
    ) -> Result<(), Error> {
        self.repeat(|channel| {
            channel.queue_bind_with(&self.name(queue), exchange, routing_key, arguments.clone())
        })?;
        let binding = binding(true, queue, exchange, routing_key, arguments);
        self.topology(|topology| topology.add_binding(binding));
        Ok(())
    }

    /// As [`Channel::queue_unbind`]. The binding is not made again.
    ///
    /// # Errors
    /// As [`Channel::queue_unbind`].
    pub fn queue_unbind(
        &self,
        queue: &str,
        exchange: &str,
        routing_key: &str,
        arguments: FieldTable,
    ) -> Result<(), Error> {
        let gone = binding(true, queue, exchange, routing_key, arguments.clone());
        self.topology(|topology| topology.remove_binding(&gone));
        self.repeat(|channel| {
            channel.queue_unbind(&self.name(queue), exchange, routing_key, arguments.clone())
        })
    }

    /// As [`Channel::queue_purge`].
    ///
    /// # Errors
    /// As [`Channel::queue_purge`].
    pub fn queue_purge(&self, queue: &str) -> Result<u32, Error> {
        self.repeat(|channel| channel.queue_purge(&self.name(queue)))
    }

    /// As [`Channel::queue_delete`]. The queue is not declared again.
    ///
    /// # Errors
    /// As [`Channel::queue_delete`].
    pub fn queue_delete(&self, queue: &str, if_unused: bool, if_empty: bool) -> Result<u32, Error> {
        let count =
            self.repeat(|channel| channel.queue_delete(&self.name(queue), if_unused, if_empty))?;
        self.topology(|topology| topology.remove_queue(queue));
        Ok(count)
    }

    /// As [`Channel::exchange_declare`]. The exchange is declared again with each new connection.
    ///
    /// # Errors
    /// As [`Channel::exchange_declare`].
    pub fn exchange_declare(
        &self,
        exchange: &str,
        kind: &str,
        options: ExchangeOptions,
    ) -> Result<(), Error> {
        self.repeat(|channel| channel.exchange_declare(exchange, kind, options.clone()))?;
        self.topology(|topology| topology.add_exchange(exchange, kind, &options));
        Ok(())
    }

    /// As [`Channel::exchange_delete`]. The exchange is not declared again.
    ///
    /// # Errors
    /// As [`Channel::exchange_delete`].
    pub fn exchange_delete(&self, exchange: &str, if_unused: bool) -> Result<(), Error> {
        self.repeat(|channel| channel.exchange_delete(exchange, if_unused))?;
        self.topology(|topology| topology.remove_exchange(exchange));
        Ok(())
    }

    /// As [`Channel::exchange_bind`]. The binding is made again with each new connection.
    ///
    /// # Errors
    /// As [`Channel::exchange_bind`].
    pub fn exchange_bind(
        &self,
        destination: &str,
        source: &str,
        routing_key: &str,
    ) -> Result<(), Error> {
        self.repeat(|channel| channel.exchange_bind(destination, source, routing_key))?;
        let made = binding(false, destination, source, routing_key, FieldTable::new());
        self.topology(|topology| topology.add_binding(made));
        Ok(())
    }

    /// As [`Channel::exchange_unbind`]. The binding is not made again.
    ///
    /// # Errors
    /// As [`Channel::exchange_unbind`].
    pub fn exchange_unbind(
        &self,
        destination: &str,
        source: &str,
        routing_key: &str,
    ) -> Result<(), Error> {
        let gone = binding(false, destination, source, routing_key, FieldTable::new());
        self.topology(|topology| topology.remove_binding(&gone));
        self.repeat(|channel| channel.exchange_unbind(destination, source, routing_key))
    }

    /// As [`Channel::basic_qos`], for the channels that follow, too.
    ///
    /// # Errors
    /// As [`Channel::basic_qos`].
    pub fn basic_qos(&self, prefetch_count: u16, global: bool) -> Result<(), Error> {
        self.repeat(|channel| channel.basic_qos(prefetch_count, global))?;
        let kept = if global { &self.inner.prefetch_global } else { &self.inner.prefetch };
        kept.set(Some(prefetch_count));
        Ok(())
    }

    /// As [`Channel::publish`]. When the connection is lost before the server has confirmed the message, its
    /// [`Confirm`] tells so: whether the message was taken is not known, and it is not published again. See
    /// [`publish_at_least_once`](Self::publish_at_least_once).
    ///
    /// # Suspends
    /// As [`Channel::publish`], and while there is no connection.
    ///
    /// # Errors
    /// As [`Channel::publish`].
    pub fn publish(
        &self,
        publish: Publish<'_>,
        properties: &BasicProperties,
        body: &[u8],
    ) -> Result<Confirm, Error> {
        let current = self.current()?;
        let confirm = current.publish(publish, properties, body)?;
        self.inner.confirms.set(true);
        Ok(confirm)
    }

    /// Publishes a message and waits for its confirm; again, with each new connection, until the server confirms it.
    /// So it arrives even if the connection is lost meanwhile, and then perhaps twice.
    ///
    /// # Suspends
    /// Until the message is confirmed.
    ///
    /// # Errors
    /// As [`Confirm::wait`], but for connections that are lost.
    pub fn publish_at_least_once(
        &self,
        publish: Publish<'_>,
        properties: &BasicProperties,
        body: &[u8],
    ) -> Result<(), Error> {
        self.repeat(|channel| channel.publish(publish, properties, body)?.wait())?;
        self.inner.confirms.set(true);
        Ok(())
    }

    /// As [`Channel::basic_publish`]. A message that is on its way when the connection is lost is lost with it.
    ///
    /// # Suspends
    /// As [`Channel::basic_publish`], and while there is no connection.
    ///
    /// # Errors
    /// As [`Channel::basic_publish`].
    pub fn basic_publish(
        &self,
        publish: Publish<'_>,
        properties: &BasicProperties,
        body: &[u8],
    ) -> Result<(), Error> {
        self.current()?.basic_publish(publish, properties, body).map(drop)
    }

    /// As [`Channel::on_return`], for the channels that follow, too.
    pub fn on_return(&self, callback: impl Fn(Returned) + 'static) {
        let callback: OnReturn = Rc::new(callback);
        *self.inner.on_return.borrow_mut() = Some(callback.clone());
        self.inner.current.borrow().on_return(move |message| callback(message));
    }

    /// As [`Channel::basic_consume`]. The iterator goes on with each new connection; what was delivered before and not
    /// acknowledged comes again.
    ///
    /// # Errors
    /// As [`Channel::basic_consume`].
    pub fn basic_consume(
        &self,
        queue: &str,
        options: ConsumeOptions,
    ) -> Result<RobustConsumer, Error> {
        let found =
            self.repeat(|channel| channel.basic_consume(&self.name(queue), options.clone()))?;
        let subscription =
            Rc::new(Subscription::new(queue, options, self.inner.prefetch.get(), found));
        self.inner.consumers.borrow_mut().push(Rc::downgrade(&subscription));
        Ok(RobustConsumer::new(self.clone(), subscription))
    }

    /// As [`Channel::basic_consume_with`], on a fiber that goes on with each new connection.
    ///
    /// # Errors
    /// As [`Channel::basic_consume`].
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

    /// As [`Channel::basic_cancel`]. The consumer does not come back.
    ///
    /// # Errors
    /// As [`Channel::basic_cancel`].
    pub fn basic_cancel(&self, consumer_tag: &str) -> Result<(), Error> {
        for consumer in self.inner.consumers.borrow().iter().filter_map(Weak::upgrade) {
            if consumer.tag() == consumer_tag {
                consumer.end();
            }
        }
        self.repeat(|channel| channel.basic_cancel(consumer_tag))
    }

    /// As [`Channel::basic_get`].
    ///
    /// # Errors
    /// As [`Channel::basic_get`].
    pub fn basic_get(&self, queue: &str, no_ack: bool) -> Result<Option<GetOk>, Error> {
        self.repeat(|channel| channel.basic_get(&self.name(queue), no_ack))
    }

    /// What the server calls a queue now.
    fn name(&self, queue: &str) -> String {
        self.connection.inner().topology.borrow().name(queue).to_owned()
    }

    pub(super) fn topology<T>(&self, work: impl FnOnce(&mut super::Topology) -> T) -> T {
        work(&mut self.connection.inner().topology.borrow_mut())
    }
}

fn binding(
    to_queue: bool,
    destination: &str,
    source: &str,
    routing_key: &str,
    arguments: FieldTable,
) -> Binding {
    Binding {
        to_queue,
        destination: destination.to_owned(),
        source: source.to_owned(),
        routing_key: routing_key.to_owned(),
        arguments,
    }
}

impl fmt::Debug for RobustChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RobustChannel").field(&*self.inner.current.borrow()).finish()
    }
}
