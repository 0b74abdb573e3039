//! A load generator on plain threads and blocking sockets, the same for every broker: it knows the codec and
//! neither our event loop nor our client.

mod client;
mod consumer;
mod publisher;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use warren_amqp::BasicProperties;
use warren_amqp::method::queue;

pub use client::Client;
pub(crate) use consumer::{Consumer, Settle};
pub(crate) use publisher::{Batch, Publisher};

/// Messages that are on their way at most, per queue: a publisher waits for its consumer.
pub(crate) const IN_FLIGHT_MAX: u64 = 20_000;
/// Confirms that are owed at most.
pub(crate) const UNCONFIRMED_MAX: u64 = 2_000;
/// Messages encoded at once and written by one call.
pub(crate) const BATCH: u64 = 100;
/// How long a server runs in before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// A server that has been silent for so long has hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Bytes of each body.
    pub body_bytes: usize,
    /// Queues, each with a publisher and a consumer on connections of their own.
    pub queues: usize,
    /// Durable queues, persistent messages, publisher confirms.
    pub persistent: bool,
}

fn other(text: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(text)
}

/// Messages per second that went through, from publisher to consumer.
///
/// # Errors
/// When the server fails.
///
/// # Panics
/// When a thread does.
pub fn throughput(url: &str, case: Case, time: Duration) -> io::Result<f64> {
    let name = |number| format!("bench-{}-{number}", std::process::id());
    let lanes = (0..case.queues).map(|number| Lane::open(url, name(number), case));
    let lanes = lanes.collect::<io::Result<Vec<_>>>()?;
    let counts: Vec<_> = lanes.iter().map(|lane| lane.consumer.counter()).collect();
    let total = || counts.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let run = |lane: Lane| scope.spawn(|| lane.run(&stop));
        let lanes: Vec<_> = lanes.into_iter().map(run).collect();
        thread::sleep(WARM_UP);
        let (before, start) = (total(), Instant::now());
        thread::sleep(time);
        let (after, took) = (total(), start.elapsed());
        stop.store(true, Ordering::Relaxed);
        for lane in lanes {
            lane.join().expect("a load thread has panicked")?;
        }
        Ok((after - before) as f64 / took.as_secs_f64())
    })
}

/// A queue with a publisher and a consumer.
struct Lane {
    queue: String,
    owner: Client,
    consumer: Consumer,
    publisher: Publisher,
    batch: Batch,
}

impl Lane {
    fn open(url: &str, queue: String, case: Case) -> io::Result<Self> {
        let mut owner = Client::open(url)?;
        let durable = case.persistent;
        owner.call(&queue::Declare { queue: &queue, durable, ..queue::Declare::default() })?;
        let properties =
            if case.persistent { BasicProperties::persistent() } else { BasicProperties::new() };
        Ok(Self {
            owner,
            consumer: Consumer::of(url, std::slice::from_ref(&queue))?,
            publisher: Publisher::open(url, case.persistent)?,
            batch: Batch::same(BATCH, "", &queue, &properties, &vec![b'x'; case.body_bytes]),
            queue,
        })
    }

    fn run(mut self, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let ahead = self.publisher.published() - self.consumer.count();
            if IN_FLIGHT_MAX < ahead + BATCH || UNCONFIRMED_MAX < self.publisher.owed() + BATCH {
                thread::sleep(Duration::from_micros(50));
                continue;
            }
            self.publisher.publish(&self.batch)?;
        }
        self.owner.call(&queue::Delete { queue: &self.queue, ..queue::Delete::default() })
    }
}
