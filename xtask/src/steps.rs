//! The steps of `cargo xtask test`, in order: cheap ones first, so that a typo fails fast.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::install::{install, node_modules, python};
use crate::sanitize;
use crate::tally::Tally;
use xtask::servers::Server;

/// Rust end-to-end tests that run against any broker, told by the environment which.
const ANY_BROKER: &[&str] = &["client", "client_recovery", "client_tls", "perf", "tools"];

/// Runs every step, also after one failed, and returns what they counted together. `local`: without what
/// needs other programs.
pub(crate) fn test(local: bool) -> Tally {
    let mut tally = Tally::default();
    if local {
        println!(
            "left out: the tests that need RabbitMQ, Python with gevent, Twisted, pika and pytest, or a C++ compiler; \
             those that need Redis, MariaDB or PostgreSQL run where it is installed"
        );
    } else if let Err(error) = install() {
        println!("cannot install what the tests need: {error}");
        return Tally::one(false);
    }
    tally.add(check("format", cargo(&["fmt", "--all", "--check"])));
    let lints = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    tally.add(check("lints", cargo(&lints)));
    let mut documentation = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    tally.add(check("documentation", documentation));
    let tests = ["test", "--workspace", "--no-fail-fast", "--locked"];
    tally.add(runner("unit, property, doc and end-to-end tests", cargo(&tests)));
    tally.add(sanitize::quick());
    if !local {
        tally.add(check("gevent does what the scenarios expect", scenarios("gevent")));
        tally.add(check("Twisted does what the scenarios expect", scenarios("twisted")));
        tally.add(twisted_peers());
        tally.add(brokers());
        tally.add(patched_libraries());
        tally.add(bridged_libraries());
        tally.add(fuzz());
    }
    tally
}

