//! How servers are started, for tests and for benchmarks.

pub mod servers;
