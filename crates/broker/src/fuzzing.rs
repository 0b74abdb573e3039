//! For `fuzz/` and property tests: clients that say anything, against an engine in memory.
//!
//! Bytes are a program: each operation is a byte, followed by what it needs. Two clients share an engine; one that
//! was thrown out comes again. Whatever they do, nothing panics, what waits for them is bounded, and nothing of
//! them is left once they have gone.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use warren_amqp::FieldTable;
use warren_amqp::frame::{self, PROTOCOL_HEADER};
use warren_amqp::method::{basic, channel, confirm, connection, exchange, queue, tx};
use warren_reactor::PeerAddr;
use warren_reactor::testing::TestConnection;

use crate::alarms::Resource;
use crate::auth::Hashing;
use crate::connection::Session;
use crate::engine::Engine;

const FRAME_MAX: u32 = 4096;
/// More than the answers that may wait for a client who does not read, and one turn's deliveries.
const OUTPUT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Runs the program that `data` is.
///
/// # Panics
/// When a client has done harm to more than itself.
pub fn sessions(data: &[u8]) {
    let mut world = World::new();
    let mut program = Program(data);
    while let Some(operation) = program.byte() {
        world.run(operation, &mut program);
    }
    world.end();
}

/// Looks for every kind of name in what may be a client's certificate.
pub fn certificate(data: &[u8]) {
    use crate::auth::{CertLogin, SanType};
    let other = |kind| CertLogin::SubjectAlternativeName { kind, index: 0 };
    let kinds = [SanType::Dns, SanType::Ip, SanType::Email, SanType::Uri];
    let names = [CertLogin::DistinguishedName, CertLogin::CommonName];
    for from in names.into_iter().chain(kinds.map(other)) {
        if let Some(name) = from.user(data) {
            // An octet is written with three at most, and an address with up to 45.
            assert!(name.len() <= 64 + 64 * data.len());
        }
    }
}

/// What has not been run yet. Beyond its end there are zeros.
struct Program<'a>(&'a [u8]);

impl<'a> Program<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn number(&mut self) -> usize {
        self.byte().unwrap_or(0).into()
    }

    fn bytes(&mut self) -> &'a [u8] {
        let count = self.number().min(self.0.len());
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }
}

struct World {
    engine: Rc<RefCell<Engine>>,
    now: SystemTime,
    clients: [TestConnection; 2],
}

impl World {
    fn new() -> Self {
        let engine = Rc::new(RefCell::new(Engine::new()));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        engine.borrow_mut().set_now(now);
        engine.borrow_mut().seed("guest", "guest", Hashing::Sha256).expect("a new engine");
        let clients = [dial(&engine), dial(&engine)];
        Self { engine, now, clients }
    }

    fn run(&mut self, operation: u8, program: &mut Program<'_>) {
        let client = usize::from(operation >> 7);
        if self.clients[client].is_lost() || self.clients[client].closed().is_some() {
            self.clients[client].lose();
            self.clients[client] = dial(&self.engine);
        }
        let wire = &mut self.clients[client];
        match operation & 0x0f {
            0 => wire.feed(program.bytes()),
            1 => {
                let channel = program.number() as u16 % 4;
                let payload = program.bytes();
                let header = frame::frame_header(1, channel, payload.len() as u32);
                wire.feed(&[&header[..], payload, &[warren_amqp::constants::FRAME_END]].concat());
            }
            2 => wire.feed(&PROTOCOL_HEADER),
            3 => wire.feed(&log_in()),
            4 => {
                let mut said = Vec::new();
                say(&mut said, program.number(), program.number());
                wire.feed(&said);
            }
            5 => {
                // A valid one with a byte that is another.
                let mut said = Vec::new();
                say(&mut said, program.number(), program.number());
                let (at, flips) = (program.number(), program.number() as u8);
                if let Some(byte) = said.get_mut(at) {
                    *byte ^= flips;
                }
                wire.feed(&said);
            }
            6 => wire.stall(program.number() % 2 == 1),
            7 => wire.lose(),
            8 => drop(wire.take_output()),
            9 => self.pass(Duration::from_millis(program.number() as u64)),
            10 => self.pass(Duration::from_secs(program.number() as u64)),
            11 => {
                let what = program.number();
                let resource = if what & 1 == 0 { Resource::Memory } else { Resource::Disk };
                self.engine.borrow_mut().set_alarm(resource, what & 2 == 0);
            }
            _ => self.turn(),
        }
        for client in &self.clients {
            assert!(client.transport().buffered() <= OUTPUT_BYTES_MAX, "output without bounds");
        }
    }

