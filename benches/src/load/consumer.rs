//! Consuming on a thread of its own.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use warren_amqp::frame::{self, Frame};
use warren_amqp::method::basic;
use warren_amqp::{FieldTable, Method};

use super::client::Client;
use super::{PATIENCE, other};

/// What becomes of deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    /// Delivered is done.
    NoAck,
    /// All that one read has brought are acknowledged at once, with this prefetch.
    Ack(u16),
    /// The same, rejected and not requeued.
    Reject(u16),
}

/// A connection that consumes from one queue or many.
pub(crate) struct Consumer {
    count: Arc<AtomicU64>,
    socket: TcpStream,
    thread: thread::JoinHandle<io::Result<()>>,
}

impl Consumer {
    /// Shows each body, as far as it came in one frame, to `look`.
    pub(crate) fn start(
        url: &str,
        queues: &[String],
        settle: Settle,
        arguments: &FieldTable,
        mut look: impl FnMut(&[u8]) + Send + 'static,
    ) -> io::Result<Self> {
        let mut client = Client::open(url)?;
        if let Settle::Ack(prefetch_count) | Settle::Reject(prefetch_count) = settle {
            client.call(&basic::Qos { prefetch_count, ..basic::Qos::default() })?;
        }
        let mut socket = client.socket()?;
        let count = Arc::new(AtomicU64::new(0));
        let counter = count.clone();
        // Deliveries may overtake the answers.
        let mut requests = Vec::new();
        for queue in queues {
            let no_ack = settle == Settle::NoAck;
            let arguments = arguments.clone();
            let consume = basic::Consume { queue, no_ack, arguments, ..basic::Consume::default() };
            frame::write_method(&mut requests, 1, &consume);
        }
        client.write(&requests)?;
        let mut answered = 0;
        let mut read = move |client: &mut Client| {
            let (mut bodies, mut last_tag, mut closed) = (0, 0, None);
            client.read(|frame| match frame {
                Frame::Body { payload, .. } => {
                    bodies += 1;
                    look(payload);
                }
                // All that most of them are for is to be counted, and the client must not be the bound.
                Frame::Method { payload, .. } if settle == Settle::NoAck && is_deliver(payload) => {
                }
                Frame::Method { payload, .. } => match Method::decode(payload) {
                    Ok(Method::BasicDeliver(deliver)) => last_tag = deliver.delivery_tag,
                    Ok(Method::BasicConsumeOk(_)) => answered += 1,
                    Ok(Method::ChannelClose(close)) => closed = Some(close.reply_text.to_owned()),
                    _ => {}
                },
                _ => {}
            })?;
            if let Some(why) = closed {
                return Err(other(why));
            }
            counter.fetch_add(bodies, Ordering::Relaxed);
            if last_tag != 0 {
                let mut out = Vec::new();
                settle.write(&mut out, last_tag);
                socket.write_all(&out)?;
            }
            Ok(answered)
        };
        while read(&mut client)? < queues.len() {}
        let socket = client.socket()?;
        let thread = thread::spawn(move || {
            loop {
                read(&mut client)?;
            }
        });
        Ok(Self { count, socket, thread })
    }

    /// From queues whose deliveries need no answer.
    pub(crate) fn of(url: &str, queues: &[String]) -> io::Result<Self> {
        Self::start(url, queues, Settle::NoAck, &FieldTable::new(), |_| {})
    }

    /// What [`count`](Self::count) reads.
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        self.count.clone()
    }

    /// Messages that have come.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until so many have come.
    pub(crate) fn wait_for(&self, count: u64) -> io::Result<()> {
        let (mut start, mut last) = (Instant::now(), 0);
        while self.count() < count {
            if std::mem::replace(&mut last, self.count()) != self.count() {
                start = Instant::now();
            }
            if self.thread.is_finished() || PATIENCE < start.elapsed() {
                return Err(other(format!("{} of {count} messages have come", self.count())));
            }
            thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Ends the thread.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

fn is_deliver(payload: &[u8]) -> bool {
    payload.starts_with(&[0, 60, 0, 60])
}

impl Settle {
    fn write(self, out: &mut Vec<u8>, delivery_tag: u64) {
        match self {
            Self::NoAck => {}
            Self::Ack(_) => {
                frame::write_method(out, 1, &basic::Ack { delivery_tag, multiple: true });
            }
            Self::Reject(_) => frame::write_method(
                out,
                1,
                &basic::Nack { delivery_tag, multiple: true, requeue: false },
            ),
        }
    }
}
