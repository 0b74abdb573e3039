//! How servers are started, for tests and for benchmarks.

#[path = "../../tests/support/certificates.rs"]
mod certificates;
pub mod servers;
