//! More messages than anyone takes.

use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;

use warren::amqp::BasicProperties;
use warren::amqp::client::{Channel, Connection, ConsumeOptions, Publish, QueueOptions};
use warren::amqp::frame;
use warren::amqp::method::basic;
use warren::hub::run;

use super::{mute, round_trip, serve, wait_until};
use crate::support::resident_kib;

const MIB: u64 = 1024 * 1024;

/// Publishes so many bytes in bodies of `body_bytes`, numbered, and waits until the server has them.
fn flood(channel: &Channel, queue: &str, bytes: u64, body_bytes: usize) -> u64 {
    let count = bytes / body_bytes as u64;
    let mut body = vec![b'.'; body_bytes];
    for number in 0..count {
        body[..8].copy_from_slice(&number.to_be_bytes());
        channel.basic_publish(Publish::to("", queue), &BasicProperties::new(), &body).unwrap();
        if number % 512 == 511 {
            channel.wait_for_confirms().unwrap();
        }
    }
    channel.wait_for_confirms().unwrap();
    count
}

/// Bytes of the files that a process has open and nobody can find: what has left its memory.
fn paged_bytes(pid: u32) -> u64 {
    let opened = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let hidden = opened.filter_map(|entry| {
        let path = entry.unwrap().path();
        let target = std::fs::read_link(&path).ok()?;
        let metadata = std::fs::metadata(&path).ok()?;
        let is_hidden = target.to_string_lossy().ends_with(" (deleted)") && metadata.is_file();
        is_hidden.then(|| metadata.blocks() * 512)
    });
    hidden.sum()
}

#[test]
fn a_subscriber_who_never_reads_takes_a_window_of_memory() {
    for body_bytes in [2_000, 40_000] {
        let folder = tempfile::tempdir().unwrap();
        let (server, url) = serve(folder.path(), &[]);
        let pid = server.pid();
        run(move || {
            let connection = Connection::open(&url).unwrap();
            let channel = connection.channel().unwrap();
            channel.confirm_select().unwrap();
            for queue in ["q", "other"] {
                channel.queue_declare(queue, QueueOptions::default()).unwrap();
            }
            let mut consume = Vec::new();
            frame::write_method(
                &mut consume,
                1,
                &basic::Consume { queue: "q", ..Default::default() },
            );
            let deaf: Vec<TcpStream> = (0..3).map(|_| mute(&url, 0, &consume)).collect();
            wait_until("they consume", || {
                let passive = QueueOptions { passive: true, ..QueueOptions::default() };
                channel.queue_declare("q", passive).unwrap().consumer_count == 3
            });
            flood(&channel, "q", 4 * MIB, body_bytes);
            let before = resident_kib(pid);
            flood(&channel, "q", 100 * MIB, body_bytes);
            let more = resident_kib(pid).saturating_sub(before);
            assert!(more < 48 * 1024, "{more} KiB for 100 MiB in bodies of {body_bytes}");
            round_trip(&channel, "other");
            // What they were sent comes back when they go.
            let sent = channel.basic_get("q", true).unwrap().unwrap();
            assert!(!sent.delivery.redelivered);
            drop(deaf);
            wait_until("the first message is there again", || {
                let first = channel.basic_get("q", true).unwrap().unwrap().delivery;
                first.redelivered && first.body.starts_with(&[0; 8])
            });
            connection.close().unwrap();
        });
    }
}

#[test]
fn a_flood_for_a_slow_consumer_goes_to_disk_and_comes_back_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (server, url) = serve(folder.path(), &[]);
    let pid = server.pid();
    run(move || {
        let slow = Connection::open(&url).unwrap();
        let consuming = slow.channel().unwrap();
        consuming.queue_declare("q", QueueOptions::default()).unwrap();
        consuming.basic_qos(1, false).unwrap();
        let mut consumer = consuming.basic_consume("q", ConsumeOptions::default()).unwrap();
        let connection = Connection::open(&url).unwrap();
        let channel = connection.channel().unwrap();
        channel.confirm_select().unwrap();
        flood(&channel, "q", 24 * MIB, 4096);
        let before = resident_kib(pid);
        let mut expected = 0;
        let mut count = 24 * MIB / 4096;
        for _ in 0..4 {
            count += flood(&channel, "q", 32 * MIB, 4096);
            for _ in 0..10 {
                let delivery = consumer.next().unwrap().unwrap();
                delivery.ack().unwrap();
                expected += 1;
            }
        }
        let more = resident_kib(pid).saturating_sub(before);
        assert!(more < 32 * 1024, "{more} KiB for 128 MiB");
        let paged = paged_bytes(pid);
        assert!(100 * MIB < paged, "{paged} bytes are on disk");
        consuming.basic_qos(2000, false).unwrap();
        consumer.cancel().unwrap();
        drop(consumer);
        let mut consumer = consuming.basic_consume("q", ConsumeOptions::default()).unwrap();
        let per_flood = [24 * MIB / 4096, 32 * MIB / 4096];
        // One message was with the consumer that was cancelled.
        let mut numbers =
            (0..per_flood[0]).chain((0..4).flat_map(|_| 0..per_flood[1])).skip(expected + 1);
        for done in expected as u64 + 1..count {
            let delivery = consumer.next().unwrap().unwrap();
            let number = u64::from_be_bytes(delivery.body[..8].try_into().unwrap());
            assert_eq!(Some(number), numbers.next(), "after {done}");
            if done % 1000 == 999 || done == count - 1 {
                consuming.basic_ack(delivery.delivery_tag, true).unwrap();
            }
        }
        slow.close().unwrap();
        connection.close().unwrap();
    });
}
