//! The network between the nodes: who reaches whom, how fast, and what gets lost.

mod datagram;
mod listener;
mod stream;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use super::Node;
use super::node::Process;
use super::trace::Step;
use super::world::Core;
use crate::driver::Addr;
use datagram::Datagrams;
use listener::Listener;
use stream::Connection;

/// How fast a node reaches itself.
const LOOPBACK: RangeInclusive<Duration> = Duration::from_micros(5)..=Duration::from_micros(50);

/// The network of a [`World`](super::World). What is set holds for what is sent from then on.
///
/// At first it takes 0.1 to 2 ms from node to node, and nothing is lost: streams keep their order and arrive in pieces
/// of any size, datagrams overtake each other.
#[derive(Clone)]
pub struct Net(pub(super) Rc<Core>);

impl Net {
    /// How long a message is on its way.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn latency(&self, range: RangeInclusive<Duration>) -> &Self {
        assert!(!range.is_empty(), "an empty range has no time");
        self.set(|conditions| conditions.latency = range)
    }

    /// How long messages between two nodes are on their way, in both directions; [`latency`](Self::latency) no longer
    /// counts for them.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn latency_between(
        &self,
        one: &Node,
        other: &Node,
        range: RangeInclusive<Duration>,
    ) -> &Self {
        assert!(!range.is_empty(), "an empty range has no time");
        let mut links = self.0.network.latencies.borrow_mut();
        links.insert((one.machine.number, other.machine.number), range.clone());
        links.insert((other.machine.number, one.machine.number), range);
        drop(links);
        self
    }

    /// How many of the datagrams get lost: from 0 to 1.
    pub fn loss(&self, probability: f64) -> &Self {
        self.set(|conditions| conditions.loss = probability)
    }

    /// How many of the datagrams arrive twice: from 0 to 1.
    pub fn duplication(&self, probability: f64) -> &Self {
        self.set(|conditions| conditions.duplication = probability)
    }

    /// With what probability a piece of a stream does not arrive and its connection is lost instead: both ends get
    /// `ConnectionReset`, neither at once, and cannot know how much the other one got.
    pub fn cuts(&self, probability: f64) -> &Self {
        self.set(|conditions| conditions.cuts = probability)
    }

    /// Bytes of a stream that may be on their way or wait to be read. Beyond that, writing waits. 64 KiB at first.
    ///
    /// # Panics
    /// When 0.
    pub fn window(&self, bytes: usize) -> &Self {
        assert!(bytes > 0, "nothing passes a window of no bytes");
        self.set(|conditions| conditions.window = bytes)
    }

    /// How long a connection waits for a peer that does not answer, before `TimedOut`. 30 s at first.
    pub fn give_up_after(&self, time: Duration) -> &Self {
        self.set(|conditions| conditions.patience = time)
    }

    /// Lets nothing pass between two nodes until they are [healed](Self::heal). Streams hold back what they have, until
    /// they give up; datagrams are lost.
    pub fn partition(&self, one: &Node, other: &Node) -> &Self {
        self.partition_one_way(one, other).partition_one_way(other, one)
    }

    /// As [`partition`](Self::partition), for what is sent from one node to the other.
    pub fn partition_one_way(&self, from: &Node, to: &Node) -> &Self {
        let link = (from.machine.number, to.machine.number);
        self.0.note(link.0, Step::Fault, 1, link.1 as u64);
        self.0.network.partitions.borrow_mut().insert(link);
        self
    }

    /// [Partitions](Self::partition) a node from all the others.
    pub fn isolate(&self, node: &Node) -> &Self {
        let others = self.0.machines.borrow().clone();
        for machine in others.into_iter().filter(|other| other.number != node.machine.number) {
            self.partition(node, &Node { core: self.0.clone(), machine });
        }
        self
    }

    /// Ends the partition of two nodes.
    pub fn heal(&self, one: &Node, other: &Node) -> &Self {
        let (one, other) = (one.machine.number, other.machine.number);
        self.0.note(one, Step::Fault, 2, other as u64);
        let mut partitions = self.0.network.partitions.borrow_mut();
        partitions.remove(&(one, other));
        partitions.remove(&(other, one));
        drop(partitions);
        self.0.network.resume(&self.0);
        self
    }

    /// Ends all partitions.
    pub fn heal_all(&self) -> &Self {
        self.0.note(0, Step::Fault, 3, 0);
        self.0.network.partitions.borrow_mut().clear();
        self.0.network.resume(&self.0);
        self
    }

    /// Lets a node refuse new connections (`true`), or no longer.
    pub fn refuse(&self, node: &Node, refuse: bool) -> &Self {
        let number = node.machine.number;
        self.0.note(number, Step::Fault, 4, refuse.into());
        let mut refusing = self.0.network.refusing.borrow_mut();
        if refuse {
            refusing.insert(number);
        } else {
            refusing.remove(&number);
        }
        drop(refusing);
        self
    }

    /// Lets a node have no descriptor left (`true`), or some again: its programs can then neither accept nor make a
    /// connection (`EMFILE`).
    pub fn out_of_descriptors(&self, node: &Node, out: bool) -> &Self {
        self.0.note(node.machine.number, Step::Fault, 9, out.into());
        node.machine.exhausted.set(out);
        self
    }

    /// Cuts the connections that there are between two nodes, as [`cuts`](Self::cuts) does by chance.
    pub fn cut(&self, one: &Node, other: &Node) -> &Self {
        let (one, other) = (one.machine.number, other.machine.number);
        self.0.note(one, Step::Fault, 5, other as u64);
        for connection in self.0.network.connections() {
            if connection.is_between(one, other) {
                connection.cut(&self.0);
            }
        }
        self
    }

    fn set(&self, change: impl FnOnce(&mut Conditions)) -> &Self {
        change(&mut self.0.network.conditions.borrow_mut());
        self
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.network.conditions.borrow().fmt(f)
    }
}

