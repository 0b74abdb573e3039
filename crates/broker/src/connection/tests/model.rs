//! The whole engine beside a plain model: random operations of one client, whose every delivery, answer and count
//! must be one that the model allows, and after which no message waits for a consumer that has room.
//!
//! Which of several consumers gets a message is left open; everything else is not.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use warren_amqp::method::{basic, channel, exchange, queue};
use warren_amqp::{BasicProperties, Method};

use super::{Client, Seen, Server};

const QUEUES: [&str; 3] = ["qa", "qb", "qc"];
/// The default exchange, and one of each type that routes by its key or not at all.
const EXCHANGES: [(&str, &str); 4] = [("", ""), ("d", "direct"), ("f", "fanout"), ("t", "topic")];
const KEYS: [&str; 6] = ["qa", "qb", "a.b", "a.c", "a.*", "#"];
/// Channel 1 publishes, declares and gets; these consume.
const CONSUMING: [u16; 2] = [2, 3];

#[derive(Clone, Debug)]
enum Step {
    Publish { exchange: usize, key: usize },
    Bind { exchange: usize, queue: usize, key: usize },
    Unbind { exchange: usize, queue: usize, key: usize },
    Prefetch { channel: usize, count: u16 },
    Consume { channel: usize, queue: usize, no_ack: bool },
    Cancel { nth: usize },
    Get { queue: usize, no_ack: bool },
    Settle { nth: usize, multiple: bool, ack: bool, requeue: bool },
    Recover { channel: usize },
    Reopen { channel: usize },
    Purge { queue: usize },
    Delete { queue: usize },
    Declare { queue: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let queue = || 0..QUEUES.len();
    let binding = || (1..EXCHANGES.len(), queue(), 0..KEYS.len());
    let channel = || 0..CONSUMING.len();
    prop_oneof![
        10 => (0..EXCHANGES.len(), 0..KEYS.len())
            .prop_map(|(exchange, key)| Step::Publish { exchange, key }),
        4 => binding().prop_map(|(exchange, queue, key)| Step::Bind { exchange, queue, key }),
        1 => binding().prop_map(|(exchange, queue, key)| Step::Unbind { exchange, queue, key }),
        1 => (channel(), 0..4u16).prop_map(|(channel, count)| Step::Prefetch { channel, count }),
        3 => (channel(), queue(), any::<bool>())
            .prop_map(|(channel, queue, no_ack)| Step::Consume { channel, queue, no_ack }),
        1 => (0..100usize).prop_map(|nth| Step::Cancel { nth }),
        3 => (queue(), any::<bool>()).prop_map(|(queue, no_ack)| Step::Get { queue, no_ack }),
        9 => (0..100usize, any::<bool>(), any::<bool>(), any::<bool>())
            .prop_map(|(nth, multiple, ack, requeue)| Step::Settle { nth, multiple, ack, requeue }),
        1 => channel().prop_map(|channel| Step::Recover { channel }),
        1 => channel().prop_map(|channel| Step::Reopen { channel }),
        1 => queue().prop_map(|queue| Step::Purge { queue }),
        1 => queue().prop_map(|queue| Step::Delete { queue }),
        3 => queue().prop_map(|queue| Step::Declare { queue }),
    ]
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    /// Which of the queues that had this name.
    generation: u64,
    queue: &'static str,
    position: u64,
    body: String,
    consumer: Option<String>,
}

#[derive(Debug)]
struct Consumer {
    queue: &'static str,
    channel: u16,
    no_ack: bool,
    prefetch: u16,
}

#[derive(Debug, Default)]
struct Queue {
    generation: u64,
    /// By position: body, and whether it was delivered before.
    ready: BTreeMap<u64, (String, bool)>,
    next_position: u64,
}

#[derive(Debug, Default)]
struct Model {
    queues: BTreeMap<&'static str, Queue>,
    bindings: BTreeSet<(usize, &'static str, &'static str)>,
    consumers: BTreeMap<String, Consumer>,
    /// By channel and delivery tag.
    held: BTreeMap<(u16, u64), Held>,
    last_tag: BTreeMap<u16, u64>,
    prefetch: BTreeMap<u16, u16>,
    /// Consumers that are still to be told that their queue has gone.
    cancelled: BTreeSet<(u16, String)>,
    count: u64,
}

fn matches(pattern: &[&str], words: &[&str]) -> bool {
    match pattern.split_first() {
        None => words.is_empty(),
        Some((&"#", rest)) => (0..=words.len()).any(|skipped| matches(rest, &words[skipped..])),
        Some((&word, rest)) => {
            !words.is_empty() && (word == "*" || word == words[0]) && matches(rest, &words[1..])
        }
    }
}

impl Model {
    fn publish(&mut self, exchange: usize, key: &str, body: &str) {
        let words: Vec<&str> = key.split('.').collect();
        let takes = |queue: &str| {
            let mut bound =
                self.bindings.iter().filter(|(of, to, _)| *of == exchange && *to == queue);
            match EXCHANGES[exchange].1 {
                "" => queue == key,
                "fanout" => bound.next().is_some(),
                "direct" => bound.any(|(_, _, bound)| *bound == key),
                _ => bound
                    .any(|(_, _, bound)| matches(&bound.split('.').collect::<Vec<_>>(), &words)),
            }
        };
        let targets: Vec<&str> = self.queues.keys().copied().filter(|queue| takes(queue)).collect();
        for name in targets {
            let queue = self.queues.get_mut(name).unwrap();
            queue.ready.insert(queue.next_position, (body.into(), false));
            queue.next_position += 1;
        }
    }

