//! A socket or pipe, of the kernel or of a simulation, that never blocks.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
#[cfg(any(feature = "hyper", feature = "tokio"))]
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::SocketAddr as UnixAddr;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};

use super::kernel;

/// Where a socket is.
#[derive(Clone, Debug)]
pub enum Addr {
    /// An address and a port.
    Ip(SocketAddr),
    /// A path, an abstract name, or none.
    Unix(UnixAddr),
}

impl Addr {
    /// The address and port, of a socket that has them.
    pub fn as_ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(addr) => Some(*addr),
            Self::Unix(_) => None,
        }
    }

    /// Without a name, as the peer of most Unix connections.
    pub(crate) fn unnamed() -> io::Result<Self> {
        Ok(Self::Unix(UnixAddr::from_pathname("")?))
    }
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Self {
        Self::Ip(addr)
    }
}

impl From<UnixAddr> for Addr {
    fn from(addr: UnixAddr) -> Self {
        Self::Unix(addr)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Unix(addr) => match addr.as_pathname() {
                Some(path) => write!(f, "unix:{}", path.display()),
                None => f.write_str("unix:"),
            },
        }
    }
}

/// One end of something in a simulated network. Calls never block: they answer `WouldBlock`.
pub(crate) trait Endpoint {
    /// Tells readiness under this key from now on, as edges, what is ready already first; `None` ends it.
    fn watch(&self, key: Option<u64>) -> io::Result<()>;
    fn local_addr(&self) -> io::Result<Addr>;

    fn accept(&self) -> io::Result<(Source, Addr)> {
        Err(Errno::OPNOTSUPP.into())
    }

    fn read(&self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(Errno::NOTCONN.into())
    }

    fn write(&self, _data: &[u8]) -> io::Result<usize> {
        Err(Errno::NOTCONN.into())
    }

    fn receive_from(&self, _buffer: &mut [u8]) -> io::Result<(usize, Addr)> {
        Err(Errno::OPNOTSUPP.into())
    }

    fn send_to(&self, _data: &[u8], _to: &Addr) -> io::Result<usize> {
        Err(Errno::OPNOTSUPP.into())
    }

    /// As `receive_from`, and leaves what it gives where it is. Of a stream, the address is of no use.
    fn peek(&self, _buffer: &mut [u8]) -> io::Result<(usize, Addr)> {
        Err(Errno::NOTCONN.into())
    }

    /// Lets a datagram socket speak with one peer only.
    fn connect(&self, _to: &Addr) -> io::Result<()> {
        Err(Errno::OPNOTSUPP.into())
    }

    /// Joins a group of datagram sockets, or leaves it.
    fn set_member(&self, _group: IpAddr, _joins: bool) -> io::Result<()> {
        Err(Errno::OPNOTSUPP.into())
    }

    fn shutdown(&self, _how: Shutdown) -> io::Result<()> {
        Err(Errno::NOTCONN.into())
    }

    fn peer_addr(&self) -> io::Result<Addr> {
        Err(Errno::NOTCONN.into())
    }

    fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(None)
    }

    /// Lets the peer see a reset when this is dropped.
    fn reset_on_close(&self) {}
}

/// What can be read, written, accepted from, and waited for.
pub(crate) enum Source {
    /// A socket: with calls of their own, which cost a few per cent less than `read` and `write`, and no signal when
    /// the peer is gone.
    Kernel(OwnedFd),
    /// A pipe, a terminal, another device.
    Pipe(OwnedFd),
    Simulated(Box<dyn Endpoint>),
}

