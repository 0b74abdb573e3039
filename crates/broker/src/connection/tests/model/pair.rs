//! The engine and the model, step by step.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use serde_json::json;
use warren_amqp::method::{basic, channel, confirm, exchange, queue, tx};
use warren_amqp::{BasicProperties, FieldTable, Method};

use super::super::storing::open_at;
use super::super::tenancy::ask;
use super::super::{Client, Seen, Server};
use super::deaths::{Message, shown};
use super::plain::Model;
use super::routing::End;
use super::steps::{
    ALTERNATE, CONSUMING, Case, EXCHANGES, INTERNAL, KEYS, LETTERS, Limits, PUBLISHING, Place,
    Publish, QUEUES, Step, TX, Verdict, match_arguments, next,
};
use crate::memory;
use crate::store::pages::{Pages, Window};

/// Both, and what the last step must still be answered with.
pub(super) struct Pair {
    server: Server,
    /// What the store has to say.
    news: Option<Receiver<Result<u64, String>>>,
    folder: tempfile::TempDir,
    paged: bool,
    publisher: Client,
    consumer: Client,
    model: Model,
    /// Publishes that are to be confirmed (true) or refused.
    confirms: VecDeque<(u64, bool)>,
    last_publish: u64,
    answers: VecDeque<String>,
}

impl Pair {
    pub(super) fn run(place: Place, case: &Case) {
        let held_before = (memory::held(), memory::parts());
        let folder = tempfile::tempdir().unwrap();
        let now = Server::new().now;
        let (server, news) = start(place, folder.path(), case.paged, now);
        let (publisher, consumer) = (dial(&server), dial(&server));
        let now_ms = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64;
        let model = Model::new(case.shapes.clone(), now_ms);
        let mut pair = Self {
            server,
            news,
            folder,
            paged: case.paged,
            publisher,
            consumer,
            model,
            confirms: VecDeque::new(),
            last_publish: 0,
            answers: VecDeque::new(),
        };
        pair.connect(true);
        pair.connect(false);
        pair.model.connect();
        pair.declare_exchanges();
        for queue in 0..QUEUES.len() {
            pair.step(&Step::Declare { queue });
        }
        for (number, step) in case.steps.iter().enumerate() {
            let step = std::panic::AssertUnwindSafe(|| pair.step(step));
            if let Err(panic) = std::panic::catch_unwind(step) {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                panic!("step {number}: {}", text.unwrap_or_default());
            }
        }
        pair.stop();
        let Self { server, publisher, consumer, .. } = pair;
        disconnect(&server);
        drop((server, publisher, consumer));
        assert_eq!((memory::held(), memory::parts()), held_before, "held by nobody");
    }

    fn stop(&self) {
        if self.news.is_some() {
            self.server.close();
        }
    }

    /// A new connection for one of the two, as it was when it began.
    fn connect(&mut self, publisher: bool) {
        let mut client = dial(&self.server);
        client.log_in("PLAIN", b"\0guest\0guest");
        client.tune(0);
        let channels: &[u16] = if publisher { &[PUBLISHING] } else { &CONSUMING };
        channels.iter().for_each(|channel| client.open_channel(*channel));
        if publisher {
            client.send(PUBLISHING, &confirm::Select { no_wait: true });
            self.last_publish = 0;
            self.publisher = client;
        } else {
            client.send(TX, &tx::Select {});
            client.expect(TX, &tx::SelectOk {});
            self.consumer = client;
        }
    }

    fn declare_exchanges(&mut self) {
        let named = EXCHANGES.iter().skip(1).copied();
        for (name, kind) in named.chain(LETTERS.map(|name| (name, "fanout"))) {
            let mut arguments = FieldTable::new();
            if name == EXCHANGES[ALTERNATE.0].0 {
                arguments.push("alternate-exchange", EXCHANGES[ALTERNATE.1].0);
            }
            let internal = name == EXCHANGES[INTERNAL].0;
            let declare = exchange::Declare {
                exchange: name,
                kind,
                durable: true,
                internal,
                arguments,
                ..Default::default()
            };
            self.publisher.send(PUBLISHING, &declare);
        }
        self.read();
    }

