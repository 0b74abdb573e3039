//! Connections: two ends, each with what is on its way to the other.
//!
//! ```text
//!    end 0  write -> [ segment | segment | ... ] -- one arrival per segment --> received -> read  end 1
//! ```
//! Each segment has an arrival of its own on the world's agenda, and each arrival delivers the *first* segment of the
//! queue: so the order is kept, however long each took. An arrival that cannot reach the other machine is counted as
//! held back, and put on the agenda anew when the way is free.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use super::would_block;
use crate::driver::{Addr, Endpoint, Source};
use crate::io::Readiness;
use crate::sim::node::Process;
use crate::sim::trace::{Step, digest};
use crate::sim::world::Core;

/// The largest piece that a stream is cut into.
const PIECE_MAX: usize = 16 << 10;

enum Segment {
    /// The connection is made.
    Welcome,
    Data(Vec<u8>),
    /// No more will come.
    End,
    Reset,
}

pub(super) struct Connection {
    id: u64,
    ends: [End; 2],
    /// Nothing passes any more; neither end knows yet.
    lost: Cell<bool>,
}

struct End {
    node: usize,
    addr: Addr,
    /// Who has it; nobody before the connection is made.
    process: RefCell<Option<Rc<Process>>>,
    key: Cell<Option<u64>>,
    connected: Cell<bool>,
    /// The program has let it go.
    closed: Cell<bool>,
    received: RefCell<VecDeque<u8>>,
    /// The peer sends no more.
    ended: Cell<bool>,
    /// What comes is not wanted.
    deaf: Cell<bool>,
    /// On the way to the other end.
    queue: RefCell<VecDeque<Segment>>,
    last_arrival: Cell<Duration>,
    /// Arrivals that did not get through.
    held: Cell<usize>,
    /// Counts the times when something began to be held back.
    stalls: Cell<u64>,
    /// Bytes written here that the other end has not read.
    unread: Cell<usize>,
    /// A write found no room.
    starved: Cell<bool>,
    /// The program sends no more.
    finished: Cell<bool>,
    /// It is to be closed by a reset.
    resets: Cell<bool>,
    /// Has not been told yet.
    error: Cell<Option<Errno>>,
    broken: Cell<bool>,
}

impl End {
    fn new(node: usize, addr: Addr, process: Option<Rc<Process>>) -> Self {
        Self {
            node,
            addr,
            process: RefCell::new(process),
            key: Cell::new(None),
            connected: Cell::new(false),
            closed: Cell::new(false),
            received: RefCell::default(),
            ended: Cell::new(false),
            deaf: Cell::new(false),
            queue: RefCell::default(),
            last_arrival: Cell::new(Duration::ZERO),
            held: Cell::new(0),
            stalls: Cell::new(0),
            unread: Cell::new(0),
            starved: Cell::new(false),
            finished: Cell::new(false),
            resets: Cell::new(false),
            error: Cell::new(None),
            broken: Cell::new(false),
        }
    }

    fn tell(&self, ready: Readiness) {
        if let (Some(process), Some(key)) = (&*self.process.borrow(), self.key.get()) {
            process.tell(key, ready);
        }
    }

    fn is_alive(&self) -> bool {
        self.process.borrow().as_ref().is_some_and(|process| process.alive.get())
    }

    fn is_of(&self, process: &Rc<Process>) -> bool {
        self.process.borrow().as_ref().is_some_and(|own| Rc::ptr_eq(own, process))
    }

    /// What may be done now.
    fn readiness(&self, window: usize) -> Readiness {
        let mut ready = Readiness::empty();
        if self.broken.get() {
            return Readiness::all();
        }
        let over = self.ended.get() || self.deaf.get();
        ready.set(Readiness::READABLE, over || !self.received.borrow().is_empty());
        ready.set(Readiness::CLOSED, over);
        ready.set(Readiness::WRITABLE, self.connected.get() && self.unread.get() < window);
        ready
    }
}

