//! The server models of `examples/server_models/` side by side.
//!
//! `cargo xtask bench models` builds them and runs this; what is measured is in `models::SUITE`.

fn main() -> std::process::ExitCode {
    warren_benches::harness::main(&warren_benches::models::SUITE)
}
