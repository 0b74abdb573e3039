//! Servers for the tests, each on ports and in a folder of its own, ended when dropped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::install::RABBITMQ_SERVER;

/// Plugins that ship with it and whose features Warren has.
const RABBITMQ_PLUGINS: &[&str] = &[
    "rabbitmq_auth_mechanism_ssl",
    "rabbitmq_consistent_hash_exchange",
    "rabbitmq_event_exchange",
    "rabbitmq_management",
    "rabbitmq_random_exchange",
    "rabbitmq_recent_history_exchange",
    "rabbitmq_sharding",
];

/// How long a server may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running server.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) url: String,
    /// Where RabbitMQ's management listens.
    pub(crate) api: String,
    child: Child,
    folder: PathBuf,
    epmd_port: Option<u16>,
}

impl Server {
    /// Starts a `warren serve` with a data directory of its own.
    pub(crate) fn warren(binary: &Path) -> Result<Self, String> {
        let folder = new_folder("warren")?;
        let log = create(&folder.join("log"))?;
        let mut child = Command::new(binary)
            .args(["serve", "--listen", "amqp://127.0.0.1:0", "--log", "info", "--data-dir"])
            .arg(folder.join("data"))
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let stdout = child.stdout.take();
        let mut server = Self {
            name: "warren",
            url: String::new(),
            api: String::new(),
            child,
            folder,
            epmd_port: None,
        };
        for line in
            BufReader::new(stdout.ok_or("no standard output")?).lines().map_while(Result::ok)
        {
            match line.strip_prefix("listening ") {
                Some(url) => server.url = url.to_owned(),
                None if line == "ready" => return Ok(server),
                None => {}
            }
        }
        Err(format!("warren serve did not start:\n{}", server.log()))
    }

    /// Starts a RabbitMQ node that shares nothing with one that the system may run.
    pub(crate) fn rabbitmq() -> Result<Self, String> {
        let folder = new_folder("rabbitmq")?;
        let [port, dist_port, epmd_port, api_port] = free_ports()?;
        write(&folder.join("plugins"), &format!("[{}].\n", RABBITMQ_PLUGINS.join(",")))?;
        let settings = format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {api_port}\n");
        write(&folder.join("rabbitmq.conf"), &settings)?;
        let log = create(&folder.join("log"))?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let child = Command::new(RABBITMQ_SERVER)
            .env("HOME", &folder)
            .env("RABBITMQ_NODENAME", format!("warren-test-{port}@localhost"))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", port.to_string())
            .env("RABBITMQ_DIST_PORT", dist_port.to_string())
            .env("ERL_EPMD_PORT", epmd_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("logs"))
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq"))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{RABBITMQ_SERVER}: {error}"))?;
        let url = format!("amqp://127.0.0.1:{port}");
        let api = format!("http://127.0.0.1:{api_port}");
        let epmd_port = Some(epmd_port);
        let mut server = Self { name: "rabbitmq", url, api, child, folder, epmd_port };
        let start = Instant::now();
        while !greets(port) || TcpStream::connect(("127.0.0.1", api_port)).is_err() {
            let ended = !matches!(server.child.try_wait(), Ok(None));
            if ended || PATIENCE < start.elapsed() {
                return Err(format!("RabbitMQ did not start:\n{}", server.log()));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(server)
    }

    /// What the server has written to its log: its last lines.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The process that was started, which leads a group of its own.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            // It may have ended by itself.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.signal(Signal::KILL);
        let _ = self.child.wait();
        if let Some(port) = self.epmd_port {
            // Erlang's name service, which outlives the node that started it.
            let port = port.to_string();
            let mut epmd = Command::new("epmd");
            epmd.args(["-port", &port, "-kill"]).stdout(Stdio::null()).stderr(Stdio::null());
            let _ = epmd.status();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Whether something on this port answers an AMQP header with a method.
fn greets(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let mut kind = [0];
    stream.write_all(b"AMQP\0\0\x09\x01").is_ok()
        && stream.read_exact(&mut kind).is_ok()
        && kind == [1]
}

fn new_folder(name: &str) -> Result<PathBuf, String> {
    let folder = std::env::temp_dir().join(format!("warren-xtask-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn create(path: &Path) -> Result<File, String> {
    File::create(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Ports that nobody has now. RabbitMQ cannot be told to take a free one and say which.
fn free_ports<const N: usize>() -> Result<[u16; N], String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut listeners = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        *port = listener.local_addr().map_err(failed)?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
