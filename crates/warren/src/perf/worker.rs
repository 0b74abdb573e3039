//! A thread with a loop of its own over some of the connections.
//!
//! Neither the fibers nor the hubs of this project: a load generator should not share its faults and its bounds with
//! what it measures, and a hub's timers are a millisecond apart, where an open loop of 50,000 messages per second needs
//! microseconds. One epoll set, edge-triggered, and one timer for the earliest of all that is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use warren_amqp::Method;
use warren_amqp::frame::{self, Frame};

use super::clock::{SECOND, now};
use super::consumer::Consumer;
use super::link::{Link, is_pending, refusal};
use super::meter::{Meter, Tally};
use super::plan::Plan;
use super::producer::Producer;
use super::shared::Shared;

/// What one read takes from a socket.
const READ_BYTES: usize = 256 * 1024;
/// Reads of one connection in one go; then others have their turn.
const READS: usize = 4;
/// How soon a worker notices that the run is over, or that a connection is there again.
const LOOK: u64 = 10_000_000;
const EVENTS_MAX: usize = 256;
/// The event of the timer.
const TIMER: u64 = u64::MAX;

/// What the run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Publishing and consuming.
    Running,
    /// Publishing no more.
    Draining,
    /// Connections are closed.
    Closing,
}

/// When a connection wants to be looked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// When its socket has something to say.
    OnEvent,
    /// At this time, too.
    At(u64),
    /// At once, after others.
    Again,
}

impl Wake {
    pub(super) fn or_at(self, time: u64) -> Self {
        match self {
            Self::OnEvent => Self::At(time),
            Self::At(earlier) => Self::At(earlier.min(time)),
            Self::Again => Self::Again,
        }
    }
}

/// What producers and consumers see of their surroundings.
pub(super) struct Context<'a> {
    /// The time of this turn.
    pub(super) now: u64,
    /// When the load began.
    pub(super) start: u64,
    pub(super) stage: Stage,
    pub(super) tally: &'a mut Tally,
    pub(super) shared: &'a Shared,
}

impl Context<'_> {
    /// A frame for the connection as a whole.
    pub(super) fn connection_frame(&self, frame: Frame<'_>) -> Result<()> {
        let Frame::Method { channel: 0, payload } = frame else { return Ok(()) };
        match Method::decode(payload)? {
            Method::ConnectionBlocked(blocked) => self.shared.set_blocked(Some(blocked.reason)),
            Method::ConnectionUnblocked(_) => self.shared.set_blocked(None),
            method => refusal(&method)?,
        }
        Ok(())
    }
}

/// Who is at this end of a connection.
pub(super) enum Role {
    Producer(Box<Producer>),
    Consumer(Box<Consumer>),
}

/// A connection, its role, and when it is to be looked after.
pub(super) struct Slot {
    /// Among the connections of the run.
    index: usize,
    /// Among the producers, or among the consumers.
    place: usize,
    role: Role,
    link: Option<Link>,
    /// What was read and not looked at, of a consumer that takes its time.
    rest: Vec<u8>,
    readable: bool,
    /// The server has said that no more will come.
    ending: bool,
    is_hot: bool,
    due: u64,
}

impl Slot {
    pub(super) fn new(index: usize, place: usize, role: Role) -> Self {
        let rest = Vec::new();
        Self {
            index,
            place,
            role,
            link: None,
            rest,
            readable: false,
            ending: false,
            is_hot: false,
            due: u64::MAX,
        }
    }

    /// Connects and sets up what the role needs. Blocks.
    fn open(plan: &Plan, index: usize, place: usize, produces: bool, again: bool) -> Result<Link> {
        let mut link = Link::open(plan, index)?;
        let open = if produces { Producer::open } else { Consumer::open };
        open(plan, &mut link, place, again)?;
        link.socket.set_nonblocking(true)?;
        Ok(link)
    }

    fn produces(&self) -> bool {
        matches!(self.role, Role::Producer(_))
    }
}

pub(super) struct Worker {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    meter: Arc<Meter>,
    slots: Vec<Slot>,
    epoll: OwnedFd,
    timer: OwnedFd,
    /// For when the timer is set.
    timer_at: u64,
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// Those to look after now.
    hot: Vec<usize>,
    buffer: Vec<u8>,
    tally: Tally,
    looked_at: u64,
    beat_at: u64,
    connector: Option<Connector>,
}

/// A thread that opens connections again.
struct Connector {
    wanted: Sender<usize>,
    opened: Receiver<(usize, Link)>,
}

