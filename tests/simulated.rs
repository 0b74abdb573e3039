//! The broker and its client in a simulated world: the same code, on a network in memory, from a seed.

use std::cell::Cell;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use warren::amqp::BasicProperties;
use warren::amqp::client::{Connection, ConsumeOptions, Error, Publish, QueueOptions};
use warren::broker::{Broker, Config};
use warren::hub::net::{TcpListener, TcpStream};
use warren::hub::{sim, sleep, spawn};
use warren::reactor::listen_tcp;

const URL: &str = "amqp://broker:5673";

/// A broker, and a door to it from other machines: `guest` may log in from the broker's own machine only.
fn serve() {
    let broker = Broker::open(Config::default()).unwrap();
    let _port = listen_tcp("127.0.0.1:5672".parse().unwrap(), broker.factory()).unwrap();
    for outside in TcpListener::bind("0.0.0.0:5673").unwrap().incoming() {
        let outside = outside.unwrap();
        let inside = TcpStream::connect("127.0.0.1:5672").unwrap();
        for (from, to) in [(&outside, &inside), (&inside, &outside)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            spawn(move || {
                // However it ends, the other end is told.
                let _ = std::io::copy(&mut &from, &mut &to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    }
}

/// Publishes what is left to publish, and says what was confirmed.
fn publish(from: u32, to: u32) -> Result<u32, (u32, Error)> {
    let mut confirmed = from;
    let mut attempt = || -> Result<(), Error> {
        let connection = Connection::open(URL)?;
        let channel = connection.channel()?;
        channel.queue_declare("numbers", QueueOptions { durable: true, ..Default::default() })?;
        channel.confirm_select()?;
        while confirmed < to {
            let body = confirmed.to_string();
            let message = Publish::to("", "numbers");
            channel.basic_publish(message, &BasicProperties::default(), body.as_bytes())?;
            channel.wait_for_confirms()?;
            confirmed += 1;
        }
        connection.close()
    };
    match attempt() {
        Ok(()) => Ok(confirmed),
        Err(error) => Err((confirmed, error)),
    }
}

#[test]
fn what_is_confirmed_arrives_though_connections_are_cut() {
    const NUMBERS: u32 = 20;
    let cuts = Rc::new(Cell::new(0));
    let counted = cuts.clone();
    sim::check(0..15, move |world| {
        world.net().latency(Duration::from_millis(1)..=Duration::from_millis(20)).cuts(0.01);
        world.node("broker", serve);
        let mut confirmed = 0;
        while confirmed < NUMBERS {
            match publish(confirmed, NUMBERS) {
                Ok(all) => confirmed = all,
                Err((some, _)) => {
                    confirmed = some;
                    counted.set(counted.get() + 1);
                    sleep(Duration::from_millis(20));
                }
            }
        }
        world.net().cuts(0.0);
        let connection = loop {
            match Connection::open(URL) {
                Ok(connection) => break connection,
                Err(_) => sleep(Duration::from_millis(20)),
            }
        };
        let channel = connection.channel().unwrap();
        let mut deliveries = channel.basic_consume("numbers", ConsumeOptions::default()).unwrap();
        // A number whose confirm was lost with the connection is there twice; none is missing, and the order stays.
        let mut next = 0;
        while next < NUMBERS {
            let delivery = deliveries.next().unwrap().unwrap();
            let number: u32 = String::from_utf8(delivery.body.clone()).unwrap().parse().unwrap();
            assert!(number == next || number + 1 == next, "{number} when {next} was to come");
            next = next.max(number + 1);
            delivery.ack().unwrap();
        }
        connection.close().unwrap();
    });
    assert!(cuts.get() > 0, "no connection was cut: the seeds show nothing");
}
