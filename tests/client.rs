//! Our client against a broker: our own, or the one that the environment names.

mod support;

use std::rc::Rc;
use std::time::Duration;

use support::{Broker, PATIENCE};
use warren::amqp::client::{
    Connection, ConsumeOptions, Error, ExchangeOptions, Publish, QueueOptions, RpcClient,
};
use warren::amqp::{BasicProperties, FieldTable};
use warren::hub::sync::{Event, Queue};
use warren::hub::{join_all, run, spawn, with_timeout};

/// Runs `test` with a connection, on a fiber.
fn connected(test: impl FnOnce(Connection) -> Result<(), Error> + 'static) {
    let broker = Broker::get();
    let url = broker.url.clone();
    run(move || with_timeout(PATIENCE, || test(Connection::open(&url)?)))
        .expect("the test does not hang")
        .expect("the test has no error");
}

fn own() -> QueueOptions {
    QueueOptions { exclusive: true, ..QueueOptions::default() }
}

fn no_ack() -> ConsumeOptions {
    ConsumeOptions { no_ack: true, ..ConsumeOptions::default() }
}

#[test]
fn messages_arrive_with_all_they_had() {
    connected(|connection| {
        let channel = connection.channel()?;
        let queue = channel.queue_declare("", own())?.queue;
        let properties = BasicProperties::persistent()
            .with_content_type("text/plain")
            .with_correlation_id("7")
            .with_header("n", 3)
            .with_header("table", FieldTable::new().with("inner", true));
        channel.basic_publish(Publish::to("", &queue), &properties, b"body")?;
        let mut consumer = channel.basic_consume(&queue, ConsumeOptions::default())?;
        let delivery = consumer.next().expect("a delivery")?;
        assert_eq!(delivery.body, b"body");
        assert_eq!(delivery.properties, properties);
        assert_eq!(
            (delivery.exchange.as_str(), delivery.routing_key.as_str()),
            ("", queue.as_str())
        );
        assert!(!delivery.redelivered);
        delivery.ack()?;
        connection.close()
    });
}

#[test]
fn large_bodies_are_cut_into_frames_and_put_together() {
    connected(|connection| {
        let channel = connection.channel()?;
        let queue = channel.queue_declare("", own())?.queue;
        let body: Vec<u8> = (0..1_000_000u32).map(|n| (n % 253) as u8).collect();
        channel.basic_publish(Publish::to("", &queue), &BasicProperties::new(), &body)?;
        let delivery = channel.basic_consume(&queue, no_ack())?.next().expect("a delivery")?;
        assert!(delivery.body == body);
        connection.close()
    });
}

#[test]
fn many_fibers_share_a_connection() {
    connected(|connection| {
        let fibers = (0..20).map(|n| {
            let connection = connection.clone();
            spawn(move || {
                let channel = connection.channel()?;
                let queue = channel.queue_declare("", own())?.queue;
                for round in 0..20u32 {
                    let body = format!("{n} {round}");
                    channel.basic_publish(
                        Publish::to("", &queue),
                        &BasicProperties::new(),
                        body.as_bytes(),
                    )?;
                }
                for (round, delivery) in
                    channel.basic_consume(&queue, no_ack())?.take(20).enumerate()
                {
                    assert_eq!(delivery?.body, format!("{n} {round}").into_bytes());
                }
                channel.close()
            })
        });
        for fiber in join_all(fibers) {
            fiber.expect("no panic")?;
        }
        connection.close()
    });
}

#[test]
fn confirms_are_waited_for() {
    connected(|connection| {
        let channel = connection.channel()?;
        channel.confirm_select()?;
        let queue = channel.queue_declare("", own())?.queue;
        for number in 1..=100 {
            let publish = Publish::to("", &queue);
            assert_eq!(
                channel.basic_publish(publish, &BasicProperties::persistent(), b"x")?,
                number
            );
        }
        channel.wait_for_confirms()?;
        assert_eq!(
            channel.queue_declare(&queue, QueueOptions { passive: true, ..own() })?.message_count,
            100
        );
        connection.close()
    });
}

#[test]
fn what_nobody_takes_comes_back() {
    connected(|connection| {
        let channel = connection.channel()?;
        let returned = Rc::new(Queue::unbounded());
        let notes = returned.clone();
        channel.on_return(move |message| notes.put(message).expect("never closed"));
        channel.confirm_select()?;
        let publish = Publish::to("amq.direct", "nobody listens here").mandatory();
        channel.basic_publish(publish, &BasicProperties::new(), b"lost")?;
        channel.wait_for_confirms()?;
        let message = returned.try_get().expect("returned before it is confirmed");
        assert_eq!((message.code.0, message.text.as_str()), (312, "NO_ROUTE"));
        assert_eq!(message.body, b"lost");
        connection.close()
    });
}

