//! Two protocols joined in memory.

mod link;
#[cfg(test)]
mod tests;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use super::clock;
use crate::protocol::{PeerAddr, Protocol, Reason};
use crate::time::call_later;
use crate::transport::Transport;
use link::{Link, Segment};
use wire::Wire;

/// Bytes of a direction that may be on their way or wait to be read. Beyond that, what is written waits.
const WINDOW_BYTES: usize = 64 * 1024;
/// Steps of one [`Pump::flush`]. Protocols that need more talk for ever.
const STEPS_MAX: usize = if cfg!(test) { 20_000 } else { 1_000_000 };
/// Lines of the log that are kept.
const LOG_LINES_MAX: usize = 1000;
/// Bytes of a piece that the log shows.
const LOG_BYTES_MAX: usize = 48;

/// One of two protocols that a [`Pump`] joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The first.
    Server,
    /// The second.
    Client,
}

impl Side {
    /// The one it talks to.
    pub fn other(self) -> Self {
        match self {
            Self::Server => Self::Client,
            Self::Client => Self::Server,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// Into what pieces the bytes of a direction are cut before they are told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fragmentation {
    /// All that has arrived is told at once.
    Whole,
    /// So many bytes at a time: 1 is every byte for itself. Not 0.
    Bytes(usize),
    /// Cut at these places, counted in bytes from the beginning of the connection.
    At(Vec<u64>),
    /// From 1 to `most` bytes at a time, as `seed` decides.
    Random {
        /// The same seed cuts in the same places.
        seed: u64,
        /// The largest piece.
        most: usize,
    },
}

/// How a connection is lost on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Loss {
    /// In order, as if each had been closed by the other: both read the end, and writing fails from then on.
    Close,
    /// One direction only: who reads it reads the end, what is sent there later is lost. The other direction goes on.
    HalfClose,
    /// Both see a reset.
    Reset,
}

impl Loss {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Close, Self::HalfClose, Self::Reset];
}

