//! The data directory: looked into from outside, damaged, and out of room.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use support::{PATIENCE, Program, Server, readme_commands, warren};
use warren::amqp::client::{Channel, Connection, Publish, QueueOptions};
use warren::amqp::{BasicProperties, FieldTable};
use warren::hub::{run, sleep};

fn durable(kind: &str) -> QueueOptions {
    let arguments = FieldTable::new().with("x-queue-type", kind);
    QueueOptions { durable: true, arguments, ..QueueOptions::default() }
}

/// Connects, lets `work` do its part, and closes in order.
fn talk<T: 'static>(url: &str, work: impl FnOnce(&Connection, &Channel) -> T + 'static) -> T {
    let url = url.to_owned();
    run(move || {
        let connection = Connection::open(&url).unwrap();
        let done = work(&connection, &connection.channel().unwrap());
        connection.close().unwrap();
        done
    })
}

fn store(words: &[&str], folder: &Path) -> Output {
    warren().arg("store").args(words).arg(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server that is killed, with three messages in a queue and two in a stream.
fn killed(folder: &Path) {
    let mut server = Server::start(folder);
    talk(&server.url, |_, channel| {
        channel.queue_declare("orders", durable("classic")).unwrap();
        channel.queue_declare("log", durable("stream")).unwrap();
        channel.confirm_select().unwrap();
        let properties = BasicProperties::persistent().with_header("colour", "red");
        for n in 0..3 {
            let body = format!("the body of order {n}");
            channel.basic_publish(Publish::to("", "orders"), &properties, body.as_bytes()).unwrap();
        }
        for n in 0..2 {
            let body = format!("line {n}");
            channel.basic_publish(Publish::to("", "log"), &properties, body.as_bytes()).unwrap();
        }
        channel.wait_for_confirms().unwrap();
    });
    let refused = store(&["check"], folder);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("is in use by another server"), "{refused:?}");
    server.program.signal(Signal::KILL);
    server.program.wait();
}

#[test]
fn a_data_directory_is_checked_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    killed(folder.path());
    let checked = store(&["check"], folder.path());
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
    let verdict = "nothing is damaged: 2 queues, 3 messages in them, 2 in streams";
    assert!(text(&checked.stdout).contains(verdict), "{checked:?}");
    let shown = store(&["dump", "--json", "--bodies"], folder.path());
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let rows: Vec<Value> =
        text(&shown.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| rows.iter().filter(|row| row["kind"] == kind).collect::<Vec<_>>();
    assert_eq!(of("messages")[1]["body"], "the body of order 1");
    assert_eq!(of("messages")[1]["properties"]["headers"]["colour"], "red");
    assert_eq!(of("stream_messages")[1]["offset"], 1);
    assert_eq!(of("users").len(), 1);
    assert!(!text(&shown.stdout).contains("\"password_hash\""));
    let shown = store(&["dump", "--queue", "log"], folder.path());
    let lines = text(&shown.stdout);
    assert!(lines.contains("stream_messages vhost=\"/\" queue=\"log\""), "{lines}");
    assert!(!lines.contains("orders"), "{lines}");
}

#[test]
fn the_commands_of_the_readme_work() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("warren");
    killed(&data);
    for words in readme_commands("warren store") {
        let mut command = warren();
        command.args(&words).env_remove("STATE_DIRECTORY").env("XDG_STATE_HOME", folder.path());
        let output = command.output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{words:?}: {output:?}");
    }
}

#[test]
fn one_bit_costs_one_message_and_is_told_where_it_stood() {
    let folder = tempfile::tempdir().unwrap();
    killed(folder.path());
    let path = folder.path().join("messages/0000000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(7).position(|bytes| bytes == b"order 1").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let checked = store(&["check"], folder.path());
    assert_eq!(checked.status.code(), Some(3), "{checked:?}");
    let told = text(&checked.stdout);
    assert!(told.contains(&format!("damaged: {}: bytes ", path.display())), "{told}");
    let server = Server::start(folder.path());
    let found = talk(&server.url, |_, channel| {
        let mut found = Vec::new();
        while let Some(got) = channel.basic_get("orders", true).unwrap() {
            found.push(text(&got.delivery.body));
        }
        found
    });
    assert_eq!(found, ["the body of order 0", "the body of order 2"]);
}

#[test]
fn a_server_refuses_a_newer_directory_with_a_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    killed(folder.path());
    let path = folder.path().join("messages/0000000001.seg");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    fs::write(&path, bytes).unwrap();
    let mut command = warren();
    command.args(["serve", "--log", "error", "--listen", "amqp://127.0.0.1:0", "--data-dir"]);
    let output = command.arg(folder.path()).output().unwrap();
    assert!(!output.status.success());
    let want = format!("{} is of format 9; this server reads format 4", path.display());
    assert!(text(&output.stderr).contains(&want), "{output:?}");
}

/// A small file system of our own, in a namespace that a process holds.
struct SmallDisk {
    holder: Program,
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// None where the system does not let us, which is said.
    fn new(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "mount -t tmpfs -o size={mebibytes}m tmpfs '{}' && echo mounted && exec sleep 600 || echo refused",
            folder.path().display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        let is_there = Command::new("unshare").arg("--version").output().is_ok();
        let holder = is_there.then(|| Program::start(&mut command));
        let holder = holder.filter(|holder| holder.line_if_any().as_deref() == Some("mounted"));
        if holder.is_none() {
            eprintln!("not run: this system lets nobody mount a small file system");
        }
        Some(Self { holder: holder?, folder })
    }