    fn is_there(&self, queue: usize) -> bool {
        self.model.queues.contains_key(&queue)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish(ref publishes) => {
                publishes.iter().for_each(|publish| self.publish(publish))
            }
            Step::Gather(ref publish) => {
                let message = self.message(publish);
                send(&mut self.consumer, TX, publish, &message);
                let tx = self.model.channels.get_mut(&TX).unwrap();
                tx.publishes.push((message, publish.exchange, publish.mandatory));
            }
            _ => self.other_step(step),
        }
        self.read();
        self.compare();
    }

    fn publish(&mut self, publish: &Publish) {
        let message = self.message(publish);
        send(&mut self.publisher, PUBLISHING, publish, &message);
        let body = message.body.clone();
        let (is_routed, is_refused) = self.model.publish(publish.exchange, message);
        if publish.mandatory && !is_routed {
            self.answers.push_back(format!("back {body}"));
        }
        self.last_publish += 1;
        self.confirms.push_back((self.last_publish, !is_refused));
    }

    fn message(&mut self, publish: &Publish) -> Message {
        let body = format!("m{}{}", self.model.number(), "-".repeat(publish.body_bytes));
        let (exchange, _) = EXCHANGES[publish.exchange];
        let more_key = publish.more_key.map(|key| KEYS[key]);
        let mut message =
            Message::new(body, (exchange, KEYS[publish.key], more_key), publish.headers);
        message.persistent = publish.persistent;
        message.priority = publish.priority;
        message.expiration = publish.expiration;
        message
    }

    fn other_step(&mut self, step: &Step) {
        match *step {
            Step::Commit => {
                let back = self.model.commit().into_iter().map(|body| format!("back {body}"));
                self.answers.extend(back.chain(["committed".into()]));
                self.consumer.send(TX, &tx::Commit {});
            }
            Step::Rollback => {
                self.model.rollback();
                self.consumer.send(TX, &tx::Rollback {});
            }
            Step::Bind { exchange, queue, key } if self.is_there(queue) => {
                self.model.routes.bind(exchange, End::Queue(queue), key);
                self.bind(exchange, queue, key);
            }
            Step::Unbind { exchange, queue, key } if self.is_there(queue) => {
                self.model.routes.unbind(exchange, End::Queue(queue), key);
                let (routing_key, arguments) = key_of(exchange, key);
                let (queue, exchange) = (QUEUES[queue], EXCHANGES[exchange].0);
                let unbind = queue::Unbind { queue, exchange, routing_key, arguments };
                self.publisher.send(PUBLISHING, &unbind);
            }
            Step::Join { exchange, to, key } => {
                self.model.routes.bind(exchange, End::Exchange(to), key);
                let (routing_key, arguments) = key_of(exchange, key);
                let (destination, source) = (EXCHANGES[to].0, EXCHANGES[exchange].0);
                let bind = exchange::Bind {
                    destination,
                    source,
                    routing_key,
                    arguments,
                    ..Default::default()
                };
                self.publisher.send(PUBLISHING, &bind);
            }
            Step::Part { exchange, to, key } => {
                self.model.routes.unbind(exchange, End::Exchange(to), key);
                let (routing_key, arguments) = key_of(exchange, key);
                let (destination, source) = (EXCHANGES[to].0, EXCHANGES[exchange].0);
                let unbind = exchange::Unbind {
                    destination,
                    source,
                    routing_key,
                    arguments,
                    ..Default::default()
                };
                self.publisher.send(PUBLISHING, &unbind);
            }
            Step::Purge { queue } if self.is_there(queue) => {
                self.answers.push_back(self.model.purge(queue).to_string());
                let purge = queue::Purge { queue: QUEUES[queue], no_wait: false };
                self.publisher.send(PUBLISHING, &purge);
            }
            Step::Delete { queue } => {
                self.answers.push_back(self.model.delete(queue).to_string());
                let delete = queue::Delete { queue: QUEUES[queue], ..Default::default() };
                self.publisher.send(PUBLISHING, &delete);
            }
            Step::Declare { queue } => self.declare(queue),
            Step::Limit { queue, limits } => self.limit(queue, limits),
            Step::Pass { ms } => {
                self.model.now_ms += ms;
                self.server.pass_ms(ms);
            }
            Step::Lose { publisher: true } => {
                self.publisher.wire.lose();
                self.model.close(PUBLISHING);
                self.connect(true);
            }
            Step::Lose { publisher: false } => {
                self.consumer.wire.lose();
                CONSUMING.iter().for_each(|channel| self.model.close(*channel));
                self.connect(false);
            }
            Step::Restart => self.restart(),
            _ => self.consume_step(step),
        }
    }

    fn consume_step(&mut self, step: &Step) {
        match *step {
            Step::Prefetch { channel, count, global }
                if !global || self.is_alone(channel, None) =>
            {
                let channel = CONSUMING[channel];
                let of = self.model.channels.get_mut(&channel).unwrap();
                *(if global { &mut of.prefetch_all } else { &mut of.prefetch }) = count;
                self.consumer.send(
                    channel,
                    &basic::Qos { prefetch_count: count, global, ..Default::default() },
                );
            }
            Step::Consume { channel, queue, no_ack, priority }
                if self.is_there(queue) && self.may_consume(channel, queue) =>
            {
                let consumer_tag = &*format!("c{}", self.model.number());
                let channel = CONSUMING[channel];
                let consumer = self.model.new_consumer(queue, channel, no_ack, priority);
                self.model.consume(consumer_tag.into(), consumer);
                let arguments = FieldTable::new().with("x-priority", i32::from(priority));
                let consume = basic::Consume {
                    queue: QUEUES[queue],
                    consumer_tag,
                    no_ack,
                    arguments,
                    ..Default::default()
                };
                self.consumer.send(channel, &consume);
            }
            Step::Cancel { nth } if !self.model.consumers.is_empty() => {
                let nth = nth % self.model.consumers.len();
                let tag = self.model.consumers.keys().nth(nth).unwrap().clone();
                let channel = self.model.consumers[&tag].channel;
                self.model.cancel(&tag);
                self.consumer.send(channel, &basic::Cancel { consumer_tag: &tag, no_wait: false });
            }
            Step::Get { queue, no_ack } if self.is_there(queue) => {
                let answer = match self.model.take(queue) {
                    None => "nothing".into(),
                    Some(entry) => {
                        let redelivered = entry.redelivered;
                        let what = entry.message.shown(self.model.told_count(queue, &entry));
                        let tag = self.model.deliver(queue, entry, PUBLISHING, (no_ack, None));
                        format!("{tag} {redelivered} {} {what}", self.model.ready(queue))
                    }
                };
                self.answers.push_back(answer);
                self.publisher.send(PUBLISHING, &basic::Get { queue: QUEUES[queue], no_ack });
            }
            Step::Settle { nth, multiple, verdict } if !self.model.held.is_empty() => {
                let nth = nth % self.model.held.len();
                let (channel, delivery_tag) = *self.model.held.keys().nth(nth).unwrap();
                let first = if multiple { 0 } else { delivery_tag };
                self.model.settle_up_to(channel, first, delivery_tag, verdict);
                let requeue = verdict == Verdict::Requeue;
                let client = self.client(channel);
                if verdict == Verdict::Ack {
                    client.send(channel, &basic::Ack { delivery_tag, multiple });
                } else if multiple || delivery_tag % 2 == 0 {
                    client.send(channel, &basic::Nack { delivery_tag, multiple, requeue });
                } else {
                    client.send(channel, &basic::Reject { delivery_tag, requeue });
                }
            }
            Step::Recover { channel } => {
                self.model.recover(CONSUMING[channel]);
                self.consumer.send(CONSUMING[channel], &basic::Recover { requeue: true });
            }
            Step::Reopen { channel } => {
                let channel = CONSUMING[channel];
                self.model.close(channel);
                let close = channel::Close { reply_code: 200, ..Default::default() };
                self.consumer.send(channel, &close);
                self.consumer.send(channel, &channel::Open {});
                if channel == TX {
                    self.consumer.send(channel, &tx::Select {});
                }
            }
            // Of a queue that is not there, or of what would be left to chance.
            _ => {}
        }
    }

    fn client(&mut self, channel: u16) -> &mut Client {
        if channel == PUBLISHING { &mut self.publisher } else { &mut self.consumer }
    }

    /// Whether the consumers of a channel all are of one queue (and of this one): which of several queues gets what
    /// room the channel has is left to chance.
    fn is_alone(&self, channel: usize, queue: Option<usize>) -> bool {
        let of_channel =
            self.model.consumers.values().filter(|of| of.channel == CONSUMING[channel]);
        let mut queues: Vec<usize> = of_channel.map(|of| of.queue).chain(queue).collect();
        queues.dedup();
        queues.len() < 2
    }

    fn may_consume(&self, channel: usize, queue: usize) -> bool {
        let of = &self.model.channels[&CONSUMING[channel]];
        of.prefetch_all == 0 || self.is_alone(channel, Some(queue))
    }

    fn bind(&mut self, exchange: usize, queue: usize, key: usize) {
        let (routing_key, arguments) = key_of(exchange, key);
        let (queue, exchange) = (QUEUES[queue], EXCHANGES[exchange].0);
        let bind = queue::Bind { queue, exchange, routing_key, arguments, ..Default::default() };
        self.publisher.send(PUBLISHING, &bind);
    }

    fn declare(&mut self, queue: usize) {
        self.model.declare(queue);
        let consumers = self.model.queues[&queue].consumers.len();
        self.answers.push_back(format!("{} {consumers}", self.model.ready(queue)));
        let shape = &self.model.shapes[queue];
        let declare = queue::Declare {
            queue: QUEUES[queue],
            durable: shape.durable,
            auto_delete: shape.auto_delete,
            arguments: shape.arguments(queue),
            ..Default::default()
        };
        self.publisher.send(PUBLISHING, &declare);
        // The dead letters of the queue before it.
        let before = (0..QUEUES.len()).find(|before| next(*before) == queue).unwrap();
        let bind =
            queue::Bind { queue: QUEUES[queue], exchange: LETTERS[before], ..Default::default() };
        self.publisher.send(PUBLISHING, &bind);
    }

    fn limit(&mut self, queue: usize, limits: Option<Limits>) {
        let name = QUEUES[queue];
        let is_set = self.model.policies.remove(&queue).is_some();
        if let Some(limits) = limits {
            self.model.policies.insert(queue, limits);
            let (pattern, definition) = (format!("^{name}$"), limits.definition());
            let policy = json!({
                "op": "set_policy", "name": name, "pattern": pattern, "apply_to": "queues", "definition": definition,
            });
            ask(&self.server, policy).unwrap();
        } else if is_set {
            ask(&self.server, json!({"op": "clear_policy", "name": name})).unwrap();
        }
    }

    fn restart(&mut self) {
        self.server.close();
        disconnect(&self.server);
        let (server, news) = start(Place::Disk, self.folder.path(), self.paged, self.server.now);
        (self.server, self.news) = (server, news);
        self.model.restart();
        self.connect(true);
        self.connect(false);
        self.model.connect();
    }

    /// Lets the store say what it has to say.
    fn quiet(&self) {
        loop {
            self.server.turn();
            let mut engine = self.server.engine.borrow_mut();
            if !engine.awaits_store() {
                return;
            }
            let news = self.news.as_ref().unwrap().recv_timeout(Duration::from_secs(60));
            engine.store_synced(news.unwrap().unwrap());
        }
    }

    /// Holds everything that comes to the model.
    fn read(&mut self) {
        self.model.settle();
        self.quiet();
        while let Some(seen) = self.publisher.next() {
            self.read_one(true, seen);
        }
        while let Some(seen) = self.consumer.next() {
            self.read_one(false, seen);
        }
        assert!(self.answers.is_empty(), "no answer came: {:?}", self.answers);
        assert!(self.confirms.is_empty(), "not confirmed: {:?}", self.confirms);
        assert!(self.model.cancelled.is_empty(), "not told: {:?}", self.model.cancelled);
        for (queue, of) in &self.model.queues {
            let kept = of.pending.front();
            assert!(kept.is_none(), "{} does not deliver {kept:?}", QUEUES[*queue]);
        }
    }

    fn read_one(&mut self, publisher: bool, seen: Seen) {
        let Seen::Method(channel, payload) = seen else { panic!("{seen:?}") };
        let client = if publisher { &mut self.publisher } else { &mut self.consumer };
        let answer = match Method::decode(&payload).unwrap() {
            Method::BasicDeliver(deliver) => {
                let (properties, body) = client.content();
                let what = content(deliver.exchange, deliver.routing_key, properties, body);
                self.delivered(channel, &deliver, &what);
                return;
            }
            Method::BasicCancel(cancel) => {
                let told = (channel, cancel.consumer_tag.to_owned());
                assert!(self.model.cancelled.remove(&told), "{told:?}");
                return;
            }
            Method::BasicAck(ack) => return self.confirmed(ack.delivery_tag, ack.multiple, true),
            Method::BasicNack(nack) => {
                return self.confirmed(nack.delivery_tag, nack.multiple, false);
            }
            Method::BasicReturn(back) => {
                assert_eq!(back.reply_code, 312);
                format!("back {}", String::from_utf8(client.content().1).unwrap())
            }
            Method::BasicGetOk(got) => {
                let (properties, body) = client.content();
                let what = content(got.exchange, got.routing_key, properties, body);
                format!("{} {} {} {what}", got.delivery_tag, got.redelivered, got.message_count)
            }
            Method::BasicGetEmpty(_) => "nothing".into(),
            Method::QueuePurgeOk(purged) => purged.message_count.to_string(),
            Method::QueueDeleteOk(deleted) => deleted.message_count.to_string(),
            Method::QueueDeclareOk(there) => {
                format!("{} {}", there.message_count, there.consumer_count)
            }
            Method::TxCommitOk(_) => "committed".into(),
            Method::ChannelClose(close) => panic!("{close:?}"),
            Method::ConnectionClose(close) => panic!("{close:?}"),
            _ => return,
        };
        assert_eq!(Some(answer), self.answers.pop_front());
    }

    fn delivered(&mut self, channel: u16, deliver: &basic::Deliver<'_>, what: &str) {
        let tag = deliver.consumer_tag;
        let model = &mut self.model;
        let consumer = model.consumers.get(tag).unwrap_or_else(|| panic!("{tag} is no consumer"));
        assert_eq!(consumer.channel, channel);
        assert!(model.has_room(tag), "{tag} has no room for {what}");
        let (queue, no_ack) = (consumer.queue, consumer.no_ack);
        let others = &model.queues[&queue].consumers;
        if model.shapes[queue].single_active {
            assert_eq!(others[0], tag, "another is the active one of {}", QUEUES[queue]);
        } else {
            let before = |other: &&String| {
                consumer.priority < model.consumers[*other].priority && model.has_room(other)
            };
            let before = others.iter().find(before);
            assert!(before.is_none(), "{tag} is served before {before:?}");
        }
        let entry = model.queues.get_mut(&queue).unwrap().pending.pop_front();
        let entry = entry.unwrap_or_else(|| panic!("{} delivers {what}", QUEUES[queue]));
        let want = entry.message.shown(model.told_count(queue, &entry));
        let redelivered = entry.redelivered;
        let number = model.deliver(queue, entry, channel, (no_ack, Some(tag)));
        assert_eq!(
            (deliver.delivery_tag, deliver.redelivered, what),
            (number, redelivered, &*want),
            "from {}",
            QUEUES[queue]
        );
    }

    fn confirmed(&mut self, tag: u64, multiple: bool, done: bool) {
        loop {
            let (number, want) = self.confirms.pop_front().expect("a confirm that is owed");
            assert!(number == tag || multiple && number < tag, "{tag} instead of {number}");
            assert_eq!(want, done, "the confirm of {number}");
            if number == tag {
                return;
            }
        }
    }

    /// What the engine holds is what the model holds.
    fn compare(&self) {
        let engine = self.server.engine.borrow();
        let vhost = engine.find_vhost("/").unwrap().key;
        for (queue, name) in QUEUES.iter().enumerate() {
            let found = engine.queue_key(vhost, name).and_then(|key| engine.queues.get(key));
            let found =
                found.map(|queue| (queue.len(), queue.ready.bytes(), queue.consumers.len()));
            let want =
                self.model.queues.get(&queue).map(|of| {
                    (self.model.ready(queue), self.model.bytes(queue), of.consumers.len())
                });
            assert_eq!(found, want, "messages, bytes and consumers of {name}");
        }
        for (_, channel) in engine.channels.iter() {
            let held =
                self.model.held.range((channel.number, 0)..=(channel.number, u64::MAX)).count();
            assert_eq!(channel.unacked().count(), held, "held on channel {}", channel.number);
        }
    }
}

