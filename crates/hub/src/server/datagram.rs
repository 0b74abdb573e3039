//! [`DatagramServer`].

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;

use super::base::{BaseServer, Intake, Job, Spawn};
use crate::net::{ToAddrs, UdpSocket};

/// The longest datagram there is, and one more.
const BUFFER_BYTES: usize = 64 * 1024;

/// A datagram that a [`DatagramServer`] has received.
#[derive(Debug)]
pub struct Datagram {
    /// What it says.
    pub data: Vec<u8>,
    /// Who sent it.
    pub peer: SocketAddr,
    socket: Rc<UdpSocket>,
}

impl Datagram {
    /// Sends an answer from the server's socket.
    ///
    /// # Suspends
    /// While the kernel's buffer is full.
    ///
    /// # Errors
    /// As [`UdpSocket::send_to`].
    pub fn reply(&self, data: &[u8]) -> io::Result<usize> {
        self.socket.send_to(data, self.peer)
    }

    /// The server's socket.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }
}

/// Handles each datagram on a fiber. gevent's `DatagramServer`.
///
/// ```
/// use warren_hub::net::UdpSocket;
/// use warren_hub::server::DatagramServer;
///
/// warren_hub::run(|| -> std::io::Result<()> {
///     let server = DatagramServer::bind("127.0.0.1:0", |datagram| {
///         let _ = datagram.reply(&datagram.data);
///     })?;
///     server.start();
///     let client = UdpSocket::bind("127.0.0.1:0")?;
///     client.send_to(b"hello", server.address().as_ip().unwrap())?;
///     assert_eq!(client.recv(&mut [0; 100])?, 5);
///     Ok(())
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct DatagramServer(BaseServer);

impl DatagramServer {
    /// A server of what comes to `socket`. It receives nothing before it is [started](BaseServer::start).
    ///
    /// # Panics
    /// When the socket cannot tell its address, which no open one fails to.
    pub fn new(socket: UdpSocket, handler: impl Fn(Datagram) + 'static) -> Self {
        let address = match socket.local_addr() {
            Ok(address) => address,
            Err(error) => panic!("a socket has no address: {error}"),
        };
        let buffer = RefCell::new(vec![0; BUFFER_BYTES]);
        let intake = Receives { socket: Rc::new(socket), buffer, handler: Rc::new(handler) };
        Self(BaseServer::new(Rc::new(intake), address.into()))
    }

    /// Binds to the first of the addresses that can be bound.
    ///
    /// # Suspends
    /// When a name has to be looked up.
    ///
    /// # Errors
    /// What the system says for the last address.
    pub fn bind(addrs: impl ToAddrs, handler: impl Fn(Datagram) + 'static) -> io::Result<Self> {
        Ok(Self::new(UdpSocket::bind(addrs)?, handler))
    }

    /// On which fiber datagrams are handled.
    #[must_use]
    pub fn spawn(self, spawn: Spawn) -> Self {
        self.0.set_spawn(spawn);
        self
    }

    /// At most so many datagrams are handled at once; others wait in the socket's buffer, and are lost when it is full.
    #[must_use]
    pub fn limit(self, count: usize) -> Self {
        self.spawn(Spawn::Limited(count))
    }
}

impl Deref for DatagramServer {
    type Target = BaseServer;

    fn deref(&self) -> &BaseServer {
        &self.0
    }
}

impl fmt::Debug for DatagramServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DatagramServer").field(&self.0).finish()
    }
}

struct Receives<H> {
    socket: Rc<UdpSocket>,
    /// Used by the one fiber that receives, which takes it for the wait.
    buffer: RefCell<Vec<u8>>,
    handler: Rc<H>,
}

impl<H: Fn(Datagram) + 'static> Intake for Receives<H> {
    fn next(&self) -> io::Result<Job> {
        let mut buffer = self.buffer.take();
        buffer.resize(BUFFER_BYTES, 0);
        let received = self.socket.recv_from(&mut buffer);
        let datagram = received.map(|(count, peer)| Datagram {
            data: buffer[..count].to_vec(),
            peer,
            socket: self.socket.clone(),
        });
        self.buffer.replace(buffer);
        let datagram = datagram?;
        let handler = self.handler.clone();
        Ok(Box::new(move || handler(datagram)))
    }
}