#[derive(Clone, Debug)]
struct Conditions {
    latency: RangeInclusive<Duration>,
    loss: f64,
    duplication: f64,
    cuts: f64,
    window: usize,
    patience: Duration,
}

/// Where on a node something listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Port(u16),
    /// A path, or an abstract name after a zero.
    Unix(Vec<u8>),
}

/// What is bound, by node and place there; several may share one.
type Sockets<S> = RefCell<BTreeMap<(usize, Place), Vec<Rc<S>>>>;

pub(super) struct Network {
    conditions: RefCell<Conditions>,
    latencies: RefCell<BTreeMap<(usize, usize), RangeInclusive<Duration>>>,
    /// From whom to whom nothing passes.
    partitions: RefCell<BTreeSet<(usize, usize)>>,
    refusing: RefCell<BTreeSet<usize>>,
    listeners: Sockets<Listener>,
    datagrams: Datagrams,
    connections: RefCell<BTreeMap<u64, Rc<Connection>>>,
    last_connection: Cell<u64>,
}

impl Network {
    pub(super) fn new() -> Self {
        Self {
            conditions: RefCell::new(Conditions {
                latency: Duration::from_micros(100)..=Duration::from_millis(2),
                loss: 0.0,
                duplication: 0.0,
                cuts: 0.0,
                window: 64 << 10,
                patience: Duration::from_secs(30),
            }),
            latencies: RefCell::default(),
            partitions: RefCell::default(),
            refusing: RefCell::default(),
            listeners: RefCell::default(),
            datagrams: Datagrams::default(),
            connections: RefCell::default(),
            last_connection: Cell::new(0),
        }
    }

    /// How long the next message is on its way.
    fn latency(&self, core: &Core, from: usize, to: usize) -> Duration {
        let range = match self.latencies.borrow().get(&(from, to)) {
            _ if from == to => LOOPBACK,
            Some(range) => range.clone(),
            None => self.conditions.borrow().latency.clone(),
        };
        core.random.duration(range)
    }

    fn patience(&self) -> Duration {
        self.conditions.borrow().patience
    }

    fn new_descriptor(&self, core: &Core, node: usize) -> io::Result<()> {
        if core.machine(node).exhausted.get() { Err(Errno::MFILE.into()) } else { Ok(()) }
    }

    /// Whether a message reaches the machine.
    fn passes(&self, core: &Core, from: usize, to: usize) -> bool {
        core.machine(to).up.get() && !self.partitions.borrow().contains(&(from, to))
    }