#[test]
fn each_message_has_a_confirm_of_its_own() {
    connected(|connection| {
        let channel = connection.channel()?;
        let arguments =
            FieldTable::new().with("x-max-length", 1).with("x-overflow", "reject-publish");
        let queue = channel.queue_declare("", QueueOptions { arguments, ..own() })?.queue;
        let properties = BasicProperties::persistent();
        let taken = channel.publish(Publish::to("", &queue).mandatory(), &properties, b"1")?;
        assert_eq!(taken.number(), 1);
        taken.wait()?;
        assert!(taken.is_settled());
        let refused = channel.publish(Publish::to("", &queue), &properties, b"2")?;
        assert!(matches!(refused.wait(), Err(Error::Nacked(1))));
        // Told once, and not to who waits for all.
        channel.wait_for_confirms()?;
        // To nowhere, to the queue, and to nowhere without wanting it back.
        let nowhere = Publish::to("amq.direct", "nobody listens here");
        let lost = channel.publish(nowhere.mandatory(), &properties, b"lost")?;
        let full = channel.publish(Publish::to("", &queue).mandatory(), &properties, b"lost")?;
        let dropped = channel.publish(nowhere, &properties, b"lost")?;
        assert!(matches!(full.wait(), Err(Error::Nacked(1))));
        dropped.wait_timeout(PATIENCE)?;
        let error = lost.wait().unwrap_err();
        let text = "no queue took a message for exchange 'amq.direct' with routing key \
                    'nobody listens here': 312 NO_ROUTE";
        assert_eq!(error.to_string(), text);
        let Error::Returned(returned) = error else { panic!("{error}") };
        assert_eq!(returned.body, b"lost");
        connection.close()
    });
}

#[test]
fn who_waits_for_a_confirm_hears_of_the_end() {
    connected(|connection| {
        let channel = connection.channel()?;
        let nowhere = Publish::to("there is no such exchange", "");
        let confirm = channel.publish(nowhere, &BasicProperties::new(), b"x")?;
        assert_eq!(confirm.wait().unwrap_err().code().map(u16::from), Some(404));
        assert_eq!(confirm.wait().unwrap_err().code().map(u16::from), Some(404));
        connection.close()
    });
}

#[test]
fn a_consumer_knows_that_its_queue_has_gone() {
    connected(|connection| {
        let channel = connection.channel()?;
        let heard = Rc::new(Queue::unbounded());
        let tags = heard.clone();
        channel.on_cancel(move |tag| tags.put(tag.to_owned()).expect("never closed"));
        let queue = channel.queue_declare("", own())?.queue;
        let mut consumer = channel.basic_consume(&queue, no_ack())?;
        let tag = consumer.tag().to_owned();
        assert!(!consumer.is_cancelled());
        connection.channel()?.queue_delete(&queue, false, false)?;
        assert!(consumer.next().is_none());
        assert!(consumer.is_cancelled());
        assert_eq!(heard.get().ok(), Some(tag));
        connection.close()
    });
}

#[test]
fn a_new_secret_is_taken() {
    connected(|connection| {
        connection.update_secret("a new one", "the old one runs out")?;
        connection.channel()?.queue_declare("", own())?;
        connection.close()?;
        assert!(matches!(connection.wait_closed(), Error::Closed));
        let late = connection.update_secret("a new one", "too late");
        assert!(matches!(late, Err(Error::Closed)));
        Ok(())
    });
}

#[test]
fn publishers_wait_while_the_server_is_short_of_memory() {
    let broker = Broker::get();
    let url = broker.url.clone();
    run(move || {
        with_timeout(PATIENCE, || {
            let connection = Connection::open(&url)?;
            let channel = connection.channel()?;
            let queue = channel.queue_declare("", own())?.queue;
            let reasons = Rc::new(Queue::unbounded());
            let told = reasons.clone();
            connection.on_blocked(move |reason| {
                told.put(reason.map(str::to_owned)).expect("never closed");
            });
            if !broker.set_alarm(true) {
                return Ok(());
            }
            // The one that the server reads makes it say so.
            let first = channel.publish(Publish::to("", &queue), &BasicProperties::new(), b"1")?;
            assert_eq!(reasons.get().ok(), Some(Some("low on memory".into())));
            assert_eq!(connection.blocked().as_deref(), Some("low on memory"));
            let publishing = channel.clone();
            let second = spawn(move || {
                publishing.publish(Publish::to("", &queue), &BasicProperties::new(), b"2")?.wait()
            });
            warren::hub::yield_now();
            assert!(!second.is_finished());
            broker.set_alarm(false);
            assert_eq!(reasons.get().ok(), Some(None));
            assert_eq!(connection.blocked(), None);
            connection.wait_until_unblocked()?;
            first.wait()?;
            second.join().expect("no panic")?;
            connection.close()
        })
    })
    .expect("the test does not hang")
    .expect("the test has no error");
}

