//! The `warren` program.

mod client;
mod ctl;
mod serve;
mod store;

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
    Serve(Box<serve::Options>),
    /// Publish a message, and wait until the server has it.
    Publish(client::Publish),
    /// Print the messages of a queue as they come, and acknowledge them.
    Consume(client::Consume),
    /// Print messages that are in a queue now.
    Get(client::Get),
    /// Show queues: messages that are ready, and consumers.
    Queues(ctl::Queues),
    /// Do what rabbitmqctl does, with its commands and arguments: warren ctl add_user NAME PASSWORD
    Ctl(ctl::Rabbitmqctl),
    /// Load any AMQP server and measure it, or prove that it loses nothing.
    ///
    /// Exit codes: 0; 1, it failed; 2, wrong arguments; 3, --verify found a fault; 4, messages were refused or returned.
    Perf(Box<warren::perf::Options>),
    /// Look into a data directory that no server uses. Nothing in it is changed.
    #[command(subcommand)]
    Store(store::Store),
    #[command(flatten)]
    Administer(ctl::Command),
}

fn main() -> ExitCode {
    let arguments = warren::perf::arguments(std::env::args_os());
    let outcome = match Arguments::parse_from(arguments).command {
        Command::Serve(options) => serve::run(*options),
        Command::Publish(publish) => publish.run(),
        Command::Consume(consume) => consume.run(),
        Command::Get(get) => get.run(),
        Command::Queues(queues) => queues.run(),
        Command::Ctl(ctl) => ctl.run(),
        Command::Administer(command) => command.run(),
        Command::Perf(options) => {
            return end(warren::perf::command(&options));
        }
        Command::Store(store) => return end(store.run()),
    };
    end(outcome.map(|()| ExitCode::SUCCESS))
}

fn end(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("warren: {}", told(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, each told once: some tell theirs themselves.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match () {
        () if told.is_empty() => cause,
        () if told.ends_with(&cause) => told,
        () => format!("{told}: {cause}"),
    })
}