impl Connection {
    pub(super) fn new(
        id: u64,
        process: &Rc<Process>,
        from: Addr,
        target: usize,
        to: Addr,
    ) -> Rc<Self> {
        let ends =
            [End::new(process.node, from, Some(process.clone())), End::new(target, to, None)];
        Rc::new(Self { id, ends, lost: Cell::new(false) })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn node(&self, side: usize) -> usize {
        self.ends[side].node
    }

    pub(super) fn addr(&self, side: usize) -> Addr {
        self.ends[side].addr.clone()
    }

    pub(super) fn is_between(&self, one: usize, other: usize) -> bool {
        let nodes = [self.ends[0].node, self.ends[1].node];
        nodes == [one, other] || nodes == [other, one]
    }

    /// Whether whoever asked for it still wants it.
    pub(super) fn is_wanted(&self) -> bool {
        let end = &self.ends[0];
        !end.closed.get() && !end.broken.get()
    }

    /// The other machine has taken it up.
    pub(super) fn enter(&self, process: &Rc<Process>) {
        *self.ends[1].process.borrow_mut() = Some(process.clone());
        self.ends[1].connected.set(true);
    }

    /// One program has both ends.
    pub(super) fn join(&self, process: &Rc<Process>) {
        self.enter(process);
        self.ends[0].connected.set(true);
    }

    /// Tells the one that connects.
    pub(super) fn answer(self: &Rc<Self>, core: &Rc<Core>) {
        self.dispatch(core, 1, Segment::Welcome);
    }

    /// Puts a segment on its way from this side.
    fn dispatch(self: &Rc<Self>, core: &Rc<Core>, side: usize, segment: Segment) {
        let (from, to) = (&self.ends[side], &self.ends[1 - side]);
        if self.lost.get() {
            return;
        }
        from.queue.borrow_mut().push_back(segment);
        let latency = core.network.latency(core, from.node, to.node);
        let arrival = (core.now() + latency).max(from.last_arrival.get());
        from.last_arrival.set(arrival);
        let connection = self.clone();
        core.at(arrival, move |core| connection.arrive(core, side));
    }

    /// The first segment that this side has sent arrives.
    fn arrive(self: &Rc<Self>, core: &Rc<Core>, side: usize) {
        let (from, to) = (&self.ends[side], &self.ends[1 - side]);
        if self.lost.get() || from.queue.borrow().is_empty() {
            return;
        }
        if !core.network.passes(core, from.node, to.node) {
            self.hold(core, side);
            return;
        }
        let cuts = core.network.conditions.borrow().cuts;
        if from.node != to.node && core.random.chance(cuts) {
            self.cut(core);
            return;
        }
        let Some(segment) = from.queue.borrow_mut().pop_front() else { return };
        match segment {
            Segment::Welcome if to.closed.get() => self.dispatch(core, 1 - side, Segment::Reset),
            Segment::Welcome => {
                to.connected.set(true);
                to.tell(Readiness::WRITABLE);
            }
            Segment::Data(bytes) => self.take_in(core, side, &bytes),
            Segment::End => {
                core.note(to.node, Step::Arrive, self.id, 0);
                to.ended.set(true);
                to.tell(Readiness::READABLE | Readiness::CLOSED);
            }
            Segment::Reset => self.fail(core, 1 - side, Errno::CONNRESET),
        }
        self.forget_if_over(core);
    }

    fn take_in(self: &Rc<Self>, core: &Rc<Core>, side: usize, bytes: &[u8]) {
        let to = &self.ends[1 - side];
        core.note(to.node, Step::Arrive, self.id, bytes.len() as u64);
        if to.closed.get() {
            self.dispatch(core, 1 - side, Segment::Reset);
        } else if to.deaf.get() || to.broken.get() {
            self.room(core, side, bytes.len());
        } else {
            to.received.borrow_mut().extend(bytes);
            to.tell(Readiness::READABLE);
        }
    }

    /// Bytes of this side have been read: later it hears that there is room again.
    fn room(self: &Rc<Self>, core: &Rc<Core>, side: usize, count: usize) {
        let (from, to) = (&self.ends[side], &self.ends[1 - side]);
        let connection = self.clone();
        core.after(core.network.latency(core, to.node, from.node), move |_| {
            let end = &connection.ends[side];
            end.unread.set(end.unread.get().saturating_sub(count));
            if end.starved.replace(false) {
                end.tell(Readiness::WRITABLE);
            }
        });
    }

    /// An arrival does not get through. Unless that changes, the sender gives up in the end.
    fn hold(self: &Rc<Self>, core: &Rc<Core>, side: usize) {
        let from = &self.ends[side];
        from.held.set(from.held.get() + 1);
        if from.held.get() > 1 {
            return;
        }
        from.stalls.set(from.stalls.get() + 1);
        let (connection, stall) = (self.clone(), from.stalls.get());
        core.after(core.network.patience(), move |core| {
            let from = &connection.ends[side];
            if from.held.get() > 0 && from.stalls.get() == stall {
                connection.fail(core, side, Errno::TIMEDOUT);
                connection.forget_if_over(core);
            }
        });
    }

    /// Tries again what was held back.
    pub(super) fn resume(self: &Rc<Self>, core: &Rc<Core>) {
        for side in [0, 1] {
            let (from, to) = (&self.ends[side], &self.ends[1 - side]);
            if from.held.get() == 0 || !core.network.passes(core, from.node, to.node) {
                continue;
            }
            // The way is free, but nobody knows before the next attempt.
            let delay = core.random.duration(Duration::ZERO..=Duration::from_millis(200))
                + core.network.latency(core, from.node, to.node);
            for _ in 0..from.held.replace(0) {
                let connection = self.clone();
                core.after(delay, move |core| connection.arrive(core, side));
            }
        }
    }

    /// Loses the connection: neither end hears of it at once.
    pub(super) fn cut(self: &Rc<Self>, core: &Rc<Core>) {
        if self.lost.replace(true) {
            return;
        }
        core.note(self.ends[0].node, Step::Reset, self.id, 2);
        for side in [0, 1] {
            let (end, other) = (&self.ends[side], &self.ends[1 - side]);
            end.queue.take();
            let connection = self.clone();
            core.after(core.network.latency(core, other.node, end.node), move |core| {
                connection.fail(core, side, Errno::CONNRESET);
                connection.forget_if_over(core);
            });
        }
    }

    /// This end is of no more use.
    pub(super) fn fail(&self, core: &Rc<Core>, side: usize, error: Errno) {
        let end = &self.ends[side];
        if end.broken.replace(true) {
            return;
        }
        end.queue.take();
        end.held.set(0);
        if end.closed.get() {
            return;
        }
        core.note(end.node, Step::Reset, self.id, error.raw_os_error() as u64);
        end.error.set(Some(error));
        end.received.take();
        end.tell(Readiness::all());
    }

    /// The program lets its end go.
    fn close(self: &Rc<Self>, core: &Rc<Core>, side: usize) {
        let end = &self.ends[side];
        if end.closed.replace(true) {
            return;
        }
        core.note(end.node, Step::Close, self.id, 0);
        end.key.set(None);
        let unread = !end.received.take().is_empty();
        let made = self.ends[1].process.borrow().is_some();
        if made && !end.broken.get() {
            if unread || end.resets.get() {
                self.dispatch(core, side, Segment::Reset);
            } else if !end.finished.replace(true) {
                self.dispatch(core, side, Segment::End);
            }
        }
        end.process.take();
        self.forget_if_over(core);
    }

    /// Closes an end by a reset.
    pub(super) fn abort(self: &Rc<Self>, core: &Rc<Core>, side: usize) {
        let end = &self.ends[side];
        if !end.closed.replace(true) && !end.broken.get() {
            self.dispatch(core, side, Segment::Reset);
        }
        end.process.take();
    }

    /// Closes what a program has of it.
    pub(super) fn close_of(self: &Rc<Self>, core: &Rc<Core>, process: &Rc<Process>) {
        for side in [0, 1] {
            if self.ends[side].is_of(process) {
                self.close(core, side);
            }
        }
    }

    /// A machine is gone. What it has sent already is on its way; what it would have sent again is not.
    pub(super) fn lose(&self, node: usize) {
        for end in self.ends.iter().filter(|end| end.node == node) {
            end.closed.set(true);
            end.key.set(None);
            end.process.take();
            if end.held.replace(0) > 0 {
                end.queue.take();
            }
        }
    }

    /// Takes a connection off the table that nobody has and on which nothing is under way.
    fn forget_if_over(&self, core: &Rc<Core>) {
        let over = |end: &End| end.closed.get() && end.queue.borrow().is_empty();
        if self.ends.iter().all(over) {
            core.network.connections.borrow_mut().remove(&self.id);
        }
    }
}

/// One end, as a program has it.
pub(super) struct StreamEnd {
    core: Rc<Core>,
    connection: Rc<Connection>,
    side: usize,
}

impl StreamEnd {
    pub(super) fn source(core: &Rc<Core>, connection: Rc<Connection>, side: usize) -> Source {
        Source::Simulated(Box::new(Self { core: core.clone(), connection, side }))
    }

