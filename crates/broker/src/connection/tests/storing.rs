//! With a data directory: what is promised, and when; what is there again.

use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, SystemTime};

use serde_json::json;
use warren_amqp::method::{basic, confirm, connection, exchange, queue, tx};
use warren_amqp::{BasicProperties, FieldTable, ReplyCode};
use warren_reactor::PeerAddr;

use super::tenancy::ask;
use super::{Client, Server};
use crate::store::Store;

/// A server on a folder, and the news of its store, which the test hands on when it likes.
pub(super) fn open(folder: &Path) -> (Server, Receiver<Result<u64, String>>) {
    open_at(folder, Server::new().now)
}

/// The same at a later time.
pub(super) fn open_at(folder: &Path, now: SystemTime) -> (Server, Receiver<Result<u64, String>>) {
    let (sender, news) = mpsc::channel();
    let on_sync = move |outcome| drop(sender.send(outcome));
    let (store, recovered) = Store::open(folder, Box::new(on_sync)).unwrap();
    let server = Server { now, ..Server::new() };
    server.engine.borrow_mut().set_now(now);
    server.engine.borrow_mut().recover_from(store, recovered);
    (server, news)
}

impl Server {
    /// Ends the turn and hands on what the store has to say of it.
    pub(super) fn sync(&self, news: &Receiver<Result<u64, String>>) {
        self.turn();
        let batch = news.recv_timeout(Duration::from_secs(60)).unwrap().unwrap();
        self.engine.borrow_mut().store_synced(batch);
    }

    /// The same until the store has nothing more to say.
    pub(super) fn settle(&self, news: &Receiver<Result<u64, String>>) {
        self.turn();
        while self.engine.borrow().awaits_store() {
            self.sync(news);
        }
    }

    pub(super) fn close(&self) {
        let store = self.engine.borrow_mut().take_store().unwrap();
        store.close();
    }
}

/// Declares the durable queue `q`.
pub(super) fn declare_durable(
    server: &Server,
    client: &mut Client,
    news: &Receiver<Result<u64, String>>,
) {
    let durable = queue::Declare { queue: "q", durable: true, ..Default::default() };
    client.send(1, &durable);
    // It is not there before it is on disk.
    client.silent();
    server.sync(news);
    client.expect(1, &queue::DeclareOk { queue: "q", message_count: 0, consumer_count: 0 });
}

fn publish(client: &mut Client, body: &[u8]) {
    let publish = basic::Publish { routing_key: "q", ..Default::default() };
    client.publish_with(&publish, &BasicProperties::persistent(), body);
}

#[test]
fn a_confirm_waits_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (server, news) = open(folder.path());
    let mut client = server.connect();
    declare_durable(&server, &mut client, &news);
    client.send(1, &confirm::Select { no_wait: true });
    publish(&mut client, b"kept");
    client.silent();
    // A later one that needs no disk is not confirmed earlier.
    client.publish("q", b"not kept");
    client.silent();
    server.sync(&news);
    client.expect(1, &basic::Ack { delivery_tag: 2, multiple: true });
    client.publish("q", b"not kept");
    client.expect(1, &basic::Ack { delivery_tag: 3, multiple: false });
    server.close();
}

