//! What sources of datagrams do beyond the others.

use std::io;
use std::net::IpAddr;

use super::source::Source;
use crate::driver::Bind;
use crate::hub;
use crate::io::Addr;

impl Source {
    /// A socket of datagrams that is bound to `bind`: a port of UDP, 0 for a free one, or a Unix path, which must not
    /// exist; an unnamed Unix address binds to nothing. `[::]` is not `0.0.0.0`, and what is sent to groups is heard of
    /// those only that this socket has joined. `shared`: others that say so too may bind to the same address
    /// (`SO_REUSEADDR` and `SO_REUSEPORT`), in other processes as well.
    ///
    /// # Errors
    /// What the system says, such as that the address is in use.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    pub fn datagram(bind: &Addr, shared: bool) -> io::Result<Self> {
        let how =
            Bind { reuse_port: shared, reuse_addr: shared, only_v6: true, only_own_groups: true };
        Ok(Self::of(hub::with(|hub| hub.driver.datagram(bind, how))?))
    }

    /// The next datagram and its sender. What does not fit into `buffer` is lost.
    ///
    /// # Errors
    /// `WouldBlock` when none is there; `ConnectionRefused` when a datagram of ours to the one peer was refused; what
    /// the system says.
    pub fn receive_from(&self, buffer: &mut [u8]) -> io::Result<(usize, Addr)> {
        self.0.receive_from(buffer)
    }

    /// Sends a datagram. Gives the bytes sent, which are all of them.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; what the system says.
    pub fn send_to(&self, data: &[u8], to: &Addr) -> io::Result<usize> {
        self.0.send_to(data, to)
    }

    /// Lets a socket of datagrams speak with one peer only: [`write`](Self::write) sends to it.
    ///
    /// # Errors
    /// What the system says, such as that there is no way to it.
    pub fn set_peer(&self, to: &Addr) -> io::Result<()> {
        self.0.connect(to)
    }

    /// Joins a group of a simulation, or leaves it: then what is sent to it, by any node, comes here too. There is one
    /// network only, so no interface is named; what is sent comes back to the members on the same node.
    ///
    /// # Errors
    /// As the kernel's options, which are for real sockets: `InvalidInput` when it is no group's address, `AddrInUse` when
    /// it was joined already, `AddrNotAvailable` when it was not; `Unsupported` for a real socket.
    pub fn set_simulated_member(&self, group: IpAddr, joins: bool) -> io::Result<()> {
        self.0.set_member(group, joins)
    }
}
