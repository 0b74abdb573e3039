//! Names of hosts: a resolver on fibers, and gevent's names for it.
//!
//! ```text
//!   lookup("db")
//!     |  an address, /etc/hosts (in a simulation: the names of its nodes), localhost
//!     |  db.first.example, db.second.example, db       (search domains)
//!     +--> cache --> question under way --> servers, one after the other: UDP, TCP when cut short
//! ```
//! A and AAAA are asked at once. What a server says is kept for as long as it says, also that there is nothing; all of it
//! within bounds. Each hub has a resolver of its own, made from the system's files; [`set_resolver`] gives it another.
//!
//! ```
//! use warren_hub::net::dns;
//!
//! warren_hub::run(|| -> std::io::Result<()> {
//!     assert!(dns::gethostbyname("localhost")?.is_loopback());
//!     assert_eq!(dns::getaddrinfo("192.0.2.7", 80)?, ["192.0.2.7:80".parse().unwrap()]);
//!     Ok(())
//! })?;
//! # Ok::<(), std::io::Error>(())
//! ```

mod cache;
mod config;
mod exchange;
pub mod message;
mod resolver;

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub use config::{Config, Hosts};
pub use resolver::Resolver;

use crate::options::hub_local;
use message::Kind;

/// A host: its names and addresses. gevent's and Python's triple.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostEntry {
    /// Its proper name.
    pub name: String,
    /// Other names, among them the one that was asked for.
    pub aliases: Vec<String>,
    /// Its addresses.
    pub addrs: Vec<IpAddr>,
}

/// What is known of a question.
enum Answer {
    Found(HostEntry),
    /// No such name, or nothing of the kind.
    NoName,
    Failed(io::ErrorKind, String),
}

struct Installed(RefCell<Resolver>);

fn installed() -> std::rc::Rc<Installed> {
    hub_local(|| Installed(RefCell::new(Resolver::from_files())))
}

/// The resolver of this hub, which everything that takes a name uses.
///
/// # Panics
/// When no hub runs on this thread.
pub fn resolver() -> Resolver {
    installed().0.borrow().clone()
}

/// Gives this hub another resolver.
///
/// # Panics
/// When no hub runs on this thread.
pub fn set_resolver(resolver: Resolver) {
    installed().0.replace(resolver);
}

/// The addresses of `host`, with `port`, in the order in which they should be tried.
///
/// # Suspends
/// Until they are known.
///
/// # Errors
/// As [`Resolver::lookup`].
pub fn getaddrinfo(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addrs = resolver().lookup(host)?;
    Ok(addrs.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

/// The first IPv4 address of `host`.
///
/// # Suspends
/// Until it is known.
///
/// # Errors
/// As [`Resolver::lookup`].
pub fn gethostbyname(host: &str) -> io::Result<Ipv4Addr> {
    let entry = gethostbyname_ex(host)?;
    let first = entry.addrs.iter().find_map(|ip| match ip {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    });
    first.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("{host}: there is no IPv4 address"))
    })
}

/// `host` by its proper name, with its other names and its IPv4 addresses.
///
/// # Suspends
/// Until they are known.
///
/// # Errors
/// As [`Resolver::lookup`].
pub fn gethostbyname_ex(host: &str) -> io::Result<HostEntry> {
    resolver().entry(host, &[Kind::A])
}

/// The host that has this address.
///
/// # Suspends
/// Until it is known.
///
/// # Errors
/// As [`Resolver::lookup`].
pub fn gethostbyaddr(ip: IpAddr) -> io::Result<HostEntry> {
    resolver().reverse(ip)
}
