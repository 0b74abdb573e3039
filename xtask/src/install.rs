//! Installs what the tests need and is not there: Debian packages and Python packages, by name.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::steps::root;

/// RabbitMQ's own start script. The wrapper on the path would change the user.
pub(crate) const RABBITMQ_SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// A Debian package, and how to see that what it brings is there.
struct Package {
    name: &'static str,
    is_there: fn() -> bool,
}

const PACKAGES: &[Package] = &[
    Package { name: "rabbitmq-server", is_there: || Path::new(RABBITMQ_SERVER).exists() },
    Package {
        name: "python3-venv",
        is_there: || runs("python3", &["-c", "import venv, ensurepip"]),
    },
    Package { name: "redis-server", is_there: || runs("redis-server", &["--version"]) },
    Package { name: "mariadb-server-core", is_there: || Path::new("/usr/sbin/mariadbd").exists() },
    // With its C library.
    Package { name: "postgresql", is_there: postgres_is_there },
    // libFuzzer is C++.
    Package { name: "g++", is_there: || runs("c++", &["--version"]) },
];

/// Python packages, with the versions that the tests were written with.
const PYTHON_PACKAGES: &[&str] =
    &["gevent==26.9.0", "greenlet==3.5.6", "pika==1.4.4", "pytest==9.2.0"];

/// Installs what is missing. An error names what is missing and cannot be installed.
pub(crate) fn install() -> Result<(), String> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|package| !(package.is_there)())
        .map(|package| package.name)
        .collect();
    if !missing.is_empty() {
        install_packages(&missing)?;
    }
    let python = python();
    if !runs(&python.to_string_lossy(), &["-c", "import gevent, pika, pytest"]) {
        println!("installing into {}: {}", venv().display(), PYTHON_PACKAGES.join(", "));
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv()))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PYTHON_PACKAGES))?;
    }
    Ok(())
}

/// Its servers are not on the path, as several versions may be installed.
fn postgres_is_there() -> bool {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions.into_iter().any(|version| version.path().join("bin/postgres").exists())
}

fn install_packages(missing: &[&str]) -> Result<(), String> {
    let list = missing.join(", ");
    let sudo: &[&str] = if rustix::process::geteuid().is_root() {
        &[]
    } else if runs("sudo", &["-n", "true"]) {
        &["sudo", "-n"]
    } else {
        return Err(format!(
            "these Debian packages are missing and there is no right to install them: {list}. Install them, or \
             use `cargo xtask test --local`, which leaves out what needs them"
        ));
    };
    println!("installing Debian packages: {list}");
    let _no_start = NoStart::begin();
    let apt = |arguments: &[&str]| {
        let words: Vec<&str> = sudo
            .iter()
            .copied()
            .chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"])
            .collect();
        run(Command::new(words[0]).args(&words[1..]).args(arguments))
    };
    apt(&["update", "-qq"])?;
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    apt(&[&install[..], missing].concat())
}

/// Keeps a package from starting its server: the tests start their own. Debian asks this file.
struct NoStart(bool);

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoStart {
    fn begin() -> Self {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY);
        let made = file.and_then(|mut file| {
            use std::io::Write;
            file.write_all(b"#!/bin/sh\nexit 101\n")
        });
        Self(made.is_ok())
    }
}

impl Drop for NoStart {
    fn drop(&mut self) {
        if self.0 {
            let _ = fs::remove_file(POLICY);
        }
    }
}

/// The Python that has our packages.
pub(crate) fn python() -> PathBuf {
    venv().join("bin/python")
}

fn venv() -> PathBuf {
    root().join("target/venv")
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