/// Joins two protocols in memory, without a socket or a hub: what one writes the other receives (Twisted's
/// `iosim.IOPump`).
///
/// Nothing moves before it is told to: [`pump`](Self::pump) takes one step, [`flush`](Self::flush) goes on until nothing
/// can move. With a [`Clock`](super::Clock) on this thread the clock moves it too: what
/// [`latency`](Self::latency) and [`bandwidth`](Self::bandwidth) delay arrives when the clock gets there, between the
/// calls of the protocols' own timers.
///
/// ```
/// use warren_reactor::testing::{Fragmentation, connect};
/// use warren_reactor::{Protocol, Reason, Transport};
///
/// struct Shout;
/// impl Protocol for Shout {
///     fn connection_made(&mut self, _transport: &Transport) {}
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
///         transport.write(&data.to_ascii_uppercase());
///     }
///     fn connection_lost(&mut self, _reason: &Reason) {}
/// }
///
/// struct Caller(Vec<u8>);
/// impl Protocol for Caller {
///     fn connection_made(&mut self, transport: &Transport) {
///         transport.write(b"hello");
///     }
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) {
///         self.0.extend_from_slice(data);
///         if self.0 == b"HELLO" {
///             transport.lose_connection();
///         }
///     }
///     fn connection_lost(&mut self, _reason: &Reason) {}
/// }
///
/// let pump = connect(Box::new(Shout), Box::new(Caller(Vec::new())));
/// pump.fragmentation(&Fragmentation::Bytes(1)).flush();
/// assert!(pump.is_over());
/// ```
pub struct Pump(Rc<Core>);

/// Joins `server` and `client`. Both have been told that the connection is made; what they wrote then is still to move.
pub fn connect(server: Box<dyn Protocol>, client: Box<dyn Protocol>) -> Pump {
    let core = Rc::new_cyclic(|core: &Weak<Core>| {
        let end = |side, protocol| {
            let medium = Box::new(Wire { core: core.clone(), side });
            let transport = Transport::new(PeerAddr::Memory, PeerAddr::Memory, protocol, medium);
            End {
                transport,
                scheduled: Cell::new(false),
                stalled: Cell::new(false),
                closed: Cell::new(false),
                broken: Cell::new(false),
                mute: Cell::new(false),
                ended: Cell::new(false),
                out: RefCell::new(Link::new()),
            }
        };
        Core {
            ends: [end(Side::Server, server), end(Side::Client, client)],
            armed: Cell::new(None),
            this: core.clone(),
            start: clock::installed().map(|clock| clock.now()),
            printing: Cell::new(false),
            log: RefCell::default(),
        }
    });
    for side in [Side::Client, Side::Server] {
        core.end(side).transport.made();
    }
    Pump(core)
}

struct Core {
    ends: [End; 2],
    /// When the clock will move it.
    armed: Cell<Option<Instant>>,
    this: Weak<Self>,
    start: Option<Instant>,
    printing: Cell<bool>,
    log: RefCell<VecDeque<String>>,
}

struct End {
    transport: Transport,
    scheduled: Cell<bool>,
    /// Does not read.
    stalled: Cell<bool>,
    /// The transport has let it go.
    closed: Cell<bool>,
    /// What is read next is an error.
    broken: Cell<bool>,
    /// What is written is an error.
    mute: Cell<bool>,
    /// The transport has been told of the end.
    ended: Cell<bool>,
    /// What it sends.
    out: RefCell<Link>,
}

impl Pump {
    /// How long each byte is on its way, in both directions.
    ///
    /// # Panics
    /// Without a [`Clock`](super::Clock) on this thread.
    pub fn latency(&self, latency: Duration) -> &Self {
        self.latency_from(Side::Server, latency).latency_from(Side::Client, latency)
    }

    /// How long what one side sends is on its way.
    ///
    /// # Panics
    /// Without a [`Clock`](super::Clock) on this thread.
    pub fn latency_from(&self, side: Side, latency: Duration) -> &Self {
        assert!(self.0.start.is_some(), "latency needs a clock: call Clock::install() first");
        self.set(side, |link| link.latency = latency)
    }

    /// How many bytes a second one side can send.
    ///
    /// # Panics
    /// When 0, and without a [`Clock`](super::Clock) on this thread.
    pub fn bandwidth(&self, side: Side, bytes_per_second: u64) -> &Self {
        assert!(self.0.start.is_some(), "bandwidth needs a clock: call Clock::install() first");
        assert!(bytes_per_second > 0, "no byte passes a line of no bandwidth");
        self.set(side, |link| link.bandwidth = Some(bytes_per_second))
    }

    /// Bytes of each direction that may be on their way or wait to be read: beyond that, what is written waits in the
    /// transport. 64 KiB at first.
    ///
    /// # Panics
    /// When 0.
    pub fn window(&self, bytes: usize) -> &Self {
        assert!(bytes > 0, "nothing passes a window of no bytes");
        for side in [Side::Server, Side::Client] {
            self.set(side, |link| link.window_bytes = bytes);
        }
        self
    }

    /// Cuts what each side receives.
    ///
    /// # Panics
    /// When pieces are to have no bytes.
    pub fn fragmentation(&self, fragmentation: &Fragmentation) -> &Self {
        self.fragmentation_from(Side::Server, fragmentation.clone())
            .fragmentation_from(Side::Client, fragmentation.clone())
    }

    /// Cuts what one side sends.
    ///
    /// # Panics
    /// When pieces are to have no bytes.
    pub fn fragmentation_from(&self, side: Side, fragmentation: Fragmentation) -> &Self {
        let empty = Fragmentation::Bytes(0);
        assert!(fragmentation != empty, "a piece has at least one byte");
        self.set(side, |link| link.fragment(fragmentation))
    }

    /// Loses the connection when the other side has received `bytes` bytes of what `from` sends: 0 is before the first.
    pub fn lose_after(&self, from: Side, bytes: u64, loss: Loss) -> &Self {
        self.set(from, |link| link.loss = Some((bytes, loss)))
    }

    /// Loses the connection now. Of a [`Loss::HalfClose`] the direction is the one in which `from` sends.
    pub fn lose(&self, from: Side, loss: Loss) {
        self.0.lose(from, loss);
    }

    /// Lets `side` stop reading (`true`), so that the other side's output piles up, or read on.
    pub fn stall(&self, side: Side, stalled: bool) -> &Self {
        self.0.end(side).stalled.set(stalled);
        self.0.arm();
        self
    }

    /// Prints each event to the standard error from now on.
    pub fn debug(&self) -> &Self {
        self.0.printing.set(true);
        self
    }

    /// The last events, one a line, as [`debug`](Self::debug) prints them.
    pub fn log(&self) -> Vec<String> {
        self.0.log.borrow().iter().cloned().collect()
    }

    /// One step: ends the turn of each side, then lets each receive one piece. False when nothing has happened.
    pub fn pump(&self) -> bool {
        self.0.step()
    }

    /// Pumps until nothing moves any more; what has latency waits for its time. Whether anything has happened.
    ///
    /// # Panics
    /// When there is no end to it, with the last events.
    pub fn flush(&self) -> bool {
        self.0.flush()
    }

    /// The transport of a side.
    pub fn transport(&self, side: Side) -> &Transport {
        &self.0.end(side).transport
    }

    /// Bytes that `from` has sent and the other side has received.
    pub fn passed(&self, from: Side) -> u64 {
        self.0.end(from).out.borrow().read
    }

    /// Whether a side's connection is gone.
    pub fn is_lost(&self, side: Side) -> bool {
        self.0.end(side).transport.is_lost()
    }

    /// Whether the connection is gone at both sides.
    pub fn is_over(&self) -> bool {
        self.is_lost(Side::Server) && self.is_lost(Side::Client)
    }

    fn set(&self, side: Side, change: impl FnOnce(&mut Link)) -> &Self {
        change(&mut self.0.end(side).out.borrow_mut());
        self
    }
}

impl fmt::Debug for Pump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pump")
            .field("server", self.transport(Side::Server))
            .field("client", self.transport(Side::Client))
            .finish_non_exhaustive()
    }
}

