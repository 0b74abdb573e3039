//! The side of the socket.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::{Rc, Weak};

use warren_hub::{HubHandle, handle};

use super::{Down, Link, Preparer, RemoteFactory, Up, WINDOW_BYTES, home, named, new_number};
use crate::output::{Piece, pooled};
use crate::protocol::{Factory, PeerAddr, Protocol, Reason};
use crate::socket::reactor;
use crate::transport::{Close, Transport};

/// From the sockets that one relaying factory serves to their protocols.
pub(super) struct RelayLink {
    number: u64,
    home: RemoteFactory,
    /// The hub of the sockets: it may be ending when the link does.
    outpost: HubHandle,
    letters: RefCell<Vec<(u64, Up)>>,
    connections: RefCell<HashMap<u64, Rc<Relayed>>>,
    /// Connections with output that may have gone by the end of this turn.
    fed: RefCell<Vec<Rc<Relayed>>>,
    last: Cell<u64>,
}

/// A connection, as its link knows it.
struct Relayed {
    number: u64,
    transport: Transport,
    /// Input that its protocol has not been told yet.
    unread: Cell<usize>,
    /// Reading is paused until it has.
    paused: Cell<bool>,
    /// Output whose window has not been given back.
    unwritten: Cell<usize>,
    /// The peer reads slowly.
    full: Cell<bool>,
}

impl RelayLink {
    pub(super) fn new(home: RemoteFactory) -> Rc<Self> {
        let link = Rc::new(Self {
            number: new_number(),
            home,
            outpost: handle(),
            letters: RefCell::default(),
            connections: RefCell::default(),
            fed: RefCell::default(),
            last: Cell::new(0),
        });
        let named = named();
        let mut relays = named.relays.borrow_mut();
        relays.retain(|_, link| link.strong_count() != 0);
        relays.insert(link.number, Rc::downgrade(&link));
        reactor().add_link(Rc::downgrade(&link) as _);
        link
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.borrow().len()
    }

    fn say(&self, connection: u64, letter: Up) {
        self.letters.borrow_mut().push((connection, letter));
    }

    fn hear(&self, connection: u64, letter: Down) {
        // It may have been lost meanwhile.
        let Some(relayed) = self.connections.borrow().get(&connection).cloned() else { return };
        let transport = &relayed.transport;
        match letter {
            Down::Data(pieces) => {
                let mut bytes = 0;
                for piece in pieces {
                    bytes += piece.bytes().len();
                    match piece {
                        Piece::Owned(bytes) => transport.write_owned(bytes),
                        Piece::Shared(bytes) => transport.write_bytes(bytes),
                    }
                }
                relayed.unwritten.set(relayed.unwritten.get() + bytes);
                self.fed.borrow_mut().push(relayed);
            }
            Down::Read(count) => {
                relayed.unread.set(relayed.unread.get().saturating_sub(count));
                if relayed.unread.get() < WINDOW_BYTES / 2 && relayed.paused.replace(false) {
                    transport.resume_reading();
                }
            }
            Down::EndWriting => transport.lose_write_connection(),
            Down::Close(Close::Gracefully | Close::AtOnce) => transport.lose_connection(),
            Down::Close(Close::Reset) => transport.abort_connection(),
        }
    }
}

/// What has come for the sockets of a link of this hub.
pub(super) fn receive(link: u64, letters: Vec<(u64, Down)>) {
    let link = named().relays.borrow().get(&link).and_then(Weak::upgrade);
    let Some(link) = link else { return };
    for (connection, letter) in letters {
        link.hear(connection, letter);
    }
}

impl Link for RelayLink {
    fn flush(&self) {
        for relayed in self.fed.borrow_mut().drain(..) {
            // What is left waits for the peer to read, and is no more than the transport's high-water mark.
            if !relayed.full.get() && relayed.unwritten.get() != 0 {
                self.say(relayed.number, Up::Written(relayed.unwritten.take()));
            }
        }
        if !self.letters.borrow().is_empty() && !self.send() {
            // Nobody is left to speak with these clients.
            for relayed in self.connections.borrow().values() {
                relayed.transport.abort_connection();
            }
        }
    }
}

