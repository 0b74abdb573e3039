//! Policies: factories that wrap another and limit what its connections may do.
//!
//! | Twisted | here |
//! |---|---|
//! | `TimeoutMixin` | [`IdleTimeout`], a field of a protocol |
//! | `TimeoutFactory` | [`TimeoutFactory`]: connections on which nothing happens are closed |
//! | `ThrottlingFactory` | [`ThrottlingFactory`]: so many connections, so many bytes a second |
//! | `LimitTotalConnectionsFactory` | [`LimitTotalConnectionsFactory`], with a protocol for those who are too many |
//! | `LimitConnectionsByPeer` | [`LimitConnectionsByPeer`] |
//! | `TrafficLoggingFactory` | [`TrafficLoggingFactory`] |
//! | `WrappingFactory`, `ProtocolWrapper` | [`WrappingFactory`] with a [`Policy`], [`ProtocolWrapper`] |
//!
//! They wrap servers' and clients' factories alike, and one another:
//!
//! ```
//! use std::time::Duration;
//! use warren_reactor::policies::{LimitConnectionsByPeer, TimeoutFactory};
//! use warren_reactor::protocols::{for_protocol, wire};
//!
//! let echo = for_protocol(|| wire::Echo);
//! let patient = TimeoutFactory::new(echo, Duration::from_secs(30));
//! let factory = LimitConnectionsByPeer::new(patient).max_connections(10);
//! # let _ = factory;
//! ```
//!
//! A wrapped connection costs one allocation and a call more than a bare one. The transport is the same: what a policy
//! wants to know of writing, it hears of by [`Transport::watch_output`](crate::Transport::watch_output).

mod limits;
mod throttling;
mod timeout;
mod traffic;
mod wrapping;

pub use limits::{
    ConnectionsByPeer, LimitConnectionsByPeer, LimitTotalConnectionsFactory, TotalConnections,
};
pub use throttling::{Throttling, ThrottlingFactory};
pub use timeout::{IdleTimeout, TimeoutFactory, Timeouts};
pub use traffic::{Traffic, TrafficLog, TrafficLoggingFactory};
pub use wrapping::{Admission, Connections, Policy, ProtocolWrapper, WrappingFactory};
