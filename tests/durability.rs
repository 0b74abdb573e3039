//! What survives the death of the server.

mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use rustix::process::Signal;
use support::{PATIENCE, Server};
use warren::amqp::client::{
    Channel, Connection, ConsumeOptions, Error, ExchangeOptions, Publish, QueueOptions,
};
use warren::amqp::{BasicProperties, FieldTable};
use warren::hub::{run, spawn, with_timeout, yield_now};

fn durable() -> QueueOptions {
    let arguments = FieldTable::new().with("x-queue-type", "quorum");
    QueueOptions { durable: true, arguments, ..QueueOptions::default() }
}

fn passive() -> QueueOptions {
    QueueOptions { passive: true, ..QueueOptions::default() }
}

/// Connects, lets `work` do its part, and closes in order.
fn talk(server: &Server, work: impl FnOnce(&Connection, &Channel) + 'static) {
    let url = server.url.clone();
    run(move || {
        let connection = Connection::open(&url).unwrap();
        work(&connection, &connection.channel().unwrap());
        connection.close().unwrap();
    });
}

/// Everything in a queue, in order: the bodies, and whether each was flagged as redelivered.
fn drain(channel: &Channel, queue: &str) -> Vec<(String, bool)> {
    let mut messages = Vec::new();
    while let Some(got) = channel.basic_get(queue, true).unwrap() {
        let delivery = got.delivery;
        messages.push((String::from_utf8(delivery.body).unwrap(), delivery.redelivered));
    }
    messages
}

#[test]
fn every_confirmed_message_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut server = Server::start(folder.path());
        let url = server.url.clone();
        let confirmed = Rc::new(RefCell::new(BTreeSet::new()));
        let noted = confirmed.clone();
        let pid = rustix::process::Pid::from_raw(server.program.pid().cast_signed()).unwrap();
        run(move || {
            let connection = Connection::open(&url).unwrap();
            let channel = connection.channel().unwrap();
            channel.queue_declare("kept", durable()).unwrap();
            channel.confirm_select().unwrap();
            let publishing = spawn(move || -> Result<(), Error> {
                for batch in 0.. {
                    let bodies: Vec<String> = (0..20).map(|n| format!("{batch} {n}")).collect();
                    for body in &bodies {
                        let publish = Publish::to("", "kept");
                        channel.basic_publish(
                            publish,
                            &BasicProperties::persistent(),
                            body.as_bytes(),
                        )?;
                    }
                    channel.wait_for_confirms()?;
                    noted.borrow_mut().extend(bodies);
                    // In the middle of it, at another place each time.
                    if batch == 10 + 7 * round {
                        rustix::process::kill_process(pid, Signal::KILL).unwrap();
                    }
                }
                Ok(())
            });
            assert!(publishing.join().unwrap().is_err(), "the server was killed");
        });
        server.program.wait();
        let confirmed = confirmed.take();
        assert!(confirmed.len() >= 200);
        let server = Server::start(folder.path());
        let url = server.url.clone();
        run(move || {
            let connection = Connection::open(&url).unwrap();
            let channel = connection.channel().unwrap();
            let found: BTreeSet<String> =
                drain(&channel, "kept").into_iter().map(|(body, _)| body).collect();
            let lost: Vec<_> = confirmed.difference(&found).collect();
            assert!(lost.is_empty(), "confirmed and lost: {lost:?}");
            connection.close().unwrap();
        });
    }
}

#[test]
fn definitions_and_bindings_survive_and_transient_things_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    talk(&server, move |_, channel| {
        let lasting = ExchangeOptions { durable: true, ..ExchangeOptions::default() };
        channel.exchange_declare("lasting", "topic", lasting.clone()).unwrap();
        channel.exchange_declare("inner", "headers", lasting).unwrap();
        channel.exchange_declare("passing", "fanout", ExchangeOptions::default()).unwrap();
        channel.exchange_bind("inner", "lasting", "to.inner").unwrap();
        channel.queue_declare("lasting", durable()).unwrap();
        channel.queue_declare("passing", QueueOptions::default()).unwrap();
        channel.queue_bind("lasting", "lasting", "a.*").unwrap();
        let arguments = FieldTable::new().with("x-match", "any").with("kind", "yes");
        channel.queue_bind_with("lasting", "inner", "", arguments).unwrap();
        channel.queue_bind("passing", "lasting", "a.*").unwrap();
        channel.tx_select().unwrap();
        let properties = BasicProperties::persistent();
        channel.basic_publish(Publish::to("lasting", "a.b"), &properties, b"persistent").unwrap();
        channel
            .basic_publish(Publish::to("lasting", "a.b"), &BasicProperties::new(), b"transient")
            .unwrap();
        channel.tx_commit().unwrap();
    });
    drop(server);
    let server = Server::start(folder.path());
    talk(&server, move |connection, channel| {
        // As it was declared, to the argument.
        assert_eq!(channel.queue_declare("lasting", durable()).unwrap().message_count, 1);
        assert_eq!(drain(channel, "lasting"), [("persistent".to_owned(), false)]);
        channel.confirm_select().unwrap();
        channel
            .basic_publish(Publish::to("lasting", "a.c"), &BasicProperties::new(), b"bound")
            .unwrap();
        let headers = BasicProperties::new().with_header("kind", "yes");
        channel
            .basic_publish(Publish::to("lasting", "to.inner"), &headers, b"twice bound")
            .unwrap();
        channel.wait_for_confirms().unwrap();
        let bodies: Vec<String> =
            drain(channel, "lasting").into_iter().map(|(body, _)| body).collect();
        assert_eq!(bodies, ["bound", "twice bound"]);
        for name in ["passing", "lasting-not"] {
            let other = connection.channel().unwrap();
            assert_eq!(
                other.queue_declare(name, passive()).unwrap_err().code().map(u16::from),
                Some(404)
            );
        }
    });
}

