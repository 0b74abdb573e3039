//! What goes wrong round a server, one thing at a time: it goes on for everybody else.

mod descriptors;
mod floods;
mod peers;
#[path = "../support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{PATIENCE, Program, warren};
use warren::amqp::client::{Connection, Publish, QueueOptions};
use warren::amqp::frame::{self, PROTOCOL_HEADER};
use warren::amqp::method::{channel, connection};
use warren::amqp::{BasicProperties, FieldTable};
use warren::hub::run;

/// A server with settings of its own, and where it listens.
fn serve(data: &Path, settings: &[&str]) -> (Program, String) {
    let mut command = warren();
    command.args(["serve", "--log", "error", "--listen", "amqp://127.0.0.1:0", "--data-dir"]);
    let program = Program::start(command.arg(data).args(settings));
    let url = program.line().strip_prefix("listening ").expect("where it listens").to_owned();
    assert_eq!(program.line(), "ready");
    (program, url)
}

/// A socket to the server, of which nothing has been said yet.
fn dial(url: &str) -> TcpStream {
    let stream = TcpStream::connect(url.strip_prefix("amqp://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The bytes of a client up to its channel 1.
fn log_in(heartbeat: u16) -> Vec<u8> {
    let mut said = PROTOCOL_HEADER.to_vec();
    let (mechanism, response, locale) = ("PLAIN", &b"\0guest\0guest"[..], "en_US");
    let client_properties = FieldTable::new();
    let start_ok = connection::StartOk { client_properties, mechanism, response, locale };
    frame::write_method(&mut said, 0, &start_ok);
    let tune_ok = connection::TuneOk { channel_max: 8, frame_max: 131_072, heartbeat };
    frame::write_method(&mut said, 0, &tune_ok);
    frame::write_method(&mut said, 0, &connection::Open { virtual_host: "/" });
    frame::write_method(&mut said, 1, &channel::Open {});
    said
}

/// A client that says what is to be said and reads nothing.
fn mute(url: &str, heartbeat: u16, more: &[u8]) -> TcpStream {
    let mut stream = dial(url);
    stream.write_all(&[&log_in(heartbeat), more].concat()).unwrap();
    stream
}

/// Reads until the server has closed the connection.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => said,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => said,
        Err(error) => panic!("it is not closed: {error}"),
    }
}

/// The greeting of the server.
fn greet(stream: &mut TcpStream) {
    stream.write_all(&PROTOCOL_HEADER).unwrap();
    let mut kind = [0];
    stream.read_exact(&mut kind).unwrap();
    assert_eq!(kind, [1], "a method frame");
}

/// Whoever comes anew is served.
fn is_well(url: &str) {
    let url = url.to_owned();
    run(move || {
        let connection = Connection::open(&url).unwrap();
        let channel = connection.channel().unwrap();
        let queue = channel.queue_declare("", QueueOptions::default()).unwrap().queue;
        round_trip(&channel, &queue);
        channel.queue_delete(&queue, false, false).unwrap();
        connection.close().unwrap();
    });
}

fn round_trip(channel: &warren::amqp::client::Channel, queue: &str) {
    channel.basic_publish(Publish::to("", queue), &BasicProperties::new(), b"ping").unwrap();
    let got = channel.basic_get(queue, true).unwrap().unwrap();
    assert_eq!(got.delivery.body, b"ping");
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "it does not come that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processor time that a process has used.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(10 * ticks)
}

/// The descriptors of a process.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}