impl Source {
    pub(crate) fn accept(&self) -> io::Result<(Source, Addr)> {
        match self {
            Self::Kernel(fd) | Self::Pipe(fd) => kernel::accept(fd.as_fd()),
            Self::Simulated(endpoint) => endpoint.accept(),
        }
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            // As `read`, where `recv` would wait.
            Self::Kernel(_) if buffer.is_empty() => Ok(0),
            Self::Kernel(fd) => Ok(net::recv(fd, buffer, RecvFlags::empty())?.0),
            Self::Pipe(fd) => Ok(rustix::io::read(fd, buffer)?),
            Self::Simulated(endpoint) => endpoint.read(buffer),
        }
    }

    /// As [`read`](Self::read): so many bytes of `buffer`, from its start, are initialised.
    #[cfg(any(feature = "hyper", feature = "tokio"))]
    pub(crate) fn read_uninit(&self, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        match self {
            Self::Kernel(_) if buffer.is_empty() => Ok(0),
            Self::Kernel(fd) => Ok(net::recv(fd, buffer, RecvFlags::empty())?.0.0.len()),
            Self::Pipe(fd) => Ok(rustix::io::read(fd, buffer)?.0.len()),
            Self::Simulated(endpoint) => {
                let mut bytes = vec![0; buffer.len()];
                let count = endpoint.read(&mut bytes)?;
                for (place, byte) in buffer.iter_mut().zip(&bytes[..count]) {
                    place.write(*byte);
                }
                Ok(count)
            }
        }
    }

    pub(crate) fn read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Kernel(fd) | Self::Pipe(fd) => Ok(rustix::io::readv(fd, buffers)?),
            Self::Simulated(endpoint) => {
                // All of them: fewer bytes than there is room for mean that no more are there.
                let mut total = 0;
                for buffer in buffers.iter_mut().filter(|buffer| !buffer.is_empty()) {
                    match endpoint.read(buffer) {
                        Ok(count) => {
                            total += count;
                            if count < buffer.len() {
                                break;
                            }
                        }
                        Err(_) if total > 0 => break,
                        Err(error) => return Err(error),
                    }
                }
                Ok(total)
            }
        }
    }

    pub(crate) fn write(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Kernel(fd) => Ok(net::send(fd, data, SendFlags::NOSIGNAL)?),
            Self::Pipe(fd) => Ok(rustix::io::write(fd, data)?),
            Self::Simulated(endpoint) => endpoint.write(data),
        }
    }

    pub(crate) fn write_vectored(&self, data: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Kernel(fd) | Self::Pipe(fd) => Ok(rustix::io::writev(fd, data)?),
            Self::Simulated(endpoint) => match data.iter().find(|slice| !slice.is_empty()) {
                Some(slice) => endpoint.write(slice),
                None => Ok(0),
            },
        }
    }

    pub(crate) fn receive_from(&self, buffer: &mut [u8]) -> io::Result<(usize, Addr)> {
        match self {
            Self::Kernel(fd) | Self::Pipe(fd) => kernel::receive_from(fd.as_fd(), buffer),
            Self::Simulated(endpoint) => endpoint.receive_from(buffer),
        }
    }

    /// As [`receive_from`](Self::receive_from), and leaves what it gives where it is.
    pub(crate) fn peek(&self, buffer: &mut [u8]) -> io::Result<(usize, Addr)> {
        match self {
            Self::Kernel(fd) | Self::Pipe(fd) => kernel::peek(fd.as_fd(), buffer),
            Self::Simulated(endpoint) => endpoint.peek(buffer),
        }
    }

    pub(crate) fn send_to(&self, data: &[u8], to: &Addr) -> io::Result<usize> {
        match self {
            Self::Kernel(fd) | Self::Pipe(fd) => kernel::send_to(fd.as_fd(), data, to),
            Self::Simulated(endpoint) => endpoint.send_to(data, to),
        }
    }

    /// Lets a datagram socket speak with one peer only.
    pub(crate) fn connect(&self, to: &Addr) -> io::Result<()> {
        match self {
            Self::Kernel(fd) | Self::Pipe(fd) => kernel::connect_datagram(fd.as_fd(), to),
            Self::Simulated(endpoint) => endpoint.connect(to),
        }
    }

    /// In a simulation: joins a group, or leaves it. The kernel has options for that.
    pub(crate) fn set_member(&self, group: IpAddr, joins: bool) -> io::Result<()> {
        match self {
            Self::Kernel(_) | Self::Pipe(_) => Err(Errno::OPNOTSUPP.into()),
            Self::Simulated(endpoint) => endpoint.set_member(group, joins),
        }
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Kernel(fd) | Self::Pipe(fd) => kernel::shutdown(fd.as_fd(), how),
            Self::Simulated(endpoint) => endpoint.shutdown(how),
        }
    }

    pub(crate) fn reset_on_close(&self) {
        match self {
            Self::Kernel(fd) | Self::Pipe(fd) => {
                // On other than TCP it has no effect, or is refused.
                let _ = net::sockopt::set_socket_linger(fd, Some(Duration::ZERO));
            }
            Self::Simulated(endpoint) => endpoint.reset_on_close(),
        }
    }

    pub(crate) fn local_addr(&self) -> io::Result<Addr> {
        match self {
            Self::Kernel(fd) | Self::Pipe(fd) => kernel::local_addr(fd.as_fd()),
            Self::Simulated(endpoint) => endpoint.local_addr(),
        }
    }

    pub(crate) fn peer_addr(&self) -> io::Result<Addr> {
        match self {
            Self::Kernel(fd) | Self::Pipe(fd) => kernel::peer_addr(fd.as_fd()),
            Self::Simulated(endpoint) => endpoint.peer_addr(),
        }
    }

    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Kernel(fd) | Self::Pipe(fd) => {
                Ok(rustix::net::sockopt::socket_error(fd)?.err().map(Into::into))
            }
            Self::Simulated(endpoint) => endpoint.take_error(),
        }
    }

    /// The descriptor; `None` in a simulation.
    pub(crate) fn kernel(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Kernel(fd) | Self::Pipe(fd) => Some(fd.as_fd()),
            Self::Simulated(_) => None,
        }
    }
}

impl AsFd for Source {
    /// # Panics
    /// In a simulation, where sockets have no descriptor.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kernel().expect("a simulated socket has no descriptor")
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(fd) | Self::Pipe(fd) => fd.fmt(f),
            Self::Simulated(_) => f.write_str("simulated"),
        }
    }
}
