//! The `warren` program.

mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The back end of a concurrent service in one binary.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve(options) => serve::run(options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, causes included.
            eprintln!("warren: {error:#}");
            ExitCode::FAILURE
        }
    }
}
