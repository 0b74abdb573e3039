//! Thousands of connections, cut at any point by whoever feels like it, on real sockets and in simulated networks. In the
//! end nothing is left of them: no descriptor, no watch, no fiber, no timer, no protocol, no transport, no memory.
//!
//! A failure on real sockets prints its seed; `WARREN_SOAK_SEED` makes the same choices again, as far as the system's
//! own timing lets it, and `WARREN_SOAK_CONNECTIONS` makes more of them. In simulations `WARREN_SIM_SEED` repeats a run exactly.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use warren_hub::net::{TcpStream, ToAddrs};
use warren_hub::sync::Queue;
use warren_hub::{RunInfo, fill_random, run, run_info, sim, sleep, spawn};
use warren_reactor::{
    ClientFactory, ConnectOptions, Connector, Consumer, DelayedCall, Factory, ListeningPort,
    PeerAddr, Producer, Protocol, Reason, Transport, WeakTransport, call_later, connect_tcp_with,
    listen_tcp,
};

/// Connections that are made at the same time.
const AT_ONCE: usize = 40;

/// One seed for all choices.
struct Chance(Cell<u64>);

impl Chance {
    fn below(&self, limit: u64) -> u64 {
        // SplitMix64.
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut z = self.0.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn one_in(&self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn millis(&self, limit: u64) -> Duration {
        Duration::from_micros(self.below(limit * 1000))
    }

    fn bytes(&self, limit: u64) -> Vec<u8> {
        vec![b'x'; 1 + self.below(limit) as usize]
    }
}

/// What there is of everything.
#[derive(Default)]
struct Tally {
    built: Cell<u64>,
    dropped: Cell<u64>,
    made: Cell<u64>,
    lost: Cell<u64>,
    producers: Cell<u64>,
    transports: RefCell<Vec<WeakTransport>>,
    reasons: RefCell<BTreeMap<&'static str, u64>>,
    /// A rule that was broken. A panic in a callback would be contained.
    wrong: Cell<Option<&'static str>>,
}

fn add(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl Tally {
    fn count(&self, reason: &Reason) {
        let name = match reason {
            Reason::Done => "done",
            Reason::Closed => "closed",
            Reason::Aborted => "aborted",
            Reason::Error(_) => "error",
            Reason::Panicked(_) => "panicked",
            _ => "other",
        };
        *self.reasons.borrow_mut().entry(name).or_default() += 1;
    }

    fn keep(&self, transport: &Transport) {
        let mut transports = self.transports.borrow_mut();
        if transports.len() == transports.capacity() {
            // They keep memory themselves.
            transports.retain(|transport| transport.upgrade().is_some());
        }
        transports.push(transport.downgrade());
    }

    /// Whether nothing is left.
    fn is_over(&self) -> bool {
        self.transports.borrow_mut().retain(|transport| transport.upgrade().is_some());
        self.made == self.lost
            && self.built == self.dropped
            && self.producers.get() == 0
            && self.transports.borrow().is_empty()
    }
}

#[derive(Clone)]
struct Soak {
    chance: Rc<Chance>,
    tally: Rc<Tally>,
}

impl Soak {
    fn new(seed: u64) -> Self {
        Self { chance: Rc::new(Chance(Cell::new(seed))), tally: Rc::default() }
    }

    fn wild(&self) -> Box<Wild> {
        add(&self.tally.built);
        Box::new(Wild { soak: self.clone(), calls: Vec::new(), state: State::New })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    New,
    Made,
    Lost,
}

/// Does anything at any time.
struct Wild {
    soak: Soak,
    calls: Vec<DelayedCall>,
    state: State,
}

impl Wild {
    fn expect(&self, holds: bool, rule: &'static str) {
        if !holds {
            self.soak.tally.wrong.set(Some(rule));
        }
    }

    fn stir(&mut self, transport: &Transport) {
        self.expect(self.state == State::Made, "called before it was made or after it was lost");
        for _ in 0..self.soak.chance.below(3) {
            self.act(transport);
        }
    }

    fn act(&mut self, transport: &Transport) {
        let chance = self.soak.chance.clone();
        match chance.below(30) {
            0..10 => transport.write(&chance.bytes(3000)),
            10 => transport.write(&chance.bytes(400_000)),
            11 => transport.write_bytes(Bytes::from(chance.bytes(200_000))),
            12 => transport.lose_connection(),
            13 => transport.abort_connection(),
            14 => transport.lose_write_connection(),
            15..18 => {
                transport.pause_reading();
                let again = transport.clone();
                self.later(chance.millis(10), move || again.resume_reading());
            }
            18 | 19 => self.produce(transport),
            20 => transport.unregister_producer(),
            21 if chance.one_in(8) => panic!("one of the soak's own"),
            22 => transport.write_sequence([&b"some"[..], b"more", b"pieces"]),
            23 if chance.one_in(2) => {
                let late = transport.clone();
                self.later(chance.millis(8), move || late.write(b"late"));
            }
            24 => {
                transport.abort_connection();
                transport.lose_connection();
                transport.write(b"never sent");
            }
            _ => {}
        }
    }

    fn later(&mut self, delay: Duration, call: impl FnOnce() + 'static) {
        self.calls.push(call_later(delay, call));
    }

    fn produce(&mut self, transport: &Transport) {
        let streaming = self.soak.chance.one_in(2);
        let source = Rc::new(Source {
            soak: self.soak.clone(),
            transport: transport.downgrade(),
            left: Cell::new(self.soak.chance.below(20)),
            paused: Cell::new(false),
            writing: Cell::new(false),
        });
        add(&self.soak.tally.producers);
        transport.unregister_producer();
        transport.register_producer(source.clone(), streaming);
        if streaming {
            source.write_on();
        }
    }
}

impl Drop for Wild {
    fn drop(&mut self) {
        add(&self.soak.tally.dropped);
    }
}

impl Protocol for Wild {
    fn connection_made(&mut self, transport: &Transport) {
        self.expect(self.state == State::New, "made twice");
        self.state = State::Made;
        add(&self.soak.tally.made);
        self.soak.tally.keep(transport);
        let chance = self.soak.chance.clone();
        let (end, last) = (transport.clone(), transport.clone());
        let how = chance.below(3);
        self.later(chance.millis(20), move || match how {
            0 => end.lose_connection(),
            1 => end.lose_write_connection(),
            _ => end.abort_connection(),
        });
        self.later(Duration::from_millis(50), move || last.abort_connection());
        if chance.one_in(10) {
            return transport.abort_connection();
        }
        transport.write(&chance.bytes(2000));
        self.stir(transport);
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        self.expect(!data.is_empty(), "received nothing");
        self.stir(transport);
        if self.soak.chance.one_in(4) {
            transport.unread(self.soak.chance.below(3) as usize);
        }
    }

    fn read_connection_lost(&mut self, transport: &Transport) {
        self.stir(transport);
        if self.soak.chance.one_in(2) {
            transport.lose_connection();
        }
    }

    fn write_connection_lost(&mut self, transport: &Transport) {
        self.stir(transport);
    }

    fn pause_producing(&mut self, transport: &Transport) {
        self.stir(transport);
    }

    fn resume_producing(&mut self, transport: &Transport) {
        self.stir(transport);
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.expect(self.state == State::Made, "lost twice, or before it was made");
        self.state = State::Lost;
        for call in self.calls.drain(..) {
            call.cancel();
        }
        self.soak.tally.count(reason);
        add(&self.soak.tally.lost);
    }
}

/// A producer of some pieces. As a streaming one it writes at its own pace.
struct Source {
    soak: Soak,
    transport: WeakTransport,
    left: Cell<u64>,
    paused: Cell<bool>,
    writing: Cell<bool>,
}

impl Source {
    fn write_one(&self) {
        let Some(transport) = self.transport.upgrade() else {
            // One that was unregistered is not told.
            return self.left.set(0);
        };
        if self.left.get() == 0 {
            return transport.unregister_producer();
        }
        self.left.set(self.left.get() - 1);
        transport.write(&self.soak.chance.bytes(60_000));
    }

    fn write_on(self: Rc<Self>) {
        if self.paused.get() || self.left.get() == 0 || self.writing.replace(true) {
            return;
        }
        call_later(self.soak.chance.millis(3), move || {
            self.writing.set(false);
            if !self.paused.get() {
                self.write_one();
                self.write_on();
            }
        });
    }
}

impl Producer for Source {
    fn resume_producing(&self) {
        self.paused.set(false);
        self.write_one();
    }

    fn pause_producing(&self) {
        self.paused.set(true);
    }

    fn stop_producing(&self) {
        self.left.set(0);
        self.paused.set(true);
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let producers = &self.soak.tally.producers;
        producers.set(producers.get() - 1);
    }
}

impl Factory for Soak {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        if self.chance.one_in(20) {
            return None;
        }
        Some(self.wild())
    }
}

/// A factory that says when its connection is over.
struct Visitor {
    soak: Soak,
    tokens: Rc<Queue<()>>,
    again: bool,
}

impl Visitor {
    fn over(&mut self, connector: &Connector) {
        if std::mem::take(&mut self.again) {
            connector.connect();
        } else {
            let _ = self.tokens.put(());
        }
    }
}

impl Factory for Visitor {
    fn build_protocol(&mut self, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        self.soak.build_protocol(peer)
    }
}

impl ClientFactory for Visitor {
    fn started_connecting(&mut self, connector: &Connector) {
        if self.soak.chance.one_in(30) {
            connector.stop_connecting();
        }
    }

    fn client_connection_failed(&mut self, connector: &Connector, _reason: &Reason) {
        self.over(connector);
    }

    fn client_connection_lost(&mut self, connector: &Connector, _reason: &Reason) {
        self.over(connector);
    }
}

/// Makes `count` connections to `server`, some from protocols and some from fibers that know none, and waits until all of
/// them have ended. Calls `between` before each of them, and in the end.
fn visit(soak: &Soak, addr: SocketAddr, count: u64, mut between: impl FnMut(u64)) {
    let tokens = Rc::new(Queue::unbounded());
    for _ in 0..AT_ONCE {
        tokens.put(()).unwrap();
    }
    for number in 0..count {
        tokens.get().unwrap();
        between(number);
        if soak.chance.one_in(4) {
            let (soak, tokens) = (soak.clone(), tokens.clone());
            spawn(move || {
                let _ = stray(&soak.chance, addr);
                let _ = tokens.put(());
            });
            continue;
        }
        let again = soak.chance.one_in(10);
        let visitor = Visitor { soak: soak.clone(), tokens: tokens.clone(), again };
        let mut options = ConnectOptions::default();
        options.timeout = Duration::from_millis(1 + soak.chance.below(2000));
        let connector = connect_tcp_with(addr, Box::new(visitor), options);
        if soak.chance.one_in(8) {
            call_later(soak.chance.millis(10), move || connector.disconnect());
        }
    }
    between(count);
    for _ in 0..AT_ONCE {
        tokens.get().unwrap();
    }
}

/// A client that is rude.
fn stray(chance: &Chance, addr: impl ToAddrs) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(chance.millis(20) + Duration::from_millis(1)));
    stream.set_write_timeout(Some(chance.millis(20) + Duration::from_millis(1)));
    for _ in 0..chance.below(6) {
        match chance.below(6) {
            0 | 1 => stream.write_all(&chance.bytes(5000))?,
            2 => stream.write_all(&chance.bytes(100_000))?,
            3 => drop(stream.read(&mut [0; 5000])?),
            4 => stream.shutdown(Shutdown::Write)?,
            _ => sleep(chance.millis(5)),
        }
    }
    if chance.one_in(3) {
        // In a simulation there is nothing to set it on.
        let _ = stream.set_linger(Some(Duration::ZERO));
    }
    Ok(())
}

fn listen(soak: &Soak, addr: SocketAddr) -> ListeningPort {
    listen_tcp(addr, Box::new(soak.clone())).unwrap()
}

fn addr_of(port: &ListeningPort) -> SocketAddr {
    let PeerAddr::Tcp(addr) = port.addr() else { unreachable!("a TCP port") };
    *addr
}

fn counts(info: &RunInfo) -> (usize, usize, usize) {
    (info.fibers.len(), info.timers, info.descriptors)
}

/// Waits until the hub has no more than it had.
fn expect_rest(before: &RunInfo, soak: &Soak) {
    let rested = (0..1500).any(|_| {
        let rested = counts(&run_info()) == counts(before) && soak.tally.is_over();
        if !rested {
            sleep(Duration::from_millis(10));
        }
        rested
    });
    let tally = &soak.tally;
    assert_eq!(tally.wrong.get(), None);
    assert!(
        rested,
        "something is left of {} connections, of which {} were lost, with {} of {} protocols \
         dropped, {} producers and {} transports:\n{}instead of\n{before}",
        tally.made.get(),
        tally.lost.get(),
        tally.dropped.get(),
        tally.built.get(),
        tally.producers.get(),
        tally.transports.borrow().len(),
        run_info(),
    );
}

/// The descriptors of this process, and what they are.
fn descriptors() -> BTreeMap<String, String> {
    let listed = std::fs::read_dir("/proc/self/fd").unwrap();
    let named = listed.filter_map(|entry| {
        let path = entry.ok()?.path();
        let target = std::fs::read_link(&path).ok()?;
        Some((path.display().to_string(), target.display().to_string()))
    });
    // The folder that is being read has one, too.
    named.filter(|(_, target)| !target.ends_with("/fd")).collect()
}

fn resident_kib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4
}

