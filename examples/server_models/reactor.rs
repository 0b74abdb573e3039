//! The loop, written once and for good: what is left is a protocol, which is called with what has come. What a connection
//! does not take at once, the transport keeps.

use std::io;
use std::net::SocketAddr;

use warren::reactor::{PeerAddr, Protocol, Reason, Transport, listen_tcp, run};

use crate::job::{Job, Session};

struct Served(Session);

impl Protocol for Served {
    fn connection_made(&mut self, _transport: &Transport) {}

    fn data_received(&mut self, transport: &Transport, data: &[u8]) {
        if !transport.write_with(|out| self.0.receive(data, out)) {
            transport.lose_connection();
        }
    }

    // A client that does not read is not read from: its answers would pile up here.
    fn pause_producing(&mut self, transport: &Transport) {
        transport.pause_reading();
    }

    fn resume_producing(&mut self, transport: &Transport) {
        transport.resume_reading();
    }

    fn connection_lost(&mut self, _reason: &Reason) {}
}

pub(crate) fn serve(addr: SocketAddr, job: Job) -> io::Result<()> {
    run(move || -> io::Result<_> {
        let build =
            move |_: &PeerAddr| Some(Box::new(Served(Session::new(job))) as Box<dyn Protocol>);
        let port = listen_tcp(addr, Box::new(build))?;
        if let PeerAddr::Tcp(addr) = port.addr() {
            crate::ready(*addr)?;
        }
        // What is given here is kept while the reactor runs.
        Ok(port)
    })?;
    Ok(())
}
