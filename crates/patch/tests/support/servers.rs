//! Real servers, each a private process with a folder of its own, ended with the test.

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Set where a missing server is a failure and no reason to leave a test out.
const REQUIRED: &str = "WARREN_TEST_SERVERS";
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs.
pub struct Server {
    child: Child,
    folder: TempDir,
    pub port: u16,
    /// It ends when asked to, and should be let.
    ends_by_itself: bool,
}

impl Server {
    /// The Unix socket of the database.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn start(
        command: &mut Command,
        folder: TempDir,
        port: u16,
        answers: impl Fn(&Self) -> bool,
    ) -> Self {
        let log = File::create(folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // SAFETY: between fork and exec, one system call.
        unsafe {
            command.pre_exec(|| {
                // It must not outlive a test that is aborted.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let mut server = Self { child, folder, port, ends_by_itself: false };
        let started = Instant::now();
        while !answers(&server) {
            let ended = server.child.try_wait().unwrap();
            if ended.is_some() || PATIENCE < started.elapsed() {
                let log = fs::read_to_string(server.folder.path().join("log")).unwrap();
                panic!("{command:?} does not answer ({ended:?}):\n{log}");
            }
            sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.child.id().cast_signed();
        // At once: nothing of it is kept. PostgreSQL takes its own children along when it is asked so.
        // SAFETY: a child of ours that has not been waited for.
        unsafe { libc::kill(pid, libc::SIGQUIT) };
        if !self.ends_by_itself {
            // SAFETY: as above.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        let _ = self.child.wait();
    }
}

pub fn redis() -> Option<Server> {
    let program = program("redis-server", &[])?;
    let folder = folder();
    let port = free_port();
    let mut command = Command::new(program);
    command
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--port", &port.to_string(), "--dir"])
        .arg(folder.path());
    Some(Server::start(&mut command, folder, port, greets))
}

/// Without its system tables, and so without users: whoever comes is let in.
pub fn mariadb() -> Option<Server> {
    let program = program("mariadbd", &["/usr/sbin"])?;
    let folder = folder();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let data = path("data");
    fs::create_dir(&data).unwrap();
    let mut command = Command::new(program);
    command
        .args(["--no-defaults", "--skip-grant-tables", "--skip-networking", "--user=root"])
        .args([format!("--datadir={data}"), format!("--socket={}", path("socket"))])
        .args([format!("--pid-file={}", path("pid")), format!("--tmpdir={}", path(""))])
        .args(["--innodb-buffer-pool-size=8M", "--innodb-fast-shutdown=2"]);
    Some(Server::start(&mut command, folder, 0, |server| {
        UnixStream::connect(server.socket()).is_ok()
    }))
}

pub fn postgres() -> Option<Server> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders: Vec<String> =
        versions.map(|version| version.path().join("bin").display().to_string()).collect();
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    let install = program("initdb", &folders)?;
    let program = program("postgres", &folders)?;
    let folder = folder();
    let port = free_port();
    let owner = give_away(folder.path(), "postgres");
    let data = folder.path().join("data");
    let as_owner = |command: &mut Command| {
        // It refuses to run as root.
        if let Some((uid, gid)) = owner {
            command.uid(uid).gid(gid);
        }
        command.arg("-D").arg(&data).current_dir(folder.path()).env("LC_ALL", "C");
    };
    let mut command = Command::new(install);
    as_owner(&mut command);
    run(command.args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8"]));
    let mut command = Command::new(program);
    as_owner(&mut command);
    command
        .args(["-p", &port.to_string(), "-k", ""])
        .args(["-c", "listen_addresses=localhost", "-c", "max_connections=130"])
        .args(["-c", "fsync=off", "-c", "shared_buffers=16MB"]);
    let mut server = Server::start(&mut command, folder, port, ready_for_queries);
    server.ends_by_itself = true;
    Some(server)
}

/// Where the program is; `None`, and a word about it, when it is missing and that is no failure.
fn program(name: &str, folders: &[&str]) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = path
        .split(':')
        .chain(folders.iter().copied())
        .map(|folder| Path::new(folder).join(name))
        .find(|program| program.exists());
    if found.is_none() {
        assert!(std::env::var_os(REQUIRED).is_none(), "{name} is not installed");
        eprintln!("left out: {name} is not installed");
    }
    found
}

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("warren-patch-").tempdir().unwrap()
}

/// Makes the folder the user's, when we are root, and tells the numbers of user and group.
fn give_away(folder: &Path, user: &str) -> Option<(u32, u32)> {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.split(':').next() == Some(user)).unwrap();
    let mut numbers = line.split(':').skip(2).map(|number| number.parse().unwrap());
    let (uid, gid) = (numbers.next().unwrap(), numbers.next().unwrap());
    chown(folder, Some(uid), Some(gid)).unwrap();
    Some((uid, gid))
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// A port that nobody has now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn greets(server: &Server) -> bool {
    TcpStream::connect(("127.0.0.1", server.port)).is_ok()
}

/// PostgreSQL listens before it is ready; then it answers a start with an error or a question.
fn ready_for_queries(server: &Server) -> bool {
    use io::{Read, Write};
    let Ok(mut stream) = TcpStream::connect(("localhost", server.port)) else { return false };
    let user = b"user\0postgres\0database\0postgres\0\0";
    let mut start = ((8 + user.len()) as u32).to_be_bytes().to_vec();
    start.extend(196_608_u32.to_be_bytes());
    start.extend(user);
    let mut kind = [0];
    stream.write_all(&start).is_ok() && stream.read_exact(&mut kind).is_ok() && kind == *b"R"
}