fn start(
    place: Place,
    folder: &Path,
    paged: bool,
    now: SystemTime,
) -> (Server, Option<Receiver<Result<u64, String>>>) {
    let (server, news) = match place {
        Place::Memory => (Server::new(), None),
        Place::Disk => {
            let (server, news) = open_at(folder, now);
            (server, Some(news))
        }
    };
    if paged {
        let window = Window { entries: 3, bytes: 60, page_entries: 2, page_bytes: 30 };
        server.engine.borrow_mut().page_to(Pages::new(folder, window));
    }
    (server, news)
}

/// Ends all connections, those that were followed by others too: each has the engine, which has them.
fn disconnect(server: &Server) {
    let mut engine = server.engine.borrow_mut();
    engine.connections.keys().into_iter().for_each(|key| engine.close_connection(key));
}

fn dial(server: &Server) -> Client {
    server.dial(warren_reactor::PeerAddr::Memory)
}

fn send(client: &mut Client, channel: u16, publish: &Publish, message: &Message) {
    let (exchange, _) = EXCHANGES[publish.exchange];
    let (routing_key, mandatory) = (KEYS[publish.key], publish.mandatory);
    let method = basic::Publish { exchange, routing_key, mandatory, ..Default::default() };
    client.publish_on(channel, &method, &message.properties(), message.body.as_bytes());
}

/// How a binding with this key is made.
fn key_of(exchange: usize, key: usize) -> (&'static str, FieldTable) {
    match EXCHANGES[exchange].1 {
        "headers" => {
            let (how, wanted) = match_arguments(key);
            (KEYS[key], wanted.with("x-match", how))
        }
        _ => (KEYS[key], FieldTable::new()),
    }
}

fn content(exchange: &str, key: &str, properties: BasicProperties, body: Vec<u8>) -> String {
    shown(exchange, key, properties, &String::from_utf8(body).unwrap())
}
