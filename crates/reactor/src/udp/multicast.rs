//! Multicast: datagrams to groups, which everyone gets who has joined (RFC 1112; RFC 3493 §5.2).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustix::io::Errno;
use rustix::net::sockopt;
use std::os::fd::BorrowedFd;

use super::{UdpPort, listen};
use crate::datagram::{DatagramError, DatagramProtocol, DatagramTransport};

/// How [`listen_multicast`] listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MulticastOptions {
    /// Others that ask for it too may listen on the same port, in other processes as well (`SO_REUSEADDR` and
    /// `SO_REUSEPORT`). All get what is sent to a group; what is sent to the address itself goes to one of them.
    pub listen_multiple: bool,
}

/// An interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// The one that the system chooses by its routes.
    Any,
    /// The one that has this address. IPv4 only.
    Addr(Ipv4Addr),
    /// The one of this number.
    Index(u32),
    /// The one of this name, such as `lo`.
    Name(String),
}

/// As [`listen_udp`](crate::listen_udp), for datagrams to groups, which are joined with
/// [`join_group`](DatagramTransport::join_group). `addr` is mostly the unspecified address: a socket that is bound to one
/// of this machine's own gets nothing that is sent to a group.
///
/// # Errors
/// What the system says, such as that the address is in use.
///
/// # Panics
/// When no hub runs on this thread.
pub fn listen_multicast(
    addr: SocketAddr,
    options: MulticastOptions,
    protocol: Box<dyn DatagramProtocol>,
) -> Result<UdpPort, DatagramError> {
    listen(addr, options.listen_multiple, protocol)
}

/// Groups. A simulation has them too, with one interface only.
impl DatagramTransport<SocketAddr> {
    /// Receives what is sent to `group`, on `interface`.
    ///
    /// # Errors
    /// What the system says, such as that it is no group's address, or that no interface has a route to it; when the
    /// group and the socket are not both of IPv4 or both of IPv6.
    pub fn join_group(&self, group: IpAddr, interface: &Interface) -> Result<(), DatagramError> {
        self.member(&format!("join the group {group}"), group, interface, true)
    }

    /// Receives no more what is sent to `group`. What was joined on one interface is left on the same.
    ///
    /// # Errors
    /// What the system says, such as that it was not joined.
    pub fn leave_group(&self, group: IpAddr, interface: &Interface) -> Result<(), DatagramError> {
        self.member(&format!("leave the group {group}"), group, interface, false)
    }

    fn member(
        &self,
        what: &str,
        group: IpAddr,
        interface: &Interface,
        joins: bool,
    ) -> Result<(), DatagramError> {
        let host = self.host();
        if host.is_ipv4() != group.is_ipv4() {
            return Err(DatagramError::Unreachable {
                host: host.to_string(),
                to: group.to_string(),
            });
        }
        if let Some(joined) = self.set_simulated_member(group, joins) {
            return joined.map_err(|error| DatagramError::system(what, error));
        }
        self.set(what, |socket| match group {
            IpAddr::V4(group) => {
                let (addr, index) = v4(socket, interface)?;
                let change = if joins {
                    sockopt::set_ip_add_membership_with_ifindex
                } else {
                    sockopt::set_ip_drop_membership_with_ifindex
                };
                change(socket, &group, &addr, index)
            }
            IpAddr::V6(group) => {
                let index = index(socket, interface)?;
                let change = if joins {
                    sockopt::set_ipv6_add_membership
                } else {
                    sockopt::set_ipv6_drop_membership
                };
                change(socket, &group, index)
            }
        })
    }

    /// The interface by which datagrams to groups leave.
    ///
    /// # Errors
    /// What the system says, such as that there is none like it.
    pub fn set_outgoing_interface(&self, interface: &Interface) -> Result<(), DatagramError> {
        let is_ipv4 = self.host().is_ipv4();
        self.set("choose the interface by which datagrams to groups leave", |socket| {
            if is_ipv4 {
                let (addr, index) = v4(socket, interface)?;
                let any = Ipv4Addr::UNSPECIFIED;
                sockopt::set_ip_multicast_if_with_ifindex(socket, &any, &addr, index)
            } else {
                sockopt::set_ipv6_multicast_if(socket, index(socket, interface)?)
            }
        })
    }

