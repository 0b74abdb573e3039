//! A server of which several threads serve the connections.

mod support;

use std::io::Read;
use std::path::Path;

use rustix::process::Signal;
use support::{PATIENCE, Program, warren};
use warren::amqp::BasicProperties;
use warren::amqp::client::{Connection, ConsumeOptions, Publish, QueueOptions};
use warren::hub::{run, with_timeout};

/// A server with three hubs, on TCP and on a Unix socket, and its URL.
fn serve(folder: &Path) -> (Program, String) {
    let unix = format!("unix:{}", folder.join("socket").display());
    let mut command = warren();
    command.args(["serve", "--log", "error", "--hubs", "3", "--listen", "amqp://127.0.0.1:0"]);
    let program =
        Program::start(command.args(["--listen", &unix, "--data-dir"]).arg(folder.join("data")));
    let url = program.line().strip_prefix("listening ").expect("where it listens").to_owned();
    program.expect(&[&format!("listening {unix}"), "ready"]);
    (program, url)
}

#[test]
fn what_clients_of_all_hubs_send_is_neither_lost_nor_reordered() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, url) = serve(folder.path());
    // Bodies in one frame and in several, in messages that are cut out on the way and in some that are not.
    let flow = "--verify -x 3 -y 3 -C 1500 -q 100 -A 10 -s 32-9000 -i 0 --framemax 8192";
    let queues = "--queue-pattern hubs-%d --queue-pattern-from 1 --queue-pattern-to 3";
    for how in ["", "-f persistent", "-t fanout -e hubs-fanout"] {
        let mut command = warren();
        command.args(["perf", "--uri", &url]);
        for words in [flow, queues, how] {
            command.args(words.split_whitespace());
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn a_large_body_comes_whole_to_a_client_of_another_hub() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, url) = serve(folder.path());
    run(move || {
        let body: Vec<u8> = (0..20_000_000u32).map(|at| (at % 251) as u8).collect();
        let clients: Vec<_> = (0..2).map(|_| Connection::open(&url).unwrap()).collect();
        let channels: Vec<_> = clients.iter().map(|client| client.channel().unwrap()).collect();
        let queue = channels[0].queue_declare("", QueueOptions::default()).unwrap().queue;
        let mut consumer = channels[1].basic_consume(&queue, ConsumeOptions::default()).unwrap();
        for size in [body.len(), 0, 1, 100_000] {
            let publish = Publish::to("", &queue);
            channels[0].basic_publish(publish, &BasicProperties::new(), &body[..size]).unwrap();
            let came = with_timeout(PATIENCE, || consumer.next()).unwrap().unwrap().unwrap();
            assert!(came.body[..] == body[..size], "{size} bytes");
        }
        clients.into_iter().for_each(|client| client.close().unwrap());
    });
}

#[test]
fn what_is_wrong_is_answered_as_on_one_hub() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, url) = serve(folder.path());
    run(move || {
        let client = Connection::open(&url).unwrap();
        let channel = client.channel().unwrap();
        channel.confirm_select().unwrap();
        // The second comes behind the error of the first, and is not looked at.
        let publish = || Publish::to("no-such-exchange", "q");
        let _ = channel.basic_publish(publish(), &BasicProperties::new(), b"1");
        let _ = channel.basic_publish(publish(), &BasicProperties::new(), b"2");
        let error = channel.queue_declare("q", QueueOptions::default()).unwrap_err();
        assert_eq!(error.code().map(u16::from), Some(404), "{error}");
        // The connection goes on.
        let channel = client.channel().unwrap();
        channel.queue_declare("q", QueueOptions::default()).unwrap();
        client.close().unwrap();
    });
}

#[test]
fn at_the_end_clients_of_all_hubs_hear_why() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, url) = serve(folder.path());
    let pid = rustix::process::Pid::from_raw(server.pid().cast_signed()).unwrap();
    run(move || {
        let clients: Vec<_> = (0..4).map(|_| Connection::open(&url).unwrap()).collect();
        let channels: Vec<_> = clients.iter().map(|client| client.channel().unwrap()).collect();
        let consume = |channel: &warren::amqp::client::Channel| {
            let queue = channel.queue_declare("", QueueOptions::default()).unwrap().queue;
            channel.basic_consume(&queue, ConsumeOptions::default()).unwrap()
        };
        let consumers: Vec<_> = channels.iter().map(consume).collect();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        for mut consumer in consumers {
            let error = with_timeout(PATIENCE, || consumer.next()).unwrap().unwrap().unwrap_err();
            assert_eq!(error.code().map(u16::from), Some(320), "{error}");
        }
    });
    assert!(server.wait().success());
}

#[test]
fn a_client_that_stops_in_the_middle_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, url) = serve(folder.path());
    let address = url.strip_prefix("amqp://").unwrap().to_owned();
    // What is no AMQP is told so, and closed.
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer, b"AMQP\x00\x00\x09\x01");
    run(move || {
        let client = Connection::open(&url).unwrap();
        let channel = client.channel().unwrap();
        let options = QueueOptions { exclusive: true, ..QueueOptions::default() };
        channel.queue_declare("own", options).unwrap();
        // Gone without a word.
        drop((channel, client));
        let next = Connection::open(&url).unwrap();
        let claimed = with_timeout(PATIENCE, || {
            loop {
                let channel = next.channel().unwrap();
                let options = QueueOptions { exclusive: true, ..QueueOptions::default() };
                if channel.queue_declare("own", options).is_ok() {
                    return;
                }
                warren::hub::sleep(std::time::Duration::from_millis(5));
            }
        });
        assert!(claimed.is_ok(), "the queue of a client that has gone is there");
    });
}
