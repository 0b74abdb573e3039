//! The broker's state, and what is done to it. One hub, one thread, no locks; no sockets either: deliveries are
//! appended to the output of their connection's transport.
//!
//! ```text
//!   publish --> exchange --> queues: marked dirty          (while bytes are read)
//!   end of the turn: dirty queues --> consumers            (engine/deliver.rs)
//!                    what the store is to know --> one batch
//!                    confirms that wait for nothing more --> publishers
//! ```
//! The parts: [`declare`](Engine::declare_queue) exchanges, queues and bindings; [`publish`](Engine::publish);
//! consume and deliver; settle what was delivered.

pub(crate) mod access;
mod deadletter;
mod deaths;
mod declare;
mod delayed;
mod deliver;
pub(crate) mod events;
pub(crate) mod login;
mod publish;
mod recover;
pub(crate) mod replies;
mod retries;
mod routes;
mod settle;
mod streams;
mod timers;
mod trace;
mod vhosts;

pub(crate) use declare::refuse_default;
pub(crate) use events::Actor;
pub(crate) use trace::NODE;

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::SystemTime;

use compact_str::CompactString;
use rustc_hash::FxHashMap;
use warren_amqp::frame;
use warren_amqp::method::{EncodeMethod, channel};

use crate::alarms::Alarms;
use crate::channel::{Channel, ChannelKey, Ending, Publish};
use crate::connection::{Connection, ConnectionKey};
use crate::exception::Exception;
use crate::exchange::{Exchange, ExchangeKey};
use crate::interceptors::Interceptors;
use crate::limits::Limits;
use crate::memory::{Bodies, Budget, OutputShare};
use crate::message::Spares;
use crate::queue::{Consumer, Duplicates, Levels, Queue, QueueKey};
use crate::store::pages::Pages;
use crate::store::{Definition, Store};
use crate::table::Table;
use crate::tenancy::Tenancy;
use crate::vhost::{Vhost, VhostKey};

#[derive(Default)]
pub(crate) struct Engine {
    pub(crate) exchanges: Table<Exchange>,
    vhosts: Table<Vhost>,
    vhost_names: FxHashMap<Rc<str>, VhostKey>,
    pub(crate) queues: Table<Queue>,
    pub(crate) consumers: Table<Consumer>,
    pub(crate) channels: Table<Channel>,
    pub(crate) connections: Table<Connection>,
    pub(crate) tenancy: Tenancy,
    /// By the names that stand in messages: see [`replies`].
    reply_channels: FxHashMap<CompactString, ChannelKey>,
    logins: login::Logins,
    pub(crate) alarms: Alarms,
    pub(crate) budget: Budget,
    pub(crate) output_share: OutputShare,
    pub(crate) bodies: Bodies,
    pub(crate) limits: Limits,
    pub(crate) interceptors: Interceptors,
    /// `None`: nothing outlives the process.
    store: Option<Store>,
    /// Where long queues leave memory for; `None`: they stay.
    pages: Option<Rc<Pages>>,
    streams: streams::Streams,
    /// The last batch that is on disk.
    synced: u64,
    /// The batch with the definitions that were changed by the method being handled.
    defined_in: u64,
    /// The store cannot write: nothing can be promised until it can.
    failed: bool,
    /// Queues with something to do at the end of the turn.
    dirty: Vec<QueueKey>,
    /// Channels that are owed confirms, or a `commit-ok`.
    owing: Vec<ChannelKey>,
    /// What messages are written into.
    pub(crate) spares: Spares,
    last_message_id: u64,
    last_queue_id: u64,
    last_routing: u64,
    last_generated: u64,
    /// Reused by each publish, as the next two: the queues that a message goes to.
    targets: Vec<QueueKey>,
    routes: routes::Routes,
    /// The exchanges that the message being routed has passed look at its key alone.
    routes_by_key: bool,
    letters: VecDeque<deadletter::Letter>,
    /// Reused by each letter.
    properties: Vec<u8>,
    /// Those that nobody takes, by the queue that keeps them.
    staying: FxHashMap<QueueKey, deadletter::Staying>,
    timers: timers::Timers,
    /// When the next message of each exchange that delays some is due.
    delayed: BTreeSet<(u64, ExchangeKey)>,
    /// The exchanges at which the message being routed is to wait, and for how many milliseconds.
    delaying: Vec<(ExchangeKey, u64)>,
    /// An exchange keeps the message being routed, or has had it before: it is not unroutable. The batch that
    /// makes that durable.
    kept: Option<u64>,
    /// The exchange at which the message being routed has waited.
    released: Option<ExchangeKey>,
    /// Messages of the broker's own, which go at the end of the turn.
    notes: Vec<Publish>,
    /// Some virtual host is traced.
    traced: bool,
    events: events::Events,
    /// The exchanges that it still has to pass.
    ahead: Vec<ExchangeKey>,
    /// The durable ones among its queues, by the store's numbers.
    durable: Vec<u64>,
    /// The empty one.
    default_name: Rc<str>,
    /// Consumers whose queues have gone, to be told at the end of the turn: after the answer to the client
    /// that deleted the queue, as in RabbitMQ.
    cancelled: Vec<(ChannelKey, CompactString)>,
    random: RandomState,
    /// Seconds since the start, as the ticks count them.
    pub(crate) clock: u64,
    /// Milliseconds since 1970 at the start of this turn.
    now_ms: u64,
    /// Where the time of day is read; `None`: it is set.
    wall: Option<Rc<dyn Fn() -> SystemTime>>,
    /// Nobody knows how long the hub has slept since `now_ms` was read.
    slept: bool,
}