    /// Where the file system is, seen from outside of the namespace.
    fn seen(&self) -> PathBuf {
        let path = self.folder.path().strip_prefix("/").unwrap();
        Path::new(&format!("/proc/{}/root", self.holder.pid())).join(path)
    }

    fn serve(&self, settings: &[&str]) -> Server {
        let program = warren();
        let mut command = Command::new("nsenter");
        let target = format!("--target={}", self.holder.pid());
        command.args([&target, "--mount"]);
        command.arg(program.get_program());
        command.args(["serve", "--log", "error", "--listen", "amqp://127.0.0.1:0", "--data-dir"]);
        command.arg(self.folder.path().join("data")).args(settings);
        let program = Program::start(&mut command);
        let url = program.line().strip_prefix("listening ").expect("where it listens").to_owned();
        assert_eq!(program.line(), "ready");
        Server { program, url }
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.seen().join("ballast")).unwrap();
        while std::io::Write::write_all(&mut file, &[0; 4096]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.seen().join("ballast")).unwrap();
    }
}

#[track_caller]
fn wait_until(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "it does not come");
        sleep(Duration::from_millis(20));
    }
}

/// Publishes until the server has confirmed one more; what it has confirmed is noted.
fn publish(channel: &Channel, next: &mut u32, confirmed: &mut BTreeSet<String>) -> bool {
    let body = format!("{next} {}", "x".repeat(2000));
    *next += 1;
    let properties = BasicProperties::persistent();
    let sent = channel.publish(Publish::to("", "kept"), &properties, body.as_bytes());
    let settled = sent.unwrap().wait_timeout(Duration::from_secs(5));
    settled.is_ok_and(|()| confirmed.insert(body))
}

/// The disk fills up under a server: what it could not write it does not confirm, who consumes goes on, and when there
/// is room again it confirms again. Nothing that was confirmed is missing after a kill.
#[test]
fn a_disk_that_is_full_loses_nothing() {
    let Some(disk) = SmallDisk::new(96) else { return };
    // The alarm would keep publishers away before the disk is full.
    let mut server = disk.serve(&["--disk-free-limit", "0"]);
    let seen = disk.seen();
    let (url, disk) = (server.url.clone(), disk);
    let (disk, confirmed, taken) = run(move || {
        let connection = Connection::open(&url).unwrap();
        let channel = connection.channel().unwrap();
        channel.queue_declare("kept", durable("classic")).unwrap();
        channel.confirm_select().unwrap();
        let (mut next, mut confirmed, mut taken) = (0, BTreeSet::new(), BTreeSet::new());
        for _ in 0..2 {
            for _ in 0..20 {
                assert!(publish(&channel, &mut next, &mut confirmed), "there is room");
            }
            disk.fill();
            // What was reserved before may take some more.
            wait_until(|| !publish(&channel, &mut next, &mut confirmed));
            // Who consumes goes on.
            let consumer = Connection::open(&url).unwrap();
            let consuming = consumer.channel().unwrap();
            let got = consuming.basic_get("kept", true).unwrap().expect("what is there");
            taken.insert(text(&got.delivery.body));
            disk.empty();
            wait_until(|| publish(&channel, &mut next, &mut confirmed));
            consumer.close().unwrap();
        }
        (disk, confirmed, taken)
    });
    assert!(seen.join("data/messages").is_dir());
    server.program.signal(Signal::KILL);
    server.program.wait();
    let server = disk.serve(&[]);
    let found = talk(&server.url, |_, channel| {
        let mut found = BTreeSet::new();
        while let Some(got) = channel.basic_get("kept", true).unwrap() {
            found.insert(text(&got.delivery.body));
        }
        found
    });
    let lost: Vec<_> = confirmed.iter().filter(|body| !found.contains(*body)).collect();
    assert!(lost.iter().all(|body| taken.contains(*body)), "confirmed and lost");
}

/// Before the disk is full its alarm keeps publishers away, and says why.
#[test]
fn the_alarm_comes_before_the_end_of_the_disk() {
    let Some(disk) = SmallDisk::new(96) else { return };
    let server = disk.serve(&["--disk-free-limit", "8MiB"]);
    let url = server.url.clone();
    run(move || {
        let connection = Connection::open(&url).unwrap();
        let channel = connection.channel().unwrap();
        channel.queue_declare("kept", durable("classic")).unwrap();
        channel.confirm_select().unwrap();
        let (mut next, mut confirmed) = (0, BTreeSet::new());
        assert!(publish(&channel, &mut next, &mut confirmed));
        disk.fill();
        let consumer = Connection::open(&url).unwrap();
        let consuming = consumer.channel().unwrap();
        let properties = BasicProperties::persistent();
        wait_until(|| {
            // Once it is blocked the client itself waits.
            if connection.blocked().is_none() {
                channel.basic_publish(Publish::to("", "kept"), &properties, b"more").unwrap();
            }
            connection.blocked().is_some()
        });
        assert!(connection.blocked().unwrap().starts_with("low on disk"));
        assert!(consuming.basic_get("kept", true).unwrap().is_some());
        disk.empty();
        wait_until(|| connection.blocked().is_none());
        wait_until(|| publish(&channel, &mut next, &mut confirmed));
        consumer.close().unwrap();
        connection.close().unwrap();
    });
}
