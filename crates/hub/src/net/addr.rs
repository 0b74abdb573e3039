//! Addresses, resolved without blocking the hub.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, ToSocketAddrs};

use crate::{hub, offload};

/// What can be connected or bound to: `std::net::ToSocketAddrs` for a hub. A name is looked up on another thread
/// while this hub goes on; an address costs nothing.
pub trait ToAddrs {
    /// The addresses, at least one.
    ///
    /// # Suspends
    /// When a name has to be looked up.
    ///
    /// # Errors
    /// When the name is unknown, or what is given is no `host:port`.
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>>;
}

impl ToAddrs for SocketAddr {
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![*self])
    }
}

macro_rules! into_address {
    ($($address:ty),*) => {$(
        impl ToAddrs for $address {
            fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
                Ok(vec![SocketAddr::from(*self)])
            }
        }
    )*};
}
into_address!(SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

impl ToAddrs for (&str, u16) {
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = *self;
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        if let Some(addrs) = known(host, port) {
            return found(host, addrs);
        }
        let owned = host.to_owned();
        found(
            host,
            offload(move || (owned.as_str(), port).to_socket_addrs().map(Iterator::collect)),
        )
    }
}

impl ToAddrs for str {
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(addr) = self.parse() {
            return Ok(vec![addr]);
        }
        if let Some((host, port)) = self.rsplit_once(':')
            && let Ok(port) = port.parse()
            && let Some(addrs) = known(host, port)
        {
            return found(self, addrs);
        }
        let owned = self.to_owned();
        found(self, offload(move || owned.to_socket_addrs().map(Iterator::collect)))
    }
}

impl ToAddrs for String {
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.as_str().to_addrs()
    }
}

impl ToAddrs for [SocketAddr] {
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        found("an empty list", Ok(self.to_vec()))
    }
}

impl<T: ToAddrs + ?Sized> ToAddrs for &T {
    fn to_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        (**self).to_addrs()
    }
}

/// What the hub's driver knows of a name; `None`: the system is to be asked.
fn known(host: &str, port: u16) -> Option<io::Result<Vec<SocketAddr>>> {
    let ips = hub::try_with(|hub| hub.driver.resolve(host)).flatten()?;
    Some(ips.map(|ips| ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()))
}

fn found(what: &str, addrs: io::Result<Vec<SocketAddr>>) -> io::Result<Vec<SocketAddr>> {
    match addrs {
        Ok(addrs) if addrs.is_empty() => {
            Err(io::Error::new(io::ErrorKind::NotFound, format!("no address for {what}")))
        }
        Ok(addrs) => Ok(addrs),
        Err(error) => Err(io::Error::new(error.kind(), format!("{what}: {error}"))),
    }
}

/// Tries one address after the other.
pub(super) fn first<T>(
    addrs: impl ToAddrs,
    mut attempt: impl FnMut(SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address");
    for addr in addrs.to_addrs()? {
        match attempt(addr) {
            Ok(done) => return Ok(done),
            Err(error) => last = error,
        }
    }
    Err(last)
}
