//! What the end-to-end tests share: a server of their own, and programs whose output they read.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod certificates;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take before a test gives up: long, for a loaded machine starts a program slowly.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A running program, killed when dropped.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// The next line it prints.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the program prints another line")
    }

    /// The next line it prints, if it prints one before it ends.
    pub(crate) fn line_if_any(&self) -> Option<String> {
        self.lines.recv_timeout(PATIENCE).ok()
    }

    pub(crate) fn expect(&self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.line(), *line);
        }
    }

    /// Whether it has printed nothing that was not read.
    pub(crate) fn is_silent(&self) -> bool {
        self.lines.try_recv().is_err()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub(crate) fn finish(mut self) {
        assert!(self.wait().success());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The built `warren`. Of its settings in the environment only the number of hubs stays, so that all tests can be run
/// with several.
pub(crate) fn warren() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WARREN_") && name != "WARREN_HUBS" {
            command.env_remove(name);
        }
    }
    command
}

/// A built example.
pub(crate) fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    Command::new(folder.join("examples").join(name))
}

/// A `warren serve` on a free port.
pub(crate) struct Server {
    pub(crate) program: Program,
    pub(crate) url: String,
}

impl Server {
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self::start_on(data_dir, "amqp://127.0.0.1:0")
    }

    pub(crate) fn start_on(data_dir: &Path, listen: &str) -> Self {
        let mut command = warren();
        command.args(["serve", "--log", "error", "--listen", listen, "--data-dir"]).arg(data_dir);
        let program = Program::start(&mut command);
        let url = program.line().strip_prefix("listening ").expect("where it listens").to_owned();
        assert_eq!(program.line(), "ready");
        Self { program, url }
    }
}

/// The broker under test: the one that the environment names, or a server of our own.
pub(crate) struct Broker {
    pub(crate) url: String,
    _own: Option<(Server, tempfile::TempDir)>,
}

impl Broker {
    pub(crate) fn get() -> Self {
        match std::env::var("WARREN_TEST_AMQP_URL") {
            Ok(url) => Self { url, _own: None },
            Err(_) => {
                let folder = tempfile::tempdir().unwrap();
                let server = Server::start(folder.path());
                Self { url: server.url.clone(), _own: Some((server, folder)) }
            }
        }
    }
}

impl Broker {
    /// Turns its memory alarm on or off. False when nobody has said how: it is another's broker.
    pub(crate) fn set_alarm(&self, on: bool) -> bool {
        let variable = if on { "WARREN_TEST_ALARM" } else { "WARREN_TEST_CALM" };
        let mut command = match (&self._own, std::env::var(variable)) {
            (Some((_, folder)), _) => {
                let mut command = warren();
                command.args(["ctl", "--data-dir"]).arg(folder.path());
                let share = if on { "0.0000001" } else { "0.9" };
                command.args(["set_vm_memory_high_watermark", share]);
                command
            }
            (None, Ok(script)) => {
                let mut command = Command::new("sh");
                command.args(["-c", &script]);
                command
            }
            (None, Err(_)) => return false,
        };
        assert!(command.status().unwrap().success());
        true
    }
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/status"))).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The words of the commands after `warren` in that block of the README that begins so. Quotes keep some together.
pub(crate) fn readme_commands(beginning: &str) -> Vec<Vec<String>> {
    let readme = include_str!("../../README.md");
    let block = readme.split("```sh\n").find(|block| block.starts_with(beginning)).unwrap();
    let lines = block.split("```").next().unwrap().lines();
    lines.map(|line| words(line.strip_prefix("warren ").unwrap())).collect()
}

fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (letter, quote) {
            (' ', None) => words.extend(word.take()),
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, Some(end)) if letter == end => quote = None,
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}