    /// The interface by which datagrams to groups leave: for IPv4 by its address, for IPv6 by its number.
    ///
    /// # Errors
    /// What the system says; a simulated socket has no options.
    pub fn outgoing_interface(&self) -> Result<Interface, DatagramError> {
        let is_ipv4 = self.host().is_ipv4();
        self.get("tell the interface by which datagrams to groups leave", |socket| {
            Ok(if is_ipv4 {
                match sockopt::ip_multicast_if(socket)? {
                    Ipv4Addr::UNSPECIFIED => Interface::Any,
                    addr => Interface::Addr(addr),
                }
            } else {
                match sockopt::ipv6_multicast_if(socket)? {
                    0 => Interface::Any,
                    index => Interface::Index(index),
                }
            })
        })
    }

    /// The hops a datagram to a group may make: 0 stays on this machine, 1, as at first, in the local network.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_ttl(&self, hops: u8) -> Result<(), DatagramError> {
        let is_ipv4 = self.host().is_ipv4();
        self.set("set the hops of datagrams to groups", |socket| {
            let set = if is_ipv4 {
                sockopt::set_ip_multicast_ttl
            } else {
                sockopt::set_ipv6_multicast_hops
            };
            set(socket, hops.into())
        })
    }

    /// The hops a datagram to a group may make.
    ///
    /// # Errors
    /// What the system says; a simulated socket has no options.
    pub fn ttl(&self) -> Result<u8, DatagramError> {
        let is_ipv4 = self.host().is_ipv4();
        let hops = self.get("tell the hops of datagrams to groups", |socket| {
            if is_ipv4 {
                sockopt::ip_multicast_ttl(socket)
            } else {
                sockopt::ipv6_multicast_hops(socket)
            }
        })?;
        // The system takes no more.
        Ok(u8::try_from(hops).unwrap_or(u8::MAX))
    }

    /// Whether what is sent to a group that this machine has joined comes back to it. So at first.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_loopback_mode(&self, comes_back: bool) -> Result<(), DatagramError> {
        let is_ipv4 = self.host().is_ipv4();
        self.set("set whether datagrams to groups come back", |socket| {
            let set = if is_ipv4 {
                sockopt::set_ip_multicast_loop
            } else {
                sockopt::set_ipv6_multicast_loop
            };
            set(socket, comes_back)
        })
    }

    /// Whether what is sent to a group that this machine has joined comes back to it.
    ///
    /// # Errors
    /// What the system says; a simulated socket has no options.
    pub fn loopback_mode(&self) -> Result<bool, DatagramError> {
        let is_ipv4 = self.host().is_ipv4();
        self.get("tell whether datagrams to groups come back", |socket| {
            if is_ipv4 {
                sockopt::ip_multicast_loop(socket)
            } else {
                sockopt::ipv6_multicast_loop(socket)
            }
        })
    }
}

/// An interface as IPv4 takes it: by address, or by a number that is not 0.
fn v4(socket: BorrowedFd<'_>, interface: &Interface) -> Result<(Ipv4Addr, u32), Errno> {
    match interface {
        Interface::Addr(addr) => Ok((*addr, 0)),
        other => Ok((Ipv4Addr::UNSPECIFIED, index(socket, other)?)),
    }
}

/// The number of an interface; 0 for any.
fn index(socket: BorrowedFd<'_>, interface: &Interface) -> Result<u32, Errno> {
    match interface {
        Interface::Any => Ok(0),
        Interface::Index(index) => Ok(*index),
        Interface::Name(name) => rustix::net::netdevice::name_to_index(socket, name),
        // IPv6 knows interfaces by number only (RFC 3493 §5.2).
        Interface::Addr(_) => Err(Errno::INVAL),
    }
}
