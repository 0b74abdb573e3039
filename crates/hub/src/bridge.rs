//! Our sockets, clock and fibers as other libraries know them.
//!
//! | feature | what it gives |
//! |---|---|
//! | none | `std::io::Read` and `Write`: rustls' `StreamOwned`, tungstenite, and whatever else blocks |
//! | `futures-io` | `AsyncRead` and `AsyncWrite` of the futures crates |
//! | `tokio` | `AsyncRead` and `AsyncWrite` of tokio, without its runtime: tokio-postgres' `connect_raw` |
//! | `hyper` | hyper's `Read` and `Write`, and its executor and timer: HTTP/1 and HTTP/2, client and server |
//! | `sidecar` | tokio itself, on one thread beside the hub: reqwest, russh, and whatever else insists on it |
//!
//! The traits are implemented for [`TcpStream`](crate::net::TcpStream), [`UnixStream`](crate::net::UnixStream), their
//! halves, and the ends of [pipes](crate::pipe). Futures that use them are polled on the hub's own thread, by a fiber
//! in [`future::wait`](crate::future::wait).
//!
//! Async code cannot call what parks, such as `TcpStream::connect`: it connects on a fiber, and awaits that.
//!
//! ```
//! use warren_hub::net::{TcpListener, TcpStream};
//! use warren_hub::{future, run, spawn};
//!
//! run(|| -> std::io::Result<()> {
//!     let listener = TcpListener::bind("127.0.0.1:0")?;
//!     let addr = listener.local_addr()?;
//!     future::wait(async {
//!         let stream = spawn(move || TcpStream::connect(addr)).await.unwrap()?;
//!         assert_eq!(stream.peer_addr()?, addr);
//!         Ok(())
//!     })
//! })?;
//! # Ok::<(), std::io::Error>(())
//! ```

#[cfg(feature = "futures-io")]
mod futures_io;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(feature = "sidecar")]
pub mod tokio;
#[cfg(feature = "tokio")]
mod tokio_io;

#[cfg(any(feature = "futures-io", feature = "hyper", feature = "tokio"))]
mod polled;
#[cfg(any(feature = "futures-io", feature = "hyper", feature = "tokio"))]
pub(crate) use polled::Polled;
