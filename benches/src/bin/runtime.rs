//! Our hub beside tokio, may, gevent and Go.
//!
//! `cargo xtask bench runtime` installs the peers and runs this; what is measured is in `runtime::SUITE`.

fn main() -> std::process::ExitCode {
    warren_benches::harness::main(&warren_benches::runtime::SUITE)
}
