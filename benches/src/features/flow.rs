//! Messages that go through: published by one connection, consumed by another at the same time.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use warren_amqp::method::queue;

use super::{Effort, Rate, Side, Stint};
use crate::load::{Batch, Client, Consumer, IN_FLIGHT_MAX, Publisher, UNCONFIRMED_MAX};

/// Messages that go through.
pub(super) struct Flow<'f> {
    pub(super) batch: &'f Batch,
    /// What a batch comes to in deliveries.
    pub(super) deliveries: u64,
    pub(super) confirms: bool,
    /// Some queue, through which the end is asked for.
    pub(super) queue: &'f str,
}

impl Flow<'_> {
    /// Publishes over and over while the consumer, which takes from all queues that the batch reaches, keeps up. The
    /// rate is that of publishes.
    pub(super) fn run(
        &self,
        side: &Side,
        effort: Effort,
        consumer: Option<&Consumer>,
    ) -> io::Result<Rate> {
        let count = || consumer.map_or(0, Consumer::count);
        let mut publisher = Publisher::open(&side.url, self.confirms)?;
        let (stint, before) = (Stint::start(side), count());
        let mut expected = before;
        // A batch of a fanout may be more than that by itself.
        let in_flight_max = IN_FLIGHT_MAX.max(2 * self.deliveries);
        while stint.elapsed() < effort.time {
            let late = Instant::now() + Duration::from_secs(120);
            while in_flight_max < expected - count() + self.deliveries {
                if late < Instant::now() {
                    return Err(io::Error::other(format!("{} of {expected} have come", count())));
                }
                thread::sleep(Duration::from_micros(50));
            }
            publisher.wait_until_owed(UNCONFIRMED_MAX)?;
            publisher.publish(self.batch)?;
            expected += self.deliveries;
        }
        publisher.settle(self.queue)?;
        if let Some(consumer) = consumer {
            consumer.wait_for(expected)?;
        }
        Ok(stint.end(publisher.published()))
    }
}

/// Fills a queue, then empties it.
pub(super) struct Backlog<'b> {
    pub(super) queue: &'b queue::Declare<'b>,
    pub(super) batch: &'b Batch,
    pub(super) count: u64,
    pub(super) confirms: bool,
}

impl Backlog<'_> {
    /// The rates of messages in and out; between the two, `full` is called.
    pub(super) fn run(&self, side: &Side, full: impl FnOnce()) -> io::Result<(Rate, Rate)> {
        let mut client = Client::open(&side.url)?;
        client.call(self.queue)?;
        let name = self.queue.queue;
        let mut publisher = Publisher::open(&side.url, self.confirms)?;
        let stint = Stint::start(side);
        while publisher.published() < self.count {
            publisher.wait_until_owed(UNCONFIRMED_MAX)?;
            publisher.publish(self.batch)?;
        }
        publisher.settle(name)?;
        let filled = stint.end(publisher.published());
        full();
        let stint = Stint::start(side);
        let consumer = Consumer::of(&side.url, &[name.to_owned()])?;
        consumer.wait_for(publisher.published())?;
        let emptied = stint.end(publisher.published());
        client.call(&queue::Delete { queue: name, ..queue::Delete::default() })?;
        Ok((filled, emptied))
    }
}
