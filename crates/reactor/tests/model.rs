//! The transport against a plain model: whatever a protocol, its producers and its peer do, in whatever order, from
//! wherever, the rules of a connection's life hold.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use proptest::prelude::*;
use warren_reactor::testing::{End, TestConnection};
use warren_reactor::{Consumer, Producer, Protocol, Reason, Transport, WriteLimits};

const LIMITS: WriteLimits = WriteLimits { high_bytes: 1000, low_bytes: 300 };

/// What the protocol's side does, from outside or within its next callback.
#[derive(Clone, Debug)]
enum Act {
    Write(usize),
    WriteShared(usize),
    WriteSequence(usize),
    Lose,
    LoseWrite,
    Abort,
    Pause,
    Resume,
    /// A producer that is asked for so many pieces.
    RegisterPull(usize),
    RegisterPush,
    Unregister,
    AskFull,
    Panic,
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Now(Act),
    InCallback(Act),
    Feed(usize),
    PeerEnds,
    PeerIsLost,
    Stall(bool),
    FailWrites,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Open,
    Closing,
    Aborting,
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Half {
    Open,
    Ending,
    Ended,
}

/// What is known of the connection without looking at it.
struct Model {
    state: State,
    write_half: Half,
    /// A close waits for the producer.
    losing: bool,
    read_ended: bool,
    panicked: bool,
    /// The panic that comes was asked for.
    panics: bool,
    writes_fail: bool,
    peer_is_lost: bool,
    /// Whether the protocol was told to pause.
    paused: bool,
    /// It has asked whether it is full, and was told so.
    asked: bool,
    made: bool,
    in_callback: bool,
    /// All that was taken to be written.
    written: Vec<u8>,
    received: Vec<u8>,
    fed: Vec<u8>,
    producer: Option<Rc<Made>>,
    next_byte: u8,
    acts: VecDeque<Act>,
}

/// Shared by the protocol, its producers and the test.
struct Shared {
    model: RefCell<Model>,
    transport: RefCell<Option<Transport>>,
    /// An assertion has failed in a callback, whose panic was contained.
    failed: Cell<bool>,
}

/// A producer, and what it was told.
struct Made {
    shared: Rc<Shared>,
    streaming: bool,
    pieces: Cell<usize>,
    paused: Cell<bool>,
    stopped: Cell<bool>,
}

impl Producer for Made {
    fn resume_producing(&self) {
        let _leave = Watch(&self.shared);
        assert!(!self.stopped.get(), "resumed after it was stopped");
        if self.streaming {
            assert!(self.paused.replace(false), "resumed, but was not paused");
            return;
        }
        assert!(self.is_registered(), "asked, but is not registered");
        match self.pieces.get() {
            0 => self.shared.act(Act::Unregister),
            left => {
                self.pieces.set(left - 1);
                self.shared.act(Act::Write(100));
            }
        }
    }

    fn pause_producing(&self) {
        let _leave = Watch(&self.shared);
        assert!(self.streaming && !self.stopped.get() && self.is_registered());
        assert!(!self.paused.replace(true), "paused twice");
    }

    fn stop_producing(&self) {
        let _leave = Watch(&self.shared);
        assert!(!self.stopped.replace(true), "stopped twice");
    }
}

impl Made {
    fn is_registered(&self) -> bool {
        let model = self.shared.model.borrow();
        model.producer.as_ref().is_some_and(|producer| std::ptr::eq(&raw const **producer, self))
    }
}

impl Model {
    fn takes_output(&self) -> bool {
        let half = match self.write_half {
            Half::Open => true,
            Half::Ending => self.producer.is_some(),
            Half::Ended => false,
        };
        half && self.state == State::Open
    }

    /// The next `count` bytes to be written.
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let bytes: Vec<u8> = (0..count).map(|n| self.next_byte.wrapping_add(n as u8)).collect();
        self.next_byte = self.next_byte.wrapping_add(count as u8);
        if self.takes_output() {
            self.written.extend_from_slice(&bytes);
        }
        bytes
    }

