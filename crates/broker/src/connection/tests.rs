//! Clients in memory against an engine without a hub: bytes in, bytes out, turn by turn.

mod alarms;
mod consuming;
mod deduplication;
mod endings;
mod errors;
mod events;
mod exchanges;
mod handshake;
mod letters;
mod limits;
mod logins;
mod memory;
mod messages;
mod model;
mod queues;
mod replies;
mod retries;
mod settling;
mod storing;
mod streams;
mod tenancy;
mod tracing;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use warren_amqp::frame::{self, Frame, FrameReader, PROTOCOL_HEADER};
use warren_amqp::method::{EncodeMethod, basic, channel, connection, queue};
use warren_amqp::{BasicProperties, FieldTable, Method};
use warren_reactor::PeerAddr;
use warren_reactor::testing::TestConnection;

use super::Session;
use crate::admin::{AdminError, Request};
use crate::auth::{Hashing, LoginOptions};
use crate::engine::Engine;

const FRAME_MAX: u32 = 131_072;

/// An engine, its turns and its clock.
struct Server {
    engine: Rc<RefCell<Engine>>,
    now: SystemTime,
}

impl Server {
    fn new() -> Self {
        let server = Self {
            engine: Rc::new(RefCell::new(Engine::new())),
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
        };
        server.engine.borrow_mut().set_now(server.now);
        server.engine.borrow_mut().seed("guest", "guest", Hashing::Sha256).unwrap();
        server
    }

    /// Does what is asked, in place.
    fn administer(&self, request: Request) -> Result<serde_json::Value, AdminError> {
        let slow = self.engine.borrow().slow_part(&request)?.run();
        self.engine.borrow_mut().administer(request, slow)
    }

    /// A connection of which nothing has been said yet.
    fn dial(&self, peer: PeerAddr) -> Client {
        self.dial_with(peer, LoginOptions::default())
    }

    fn dial_with(&self, peer: PeerAddr, login: LoginOptions) -> Client {
        let session = Box::new(Session::new(self.engine.clone(), Rc::new(login)));
        Client {
            wire: TestConnection::with_peer(session, peer),
            engine: self.engine.clone(),
            reader: FrameReader::new(FRAME_MAX),
            frames: VecDeque::new(),
        }
    }

    /// An open connection whose client has RabbitMQ's capabilities, and its channel 1.
    fn connect(&self) -> Client {
        let mut client = self.dial(PeerAddr::Memory);
        client.log_in("PLAIN", b"\0guest\0guest");
        client.tune(0);
        client.open_channel(1);
        client
    }

    /// Lets time pass, as the broker's ticks do.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.pass_ms(1000);
            let mut engine = self.engine.borrow_mut();
            engine.tick();
            let clock = engine.clock;
            for (_, connection) in engine.connections.iter() {
                connection.tick(clock);
            }
        }
    }

    /// Lets less time pass than a tick.
    fn pass_ms(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        let mut engine = self.engine.borrow_mut();
        engine.set_now(self.now);
        engine.run_timers();
    }

    /// A policy for the names that match.
    fn set_policy(&self, pattern: &str, apply_to: &str, definition: serde_json::Value) {
        let policy = serde_json::json!({
            "op": "set_policy", "name": pattern, "pattern": pattern, "apply_to": apply_to, "definition": definition,
        });
        let request = serde_json::from_value(policy).unwrap();
        self.administer(request).unwrap();
    }

    /// The end of a turn, as often as the engine has more to do.
    fn turn(&self) {
        while self.engine.borrow_mut().end_turn() {}
    }
}

/// A frame of the server's.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Method(u16, Vec<u8>),
    Header(u16, u64, Box<BasicProperties>),
    Body(u16, Vec<u8>),
    Heartbeat,
}

struct Client {
    wire: TestConnection,
    engine: Rc<RefCell<Engine>>,
    reader: FrameReader,
    frames: VecDeque<Seen>,
}

impl Client {
    fn log_in(&mut self, mechanism: &str, response: &[u8]) {
        self.wire.feed(&PROTOCOL_HEADER);
        self.skip::<connection::Start<'_>>();
        let capabilities = FieldTable::new()
            .with("authentication_failure_close", true)
            .with("consumer_cancel_notify", true);
        let client_properties = FieldTable::new().with("capabilities", capabilities);
        let start_ok =
            connection::StartOk { client_properties, mechanism, response, locale: "en_US" };
        self.send(0, &start_ok);
    }

    fn tune(&mut self, heartbeat: u16) {
        self.answer_tune(heartbeat);
        self.send(0, &connection::Open { virtual_host: "/" });
        self.expect(0, &connection::OpenOk {});
    }

    fn answer_tune(&mut self, heartbeat: u16) {
        self.expect(
            0,
            &connection::Tune { channel_max: 2047, frame_max: FRAME_MAX, heartbeat: 60 },
        );
        let channel_max = 2047;
        self.send(0, &connection::TuneOk { channel_max, frame_max: FRAME_MAX, heartbeat });
    }

    fn open_channel(&mut self, number: u16) {
        self.send(number, &channel::Open {});
        self.expect(number, &channel::OpenOk {});
    }

    /// Sends a method, which does not end the turn.
    fn send(&mut self, channel: u16, method: &impl EncodeMethod) {
        let mut bytes = Vec::new();
        frame::write_method(&mut bytes, channel, method);
        self.wire.feed(&bytes);
    }

    fn publish_on(
        &mut self,
        channel: u16,
        publish: &basic::Publish<'_>,
        properties: &BasicProperties,
        body: &[u8],
    ) {
        let (mut bytes, mut raw) = (Vec::new(), Vec::new());
        properties.encode(&mut raw);
        frame::write_method(&mut bytes, channel, publish);
        frame::write_content(&mut bytes, channel, 60, &raw, body, FRAME_MAX);
        self.wire.feed(&bytes);
    }