    fn connections(&self) -> Vec<Rc<Connection>> {
        self.connections.borrow().values().cloned().collect()
    }

    /// The node and the place there that `node` means by an address.
    fn locate(&self, core: &Core, node: usize, addr: &Addr) -> io::Result<(usize, Place)> {
        match addr {
            Addr::Ip(addr) if is_own(addr) => Ok((node, Place::Port(addr.port()))),
            Addr::Ip(addr) => {
                let machines = core.machines.borrow();
                let machine = machines.iter().find(|machine| addr.ip() == machine.ip);
                let machine = machine.ok_or(Errno::HOSTUNREACH)?;
                Ok((machine.number, Place::Port(addr.port())))
            }
            Addr::Unix(_) => Ok((node, self.own_place(core, node, addr)?)),
        }
    }

    /// A place of the node's own, for something to be bound to; port 0 is given a number.
    fn own_place(&self, core: &Core, node: usize, addr: &Addr) -> io::Result<Place> {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::ffi::OsStrExt;
        match addr {
            Addr::Ip(addr) => {
                let machine = core.machine(node);
                if !is_own(addr) && addr.ip() != machine.ip {
                    return Err(Errno::ADDRNOTAVAIL.into());
                }
                Ok(Place::Port(if addr.port() == 0 { machine.next_port() } else { addr.port() }))
            }
            Addr::Unix(addr) => match (addr.as_pathname(), addr.as_abstract_name()) {
                (Some(path), _) => Ok(Place::Unix(path.as_os_str().as_bytes().to_vec())),
                (None, Some(name)) => Ok(Place::Unix([&[0], name].concat())),
                (None, None) => {
                    let number = core.machine(node).next_port();
                    Ok(Place::Unix(format!("\0unnamed {number}").into_bytes()))
                }
            },
        }
    }

    /// Tries again what was held back.
    fn resume(&self, core: &Rc<Core>) {
        for connection in self.connections() {
            connection.resume(core);
        }
    }

    /// The machine answers again.
    pub(super) fn came_back(&self, core: &Rc<Core>, _node: usize) {
        self.resume(core);
    }

    /// The machine has lost its power.
    pub(super) fn went_down(&self, _core: &Rc<Core>, node: usize) {
        for connection in self.connections() {
            connection.lose(node);
        }
    }

    /// Closes what a program has left open.
    pub(super) fn close_all(&self, core: &Rc<Core>, process: &Rc<Process>) {
        self.datagrams.forget(process);
        for listener in self.take_listeners(process) {
            listener.close(core);
        }
        for connection in self.connections() {
            connection.close_of(core, process);
        }
    }

    /// Forgets what a program had, without a word to anybody.
    pub(super) fn forget_all(&self, process: &Rc<Process>) {
        self.datagrams.forget(process);
        drop(self.take_listeners(process));
    }

    fn take_listeners(&self, process: &Rc<Process>) -> Vec<Rc<Listener>> {
        let mut taken = Vec::new();
        self.listeners.borrow_mut().retain(|_, listeners| {
            taken.extend(listeners.extract_if(.., |listener| listener.belongs_to(process)));
            !listeners.is_empty()
        });
        taken
    }

    /// At the end of the world.
    pub(super) fn clear(&self) {
        self.listeners.take();
        self.connections.take();
        self.datagrams.clear();
    }
}

/// Whether whoever uses the address means himself.
fn is_own(addr: &SocketAddr) -> bool {
    addr.ip().is_loopback() || addr.ip().is_unspecified()
}

/// The address by which others know `port` of a node that spoke to `to`.
fn source_addr(core: &Core, node: usize, port: u16, to: &SocketAddr) -> Addr {
    let ip = if is_own(to) && !to.ip().is_unspecified() {
        to.ip()
    } else if to.ip().is_unspecified() {
        std::net::Ipv4Addr::LOCALHOST.into()
    } else {
        core.machine(node).ip.into()
    };
    SocketAddr::new(ip, port).into()
}

fn would_block<T>() -> io::Result<T> {
    Err(io::ErrorKind::WouldBlock.into())
}