    fn lose(&mut self) {
        if self.state == State::Open {
            if self.producer.is_some() {
                self.losing = true;
            } else {
                self.state = State::Closing;
            }
        }
    }

    fn both_ended(&mut self) {
        if self.read_ended && self.write_half == Half::Ended {
            self.lose();
        }
    }
}

impl Shared {
    fn transport(&self) -> Transport {
        self.transport.borrow().clone().expect("the connection is made")
    }

    /// Does it, and notes what must come of it.
    fn act(self: &Rc<Self>, act: Act) {
        let transport = self.transport();
        match act {
            Act::Write(count) => {
                let bytes = self.model.borrow_mut().bytes(count);
                transport.write(&bytes);
            }
            Act::WriteShared(count) => {
                let bytes = self.model.borrow_mut().bytes(count);
                transport.write_bytes(Bytes::from(bytes));
            }
            Act::WriteSequence(count) => {
                let bytes = self.model.borrow_mut().bytes(count);
                transport.write_sequence(bytes.chunks(3));
            }
            Act::Lose => {
                self.model.borrow_mut().lose();
                transport.lose_connection();
            }
            Act::LoseWrite => {
                let mut model = self.model.borrow_mut();
                if model.takes_output() {
                    model.write_half = Half::Ending;
                }
                drop(model);
                transport.lose_write_connection();
            }
            Act::Abort => {
                let mut model = self.model.borrow_mut();
                if matches!(model.state, State::Open | State::Closing) {
                    model.state = State::Aborting;
                }
                drop(model);
                transport.abort_connection();
            }
            Act::Pause => transport.pause_reading(),
            Act::Resume => transport.resume_reading(),
            Act::RegisterPull(_) | Act::RegisterPush => self.register(&act),
            Act::Unregister => {
                let mut model = self.model.borrow_mut();
                model.producer = None;
                if std::mem::take(&mut model.losing) && model.state == State::Open {
                    model.state = State::Closing;
                }
                drop(model);
                transport.unregister_producer();
            }
            Act::AskFull => {
                let full = transport.is_full();
                assert_eq!(full, LIMITS.high_bytes < transport.buffered());
                self.model.borrow_mut().asked |= full;
            }
            Act::Panic => {
                let mut model = self.model.borrow_mut();
                if !model.in_callback {
                    return;
                }
                if matches!(model.state, State::Open | State::Closing) {
                    model.state = State::Aborting;
                    model.panicked = true;
                }
                model.panics = true;
                drop(model);
                panic!("asked for by the test");
            }
        }
    }

    fn register(self: &Rc<Self>, act: &Act) {
        let mut model = self.model.borrow_mut();
        if model.producer.is_some() {
            return;
        }
        let (streaming, pieces) = match act {
            Act::RegisterPull(pieces) => (false, *pieces),
            _ => (true, 0),
        };
        let producer = Rc::new(Made {
            shared: self.clone(),
            streaming,
            pieces: Cell::new(pieces),
            paused: Cell::new(false),
            stopped: Cell::new(false),
        });
        let over = model.state != State::Open || model.write_half == Half::Ended;
        if !over {
            model.producer = Some(producer.clone());
        }
        drop(model);
        self.transport().register_producer(producer.clone(), streaming);
        assert_eq!(producer.stopped.get(), over, "stopped at once when nothing more is taken");
    }

    /// A callback: notes `what`, then does what waits for one.
    fn callback(self: &Rc<Self>, what: impl FnOnce(&mut Model)) {
        let mut model = self.model.borrow_mut();
        let leave = Leave(self);
        assert!(!std::mem::replace(&mut model.in_callback, true), "callbacks nest");
        assert!(model.state != State::Lost, "called after connection_lost");
        what(&mut model);
        let act = model.acts.pop_front();
        drop(model);
        if let Some(act) = act {
            self.act(act);
        }
        drop(leave);
    }
}

/// A callback is over, also when it panics.
struct Leave<'a>(&'a Shared);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let Ok(mut model) = self.0.model.try_borrow_mut() else {
            return self.0.failed.set(true);
        };
        model.in_callback = false;
        let asked = std::mem::take(&mut model.panics);
        self.0.failed.set(self.0.failed.get() || std::thread::panicking() && !asked);
    }
}