    fn publish_with(
        &mut self,
        publish: &basic::Publish<'_>,
        properties: &BasicProperties,
        body: &[u8],
    ) {
        self.publish_on(1, publish, properties, body);
    }

    /// Publishes to a queue by its name, on channel 1.
    fn publish(&mut self, routing_key: &str, body: &[u8]) {
        let publish = basic::Publish { routing_key, ..Default::default() };
        self.publish_with(&publish, &BasicProperties::new(), body);
    }

    fn turn(&self) {
        while self.engine.borrow_mut().end_turn() {}
    }

    /// The next frame, the turn having ended.
    fn next(&mut self) -> Option<Seen> {
        self.turn();
        let output = self.wire.take_output();
        let mut data = &output[..];
        while let Some(frame) = self.reader.next_frame(&mut data).unwrap() {
            self.frames.push_back(match frame {
                Frame::Method { channel, payload } => Seen::Method(channel, payload.to_vec()),
                Frame::Header { channel, body_size, properties, .. } => Seen::Header(
                    channel,
                    body_size,
                    Box::new(BasicProperties::decode(properties).unwrap()),
                ),
                Frame::Body { channel, payload } => Seen::Body(channel, payload.to_vec()),
                Frame::Heartbeat => Seen::Heartbeat,
            });
        }
        self.frames.pop_front()
    }

    #[track_caller]
    fn expect(&mut self, channel: u16, method: &impl EncodeMethod) {
        let mut want = Vec::new();
        method.encode(&mut want);
        let seen = self.next();
        if seen != Some(Seen::Method(channel, want.clone())) {
            let shown = match &seen {
                Some(Seen::Method(channel, payload)) => {
                    format!("{:?} on channel {channel}", Method::decode(payload))
                }
                other => format!("{other:?}"),
            };
            panic!("got {shown}; expected {:?} on channel {channel}", Method::decode(&want));
        }
    }

    /// Reads over a method, whatever its fields.
    #[track_caller]
    fn skip<M: EncodeMethod + Default>(&mut self) {
        let want = M::default().info();
        match self.next() {
            Some(Seen::Method(_, payload)) => {
                assert_eq!(Method::decode(&payload).unwrap().name(), want.name);
            }
            other => panic!("got {other:?}; expected {}", want.name),
        }
    }

    /// The content that comes next.
    #[track_caller]
    fn content(&mut self) -> (BasicProperties, Vec<u8>) {
        let Some(Seen::Header(_, body_size, properties)) = self.next() else {
            panic!("no content header")
        };
        let mut body = Vec::new();
        while (body.len() as u64) < body_size {
            let Some(Seen::Body(_, piece)) = self.next() else { panic!("no body") };
            body.extend(piece);
        }
        (*properties, body)
    }

    /// A delivery: tag of the consumer, number, whether redelivered, body.
    #[track_caller]
    fn delivery(&mut self) -> (String, u64, bool, String) {
        let Some(Seen::Method(_, payload)) = self.next() else { panic!("no delivery") };
        let Ok(Method::BasicDeliver(deliver)) = Method::decode(&payload) else {
            panic!("{:?}", Method::decode(&payload))
        };
        let (_, body) = self.content();
        let body = String::from_utf8(body).unwrap();
        (deliver.consumer_tag.into(), deliver.delivery_tag, deliver.redelivered, body)
    }

    /// The bodies of all deliveries that have come.
    fn bodies(&mut self) -> Vec<String> {
        let mut bodies = Vec::new();
        while let Some(seen) = self.next() {
            self.frames.push_front(seen);
            bodies.push(self.delivery().3);
        }
        bodies
    }

    /// A message by `basic.get` with automatic acknowledgement.
    fn get(&mut self, queue: &str) -> Option<String> {
        self.send(1, &basic::Get { queue, no_ack: true });
        match self.next() {
            Some(Seen::Method(1, payload)) => match Method::decode(&payload).unwrap() {
                Method::BasicGetEmpty(_) => None,
                Method::BasicGetOk(_) => Some(String::from_utf8(self.content().1).unwrap()),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn silent(&mut self) {
        assert_eq!(self.next(), None);
    }

    fn declare(&mut self, queue: &str) {
        self.send(1, &queue::Declare { queue, ..Default::default() });
        self.expect(1, &queue::DeclareOk { queue, message_count: 0, consumer_count: 0 });
    }

    fn consume(&mut self, channel: u16, queue: &str, consumer_tag: &str) {
        let consume = basic::Consume { queue, consumer_tag, ..Default::default() };
        self.send(channel, &consume);
        self.expect(channel, &basic::ConsumeOk { consumer_tag });
    }

    /// The number of messages that are ready.
    fn count(&mut self, queue: &str) -> u32 {
        self.send(1, &queue::Declare { queue, passive: true, ..Default::default() });
        let Some(Seen::Method(1, payload)) = self.next() else { panic!("no answer") };
        match Method::decode(&payload) {
            Ok(Method::QueueDeclareOk(answer)) => answer.message_count,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn expect_channel_close(&mut self, code: u16, text: &str, method: impl EncodeMethod) {
        let info = method.info();
        let close = channel::Close {
            reply_code: code,
            reply_text: text,
            class_id: info.class_id,
            method_id: info.method_id,
        };
        self.expect(1, &close);
    }

    #[track_caller]
    fn expect_close(&mut self, code: u16, text: &str, (class_id, method_id): (u16, u16)) {
        let close = connection::Close { reply_code: code, reply_text: text, class_id, method_id };
        self.expect(0, &close);
    }
}
