//! Sockets for fibers, shaped like `std::net`'s: the calls that would block park the fiber instead.

mod addr;
mod socket;
mod tcp;
mod unix;

pub use addr::ToAddrs;
pub use tcp::{Incoming, TcpListener, TcpStream};
pub use unix::{UnixListener, UnixStream};
