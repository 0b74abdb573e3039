//! Sockets that accept connections, and how these come about.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;

use super::stream::{Connection, StreamEnd};
use super::{Network, Place, source_addr, would_block};
use crate::driver::{Addr, Endpoint, Listen, Source};
use crate::io::Readiness;
use crate::sim::node::Process;
use crate::sim::trace::Step;
use crate::sim::world::Core;

/// How long after an attempt that nobody answers the next one follows; twice as long each time.
const RETRY: Duration = Duration::from_secs(1);

/// What listens.
pub(super) struct Listener {
    process: Rc<Process>,
    place: Place,
    addr: Addr,
    shared: bool,
    backlog_max: usize,
    backlog: RefCell<VecDeque<Rc<Connection>>>,
    key: Cell<Option<u64>>,
}

impl Listener {
    pub(super) fn belongs_to(&self, process: &Rc<Process>) -> bool {
        Rc::ptr_eq(&self.process, process)
    }

    /// Resets those that nobody has accepted.
    pub(super) fn close(&self, core: &Rc<Core>) {
        self.key.set(None);
        for connection in self.backlog.take() {
            connection.abort(core, 1);
        }
    }

    /// Whether it listens on this address of its node.
    fn hears(&self, to: &Addr) -> bool {
        match (&self.addr, to) {
            (Addr::Ip(own), Addr::Ip(to)) => {
                own.ip().is_unspecified() || to.ip().is_unspecified() || own.ip() == to.ip()
            }
            _ => true,
        }
    }
}

/// One handle on a [`Listener`].
struct ListenerEnd {
    core: Rc<Core>,
    listener: Rc<Listener>,
}

impl Network {
    pub(in crate::sim) fn listen(
        &self,
        core: &Rc<Core>,
        process: &Rc<Process>,
        addr: &Addr,
        how: Listen,
    ) -> io::Result<Source> {
        if !process.alive.get() {
            return Err(Errno::NETDOWN.into());
        }
        self.new_descriptor(core, process.node)?;
        let place = self.own_place(core, process.node, addr)?;
        let addr = match (addr, &place) {
            (Addr::Ip(addr), Place::Port(port)) => SocketAddr::new(addr.ip(), *port).into(),
            _ => addr.clone(),
        };
        let listener = Rc::new(Listener {
            process: process.clone(),
            place: place.clone(),
            addr,
            shared: how.reuse_port,
            backlog_max: usize::try_from(how.backlog).unwrap_or(0).max(1),
            backlog: RefCell::default(),
            key: Cell::new(None),
        });
        let mut listeners = self.listeners.borrow_mut();
        let others = listeners.entry((process.node, place)).or_default();
        if others.iter().any(|other| !(other.shared && how.reuse_port)) {
            return Err(Errno::ADDRINUSE.into());
        }
        others.push(listener.clone());
        core.note(process.node, Step::Listen, 0, 0);
        Ok(Source::Simulated(Box::new(ListenerEnd { core: core.clone(), listener })))
    }

    pub(in crate::sim) fn connect(
        &self,
        core: &Rc<Core>,
        process: &Rc<Process>,
        to: &Addr,
        from: Option<&Addr>,
    ) -> io::Result<Source> {
        let node = process.node;
        self.new_descriptor(core, node)?;
        let (target, place) = self.locate(core, node, to)?;
        let own = match (to, from) {
            (Addr::Ip(to), Some(Addr::Ip(from))) => {
                let port =
                    if from.port() == 0 { core.machine(node).next_port() } else { from.port() };
                source_addr(core, node, port, to)
            }
            (Addr::Ip(to), _) => source_addr(core, node, core.machine(node).next_port(), to),
            (Addr::Unix(_), _) => Addr::unnamed()?,
        };
        let id = self.next_connection();
        let connection = Connection::new(id, process, own, target, to.clone());
        // What a dead program asks for is never answered.
        if process.alive.get() {
            core.note(node, Step::Connect, id, target as u64);
            self.connections.borrow_mut().insert(id, connection.clone());
            let (knocking, to) = (connection.clone(), to.clone());
            core.after(self.latency(core, node, target), move |core| {
                knock(core, &knocking, to, place, RETRY);
            });
        }
        Ok(StreamEnd::source(core, connection, 0))
    }
}

