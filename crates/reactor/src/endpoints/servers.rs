//! Where to listen.

use std::fmt;
use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::StreamServerEndpoint;
use super::adopt::adopt_stream_port;
use crate::listen::{BACKLOG, ListeningPort, bind_tcp_with, bind_unix_with};
use crate::protocol::{Factory, PeerAddr, Protocol};
use crate::stdio::StandardIo;

/// A TCP port to listen on.
#[derive(Clone, Debug)]
pub struct TcpServerEndpoint {
    addr: SocketAddr,
    backlog: i32,
}

impl TcpServerEndpoint {
    /// The port on all IPv4 addresses of this machine. Port 0 takes a free one.
    pub fn new(port: u16) -> Self {
        Self::at(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
    }

    /// The port of one address; `[::]` is all IPv6 addresses.
    pub fn at(addr: SocketAddr) -> Self {
        Self { addr, backlog: BACKLOG }
    }

    /// On this address only.
    #[must_use]
    pub fn interface(mut self, interface: IpAddr) -> Self {
        self.addr.set_ip(interface);
        self
    }

    /// How many connections may wait to be accepted: 4096 unless set, and not more than the system allows.
    #[must_use]
    pub fn backlog(mut self, connections: i32) -> Self {
        self.backlog = connections;
        self
    }
}

impl StreamServerEndpoint for TcpServerEndpoint {
    fn listen(&self, factory: Box<dyn Factory>) -> io::Result<ListeningPort> {
        let bound = bind_tcp_with(self.addr, self.backlog);
        bound.map_err(|error| named(&format!("listen on {}", self.addr), &error))?.listen(factory)
    }
}

/// An error that says what was to be done.
pub(super) fn named(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

/// Another endpoint, with TLS from the first byte (Twisted's `SSL4ServerEndpoint`).
#[cfg(feature = "tls")]
#[derive(Clone, Debug)]
pub struct SslServerEndpoint<E = TcpServerEndpoint> {
    endpoint: E,
    options: crate::tls::TlsServerOptions,
}

#[cfg(feature = "tls")]
impl<E: StreamServerEndpoint> SslServerEndpoint<E> {
    /// `endpoint` with TLS.
    pub fn new(options: &crate::tls::TlsServerOptions, endpoint: E) -> Self {
        Self { endpoint, options: options.clone() }
    }
}

#[cfg(feature = "tls")]
impl<E: StreamServerEndpoint> StreamServerEndpoint for SslServerEndpoint<E> {
    fn listen(&self, factory: Box<dyn Factory>) -> io::Result<ListeningPort> {
        self.endpoint.listen(Box::new(crate::tls::TlsFactory::new(&self.options, factory)))
    }
}

/// A Unix socket to listen on. One that a dead process has left at the path is replaced, one that answers is not.
#[derive(Clone, Debug)]
pub struct UnixServerEndpoint {
    path: PathBuf,
    backlog: i32,
    mode: Option<u32>,
    lock_file: bool,
}

impl UnixServerEndpoint {
    /// The socket at `path`.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_owned(), backlog: BACKLOG, mode: None, lock_file: false }
    }

    /// How many connections may wait to be accepted: 4096 unless set, and not more than the system allows.
    #[must_use]
    pub fn backlog(mut self, connections: i32) -> Self {
        self.backlog = connections;
        self
    }

    /// Who may connect: the permissions of the socket, such as `0o660`. Unless set, they are what the process' umask
    /// leaves, which is mostly that nobody else may.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Holds a lock on the file at the path with `.lock` appended while it listens, so that of two processes that start at
    /// once one finds the other. The file stays; its lock ends with the process, however that ends.
    #[must_use]
    pub fn lock_file(mut self, lock: bool) -> Self {
        self.lock_file = lock;
        self
    }

    fn lock(&self) -> io::Result<File> {
        let mut path = self.path.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| named(&format!("open {}", path.display()), &error))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                format!("another process listens: it holds the lock on {}", path.display()),
            )),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl StreamServerEndpoint for UnixServerEndpoint {
    fn listen(&self, factory: Box<dyn Factory>) -> io::Result<ListeningPort> {
        let lock = if self.lock_file { Some(self.lock()?) } else { None };
        let name = |error: io::Error| named(&format!("listen on {}", self.path.display()), &error);
        let bound = bind_unix_with(&self.path, self.backlog).map_err(name)?;
        if let Some(mode) = self.mode
            && let Err(error) = std::fs::set_permissions(&self.path, Permissions::from_mode(mode))
        {
            // Whoever tries again must not find it there.
            let _ = std::fs::remove_file(&self.path);
            return Err(name(error));
        }
        match lock {
            None => bound.listen(factory),
            Some(lock) => bound.listen(Box::new(Locking { factory, _lock: lock })),
        }
    }
}

/// Holds a lock as long as its port listens.
struct Locking {
    factory: Box<dyn Factory>,
    _lock: File,
}

impl Factory for Locking {
    fn build_protocol(&mut self, peer: &PeerAddr) -> Option<Box<dyn Protocol>> {
        self.factory.build_protocol(peer)
    }

    fn start_factory(&mut self) {
        self.factory.start_factory();
    }

    fn stop_factory(&mut self) {
        self.factory.stop_factory();
    }
}

/// A socket that listens already and was given to this process (Twisted's `AdoptedStreamServerEndpoint`): by systemd, by
/// the process that was here before.
#[derive(Debug)]
pub struct AdoptedServerEndpoint(OwnedFd);