impl RelayLink {
    /// Lets what has gathered go. False when the protocols' hub has ended.
    fn send(&self) -> bool {
        let letters = self.letters.take();
        let (link, factory, outpost) = (self.number, self.home.0.number, self.outpost.clone());
        let receive = move || home::receive(link, factory, outpost, letters);
        self.home.0.hub.post(receive).is_ok()
    }
}

impl Drop for RelayLink {
    fn drop(&mut self) {
        self.send();
        let link = self.number;
        let _ = self.home.0.hub.post(move || drop(named().homes.borrow_mut().remove(&link)));
    }
}

pub(super) struct RelayFactory {
    pub(super) link: Rc<RelayLink>,
    pub(super) preparer: Option<Box<dyn Fn() -> Box<dyn Preparer>>>,
}

impl Factory for RelayFactory {
    fn build_protocol(&mut self, _peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        let preparer = self.preparer.as_ref().map(|make| make());
        Some(Box::new(Relay { link: self.link.clone(), preparer, relayed: None }))
    }
}

/// Passes on what its transport tells.
struct Relay {
    link: Rc<RelayLink>,
    preparer: Option<Box<dyn Preparer>>,
    relayed: Option<Rc<Relayed>>,
}

impl Relay {
    fn say(&self, letter: Up) {
        if let Some(relayed) = &self.relayed {
            self.link.say(relayed.number, letter);
        }
    }
}

impl Protocol for Relay {
    fn connection_made(&mut self, transport: &Transport) {
        self.link.last.set(self.link.last.get() + 1);
        let number = self.link.last.get();
        let relayed = Rc::new(Relayed {
            number,
            transport: transport.clone(),
            unread: Cell::new(0),
            paused: Cell::new(false),
            unwritten: Cell::new(0),
            full: Cell::new(false),
        });
        self.link.connections.borrow_mut().insert(number, relayed.clone());
        self.relayed = Some(relayed);
        self.say(Up::Open { peer: transport.peer().clone(), host: transport.host().clone() });
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        let Some(relayed) = &self.relayed else { return };
        relayed.unread.set(relayed.unread.get() + data.len());
        if WINDOW_BYTES <= relayed.unread.get() {
            relayed.paused.set(true);
            transport.pause_reading();
        }
        let letter = match &mut self.preparer {
            Some(preparer) => Up::Prepared(preparer.prepare(data), data.len()),
            None => {
                let mut bytes = pooled();
                bytes.extend_from_slice(data);
                Up::Data(bytes)
            }
        };
        self.say(letter);
    }

    #[cfg(feature = "tls")]
    fn handshake_completed(&mut self, transport: &Transport) {
        if let Some(info) = transport.tls_info() {
            self.say(Up::Secured(Box::new(info)));
        }
    }

    fn read_connection_lost(&mut self, _transport: &Transport) {
        self.say(Up::Ended);
    }

    fn pause_producing(&mut self, _transport: &Transport) {
        if let Some(relayed) = &self.relayed {
            relayed.full.set(true);
        }
    }

    fn resume_producing(&mut self, _transport: &Transport) {
        if let Some(relayed) = &self.relayed {
            relayed.full.set(false);
            self.link.fed.borrow_mut().push(relayed.clone());
        }
    }

    fn connection_lost(&mut self, reason: &Reason) {
        let Some(relayed) = self.relayed.take() else { return };
        self.link.connections.borrow_mut().remove(&relayed.number);
        self.link.say(relayed.number, Up::Lost(copy(reason)));
    }
}

/// The same reason, for another.
fn copy(reason: &Reason) -> Reason {
    match reason {
        Reason::Done => Reason::Done,
        Reason::Closed => Reason::Closed,
        Reason::Aborted => Reason::Aborted,
        Reason::Error(error) => Reason::Error(match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => io::Error::new(error.kind(), error.to_string()),
        }),
        Reason::Panicked(text) => Reason::Panicked(text.clone()),
    }
}