/// The scenarios in the real library. The same ones in Rust are tests of the hub and of the reactor.
fn scenarios(library: &str) -> Command {
    let mut command = Command::new(python());
    command
        .args([&format!("tests/{library}/scenarios.py"), "--check"])
        .current_dir(root())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// The reactor and the real Twisted, each as the other's server. Here a missing Twisted is a failure.
fn twisted_peers() -> Tally {
    let mut command =
        cargo(&["test", "--locked", "-p", "warren-reactor", "--test", "twisted_peers"]);
    command.env("WARREN_TEST_SERVERS", "required");
    runner("the reactor and Twisted as peers", command)
}

/// Unmodified client libraries on fibers, against real databases. Here a missing server is a failure.
fn patched_libraries() -> Tally {
    let mut command = cargo(&["test", "--locked", "--no-fail-fast", "-p", "warren-patch"]);
    command.args(["--test", "redis", "--test", "mysql", "--test", "libpq"]);
    command.env("WARREN_TEST_SERVERS", "required");
    runner("blocking libraries against their servers", command)
}

/// Unmodified async clients on fibers, in the same way.
fn bridged_libraries() -> Tally {
    let mut command = cargo(&["test", "--locked", "-p", "warren-bridges", "postgres::"]);
    command.env("WARREN_TEST_SERVERS", "required");
    runner("async libraries against their servers", command)
}

/// The tests that run against both brokers.
fn brokers() -> Tally {
    let mut tally = Tally::default();
    tally.add(with_broker(warren(), |server| pika(server, &[])));
    tally.add(contract("warren", None, &[]));
    tally.add(with_broker(warren_again_and_again(), |server| clients(server, &[])));
    tally.add(with_broker(Server::rabbitmq(), |server| {
        let mut tally = pika(server, &[]);
        tally.add(contract("rabbitmq", Some(server), &[]));
        tally.add(clients(server, &[]));
        for test in ANY_BROKER {
            let mut command = cargo(&["test", "--locked", "-p", "warren", "--test", test]);
            command.env("WARREN_TEST_AMQP_URL", &server.url);
            command.envs(server.operator.iter().map(|(name, script)| (name, script)));
            tally.add(runner(&format!("{test} against RabbitMQ"), command));
        }
        tally
    }));
    tally
}

/// Runs the contract's cases against one broker; `arguments` choose them.
pub(crate) fn contract_on(broker: &str, arguments: &[String]) -> Tally {
    if broker == "warren" {
        return contract("warren", None, arguments);
    }
    if let Err(error) = install() {
        println!("cannot install what the tests need: {error}");
        return Tally::one(false);
    }
    with_broker(Server::rabbitmq(), |server| contract("rabbitmq", Some(server), arguments))
}

/// Without a server, the suite starts a Warren of its own.
fn contract(name: &str, server: Option<&Server>, arguments: &[String]) -> Tally {
    let mut command = cargo(&["test", "--locked", "-p", "warren", "--test", "contract", "--"]);
    command.args(arguments);
    if let Some(server) = server {
        command.env("WARREN_TEST_AMQP_URL", &server.url);
        command.env("WARREN_TEST_RABBITMQ_API", &server.api);
    }
    runner(&format!("the contract against {name}"), command)
}

/// Runs the pika suite against one broker; `arguments` go to pytest.
pub(crate) fn pika_on(broker: &str, arguments: &[String]) -> Tally {
    if let Err(error) = install() {
        println!("cannot install what the tests need: {error}");
        return Tally::one(false);
    }
    match broker {
        "warren" => with_broker(warren(), |server| pika(server, arguments)),
        "rabbitmq" => with_broker(Server::rabbitmq(), |server| pika(server, arguments)),
        url => run_pika("the broker given", url, arguments),
    }
}

/// Kills the server under load, for so many seconds.
pub(crate) fn crash(seconds: u64, seed: Option<u64>) -> Tally {
    let mut command = cargo(&["test", "--locked", "-p", "warren", "--test", "crash"]);
    command.args(["no_promise", "--", "--nocapture"]);
    command.env("WARREN_CRASH_SECONDS", seconds.to_string());
    if let Some(seed) = seed {
        command.env("WARREN_CRASH_SEED", seed.to_string());
    }
    runner("the server killed under load", command)
}

/// Runs the programs of other clients against one broker; `arguments` go to pytest.
pub(crate) fn clients_on(broker: &str, arguments: &[String]) -> Tally {
    if let Err(error) = install() {
        println!("cannot install what the tests need: {error}");
        return Tally::one(false);
    }
    let server = if broker == "warren" { warren_again_and_again() } else { Server::rabbitmq() };
    with_broker(server, |server| clients(server, arguments))
}

fn clients(server: &Server, arguments: &[String]) -> Tally {
    let mut command = pytest("tests/clients", arguments);
    command
        .env("WARREN_TEST_AMQP_URL", &server.url)
        .env("WARREN_TEST_NODE_MODULES", node_modules());
    command.envs(server.operator.iter().map(|(name, value)| (name, value)));
    runner(&format!("clients on {}", server.name), command)
}

fn with_broker(server: Result<Server, String>, tests: impl FnOnce(&Server) -> Tally) -> Tally {
    match server {
        Ok(server) => {
            let tally = tests(&server);
            if !tally.is_green() {
                println!("-- the end of {}'s log:\n{}", server.name, server.log());
            }
            tally
        }
        Err(error) => {
            println!("{error}");
            Tally::one(false)
        }
    }
}

/// The server as the tests before have built it.
fn warren() -> Result<Server, String> {
    Server::warren(&build_warren()?, &[])
}

/// One whose tests restart it.
fn warren_again_and_again() -> Result<Server, String> {
    Server::warren_again_and_again(&build_warren()?)
}

fn build_warren() -> Result<PathBuf, String> {
    let built = cargo(&["build", "--locked", "-p", "warren", "--bin", "warren"]).status();
    if !built.is_ok_and(|status| status.success()) {
        return Err("the server cannot be built".into());
    }
    Ok(target().join("debug/warren"))
}

fn pika(server: &Server, arguments: &[String]) -> Tally {
    run_pika(server.name, &server.url, arguments)
}

fn run_pika(name: &str, url: &str, arguments: &[String]) -> Tally {
    let mut command = pytest("tests/pika", arguments);
    command.env("WARREN_TEST_AMQP_URL", url);
    runner(&format!("pika programs against {name}"), command)
}

/// pytest on a folder, at the root.
fn pytest(folder: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(python());
    command
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--show-capture=no", "--tb=short"])
        .arg(folder)
        .args(arguments)
        .current_dir(root())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Every fuzz target for a few seconds: each counts as a test.
fn fuzz() -> Tally {
    let folder = root().join("fuzz");
    let mut tally = Tally::default();
    let Ok(entries) = std::fs::read_dir(folder.join("targets")) else { return tally };
    let mut targets: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_string_lossy().into_owned()))
        .collect();
    targets.sort();
    // Named, so that build scripts are built without the fuzzer's flags.
    let rustc = Command::new("rustc").args(["--print", "host-tuple"]).output();
    let host = rustc
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    for target in targets {
        let mut command =
            cargo(&["run", "--release", "--locked", "--target", &host, "--bin", &target, "--"]);
        command
            .args(["-max_total_time=10", "-verbosity=0", "-print_final_stats=1"])
            .current_dir(&folder);
        tally.add(check(&format!("fuzzing {target}"), command));
    }
    tally
}

/// A command that passes or fails as a whole: one test.
fn check(title: &str, mut command: Command) -> Tally {
    timed(title, || Tally::one(command.status().is_ok_and(|status| status.success())))
}

/// A test runner: its result lines are counted, its exit code is believed.
pub(crate) fn runner(title: &str, mut command: Command) -> Tally {
    timed(title, || {
        let mut tally = Tally::default();
        let Ok(mut child) = command.stdout(Stdio::piped()).spawn() else {
            return Tally::one(false);
        };
        let stdout = child.stdout.take().expect("stdout was piped above");
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            println!("{line}");
            tally.add(
                Tally::parse_cargo(&line)
                    .or_else(|| Tally::parse_pytest(&line))
                    .unwrap_or_default(),
            );
        }
        // A build error has no counts, yet it is a failure.
        if !child.wait().is_ok_and(|status| status.success()) && tally.is_green() {
            tally.add(Tally::one(false));
        }
        tally
    })
}

fn timed(title: &str, step: impl FnOnce() -> Tally) -> Tally {
    println!("\n== {title}");
    let start = Instant::now();
    let tally = step();
    println!("== {title}: {tally} ({:.1} s)", start.elapsed().as_secs_f32());
    tally
}

/// `cargo` as the one that runs us, at the root of the workspace. It does not hear which package we are: build scripts
/// that ask for that would run anew, and all that is built on them.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The root of the workspace: the folder above this package's.
pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}