impl Network {
    /// Two ends on one node.
    pub(in crate::sim) fn pair(
        &self,
        core: &Rc<Core>,
        process: &Rc<Process>,
    ) -> io::Result<(Source, Source)> {
        if !process.alive.get() {
            return Err(Errno::NETDOWN.into());
        }
        self.new_descriptor(core, process.node)?;
        let id = self.next_connection();
        let connection =
            Connection::new(id, process, Addr::unnamed()?, process.node, Addr::unnamed()?);
        connection.join(process);
        self.connections.borrow_mut().insert(id, connection.clone());
        let other = StreamEnd::source(core, connection.clone(), 1);
        Ok((StreamEnd::source(core, connection, 0), other))
    }

    fn next_connection(&self) -> u64 {
        let id = self.last_connection.get() + 1;
        self.last_connection.set(id);
        id
    }
}

/// The wish for a connection arrives, or gets lost and comes again.
fn knock(core: &Rc<Core>, connection: &Rc<Connection>, to: Addr, place: Place, retry: Duration) {
    let network = &core.network;
    let (from, target) = (connection.node(0), connection.node(1));
    if !connection.is_wanted() {
        return;
    }
    let heard = network.passes(core, from, target) && network.passes(core, target, from);
    if heard {
        let refusing = network.refusing.borrow().contains(&target);
        let listeners = network.listeners.borrow();
        let listeners = listeners.get(&(target, place.clone())).map_or(&[][..], |known| known);
        let listeners: Vec<_> =
            listeners.iter().filter(|one| one.hears(&to) && !refusing).cloned().collect();
        match core.random.choose(&listeners) {
            None => {
                let refused = connection.clone();
                core.after(network.latency(core, target, from), move |core| {
                    refused.fail(core, 0, Errno::CONNREFUSED);
                });
                return;
            }
            Some(listener) if listener.backlog.borrow().len() < listener.backlog_max => {
                connection.enter(&listener.process);
                listener.backlog.borrow_mut().push_back(connection.clone());
                if let Some(key) = listener.key.get() {
                    listener.process.tell(key, Readiness::READABLE);
                }
                connection.answer(core);
                return;
            }
            // Full: as if it had been lost.
            Some(_) => {}
        }
    }
    if RETRY * 2 <= retry && network.patience() < retry {
        connection.fail(core, 0, Errno::TIMEDOUT);
        return;
    }
    let knocking = connection.clone();
    core.after(retry, move |core| knock(core, &knocking, to, place, retry * 2));
}

impl Endpoint for ListenerEnd {
    fn watch(&self, key: Option<u64>) -> io::Result<()> {
        self.listener.key.set(key);
        if let Some(key) = key
            && !self.listener.backlog.borrow().is_empty()
        {
            self.listener.process.tell(key, Readiness::READABLE);
        }
        Ok(())
    }

    fn accept(&self) -> io::Result<(Source, Addr)> {
        if !self.listener.process.alive.get() {
            return would_block();
        }
        let waits = !self.listener.backlog.borrow().is_empty();
        if waits {
            self.core.network.new_descriptor(&self.core, self.listener.process.node)?;
        }
        let Some(connection) = self.listener.backlog.borrow_mut().pop_front() else {
            return would_block();
        };
        self.core.note(self.listener.process.node, Step::Accept, connection.id(), 0);
        let peer = connection.addr(0);
        Ok((StreamEnd::source(&self.core, connection, 1), peer))
    }

    fn local_addr(&self) -> io::Result<Addr> {
        Ok(self.listener.addr.clone())
    }
}

impl Drop for ListenerEnd {
    fn drop(&mut self) {
        let listener = &self.listener;
        let key = (listener.process.node, listener.place.clone());
        let mut listeners = self.core.network.listeners.borrow_mut();
        if let Some(others) = listeners.get_mut(&key) {
            others.retain(|other| !Rc::ptr_eq(other, listener));
            if others.is_empty() {
                listeners.remove(&key);
            }
        }
        drop(listeners);
        if listener.process.alive.get() {
            listener.close(&self.core);
        }
    }
}
