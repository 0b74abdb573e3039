//! Datagrams between processes of one machine: none is lost on the way, and they keep their order.

use std::io;
use std::path::{Path, PathBuf};

use warren_hub::io::{Addr, Source};

use crate::datagram::{
    Connected, ConnectedDatagramProtocol, DatagramError, DatagramPort, DatagramProtocol, UnixAddr,
};
use crate::listen::is_abandoned;

/// A Unix socket of datagrams.
pub type UnixDatagramPort = DatagramPort<UnixAddr>;

/// Listens for datagrams on a Unix socket at `path`, which is removed when the port stops. A path that begins with a
/// zero byte is an abstract name, which lies in no folder. A socket that a dead process has left at `path` is replaced;
/// one that is served is not.
///
/// # Errors
/// That something else is at `path`, and what the system says.
///
/// # Panics
/// When no hub runs on this thread.
pub fn listen_unix_datagram(
    path: &Path,
    protocol: Box<dyn DatagramProtocol<UnixAddr>>,
) -> Result<UnixDatagramPort, DatagramError> {
    let (source, path) = bind(path)?;
    DatagramPort::start(source, path, None, protocol)
}

/// Connects to the Unix socket at `path`. The peer can answer only if this socket has a name too: `bind_path`, as in
/// [`listen_unix_datagram`].
///
/// What is written while the peer does not read waits here, up to a limit, and none of it is lost.
///
/// # Errors
/// That nobody is there, and what the system says; the protocol has heard
/// [`connection_failed`](ConnectedDatagramProtocol::connection_failed) then.
///
/// # Panics
/// When no hub runs on this thread.
pub fn connect_unix_datagram(
    path: &Path,
    bind_path: Option<&Path>,
    mut protocol: Box<dyn ConnectedDatagramProtocol<UnixAddr>>,
) -> Result<UnixDatagramPort, DatagramError> {
    match connect(path, bind_path) {
        Ok((source, bound, peer)) => {
            DatagramPort::start(source, bound, Some(peer), Box::new(Connected(protocol)))
        }
        Err(error) => {
            crate::datagram::failed(&mut *protocol, &error);
            Err(error)
        }
    }
}

fn connect(
    path: &Path,
    bind_path: Option<&Path>,
) -> Result<(Source, Option<PathBuf>, UnixAddr), DatagramError> {
    let peer = name(path)?;
    let (source, bound) = match bind_path {
        Some(path) => bind(path)?,
        None => (unnamed().map_err(|error| cannot_listen(Path::new(""), error))?, None),
    };
    let connected = crate::datagram::set_peer(&source, &peer);
    if let (Err(_), Some(bound)) = (&connected, &bound) {
        // It was made a moment ago.
        let _ = std::fs::remove_file(bound);
    }
    connected?;
    Ok((source, bound, peer))
}

/// A socket at `path`, and what is to be removed later.
fn bind(path: &Path) -> Result<(Source, Option<PathBuf>), DatagramError> {
    let name = name(path)?;
    let in_folder = name.as_pathname().map(Path::to_owned);
    let addr = Addr::from(name);
    let source = match Source::datagram(&addr, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path, probe) => {
            std::fs::remove_file(path).and_then(|()| Source::datagram(&addr, false))
        }
        other => other,
    };
    let source = source.map_err(|error| cannot_listen(path, error))?;
    Ok((source, in_folder))
}

fn unnamed() -> io::Result<Source> {
    Source::datagram(&UnixAddr::from_pathname("")?.into(), false)
}

fn cannot_listen(path: &Path, error: io::Error) -> DatagramError {
    DatagramError::system(format!("listen for datagrams on unix:{}", path.display()), error)
}

fn name(path: &Path) -> Result<UnixAddr, DatagramError> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    let named = match path.as_os_str().as_bytes() {
        [] => Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is empty")),
        [0, abstract_name @ ..] => UnixAddr::from_abstract_name(abstract_name),
        _ => UnixAddr::from_pathname(path),
    };
    named.map_err(|error| DatagramError::system(format!("use {path:?} as a socket's path"), error))
}

/// Whether somebody serves `path`, which is a socket.
fn probe(path: &Path) -> io::Result<()> {
    std::os::unix::net::UnixDatagram::unbound()?.connect(path)
}