#[test]
fn what_was_durable_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let (server, news) = open(folder.path());
    let mut client = server.connect();
    declare_durable(&server, &mut client, &news);
    let kind = "topic";
    client.send(1, &exchange::Declare { exchange: "x", kind, durable: true, ..Default::default() });
    client.send(
        1,
        &queue::Bind { queue: "q", exchange: "x", routing_key: "#", ..Default::default() },
    );
    client.send(1, &exchange::Declare { exchange: "gone", kind, ..Default::default() });
    client.silent();
    server.sync(&news);
    client.expect(1, &exchange::DeclareOk {});
    client.expect(1, &queue::BindOk {});
    client.expect(1, &exchange::DeclareOk {});
    for body in [&b"delivered"[..], b"settled", b"new"] {
        publish(&mut client, body);
    }
    client.publish("q", b"transient");
    for _ in 0..2 {
        client.send(1, &basic::Get { queue: "q", no_ack: false });
        client.skip::<basic::GetOk<'_>>();
        client.content();
    }
    client.send(1, &basic::Ack { delivery_tag: 2, multiple: false });
    server.turn();
    server.close();
    drop((client, server));

    let (server, _news) = open(folder.path());
    let mut client = server.connect();
    let again = exchange::Declare { exchange: "x", kind, durable: true, ..Default::default() };
    client.send(1, &again);
    client.expect(1, &exchange::DeclareOk {});
    let bound = basic::Publish { exchange: "x", routing_key: "any", ..Default::default() };
    client.publish_with(&bound, &BasicProperties::new(), b"bound");
    client.consume(1, "q", "c");
    assert_eq!(client.delivery(), ("c".into(), 1, true, "delivered".into()));
    assert_eq!(client.delivery(), ("c".into(), 2, false, "new".into()));
    assert_eq!(client.delivery(), ("c".into(), 3, false, "bound".into()));
    client.silent();
    let gone = exchange::Declare { exchange: "gone", kind, passive: true, ..Default::default() };
    client.send(1, &gone);
    let text = "NOT_FOUND - no exchange 'gone' in vhost '/'";
    client.expect_channel_close(404, text, exchange::Declare::default());
    server.close();
}

/// A data directory as a kill at this moment would leave it.
pub(super) fn killed(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let mut folders = vec![folder.to_owned()];
    while let Some(from) = folders.pop() {
        let to = copy.path().join(from.strip_prefix(folder).unwrap());
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(&from).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    copy
}

/// Nothing of the turn in which they are delivered has come to the store's thread.
#[test]
fn what_was_delivered_in_the_moment_of_a_kill_comes_again_flagged() {
    let folder = tempfile::tempdir().unwrap();
    let (server, news) = open(folder.path());
    let mut client = server.connect();
    declare_durable(&server, &mut client, &news);
    for body in ["got", "taken", "delivered", "new"] {
        publish(&mut client, body.as_bytes());
    }
    server.sync(&news);
    for (no_ack, body) in [(false, "got"), (true, "taken")] {
        client.send(1, &basic::Get { queue: "q", no_ack });
        client.skip::<basic::GetOk<'_>>();
        assert_eq!(client.content().1, body.as_bytes());
    }
    let after_get = killed(folder.path());
    client.send(1, &basic::Qos { prefetch_count: 1, ..Default::default() });
    client.expect(1, &basic::QosOk {});
    client.consume(1, "q", "c");
    let mut deliver = || client.delivery().3;
    assert_eq!(deliver(), "delivered");
    let after_delivery = killed(folder.path());
    server.close();
    for (folder, flagged) in [(after_get, 2), (after_delivery, 3)] {
        let (server, _news) = open(folder.path());
        let mut client = server.connect();
        // That one of them was taken the store's thread may have been quick enough to write.
        let is_there = client.count("q") == 4;
        let bodies = ["got", "taken", "delivered", "new"].into_iter().enumerate();
        let bodies = bodies.filter(|(_, body)| is_there || *body != "taken");
        client.consume(1, "q", "c");
        for ((nth, body), tag) in bodies.zip(1..) {
            assert_eq!(client.delivery(), ("c".into(), tag, nth < flagged, body.into()));
        }
        server.close();
    }
}

#[test]
fn a_virtual_host_is_there_again_with_all_that_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let (server, news) = open(folder.path());
    ask(&server, json!({"op": "add_vhost", "name": "two"})).unwrap();
    let permissions = json!({
        "op": "set_permissions", "user": "guest", "vhost": "two", "configure": ".*", "write": ".*", "read": ".*",
    });
    ask(&server, permissions).unwrap();
    server.sync(&news);
    let log_in = |server: &Server| {
        let mut client = server.dial(PeerAddr::Memory);
        client.log_in("PLAIN", b"\0guest\0guest");
        client.answer_tune(0);
        client.send(0, &connection::Open { virtual_host: "two" });
        client.expect(0, &connection::OpenOk {});
        client.open_channel(1);
        client
    };
    let mut client = log_in(&server);
    let kind = "fanout";
    client.send(1, &exchange::Declare { exchange: "x", kind, durable: true, ..Default::default() });
    server.sync(&news);
    client.expect(1, &exchange::DeclareOk {});
    declare_durable(&server, &mut client, &news);
    client.send(1, &queue::Bind { queue: "q", exchange: "x", ..Default::default() });
    server.sync(&news);
    client.expect(1, &queue::BindOk {});
    let to_all = basic::Publish { exchange: "x", ..Default::default() };
    client.publish_with(&to_all, &BasicProperties::persistent(), b"kept");
    server.sync(&news);
    server.close();
    let (server, _news) = open(folder.path());
    let mut client = log_in(&server);
    assert_eq!(client.get("q").as_deref(), Some("kept"));
    client.publish_with(&to_all, &BasicProperties::new(), b"bound");
    assert_eq!(client.get("q").as_deref(), Some("bound"));
    server.close();
}

