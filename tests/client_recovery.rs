//! Connections that come back: through a relay that the test cuts, to our own server or the one that the environment
//! names.

mod support;

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::Signal;
use support::{Broker, PATIENCE, Server};
use warren::amqp::client::{
    Connection, ConsumeOptions, Error, ExchangeOptions, Publish, QueueOptions, RecoveryOptions,
    RobustChannel, RobustConnection,
};
use warren::amqp::{BasicProperties, FieldTable};
use warren::hub::net::{TcpListener, TcpStream};
use warren::hub::sync::{Event, Queue};
use warren::hub::{run, spawn, with_timeout};

/// Passes bytes on between clients and a broker, until it is cut.
struct Relay {
    broker: String,
    url: String,
    pairs: Rc<RefCell<Vec<[Rc<TcpStream>; 2]>>>,
    open: Rc<Cell<bool>>,
}

impl Relay {
    fn start(broker: &str) -> Self {
        let there = broker.strip_prefix("amqp://").expect("a URL").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("amqp://{}", listener.local_addr().expect("an address"));
        let (pairs, open) = (Rc::<RefCell<Vec<_>>>::default(), Rc::new(Cell::new(true)));
        let (made, listening) = (pairs.clone(), open.clone());
        spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if !listening.get() {
                    continue;
                }
                let server = TcpStream::connect(there.as_str()).expect("the broker");
                let pair = [Rc::new(client), Rc::new(server)];
                made.borrow_mut().push(pair.clone());
                let [client, server] = pair;
                let (from, to) = (client.clone(), server.clone());
                spawn(move || pass(&from, &to));
                spawn(move || pass(&server, &client));
            }
        });
        Self { broker: broker.to_owned(), url, pairs, open }
    }

    /// Ends all connections.
    fn cut(&self) {
        for stream in self.pairs.take().iter().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends them, and takes no others until [`join`](Self::join).
    fn part(&self) {
        self.open.set(false);
        self.cut();
    }

    fn join(&self) {
        self.open.set(true);
    }
}

fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn soon() -> RecoveryOptions {
    let delay = Duration::from_millis(1);
    RecoveryOptions { delay, delay_max: Duration::from_millis(20), ..RecoveryOptions::default() }
}

/// Runs `test` with a relay to a broker, and a connection over it.
fn relayed(test: impl FnOnce(&Relay, &RobustConnection) -> Result<(), Error> + 'static) {
    let broker = Broker::get();
    run(move || {
        with_timeout(PATIENCE, || {
            let relay = Relay::start(&broker.url);
            let connection = RobustConnection::open(&[&relay.url], soon())?;
            test(&relay, &connection)?;
            connection.close()
        })
    })
    .expect("the test does not hang")
    .expect("the test has no error");
}

/// Cuts the connection, and waits until it is back.
fn cut(relay: &Relay, connection: &RobustConnection) {
    let back = Rc::new(Event::new());
    let told = back.clone();
    connection.on_recovery(move || told.set());
    relay.cut();
    back.wait();
}

fn own() -> QueueOptions {
    QueueOptions { exclusive: true, ..QueueOptions::default() }
}

fn passes(channel: &RobustChannel, queue: &str) -> bool {
    let passive = QueueOptions { passive: true, ..QueueOptions::default() };
    channel.queue_declare(queue, passive).is_ok()
}

#[test]
fn what_was_declared_is_declared_again() {
    relayed(|relay, connection| {
        let channel = connection.channel()?;
        let gone = ExchangeOptions { auto_delete: true, ..ExchangeOptions::default() };
        let (first, second) = ("client-recovery-first", "client-recovery-second");
        channel.exchange_declare(first, "topic", gone.clone())?;
        channel.exchange_declare(second, "headers", gone)?;
        channel.exchange_bind(second, first, "to.#")?;
        // Named by the server, and another one each time.
        let queue = channel.queue_declare("", own())?.queue;
        let table = FieldTable::new().with("x-match", "all");
        channel.queue_bind_with(&queue, second, "", table)?;
        let to = Publish::to(first, "to.there").mandatory();
        for body in [b"1", b"2", b"3"] {
            cut(relay, connection);
            channel.publish(to, &BasicProperties::new(), body)?.wait()?;
            let got = channel.basic_get(&queue, true)?.expect("the message");
            assert_eq!(got.delivery.body, body);
        }
        // What was taken away stays away.
        channel.exchange_unbind(second, first, "to.#")?;
        cut(relay, connection);
        let lost = channel.publish(to, &BasicProperties::new(), b"4")?.wait();
        assert!(matches!(lost, Err(Error::Returned(_))), "{lost:?}");
        channel.queue_delete(&queue, false, false)?;
        channel.exchange_delete(second, false)?;
        channel.exchange_delete(first, false)?;
        cut(relay, connection);
        assert!(!passes(&connection.channel()?, &queue));
        Ok(())
    });
}

