//! A fiber for each connection. The same straight-line code as on a thread; where it would block, the loop underneath
//! runs another fiber, and the kernel is not asked.

use std::io;
use std::net::SocketAddr;

use warren::hub::net::{TcpListener, TcpStream};
use warren::hub::run;
use warren::hub::server::StreamServer;

use crate::job::{Job, converse};

pub(crate) fn serve(addr: SocketAddr, job: Job) -> io::Result<()> {
    run(move || {
        let listener = TcpListener::bind(addr)?;
        crate::ready(listener.local_addr()?)?;
        let handle = move |stream: TcpStream, _| {
            // A client that goes away in the middle is no reason to say anything.
            let _ = stream.set_nodelay(true);
            let _ = converse(&stream, job);
        };
        StreamServer::new(listener, handle).serve_forever();
        Ok(())
    })
}