fn setting(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().expect("a number"))
}

#[test]
fn nothing_is_left_of_connections_on_real_sockets() {
    let before = descriptors();
    let count = setting("WARREN_SOAK_CONNECTIONS").unwrap_or(5000);
    run(move || {
        let mut random = [0; 8];
        fill_random(&mut random);
        let seed = setting("WARREN_SOAK_SEED").unwrap_or(u64::from_ne_bytes(random));
        println!("WARREN_SOAK_SEED={seed}");
        let rest = run_info();
        let soak = Soak::new(seed);
        let port = listen(&soak, "127.0.0.1:0".parse().unwrap());
        let addr = addr_of(&port);
        let mut port = Some(port);
        let mut resident = 0;
        visit(&soak, addr, count, |number| {
            // Now and then nobody listens for a moment, and who waits to be accepted is turned away.
            if number % 400 == 399 {
                port = None;
                port = Some(listen(&soak, addr));
            }
            if number == count / 2 {
                resident = resident_kib();
            }
        });
        drop(port);
        expect_rest(&rest, &soak);
        println!("{} connections: {:?}", soak.tally.made.get(), soak.tally.reasons.borrow());
        let grown = resident_kib().saturating_sub(resident);
        assert!(grown < 20_000, "the second half has cost {grown} KiB");
    });
    assert_eq!(descriptors(), before);
}

