//! `cargo xtask bench`: builds what is measured, starts the servers, runs the programs of `benches/`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::install::{install, install_gevent, install_go, install_reactors, python, run};
use crate::steps::{cargo, root, target};
use crate::tally::Tally;

/// Runs one program of `benches/`.
pub(crate) fn bench(name: &str, arguments: &[String]) -> Tally {
    let result = match name {
        "broker" => broker(arguments),
        "features" => features(arguments),
        "reactor" => reactor(arguments),
        "models" => models(arguments),
        _ => runtime(arguments),
    };
    Tally::one(match result {
        Ok(()) => true,
        Err(error) => {
            println!("{error}");
            false
        }
    })
}

/// A full run leaves its report and the table of the README where they are kept.
fn broker(arguments: &[String]) -> Result<(), String> {
    build(&["-p", "warren", "-p", "warren-benches", "--bin", "warren", "--bin", "broker"])?;
    install()?;
    let mut program = Command::new(release().join("broker"));
    program.arg("--warren").arg(release().join("warren")).args(arguments);
    let partial = ["--quick", "--only", "--alone", "--output", "--help"];
    let says = |argument: &String| partial.iter().any(|partial| argument.starts_with(partial));
    if !arguments.iter().any(says) {
        program.arg("--output").arg(root().join("docs/benchmarks/broker.md"));
        program.arg("--readme").arg(root().join("README.md"));
    }
    run(&mut program)
}

/// What it prints is the report, which a full run leaves where it is kept.
fn features(arguments: &[String]) -> Result<(), String> {
    build(&["-p", "warren", "-p", "warren-benches", "--bin", "warren", "--bin", "features"])?;
    install()?;
    let mut program = Command::new(release().join("features"));
    program.arg("--warren").arg(release().join("warren")).args(arguments);
    if !arguments.is_empty() {
        return run(&mut program);
    }
    let output = program.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("{program:?}: {error}"))?;
    let report = String::from_utf8_lossy(&output.stdout);
    print!("{report}");
    if !output.status.success() {
        return Err(format!("{program:?}: {}", output.status));
    }
    let path = root().join("docs/benchmarks/features.md");
    std::fs::write(&path, report.trim_end().to_owned() + "\n")
        .map_err(|error| format!("{}: {error}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

fn runtime(arguments: &[String]) -> Result<(), String> {
    let mut program = suite("runtime", arguments)?;
    match install_gevent() {
        Ok(()) => drop(program.env("WARREN_BENCH_PYTHON", python())),
        Err(error) => println!("without gevent: {error}"),
    }
    match go_peer() {
        Ok(path) => drop(program.env("WARREN_BENCH_GO", path)),
        Err(error) => println!("without Go: {error}"),
    }
    run(&mut program)
}

fn reactor(arguments: &[String]) -> Result<(), String> {
    let mut program = suite("reactor", arguments)?;
    match install_reactors() {
        Ok(()) => drop(program.env("WARREN_BENCH_PYTHON", python())),
        Err(error) => println!("without Twisted and uvloop: {error}"),
    }
    run(&mut program)
}

fn models(arguments: &[String]) -> Result<(), String> {
    let mut program = suite("models", arguments)?;
    build(&["-p", "warren", "--example", "server_models"])?;
    program.env("WARREN_BENCH_MODELS", release().join("examples/server_models"));
    run(&mut program)
}

/// A program with its arguments, built. Its report goes where it is kept, unless the arguments say that it means
/// nothing or belongs elsewhere.
fn suite(name: &str, arguments: &[String]) -> Result<Command, String> {
    build(&["-p", "warren-benches", "--bin", name])?;
    let mut program = Command::new(release().join(name));
    program.args(arguments);
    let partial = ["--quick", "--only", "--peers", "--output"];
    let says = |argument: &String| partial.iter().any(|partial| argument.starts_with(partial));
    if !arguments.iter().any(says) {
        program.arg("--output").arg(root().join("docs/benchmarks"));
    }
    Ok(program)
}

/// Go's part of the scenarios, compiled.
fn go_peer() -> Result<PathBuf, String> {
    install_go()?;
    let path = release().join("go-peer");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&path).arg(".").current_dir(root().join("benches/peers/go"));
    run(&mut go)?;
    Ok(path)
}

fn build(what: &[&str]) -> Result<(), String> {
    run(&mut cargo(&[&["build", "--release", "--locked"], what].concat()))
}

/// Where cargo puts release builds.
fn release() -> PathBuf {
    target().join("release")
}
