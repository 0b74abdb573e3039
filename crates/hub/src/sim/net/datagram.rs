//! Datagrams: each goes its own way, or does not arrive, or does so twice.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::rc::Rc;

use rustix::io::Errno;

use super::{Network, Place, Sockets, source_addr, would_block};
use crate::driver::{Addr, Endpoint, Source};
use crate::io::Readiness;
use crate::sim::node::Process;
use crate::sim::trace::{Step, digest};
use crate::sim::world::Core;

/// The largest that UDP carries over IPv4.
const BYTES_MAX: usize = 65_507;
/// Datagrams that wait to be received. What comes beyond is lost.
const QUEUE_MAX: usize = 256;

/// The datagram sockets of the world, by node and place.
#[derive(Default)]
pub(super) struct Datagrams(Sockets<DatagramSocket>);

impl Datagrams {
    pub(super) fn forget(&self, process: &Rc<Process>) {
        self.0.borrow_mut().retain(|_, sockets| {
            sockets.retain(|socket| !Rc::ptr_eq(&socket.process, process));
            !sockets.is_empty()
        });
    }

    pub(super) fn clear(&self) {
        self.0.take();
    }

    /// The socket at a place; one of those that share it.
    fn pick(&self, core: &Core, at: &(usize, Place)) -> Option<Rc<DatagramSocket>> {
        let sockets = self.0.borrow();
        match sockets.get(at).map_or(&[][..], |sockets| sockets) {
            [only] => Some(only.clone()),
            several => core.random.choose(several).cloned(),
        }
    }

    /// The nodes on which somebody at `port` has joined `group`.
    fn nodes_of(&self, group: IpAddr, port: u16) -> BTreeSet<usize> {
        let sockets = self.0.borrow();
        let at_port = sockets.iter().filter(|((_, place), _)| *place == Place::Port(port));
        let joined = at_port.filter(|(_, sockets)| sockets.iter().any(|one| one.is_in(group)));
        joined.map(|((node, _), _)| *node).collect()
    }

    /// All at a place who have joined `group`.
    fn members(&self, at: &(usize, Place), group: IpAddr) -> Vec<Rc<DatagramSocket>> {
        let sockets = self.0.borrow();
        let there = sockets.get(at).map_or(&[][..], |sockets| sockets);
        there.iter().filter(|socket| socket.is_in(group)).cloned().collect()
    }
}

struct DatagramSocket {
    process: Rc<Process>,
    place: Place,
    addr: Addr,
    shared: bool,
    key: Cell<Option<u64>>,
    peer: RefCell<Option<Addr>>,
    received: RefCell<VecDeque<(Vec<u8>, Addr)>>,
    error: Cell<Option<Errno>>,
    deaf: Cell<bool>,
    groups: RefCell<BTreeSet<IpAddr>>,
}

struct DatagramEnd {
    core: Rc<Core>,
    socket: Rc<DatagramSocket>,
}

impl Network {
    pub(in crate::sim) fn datagram(
        &self,
        core: &Rc<Core>,
        process: &Rc<Process>,
        bind: &Addr,
        shared: bool,
    ) -> io::Result<Source> {
        if !process.alive.get() {
            return Err(Errno::NETDOWN.into());
        }
        self.new_descriptor(core, process.node)?;
        let place = self.own_place(core, process.node, bind)?;
        let addr = match (bind, &place) {
            (Addr::Ip(addr), Place::Port(port)) => SocketAddr::new(addr.ip(), *port).into(),
            _ => bind.clone(),
        };
        let socket = Rc::new(DatagramSocket {
            process: process.clone(),
            place: place.clone(),
            addr,
            shared,
            key: Cell::new(None),
            peer: RefCell::default(),
            received: RefCell::default(),
            error: Cell::new(None),
            deaf: Cell::new(false),
            groups: RefCell::default(),
        });
        let mut sockets = self.datagrams.0.borrow_mut();
        let others = sockets.entry((process.node, place)).or_default();
        if others.iter().any(|other| !(other.shared && shared)) {
            return Err(Errno::ADDRINUSE.into());
        }
        others.push(socket.clone());
        Ok(Source::Simulated(Box::new(DatagramEnd { core: core.clone(), socket })))
    }

    /// How often a datagram that is sent now arrives.
    fn copies(&self, core: &Core, from: usize, to: usize) -> usize {
        let (loss, duplication) = {
            let conditions = self.conditions.borrow();
            (conditions.loss, conditions.duplication)
        };
        match () {
            () if from == to => 1,
            () if core.random.chance(loss) => 0,
            () if core.random.chance(duplication) => 2,
            () => 1,
        }
    }

    fn deliver(&self, core: &Rc<Core>, from: usize, to: (usize, Place), data: &[u8], sender: Addr) {
        if !self.passes(core, from, to.0) {
            return;
        }
        let Some(socket) = self.datagrams.pick(core, &to) else {
            // The other machine says that nobody is there, to those who speak with it alone.
            let Some(place) = sender.as_ip().map(|addr| (from, Place::Port(addr.port()))) else {
                return;
            };
            core.after(self.latency(core, to.0, from), move |core| {
                let socket = core.network.datagrams.pick(core, &place);
                if let Some(socket) = socket.filter(|socket| socket.peer.borrow().is_some()) {
                    socket.error.set(Some(Errno::CONNREFUSED));
                    socket.tell(Readiness::READABLE | Readiness::ERROR);
                }
            });
            return;
        };
        socket.receive(core, data, &sender);
    }