#[test]
fn what_was_delivered_and_not_acknowledged_comes_again_with_a_flag() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    talk(&server, move |_, channel| {
        channel.queue_declare("work", durable()).unwrap();
        channel.confirm_select().unwrap();
        for n in 0..4 {
            let publish = Publish::to("", "work");
            channel
                .basic_publish(publish, &BasicProperties::persistent(), n.to_string().as_bytes())
                .unwrap();
        }
        channel.wait_for_confirms().unwrap();
        channel.basic_get("work", false).unwrap().unwrap().delivery.ack().unwrap();
        channel.basic_get("work", false).unwrap().unwrap();
        // The answer comes after the acknowledgement has been taken note of; the confirm after the disk has.
        channel
            .basic_publish(Publish::to("", "work"), &BasicProperties::persistent(), b"last")
            .unwrap();
        channel.wait_for_confirms().unwrap();
    });
    server.program.signal(Signal::KILL);
    server.program.wait();
    let server = Server::start(folder.path());
    talk(&server, move |_, channel| {
        let found = drain(channel, "work");
        let expected = [("1", true), ("2", false), ("3", false), ("last", false)];
        assert_eq!(found, expected.map(|(body, redelivered)| (body.to_owned(), redelivered)));
    });
}

#[test]
fn a_queue_that_was_deleted_stays_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    talk(&server, move |_, channel| {
        channel.confirm_select().unwrap();
        for _ in 0..2 {
            channel.queue_declare("again", durable()).unwrap();
            channel
                .basic_publish(Publish::to("", "again"), &BasicProperties::persistent(), b"x")
                .unwrap();
            channel.wait_for_confirms().unwrap();
            channel.queue_delete("again", false, false).unwrap();
        }
        channel.queue_declare("again", durable()).unwrap();
    });
    drop(server);
    let server = Server::start(folder.path());
    talk(&server, move |_, channel| {
        assert_eq!(channel.queue_declare("again", passive()).unwrap().message_count, 0);
    });
}

#[test]
fn a_connection_that_breaks_says_so_to_everyone() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let url = server.url.clone();
    run(move || {
        let connection = Connection::open(&url).unwrap();
        let channel = connection.channel().unwrap();
        let queue = channel.queue_declare("", QueueOptions::default()).unwrap().queue;
        let mut consumer = channel.basic_consume(&queue, ConsumeOptions::default()).unwrap();
        let waiting = spawn(move || consumer.next());
        yield_now();
        server.program.signal(Signal::KILL);
        let ended = with_timeout(PATIENCE, || waiting.join()).unwrap().unwrap();
        assert!(matches!(ended, Some(Err(Error::Io(_)))), "{ended:?}");
        assert!(connection.channel().is_err() && connection.is_closed());
    });
}

/// Of a queue whose dead letters stay until their target has taken them, which refuses most of them.
#[test]
fn dead_letters_that_wait_survive_kills() {
    const COUNT: usize = 120;
    let source = || {
        let QueueOptions { arguments, .. } = durable();
        let arguments = arguments
            .with("x-overflow", "reject-publish")
            .with("x-dead-letter-strategy", "at-least-once")
            .with("x-dead-letter-exchange", "")
            .with("x-dead-letter-routing-key", "dead");
        QueueOptions { durable: true, arguments, ..QueueOptions::default() }
    };
    let target = || {
        let arguments =
            FieldTable::new().with("x-max-length", 40).with("x-overflow", "reject-publish");
        QueueOptions { durable: true, arguments, ..QueueOptions::default() }
    };
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    talk(&server, move |_, channel| {
        channel.queue_declare("source", source()).unwrap();
        channel.confirm_select().unwrap();
        for n in 0..COUNT {
            let body = n.to_string();
            let publish = Publish::to("", "source");
            channel
                .basic_publish(publish, &BasicProperties::persistent(), body.as_bytes())
                .unwrap();
        }
        channel.wait_for_confirms().unwrap();
        while let Some(got) = channel.basic_get("source", false).unwrap() {
            got.delivery.reject(false).unwrap();
        }
    });
    let seen = Rc::new(RefCell::new(BTreeSet::new()));
    while seen.borrow().len() < COUNT {
        server.program.signal(Signal::KILL);
        server.program.wait();
        server = Server::start(folder.path());
        let seen = seen.clone();
        talk(&server, move |_, channel| {
            channel.queue_declare("source", source()).unwrap();
            // The first time it comes later than the letters.
            while let Some(got) = channel.basic_get("source", false).unwrap() {
                got.delivery.reject(false).unwrap();
            }
            channel.queue_declare("dead", target()).unwrap();
            let enough = COUNT.min(seen.borrow().len() + 30);
            with_timeout(PATIENCE, || {
                while seen.borrow().len() < enough {
                    seen.borrow_mut()
                        .extend(drain(channel, "dead").into_iter().map(|(body, _)| body));
                    yield_now();
                }
            })
            .unwrap();
        });
    }
}