impl Engine {
    pub(crate) fn new() -> Self {
        let mut engine = Self::default();
        engine.open_vhosts();
        engine
    }

    pub(crate) fn exchange_key(&self, vhost: VhostKey, name: &str) -> Option<ExchangeKey> {
        self.vhosts.get(vhost)?.exchanges.get(name).copied()
    }

    pub(crate) fn queue_key(&self, vhost: VhostKey, name: &str) -> Option<QueueKey> {
        self.vhosts.get(vhost)?.queues.get(name).copied()
    }

    fn insert_exchange(&mut self, mut exchange: Exchange) -> ExchangeKey {
        if let Some(delays) = exchange.delays_mut() {
            delays.schedule.page_to(self.pages.clone());
        }
        let (vhost, name) = (exchange.vhost.key, exchange.name.clone());
        let key = self.exchanges.insert(exchange);
        // It may be an alternate exchange that was missing.
        self.routes.change();
        if let Some(vhost) = self.vhosts.get_mut(vhost) {
            vhost.exchanges.insert(name, key);
        }
        key
    }

    fn insert_queue(&mut self, mut queue: Queue) -> QueueKey {
        queue.ready = Levels::new(self.pages.clone());
        if queue.stream.is_none() && streams::is_stream(&queue.arguments) {
            queue.stream = Some(self.new_stream(&queue));
        }
        if queue.stream.is_none() {
            queue.duplicates = Duplicates::new(&queue.arguments);
        }
        let (vhost, name) = (queue.vhost.key, queue.name.clone());
        let key = self.queues.insert(queue);
        if let Some(vhost) = self.vhosts.get_mut(vhost) {
            vhost.queues.insert(name, key);
        }
        key
    }

    /// A name that nobody has: `prefix` and 22 letters, as RabbitMQ makes them.
    pub(crate) fn generate_name(&mut self, prefix: &str) -> CompactString {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut name = CompactString::from(prefix);
        self.last_generated += 1;
        for half in 0..2u64 {
            // Keyed at random in each process: names do not come again after a restart.
            let mut bits = self.random.hash_one((self.last_generated, half));
            for _ in 0..11 {
                name.push(char::from(LETTERS[(bits % 64) as usize]));
                bits /= 64;
            }
        }
        name
    }

    /// Lets the end of the turn look at a queue.
    pub(crate) fn mark(&mut self, key: QueueKey) {
        if let Some(queue) = self.queues.get_mut(key)
            && !queue.dirty
        {
            queue.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Lets the end of the turn look at a channel's debts.
    fn owe(&mut self, key: ChannelKey) {
        if let Some(channel) = self.channels.get_mut(key)
            && !channel.owed
        {
            channel.owed = true;
            self.owing.push(key);
        }
    }

    /// Tells the store of a definition, if there is a store.
    fn define(&mut self, definition: Definition) {
        if let Some(store) = &mut self.store {
            self.defined_in = store.define(definition);
        }
    }

    /// Lets the store keep what `work` does whole, or not at all.
    fn at_once<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        if let Some(store) = &mut self.store {
            store.begin_group();
        }
        let done = work(self);
        if let Some(store) = &mut self.store {
            store.end_group();
        }
        done
    }

    /// Messages are done with, by the store's numbers; 0: it has none.
    fn forget_all(&mut self, places: impl IntoIterator<Item = u64>) {
        if let Some(store) = &mut self.store {
            places.into_iter().filter(|place| *place != 0).for_each(|place| store.ack(place));
        }
    }

    /// The batch that the answer to the method being handled has to wait for; 0: none.
    pub(crate) fn take_defined(&mut self) -> u64 {
        std::mem::take(&mut self.defined_in)
    }

    /// Answers on a channel once `waits_for` is on disk, and everything before has been answered.
    pub(crate) fn answer(&mut self, key: ChannelKey, waits_for: u64, method: &impl EncodeMethod) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        if waits_for <= self.synced && channel.answers.is_empty() {
            if let Some(connection) = self.connections.get(channel.connection) {
                connection.send(channel.number, method);
            }
            return;
        }
        let mut bytes = Vec::new();
        frame::write_method(&mut bytes, channel.number, method);
        channel.answers.push_back((waits_for, bytes));
        self.owe(key);
    }

