//! The side of the protocol: transports whose medium is a socket of another hub.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::{Rc, Weak};

use warren_hub::{HubHandle, call_soon};

use super::{Down, Link, Up, WINDOW_BYTES, build_protocol, named, relay};
use crate::output::{Output, recycle};
use crate::protocol::{PeerAddr, Reason};
use crate::socket::{Reactor, reactor};
use crate::transport::{Close, Medium, Transport};

/// From protocols of this hub to the sockets that one relaying factory serves.
pub(super) struct HomeLink {
    number: u64,
    outpost: HubHandle,
    letters: RefCell<Vec<(u64, Down)>>,
    sockets: RefCell<HashMap<u64, Rc<Far>>>,
    /// Connections with input that may have been told by the end of this turn.
    fed: RefCell<Vec<Rc<Far>>>,
}

/// A socket of another hub. Its link owns it until it is closed, and it owns its transport.
struct Far {
    number: u64,
    link: Weak<HomeLink>,
    reactor: Rc<Reactor>,
    transport: OnceCell<Transport>,
    /// Output on its way.
    unwritten: Cell<usize>,
    /// Input whose window has not been given back.
    unread: Cell<usize>,
    /// What is not wanted yet of the input, and after it its end.
    waiting: RefCell<VecDeque<Input>>,
    #[cfg(feature = "tls")]
    tls: RefCell<Option<Box<crate::tls::TlsInfo>>>,
}

enum Input {
    Data(Vec<u8>),
    Prepared(Box<dyn Any + Send>, usize),
    End,
}

impl Input {
    fn bytes(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Prepared(_, bytes) => *bytes,
            Self::End => 0,
        }
    }
}

impl Far {
    fn take_in(&self, input: Input) {
        self.unread.set(self.unread.get() + input.bytes());
        self.waiting.borrow_mut().push_back(input);
        self.tell();
    }

    /// Tells what waits, as far as it is wanted. Whether that was anything.
    fn tell(&self) -> bool {
        let Some(transport) = self.transport.get() else { return false };
        let mut told = false;
        while transport.wants_data() && transport.held_bytes() == 0 {
            let next = self.waiting.borrow_mut().pop_front();
            told |= next.is_some();
            match next {
                Some(Input::Data(mut data)) => {
                    transport.received(&mut data);
                    recycle(data);
                }
                Some(Input::Prepared(input, bytes)) => {
                    if let Some(rest) = transport.received_prepared(input) {
                        let rest = Input::Prepared(rest, bytes);
                        self.waiting.borrow_mut().push_front(rest);
                        break;
                    }
                }
                Some(Input::End) => transport.input_ended(),
                None => break,
            }
        }
        told
    }

    /// Bytes that have come and not been told.
    fn held_bytes(&self) -> usize {
        let waiting: usize = self.waiting.borrow().iter().map(Input::bytes).sum();
        waiting + self.transport.get().map_or(0, Transport::held_bytes)
    }
}

/// What has come from the sockets of a link, for protocols of this hub.
pub(super) fn receive(number: u64, factory: u64, outpost: HubHandle, letters: Vec<(u64, Up)>) {
    let known = named().homes.borrow().get(&number).cloned();
    let link = known.unwrap_or_else(|| HomeLink::new(number, outpost));
    for (connection, letter) in letters {
        link.hear(connection, factory, letter);
    }
}

impl HomeLink {
    fn new(number: u64, outpost: HubHandle) -> Rc<Self> {
        let link = Rc::new(Self {
            number,
            outpost,
            letters: RefCell::default(),
            sockets: RefCell::default(),
            fed: RefCell::default(),
        });
        named().homes.borrow_mut().insert(number, link.clone());
        reactor().add_link(Rc::downgrade(&link) as _);
        link
    }

    fn say(&self, connection: u64, letter: Down) {
        self.letters.borrow_mut().push((connection, letter));
    }

