//! Installs what the tests and benchmarks need and is not there: Debian packages and Python packages, by name.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use xtask::servers::RABBITMQ_SERVER;

use crate::steps::root;

/// A Debian package, and how to see that what it brings is there.
pub(crate) struct Package {
    name: &'static str,
    is_there: fn() -> bool,
}

/// What the tests need.
const FOR_TESTS: &[Package] = &[
    Package { name: "rabbitmq-server", is_there: || Path::new(RABBITMQ_SERVER).exists() },
    PYTHON,
    Package { name: "redis-server", is_there: || runs("redis-server", &["--version"]) },
    Package { name: "mariadb-server-core", is_there: || Path::new("/usr/sbin/mariadbd").exists() },
    // With its C library.
    Package { name: "postgresql", is_there: postgres_is_there },
    Package { name: "amqp-tools", is_there: || runs("amqp-consume", &["--help"]) },
    NODE,
    Package { name: "npm", is_there: || runs("npm", &["--version"]) },
    Package { name: "ruby-bunny", is_there: || runs("ruby", &["-e", "require 'bunny'"]) },
    Package { name: "php-cli", is_there: || runs("php", &["--version"]) },
    Package {
        name: "php-amqplib",
        is_there: || Path::new("/usr/share/php/PhpAmqpLib/autoload.php").exists(),
    },
    GO,
    Package {
        name: "golang-github-rabbitmq-amqp091-go-dev",
        is_there: || Path::new("/usr/share/gocode/src/github.com/rabbitmq/amqp091-go").exists(),
    },
    Package { name: "default-jdk-headless", is_there: || runs("javac", &["-version"]) },
    Package {
        name: "librabbitmq-client-java",
        is_there: || Path::new("/usr/share/java/amqp-client.jar").exists(),
    },
    // libFuzzer is C++.
    Package { name: "g++", is_there: || runs("c++", &["--version"]) },
];
const PYTHON: Package = Package {
    name: "python3-venv",
    is_there: || runs("python3", &["-c", "import venv, ensurepip"]),
};
const NODE: Package = Package { name: "nodejs", is_there: || runs("node", &["--version"]) };
/// For `sanitize`.
pub(crate) const VALGRIND: Package =
    Package { name: "valgrind", is_there: || runs("valgrind", &["--version"]) };
/// A peer in `bench runtime`.
const GO: Package = Package { name: "golang-go", is_there: || runs("go", &["version"]) };

/// Python packages, with the versions that the tests were written with.
const PYTHON_PACKAGES: &[&str] = &[
    "aio-pika==10.2.1",
    "amqp==5.4.2",
    "celery==5.7.0",
    "gevent==26.9.0",
    "greenlet==3.5.6",
    "kombu==5.7.0",
    "pika==1.4.4",
    "pytest==9.2.0",
    // With what its TLS needs.
    "Twisted[tls]==26.10.0",
];

/// The client for Node.
const AMQPLIB: &str = "amqplib@2.3.1";

/// What `bench reactor` compares with, beside Twisted.
const UVLOOP: &str = "uvloop==0.23.0";

/// Installs what the tests need. An error names what is missing and cannot be installed.
pub(crate) fn install() -> Result<(), String> {
    install_missing(FOR_TESTS)?;
    install_python()?;
    install_amqplib()
}

/// Python with gevent, for `bench runtime`.
pub(crate) fn install_gevent() -> Result<(), String> {
    install_missing(&[PYTHON])?;
    install_python()
}

/// Python with Twisted and uvloop, for `bench reactor`.
pub(crate) fn install_reactors() -> Result<(), String> {
    install_gevent()?;
    let python = python();
    if !runs(&python.to_string_lossy(), &["-c", "import uvloop"]) {
        println!("installing into {}: {UVLOOP}", venv().display());
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", UVLOOP]))?;
    }
    Ok(())
}

/// Go's compiler, for `bench runtime`.
pub(crate) fn install_go() -> Result<(), String> {
    install_missing(&[GO])
}

pub(crate) fn install_missing(packages: &[Package]) -> Result<(), String> {
    let missing = packages.iter().filter(|package| !(package.is_there)());
    let missing: Vec<&str> = missing.map(|package| package.name).collect();
    if missing.is_empty() { Ok(()) } else { install_packages(&missing) }
}

fn install_python() -> Result<(), String> {
    let python = python();
    let imports =
        "import gevent, pika, pytest, twisted, OpenSSL, service_identity, aio_pika, celery";
    if !runs(&python.to_string_lossy(), &["-c", imports]) {
        println!("installing into {}: {}", venv().display(), PYTHON_PACKAGES.join(", "));
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv()))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PYTHON_PACKAGES))?;
    }
    Ok(())
}

fn install_amqplib() -> Result<(), String> {
    if !node_modules().join("amqplib").exists() {
        let folder = root().join("target/node");
        println!("installing into {}: {AMQPLIB}", folder.display());
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let install = ["install", "--silent", "--no-audit", "--no-fund", "--prefix", ".", AMQPLIB];
        run(Command::new("npm").args(install).current_dir(&folder))?;
    }
    Ok(())
}

/// Where Node finds our packages.
pub(crate) fn node_modules() -> PathBuf {
    root().join("target/node/node_modules")
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

pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?}: {status}")),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