impl AdoptedServerEndpoint {
    /// The socket `fd`.
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// What this process was given under the number `fd`.
    ///
    /// # Errors
    /// When nothing is open under that number.
    pub fn inherited(fd: i32) -> io::Result<Self> {
        let inherited = warren_hub::io::inherited(fd);
        inherited.map(Self).map_err(|error| named(&format!("use descriptor {fd}"), &error))
    }

    /// The socket at place `index` of those that systemd has given to this process, from 0.
    ///
    /// # Errors
    /// `NotFound` when there is none, with what there is.
    pub fn systemd(index: usize) -> io::Result<Self> {
        let sockets = Systemd::of_process()?;
        match sockets.fd(index) {
            Some(fd) => Self::inherited(fd),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("systemd has given {} sockets, and none of index {index}", sockets.count),
            )),
        }
    }

    /// As [`systemd`](Self::systemd), the first of that name (`FileDescriptorName=` of the socket unit).
    ///
    /// # Errors
    /// As [`systemd`](Self::systemd).
    pub fn systemd_named(name: &str) -> io::Result<Self> {
        let sockets = Systemd::of_process()?;
        let index = sockets.names.iter().position(|other| other == name);
        match index.and_then(|index| sockets.fd(index)) {
            Some(fd) => Self::inherited(fd),
            None => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("systemd has given no socket named {name:?}, but {:?}", sockets.names),
            )),
        }
    }
}

impl AdoptedServerEndpoint {
    /// Whether it is of this family of addresses.
    pub(super) fn is_of(&self, family: rustix::net::AddressFamily) -> io::Result<bool> {
        Ok(rustix::net::sockopt::socket_domain(&self.0)? == family)
    }
}

impl StreamServerEndpoint for AdoptedServerEndpoint {
    fn listen(&self, factory: Box<dyn Factory>) -> io::Result<ListeningPort> {
        adopt_stream_port(self.0.try_clone()?, factory)
    }
}

/// The sockets that systemd has given (sd_listen_fds(3)).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Systemd {
    count: usize,
    names: Vec<String>,
}

/// They begin at this number.
const LISTEN_FDS_START: i32 = 3;

impl Systemd {
    fn of_process() -> io::Result<Self> {
        let var = |name: &str| std::env::var(name).ok();
        Self::from_vars(var, std::process::id())
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>, pid: u32) -> io::Result<Self> {
        let fault = |text: String| Err(io::Error::new(io::ErrorKind::NotFound, text));
        let (Some(for_pid), Some(count)) = (var("LISTEN_PID"), var("LISTEN_FDS")) else {
            return fault(
                "this process was not given sockets by systemd: LISTEN_FDS is not set".into(),
            );
        };
        // Inherited from a parent, they are not ours.
        if for_pid.parse() != Ok(pid) {
            return fault(format!(
                "the sockets of LISTEN_FDS are for process {for_pid}, not for {pid}"
            ));
        }
        let Some(count) = count.parse::<u16>().ok().map(usize::from) else {
            return fault(format!("LISTEN_FDS is no number of sockets: {count:?}"));
        };
        let names = var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').filter(|name| !name.is_empty()).take(count);
        Ok(Self { count, names: names.map(str::to_owned).collect() })
    }

    fn fd(&self, index: usize) -> Option<i32> {
        let offset = i32::try_from(index).ok().filter(|_| index < self.count)?;
        LISTEN_FDS_START.checked_add(offset)
    }
}

/// The standard input and output as the only connection (Twisted's `StandardIOEndpoint`). It begins as soon as it is
/// listened on.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandardIoEndpoint;

impl StreamServerEndpoint for StandardIoEndpoint {
    fn listen(&self, factory: Box<dyn Factory>) -> io::Result<ListeningPort> {
        let port = ListeningPort::without_socket(PeerAddr::Pipe, factory, false);
        port.start_factory();
        match port.build_protocol(&PeerAddr::Pipe) {
            Some(protocol) => StandardIo::new().start(protocol).map(|_| port),
            None => Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                "the factory has no protocol for the standard input and output",
            )),
        }
    }
}

/// Any endpoint, such as one from a string.
impl<E: StreamServerEndpoint + ?Sized> StreamServerEndpoint for Box<E> {
    fn listen(&self, factory: Box<dyn Factory>) -> io::Result<ListeningPort> {
        (**self).listen(factory)
    }
}

impl fmt::Debug for dyn StreamServerEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamServerEndpoint").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Systemd;

    fn given(pid: &str, fds: &str, names: &str) -> std::io::Result<Systemd> {
        let vars = [("LISTEN_PID", pid), ("LISTEN_FDS", fds), ("LISTEN_FDNAMES", names)];
        let var = |name: &str| {
            let found = vars.iter().find(|(other, value)| *other == name && !value.is_empty());
            found.map(|(_, value)| (*value).to_owned())
        };
        Systemd::from_vars(var, 7)
    }

    #[test]
    fn sockets_of_systemd_are_found_by_place_and_name() {
        let sockets = given("7", "2", "web:admin:more").unwrap();
        assert_eq!((sockets.fd(0), sockets.fd(1), sockets.fd(2)), (Some(3), Some(4), None));
        assert_eq!(sockets.names, ["web", "admin"]);
        assert!(given("7", "1", "").unwrap().names.is_empty());
    }

    #[test]
    fn sockets_for_others_are_left_alone() {
        for (pid, fds, text) in [
            ("", "2", "LISTEN_FDS is not set"),
            ("7", "", "LISTEN_FDS is not set"),
            ("8", "2", "for process 8"),
            ("7", "-1", "no number"),
            ("7", "70000", "no number"),
        ] {
            let error = given(pid, fds, "").unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