#[test]
fn consumers_go_on() {
    relayed(|relay, connection| {
        let channel = connection.channel()?;
        channel.basic_qos(1, false)?;
        let queue = channel.queue_declare("client-recovery-goes-on", own())?.queue;
        let mut consumer = channel.basic_consume(&queue, ConsumeOptions::default())?;
        let tag = consumer.tag().to_owned();
        channel.publish(Publish::to("", &queue), &BasicProperties::new(), b"1")?.wait()?;
        let old = consumer.next().expect("a delivery")?;
        cut(relay, connection);
        // The connection it came over is no more: its message went with the queue, which was the connection's own.
        assert!(old.ack().is_err());
        for body in [b"2", b"3"] {
            channel.publish(Publish::to("", &queue), &BasicProperties::new(), body)?.wait()?;
        }
        let delivery = consumer.next().expect("a delivery")?;
        assert_eq!(
            (delivery.body.as_slice(), delivery.consumer_tag.as_str()),
            (&b"2"[..], tag.as_str())
        );
        // One at a time, as before.
        let passive = QueueOptions { passive: true, ..QueueOptions::default() };
        assert_eq!(channel.queue_declare(&queue, passive)?.message_count, 1);
        delivery.ack()?;
        assert_eq!(consumer.next().expect("a delivery")?.body, b"3");
        consumer.cancel()?;
        assert!(consumer.next().is_none());
        cut(relay, connection);
        assert!(consumer.next().is_none());
        Ok(())
    });
}

#[test]
fn unsettled_deliveries_come_again() {
    relayed(|relay, connection| {
        let channel = connection.channel()?;
        let queue = format!("client-recovery-{}", std::process::id());
        let durable = QueueOptions { durable: true, ..QueueOptions::default() };
        channel.queue_declare(&queue, durable)?;
        let to = Publish::to("", &queue);
        channel.publish(to, &BasicProperties::persistent(), b"again")?.wait()?;
        let mut consumer = channel.basic_consume(&queue, ConsumeOptions::default())?;
        assert!(!consumer.next().expect("a delivery")?.redelivered);
        cut(relay, connection);
        let delivery = consumer.next().expect("a delivery")?;
        assert!(delivery.redelivered);
        delivery.ack()?;
        // The queue goes: there is nothing to come back for.
        channel.queue_delete(&queue, false, false)?;
        assert!(consumer.next().is_none());
        assert!(consumer.is_cancelled());
        cut(relay, connection);
        assert!(!passes(&connection.channel()?, &queue));
        Ok(())
    });
}

#[test]
fn a_callback_goes_on_too() {
    relayed(|relay, connection| {
        let channel = connection.channel()?;
        let queue = channel.queue_declare("", own())?.queue;
        let bodies = Rc::new(Queue::unbounded());
        let seen = bodies.clone();
        let no_ack = ConsumeOptions { no_ack: true, ..ConsumeOptions::default() };
        let tag = channel.basic_consume_with(&queue, no_ack, move |delivery| {
            seen.put(delivery.body).expect("never closed");
        })?;
        for body in [b"1", b"2", b"3"] {
            // To the queue's present name: this one's first has gone with the connection.
            let name =
                channel.queue_declare(&queue, QueueOptions { passive: true, ..own() })?.queue;
            channel.publish(Publish::to("", &name), &BasicProperties::new(), body)?.wait()?;
            assert_eq!(bodies.get().ok().as_deref(), Some(&body[..]));
            cut(relay, connection);
        }
        channel.basic_cancel(&tag)
    });
}

#[test]
fn publishers_learn_what_was_lost_or_publish_again() {
    relayed(|relay, connection| {
        let channel = connection.channel()?;
        let queue = channel.queue_declare("client-recovery-publishers", own())?.queue;
        relay.part();
        // It is published over a connection that has ended, or waits for the next: either is told.
        let publishing = channel.clone();
        let waiting = spawn(move || {
            let to = Publish::to("", "client-recovery-publishers").mandatory();
            publishing.publish_at_least_once(to, &BasicProperties::new(), b"at least once")
        });
        warren::hub::yield_now();
        assert!(!waiting.is_finished());
        relay.join();
        waiting.join().expect("no panic")?;
        assert_eq!(channel.basic_get(&queue, true)?.expect("it").delivery.body, b"at least once");
        let confirm = channel.publish(Publish::to("", &queue), &BasicProperties::new(), b"x")?;
        relay.cut();
        match confirm.wait() {
            Ok(()) => {}
            Err(error) => assert_eq!(error.code(), None, "{error}"),
        }
        Ok(())
    });
}

#[test]
fn an_error_of_a_channel_is_for_good() {
    relayed(|relay, connection| {
        let channel = connection.channel()?;
        assert!(!passes(&channel, "there is no such queue"));
        for _ in 0..2 {
            let error = channel.basic_qos(1, false).unwrap_err();
            assert_eq!(error.code().map(u16::from), Some(404));
            cut(relay, connection);
        }
        let closed = connection.channel()?;
        closed.close()?;
        cut(relay, connection);
        assert!(matches!(closed.basic_qos(1, false), Err(Error::Closed)));
        Ok(())
    });
}

