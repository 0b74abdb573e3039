//! Protocols without a network.
//!
//! | what is tested | with |
//! |---|---|
//! | one protocol, byte by byte | [`TestConnection`] (Twisted's `StringTransport`) |
//! | that it does not matter where its input is cut | [`cut_everywhere`] |
//! | two protocols with each other: latency, fragments, a peer that does not read | [`connect`] (Twisted's `iosim`) |
//! | that nothing hangs wherever the connection is lost | [`lose_everywhere`] |
//! | timeouts | [`Clock`] (Twisted's `task.Clock`) |
//! | what listens and connects: factories, connectors, fibers, many nodes, chance | [`warren_hub::sim`], and [`serve`] in it |
//!
//! All but the last need no hub and no time. A simulation runs the whole program, sockets included, and finds by its seeds
//! what nobody thought of; so Twisted's `MemoryReactor`, which only notes who wanted to listen, has no counterpart here.

pub(crate) mod clock;
mod cuts;
mod pump;
mod simulated;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

pub use clock::Clock;
pub use cuts::{Lost, cut_everywhere, lose_everywhere};
pub use pump::{Fragmentation, Loss, Pump, Side, connect};
pub use simulated::serve;

use crate::output::Output;
use crate::protocol::{PeerAddr, Protocol, Reason};
use crate::transport::{Close, Medium, Transport};

/// A protocol with a connection made of memory.
///
/// [`feed`](Self::feed) plays the peer, [`take_output`](Self::take_output) is what the peer would have read.
/// The peer reads everything, unless it is told to [`stall`](Self::stall).
pub struct TestConnection {
    transport: Transport,
    shared: Rc<Shared>,
    /// Prepared input that the protocol has given back.
    rest: Cell<Option<Box<dyn Any + Send>>>,
}

/// What the medium and the test share.
#[derive(Default)]
struct Shared {
    written: RefCell<Vec<u8>>,
    stalled: Cell<bool>,
    scheduled: Cell<bool>,
    /// The peer has said that it sends no more.
    peer_ended: Cell<bool>,
    write_ended: Cell<bool>,
    end: Cell<Option<End>>,
    failure: Cell<Option<io::ErrorKind>>,
}

/// How the protocol's side closed the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By [`Transport::lose_connection`], everything having been written.
    Graceful,
    /// By [`Transport::abort_connection`], or after an error.
    Abrupt,
}

/// The transport as a producer of what the peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProducerState {
    /// The protocol receives.
    Producing,
    /// By [`Transport::pause_reading`].
    Paused,
    /// The connection is being closed, or is gone.
    Stopped,
}

struct Memory(Rc<Shared>);

impl Medium for Memory {
    fn schedule(&self, _transport: &Transport) {
        self.0.scheduled.set(true);
    }

    fn write(&self, output: &mut Output) -> io::Result<()> {
        if let Some(kind) = self.0.failure.get() {
            return Err(kind.into());
        }
        if !self.0.stalled.get() {
            self.0.written.borrow_mut().extend(output.take());
        }
        Ok(())
    }

    fn resume_reading(&self) {
        // Prepared input may wait for that.
        self.0.scheduled.set(true);
    }

    fn end_writing(&self) -> io::Result<()> {
        self.0.write_ended.set(true);
        Ok(())
    }

    fn close(&self, how: Close) {
        self.0.end.set(Some(match how {
            Close::Gracefully => End::Graceful,
            Close::AtOnce if self.0.peer_ended.get() => End::Graceful,
            Close::AtOnce | Close::Reset => End::Abrupt,
        }));
    }
}

impl TestConnection {
    /// A connection from [`PeerAddr::Memory`]; `connection_made` has been called.
    pub fn new(protocol: Box<dyn Protocol>) -> Self {
        Self::with_peer(protocol, PeerAddr::Memory)
    }