/// A producer's method is over.
struct Watch<'a>(&'a Shared);

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.set(true);
        }
    }
}

struct Modelled(Rc<Shared>);

impl Protocol for Modelled {
    fn connection_made(&mut self, transport: &Transport) {
        transport.set_write_buffer_limits(LIMITS);
        *self.0.transport.borrow_mut() = Some(transport.clone());
        self.0.callback(|model| assert!(!std::mem::replace(&mut model.made, true)));
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        assert!(!data.is_empty() && !transport.is_closing());
        self.0.callback(|model| {
            assert!(!model.read_ended, "bytes after the end");
            model.received.extend_from_slice(data);
        });
    }

    fn read_connection_lost(&mut self, _transport: &Transport) {
        self.0.callback(|model| {
            assert!(!std::mem::replace(&mut model.read_ended, true), "the end is told twice");
        });
        self.0.model.borrow_mut().both_ended();
    }

    fn write_connection_lost(&mut self, transport: &Transport) {
        assert_eq!(transport.buffered(), 0);
        self.0.callback(|model| {
            assert_eq!(model.write_half, Half::Ending);
            model.write_half = Half::Ended;
        });
        self.0.model.borrow_mut().both_ended();
    }

    fn pause_producing(&mut self, transport: &Transport) {
        assert!(LIMITS.high_bytes < transport.buffered());
        self.0.callback(|model| assert!(!std::mem::replace(&mut model.paused, true)));
    }

    fn resume_producing(&mut self, transport: &Transport) {
        assert!(transport.buffered() <= LIMITS.low_bytes);
        self.0.callback(|model| {
            // Or it has found out by itself that it should pause.
            assert!(model.paused || model.asked);
            model.paused = false;
            model.asked = false;
        });
    }

    fn connection_lost(&mut self, reason: &Reason) {
        self.0.callback(|model| {
            let right = match reason {
                Reason::Aborted => model.state == State::Aborting && !model.panicked,
                Reason::Panicked(text) => model.panicked && text == "asked for by the test",
                Reason::Closed => model.state == State::Closing && !model.read_ended,
                Reason::Done => {
                    model.peer_is_lost || model.state == State::Closing && model.read_ended
                }
                Reason::Error(_) => model.writes_fail,
                _ => false,
            };
            assert!(right, "{reason:?} when {:?}", model.state);
            if let Some(producer) = &model.producer {
                assert!(producer.stopped.get(), "a producer was not stopped");
            }
            model.state = State::Lost;
        });
    }
}

fn run(first: Option<Act>, steps: &[Step]) {
    let shared = Rc::new(Shared {
        model: RefCell::new(Model {
            state: State::Open,
            write_half: Half::Open,
            losing: false,
            read_ended: false,
            panicked: false,
            panics: false,
            writes_fail: false,
            peer_is_lost: false,
            paused: false,
            asked: false,
            made: false,
            in_callback: false,
            written: Vec::new(),
            received: Vec::new(),
            fed: Vec::new(),
            producer: None,
            next_byte: 0,
            acts: first.into_iter().collect(),
        }),
        transport: RefCell::default(),
        failed: Cell::new(false),
    });
    let mut connection = TestConnection::new(Box::new(Modelled(shared.clone())));
    check(&shared, &mut connection);
    let mut stalled = false;
    for step in steps {
        match step {
            Step::Now(act) => shared.act(act.clone()),
            Step::InCallback(act) => shared.model.borrow_mut().acts.push_back(act.clone()),
            Step::Feed(count) => {
                let mut model = shared.model.borrow_mut();
                let bytes = vec![model.fed.len() as u8; *count];
                let hears = connection.transport().wants_data() && !model.read_ended;
                if hears {
                    model.fed.extend_from_slice(&bytes);
                }
                drop(model);
                if hears {
                    connection.feed(&bytes);
                }
            }
            Step::PeerEnds => connection.half_close(),
            Step::PeerIsLost => {
                shared.model.borrow_mut().peer_is_lost = true;
                connection.lose();
            }
            Step::Stall(on) => {
                stalled = *on;
                connection.stall(*on);
            }
            Step::FailWrites => {
                shared.model.borrow_mut().writes_fail = true;
                connection.fail_writes(io::ErrorKind::BrokenPipe);
            }
        }
        check(&shared, &mut connection);
        let model = shared.model.borrow();
        if !stalled && model.state != State::Lost && !model.writes_fail {
            assert_eq!(connection.transport().buffered(), 0, "what can be written is written");
        }
    }
    finish(&shared, connection);
}