    fn turn(&mut self) {
        // An endless loop of letters would not end here either.
        for _ in 0..1000 {
            if !self.engine.borrow_mut().end_turn() {
                break;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let mut engine = self.engine.borrow_mut();
        engine.set_now(self.now);
        engine.run_timers();
        engine.tick();
        let clock = engine.clock;
        for (_, connection) in engine.connections.iter() {
            connection.tick(clock);
        }
    }

    fn end(mut self) {
        self.turn();
        for client in &mut self.clients {
            client.lose();
        }
        self.turn();
        let engine = self.engine.borrow();
        let left = (engine.connections.len(), engine.channels.len(), engine.consumers.len());
        assert_eq!(left, (0, 0, 0), "connections, channels, consumers of clients who have gone");
    }
}

fn dial(engine: &Rc<RefCell<Engine>>) -> TestConnection {
    TestConnection::with_peer(
        Box::new(Session::new(engine.clone(), Rc::default())),
        PeerAddr::Memory,
    )
}

/// Everything up to an open virtual host and two channels.
fn log_in() -> Vec<u8> {
    let capabilities = FieldTable::new()
        .with("authentication_failure_close", true)
        .with("consumer_cancel_notify", true)
        .with("connection.blocked", true);
    let client_properties = FieldTable::new().with("capabilities", capabilities);
    let mut said = PROTOCOL_HEADER.to_vec();
    let (mechanism, response, locale) = ("PLAIN", &b"\0guest\0guest"[..], "en_US");
    let start_ok = connection::StartOk { client_properties, mechanism, response, locale };
    frame::write_method(&mut said, 0, &start_ok);
    let tune_ok = connection::TuneOk { channel_max: 8, frame_max: FRAME_MAX, heartbeat: 9 };
    frame::write_method(&mut said, 0, &tune_ok);
    frame::write_method(&mut said, 0, &connection::Open { virtual_host: "/" });
    for number in [1, 2] {
        frame::write_method(&mut said, number, &channel::Open {});
    }
    said
}

/// One of the things that clients say, on channel 1 or 2, about few queues and exchanges.
fn say(out: &mut Vec<u8>, which: usize, about: usize) {
    let number = 1 + (about & 1) as u16;
    let queue = ["", "q", "r", "amq.rabbitmq.reply-to"][about >> 1 & 3];
    let exchange = ["", "x", "amq.topic", "amq.headers"][about >> 3 & 3];
    let (one, two) = (about & 0x20 != 0, about & 0x40 != 0);
    let delivery_tag = (about >> 1 & 7) as u64;
    let consumer_tag = ["", "c"][about >> 7 & 1];
    let arguments = FieldTable::new();
    macro_rules! say {
        ($($method:tt)*) => { frame::write_method(out, number, &$($method)*) };
    }
    match which % 24 {
        0 => say!(channel::Open {}),
        1 => say!(channel::Close { reply_code: 200, ..Default::default() }),
        2 => say!(channel::CloseOk {}),
        3 => {
            let arguments = arguments
                .with("x-max-length", 3)
                .with("x-message-ttl", 100)
                .with("x-dead-letter-exchange", exchange);
            say!(queue::Declare { queue, exclusive: one, arguments, ..Default::default() });
        }
        4 => say!(queue::Declare { queue, auto_delete: one, no_wait: two, ..Default::default() }),
        5 => say!(queue::Delete { queue, if_unused: one, if_empty: two, ..Default::default() }),
        6 => say!(queue::Purge { queue, ..Default::default() }),
        7 => say!(queue::Bind { queue, exchange, routing_key: "#", ..Default::default() }),
        8 => say!(queue::Unbind { queue, exchange, routing_key: "#", ..Default::default() }),
        9 => {
            let kind = if two { "fanout" } else { "topic" };
            say!(exchange::Declare { exchange, kind, auto_delete: one, ..Default::default() });
        }
        10 => say!(exchange::Delete { exchange, if_unused: one, ..Default::default() }),
        11 => say!(exchange::Bind {
            destination: "x",
            source: exchange,
            routing_key: "#",
            ..Default::default()
        }),
        12 => say!(basic::Consume {
            queue,
            consumer_tag,
            no_ack: one,
            exclusive: two,
            ..Default::default()
        }),
        13 => say!(basic::Cancel { consumer_tag, ..Default::default() }),
        14 => say!(basic::Get { queue, no_ack: one }),
        15 => say!(basic::Ack { delivery_tag, multiple: one }),
        16 => say!(basic::Nack { delivery_tag, multiple: one, requeue: two }),
        17 => say!(basic::Qos { prefetch_size: 0, prefetch_count: 2, global: one }),
        18 => say!(confirm::Select::default()),
        19 => say!(tx::Select {}),
        20 if one => say!(tx::Rollback {}),
        20 => say!(tx::Commit {}),
        21 => say!(basic::Recover { requeue: one }),
        _ => {
            say!(basic::Publish { exchange, routing_key: queue, mandatory: one, immediate: two });
            let body = vec![b'b'; about * 64];
            frame::write_content(out, number, 60, &[0, 0], &body, FRAME_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::sessions;

    /// Programs that mostly do something: log in, then operations with arguments.
    fn programs() -> impl Strategy<Value = Vec<u8>> {
        let operation =
            (any::<bool>(), 0u8..16, any::<[u8; 4]>()).prop_map(|(second, code, rest)| {
                let code = code | if second { 0x80 } else { 0 };
                let more: &[u8] = match code & 0x0f {
                    4 | 1 => &rest[..2],
                    5 => &rest,
                    0 => &[],
                    6 | 9 | 10 | 11 => &rest[..1],
                    _ => &[],
                };
                [&[code][..], more].concat()
            });
        vec(operation, 0..80)
            .prop_map(|operations| [vec![0x03, 0x83], operations.concat()].concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..Default::default() })]

        #[test]
        fn clients_that_say_anything_harm_only_themselves(program in programs()) {
            sessions(&program);
        }

        #[test]
        fn any_bytes_are_a_program(program in vec(any::<u8>(), 0..500)) {
            sessions(&program);
        }
    }
}
