//! `cargo xtask bench`: builds what is measured, starts the servers, runs the programs of `benches/`.

use std::process::Command;

use crate::install::install;
use crate::servers::Server;
use crate::steps::{cargo, target};
use crate::tally::Tally;

/// Runs one program of `benches/`.
pub(crate) fn bench(name: &str, arguments: &[String]) -> Tally {
    Tally::one(match run(name, arguments) {
        Ok(()) => true,
        Err(error) => {
            println!("{error}");
            false
        }
    })
}

fn run(name: &str, arguments: &[String]) -> Result<(), String> {
    let built =
        ["build", "--release", "--locked", "-p", "warren", "-p", "warren-benches", "--bins"];
    succeed(cargo(&built))?;
    let folder = target().join("release");
    let mut program = Command::new(folder.join(name));
    program.args(arguments);
    describe_machine();
    if name != "broker" {
        return succeed(program);
    }
    install()?;
    let (warren, rabbitmq) = (Server::warren(&folder.join("warren"))?, Server::rabbitmq()?);
    for (server, prefix) in [(&warren, "WARREN"), (&rabbitmq, "RABBITMQ")] {
        program.env(format!("{prefix}_URL"), &server.url);
        program.env(format!("{prefix}_PID"), server.pid().to_string());
    }
    succeed(program)
}

fn describe_machine() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let processors = read("/proc/cpuinfo");
    let model = processors
        .lines()
        .find_map(|line| Some(line.strip_prefix("model name")?.split_once(": ")?.1));
    println!(
        "{} cores, {}, Linux {}\n",
        cores,
        model.unwrap_or("unknown processor"),
        kernel.trim()
    );
}

fn succeed(mut command: Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
