//! Making connections.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use warren_hub::call_soon;
use warren_hub::io::{IoHandler, Readiness, Registration, Source};

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
    let source = match Source::connect(&addr.into()) {
        Ok(source) => source,
        Err(error) => {
            // Never from within this call: a protocol's callbacks come from the loop.
            call_soon(move || protocol.connection_lost(&Reason::Error(error)));
            return Ok(());
        }
    };
    let connector = Rc::new(Connector {
        addr,
        protocol: Cell::new(Some(protocol)),
        registration: RefCell::default(),
        source: RefCell::default(),
    });
    let registration = source.watch(connector.clone())?;
    *connector.registration.borrow_mut() = Some(registration);
    *connector.source.borrow_mut() = Some(source);
    Ok(())
}

struct Connector {
    addr: SocketAddr,
    protocol: Cell<Option<Box<dyn Protocol>>>,
    registration: RefCell<Option<Registration>>,
    source: RefCell<Option<Source>>,
}

impl IoHandler for Connector {
    fn io_ready(&self, ready: Readiness) {
        if !ready.contains(Readiness::WRITABLE) {
            return;
        }
        let registration = self.registration.take();
        let (Some(source), Some(mut protocol)) = (self.source.take(), self.protocol.take()) else {
            return;
        };
        // This ends the watch; the transport begins its own.
        drop(registration);
        let failure = match source.take_error() {
            Ok(None) => None,
            Ok(Some(error)) | Err(error) => Some(error),
        };
        if let Some(error) = failure {
            return protocol.connection_lost(&Reason::Error(error));
        }
        let host = source.local_addr().map_or(PeerAddr::Unix(None), PeerAddr::from);
        if let Err(error) = adopt(source, PeerAddr::Tcp(self.addr), host, protocol) {
            tracing::warn!(%error, addr = %self.addr, "a connection could not be used");
        }
    }
}
