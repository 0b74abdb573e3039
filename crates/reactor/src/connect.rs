//! Making connections.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use socket2::{Domain, Socket, Type};
use warren_hub::call_soon;
use warren_hub::io::{IoHandler, Readiness, Registration, register};

use crate::protocol::{PeerAddr, Protocol, Reason};
use crate::socket::adopt;

/// Connects `protocol` to `addr`. It hears `connection_made`, or, when that fails, `connection_lost` only.
///
/// # Errors
/// When the process has no descriptor left.
///
/// # Panics
/// When no hub runs on this thread.
pub fn connect_tcp(addr: SocketAddr, mut protocol: Box<dyn Protocol>) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), None)?;
    match socket.connect(&addr.into()) {
        Ok(()) => {}
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => {
            // Never from within this call: a protocol's callbacks come from the loop.
            call_soon(move || protocol.connection_lost(&Reason::Error(error)));
            return Ok(());
        }
    }
    let connector = Rc::new(Connector {
        addr,
        protocol: Cell::new(Some(protocol)),
        registration: RefCell::default(),
        socket: RefCell::default(),
    });
    let registration = register(socket.as_fd(), connector.clone())?;
    *connector.registration.borrow_mut() = Some(registration);
    *connector.socket.borrow_mut() = Some(socket);
    Ok(())
}

struct Connector {
    addr: SocketAddr,
    protocol: Cell<Option<Box<dyn Protocol>>>,
    registration: RefCell<Option<Registration>>,
    socket: RefCell<Option<Socket>>,
}

impl IoHandler for Connector {
    fn io_ready(&self, ready: Readiness) {
        if !ready.contains(Readiness::WRITABLE) {
            return;
        }
        let registration = self.registration.take();
        let (Some(socket), Some(mut protocol)) = (self.socket.take(), self.protocol.take()) else {
            return;
        };
        // This ends the watch; the transport begins its own.
        drop(registration);
        let failure = match socket.take_error() {
            Ok(None) => None,
            Ok(Some(error)) | Err(error) => Some(error),
        };
        if let Some(error) = failure {
            return protocol.connection_lost(&Reason::Error(error));
        }
        let host = socket.local_addr().ok().and_then(|addr| addr.as_socket());
        let host = host.map_or(PeerAddr::Unix(None), PeerAddr::Tcp);
        if let Err(error) = adopt(OwnedFd::from(socket), PeerAddr::Tcp(self.addr), host, protocol) {
            tracing::warn!(%error, addr = %self.addr, "a connection could not be used");
        }
    }
}
