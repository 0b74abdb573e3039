//! Streams with a data directory: read once they are on disk, from there when they have left memory.

use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use warren_amqp::FieldTable;
use warren_amqp::method::{basic, confirm, queue};

use super::super::{Client, Server};
use super::{arguments, begin, stream};
use crate::store::Store;

/// A server on a folder, whose threads are waited for.
struct Disk {
    server: Server,
    news: Receiver<Result<u64, String>>,
}

impl Disk {
    fn open(folder: &Path) -> Self {
        let (sender, news) = mpsc::channel();
        let on_sync = move |outcome| drop(sender.send(outcome));
        let (store, recovered) = Store::open(folder, Box::new(on_sync)).unwrap();
        let server = Server::new();
        server.engine.borrow_mut().recover_from(store, recovered);
        server.turn();
        Self { server, news }
    }

    /// Turns until no thread has anything more to say.
    fn settle(&self) {
        let late = Instant::now() + Duration::from_secs(60);
        loop {
            self.server.turn();
            while let Ok(outcome) = self.news.try_recv() {
                self.server.engine.borrow_mut().store_synced(outcome.unwrap());
            }
            self.server.turn();
            if !self.server.engine.borrow().waits_for_streams() {
                return;
            }
            assert!(Instant::now() < late, "a thread does not answer");
            std::thread::yield_now();
        }
    }

    fn connect(&self) -> Client {
        self.server.connect()
    }

    fn declare(&self, client: &mut Client, arguments: FieldTable) {
        client.send(1, &stream("s", arguments));
        client.silent();
        self.server.sync(&self.news);
        client.expect(1, &queue::DeclareOk { queue: "s", message_count: 0, consumer_count: 0 });
    }

    fn close(self) {
        self.server.close();
    }
}

fn small() -> FieldTable {
    arguments().with("x-stream-max-segment-size-bytes", 20_000)
}

#[test]
fn a_message_is_confirmed_and_read_once_it_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(folder.path());
    let mut client = disk.connect();
    disk.declare(&mut client, arguments());
    client.prefetch(1, 10);
    client.start(1, &begin("c", "first"));
    client.send(1, &confirm::Select { no_wait: true });
    // Whatever its delivery mode.
    client.publish_many(0..2);
    client.silent();
    disk.server.sync(&disk.news);
    client.expect(1, &basic::Ack { delivery_tag: 2, multiple: true });
    client.expect_range(0..2);
    // When the disk refuses, nothing is read and nobody is promised anything.
    client.publish_many(2..3);
    disk.server.engine.borrow_mut().store_failed();
    client.expect(1, &basic::Nack { delivery_tag: 3, multiple: false, requeue: false });
    client.silent();
    disk.settle();
    client.expect_range(2..3);
    disk.close();
}

#[test]
fn a_stream_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::open(folder.path());
    let mut client = disk.connect();
    disk.declare(&mut client, small());
    for number in 0..50 {
        client.publish_many(number * 20..(number + 1) * 20);
        client.turn();
    }
    disk.close();

    let disk = Disk::open(folder.path());
    let mut client = disk.connect();
    assert_eq!(client.count("s"), 1000);
    client.prefetch(1, 2000);
    client.start(1, &begin("c", "first"));
    client.start(1, &begin("d", 990));
    disk.settle();
    let mut seen: Vec<i64> = client.offsets().into_iter().map(|(offset, _)| offset).collect();
    seen.sort_unstable();
    let mut want: Vec<i64> = (0..1000).chain(990..1000).collect();
    want.sort_unstable();
    assert_eq!(seen, want);
    // It goes on with the next offset.
    client.publish_many(1000..1001);
    disk.settle();
    let seen: Vec<_> = client.offsets().into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(seen, [1000, 1000]);
    // And once deleted it is gone.
    client.send(1, &queue::Delete { queue: "s", ..Default::default() });
    disk.server.turn();
    disk.close();
    let disk = Disk::open(folder.path());
    assert_eq!(std::fs::read_dir(folder.path().join("streams")).unwrap().count(), 0);
    let mut client = disk.connect();
    disk.declare(&mut client, arguments());
    disk.close();
}

#[test]
fn an_old_offset_and_a_time_are_read_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(folder.path());
    let mut client = disk.connect();
    disk.declare(&mut client, small());
    for number in 0..100 {
        client.publish_many(number * 10..(number + 1) * 10);
        disk.settle();
        disk.server.pass_ms(1000);
    }
    let now = 1_000_100_u64;
    client.prefetch(1, 5000);
    for (offset, from) in [
        (500.into(), 500),
        (warren_amqp::FieldValue::Timestamp(now - 30), 700),
        ("10s".into(), 900),
        ("last".into(), 999),
        ((-15i64).into(), 985),
    ] {
        client.start(1, &begin("c", offset));
        disk.settle();
        client.expect_range(from..1000);
        client.send(1, &basic::Cancel { consumer_tag: "c", no_wait: true });
        client.ack(0);
    }
    disk.close();
}