    /// A connection that claims to come from `peer`.
    pub fn with_peer(protocol: Box<dyn Protocol>, peer: PeerAddr) -> Self {
        let shared = Rc::<Shared>::default();
        let medium = Box::new(Memory(shared.clone()));
        let transport = Transport::new(peer, PeerAddr::Memory, protocol, medium);
        transport.made();
        let connection = Self { transport, shared, rest: Cell::default() };
        connection.settle();
        connection
    }

    /// The peer sends `data`. Ignored when the protocol has closed the connection or paused reading.
    pub fn feed(&mut self, data: &[u8]) {
        if self.transport.reads() && !data.is_empty() {
            self.transport.received_shared(data);
        }
        self.settle();
    }

    /// What a [`Preparer`](crate::Preparer) has made of what the peer sends has come. Ignored as in [`feed`](Self::feed).
    pub fn feed_prepared(&mut self, input: Box<dyn Any + Send>) {
        if self.transport.reads() {
            self.rest.set(self.transport.received_prepared(input));
        }
        self.settle();
    }

    /// What has been written since the last call.
    pub fn take_output(&mut self) -> Vec<u8> {
        self.settle();
        std::mem::take(&mut *self.shared.written.borrow_mut())
    }

    /// What has been written and not been [taken](Self::take_output).
    pub fn value(&self) -> Vec<u8> {
        self.settle();
        self.shared.written.borrow().clone()
    }

    /// Forgets what has been written.
    pub fn clear(&mut self) {
        self.take_output();
    }

    /// The peer stops reading (`true`) or reads on.
    pub fn stall(&mut self, stalled: bool) {
        self.shared.stalled.set(stalled);
        self.shared.scheduled.set(true);
        self.settle();
    }

    /// The peer sends no more, but reads on.
    pub fn half_close(&mut self) {
        if self.transport.reads() && !self.shared.peer_ended.replace(true) {
            self.transport.input_ended();
        }
        self.settle();
    }

    /// The peer closes the connection: it sends no more, and is gone for good once it has read what it wants.
    pub fn lose(&mut self) {
        self.half_close();
        if !self.transport.is_lost() {
            self.shared.end.set(Some(End::Abrupt));
            self.transport.lost(Reason::Done);
        }
    }

    /// Whether the protocol has ended its output with [`Transport::lose_write_connection`].
    pub fn write_ended(&self) -> bool {
        self.settle();
        self.shared.write_ended.get()
    }

    /// From now on every write fails with `kind`.
    pub fn fail_writes(&mut self, kind: io::ErrorKind) {
        self.shared.failure.set(Some(kind));
    }

    /// How the protocol closed the connection, if it did.
    pub fn closed(&self) -> Option<End> {
        self.settle();
        self.shared.end.get()
    }

    /// Whether the protocol has asked for the end of the connection, which may wait for output or a producer.
    pub fn disconnecting(&self) -> bool {
        self.transport.is_closing()
    }

    /// Whether the protocol wants input.
    pub fn producer_state(&self) -> ProducerState {
        match self.transport.is_reading() {
            _ if self.disconnecting() => ProducerState::Stopped,
            true => ProducerState::Producing,
            false => ProducerState::Paused,
        }
    }

    /// Whether a producer is registered with the transport: a streaming one (`Some(true)`) or one that is asked for each
    /// piece (`Some(false)`).
    pub fn producer(&self) -> Option<bool> {
        self.transport.has_producer()
    }

    /// Whether the connection is gone, whoever closed it.
    pub fn is_lost(&self) -> bool {
        self.settle();
        self.transport.is_lost()
    }

    /// The transport the protocol has.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The end of a turn, as often as the protocol makes work for one.
    fn settle(&self) {
        while self.shared.scheduled.replace(false) {
            self.transport.settle();
            if self.transport.wants_data()
                && let Some(rest) = self.rest.take()
            {
                self.rest.set(self.transport.received_prepared(rest));
                self.shared.scheduled.set(true);
            }
        }
    }
}

#[cfg(test)]
mod tests;
