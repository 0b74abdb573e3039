//! Sockets for fibers, shaped like `std::net`'s: the calls that would block park the fiber instead.

mod addr;
mod datagram;
pub mod dns;
mod options;
mod race;
pub(crate) mod socket;
mod split;
pub(crate) mod tasks;
mod tcp;
#[cfg(feature = "tls")]
pub mod tls;
mod udp;
mod unix;
mod unix_datagram;

pub use crate::driver::Addr;
pub use addr::ToAddrs;
pub use options::Keepalive;
pub use race::interleave;
pub use split::{Duplex, ReadHalf, WriteHalf};
pub use tcp::{Incoming, TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixListener, UnixStream};
pub use unix_datagram::UnixDatagram;