    fn requeue(&mut self, held: Held) {
        if let Some(queue) = self.queues.get_mut(held.queue)
            && queue.generation == held.generation
        {
            queue.ready.insert(held.position, (held.body, true));
        }
    }

    fn has_room(&self, tag: &str) -> bool {
        let consumer = &self.consumers[tag];
        let held = self.held.values().filter(|held| held.consumer.as_deref() == Some(tag)).count();
        consumer.no_ack || consumer.prefetch == 0 || held < usize::from(consumer.prefetch)
    }

    /// Takes the head of a queue out, as a delivery on a channel; whether it was delivered before.
    fn take(
        &mut self,
        queue: &'static str,
        channel: u16,
        no_ack: bool,
        consumer: Option<String>,
    ) -> (u64, String, bool) {
        let of = self.queues.get_mut(queue).expect("a delivery from a queue that is there");
        let (position, (body, redelivered)) = of.ready.pop_first().expect("a message is ready");
        let last = self.last_tag.entry(channel).or_default();
        *last += 1;
        if !no_ack {
            let generation = of.generation;
            let held = Held { generation, queue, position, body: body.clone(), consumer };
            self.held.insert((channel, *last), held);
        }
        (*last, body, redelivered)
    }

    fn drop_queue(&mut self, queue: &'static str) -> usize {
        let gone = self.queues.remove(queue).map_or(0, |queue| queue.ready.len());
        self.bindings.retain(|(_, to, _)| *to != queue);
        let consumers: Vec<String> = self
            .consumers
            .iter()
            .filter(|(_, consumer)| consumer.queue == queue)
            .map(|(tag, _)| tag.clone())
            .collect();
        for tag in consumers {
            let consumer = self.consumers.remove(&tag).unwrap();
            self.cancelled.insert((consumer.channel, tag));
        }
        gone
    }

    fn close(&mut self, channel: u16) {
        self.consumers.retain(|_, consumer| consumer.channel != channel);
        self.requeue_all(channel);
        self.last_tag.remove(&channel);
        self.prefetch.remove(&channel);
    }

    fn requeue_all(&mut self, channel: u16) {
        let held: Vec<_> = self.held.keys().filter(|(of, _)| *of == channel).copied().collect();
        for key in held {
            let held = self.held.remove(&key).unwrap();
            self.requeue(held);
        }
    }
}

/// Both, and what the last step must still be answered with.
struct Pair {
    client: Client,
    model: Model,
}

impl Pair {
    fn new(server: &Server) -> Self {
        let mut client = server.connect();
        for (name, kind) in &EXCHANGES[1..] {
            client.send(1, &exchange::Declare { exchange: name, kind, ..Default::default() });
            client.expect(1, &exchange::DeclareOk {});
        }
        for channel in CONSUMING {
            client.open_channel(channel);
        }
        Self { client, model: Model::default() }
    }

