//! Protocols, producers and factories that do anything at any time, and the count of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use warren_hub::sync::Queue;
use warren_reactor::{
    ClientFactory, Connector, Consumer, DelayedCall, Factory, PeerAddr, Producer, Protocol, Reason,
    Transport, WeakTransport, call_later,
};

/// One seed for all choices.
pub(crate) struct Chance(Cell<u64>);

impl Chance {
    pub(crate) fn below(&self, limit: u64) -> u64 {
        // SplitMix64.
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut z = self.0.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    pub(crate) fn one_in(&self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub(crate) fn millis(&self, limit: u64) -> Duration {
        Duration::from_micros(self.below(limit * 1000))
    }

    pub(crate) fn bytes(&self, limit: u64) -> Vec<u8> {
        vec![b'x'; 1 + self.below(limit) as usize]
    }
}

/// What there is of everything.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) built: Cell<u64>,
    pub(crate) dropped: Cell<u64>,
    pub(crate) made: Cell<u64>,
    pub(crate) lost: Cell<u64>,
    pub(crate) producers: Cell<u64>,
    pub(crate) transports: RefCell<Vec<WeakTransport>>,
    pub(crate) reasons: RefCell<BTreeMap<&'static str, u64>>,
    /// A rule that was broken. A panic in a callback would be contained.
    pub(crate) wrong: Cell<Option<&'static str>>,
}

pub(crate) fn add(cell: &Cell<u64>) {
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
    pub(crate) fn is_over(&self) -> bool {
        self.transports.borrow_mut().retain(|transport| transport.upgrade().is_some());
        self.made == self.lost
            && self.built == self.dropped
            && self.producers.get() == 0
            && self.transports.borrow().is_empty()
    }
}

#[derive(Clone)]
pub(crate) struct Soak {
    pub(crate) chance: Rc<Chance>,
    pub(crate) tally: Rc<Tally>,
}

impl Soak {
    pub(crate) fn new(seed: u64) -> Self {
        Self { chance: Rc::new(Chance(Cell::new(seed))), tally: Rc::default() }
    }

    fn wild(&self) -> Box<Wild> {
        add(&self.tally.built);
        Box::new(Wild { soak: self.clone(), calls: Vec::new(), state: State::New })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum State {
    New,
    Made,
    Lost,
}

/// Does anything at any time.
pub(crate) struct Wild {
    pub(crate) soak: Soak,
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
pub(crate) struct Source {
    pub(crate) soak: Soak,
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
pub(crate) struct Visitor {
    pub(crate) soak: Soak,
    pub(crate) tokens: Rc<Queue<()>>,
    pub(crate) again: bool,
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