    fn end(&self) -> &End {
        &self.connection.ends[self.side]
    }

    fn window(&self) -> usize {
        self.core.network.conditions.borrow().window
    }

    fn note(&self, step: Step, more: u64) {
        self.core.note(self.end().node, step, self.connection.id, more);
    }

    /// Copies what has been received, and leaves it there. 0 at the end.
    fn look(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = self.end();
        // The dead get no answer: their fibers wait for one until they are unwound.
        if !end.is_alive() {
            return would_block();
        }
        if let Some(error) = end.error.take() {
            return Err(error.into());
        }
        let received = end.received.borrow();
        if received.is_empty() && !buffer.is_empty() {
            let over = end.broken.get() || end.ended.get() || end.deaf.get();
            return if over { Ok(0) } else { would_block() };
        }
        let mut count = 0;
        for mut part in [received.as_slices().0, received.as_slices().1] {
            count += part.read(&mut buffer[count..])?;
        }
        Ok(count)
    }
}

impl Endpoint for StreamEnd {
    fn watch(&self, key: Option<u64>) -> io::Result<()> {
        let end = self.end();
        if !end.closed.get() {
            end.key.set(key);
            let ready = end.readiness(self.window());
            if !ready.is_empty() {
                end.tell(ready);
            }
        }
        Ok(())
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.look(buffer)?;
        if count > 0 {
            self.end().received.borrow_mut().drain(..count);
            self.note(Step::Read, digest(&buffer[..count]));
            self.connection.room(&self.core, 1 - self.side, count);
        }
        Ok(count)
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        let end = self.end();
        if !end.is_alive() {
            return would_block();
        }
        if let Some(error) = end.error.take() {
            return Err(error.into());
        }
        if end.broken.get() || end.finished.get() {
            return Err(Errno::PIPE.into());
        }
        if data.is_empty() {
            return Ok(0);
        }
        let room = self.window().saturating_sub(end.unread.get());
        if !end.connected.get() || room == 0 {
            end.starved.set(true);
            return would_block();
        }
        let random = &self.core.random;
        let mut count = room.min(data.len());
        if random.chance(0.05) {
            // A system may take less than it has room for.
            count = 1 + random.index(count);
        }
        end.unread.set(end.unread.get() + count);
        self.note(Step::Write, digest(&data[..count]));
        let mut left = &data[..count];
        while !left.is_empty() {
            let max = if random.chance(0.1) { 16 } else { PIECE_MAX };
            let (piece, rest) = left.split_at(1 + random.index(max.min(left.len())));
            self.connection.dispatch(&self.core, self.side, Segment::Data(piece.to_vec()));
            left = rest;
        }
        Ok(count)
    }