    /// Milliseconds since 1970 at the start of this turn.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Sets the time for what expires.
    pub(crate) fn set_now(&mut self, now: SystemTime) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.now_ms = since.as_millis() as u64;
    }

    /// From now on the first thing that happens in a turn reads the time here.
    pub(crate) fn tell_time_by(&mut self, wall: Rc<dyn Fn() -> SystemTime>) {
        self.wall = Some(wall);
    }

    /// A turn is over, and the hub may sleep.
    pub(crate) fn let_time_pass(&mut self) {
        self.slept = true;
    }

    /// Something happens: for what has come after a sleep, the time before it would be too early to live from.
    #[inline]
    pub(crate) fn wake_up(&mut self) {
        if std::mem::take(&mut self.slept)
            && let Some(wall) = &self.wall
        {
            let now = wall();
            self.set_now(now);
        }
    }

    /// A second has passed.
    pub(crate) fn tick(&mut self) {
        self.clock += 1;
        self.spares.shrink();
        self.close_overdue_channels();
        self.run_timers();
    }

    /// The end of a turn. True when there is more to do at once.
    pub(crate) fn end_turn(&mut self) -> bool {
        self.wake_up();
        self.set_actor(Actor::Internal);
        self.tell_cancelled();
        self.send_notes();
        self.take_read();
        self.seal_streams();
        let more = self.send_letters() | self.dispatch_dirty() | self.send_letters();
        self.seal_streams();
        if let Some(store) = &mut self.store {
            store.commit();
        }
        self.pay();
        if self.budget.is_due(self.memory_weight()) {
            self.watch_memory();
        }
        more || !self.dirty.is_empty() || !self.notes.is_empty()
    }

    /// The store has written everything up to `batch`.
    pub(crate) fn store_synced(&mut self, batch: u64) {
        self.synced = self.synced.max(batch);
        // It writes again, if it had failed, and has left nothing out.
        self.failed = false;
        self.commit_streams();
        self.pay();
        self.set_refusing(false);
    }

    /// The store cannot write. It goes on trying, and [`store_synced`](Self::store_synced) says when it can.
    pub(crate) fn store_failed(&mut self) {
        self.failed = true;
        self.set_refusing(true);
        self.pay();
    }

    /// When what is confirmed is kept, as it is set; `None`: it never is.
    pub(crate) fn durability(&self) -> Option<&'static str> {
        self.store.as_ref().map(|store| store.durability().name())
    }

    pub(crate) fn has_store(&self) -> bool {
        self.store.is_some()
    }

    /// Bytes of messages that the store was given since it was opened.
    pub(crate) fn store_given(&self) -> u64 {
        self.store.as_ref().map_or(0, Store::given)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether the store has still to say something of what it was given.
    #[cfg(test)]
    pub(crate) fn awaits_store(&self) -> bool {
        self.store.as_ref().is_some_and(|store| self.synced < store.handed_over())
    }

    /// The last batch that is on disk.
    pub(crate) fn synced(&self) -> u64 {
        self.synced
    }

    /// Lets the queues that are made from now on leave memory when they are long.
    pub(crate) fn page_to(&mut self, pages: Pages) {
        self.pages = Some(Rc::new(pages));
    }

    pub(crate) fn take_store(&mut self) -> Option<Store> {
        self.stop_reading();
        self.seal_streams();
        self.tell_delivered();
        self.store.take()
    }
}

