//! Endpoints: where to listen or to connect to, without saying how (Twisted's `twisted.internet.endpoints`).
//!
//! A program that takes a [`StreamServerEndpoint`] or a [`StreamClientEndpoint`] serves and uses TCP, TLS, Unix sockets
//! and whatever else has one, and lets its configuration decide: [`server_from_string`] and [`client_from_string`] make
//! them from strings.
//!
//! ```
//! use warren_reactor::endpoints::{
//!     StreamServerEndpoint, client_from_string, connect_protocol, quote_string_argument,
//!     server_from_string,
//! };
//! use warren_reactor::protocols::{for_protocol, wire};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("echo.sock");
//! let path = quote_string_argument(path.to_str().unwrap());
//! warren_hub::run(move || -> Result<(), Box<dyn std::error::Error>> {
//!     let server = server_from_string(&format!("unix:{path}:mode=600"))?;
//!     let port = server.listen(Box::new(for_protocol(|| wire::Echo)))?;
//!     let client = client_from_string(&format!("unix:{path}:timeout=5"))?;
//!     // On a fiber, one may wait.
//!     let transport = connect_protocol(&client, wire::Discard).wait()?;
//!     transport.write(b"hello");
//!     transport.lose_connection();
//!     port.stop_listening();
//!     Ok(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod adopt;
mod clients;
mod description;
mod hostname;
mod servers;
mod strings;

use std::io;

pub use adopt::{adopt_stream_connection, adopt_stream_port};
pub use clients::{TcpClientEndpoint, UnixClientEndpoint, connect_protocol};
#[cfg(feature = "tls")]
pub use clients::{TlsClientEndpoint, wrap_client_tls};
pub use description::{Description, EndpointError, quote_string_argument};
pub use hostname::HostnameEndpoint;
#[cfg(feature = "tls")]
pub use servers::SslServerEndpoint;
pub use servers::{
    AdoptedServerEndpoint, StandardIoEndpoint, TcpServerEndpoint, UnixServerEndpoint,
};
pub use strings::{client_from_string, server_from_string};

use crate::deferred::Deferred;
use crate::listen::ListeningPort;
use crate::protocol::Factory;
use crate::transport::Transport;

/// Where connections are accepted (Twisted's `IStreamServerEndpoint`).
pub trait StreamServerEndpoint {
    /// Begins to listen, and lets `factory` build a protocol for each connection. Dropping what this gives ends it.
    ///
    /// A plain result and no Deferred, other than in Twisted: to bind an address never waits.
    ///
    /// # Errors
    /// What the system says, such as that the address is in use, with the endpoint's name.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    fn listen(&self, factory: Box<dyn Factory>) -> io::Result<ListeningPort>;
}

/// Where a connection is made to (Twisted's `IStreamClientEndpoint`).
pub trait StreamClientEndpoint {
    /// Makes a connection, for which `factory` builds the protocol, and gives its transport once the protocol has been
    /// told of it; an error with the endpoint's name when it cannot be made. Cancelling gives up.
    ///
    /// # Panics
    /// When no hub runs on this thread.
    fn connect(&self, factory: Box<dyn Factory>) -> Deferred<Transport, io::Error>;
}