impl Core {
    fn end(&self, side: Side) -> &End {
        match side {
            Side::Server => &self.ends[0],
            Side::Client => &self.ends[1],
        }
    }

    fn now(&self) -> Option<Instant> {
        self.start.and_then(|_| clock::installed()).map(|clock| clock.now())
    }

    fn flush(&self) -> bool {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(
                steps < STEPS_MAX,
                "the protocols have not come to an end after {STEPS_MAX} steps; the last were:\n{}",
                self.log
                    .borrow()
                    .iter()
                    .rev()
                    .take(10)
                    .rev()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join("\n")
            );
        }
        steps > 0
    }

    fn step(&self) -> bool {
        let mut moved = false;
        for side in [Side::Server, Side::Client] {
            let end = self.end(side);
            if end.scheduled.replace(false) {
                moved = true;
                end.transport.settle();
            }
        }
        for side in [Side::Server, Side::Client] {
            moved |= self.arrive(side);
        }
        for side in [Side::Server, Side::Client] {
            moved |= self.receive(side);
        }
        self.arm();
        moved
    }

    /// What has been sent to `side` arrives in its system.
    fn arrive(&self, side: Side) -> bool {
        let (moved, last) = self.end(side.other()).out.borrow_mut().arrive(self.now());
        if let Some(Segment::Reset) = last {
            self.broken(side);
        }
        moved
    }

    /// The peer is gone for good.
    fn broken(&self, side: Side) {
        let end = self.end(side);
        end.broken.set(true);
        end.mute.set(true);
        self.end(side.other()).out.borrow_mut().clear();
        end.out.borrow_mut().clear();
        if end.transport.has_input_ended() && !end.closed.get() {
            self.lost(side);
        } else if 0 < end.transport.buffered() {
            end.scheduled.set(true);
        }
    }

    fn lost(&self, side: Side) {
        self.end(side).closed.set(true);
        self.note(|| format!("{}: reset", side.name()));
        self.end(side).transport.lost(Reason::Error(io::ErrorKind::ConnectionReset.into()));
    }

    /// A side reads one piece of what has arrived, or the end.
    fn receive(&self, side: Side) -> bool {
        let (end, incoming) = (self.end(side), &self.end(side.other()).out);
        if end.closed.get() {
            let discarded = incoming.borrow_mut().discard();
            return discarded | self.tell_room(side.other());
        }
        if !end.reads() {
            return false;
        }
        if end.broken.get() {
            self.lost(side);
            return true;
        }
        let loss = incoming.borrow_mut().take_loss();
        if let Some(loss) = loss {
            self.lose(side.other(), loss);
            return true;
        }
        let mut piece = incoming.borrow_mut().piece();
        if !piece.is_empty() {
            self.note(|| {
                let shown = &piece[..piece.len().min(LOG_BYTES_MAX)];
                let more = if shown.len() < piece.len() { "..." } else { "" };
                let bytes = piece.len();
                format!("{} receives {bytes} bytes: {}{more}", side.name(), shown.escape_ascii())
            });
            end.transport.received(&mut piece);
            self.tell_room(side.other());
            return true;
        }
        if incoming.borrow().ended && !end.ended.replace(true) {
            self.note(|| format!("{} reads the end", side.name()));
            end.transport.input_ended();
            return true;
        }
        false
    }

    /// Whether something can be done for a side at this time.
    fn is_able(&self, side: Side) -> bool {
        let (end, incoming) = (self.end(side), self.end(side.other()).out.borrow());
        let brings = 0 < incoming.waiting() || incoming.ended || incoming.is_loss_due();
        end.scheduled.get()
            || end.closed.get() && 0 < incoming.waiting()
            || end.reads() && (end.broken.get() || brings)
    }

    /// Lets a side write on that had no room.
    fn tell_room(&self, side: Side) -> bool {
        let end = self.end(side);
        let mut out = end.out.borrow_mut();
        let told = 0 < out.room() && std::mem::take(&mut out.starved);
        if told {
            end.scheduled.set(true);
        }
        told
    }

    fn lose(&self, from: Side, loss: Loss) {
        self.note(|| format!("the connection is lost: {loss:?}, from the {}", from.name()));
        match loss {
            Loss::HalfClose => self.cut(from),
            Loss::Close => {
                for side in [Side::Server, Side::Client] {
                    self.cut(side);
                    self.end(side).mute.set(true);
                }
            }
            Loss::Reset => {
                for side in [Side::Server, Side::Client] {
                    let mut out = self.end(side).out.borrow_mut();
                    out.clear();
                    out.finished = true;
                    drop(out);
                    self.broken(side);
                }
            }
        }
        self.arm();
    }

    /// Ends a direction at once; what is sent there later is lost.
    fn cut(&self, side: Side) {
        let mut out = self.end(side).out.borrow_mut();
        out.clear();
        out.finished = true;
        out.ended = true;
    }

    /// Lets the clock move it when there is something to do.
    fn arm(&self) {
        let Some(now) = self.now() else { return };
        let arrivals = self.ends.iter().filter_map(|end| end.out.borrow().next_arrival().flatten());
        let able = [Side::Server, Side::Client].into_iter().any(|side| self.is_able(side));
        let due = match arrivals.min() {
            _ if able => now,
            Some(arrival) => arrival.max(now),
            None => return,
        };
        if self.armed.get().is_some_and(|armed| armed <= due && now <= armed) {
            return;
        }
        self.armed.set(Some(due));
        let this = self.this.clone();
        call_later(due - now, move || {
            if let Some(core) = this.upgrade() {
                core.armed.set(None);
                core.flush();
            }
        });
    }

    fn note(&self, line: impl FnOnce() -> String) {
        let passed = self.now().zip(self.start).map_or(Duration::ZERO, |(now, start)| now - start);
        let line = format!("{:>9.3} s  {}", passed.as_secs_f64(), line());
        if self.printing.get() {
            eprintln!("{line}");
        }
        let mut log = self.log.borrow_mut();
        if log.len() == LOG_LINES_MAX {
            log.pop_front();
        }
        log.push_back(line);
    }
}

impl End {
    fn reads(&self) -> bool {
        let reads = !self.stalled.get() && !self.closed.get() && !self.ended.get();
        reads && self.transport.reads()
    }
}
