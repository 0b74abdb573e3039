//! Connections to `warren serve`: alarms, TLS.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{PATIENCE, Program, warren};
use warren::amqp::BasicProperties;
use warren::amqp::client::{Connection, Publish, QueueOptions};
use warren::hub::{run, sleep};

/// A server with settings of its own, and where it listens.
fn serve(data: &Path, settings: &[&str]) -> (Program, String) {
    let mut command = warren();
    command.args(["serve", "--log", "error", "--data-dir"]).arg(data).args(settings);
    let program = Program::start(&mut command);
    let url = program.line().strip_prefix("listening ").expect("where it listens").to_owned();
    assert_eq!(program.line(), "ready");
    (program, url)
}

#[track_caller]
fn wait_until(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "it does not come");
        sleep(Duration::from_millis(5));
    }
}

fn ctl(data: &Path, words: &[&str]) -> String {
    let mut command: Command = warren();
    let output = command.arg("ctl").args(words).env("WARREN_DATA_DIR", data).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_full_disk_blocks_publishers_and_tells_them_why() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_owned();
    // More than any disk has.
    let listen = ["--listen", "amqp://127.0.0.1:0", "--disk-free-limit", "1000000TB"];
    let (_server, url) = serve(&data, &listen);
    run(move || {
        let publisher = Connection::open(&url).unwrap();
        let channel = publisher.channel().unwrap();
        channel.queue_declare("q", QueueOptions::default()).unwrap();
        assert_eq!(publisher.blocked(), None, "it has not published");
        channel.basic_publish(Publish::to("", "q"), &BasicProperties::new(), b"1").unwrap();
        wait_until(|| publisher.blocked().is_some());
        assert_eq!(publisher.blocked().as_deref(), Some("low on disk"));
        assert!(ctl(&data, &["list_connections", "state"]).contains("blocked"));
        channel.basic_publish(Publish::to("", "q"), &BasicProperties::new(), b"2").unwrap();
        // Who consumes goes on.
        let consumer = Connection::open(&url).unwrap();
        let consuming = consumer.channel().unwrap();
        wait_until(|| consuming.basic_get("q", true).unwrap().is_some());
        assert!(consuming.basic_get("q", true).unwrap().is_none(), "the second was not read");
        assert!(consumer.blocked().is_none());
        ctl(&data, &["set_disk_free_limit", "0"]);
        wait_until(|| publisher.blocked().is_none());
        wait_until(|| consuming.basic_get("q", true).unwrap().is_some());
        publisher.close().unwrap();
        consumer.close().unwrap();
    });
}

#[test]
fn too_much_memory_blocks_publishers() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_owned();
    let (_server, url) = serve(&data, &["--listen", "amqp://127.0.0.1:0", "--memory-limit", "1kB"]);
    run(move || {
        let publisher = Connection::open(&url).unwrap();
        let channel = publisher.channel().unwrap();
        channel.basic_publish(Publish::to("", "q"), &BasicProperties::new(), b"1").unwrap();
        wait_until(|| publisher.blocked().as_deref() == Some("low on memory"));
        ctl(&data, &["set_vm_memory_high_watermark", "0.9"]);
        wait_until(|| publisher.blocked().is_none());
        publisher.close().unwrap();
    });
}
