//! What `warren serve` takes of the memory, as the system counts it, with bounds that leave the allocator room.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{PATIENCE, Program, warren};
use warren::amqp::client::{Connection, ConsumeOptions, Publish, QueueOptions};
use warren::amqp::{BasicProperties, FieldTable};
use warren::hub::{run, sleep};

const MIB: u64 = 1024 * 1024;

fn serve(data: &Path, settings: &[&str]) -> (Program, String) {
    let mut command = warren();
    command.args(["serve", "--log", "error", "--listen", "amqp://127.0.0.1:0", "--data-dir"]);
    let program = Program::start(command.arg(data).args(settings));
    let url = program.line().strip_prefix("listening ").expect("where it listens").to_owned();
    assert_eq!(program.line(), "ready");
    (program, url)
}

/// A line of the process's status: what it has in memory (`RssAnon`), or had at most (`VmHWM`).
fn status(program: &Program, line: &str) -> u64 {
    let path = format!("/proc/{}/status", program.pid());
    let text = std::fs::read_to_string(path).unwrap();
    let rest = text.lines().find_map(|other| other.strip_prefix(line)).unwrap();
    let kib = rest.trim_start_matches(':').split_whitespace().next().unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

#[track_caller]
fn wait_until(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "it does not come");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_backlog_of_many_queues_stays_within_the_limit_and_blocks_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (server, url) = serve(folder.path(), &["--memory-limit", "64MiB"]);
    run(move || {
        let publisher = Connection::open(&url).unwrap();
        let channel = publisher.channel().unwrap();
        // Each within the window of a queue; together three times the limit.
        let queues: Vec<String> = (0..16).map(|number| format!("q{number}")).collect();
        for queue in &queues {
            channel.queue_declare(queue, QueueOptions::default()).unwrap();
        }
        channel.confirm_select().unwrap();
        let body = vec![b'.'; 16 * 1024];
        for _ in 0..768 {
            for queue in &queues {
                let publish = Publish::to("", queue);
                channel.basic_publish(publish, &BasicProperties::new(), &body).unwrap();
            }
        }
        channel.wait_for_confirms().unwrap();
        assert_eq!(publisher.blocked(), None);
        let used = status(&server, "RssAnon");
        assert!(used < 64 * MIB, "{} MiB", used / MIB);
        for queue in &queues {
            assert_eq!(channel.queue_purge(queue).unwrap(), 768);
        }
        // The system has it back, in time.
        wait_until(|| status(&server, "RssAnon") < 32 * MIB);
        publisher.close().unwrap();
    });
}

#[test]
fn a_large_body_is_in_memory_once_or_twice_and_then_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let (server, url) = serve(folder.path(), &[]);
    run(move || {
        let client = Connection::open(&url).unwrap();
        let channel = client.channel().unwrap();
        let durable = QueueOptions { durable: true, ..QueueOptions::default() };
        channel.queue_declare("q", durable).unwrap();
        channel.confirm_select().unwrap();
        let body = vec![b'.'; 64 * MIB as usize];
        let properties = BasicProperties::persistent();
        channel.basic_publish(Publish::to("", "q"), &properties, &body).unwrap();
        channel.wait_for_confirms().unwrap();
        let got = channel.basic_get("q", true).unwrap().unwrap();
        assert_eq!(got.delivery.body.len(), body.len());
        // As it came, and as it is written.
        let most = status(&server, "VmHWM");
        assert!(most < 192 * MIB, "{} MiB", most / MIB);
        wait_until(|| status(&server, "RssAnon") < 32 * MIB);
        client.close().unwrap();
    });
}

#[test]
fn a_flood_on_one_connection_does_not_keep_others_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, url) = serve(folder.path(), &[]);
    // It sends and never looks what has come.
    let (there, other) = (format!("{url}/%2f?heartbeat=0"), url);
    let ends = Arc::new(AtomicBool::new(false));
    let stop = ends.clone();
    let flooding = std::thread::spawn(move || {
        run(move || {
            let connection = Connection::open(&there).unwrap();
            let channel = connection.channel().unwrap();
            let arguments = FieldTable::new().with("x-max-length", 1000);
            let short = QueueOptions { arguments, ..QueueOptions::default() };
            channel.queue_declare("flood", short).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let to = Publish::to("", "flood");
                channel.basic_publish(to, &BasicProperties::new(), b"one of very many").unwrap();
            }
            connection.close().unwrap();
        });
    });
    run(move || {
        let connection = Connection::open(&other).unwrap();
        let channel = connection.channel().unwrap();
        let passive = QueueOptions { passive: true, ..QueueOptions::default() };
        let is_full = || {
            let channel = connection.channel().unwrap();
            channel
                .queue_declare("flood", passive.clone())
                .is_ok_and(|seen| seen.message_count == 1000)
        };
        wait_until(is_full);
        // The flood does not end before all are answered.
        for _ in 0..10 {
            assert_eq!(
                channel.queue_declare("flood", passive.clone()).unwrap().message_count,
                1000
            );
        }
        ends.store(true, Ordering::Relaxed);
        connection.close().unwrap();
    });
    flooding.join().unwrap();
}

#[test]
fn a_consumer_that_reads_nothing_costs_its_output_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let (server, url) = serve(folder.path(), &["--memory-limit", "96MiB"]);
    run(move || {
        let client = Connection::open(&url).unwrap();
        let channel = client.channel().unwrap();
        channel.queue_declare("q", QueueOptions::default()).unwrap();
        channel.confirm_select().unwrap();
        // Unlimited prefetch, and nothing is settled.
        let holder = Connection::open(&url).unwrap();
        let holding = holder.channel().unwrap();
        let mut consumer = holding.basic_consume("q", ConsumeOptions::default()).unwrap();
        let body = vec![b'.'; 4 * 1024];
        let count = 40_000;
        for _ in 0..count {
            let to = Publish::to("", "q");
            channel.basic_publish(to, &BasicProperties::new(), &body).unwrap();
        }
        channel.wait_for_confirms().unwrap();
        let mut tag = 0;
        while tag < count {
            tag = consumer.next_timeout(PATIENCE).unwrap().unwrap().delivery_tag;
        }
        assert_eq!(client.blocked(), None);
        let used = status(&server, "RssAnon");
        assert!(used < 96 * MIB, "{} MiB", used / MIB);
        holder.close().unwrap();
        wait_until(|| channel.queue_purge("q").unwrap() as u64 == count);
        client.close().unwrap();
    });
}