    fn run(&mut self, step: &Step) {
        let (client, model) = (&mut self.client, &mut self.model);
        // What the client is told of the step: a count, or the message that it got.
        let mut told = None;
        match *step {
            Step::Publish { exchange, key } => {
                model.count += 1;
                let body = format!("m{}", model.count);
                model.publish(exchange, KEYS[key], &body);
                let (exchange, _) = EXCHANGES[exchange];
                let publish =
                    basic::Publish { exchange, routing_key: KEYS[key], ..Default::default() };
                client.publish_with(&publish, &BasicProperties::new(), body.as_bytes());
            }
            Step::Bind { exchange, queue, key } if model.queues.contains_key(QUEUES[queue]) => {
                model.bindings.insert((exchange, QUEUES[queue], KEYS[key]));
                let (exchange, queue, routing_key) =
                    (EXCHANGES[exchange].0, QUEUES[queue], KEYS[key]);
                client.send(1, &queue::Bind { exchange, queue, routing_key, ..Default::default() });
            }
            Step::Unbind { exchange, queue, key } if model.queues.contains_key(QUEUES[queue]) => {
                model.bindings.remove(&(exchange, QUEUES[queue], KEYS[key]));
                let (exchange, queue, routing_key) =
                    (EXCHANGES[exchange].0, QUEUES[queue], KEYS[key]);
                client
                    .send(1, &queue::Unbind { exchange, queue, routing_key, ..Default::default() });
            }
            Step::Prefetch { channel, count } => {
                model.prefetch.insert(CONSUMING[channel], count);
                let qos = basic::Qos { prefetch_count: count, ..Default::default() };
                client.send(CONSUMING[channel], &qos);
            }
            Step::Consume { channel, queue, no_ack }
                if model.queues.contains_key(QUEUES[queue]) =>
            {
                model.count += 1;
                let (channel, queue) = (CONSUMING[channel], QUEUES[queue]);
                let consumer_tag = &*format!("c{}", model.count);
                let prefetch = model.prefetch.get(&channel).copied().unwrap_or(0);
                let consumer = Consumer { queue, channel, no_ack, prefetch };
                model.consumers.insert(consumer_tag.into(), consumer);
                let consume = basic::Consume { queue, consumer_tag, no_ack, ..Default::default() };
                client.send(channel, &consume);
            }
            Step::Cancel { nth } if !model.consumers.is_empty() => {
                let nth = nth % model.consumers.len();
                let tag = model.consumers.keys().nth(nth).unwrap().clone();
                let consumer = model.consumers.remove(&tag).unwrap();
                client
                    .send(consumer.channel, &basic::Cancel { consumer_tag: &tag, no_wait: false });
            }
            Step::Get { queue, no_ack } if model.queues.contains_key(QUEUES[queue]) => {
                let queue = QUEUES[queue];
                told = Some(if model.queues[queue].ready.is_empty() {
                    String::from("nothing")
                } else {
                    let (tag, body, redelivered) = model.take(queue, 1, no_ack, None);
                    format!("{tag} {body} {redelivered} {}", model.queues[queue].ready.len())
                });
                client.send(1, &basic::Get { queue, no_ack });
            }
            Step::Settle { nth, multiple, ack, requeue } if !model.held.is_empty() => {
                let (channel, delivery_tag) =
                    *model.held.keys().nth(nth % model.held.len()).unwrap();
                let first = if multiple { 0 } else { delivery_tag };
                let settled: Vec<_> = model
                    .held
                    .range((channel, first)..=(channel, delivery_tag))
                    .map(|(key, _)| *key)
                    .collect();
                for key in settled {
                    let held = model.held.remove(&key).unwrap();
                    if !ack && requeue {
                        model.requeue(held);
                    }
                }
                if ack {
                    client.send(channel, &basic::Ack { delivery_tag, multiple });
                } else {
                    client.send(channel, &basic::Nack { delivery_tag, multiple, requeue });
                }
            }
            Step::Recover { channel } => {
                model.requeue_all(CONSUMING[channel]);
                client.send(CONSUMING[channel], &basic::Recover { requeue: true });
            }
            Step::Reopen { channel } => {
                model.close(CONSUMING[channel]);
                let close = channel::Close { reply_code: 200, ..Default::default() };
                client.send(CONSUMING[channel], &close);
                client.send(CONSUMING[channel], &channel::Open {});
            }
            Step::Purge { queue } if model.queues.contains_key(QUEUES[queue]) => {
                let ready = &mut model.queues.get_mut(QUEUES[queue]).unwrap().ready;
                told = Some(std::mem::take(ready).len().to_string());
                client.send(1, &queue::Purge { queue: QUEUES[queue], no_wait: false });
            }
            Step::Delete { queue } => {
                told = Some(model.drop_queue(QUEUES[queue]).to_string());
                client.send(1, &queue::Delete { queue: QUEUES[queue], ..Default::default() });
            }
            Step::Declare { queue } => {
                model.count += 1;
                let generation = model.count;
                let new = || Queue { generation, ..Queue::default() };
                let ready = model.queues.entry(QUEUES[queue]).or_insert_with(new).ready.len();
                let of_queue = |consumer: &&Consumer| consumer.queue == QUEUES[queue];
                let consumers = model.consumers.values().filter(of_queue).count();
                told = Some(format!("{ready} {consumers}"));
                client.send(1, &queue::Declare { queue: QUEUES[queue], ..Default::default() });
            }
            // Of a queue that is not there.
            _ => {}
        }
        self.read(told);
    }