    fn hear(self: &Rc<Self>, connection: u64, factory: u64, letter: Up) {
        if let Up::Open { peer, host } = letter {
            return self.open(connection, factory, peer, host);
        }
        // It may have been closed meanwhile.
        let Some(far) = self.sockets.borrow().get(&connection).cloned() else { return };
        let Some(transport) = far.transport.get() else { return };
        match letter {
            Up::Open { .. } => {}
            Up::Data(data) => {
                far.take_in(Input::Data(data));
                self.fed.borrow_mut().push(far);
            }
            Up::Prepared(input, bytes) => {
                far.take_in(Input::Prepared(input, bytes));
                self.fed.borrow_mut().push(far);
            }
            #[cfg(feature = "tls")]
            Up::Secured(info) => {
                *far.tls.borrow_mut() = Some(info);
                transport.secured();
            }
            Up::Ended => far.take_in(Input::End),
            Up::Written(count) => {
                far.unwritten.set(far.unwritten.get().saturating_sub(count));
                if 0 < transport.buffered() {
                    transport.settle_later();
                }
            }
            Up::Lost(reason) => {
                self.sockets.borrow_mut().remove(&connection);
                transport.lost(reason);
            }
        }
    }

    fn open(self: &Rc<Self>, number: u64, factory: u64, peer: PeerAddr, host: PeerAddr) {
        let Some(protocol) = build_protocol(factory, &peer) else {
            return self.say(number, Down::Close(Close::AtOnce));
        };
        let far = Rc::new(Far {
            number,
            link: Rc::downgrade(self),
            reactor: reactor(),
            transport: OnceCell::new(),
            unwritten: Cell::new(0),
            unread: Cell::new(0),
            waiting: RefCell::default(),
            #[cfg(feature = "tls")]
            tls: RefCell::default(),
        });
        let medium = Box::new(FarMedium(Rc::downgrade(&far)));
        let transport = Transport::new(peer, host, protocol, medium);
        let _ = far.transport.set(transport.clone());
        self.sockets.borrow_mut().insert(number, far);
        transport.made();
    }

    /// Gives back the window of what has been told.
    fn settle_reading(&self) {
        if self.fed.borrow().is_empty() {
            return;
        }
        for far in self.fed.take() {
            if far.tell() {
                // What that asks for is done at the end of another turn.
                call_soon(|| {});
            }
            let held = far.held_bytes();
            let told = far.unread.replace(held).saturating_sub(held);
            if told != 0 {
                self.say(far.number, Down::Read(told));
            }
            let reads = far.transport.get().is_some_and(Transport::wants_data);
            if reads && held != 0 {
                // Its turn comes at the end of the next one.
                self.fed.borrow_mut().push(far);
                call_soon(|| {});
            }
        }
    }
}

impl Link for HomeLink {
    fn flush(&self) {
        self.settle_reading();
        let letters = self.letters.take();
        if letters.is_empty() {
            return;
        }
        let link = self.number;
        if self.outpost.post(move || relay::receive(link, letters)).is_err() {
            let gone = self.sockets.take();
            call_soon(move || {
                for far in gone.into_values() {
                    if let Some(transport) = far.transport.get() {
                        let error = io::Error::other("the hub of the socket has ended");
                        transport.lost(Reason::Error(error));
                    }
                }
            });
        }
    }
}

struct FarMedium(Weak<Far>);

impl FarMedium {
    fn say(&self, letter: Down) {
        if let Some(far) = self.0.upgrade()
            && let Some(link) = far.link.upgrade()
        {
            link.say(far.number, letter);
        }
    }
}

impl Medium for FarMedium {
    fn schedule(&self, transport: &Transport) {
        if let Some(far) = self.0.upgrade() {
            far.reactor.schedule(transport);
        }
    }

    fn write(&self, output: &mut Output) -> io::Result<()> {
        let Some(far) = self.0.upgrade() else { return Ok(()) };
        let room = WINDOW_BYTES.saturating_sub(far.unwritten.get());
        if room != 0 && !output.is_empty() {
            let before = output.len();
            let pieces = output.take_pieces(room);
            far.unwritten.set(far.unwritten.get() + before - output.len());
            self.say(Down::Data(pieces));
        }
        Ok(())
    }

    fn end_writing(&self) -> io::Result<()> {
        self.say(Down::EndWriting);
        Ok(())
    }

    fn resume_reading(&self) {
        if let Some(far) = self.0.upgrade()
            && let Some(link) = far.link.upgrade()
        {
            link.fed.borrow_mut().push(far);
        }
    }

    fn close(&self, how: Close) {
        self.say(Down::Close(how));
        if let Some(far) = self.0.upgrade()
            && let Some(link) = far.link.upgrade()
        {
            link.sockets.borrow_mut().remove(&far.number);
        }
    }

    #[cfg(feature = "tls")]
    fn tls_info(&self) -> Option<crate::tls::TlsInfo> {
        self.0.upgrade()?.tls.borrow().as_deref().cloned()
    }
}