#[test]
fn a_connection_has_a_name() {
    let broker = Broker::get();
    let url = broker.url.clone();
    run(move || {
        with_timeout(PATIENCE, || {
            let watching = Connection::open(&url)?;
            let channel = watching.channel()?;
            let queue = channel.queue_declare("", own())?.queue;
            channel.queue_bind(&queue, "amq.rabbitmq.event", "connection.created")?;
            let name = format!("name {queue}");
            let named = format!("{url}?connection_name={}", name.replace(' ', "%20"));
            let named = Connection::open(&named)?;
            let is_it = |delivery: Result<warren::amqp::client::Delivery, Error>| {
                let headers = delivery.ok()?.properties.headers?;
                Some(headers.get("user_provided_name")?.as_str()? == name)
            };
            let mut created = channel.basic_consume(&queue, no_ack())?;
            assert!(created.any(|delivery| is_it(delivery) == Some(true)));
            named.close()?;
            watching.close()
        })
    })
    .expect("the test does not hang")
    .expect("the test has no error");
}

#[test]
fn a_channel_error_tells_code_text_and_method_and_spares_the_connection() {
    connected(|connection| {
        let channel = connection.channel()?;
        let passive = QueueOptions { passive: true, ..QueueOptions::default() };
        let error = channel.queue_declare("there is no such queue", passive).unwrap_err();
        let close = error.close().expect("the server's reason");
        assert_eq!(close.code.0, 404);
        assert_eq!(close.text, "NOT_FOUND - no queue 'there is no such queue' in vhost '/'");
        assert!(error.to_string().ends_with("(in answer to queue.declare)"), "{error}");
        // Every later call says the same.
        let again = channel.basic_qos(1, false).unwrap_err();
        assert_eq!(again.code(), error.code());
        connection.channel()?.queue_declare("", own())?;
        connection.close()
    });
}

#[test]
fn a_publish_that_fails_is_told_to_who_waits() {
    connected(|connection| {
        let channel = connection.channel()?;
        channel.confirm_select()?;
        let publish = Publish::to("there is no such exchange", "");
        channel.basic_publish(publish, &BasicProperties::new(), b"x")?;
        assert_eq!(channel.wait_for_confirms().unwrap_err().code().map(u16::from), Some(404));
        connection.close()
    });
}

#[test]
fn a_consumer_hears_why_its_channel_ended() {
    connected(|connection| {
        let channel = connection.channel()?;
        let queue = channel.queue_declare("", own())?.queue;
        let mut consumer = channel.basic_consume(&queue, ConsumeOptions::default())?;
        channel.basic_ack(99, false)?;
        let error = consumer.next().expect("the reason").unwrap_err();
        assert_eq!(error.code().map(u16::from), Some(406));
        assert!(consumer.next().is_none());
        connection.close()
    });
}

#[test]
fn a_consumer_ends_when_it_is_cancelled_or_its_queue_goes() {
    connected(|connection| {
        let channel = connection.channel()?;
        let queue = channel.queue_declare("", own())?.queue;
        let mut consumer = channel.basic_consume(&queue, no_ack())?;
        assert!(matches!(consumer.next_timeout(Duration::from_millis(5)), Err(Error::TimedOut)));
        consumer.cancel()?;
        assert!(consumer.next().is_none());
        let mut consumer = channel.basic_consume(&queue, no_ack())?;
        channel.queue_delete(&queue, false, false)?;
        assert!(consumer.next().is_none());
        connection.close()
    });
}

#[test]
fn callbacks_get_deliveries_and_may_call_back() {
    connected(|connection| {
        let channel = connection.channel()?;
        let queue = channel.queue_declare("", own())?.queue;
        let done = Rc::new(Event::new());
        let noted = done.clone();
        let tag =
            channel.basic_consume_with(&queue, ConsumeOptions::default(), move |delivery| {
                delivery.ack().expect("an open channel");
                // A call that waits for the server, from within a callback.
                delivery.channel().basic_qos(5, false).expect("an open channel");
                noted.set();
            })?;
        channel.basic_publish(Publish::to("", &queue), &BasicProperties::new(), b"x")?;
        done.wait();
        channel.basic_cancel(&tag)?;
        connection.close()
    });
}

#[test]
fn getting_settling_and_purging() {
    connected(|connection| {
        let channel = connection.channel()?;
        let queue = channel.queue_declare("", own())?.queue;
        assert!(channel.basic_get(&queue, false)?.is_none());
        channel.confirm_select()?;
        for body in [b"1", b"2", b"3"] {
            channel.basic_publish(Publish::to("", &queue), &BasicProperties::new(), body)?;
        }
        channel.wait_for_confirms()?;
        let got = channel.basic_get(&queue, false)?.expect("a message");
        assert_eq!((got.message_count, got.delivery.body.as_slice()), (2, &b"1"[..]));
        got.delivery.nack(true)?;
        let again = channel.basic_get(&queue, false)?.expect("the same message");
        assert!(again.delivery.redelivered);
        again.delivery.reject(false)?;
        assert_eq!(channel.queue_purge(&queue)?, 2);
        assert_eq!(channel.queue_delete(&queue, false, false)?, 0);
        connection.close()
    });
}

