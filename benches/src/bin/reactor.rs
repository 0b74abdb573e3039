//! Our reactor beside tokio, Twisted and uvloop.
//!
//! `cargo xtask bench reactor` installs the peers and runs this; what is measured is in `reactor::SUITE`.

fn main() -> std::process::ExitCode {
    warren_benches::harness::main(&warren_benches::reactor::SUITE)
}
