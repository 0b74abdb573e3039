//! Servers: gevent's `StreamServer` and `DatagramServer`.
//!
//! One fiber accepts, each connection or datagram is handled on another. How many may be at work is the server's
//! [`Spawn`]: when there is no room, nothing is accepted, and those who come wait in the kernel's queue. A server out of
//! descriptors or memory pauses, longer and longer, and goes on by itself; connections that stand are not disturbed.
//!
//! ```
//! use std::io::{self, Write};
//! use std::time::Duration;
//! use warren_hub::net::{TcpListener, TcpStream};
//! use warren_hub::server::StreamServer;
//!
//! warren_hub::run(|| -> io::Result<()> {
//!     let echo = |stream: TcpStream, _| drop(io::copy(&mut &stream, &mut &stream));
//!     let server = StreamServer::new(TcpListener::bind("127.0.0.1:0")?, echo).limit(1000);
//!     server.start();
//!     let mut client = TcpStream::connect(server.address().as_ip().unwrap())?;
//!     client.write_all(b"hello")?;
//!     client.shutdown(std::net::Shutdown::Write)?;
//!     assert_eq!(io::read_to_string(client)?, "hello");
//!     assert!(server.stop(Duration::from_secs(1)), "nobody had to be killed");
//!     Ok(())
//! })?;
//! # Ok::<(), io::Error>(())
//! ```

mod base;
mod datagram;
mod every_hub;
mod stream;

pub use base::{BaseServer, ServerStats, Spawn, Start};
pub use datagram::{Datagram, DatagramServer};
pub use every_hub::ServerGroup;
pub use stream::{Listener, StreamServer};