#[test]
fn a_time_to_live_goes_on_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut server, news) = open(folder.path());
    let mut client = server.connect();
    for (queue, ttl) in [("q", Some(1000)), ("forever", None)] {
        let arguments =
            ttl.map_or(FieldTable::new(), |ttl| FieldTable::new().with("x-message-ttl", ttl));
        let declare = queue::Declare { queue, durable: true, arguments, ..Default::default() };
        client.send(1, &declare);
        server.sync(&news);
        client.expect(1, &queue::DeclareOk { queue, message_count: 0, consumer_count: 0 });
        let bind = queue::Bind { queue, exchange: "amq.fanout", ..Default::default() };
        client.send(1, &bind);
        server.sync(&news);
        client.expect(1, &queue::BindOk {});
    }
    let both = basic::Publish { exchange: "amq.fanout", ..Default::default() };
    client.publish_with(&both, &BasicProperties::persistent(), b"old");
    server.pass_ms(600);
    client.publish_with(&both, &BasicProperties::persistent(), b"young");
    server.turn();
    let now = server.now;
    server.close();

    let (mut server, _news) = open_at(folder.path(), now + Duration::from_millis(200));
    let mut client = server.connect();
    assert_eq!(client.count("q"), 2);
    server.pass_ms(200);
    assert_eq!(client.count("q"), 1);
    server.turn();
    server.close();
    // What was over while nobody looked is gone at once.
    let (server, _news) = open_at(folder.path(), now + Duration::from_millis(1000));
    let mut client = server.connect();
    assert_eq!((client.count("q"), client.count("forever")), (0, 2));
    server.close();
}

#[test]
fn nothing_overtakes_an_answer_that_waits_for_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (server, news) = open(folder.path());
    let mut client = server.connect();
    let queue = "q";
    client.send(1, &queue::Declare { queue, durable: true, ..Default::default() });
    client.publish(queue, b"one");
    client.publish(queue, b"two");
    client.send(1, &basic::Get { queue, no_ack: true });
    client.send(1, &basic::Consume { queue, consumer_tag: "c", ..Default::default() });
    client.silent();
    server.sync(&news);
    client.expect(1, &queue::DeclareOk { queue, message_count: 0, consumer_count: 0 });
    client.skip::<basic::GetOk<'_>>();
    assert_eq!(client.content().1, b"one");
    client.expect(1, &basic::ConsumeOk { consumer_tag: "c" });
    assert_eq!(client.delivery(), ("c".into(), 2, false, "two".into()));
    server.close();
}

#[test]
fn when_the_disk_refuses_publishers_hear_it() {
    let folder = tempfile::tempdir().unwrap();
    let (server, news) = open(folder.path());
    let mut client = server.connect();
    let mut other = server.connect();
    declare_durable(&server, &mut client, &news);
    client.send(1, &confirm::Select { no_wait: true });
    publish(&mut client, b"x");
    publish(&mut client, b"y");
    other.send(1, &tx::Select {});
    other.expect(1, &tx::SelectOk {});
    publish(&mut other, b"z");
    other.send(1, &tx::Commit {});
    server.engine.borrow_mut().store_failed();
    client.expect(1, &basic::Nack { delivery_tag: 2, multiple: true, requeue: false });
    // What needs no disk goes on.
    client.publish("q", b"transient");
    client.expect(1, &basic::Ack { delivery_tag: 3, multiple: false });
    // A commit cannot be refused but by the end of the connection.
    let text = ReplyCode::INTERNAL_ERROR.text("the store cannot write");
    other.expect_close(541, &text, (0, 0));
}

