//! The steps of `cargo xtask test`, in order: cheap ones first, so that a typo fails fast.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::tally::Tally;

/// Runs every step, also after one failed, and returns what they counted together.
pub(crate) fn test() -> Tally {
    let mut tally = Tally::default();
    tally.add(check("format", cargo(&["fmt", "--all", "--check"])));
    let lints = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    tally.add(check("lints", cargo(&lints)));
    let mut documentation = cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    tally.add(check("documentation", documentation));
    let tests = ["test", "--workspace", "--no-fail-fast", "--locked"];
    tally.add(runner("unit, property and doc tests", cargo(&tests)));
    tally
}

/// A command that passes or fails as a whole: one test.
fn check(title: &str, mut command: Command) -> Tally {
    timed(title, || Tally::one(command.status().is_ok_and(|status| status.success())))
}

/// A test runner: its `test result:` lines are counted, its exit code is believed.
fn runner(title: &str, mut command: Command) -> Tally {
    timed(title, || {
        let mut tally = Tally::default();
        let Ok(mut child) = command.stdout(Stdio::piped()).spawn() else {
            return Tally::one(false);
        };
        let stdout = child.stdout.take().expect("stdout was piped above");
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            println!("{line}");
            tally.add(Tally::parse_cargo(&line).unwrap_or_default());
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

/// `cargo` as the one that runs us, at the root of the workspace.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// The root of the workspace: the folder above this package's.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}