#[test]
fn what_is_too_old_goes_from_disk_without_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Disk::open(folder.path());
    let mut client = disk.connect();
    disk.declare(&mut client, small().with("x-max-age", "10s"));
    client.publish_many(0..1000);
    disk.settle();
    assert_eq!(client.count("s"), 1000);
    // A consumer that has had nothing yet stands where all will have gone.
    client.prefetch(1, 100);
    client.start(1, &begin("c", 5000));
    disk.server.pass(15);
    let late = Instant::now() + Duration::from_secs(60);
    while client.count("s") != 0 {
        disk.server.pass(1);
        assert!(Instant::now() < late);
        std::thread::sleep(Duration::from_millis(1));
    }
    client.publish_many(1000..1002);
    client.start(1, &begin("d", "first"));
    disk.settle();
    client.expect_range(1000..1002);
    disk.close();
}

#[derive(Clone, Debug)]
enum Deed {
    Publish(usize, u32, u32),
    Consume(usize, i64, u16),
    Ack(usize),
    Cancel(usize),
    Settle,
    Restart,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0..3_usize, 1..40_u32, 1..4000_u32).prop_map(|(client, count, bytes)| Deed::Publish(client, count, bytes)),
        2 => (0..3_usize, 0..300_i64, 1..50_u16).prop_map(|(client, at, prefetch)| Deed::Consume(client, at, prefetch)),
        4 => (0..3_usize).prop_map(Deed::Ack),
        1 => (0..3_usize).prop_map(Deed::Cancel),
        2 => Just(Deed::Settle),
        1 => Just(Deed::Restart),
    ]
}

/// One consumer of the model.
#[derive(Default)]
struct Consumer {
    next: Option<i64>,
    prefetch: i64,
    held: i64,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens, a consumer gets every message from where it began, in order, and no more at once than it
    /// asked for; and when all is still, it has all that it may have.
    #[test]
    fn consumers_read_what_a_list_holds(deeds in prop::collection::vec(deed(), 1..60)) {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::open(folder.path());
        let mut first = disk.connect();
        disk.declare(&mut first, small());
        let mut total = 0_i64;
        let mut clients: Vec<Client> = (0..3).map(|_| disk.connect()).collect();
        let mut consumers: Vec<Consumer> = (0..3).map(|_| Consumer::default()).collect();
        for deed in deeds {
            match deed {
                Deed::Publish(client, count, bytes) => {
                    for _ in 0..count {
                        let body = format!("{total:0bytes$}", bytes = bytes as usize);
                        clients[client].publish("s", body.as_bytes());
                        total += 1;
                    }
                }
                Deed::Consume(client, at, prefetch) => {
                    if consumers[client].next.is_none() {
                        clients[client].prefetch(1, prefetch);
                        clients[client].start(1, &begin("c", at));
                        consumers[client] =
                            Consumer { next: Some(at), prefetch: prefetch.into(), held: 0 };
                    }
                }
                Deed::Ack(client) => {
                    if 0 < consumers[client].held {
                        clients[client].ack(0);
                        consumers[client].held = 0;
                    }
                }
                Deed::Cancel(client) => {
                    clients[client].ack(0);
                    clients[client].send(1, &basic::Cancel { consumer_tag: "c", no_wait: true });
                    consumers[client] = Consumer::default();
                }
                Deed::Settle => {}
                Deed::Restart => {
                    disk.settle();
                    drop(clients);
                    disk.close();
                    disk = Disk::open(folder.path());
                    clients = (0..3).map(|_| disk.connect()).collect();
                    consumers = (0..3).map(|_| Consumer::default()).collect();
                }
            }
            disk.settle();
            for (client, consumer) in clients.iter_mut().zip(&mut consumers) {
                for (offset, body) in client.offsets() {
                    prop_assert_eq!(body.parse::<i64>().unwrap(), offset);
                    prop_assert_eq!(Some(offset), consumer.next);
                    consumer.next = Some(offset + 1);
                    consumer.held += 1;
                }
                prop_assert!(consumer.held <= consumer.prefetch);
                if let Some(next) = consumer.next {
                    prop_assert!(total <= next || consumer.held == consumer.prefetch);
                }
            }
        }
        disk.close();
    }
}