impl Engine {
    /// Opens a channel.
    pub(crate) fn open_channel(&mut self, connection: ConnectionKey, number: u16) -> ChannelKey {
        let vhost = self.connections.get(connection);
        let vhost = vhost.map_or(VhostKey::nothing(), |connection| connection.vhost.key);
        let key = self.channels.insert(Channel::new(connection, vhost, number));
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.channels.push(key);
        }
        self.tell_channel_created(key);
        key
    }

    /// Closes a channel.
    pub(crate) fn close_channel(&mut self, key: ChannelKey) {
        self.quiet_channel(key);
        self.remove_channel(key);
    }

    /// A client closes a channel, or its connection. False when the channel is still owed confirms or other answers that
    /// wait for the disk: then it stays, and the answer comes, until it has them. RabbitMQ forgets them.
    pub(crate) fn end_channel(&mut self, key: ChannelKey, ending: Ending) -> bool {
        self.quiet_channel(key);
        match self.channels.get_mut(key) {
            Some(channel) if channel.owed => {
                channel.ending.get_or_insert(ending);
                false
            }
            _ => {
                self.remove_channel(key);
                true
            }
        }
    }

    /// A client closes its connection. False when its answer has to wait for answers before it.
    pub(crate) fn end_connection(&mut self, key: ConnectionKey) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return true };
        let mut ended = true;
        for channel in connection.channels.clone() {
            ended &= self.end_channel(channel, Ending::Connection);
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.ending = !ended;
        }
        ended
    }

    /// A channel that is ending has nothing to say any more.
    pub(in crate::engine) fn finish_channel(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.get(key) else { return };
        let (connection, number, ending) = (channel.connection, channel.number, channel.ending);
        self.remove_channel(key);
        let clock = self.clock;
        let Some(connection) = self.connections.get_mut(connection) else { return };
        if ending == Some(Ending::Channel) {
            connection.send(number, &channel::CloseOk {});
        }
        if connection.ending && connection.channels.is_empty() {
            connection.finish(clock);
        }
    }

    /// Lets nothing come to a channel any more: its consumers go, what it holds goes back to the queues.
    fn quiet_channel(&mut self, key: ChannelKey) {
        self.cancel_replies(key);
        let Some(channel) = self.channels.get_mut(key) else { return };
        // A queue that goes with its consumer sends its letters at once: none may come here and be lost.
        channel.paused = true;
        let consumers: Vec<_> = channel.consumers.drain().map(|(_, consumer)| consumer).collect();
        let mut held = channel.settle_up_to(0).unwrap_or_default();
        if let crate::channel::Mode::Tx(tx) = &mut channel.mode {
            // Settled in a transaction that never was committed.
            held.extend(tx.verdicts.drain(..).map(|(tag, unacked, _)| (tag, unacked)));
            held.sort_by_key(|(tag, _)| *tag);
        }
        // The messages first: a queue that is deleted with its last consumer takes them along.
        self.requeue(held, true);
        for consumer in consumers {
            self.remove_consumer(consumer);
        }
    }

    fn remove_channel(&mut self, key: ChannelKey) {
        self.tell_channel_closed(key);
        let Some(Channel { connection, .. }) = self.channels.remove(key) else { return };
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.channels.retain(|other| *other != key);
        }
    }

    /// Closes a channel for a reason of the broker's.
    pub(crate) fn force_close_channel(&mut self, key: ChannelKey, exception: &Exception) {
        let Some(channel) = self.channels.get(key) else { return };
        let (connection, number) = (channel.connection, channel.number);
        self.close_channel(key);
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.closed_channels.push(number);
            let (reply_code, reply_text) = (exception.code.0, &*exception.text);
            connection.send(
                number,
                &channel::Close { reply_code, reply_text, class_id: 0, method_id: 0 },
            );
        }
    }

    /// Closes all channels of a connection.
    pub(crate) fn close_channels(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        for channel in std::mem::take(&mut connection.channels) {
            self.close_channel(channel);
        }
    }

    /// Tells a client that the broker ends the connection, and why.
    pub(crate) fn force_close(&mut self, key: ConnectionKey, exception: &Exception) {
        self.close_channels(key);
        let clock = self.clock;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.ending {
            connection.finish(clock);
        } else {
            connection.close(exception, 0, 0, clock);
        }
    }

    /// Closes a connection: its channels, then its exclusive queues.
    pub(crate) fn close_connection(&mut self, key: ConnectionKey) {
        self.set_actor(Actor::Internal);
        self.close_channels(key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        for queue in std::mem::take(&mut connection.exclusive_queues) {
            self.remove_queue(queue);
        }
        self.tell_connection_closed(key);
        self.connections.remove(key);
    }

    /// The connection takes output again.
    pub(crate) fn resume_connection(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get(key) else { return };
        for channel in connection.channels.clone() {
            self.mark_consumed(channel);
        }
    }

    /// Marks the queues that a channel consumes from.
    fn mark_consumed(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.get(key) else { return };
        let consumers: Vec<_> = channel
            .consumers
            .values()
            .filter_map(|consumer| Some((self.consumers.get(*consumer)?.queue, *consumer)))
            .collect();
        for (queue, consumer) in consumers {
            self.wake(queue, consumer);
        }
    }
}
