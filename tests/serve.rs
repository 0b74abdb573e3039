//! `warren serve`: its settings, its output, its errors, its end.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};

use rustix::process::{Resource, Signal, getrlimit, setrlimit};
use support::{PATIENCE, Program, Server, resident_kib, warren};
use warren::amqp::client::{Connection, ConsumeOptions, QueueOptions};
use warren::hub::{run, with_timeout};

fn fails(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let error = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{error}");
    assert!(stdout.is_empty(), "nothing is announced");
    assert_eq!(error.lines().count(), 1, "one line: {error}");
    error
}

#[test]
fn listeners_are_announced_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let unix = format!("unix:{}", socket.display());
    let program = Program::start(
        warren()
            .args(["serve", "--log", "off", "--listen", "amqp://127.0.0.1:0", "--listen", &unix])
            .arg("--data-dir")
            .arg(folder.path().join("data")),
    );
    let tcp = program.line();
    assert!(tcp.starts_with("listening amqp://127.0.0.1:") && !tcp.ends_with(":0"), "{tcp}");
    program.expect(&[&format!("listening {unix}"), "ready"]);
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
    let mut kind = [0];
    stream.read_exact(&mut kind).unwrap();
    assert_eq!(kind, [1], "a method frame");
}

#[test]
fn a_unix_socket_is_its_owners_and_goes_with_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let mode = || fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    let start = |options: &str| {
        let unix = format!("unix:{}{options}", socket.display());
        let mut command = warren();
        command.args(["serve", "--log", "off", "--data-dir", "none", "--listen", &unix]);
        command
    };
    let ready = |command: &mut Command| {
        let program = Program::start(command);
        program.expect(&[&format!("listening unix:{}", socket.display()), "ready"]);
        program
    };
    let mut server = ready(&mut start(""));
    assert_eq!(mode(), 0o600);
    let error = fails(&mut start(""));
    assert!(error.contains("in use"), "{error}");
    server.signal(Signal::TERM);
    assert!(server.wait().success());
    assert!(!socket.exists());
    // One that was killed leaves its socket, and the next takes its place.
    let mut server = ready(&mut start("?mode=660"));
    assert_eq!(mode(), 0o660);
    server.signal(Signal::KILL);
    server.wait();
    assert!(socket.exists());
    let _server = ready(&mut start(""));
    assert_eq!(mode(), 0o600);
    // What is no socket stays.
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    let listen = format!("unix:{}", file.display());
    fails(warren().args(["serve", "--data-dir", "none", "--listen", &listen]));
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn what_a_listener_cannot_offer_is_told_before_anything_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let listen = "amqp://127.0.0.1:0?auth_mechanisms=EXTERNAL";
    let error = fails(warren().args(["serve", "--listen", listen, "--data-dir"]).arg(&data));
    assert!(error.contains("cannot offer EXTERNAL"), "{error}");
    assert!(!data.exists());
}

#[test]
fn settings_come_from_the_environment_and_a_file_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("warren.toml");
    fs::write(&file, "listen = ['amqp://127.0.0.1:0', 'amqp://[::1]:0']\nlog = 'off'\n").unwrap();
    let data = folder.path().join("data");
    let program = Program::start(
        warren().arg("serve").env("WARREN_CONFIG", &file).env("WARREN_DATA_DIR", &data),
    );
    assert!(program.line().starts_with("listening amqp://127.0.0.1:"));
    assert!(program.line().starts_with("listening amqp://[::1]:"));
    program.expect(&["ready"]);
    assert!(data.join("definitions.sqlite").exists());
}

#[test]
fn a_port_in_use_is_one_clear_line_and_nothing_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("amqp://{}", taken.local_addr().unwrap());
    let data = folder.path().join("data");
    let error = fails(warren().args(["serve", "--listen", &url, "--data-dir"]).arg(&data));
    assert!(
        error.contains(&format!("cannot listen on {url}")) && error.contains("in use"),
        "{error}"
    );
    assert!(!data.exists());
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let mut second = warren();
    second
        .args(["serve", "--log", "off", "--listen", "amqp://127.0.0.1:0", "--data-dir"])
        .arg(folder.path());
    let error = fails(&mut second);
    assert!(error.contains("is in use by another server"), "{error}");
    run(move || Connection::open(&server.url).and_then(|connection| connection.close()).unwrap());
}

#[test]
fn a_data_directory_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let mut command = warren();
    command
        .args(["serve", "--log", "off", "--listen", "amqp://127.0.0.1:0", "--data-dir"])
        .arg(&file);
    let error = fails(&mut command);
    assert!(error.contains(&file.display().to_string()), "{error}");
}

#[test]
fn wrong_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("warren.toml");
    fs::write(&file, "listn = []").unwrap();
    let error = warren().args(["serve", "--config"]).arg(&file).output().unwrap();
    assert_eq!(error.status.code(), Some(1));
    assert!(String::from_utf8(error.stderr).unwrap().contains("listn"));
    let error = warren().args(["serve", "--listen", "redis://127.0.0.1:6379"]).output().unwrap();
    assert!(
        String::from_utf8(error.stderr).unwrap().contains("'redis' listeners are not available")
    );
    let error = fails(warren().args(["serve", "--data-dir", "none", "--log", "loud=loud=loud"]));
    assert!(error.contains("is no log level"), "{error}");
}

#[test]
fn a_signal_closes_connections_in_order_and_ends_with_success() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::start(folder.path());
        let url = server.url.clone();
        let pid = rustix::process::Pid::from_raw(server.program.pid().cast_signed()).unwrap();
        run(move || {
            let connection = Connection::open(&url).unwrap();
            let channel = connection.channel().unwrap();
            let queue = channel.queue_declare("", QueueOptions::default()).unwrap().queue;
            let mut consumer = channel.basic_consume(&queue, ConsumeOptions::default()).unwrap();
            rustix::process::kill_process(pid, signal).unwrap();
            let error = with_timeout(PATIENCE, || consumer.next()).unwrap().unwrap().unwrap_err();
            assert_eq!(error.code().map(u16::from), Some(320), "{error}");
        });
        assert!(server.program.wait().success());
    }
}

#[test]
fn ten_thousand_idle_connections_are_held() {
    const CONNECTIONS: usize = 10_000;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let room = limit.maximum.map_or(CONNECTIONS, |maximum| maximum.saturating_sub(200) as usize);
    let count = CONNECTIONS.min(room);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let before = resident_kib(server.program.pid());
    let addr = server.url.strip_prefix("amqp://").unwrap();
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = std::net::TcpStream::connect(addr).unwrap();
        stream.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
        streams.push(stream);
    }
    // Each is served: it gets its greeting.
    for stream in &mut streams {
        let mut kind = [0];
        stream.read_exact(&mut kind).unwrap();
        assert_eq!(kind, [1]);
    }
    let after = resident_kib(server.program.pid());
    println!("{count} connections: {after} KiB resident, {before} KiB without");
    // A stack each, even the smallest, would take more.
    let each = (after - before) * 1024 / count as u64;
    assert!(each < 8 * 1024, "{each} bytes for a connection");
}