#[test]
fn what_waits_at_an_exchange_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let (server, news) = open(folder.path());
    let mut client = server.connect();
    declare_durable(&server, &mut client, &news);
    let arguments = || FieldTable::new().with("x-delayed-type", "fanout");
    for name in ["x", "y"] {
        let kind = "x-delayed-message";
        let arguments = arguments();
        client.send(
            1,
            &exchange::Declare {
                exchange: name,
                kind,
                durable: true,
                arguments,
                ..Default::default()
            },
        );
        server.sync(&news);
        client.expect(1, &exchange::DeclareOk {});
        client.send(1, &queue::Bind { queue: "q", exchange: name, ..Default::default() });
        server.sync(&news);
        client.expect(1, &queue::BindOk {});
    }
    client.send(1, &confirm::Select { no_wait: true });
    for (name, body, delay) in [("x", "second", 200), ("x", "first", 100), ("y", "gone", 100)] {
        client.publish_at(name, "", FieldTable::new().with("x-delay", delay), body);
    }
    client.silent();
    server.sync(&news);
    client.expect(1, &basic::Ack { delivery_tag: 3, multiple: true });
    client.send(1, &exchange::Delete { exchange: "y", ..Default::default() });
    server.sync(&news);
    client.expect(1, &exchange::DeleteOk {});
    server.close();

    let (mut server, _news) = open(folder.path());
    let mut client = server.connect();
    // Numbers of exchanges are not given to others: these get new ones.
    client.send(
        1,
        &queue::Declare { queue: "r", durable: true, no_wait: true, ..Default::default() },
    );
    assert_eq!(client.get("q"), None);
    server.pass_ms(100);
    assert_eq!(client.get("q").as_deref(), Some("first"));
    assert_eq!(client.get("q"), None);
    server.turn();
    server.close();

    // What came is not to come again.
    let (mut server, _news) = open(folder.path());
    let mut client = server.connect();
    assert_eq!(client.get("r"), None);
    server.pass_ms(1000);
    assert_eq!(client.get("q").as_deref(), Some("second"));
    assert_eq!(client.get("q"), None);
    server.turn();
    server.close();
    let (mut server, _news) = open(folder.path());
    let mut client = server.connect();
    server.pass_ms(1000);
    assert_eq!(client.get("q"), None);
    server.close();
}

#[test]
fn a_dead_letter_outlives_the_end_of_its_queue_in_the_same_turn() {
    let folder = tempfile::tempdir().unwrap();
    let (server, news) = open(folder.path());
    let mut client = server.connect();
    declare_durable(&server, &mut client, &news);
    let queue = "source";
    let arguments =
        FieldTable::new().with("x-dead-letter-exchange", "").with("x-dead-letter-routing-key", "q");
    client.send(1, &queue::Declare { queue, durable: true, arguments, ..Default::default() });
    server.sync(&news);
    client.expect(1, &queue::DeclareOk { queue, message_count: 0, consumer_count: 0 });
    let publish = basic::Publish { routing_key: queue, ..Default::default() };
    client.publish_with(&publish, &BasicProperties::persistent(), b"letter");
    client.send(1, &basic::Get { queue, no_ack: false });
    client.skip::<basic::GetOk<'_>>();
    client.content();
    client.send(1, &basic::Reject { delivery_tag: 1, requeue: false });
    client.send(1, &queue::Delete { queue, ..Default::default() });
    // The copy is in a batch before the one with the end of the queue.
    let synced = server.engine.borrow().synced();
    server.turn();
    while server.engine.borrow().synced() < synced + 3 {
        server.sync(&news);
    }
    client.expect(1, &queue::DeleteOk { message_count: 0 });
    server.close();
    let (server, _news) = open(folder.path());
    assert_eq!(server.connect().get("q").as_deref(), Some("letter"));
    server.close();
}
