//! Publishing batches that are encoded already, with confirms or without.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use warren_amqp::frame;
use warren_amqp::method::{basic, confirm, queue};
use warren_amqp::{BasicProperties, Method};

use super::client::{Client, FRAME_MAX};
use super::{PATIENCE, other};

/// Publishes, encoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u64,
}

impl Batch {
    pub(crate) fn push(
        &mut self,
        exchange: &str,
        routing_key: &str,
        properties: &BasicProperties,
        body: &[u8],
    ) {
        let publish = basic::Publish { exchange, routing_key, ..basic::Publish::default() };
        let mut raw = Vec::new();
        properties.encode(&mut raw);
        frame::write_publish(&mut self.bytes, 1, &publish, &raw, body, FRAME_MAX);
        self.count += 1;
    }

    /// So many times the same.
    pub(crate) fn same(
        count: u64,
        exchange: &str,
        routing_key: &str,
        properties: &BasicProperties,
        body: &[u8],
    ) -> Self {
        let mut batch = Self::default();
        for _ in 0..count {
            batch.push(exchange, routing_key, properties, body);
        }
        batch
    }
}

/// A connection that publishes.
pub(crate) struct Publisher {
    socket: TcpStream,
    published: u64,
    answers: Answers,
}

/// Who reads what the server says.
enum Answers {
    /// Nobody, until it is asked something.
    Asked(Client),
    /// A thread that notes up to which publish all are confirmed.
    Confirms { confirmed: Arc<AtomicU64>, thread: thread::JoinHandle<io::Result<()>> },
}

impl Publisher {
    pub(crate) fn open(url: &str, confirms: bool) -> io::Result<Self> {
        let mut client = Client::open(url)?;
        let socket = client.socket()?;
        if !confirms {
            return Ok(Self { socket, published: 0, answers: Answers::Asked(client) });
        }
        client.call(&confirm::Select { no_wait: false })?;
        let confirmed = Arc::new(AtomicU64::new(0));
        let noted = confirmed.clone();
        let thread = thread::spawn(move || {
            loop {
                // Both brokers confirm in order.
                let note = |method: &Method<'_>| {
                    if let Method::BasicAck(ack) = method {
                        noted.fetch_max(ack.delivery_tag, Ordering::Relaxed);
                    }
                };
                client.methods(note)?;
            }
        });
        Ok(Self { socket, published: 0, answers: Answers::Confirms { confirmed, thread } })
    }

    pub(crate) fn publish(&mut self, batch: &Batch) -> io::Result<()> {
        self.socket.write_all(&batch.bytes)?;
        self.published += batch.count;
        Ok(())
    }

    pub(crate) fn published(&self) -> u64 {
        self.published
    }

    /// Confirms that are owed; none where there are no confirms.
    pub(crate) fn owed(&self) -> u64 {
        match &self.answers {
            Answers::Asked(_) => 0,
            Answers::Confirms { confirmed, .. } => {
                self.published - confirmed.load(Ordering::Relaxed)
            }
        }
    }

    /// Waits until all is with the server: confirmed, or before an answer that came through this queue.
    pub(crate) fn settle(&mut self, queue: &str) -> io::Result<()> {
        if let Answers::Asked(client) = &mut self.answers {
            let declare = queue::Declare { queue, passive: true, ..queue::Declare::default() };
            return client.call(&declare);
        }
        self.wait_until_owed(0)
    }

    /// Waits until at most so many confirms are owed.
    pub(crate) fn wait_until_owed(&self, most: u64) -> io::Result<()> {
        let Answers::Confirms { thread, .. } = &self.answers else { return Ok(()) };
        let start = Instant::now();
        while most < self.owed() {
            if thread.is_finished() || PATIENCE < start.elapsed() {
                return Err(other("the server owes confirms and is silent"));
            }
            thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // Ends the thread that reads confirms.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}