impl Worker {
    pub(super) fn new(
        plan: Arc<Plan>,
        shared: Arc<Shared>,
        meter: Arc<Meter>,
        slots: Vec<Slot>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), edge)?;
        Ok(Self {
            plan,
            shared,
            meter,
            slots,
            epoll,
            timer,
            timer_at: u64::MAX,
            due: BinaryHeap::new(),
            hot: Vec::new(),
            buffer: vec![0; READ_BYTES],
            tally: Tally::default(),
            looked_at: 0,
            beat_at: 0,
            connector: None,
        })
    }

    /// Opens all connections, one after the other. Blocks.
    pub(super) fn connect(&mut self) -> Result<()> {
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            let link = Slot::open(&self.plan, slot.index, slot.place, slot.produces(), false)?;
            self.attach(at, link, now())?;
        }
        Ok(())
    }

    fn attach(&mut self, at: usize, link: Link, now: u64) -> io::Result<()> {
        let slot = &mut self.slots[at];
        let edge = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &link.socket, EventData::new_u64(at as u64), edge)?;
        let link = slot.link.insert(link);
        slot.rest.clear();
        // Something may have come with the last answer.
        slot.readable = true;
        slot.ending = false;
        let mut context = Context {
            now,
            start: self.shared.start(),
            stage: self.shared.stage(),
            tally: &mut self.tally,
            shared: &self.shared,
        };
        match &mut slot.role {
            Role::Producer(producer) => producer.opened(link, &mut context),
            Role::Consumer(consumer) => consumer.opened(),
        }
        self.heat(at);
        Ok(())
    }

    fn heat(&mut self, at: usize) {
        if !std::mem::replace(&mut self.slots[at].is_hot, true) {
            self.hot.push(at);
        }
    }

    /// Until the run is over.
    pub(super) fn run(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while self.shared.stage() != Stage::Closing {
            let now = now();
            while let Some(&Reverse((time, at))) = self.due.peek()
                && time <= now
            {
                self.due.pop();
                if self.slots[at].due == time {
                    self.slots[at].due = u64::MAX;
                    self.heat(at);
                }
            }
            for at in std::mem::take(&mut self.hot) {
                self.slots[at].is_hot = false;
                if let Err(error) = self.serve(at, now) {
                    self.lose(at, error)?;
                }
            }
            if self.looked_at + LOOK <= now {
                self.looked_at = now;
                self.look(now)?;
            }
            self.meter.take(&mut self.tally);
            self.wait(&mut events, now)?;
        }
        self.meter.take(&mut self.tally);
        Ok(())
    }

    fn wait(&mut self, events: &mut Vec<Event>, now: u64) -> io::Result<()> {
        let mut patience = if self.hot.is_empty() { LOOK } else { 0 };
        if let Some(&Reverse((time, _))) = self.due.peek()
            && time < now + patience
        {
            // The timer is as exact as the kernel's clock; the patience of epoll is in milliseconds.
            if self.timer_at != time {
                self.timer_at = time;
                let at = Timespec {
                    tv_sec: (time / SECOND).cast_signed(),
                    tv_nsec: (time % SECOND).cast_signed(),
                };
                let never = Timespec { tv_sec: 0, tv_nsec: 0 };
                let value = Itimerspec { it_interval: never, it_value: at };
                timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &value)?;
            }
            patience = LOOK;
        }
        events.clear();
        let patience = Timespec { tv_sec: 0, tv_nsec: patience.cast_signed() };
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let (data, flags) = (event.data, event.flags);
            if data.u64() == TIMER {
                self.timer_at = u64::MAX;
                continue;
            }
            let at = data.u64() as usize;
            self.slots[at].readable |= flags != EventFlags::OUT;
            let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
            self.slots[at].ending |= flags.intersects(ends);
            self.heat(at);
        }
        Ok(())
    }

    /// Reads what there is, and lets the role write.
    fn serve(&mut self, at: usize, now: u64) -> Result<()> {
        let slot = &mut self.slots[at];
        let Some(link) = &mut slot.link else { return Ok(()) };
        let consumed = self.tally.counts.consumed;
        let mut context = Context {
            now,
            start: self.shared.start(),
            stage: self.shared.stage(),
            tally: &mut self.tally,
            shared: &self.shared,
        };
        let mut wake = Wake::OnEvent;
        if !slot.rest.is_empty() {
            let mut rest = std::mem::take(&mut slot.rest);
            let used = feed(&mut slot.role, link, &rest, &mut context)?;
            rest.drain(..used);
            slot.rest = rest;
        }
        let mut reads = 0;
        while slot.readable && slot.rest.is_empty() {
            if let Role::Consumer(consumer) = &slot.role
                && consumer.paused_until(context.now).is_some()
            {
                break;
            }
            if reads == READS {
                wake = Wake::Again;
                break;
            }
            reads += 1;
            let count = match link.socket.read(&mut self.buffer) {
                Ok(0) => bail!("the server hung up"),
                Ok(count) => count,
                Err(error) if is_pending(&error) => {
                    slot.readable = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("the connection broke"),
            };
            // There was no more, and the next of it comes with an event. An end that is known comes with none.
            if count < self.buffer.len() && link.socket.tells_of_more() && !slot.ending {
                slot.readable = false;
            }
            context.now = super::clock::now();
            let data = &self.buffer[..count];
            let used = feed(&mut slot.role, link, data, &mut context)?;
            slot.rest.extend_from_slice(&data[used..]);
        }
        context.shared.note_consumed(context.tally.counts.consumed - consumed);
        let pumped = match &mut slot.role {
            Role::Producer(producer) => producer.pump(link, &mut context)?,
            Role::Consumer(consumer) => {
                let pumped = consumer.pump(link, &mut context)?;
                match consumer.paused_until(context.now) {
                    Some(u64::MAX) | None => pumped,
                    Some(time) => pumped.or_at(time),
                }
            }
        };
        match (wake, pumped) {
            (Wake::Again, _) | (_, Wake::Again) => self.heat(at),
            (_, Wake::At(time)) if time < slot.due => {
                slot.due = time;
                self.due.push(Reverse((time, at)));
            }
            _ => {}
        }
        Ok(())
    }

    /// A connection has broken. With recovery it is opened again.
    fn lose(&mut self, at: usize, error: anyhow::Error) -> Result<()> {
        if self.plan.recovery.is_none() {
            return Err(error);
        }
        self.slots[at].link = None;
        self.shared.lost(&error);
        if self.connector.is_none() {
            self.connector = Some(self.start_connector());
        }
        if let Some(connector) = &self.connector {
            // It lives as long as this worker.
            let _ = connector.wanted.send(at);
        }
        Ok(())
    }

    fn start_connector(&self) -> Connector {
        let (wanted, wishes) = channel::<usize>();
        let (answers, opened) = channel();
        let (plan, shared) = (self.plan.clone(), self.shared.clone());
        let places: Vec<_> =
            self.slots.iter().map(|slot| (slot.index, slot.place, slot.produces())).collect();
        thread::spawn(move || {
            let interval = plan.recovery.unwrap_or_default();
            for at in wishes {
                let (index, place, produces) = places[at];
                while shared.stage() != Stage::Closing {
                    thread::sleep(interval);
                    match Slot::open(&plan, index, place, produces, true) {
                        Ok(link) => {
                            if answers.send((at, link)).is_err() {
                                return;
                            }
                            break;
                        }
                        Err(error) => shared.not_reopened(&error),
                    }
                }
            }
        });
        Connector { wanted, opened }
    }

    /// What is done once in a while.
    fn look(&mut self, now: u64) -> Result<()> {
        let opened: Vec<_> =
            self.connector.iter().flat_map(|connector| connector.opened.try_iter()).collect();
        for (at, link) in opened {
            self.attach(at, link, now)?;
            self.shared.reopened();
        }
        let stage = self.shared.stage();
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            if let (Role::Producer(producer), Some(_)) = (&slot.role, &slot.link)
                && let Err(error) = producer.check(now)
            {
                return Err(error);
            }
            // Whoever waited for the next stage.
            if stage != Stage::Running && slot.produces() {
                self.heat(at);
            }
        }
        let heartbeat = u64::from(self.plan.options.heartbeat) * SECOND;
        if heartbeat != 0 && self.beat_at + heartbeat / 2 <= now {
            self.beat_at = now;
            for at in 0..self.slots.len() {
                if let Some(link) = &mut self.slots[at].link {
                    frame::write_heartbeat(&mut link.out);
                }
                self.heat(at);
            }
        }
        Ok(())
    }

    /// Acknowledges what is left and says goodbye. Blocks.
    pub(super) fn close(self) {
        for slot in self.slots {
            let Some(mut link) = slot.link else { continue };
            if let Role::Consumer(mut consumer) = slot.role {
                consumer.acknowledge_all(&mut link.out);
            }
            link.close();
        }
    }
}

/// Hands frames to the role. Gives how much of the data it took: less than all when it takes its time.
fn feed(role: &mut Role, link: &mut Link, data: &[u8], context: &mut Context<'_>) -> Result<usize> {
    let mut left = data;
    loop {
        if let Role::Consumer(consumer) = role
            && consumer.paused_until(context.now).is_some()
        {
            return Ok(data.len() - left.len());
        }
        let Some(frame) = link.reader.next_frame(&mut left)? else { return Ok(data.len()) };
        match role {
            Role::Producer(producer) => producer.frame(frame, context)?,
            Role::Consumer(consumer) => consumer.frame(frame, &mut link.out, context)?,
        }
    }
}

/// How long a thread that waits for workers sleeps between looks.
pub(super) const GLANCE: Duration = Duration::from_millis(2);