    fn peek(&self, buffer: &mut [u8]) -> io::Result<(usize, Addr)> {
        let addr = self.connection.addr(1 - self.side);
        Ok((self.look(buffer)?, addr))
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let end = self.end();
        if !end.is_alive() || end.broken.get() || !end.connected.get() {
            return Err(Errno::NOTCONN.into());
        }
        if how != Shutdown::Read && !end.finished.replace(true) {
            self.note(Step::Close, 1);
            self.connection.dispatch(&self.core, self.side, Segment::End);
            end.tell(Readiness::WRITABLE);
        }
        if how != Shutdown::Write {
            end.deaf.set(true);
            end.tell(Readiness::READABLE | Readiness::CLOSED);
        }
        Ok(())
    }

    fn local_addr(&self) -> io::Result<Addr> {
        Ok(self.end().addr.clone())
    }

    fn peer_addr(&self) -> io::Result<Addr> {
        if self.end().connected.get() && !self.end().broken.get() {
            Ok(self.connection.addr(1 - self.side))
        } else {
            Err(Errno::NOTCONN.into())
        }
    }

    fn reset_on_close(&self) {
        self.end().resets.set(matches!(self.end().addr, Addr::Ip(_)));
    }

    fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.end().error.take().map(Into::into))
    }
}

impl Drop for StreamEnd {
    fn drop(&mut self) {
        if self.end().is_alive() {
            self.connection.close(&self.core, self.side);
        }
    }
}
