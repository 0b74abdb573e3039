//! [`StreamServer`].

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::rc::Rc;

use super::base::{BaseServer, Intake, Job, Spawn};
use crate::net::{Addr, TcpListener, TcpStream, ToAddrs, UnixListener, UnixStream};

/// What accepts connections.
pub trait Listener {
    /// A connection.
    type Stream: 'static;
    /// Where it comes from.
    type Peer: 'static;

    /// The next connection.
    ///
    /// # Suspends
    /// Until there is one.
    ///
    /// # Errors
    /// What the system says.
    fn accept(&self) -> io::Result<(Self::Stream, Self::Peer)>;

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    fn address(&self) -> io::Result<Addr>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    type Peer = SocketAddr;

    fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept()
    }

    fn address(&self) -> io::Result<Addr> {
        self.local_addr().map(Into::into)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    type Peer = UnixAddr;

    fn accept(&self) -> io::Result<(UnixStream, UnixAddr)> {
        self.accept()
    }

    fn address(&self) -> io::Result<Addr> {
        self.local_addr().map(Into::into)
    }
}

/// Handles each connection on a fiber. gevent's `StreamServer`. See the [module](crate::server).
///
/// The handler owns its connection, which is closed when it drops it; one that keeps it elsewhere keeps it open (gevent's
/// `do_close = False`). A handler that panics or is killed drops it too. How the server is started, asked and stopped is
/// the [`BaseServer`]'s.
#[derive(Clone)]
pub struct StreamServer(BaseServer);

impl StreamServer {
    /// A server that will accept from `listener`. It accepts nothing before it is [started](BaseServer::start).
    ///
    /// # Panics
    /// When the listener cannot tell where it listens, which no open one fails to.
    pub fn new<L: Listener + 'static>(
        listener: L,
        handler: impl Fn(L::Stream, L::Peer) + 'static,
    ) -> Self {
        let address = match listener.address() {
            Ok(address) => address,
            Err(error) => panic!("a listener has no address: {error}"),
        };
        let intake = Accepts { listener, handler: Rc::new(handler) };
        Self(BaseServer::new(Rc::new(intake), address))
    }

    /// Listens on the first of the addresses that can be bound.
    ///
    /// # Suspends
    /// When a name has to be looked up.
    ///
    /// # Errors
    /// What the system says for the last address.
    pub fn bind(
        addrs: impl ToAddrs,
        handler: impl Fn(TcpStream, SocketAddr) + 'static,
    ) -> io::Result<Self> {
        Ok(Self::new(TcpListener::bind(addrs)?, handler))
    }

    /// As [`new`](Self::new), encrypted: each connection makes its handshake on its own fiber before it is handled. One
    /// that does not succeed is noted in the log and closed.
    #[cfg(feature = "tls")]
    pub fn tls<L>(
        listener: L,
        acceptor: crate::net::tls::Acceptor,
        handler: impl Fn(crate::net::tls::TlsStream<L::Stream>, L::Peer) + 'static,
    ) -> Self
    where
        L: Listener + 'static,
        L::Stream: crate::net::Duplex,
    {
        Self::new(listener, move |stream, peer| match acceptor.accept(stream) {
            Ok(stream) => handler(stream, peer),
            Err(error) => tracing::info!(%error, "a client fails the TLS handshake"),
        })
    }

    /// On which fiber connections are handled.
    #[must_use]
    pub fn spawn(self, spawn: Spawn) -> Self {
        self.0.set_spawn(spawn);
        self
    }

    /// At most so many connections are handled at once; others wait until they are accepted.
    #[must_use]
    pub fn limit(self, count: usize) -> Self {
        self.spawn(Spawn::Limited(count))
    }

    /// How many connections are accepted in one go, before other fibers have their turn: 100 if nothing is said. Fewer
    /// where several processes share a listener.
    #[must_use]
    pub fn max_accept(self, count: usize) -> Self {
        self.0.set_max_accept(count);
        self
    }
}

impl Deref for StreamServer {
    type Target = BaseServer;

    fn deref(&self) -> &BaseServer {
        &self.0
    }
}

impl fmt::Debug for StreamServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamServer").field(&self.0).finish()
    }
}

struct Accepts<L, H> {
    listener: L,
    handler: Rc<H>,
}

impl<L: Listener, H: Fn(L::Stream, L::Peer) + 'static> Intake for Accepts<L, H> {
    fn next(&self) -> io::Result<Job> {
        let (stream, peer) = self.listener.accept()?;
        let handler = self.handler.clone();
        Ok(Box::new(move || handler(stream, peer)))
    }
}