    /// As [`deliver`](Self::deliver), to all who have joined `group` by now.
    fn deliver_to_group(
        &self,
        core: &Core,
        from: usize,
        to: (usize, Place),
        group: IpAddr,
        data: &[u8],
        sender: &Addr,
    ) {
        if self.passes(core, from, to.0) {
            for socket in self.datagrams.members(&to, group) {
                socket.receive(core, data, sender);
            }
        }
    }
}

impl DatagramSocket {
    fn is_in(&self, group: IpAddr) -> bool {
        self.groups.borrow().contains(&group)
    }

    fn receive(&self, core: &Core, data: &[u8], sender: &Addr) {
        let wanted = match &*self.peer.borrow() {
            Some(peer) => peer.to_string() == sender.to_string(),
            None => true,
        };
        let mut received = self.received.borrow_mut();
        if wanted && received.len() < QUEUE_MAX {
            core.note(self.process.node, Step::Receive, digest(data), 0);
            received.push_back((data.to_vec(), sender.clone()));
            self.tell(Readiness::READABLE);
        }
    }

    fn tell(&self, ready: Readiness) {
        if let Some(key) = self.key.get() {
            self.process.tell(key, ready);
        }
    }

    fn check(&self) -> io::Result<()> {
        if !self.process.alive.get() {
            return would_block();
        }
        self.error.take().map_or(Ok(()), |error| Err(error.into()))
    }
}

impl Endpoint for DatagramEnd {
    fn watch(&self, key: Option<u64>) -> io::Result<()> {
        self.socket.key.set(key);
        let mut ready = Readiness::WRITABLE;
        ready.set(Readiness::READABLE, !self.socket.received.borrow().is_empty());
        self.socket.tell(ready);
        Ok(())
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive_from(buffer).map(|(count, _)| count)
    }

    fn write(&self, data: &[u8]) -> io::Result<usize> {
        let peer = self.peer_addr().map_err(|_| Errno::DESTADDRREQ)?;
        self.send_to(data, &peer)
    }

    fn receive_from(&self, buffer: &mut [u8]) -> io::Result<(usize, Addr)> {
        let received = self.peek(buffer)?;
        self.socket.received.borrow_mut().pop_front();
        Ok(received)
    }

    fn peek(&self, buffer: &mut [u8]) -> io::Result<(usize, Addr)> {
        self.socket.check()?;
        let received = self.socket.received.borrow();
        let Some((data, from)) = received.front() else {
            return if self.socket.deaf.get() {
                Ok((0, self.socket.addr.clone()))
            } else {
                would_block()
            };
        };
        // What does not fit is cut off.
        let count = data.len().min(buffer.len());
        buffer[..count].copy_from_slice(&data[..count]);
        Ok((count, from.clone()))
    }

    fn send_to(&self, data: &[u8], to: &Addr) -> io::Result<usize> {
        self.socket.check()?;
        if data.len() > BYTES_MAX {
            return Err(Errno::MSGSIZE.into());
        }
        let (core, network, node) = (&self.core, &self.core.network, self.socket.process.node);
        let group = to.as_ip().filter(|to| to.ip().is_multicast());
        let targets = match group {
            Some(to) => {
                let nodes = network.datagrams.nodes_of(to.ip(), to.port());
                nodes.into_iter().map(|node| (node, Place::Port(to.port()))).collect()
            }
            None => vec![network.locate(core, node, to)?],
        };
        let sender = match (to, &self.socket.place) {
            (Addr::Ip(to), Place::Port(port)) => source_addr(core, node, *port, to),
            _ => self.socket.addr.clone(),
        };
        for target in targets {
            core.note(node, Step::Send, digest(data), target.0 as u64);
            for _ in 0..network.copies(core, node, target.0) {
                let (data, target, sender) = (data.to_vec(), target.clone(), sender.clone());
                core.after(network.latency(core, node, target.0), move |core| match group {
                    None => core.network.deliver(core, node, target, &data, sender),
                    Some(group) => {
                        let group = group.ip();
                        core.network.deliver_to_group(core, node, target, group, &data, &sender);
                    }
                });
            }
        }
        Ok(data.len())
    }

    fn set_member(&self, group: IpAddr, joins: bool) -> io::Result<()> {
        let mut groups = self.socket.groups.borrow_mut();
        match joins {
            _ if !group.is_multicast() => Err(Errno::INVAL.into()),
            true if !groups.insert(group) => Err(Errno::ADDRINUSE.into()),
            false if !groups.remove(&group) => Err(Errno::ADDRNOTAVAIL.into()),
            _ => Ok(()),
        }
    }

    fn connect(&self, to: &Addr) -> io::Result<()> {
        self.core.network.locate(&self.core, self.socket.process.node, to)?;
        *self.socket.peer.borrow_mut() = Some(to.clone());
        Ok(())
    }

    fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        if how != Shutdown::Write {
            self.socket.deaf.set(true);
            self.socket.tell(Readiness::READABLE | Readiness::CLOSED);
        }
        Ok(())
    }

    fn local_addr(&self) -> io::Result<Addr> {
        Ok(self.socket.addr.clone())
    }

    fn peer_addr(&self) -> io::Result<Addr> {
        self.socket.peer.borrow().clone().ok_or_else(|| Errno::NOTCONN.into())
    }

    fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.socket.error.take().map(Into::into))
    }
}

impl Drop for DatagramEnd {
    fn drop(&mut self) {
        let key = (self.socket.process.node, self.socket.place.clone());
        let mut sockets = self.core.network.datagrams.0.borrow_mut();
        if let Some(others) = sockets.get_mut(&key) {
            others.retain(|other| !Rc::ptr_eq(other, &self.socket));
            if others.is_empty() {
                sockets.remove(&key);
            }
        }
    }
}