#[test]
fn transactions_commit_and_roll_back() {
    connected(|connection| {
        let channel = connection.channel()?;
        let queue = channel.queue_declare("", own())?.queue;
        channel.tx_select()?;
        channel.basic_publish(Publish::to("", &queue), &BasicProperties::new(), b"no")?;
        channel.tx_rollback()?;
        channel.basic_publish(Publish::to("", &queue), &BasicProperties::persistent(), b"yes")?;
        channel.tx_commit()?;
        let delivery = channel.basic_consume(&queue, no_ack())?.next().expect("a delivery")?;
        assert_eq!(delivery.body, b"yes");
        connection.close()
    });
}

#[test]
fn exchanges_route_to_exchanges() {
    connected(|connection| {
        let channel = connection.channel()?;
        let gone = ExchangeOptions { auto_delete: true, ..ExchangeOptions::default() };
        let (source, destination) = ("client-test-source", "client-test-destination");
        channel.exchange_declare(source, "topic", gone.clone())?;
        channel.exchange_declare(destination, "fanout", gone)?;
        channel.exchange_bind(destination, source, "a.#")?;
        let queue = channel.queue_declare("", own())?.queue;
        channel.queue_bind(&queue, destination, "")?;
        channel.basic_publish(Publish::to(source, "b"), &BasicProperties::new(), b"no")?;
        channel.basic_publish(Publish::to(source, "a.b"), &BasicProperties::new(), b"yes")?;
        let delivery = channel.basic_consume(&queue, no_ack())?.next().expect("a delivery")?;
        assert_eq!(delivery.body, b"yes");
        channel.exchange_unbind(destination, source, "a.#")?;
        channel.exchange_delete(destination, false)?;
        channel.exchange_delete(source, false)?;
        connection.close()
    });
}

#[test]
fn calls_of_many_fibers_get_their_own_answers() {
    connected(|connection| {
        let server = connection.channel()?;
        let queue = server.queue_declare("", own())?.queue;
        let answering = server.clone();
        server.basic_consume_with(&queue, no_ack(), move |request| {
            let reply_to = request.properties.reply_to.clone().unwrap_or_default();
            let mut properties = BasicProperties::new();
            properties.correlation_id = request.properties.correlation_id.clone();
            let mut body = request.body;
            body.reverse();
            answering.basic_publish(Publish::to("", &reply_to), &properties, &body).expect("open");
        })?;
        let client = Rc::new(RpcClient::new(&connection)?);
        let calls = (100..120).map(|n| {
            let (client, queue) = (client.clone(), queue.clone());
            spawn(move || client.call(&queue, n.to_string().as_bytes(), PATIENCE))
        });
        for (n, answer) in (100..).zip(join_all(calls)) {
            let expected: String = n.to_string().chars().rev().collect();
            assert_eq!(answer.expect("no panic")?, expected.into_bytes());
        }
        let late = client.call("nobody serves this queue", b"x", Duration::from_millis(5));
        assert!(matches!(late, Err(Error::TimedOut)));
        drop(client);
        connection.close()
    });
}

#[test]
fn a_call_that_is_given_up_does_not_mix_up_the_next() {
    connected(|connection| {
        let channel = connection.channel()?;
        let queue = channel.queue_declare("", own())?.queue;
        for _ in 0..5 {
            let _ = with_timeout(Duration::ZERO, || channel.queue_purge(&queue));
            let passive = QueueOptions { passive: true, ..own() };
            assert_eq!(channel.queue_declare(&queue, passive)?.queue, queue);
        }
        connection.close()
    });
}

#[test]
fn refusals_are_clear() {
    let broker = Broker::get();
    let url = broker.url.clone();
    run(move || {
        let wrong = url.replace("amqp://", "amqp://guest:wrong@");
        let error = Connection::open(&wrong).unwrap_err();
        assert_eq!(error.code().map(u16::from), Some(403), "{error}");
        let error = Connection::open(&format!("{url}/nowhere")).unwrap_err();
        assert_eq!(error.code().map(u16::from), Some(530), "{error}");
        let error = Connection::open("http://127.0.0.1").unwrap_err();
        assert!(matches!(error, Error::Uri(_)), "{error}");
        let error = Connection::open("amqp://127.0.0.1:1").unwrap_err();
        assert!(error.to_string().starts_with("cannot connect to 127.0.0.1:1: "), "{error}");
    });
}
