//! Options of sockets, as `setsockopt` has them.
//!
//! A simulated socket takes every setting and changes nothing by it; it has none to tell.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::socket::Socket;
use super::{TcpListener, TcpStream, UdpSocket, UnixDatagram, UnixStream};

/// How a silent peer is found to be gone, see [`TcpStream::set_keepalive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe, in whole seconds. Linux takes two hours by itself.
    pub idle: Duration,
    /// Time between probes, in whole seconds.
    pub interval: Duration,
    /// Probes without an answer after which the connection is broken.
    pub retries: u32,
}

fn set(socket: &Socket, option: impl FnOnce(SockRef<'_>) -> io::Result<()>) -> io::Result<()> {
    match socket.source().kernel() {
        Some(fd) => option(SockRef::from(&fd)),
        None => Ok(()),
    }
}

fn get<R>(socket: &Socket, option: impl FnOnce(SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
    match socket.source().kernel() {
        Some(fd) => option(SockRef::from(&fd)),
        None => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "a simulated socket has no options"))
        }
    }
}

/// Getters and setters of one option: the names, the type, `socket2`'s calls, and what it is.
macro_rules! option {
    ($what:literal, $set:ident, $get:ident, $value:ty, $sock_set:ident, $sock_get:ident) => {
        #[doc = concat!("Sets ", $what, ".")]
        ///
        /// # Errors
        /// What the system says.
        pub fn $set(&self, value: $value) -> io::Result<()> {
            set(&self.socket, |socket| socket.$sock_set(value))
        }

        #[doc = concat!("Tells ", $what, ".")]
        ///
        /// # Errors
        /// What the system says; `Unsupported` in a simulation.
        pub fn $get(&self) -> io::Result<$value> {
            get(&self.socket, |socket| socket.$sock_get())
        }
    };
}

/// Sizes of the kernel's buffers.
macro_rules! buffers {
    ($socket:ident) => {
        impl $socket {
            option!(
                "the size of the kernel's buffer for what arrives, in bytes. Linux doubles what is set, for its own \
                 needs",
                set_recv_buffer_size,
                recv_buffer_size,
                usize,
                set_recv_buffer_size,
                recv_buffer_size
            );
            option!(
                "the size of the kernel's buffer for what leaves, in bytes. Linux doubles what is set, for its own \
                 needs",
                set_send_buffer_size,
                send_buffer_size,
                usize,
                set_send_buffer_size,
                send_buffer_size
            );
        }
    };
}
buffers!(TcpStream);
buffers!(TcpListener);
buffers!(UdpSocket);
buffers!(UnixStream);
buffers!(UnixDatagram);

impl TcpStream {
    option!(
        "whether small writes are sent at once, or gathered (Nagle's algorithm)",
        set_nodelay,
        nodelay,
        bool,
        set_tcp_nodelay,
        tcp_nodelay
    );
    option!(
        "how long closing waits for what is not sent yet; zero throws it away and resets the connection. `None`: it is \
         sent in the background. The wait is the system's and blocks the thread: only zero is for a hub",
        set_linger,
        linger,
        Option<Duration>,
        set_linger,
        linger
    );
    option!("the hops a packet may make (IPv4)", set_ttl, ttl, u32, set_ttl_v4, ttl_v4);
    option!(
        "how long what was sent may stay without acknowledgement before the connection is broken (TCP_USER_TIMEOUT), \
         in milliseconds; `None` for the system's own",
        set_user_timeout,
        user_timeout,
        Option<Duration>,
        set_tcp_user_timeout,
        tcp_user_timeout
    );

