//! Factories that are named from other hubs, so that a connection's accepting, its socket and its protocol can be on
//! three hubs, or two.
//!
//! ```text
//!   one hub                another: the socket, TLS           a third, or the first: the protocol
//!   ListeningPort --fd--> adopt --> Relay ------- Up ---------> Transport --> Protocol
//!                                   socket <----- Down --------- Output <------+
//! ```
//! What a hub has to say to another leaves at the end of its turn as one letter, as what it has to say to a socket does. A
//! [`RemoteFactory`] stands for a factory on its hub. [`BoundPort::listen_at`](crate::BoundPort::listen_at) hands
//! connections to such factories in turn, and [`RemoteFactory::relay`] makes protocols that pass everything on to those
//! of such a factory: they hear and say what they would on a socket of their own.
//!
//! Each direction of a connection has a window: so many bytes may be on their way. A peer that does not read is told to
//! the protocol by [`is_full`](crate::Transport::is_full) as always, only later; one whose protocol has paused is held
//! back by the system's buffers once the window is full.

mod home;
mod relay;

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use warren_hub::io::Source;
use warren_hub::{HubHandle, contain, handle, hub_local};

use crate::output::Piece;
use crate::protocol::{Factory, PeerAddr, Protocol, Reason};
use crate::socket::adopt;
use crate::transport::Close;
use home::HomeLink;
use relay::{RelayFactory, RelayLink};

/// Bytes of one direction of a connection that may be on their way between two hubs.
const WINDOW_BYTES: usize = 256 * 1024;

/// From the hub of a socket to the protocol's, about one connection.
enum Up {
    Open {
        peer: PeerAddr,
        host: PeerAddr,
    },
    Data(Vec<u8>),
    /// What has become of so many bytes.
    Prepared(Box<dyn Any + Send>, usize),
    #[cfg(feature = "tls")]
    Secured(Box<crate::tls::TlsInfo>),
    /// The peer will send no more.
    Ended,
    /// So many bytes have gone, or nearly.
    Written(usize),
    Lost(Reason),
}

/// From the hub of a protocol to the socket's, about one connection.
enum Down {
    Data(Vec<Piece>),
    /// So many bytes have been told.
    Read(usize),
    EndWriting,
    Close(Close),
}

/// A factory while it may be making a protocol.
type Shared = Rc<RefCell<Box<dyn Factory>>>;

/// By number, what other hubs name on this one.
#[derive(Default)]
struct Named {
    factories: RefCell<HashMap<u64, Shared>>,
    /// Of sockets here, to protocols elsewhere.
    relays: RefCell<HashMap<u64, Weak<RelayLink>>>,
    /// Of protocols here, to sockets elsewhere.
    homes: RefCell<HashMap<u64, Rc<HomeLink>>>,
}

fn named() -> Rc<Named> {
    hub_local(Named::default)
}

/// A number that no other factory or link of this process has.
fn new_number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Does a part of a protocol's work where its connection's socket is, on another hub than the protocol.
pub trait Preparer {
    /// Makes of bytes that have arrived, any number of them, cut anywhere, what the protocol's
    /// [`prepared_received`](Protocol::prepared_received) is to be given. Must not panic: nothing else would be told.
    fn prepare(&mut self, data: &[u8]) -> Box<dyn Any + Send>;
}

/// A hub's way to another, for many connections.
pub(crate) trait Link {
    /// The end of a turn: what has gathered leaves.
    fn flush(&self);
}

/// Stands for a factory that lives on one hub, on any thread. When the last clone goes, so does the factory;
/// connections live on.
#[derive(Clone)]
pub struct RemoteFactory(Arc<Place>);

struct Place {
    hub: HubHandle,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let number = self.number;
        // A hub that has gone has no factory left.
        let _ = self.hub.post(move || {
            let factory = named().factories.borrow_mut().remove(&number);
            if let Some(factory) = factory {
                let _ = contain("a factory", || factory.borrow_mut().stop_factory());
            }
        });
    }
}

impl RemoteFactory {
    /// Keeps `factory` on the hub of this thread.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn here(mut factory: Box<dyn Factory>) -> Self {
        let number = new_number();
        let _ = contain("a factory", || factory.start_factory());
        named().factories.borrow_mut().insert(number, Rc::new(RefCell::new(factory)));
        Self(Arc::new(Place { hub: handle(), number }))
    }

    /// A factory for the hub of this thread, whose connections have their protocols on the hub of this one. A panic in a
    /// protocol, or the end of its hub, ends its connections.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn relay(&self) -> Box<dyn Factory> {
        Box::new(RelayFactory { link: RelayLink::new(self.clone()), preparer: None })
    }

    /// As [`relay`](Self::relay), where each connection has a preparer that sees its input first. The factory's protocols have
    /// to understand what it makes of it.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn relay_prepared(
        &self,
        preparer: impl Fn() -> Box<dyn Preparer> + 'static,
    ) -> Box<dyn Factory> {
        let preparer = Some(Box::new(preparer) as _);
        Box::new(RelayFactory { link: RelayLink::new(self.clone()), preparer })
    }

    /// Lets the factory's hub serve a connection. One that has ended closes it.
    pub(crate) fn serve(&self, socket: OwnedFd, peer: PeerAddr, host: PeerAddr) {
        let number = self.0.number;
        let _ = self.0.hub.post(move || {
            let Some(protocol) = build_protocol(number, &peer) else { return };
            if let Err(error) = adopt(Source::from_fd(socket), peer, host, protocol) {
                tracing::warn!(%error, "a connection could not be served");
            }
        });
    }
}

impl fmt::Debug for RemoteFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteFactory").field(&self.0.number).finish()
    }
}

/// The protocol of a factory on this hub; `None` when it refuses, panics or has gone.
fn build_protocol(number: u64, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
    let factory = named().factories.borrow().get(&number).cloned()?;
    contain("a factory", || factory.borrow_mut().build_protocol(peer)).ok().flatten()
}

/// Connections with their sockets on this hub and their protocols elsewhere.
///
/// # Panics
/// When no hub runs on this thread.
pub fn relayed() -> usize {
    let named = named();
    let links = named.relays.borrow();
    links.values().filter_map(Weak::upgrade).map(|link| link.connections()).sum()
}
