//! For `fuzz/` and property tests: clients that say anything, against an engine in memory.
//!
//! Bytes are a program: each operation is a byte, followed by what it needs. Two clients share an engine; one that
//! was thrown out comes again. Whatever they do, nothing panics, what waits for them is bounded, and nothing of
//! them is left once they have gone.

mod words;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use warren_amqp::frame::{self, PROTOCOL_HEADER};
use warren_reactor::PeerAddr;
use warren_reactor::testing::TestConnection;

use crate::admin::Request;
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
        let world = Self { engine, now, clients };
        // A second virtual host, where guest may do everything.
        for (which, how) in [(9, 0), (11, 6)] {
            world.administer(words::request(which, how));
        }
        world
    }

    /// Does what an operator asks for, if it can be done.
    fn administer(&self, request: serde_json::Value) {
        let request: Request = serde_json::from_value(request).expect("a request");
        let slow = self.engine.borrow().slow_part(&request);
        if let Ok(slow) = slow {
            let _ = self.engine.borrow_mut().administer(request, slow.run());
        }
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
            3 => wire.feed(&words::log_in(if operation & 0x10 == 0 { "/" } else { "v" })),
            4 => {
                let mut said = Vec::new();
                words::say(&mut said, program.number(), program.number());
                wire.feed(&said);
            }
            5 => {
                // A valid one with a byte that is another.
                let mut said = Vec::new();
                words::say(&mut said, program.number(), program.number());
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
            12 => {
                let mut said = Vec::new();
                let (which, about) = (program.number(), program.number());
                words::say_more(&mut said, which, about, program.number());
                wire.feed(&said);
            }
            13 => {
                let which = program.number();
                self.administer(words::request(which, program.number()));
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
                    12 => &rest[..3],
                    13 => &rest[..2],
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