    /// Holds everything that comes to the model.
    fn read(&mut self, mut told: Option<String>) {
        while let Some(seen) = self.client.next() {
            let Seen::Method(channel, payload) = seen else { panic!("{seen:?}") };
            let answer = match Method::decode(&payload).unwrap() {
                Method::BasicDeliver(deliver) => {
                    let tag = deliver.consumer_tag;
                    assert!(self.model.has_room(tag), "{tag} has no room");
                    let consumer = &self.model.consumers[tag];
                    let (queue, no_ack) = (consumer.queue, consumer.no_ack);
                    assert_eq!(consumer.channel, channel);
                    let want = self.model.take(queue, channel, no_ack, Some(tag.into()));
                    let got = (deliver.delivery_tag, deliver.redelivered);
                    assert_eq!((want.0, want.2), got, "{want:?}");
                    assert_eq!(self.client.content().1, want.1.as_bytes());
                    continue;
                }
                Method::BasicCancel(cancel) => {
                    let told = (channel, cancel.consumer_tag.to_owned());
                    assert!(self.model.cancelled.remove(&told), "{told:?}");
                    continue;
                }
                Method::BasicGetOk(got) => {
                    let body = String::from_utf8(self.client.content().1).unwrap();
                    format!("{} {body} {} {}", got.delivery_tag, got.redelivered, got.message_count)
                }
                Method::BasicGetEmpty(_) => "nothing".into(),
                Method::QueuePurgeOk(purged) => purged.message_count.to_string(),
                Method::QueueDeleteOk(deleted) => deleted.message_count.to_string(),
                Method::QueueDeclareOk(there) => {
                    format!("{} {}", there.message_count, there.consumer_count)
                }
                Method::ChannelClose(close) => panic!("{close:?}"),
                Method::ConnectionClose(close) => panic!("{close:?}"),
                _ => continue,
            };
            assert_eq!(Some(answer), told.take());
        }
        assert_eq!(told, None, "no answer came");
        assert!(self.model.cancelled.is_empty(), "{:?} not told", self.model.cancelled);
        for (name, queue) in &self.model.queues {
            let waits = !queue.ready.is_empty();
            let idle = self
                .model
                .consumers
                .iter()
                .find(|(tag, consumer)| consumer.queue == *name && self.model.has_room(tag));
            assert!(!waits || idle.is_none(), "{name} keeps messages from {idle:?}");
        }
    }
}

proptest! {
    #[test]
    fn the_engine_does_what_a_plain_model_does(steps in prop::collection::vec(step(), 1..120)) {
        let server = Server::new();
        let mut pair = Pair::new(&server);
        for queue in 0..QUEUES.len() {
            pair.run(&Step::Declare { queue });
        }
        for step in &steps {
            pair.run(step);
        }
    }
}
