//! TLS 1.2 and 1.3 over any stream of this crate, by rustls (the crate's feature `tls`).
//!
//! An [`Acceptor`] or a [`Connector`] holds the settings and makes the handshake; what they give is a [`TlsStream`],
//! which one fiber may read while another writes.
//!
//! ```text
//!   reader --(lock)--> bytes of the socket --> +---------+ --> plaintext
//!                                              | session |
//!   writer --(lock)--> bytes for the socket <- +---------+ <-- plaintext
//! ```
//! The session is borrowed only to turn bytes into others, never while a fiber waits. Each direction has a lock of its
//! own, held across its waits, so that records keep their order; so a reader that waits keeps no writer waiting.
//!
//! ```
//! use std::io::{Read, Write};
//! use warren_hub::net::tls::{Acceptor, Connector};
//! use warren_hub::net::{TcpListener, TcpStream};
//!
//! let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
//! let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
//! warren_hub::run(move || -> std::io::Result<()> {
//!     let acceptor = Acceptor::builder().identity_pem(&certificate, &key).build()?;
//!     let listener = TcpListener::bind("127.0.0.1:0")?;
//!     let addr = listener.local_addr()?;
//!     warren_hub::spawn(move || {
//!         let mut stream = acceptor.accept(listener.accept().unwrap().0).unwrap();
//!         stream.write_all(b"secret").unwrap();
//!         stream.close().unwrap();
//!     });
//!     let connector = Connector::builder().roots_pem(&certificate).build()?;
//!     let mut stream = connector.connect("localhost", TcpStream::connect(addr)?)?;
//!     let mut text = String::new();
//!     stream.read_to_string(&mut text)?;
//!     assert_eq!(text, "secret");
//!     Ok(())
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod error;
mod names;
mod stream;
mod unverified;

pub use config::{Acceptor, AcceptorBuilder, ClientAuth, Connector, ConnectorBuilder, TlsVersion};
pub use error::{TlsError, explain};
pub use rustls;
pub use stream::TlsStream;
