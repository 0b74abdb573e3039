//! Side-by-side measurements against the peers: what the programs of this package share.
//!
//! `cargo xtask bench` with `broker`, `features`, `runtime`, `reactor` or `models` starts the servers and runs the
//! programs.

pub mod broker;
pub mod features;
pub mod harness;
pub(crate) mod load;
pub mod machine;
pub mod models;
pub mod reactor;
pub mod runtime;
pub mod side;
pub mod table;
