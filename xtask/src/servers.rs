//! Servers for the tests, each on ports and in a folder of its own, ended when dropped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::certificates::Authority;

/// RabbitMQ's own start script. The wrapper on the path would change the user.
pub const RABBITMQ_SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// Its control program: not the wrapper either.
pub const RABBITMQ_CTL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";

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
pub struct Server {
    /// `warren` or `rabbitmq`.
    pub name: &'static str,
    /// Where clients connect.
    pub url: String,
    /// Where RabbitMQ's management listens.
    pub api: String,
    launch: Command,
    child: Child,
    /// Those that take connections once it has started. One without any says itself when that is, and where.
    ports: Vec<u16>,
    folder: PathBuf,
    epmd_port: Option<u16>,
    /// What its operator can do to it: the variable that tells the tests, and a command for the shell.
    pub operator: Vec<(&'static str, String)>,
}

impl Server {
    /// Starts a `warren serve` with a data directory of its own, and these arguments more.
    ///
    /// # Errors
    /// When it does not start: with its log.
    pub fn warren(binary: &Path, arguments: &[&str]) -> Result<Self, String> {
        let folder = new_folder("warren")?;
        let log = create(&folder.join("log"))?;
        let mut launch = Command::new(binary);
        launch
            .args(["serve", "--listen", "amqp://127.0.0.1:0", "--log", "info", "--data-dir"])
            .arg(folder.join("data"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(log);
        Self::launch("warren", launch, folder)
    }

    /// Starts a `warren serve` that a command kills, and that is there again on the same port.
    pub fn warren_again_and_again(binary: &Path) -> Result<Self, String> {
        let folder = new_folder("warren")?;
        let [port, tls_port] = quiet_ports()?;
        let log = create(&folder.join("log"))?;
        Authority::certify_all_in(&folder);
        write(&folder.join("warren.toml"), &warren_settings(port, tls_port))?;
        write(&folder.join("login"), "WARREN_TLS_CERT_LOGIN_FROM=common_name")?;
        // The shell starts it again whenever it has ended.
        let forever = "while :; do env $(cat login) \"$0\" serve --config warren.toml & echo $! > pid; wait; done";
        let binary = std::path::absolute(binary).map_err(|error| error.to_string())?;
        let mut launch = Command::new("sh");
        launch
            .args(["-c", forever])
            .arg(&binary)
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(log);
        // The old one must be gone before the new one is looked for.
        let restart = format!(
            "cd '{}' && old=$(cat pid) && kill -9 $old && until new=$(cat pid) && test -n \"$new\" -a \"$new\" != $old && \
             python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}))' 2>/dev/null; do sleep 0.05; done",
            folder.display()
        );
        let control =
            format!("'{}' ctl --data-dir '{}'", binary.display(), folder.join("data").display());
        // The settings of one start are in its environment.
        let login_from = format!(
            "cd '{}' && echo WARREN_TLS_CERT_LOGIN_FROM=$FROM ${{KIND:+WARREN_TLS_CERT_LOGIN_SAN_TYPE=$KIND}} \
             ${{INDEX:+WARREN_TLS_CERT_LOGIN_SAN_INDEX=$INDEX}} > login && {restart}",
            folder.display()
        );
        let mut operator =
            vec![("WARREN_TEST_RESTART", restart), ("WARREN_TEST_LOGIN_FROM", login_from)];
        operator.extend(common_operator(&control, "0.6", &folder, tls_port));
        let mut server = Self::prepare("warren", launch, folder)?;
        server.url = format!("amqp://127.0.0.1:{port}");
        server.operator = operator;
        server.ports = vec![port, tls_port];
        server.wait()?;
        Ok(server)
    }

    /// Starts a RabbitMQ node that shares nothing with one that the system may run.
    pub fn rabbitmq() -> Result<Self, String> {
        let folder = new_folder("rabbitmq")?;
        let [port, dist_port, epmd_port, api_port, tls_port] = quiet_ports()?;
        Authority::certify_all_in(&folder);
        write(&folder.join("plugins"), &format!("[{}].\n", RABBITMQ_PLUGINS.join(",")))?;
        write(&folder.join("rabbitmq.conf"), &rabbitmq_settings(&folder, api_port, tls_port))?;
        let log = create(&folder.join("log"))?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        let mut launch = Command::new(RABBITMQ_SERVER);
        launch
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
            .stdout(log)
            .stderr(errors);
        let control = format!(
            "HOME='{}' ERL_EPMD_PORT={epmd_port} {RABBITMQ_CTL} -q -n warren-test-{port}@localhost",
            folder.display()
        );
        // It looks at these for each login.
        let login_from = format!(
            "{control} eval \"application:set_env(rabbit, ssl_cert_login_from, $FROM), \
             application:set_env(rabbit, ssl_cert_login_san_type, ${{KIND:-dns}}), \
             application:set_env(rabbit, ssl_cert_login_san_index, ${{INDEX:-0}}).\""
        );
        let mut operator = vec![
            ("WARREN_TEST_RESTART", format!("{control} stop_app && {control} start_app")),
            ("WARREN_TEST_LOGIN_FROM", login_from),
        ];
        operator.extend(common_operator(&control, "0.4", &folder, tls_port));
        let mut server = Self::prepare("rabbitmq", launch, folder)?;
        server.url = format!("amqp://127.0.0.1:{port}");
        server.api = format!("http://127.0.0.1:{api_port}");
        server.epmd_port = Some(epmd_port);
        server.operator = operator;
        server.ports = vec![port, api_port, tls_port];
        server.wait()?;
        Ok(server)
    }

    fn launch(name: &'static str, launch: Command, folder: PathBuf) -> Result<Self, String> {
        let mut server = Self::prepare(name, launch, folder)?;
        server.wait()?;
        Ok(server)
    }

    /// Starts the process; nobody knows yet where it is going to listen.
    fn prepare(name: &'static str, mut launch: Command, folder: PathBuf) -> Result<Self, String> {
        launch.stdin(Stdio::null()).process_group(0);
        let child = launch.spawn().map_err(|error| format!("{launch:?}: {error}"))?;
        Ok(Self {
            name,
            url: String::new(),
            api: String::new(),
            launch,
            child,
            ports: Vec::new(),
            folder,
            epmd_port: None,
            operator: Vec::new(),
        })
    }

    /// Ends the process in order, or kills it, and starts it again with its data. Gives how long the start took.
    ///
    /// # Errors
    /// When it does not end or does not start: with its log.
    pub fn restart(&mut self, kill: bool) -> Result<Duration, String> {
        if kill {
            self.signal(Signal::KILL);
        }
        self.end();
        let start = Instant::now();
        self.child = self.launch.spawn().map_err(|error| format!("{:?}: {error}", self.launch))?;
        self.wait()?;
        Ok(start.elapsed())
    }

    /// Waits until it says that it is ready; or until the first port speaks AMQP and the others take connections.
    fn wait(&mut self) -> Result<(), String> {
        let failed = |server: &Self| format!("{} did not start:\n{}", server.name, server.log());
        if self.ports.is_empty() {
            let stdout = self.child.stdout.take().ok_or("no standard output")?;
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                match line.strip_prefix("listening ") {
                    Some(url) => self.url = url.to_owned(),
                    None if line == "ready" => return Ok(()),
                    None => {}
                }
            }
            return Err(failed(self));
        }
        let start = Instant::now();
        let connects = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
        while !greets(self.ports[0]) || !self.ports[1..].iter().all(connects) {
            let ended = !matches!(self.child.try_wait(), Ok(None));
            if ended || PATIENCE < start.elapsed() {
                return Err(failed(self));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What the server has written to its log: its last lines.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// The process that was started, which leads a group of its own.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where all is that it writes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            // It may have ended by itself.
            let _ = kill_process_group(group, signal);
        }
    }

    /// In order, if it does not take too long.
    fn end(&mut self) {
        self.signal(Signal::TERM);
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
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

/// What is the same for both: the commands of `control`, and where TLS is spoken with what certificates.
fn common_operator(
    control: &str,
    calm: &str,
    folder: &Path,
    tls_port: u16,
) -> Vec<(&'static str, String)> {
    let watermark = "set_vm_memory_high_watermark";
    vec![
        ("WARREN_TEST_CTL", control.to_owned()),
        ("WARREN_TEST_ALARM", format!("{control} {watermark} 0.0000001")),
        ("WARREN_TEST_CALM", format!("{control} {watermark} {calm}")),
        ("WARREN_TEST_AMQPS_URL", format!("amqps://127.0.0.1:{tls_port}")),
        ("WARREN_TEST_CERTIFICATES", folder.display().to_string()),
    ]
}

fn warren_settings(port: u16, tls_port: u16) -> String {
    format!(
        "listen = ['amqp://127.0.0.1:{port}', 'amqps://127.0.0.1:{tls_port}']\n\
         data-dir = 'data'\n\
         auth-mechanisms = ['PLAIN', 'AMQPLAIN', 'EXTERNAL']\n\
         tls = {{ cert = 'server.pem', key = 'server.key', ca = 'ca.pem' }}\n"
    )
}

fn rabbitmq_settings(folder: &Path, api_port: u16, tls_port: u16) -> String {
    let folder = folder.display();
    format!(
        "management.tcp.ip = 127.0.0.1\n\
         management.tcp.port = {api_port}\n\
         listeners.ssl.1 = 127.0.0.1:{tls_port}\n\
         ssl_options.cacertfile = {folder}/ca.pem\n\
         ssl_options.certfile = {folder}/server.pem\n\
         ssl_options.keyfile = {folder}/server.key\n\
         ssl_options.verify = verify_peer\n\
         ssl_options.fail_if_no_peer_cert = false\n\
         ssl_options.versions.1 = tlsv1.3\n\
         ssl_options.versions.2 = tlsv1.2\n\
         auth_mechanisms.1 = PLAIN\n\
         auth_mechanisms.2 = AMQPLAIN\n\
         auth_mechanisms.3 = EXTERNAL\n\
         ssl_cert_login_from = common_name\n"
    )
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

/// Ports that nobody has now and that no client is given by the system: below the range it gives them from. While a
/// broker restarts, a client that connects again and again from within that range may meet itself there, and keep
/// the port.
fn quiet_ports<const N: usize>() -> Result<[u16; N], String> {
    let first = 10_000 + u16::try_from(std::process::id() % 2_000).unwrap_or_default() * 10;
    let mut listeners = Vec::new();
    for port in first..32_000 {
        listeners
            .extend(TcpListener::bind(("127.0.0.1", port)).ok().map(|listener| (port, listener)));
        if listeners.len() == N {
            return Ok(std::array::from_fn(|index| listeners[index].0));
        }
    }
    Err("no port is free".into())
}