    /// Lets the kernel probe a silent peer; `None` ends that.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_keepalive(&self, keepalive: Option<Keepalive>) -> io::Result<()> {
        set(&self.socket, |socket| match keepalive {
            None => socket.set_keepalive(false),
            Some(Keepalive { idle, interval, retries }) => socket.set_tcp_keepalive(
                &TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(retries),
            ),
        })
    }

    /// How the kernel probes a silent peer, if it does.
    ///
    /// # Errors
    /// What the system says; `Unsupported` in a simulation.
    pub fn keepalive(&self) -> io::Result<Option<Keepalive>> {
        get(&self.socket, |socket| {
            if !socket.keepalive()? {
                return Ok(None);
            }
            Ok(Some(Keepalive {
                idle: socket.tcp_keepalive_time()?,
                interval: socket.tcp_keepalive_interval()?,
                retries: socket.tcp_keepalive_retries()?,
            }))
        })
    }
}

impl TcpListener {
    option!("the hops a packet may make (IPv4)", set_ttl, ttl, u32, set_ttl_v4, ttl_v4);
}

impl UdpSocket {
    option!("the hops a packet may make (IPv4)", set_ttl, ttl, u32, set_ttl_v4, ttl_v4);
    option!(
        "whether datagrams may go to a broadcast address",
        set_broadcast,
        broadcast,
        bool,
        set_broadcast,
        broadcast
    );
    option!(
        "whether what is sent to an IPv4 group comes back to this machine",
        set_multicast_loop_v4,
        multicast_loop_v4,
        bool,
        set_multicast_loop_v4,
        multicast_loop_v4
    );
    option!(
        "whether what is sent to an IPv6 group comes back to this machine",
        set_multicast_loop_v6,
        multicast_loop_v6,
        bool,
        set_multicast_loop_v6,
        multicast_loop_v6
    );
    option!(
        "the hops a datagram to an IPv4 group may make",
        set_multicast_ttl_v4,
        multicast_ttl_v4,
        u32,
        set_multicast_ttl_v4,
        multicast_ttl_v4
    );
    option!(
        "the hops a datagram to an IPv6 group may make",
        set_multicast_hops_v6,
        multicast_hops_v6,
        u32,
        set_multicast_hops_v6,
        multicast_hops_v6
    );
    option!(
        "the number of the interface by which datagrams to IPv6 groups leave; 0 lets the system choose",
        set_multicast_if_v6,
        multicast_if_v6,
        u32,
        set_multicast_if_v6,
        multicast_if_v6
    );

    /// Lets datagrams to IPv4 groups leave by the interface that has this address; the unspecified one lets the
    /// system choose.
    ///
    /// # Errors
    /// What the system says, such as that no interface has it.
    pub fn set_multicast_if_v4(&self, interface: Ipv4Addr) -> io::Result<()> {
        set(&self.socket, |socket| socket.set_multicast_if_v4(&interface))
    }

    /// The address of the interface by which datagrams to IPv4 groups leave.
    ///
    /// # Errors
    /// What the system says; `Unsupported` in a simulation.
    pub fn multicast_if_v4(&self) -> io::Result<Ipv4Addr> {
        get(&self.socket, |socket| socket.multicast_if_v4())
    }

    /// Joins a group on the interface that has the address `interface`; the unspecified one lets the system choose.
    ///
    /// # Errors
    /// What the system says, such as that it is no group's address.
    pub fn join_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        set(&self.socket, |socket| socket.join_multicast_v4(&group, &interface))
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// What the system says, such as that it was not joined.
    pub fn leave_multicast_v4(&self, group: Ipv4Addr, interface: Ipv4Addr) -> io::Result<()> {
        set(&self.socket, |socket| socket.leave_multicast_v4(&group, &interface))
    }

    /// Joins a group on the interface of this number; 0 lets the system choose.
    ///
    /// # Errors
    /// What the system says, such as that it is no group's address.
    pub fn join_multicast_v6(&self, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        set(&self.socket, |socket| socket.join_multicast_v6(&group, interface))
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// What the system says, such as that it was not joined.
    pub fn leave_multicast_v6(&self, group: Ipv6Addr, interface: u32) -> io::Result<()> {
        set(&self.socket, |socket| socket.leave_multicast_v6(&group, interface))
    }
}