#[test]
fn what_cannot_come_back_is_left_out() {
    relayed(|relay, connection| {
        let channel = connection.channel()?;
        let name = format!("client-recovery-taken-{}", std::process::id());
        let transient = QueueOptions { auto_delete: true, ..QueueOptions::default() };
        channel.queue_declare(&name, transient)?;
        let kept = channel.queue_declare("client-recovery-kept", own())?.queue;
        let mut consumer = channel.basic_consume(&name, ConsumeOptions::default())?;
        let mut other = channel.basic_consume(&kept, ConsumeOptions::default())?;
        relay.part();
        // Its last consumer has gone, and it with that; another has made one of that name.
        let strange = Connection::open(&relay.broker)?;
        let theirs = loop {
            let theirs = strange.channel()?;
            let durable = QueueOptions { durable: true, ..QueueOptions::default() };
            if theirs.queue_declare(&name, durable).is_ok() {
                break theirs;
            }
        };
        let exclusive = ConsumeOptions { exclusive: true, ..ConsumeOptions::default() };
        let _theirs = theirs.basic_consume(&name, exclusive)?;
        let back = Rc::new(Event::new());
        let told = back.clone();
        connection.on_recovery(move || told.set());
        relay.join();
        back.wait();
        let error = consumer.next().expect("the reason").unwrap_err();
        assert_eq!(error.code().map(u16::from), Some(403), "{error}");
        assert!(consumer.next().is_none());
        // The others are there.
        channel.publish(Publish::to("", &kept), &BasicProperties::new(), b"x")?.wait()?;
        assert_eq!(other.next().expect("a delivery")?.body, b"x");
        theirs.queue_delete(&name, false, false)?;
        strange.close()
    });
}

#[test]
fn it_is_given_up_after_so_many_attempts() {
    let broker = Broker::get();
    run(move || {
        with_timeout(PATIENCE, || {
            let relay = Relay::start(&broker.url);
            let few = RecoveryOptions { attempts: Some(3), ..soon() };
            let connection = RobustConnection::open(&[&relay.url], few)?;
            let channel = connection.channel()?;
            let queue = channel.queue_declare("", own())?.queue;
            let mut consumer = channel.basic_consume(&queue, ConsumeOptions::default())?;
            relay.part();
            assert!(matches!(consumer.next(), Some(Err(Error::Handshake { .. } | Error::Io(_)))));
            assert!(consumer.next().is_none());
            assert!(channel.basic_qos(1, false).is_err());
            assert!(connection.channel().is_err());
            assert!(!connection.is_connected());
            assert!(connection.close().is_err());
            Ok::<(), Error>(())
        })
    })
    .expect("the test does not hang")
    .expect("the test has no error");
}

#[test]
fn the_first_server_that_answers_is_taken_and_none_is_an_error() {
    let broker = Broker::get();
    run(move || {
        with_timeout(PATIENCE, || {
            let connection = RobustConnection::open(&["amqp://127.0.0.1:1", &broker.url], soon())?;
            connection.channel()?.queue_declare("", own())?;
            connection.close()?;
            assert!(matches!(connection.channel(), Err(Error::Closed)));
            let error = RobustConnection::open(&["amqp://127.0.0.1:1"], soon()).unwrap_err();
            assert!(matches!(error, Error::Connect { .. }), "{error}");
            let error = RobustConnection::open(&[], soon()).unwrap_err();
            assert_eq!(error.to_string(), "no URL names a server to connect to");
            Ok::<(), Error>(())
        })
    })
    .expect("the test does not hang")
    .expect("the test has no error");
}

#[test]
fn a_server_that_is_killed_and_starts_again_finds_its_clients() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    run(move || {
        with_timeout(PATIENCE, || {
            let url = server.url.clone();
            let connection = RobustConnection::open(&[&url], soon())?;
            let channel = connection.channel()?;
            let durable = QueueOptions { durable: true, ..QueueOptions::default() };
            channel.queue_declare("q", durable)?;
            let to = Publish::to("", "q").mandatory();
            let mut consumer = channel.basic_consume("q", ConsumeOptions::default())?;
            for round in 0..3u8 {
                channel.publish_at_least_once(to, &BasicProperties::persistent(), &[round])?;
                server.program.signal(Signal::KILL);
                server.program.wait();
                let publishing = channel.clone();
                let second = spawn(move || {
                    let to = Publish::to("", "q").mandatory();
                    publishing.publish_at_least_once(
                        to,
                        &BasicProperties::persistent(),
                        &[round + 100],
                    )
                });
                server = Server::start_on(folder.path(), &url);
                second.join().expect("no panic")?;
                for body in [round, round + 100] {
                    // The first may have been delivered before the end, and not acknowledged: it comes again.
                    let mut delivery = consumer.next().expect("a delivery")?;
                    while delivery.ack().is_err() {
                        delivery = consumer.next().expect("a delivery")?;
                    }
                    assert_eq!(delivery.body, [body]);
                }
            }
            connection.close()
        })
    })
    .expect("the test does not hang")
    .expect("the test has no error");
}
