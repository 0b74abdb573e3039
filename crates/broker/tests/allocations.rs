//! A message on its way from a publisher to a consumer allocates nothing, once as many have gone before.
//!
//! Counted is what the whole process allocates, the store's thread included, between the bytes that come in and the
//! bytes that go out. What a turn or a batch of the store allocates for all its messages together is allowed for.

use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use warren_amqp::constants::PROTOCOL_HEADER;
use warren_amqp::frame::{self, Frame, FrameReader};
use warren_amqp::method::{EncodeMethod, basic, channel, confirm, connection, queue};
use warren_amqp::{BasicProperties, FieldTable, Method};
use warren_broker::{Broker, Config};
use warren_reactor::PeerAddr;
use warren_reactor::testing::TestConnection;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const FRAME_MAX: u32 = 131_072;
/// Messages that come in with one read.
const READ: u64 = 2000;
const ROUNDS: u64 = 10;
/// Before it is counted: buffers find their size.
const WARM: u64 = 5;
/// What one round may allocate for all its messages together: the lists of what has been read and written grow by doubling.
const ROUND_MAX: usize = 40;
/// The same where the store has lists of its own, one for each batch.
const STORED_ROUND_MAX: usize = 160;
const PATIENCE: Duration = Duration::from_secs(30);

/// What is published where, and how it is consumed.
#[derive(Clone, Debug)]
struct Case {
    name: &'static str,
    exchange: &'static str,
    routing_key: &'static str,
    body_bytes: usize,
    persistent: bool,
    confirms: bool,
    /// All deliveries up to so many are acknowledged at once; 0: none is to be.
    ack_every: u64,
}

const QUEUE: &str = "a queue whose name is longer than what fits in place";

fn cases() -> [Case; 6] {
    let transient = Case {
        name: "transient, no acknowledgements",
        exchange: "",
        routing_key: QUEUE,
        body_bytes: 16,
        persistent: false,
        confirms: false,
        ack_every: 0,
    };
    let acked = Case { confirms: true, ack_every: 100, ..transient.clone() };
    [
        Case { name: "transient, acknowledged one by one", ack_every: 1, ..acked.clone() },
        Case { name: "transient, confirmed and acknowledged", ..acked.clone() },
        Case {
            name: "by a topic exchange",
            exchange: "amq.topic",
            routing_key: "a.b.c",
            ..acked.clone()
        },
        Case { name: "1 KiB, persistent", body_bytes: 1024, persistent: true, ..acked.clone() },
        Case { name: "persistent", persistent: true, ..acked },
        transient,
    ]
}

#[test]
fn a_message_allocates_nothing() {
    for case in cases() {
        let (name, persistent) = (case.name, case.persistent);
        let allocated = warren_hub::run(move || allocations(&case));
        let most = ROUNDS as usize * if persistent { STORED_ROUND_MAX } else { ROUND_MAX };
        let messages = ROUNDS * READ;
        assert!(allocated <= most, "{name}: {allocated} allocations for {messages} messages");
    }
}

/// How often something was allocated while messages went through.
fn allocations(case: &Case) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = case.persistent.then(|| folder.path().to_owned());
    let broker =
        Broker::open(Config { data_dir, disk_free_limit: 0, ..Config::default() }).unwrap();
    let mut lane = Lane::open(&broker, case);
    for _ in 0..WARM {
        lane.round();
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..ROUNDS {
        lane.round();
    }
    let change = region.change();
    drop(lane);
    broker.shutdown(Duration::ZERO);
    change.allocations + change.reallocations
}

/// A publisher and a consumer, each with a connection of its own.
struct Lane<'c> {
    case: &'c Case,
    publisher: Client,
    consumer: Client,
    /// Encoded.
    publishes: Vec<u8>,
    acks: Vec<u8>,
    published: u64,
}