/// What holds at the end of every turn.
fn check(shared: &Rc<Shared>, connection: &mut TestConnection) {
    let lost = connection.is_lost();
    let output = connection.value();
    let model = shared.model.borrow();
    let transport = connection.transport();
    assert!(!shared.failed.get(), "in a callback: see what was printed last");
    assert!(model.made && !model.in_callback);
    assert_eq!(lost, model.state == State::Lost, "every turn does what it has to do");
    assert_eq!(model.received, model.fed, "all is told at once");
    assert!(model.written.starts_with(&output), "bytes leave in the order they were written");
    assert!(model.state == State::Open || transport.is_closing());
    if lost {
        assert_eq!(transport.buffered(), 0);
        return;
    }
    assert_eq!(output.len() + transport.buffered(), model.written.len(), "no byte is lost");
    let waiting = transport.buffered();
    if LIMITS.high_bytes < waiting {
        assert!(model.paused || model.asked, "it was not told to pause");
    }
    if waiting <= LIMITS.low_bytes {
        assert!(!model.paused && !model.asked, "it was not told to resume");
    }
    if let Some(producer) = model.producer.as_ref().filter(|producer| producer.streaming) {
        assert!(producer.paused.get() || waiting <= LIMITS.high_bytes);
        assert!(!producer.paused.get() || LIMITS.low_bytes < waiting);
    }
}

/// The peer reads all there is, and goes.
fn finish(shared: &Rc<Shared>, mut connection: TestConnection) {
    connection.stall(false);
    let model = shared.model.borrow();
    if !model.writes_fail && connection.closed() == Some(End::Graceful) {
        assert_eq!(connection.value(), model.written, "a close loses nothing");
    }
    let lost = model.state == State::Lost;
    drop(model);
    if !lost {
        shared.model.borrow_mut().peer_is_lost = true;
        connection.lose();
    }
    assert!(connection.is_lost() && shared.model.borrow().state == State::Lost);
    // Nothing more is called, whatever is done now.
    for act in [Act::Write(1), Act::RegisterPush, Act::Resume, Act::LoseWrite, Act::Abort] {
        if !matches!(act, Act::RegisterPush) || shared.model.borrow().producer.is_none() {
            shared.act(act);
        }
    }
    connection.feed(b"x");
    connection.half_close();
    assert!(!shared.failed.get(), "in a callback: see what was printed last");
    // They hold one another.
    shared.transport.take();
    shared.model.borrow_mut().producer = None;
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1..2500usize).prop_map(Act::Write),
        1 => (1..9000usize).prop_map(Act::WriteShared),
        1 => (1..300usize).prop_map(Act::WriteSequence),
        1 => Just(Act::Lose),
        1 => Just(Act::LoseWrite),
        1 => Just(Act::Abort),
        2 => Just(Act::Pause),
        2 => Just(Act::Resume),
        1 => (0..5usize).prop_map(Act::RegisterPull),
        1 => Just(Act::RegisterPush),
        2 => Just(Act::Unregister),
        1 => Just(Act::AskFull),
        1 => Just(Act::Panic),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => act().prop_map(Step::Now),
        4 => act().prop_map(Step::InCallback),
        5 => (1..100usize).prop_map(Step::Feed),
        1 => Just(Step::PeerEnds),
        1 => Just(Step::PeerIsLost),
        4 => any::<bool>().prop_map(Step::Stall),
        1 => Just(Step::FailWrites),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_connection_keeps_its_rules(
        first in prop::option::of(act()),
        steps in prop::collection::vec(step(), 0..25),
    ) {
        run(first, &steps);
    }
}
