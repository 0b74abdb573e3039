//! Sockets of the kernel: made non-blocking and closed on exec, errors as they come.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, SocketAddrAny, SocketFlags};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::{Addr, Bind, Listen, Source};

fn sock_addr(addr: &Addr) -> io::Result<SockAddr> {
    match addr {
        Addr::Ip(addr) => Ok(SockAddr::from(*addr)),
        Addr::Unix(addr) => match addr.as_pathname() {
            Some(path) => SockAddr::unix(path),
            None => {
                use std::os::linux::net::SocketAddrExt;
                let name = addr.as_abstract_name().ok_or(io::ErrorKind::InvalidInput)?;
                let mut path = vec![0];
                path.extend_from_slice(name);
                use std::os::unix::ffi::OsStrExt;
                SockAddr::unix(std::ffi::OsStr::from_bytes(&path))
            }
        },
    }
}

fn domain(addr: &Addr) -> Domain {
    match addr {
        Addr::Ip(addr) => Domain::for_address(*addr),
        Addr::Unix(_) => Domain::UNIX,
    }
}

fn from_any(addr: &SocketAddrAny) -> io::Result<Addr> {
    if let Ok(addr) = SocketAddr::try_from(addr.clone()) {
        return Ok(addr.into());
    }
    if let Ok(unix) = net::SocketAddrUnix::try_from(addr.clone()) {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::ffi::OsStrExt;
        if let Some(name) = unix.abstract_name() {
            return Ok(std::os::unix::net::SocketAddr::from_abstract_name(name)?.into());
        }
        let path = unix.path_bytes().map(std::ffi::OsStr::from_bytes).unwrap_or_default();
        return Ok(std::os::unix::net::SocketAddr::from_pathname(path)?.into());
    }
    Addr::unnamed()
}

pub(crate) fn listen(addr: &Addr, how: Listen) -> io::Result<Source> {
    let socket = Socket::new(domain(addr), Type::STREAM.nonblocking(), None)?;
    if let Addr::Ip(ip) = addr {
        if how.only_v6 && ip.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A restarted server gets its address back at once.
        socket.set_reuse_address(true)?;
        if how.reuse_port {
            socket.set_reuse_port(true)?;
        }
    }
    socket.bind(&sock_addr(addr)?)?;
    socket.listen(how.backlog)?;
    Ok(Source::Kernel(OwnedFd::from(socket)))
}

pub(super) fn pair() -> io::Result<(Source, Source)> {
    let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    Ok((Source::Kernel(OwnedFd::from(one)), Source::Kernel(OwnedFd::from(other))))
}

pub(super) fn connect(to: &Addr, from: Option<&Addr>) -> io::Result<Source> {
    let socket = Socket::new(domain(to), Type::STREAM.nonblocking(), None)?;
    if let Some(from) = from {
        socket.set_reuse_address(true)?;
        socket.bind(&sock_addr(from)?)?;
    }
    match socket.connect(&sock_addr(to)?) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(Source::Kernel(OwnedFd::from(socket)))
}

pub(super) fn datagram(bind: &Addr, how: Bind) -> io::Result<Source> {
    let socket = Socket::new(domain(bind), Type::DGRAM.nonblocking(), None)?;
    if how.only_v6 && bind.as_ip().is_some_and(|addr| addr.is_ipv6()) {
        socket.set_only_v6(true)?;
    }
    if how.only_own_groups {
        match bind.as_ip() {
            Some(SocketAddr::V4(_)) => socket.set_multicast_all_v4(false)?,
            // Since Linux 4.20; before that there is no way.
            Some(SocketAddr::V6(_)) => drop(socket.set_multicast_all_v6(false)),
            None => {}
        }
    }
    if how.reuse_addr {
        socket.set_reuse_address(true)?;
    }
    if how.reuse_port {
        socket.set_reuse_port(true)?;
    }
    let named = match bind {
        Addr::Ip(_) => true,
        Addr::Unix(addr) => !addr.is_unnamed(),
    };
    if named {
        socket.bind(&sock_addr(bind)?)?;
    }
    Ok(Source::Kernel(OwnedFd::from(socket)))
}

pub(super) fn connect_datagram(fd: BorrowedFd<'_>, to: &Addr) -> io::Result<()> {
    SockRef::from(&fd).connect(&sock_addr(to)?)
}

pub(super) fn accept(fd: BorrowedFd<'_>) -> io::Result<(Source, Addr)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (fd, addr) = net::acceptfrom_with(fd, flags)?;
    let addr = match addr {
        Some(addr) => from_any(&addr)?,
        None => Addr::unnamed()?,
    };
    Ok((Source::Kernel(fd), addr))
}

pub(super) fn receive_from(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Addr)> {
    receive_with(fd, buffer, RecvFlags::empty())
}

pub(super) fn peek(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Addr)> {
    receive_with(fd, buffer, RecvFlags::PEEK)
}

fn receive_with(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: RecvFlags,
) -> io::Result<(usize, Addr)> {
    let (count, _, addr) = net::recvfrom(fd, buffer, flags)?;
    let addr = match addr {
        Some(addr) => from_any(&addr)?,
        None => Addr::unnamed()?,
    };
    Ok((count, addr))
}

pub(super) fn send_to(fd: BorrowedFd<'_>, data: &[u8], to: &Addr) -> io::Result<usize> {
    let flags = SendFlags::NOSIGNAL;
    match to {
        Addr::Ip(addr) => Ok(net::sendto(fd, data, flags, addr)?),
        Addr::Unix(_) => Ok(SockRef::from(&fd).send_to(data, &sock_addr(to)?)?),
    }
}

pub(super) fn shutdown(fd: BorrowedFd<'_>, how: Shutdown) -> io::Result<()> {
    let how = match how {
        Shutdown::Read => net::Shutdown::Read,
        Shutdown::Write => net::Shutdown::Write,
        Shutdown::Both => net::Shutdown::Both,
    };
    Ok(net::shutdown(fd, how)?)
}

pub(super) fn local_addr(fd: BorrowedFd<'_>) -> io::Result<Addr> {
    from_any(&net::getsockname(fd)?)
}

pub(super) fn peer_addr(fd: BorrowedFd<'_>) -> io::Result<Addr> {
    match net::getpeername(fd)? {
        Some(addr) => from_any(&addr),
        None => Addr::unnamed(),
    }
}

pub(super) fn random(mut bytes: &mut [u8]) {
    while !bytes.is_empty() {
        match rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => bytes = &mut bytes[count..],
            Err(Errno::INTR) => {}
            // In the kernel since 3.17; nothing sensible goes on without.
            Err(error) => panic!("the system has no random numbers: {error}"),
        }
    }
}
