//! The `warren` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    eprintln!("warren: this version holds the library's foundations only; there is no `serve` yet");
    ExitCode::FAILURE
}