#[test]
fn nothing_is_left_of_connections_in_a_network_that_fails() {
    sim::check(0..40, |world| {
        let soak = Soak::new(world.seed());
        world.net().window([500, 5000, 65_536][world.seed() as usize % 3]);
        let (up, stop) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (told, stopping, theirs) = (up.clone(), stop.clone(), Soak::new(!world.seed()));
        let server = world.node("server", move || {
            let rest = run_info();
            let port = listen(&theirs, "0.0.0.0:7".parse().unwrap());
            told.set(true);
            while !stopping.get() {
                sleep(Duration::from_millis(20));
            }
            drop(port);
            expect_rest(&rest, &theirs);
        });
        while !up.get() {
            sleep(Duration::from_millis(1));
        }
        let addr = SocketAddr::new(server.ip(), 7);
        let rest = run_info();
        let client = world.this_node();
        let net = world.net();
        visit(&soak, addr, 150, |number| {
            match soak.chance.below(60) {
                _ if number == 150 => net.heal_all().out_of_descriptors(&server, false).cuts(0.0),
                0 => net.cuts(0.01),
                1 => net.cuts(0.0),
                2 => net.out_of_descriptors(&server, soak.chance.one_in(2)),
                3 => net.partition(&client, &server),
                4..8 => net.heal_all(),
                _ => &net,
            };
        });
        expect_rest(&rest, &soak);
        stop.set(true);
        server.join();
    });
}