impl<'c> Lane<'c> {
    fn open(broker: &Broker, case: &'c Case) -> Self {
        let (mut publisher, mut consumer) = (Client::open(broker), Client::open(broker));
        consumer.call(&queue::Declare { queue: QUEUE, durable: true, ..queue::Declare::default() });
        if !case.exchange.is_empty() {
            consumer.call(&queue::Bind {
                queue: QUEUE,
                exchange: case.exchange,
                routing_key: case.routing_key,
                ..queue::Bind::default()
            });
        }
        let no_ack = case.ack_every == 0;
        consumer.call(&basic::Consume { queue: QUEUE, no_ack, ..basic::Consume::default() });
        if case.confirms {
            publisher.call(&confirm::Select::default());
        }
        let mut publishes = Vec::new();
        let properties =
            if case.persistent { BasicProperties::persistent() } else { BasicProperties::new() };
        let mut raw = Vec::new();
        properties.encode(&mut raw);
        let publish = basic::Publish {
            exchange: case.exchange,
            routing_key: case.routing_key,
            ..basic::Publish::default()
        };
        for _ in 0..READ {
            let body = vec![b'x'; case.body_bytes];
            frame::write_publish(&mut publishes, 1, &publish, &raw, &body, FRAME_MAX);
        }
        Self { case, publisher, consumer, publishes, acks: Vec::new(), published: 0 }
    }

    /// Publishes as many as come with one read, and settles them.
    fn round(&mut self) {
        self.publisher.wire.feed(&self.publishes);
        self.published += READ;
        let published = self.published;
        self.consumer.until(|client| client.delivered == published);
        if self.case.confirms {
            self.publisher.until(|client| client.confirmed == published);
        }
        let every = self.case.ack_every;
        if every == 0 {
            return;
        }
        self.acks.clear();
        let first = published - READ;
        for delivery_tag in (first + every..=published).step_by(every as usize) {
            let ack = basic::Ack { delivery_tag, multiple: every != 1 };
            frame::write_method(&mut self.acks, 1, &ack);
        }
        self.consumer.wire.feed(&self.acks);
    }
}

struct Client {
    wire: TestConnection,
    reader: FrameReader,
    /// Whole messages that have come.
    delivered: u64,
    /// Up to here publishes are confirmed.
    confirmed: u64,
    answers: u64,
}

impl Client {
    fn open(broker: &Broker) -> Self {
        let protocol = broker.factory().build_protocol(&PeerAddr::Memory).unwrap();
        let mut client = Self {
            wire: TestConnection::new(protocol),
            reader: FrameReader::new(FRAME_MAX),
            delivered: 0,
            confirmed: 0,
            answers: 0,
        };
        client.ask(&PROTOCOL_HEADER);
        client.send(
            0,
            &connection::StartOk {
                client_properties: FieldTable::new(),
                mechanism: "PLAIN",
                response: b"\0guest\0guest",
                locale: "en_US",
            },
        );
        let agreed = connection::TuneOk { channel_max: 10, frame_max: FRAME_MAX, heartbeat: 0 };
        let mut bytes = Vec::new();
        frame::write_method(&mut bytes, 0, &agreed);
        client.wire.feed(&bytes);
        client.send(0, &connection::Open { virtual_host: "/" });
        client.call(&channel::Open {});
        client
    }

    fn call(&mut self, method: &impl EncodeMethod) {
        self.send(1, method);
    }

    /// Sends a method, and waits for its answer.
    fn send(&mut self, number: u16, method: &impl EncodeMethod) {
        let mut bytes = Vec::new();
        frame::write_method(&mut bytes, number, method);
        self.ask(&bytes);
    }

    fn ask(&mut self, bytes: &[u8]) {
        let answers = self.answers;
        self.wire.feed(bytes);
        self.until(|client| answers < client.answers);
    }

    /// Reads, turn by turn, until it is so.
    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < PATIENCE, "the broker is silent");
            warren_hub::yield_now();
            let output = self.wire.take_output();
            if output.is_empty() {
                // The disk takes longer than many turns.
                warren_hub::sleep(Duration::from_micros(200));
            }
            let mut output = &output[..];
            while let Some(frame) = self.reader.next_frame(&mut output).unwrap() {
                let payload = match frame {
                    Frame::Method { payload, .. } => payload,
                    Frame::Body { .. } => {
                        self.delivered += 1;
                        continue;
                    }
                    _ => continue,
                };
                match Method::decode(payload).unwrap() {
                    Method::BasicDeliver(_) => {}
                    Method::BasicAck(ack) => self.confirmed = ack.delivery_tag,
                    _ => self.answers += 1,
                }
            }
        }
    }
}
