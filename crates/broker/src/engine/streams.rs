//! Streams among the queues: what comes in is written in one piece per turn, what goes out is read from where
//! each consumer stands.

use std::sync::Arc;

use warren_amqp::method::basic;
use warren_amqp::{FieldTable, ReplyCode};

use super::Engine;
use super::deliver::DELIVERIES_PER_TURN;
use super::timers::Timer;
use crate::exception::{Exception, resource};
use crate::queue::{ConsumerKey, Queue, QueueKey};
use crate::stream::settings::{Filter, Start, StreamSettings};
use crate::stream::{Cursor, Job, Meter, Place, Reads, Sealed, Stream};

/// Messages that one consumer gets in a row. Then others have theirs.
const DELIVERIES_IN_A_ROW: usize = 128;
/// Chunks that consumers hold without taking anything are let go from here on.
const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A stream is looked at for what has grown too old at least that often while there is something.
const AGE_CHECK_MS: u64 = 60_000;

/// What the engine keeps for all streams.
#[derive(Default)]
pub(super) struct Streams {
    /// Streams with something that was appended in this turn.
    fresh: Vec<QueueKey>,
    /// What may be read once a batch is on disk: the batch, the stream, the offset. In the order of batches.
    commits: std::collections::VecDeque<(u64, QueueKey, u64)>,
    /// Started with the first reading.
    reads: Option<Reads>,
    /// Called when something was read, by another thread.
    wake: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Of chunks that were read from disk.
    held: Meter,
}

impl Engine {
    /// Lets `wake` be called, on another thread, when the engine should have another turn.
    pub(crate) fn wake_by(&mut self, wake: impl Fn() + Send + Sync + 'static) {
        self.streams.wake = Some(Arc::new(wake));
    }

    /// A new stream, in the store if there is one.
    pub(super) fn new_stream(&mut self, queue: &Queue) -> Box<Stream> {
        let settings = StreamSettings::new(&queue.arguments, &serde_json::Map::new());
        Box::new(match &mut self.store {
            Some(store) => {
                let shared = store.new_stream(queue.id);
                store.stream(Job::Create { shared: shared.clone(), settings });
                Stream::on_disk(settings, shared)
            }
            None => Stream::in_memory(settings),
        })
    }

    /// Other limits may hold for a stream.
    pub(super) fn configure_stream(
        &mut self,
        key: QueueKey,
        policy: &serde_json::Map<String, serde_json::Value>,
    ) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let Some(stream) = &mut queue.stream else { return };
        let settings = StreamSettings::new(&queue.arguments, policy);
        if settings != std::mem::replace(&mut stream.settings, settings)
            && let Some(store) = &mut self.store
        {
            store.stream(Job::Configure { stream: queue.id, settings });
        }
        self.retain_stream(key);
    }

    /// Lets go what a stream has too much of, or what is too old; looks again when the next may be.
    pub(super) fn retain_stream(&mut self, key: QueueKey) {
        let now_ms = self.now_ms;
        let Some(queue) = self.queues.get_mut(key) else { return };
        let Some(stream) = &mut queue.stream else { return };
        match &mut self.store {
            Some(store) if stream.is_on_disk() => {
                store.stream(Job::Retain { stream: queue.id, now_ms });
            }
            _ => stream.retain(now_ms),
        }
        let Some(age_ms) = stream.settings.age_ms_max else { return };
        if std::mem::replace(&mut stream.age_timer, true) {
            return;
        }
        let oldest_ms = match stream.oldest_ms() {
            0 => now_ms,
            oldest_ms => oldest_ms,
        };
        // What is to go now has not gone yet: the store's thread does that.
        let due_ms = oldest_ms.saturating_add(age_ms).saturating_add(1);
        let soonest_ms = now_ms + age_ms.clamp(10, 1000);
        let due_ms = due_ms.max(soonest_ms).min(now_ms + AGE_CHECK_MS);
        self.timers.at(due_ms, Timer::StreamAge(key));
    }

    pub(super) fn check_stream_age(&mut self, key: QueueKey) {
        if let Some(stream) = self.queues.get_mut(key).and_then(|queue| queue.stream.as_mut()) {
            stream.age_timer = false;
            stream.forget_recent();
            self.retain_stream(key);
        }
    }

    /// Hands what was appended in this turn to the store. What needs no store may be read now.
    pub(super) fn seal_streams(&mut self) {
        for key in std::mem::take(&mut self.streams.fresh) {
            let Some(stream) = self.queues.get_mut(key).and_then(|queue| queue.stream.as_mut())
            else {
                continue;
            };
            stream.listed = false;
            let sealed = stream.seal();
            if let Some(sealed) = sealed {
                self.write_stream(key, sealed);
            }
            self.mark(key);
        }
    }

    fn write_stream(&mut self, key: QueueKey, sealed: Sealed) {
        let Some(queue) = self.queues.get(key) else { return };
        let (Some(stream), Some(store)) = (&queue.stream, &mut self.store) else { return };
        let Sealed { records, filtered } = sealed;
        let batch = store.stream(Job::Append { stream: queue.id, records, filtered });
        self.streams.commits.push_back((batch, key, stream.next()));
    }

    /// Appends a message to a stream. The store's batch that makes it durable; 0 without a store.
    pub(super) fn append_to_stream(
        &mut self,
        key: QueueKey,
        message: &crate::message::Message,
    ) -> u64 {
        let now_ms = self.now_ms;
        let Some(stream) = self.queues.get_mut(key).and_then(|queue| queue.stream.as_mut()) else {
            return 0;
        };
        let sealed = stream.append(message, now_ms);
        if !std::mem::replace(&mut stream.listed, true) {
            self.streams.fresh.push(key);
        }
        if let Some(sealed) = sealed {
            self.write_stream(key, sealed);
        }
        // What is sealed at the end of this turn goes with the same batch.
        self.store.as_mut().map_or(0, crate::store::Store::await_streams)
    }

    /// A batch is on disk: what came with it may be read.
    pub(super) fn commit_streams(&mut self) {
        while let Some((batch, key, next)) = self.streams.commits.front().copied()
            && batch <= self.synced
        {
            self.streams.commits.pop_front();
            if let Some(stream) = self.queues.get_mut(key).and_then(|queue| queue.stream.as_mut()) {
                stream.commit(next);
                self.mark(key);
            }
        }
    }

    /// Takes in what was read.
    pub(super) fn take_read(&mut self) {
        let Some(reads) = &mut self.streams.reads else { return };
        for ((key, number), found) in reads.take() {
            if let Some(stream) = self.queues.get_mut(key).and_then(|queue| queue.stream.as_mut()) {
                stream.was_read(number, found, &self.streams.held);
                self.mark(key);
            }
        }
    }

    /// Whether a thread is to tell something of a stream.
    #[cfg(test)]
    pub(crate) fn waits_for_streams(&self) -> bool {
        let reads = self.streams.reads.as_ref();
        !self.streams.commits.is_empty() || reads.is_some_and(Reads::is_busy)
    }

    /// Ends the reading thread.
    pub(super) fn stop_reading(&mut self) {
        self.streams.reads = None;
    }

    /// Lets the end of the turn look at a queue for one of its consumers.
    pub(super) fn wake(&mut self, key: QueueKey, consumer: ConsumerKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        if let Some(stream) = &mut queue.stream {
            stream.wake(consumer);
        }
        if !std::mem::replace(&mut queue.dirty, true) {
            self.dirty.push(key);
        }
    }

    /// Where a consumer of a stream begins, and what it wants.
    ///
    /// # Errors
    /// For what streams do not have, in RabbitMQ's words.
    pub(super) fn new_cursor(
        &self,
        queue: &Queue,
        stream: &Stream,
        consume: &basic::Consume<'_>,
        (prefetch, prefetch_all): (u32, u32),
    ) -> Result<Cursor, Exception> {
        let what = resource("queue", &queue.name, &queue.vhost);
        let arguments = &consume.arguments;
        let foreign = |key: &&&str| arguments.contains_key(key);
        if let Some(key) = ["x-priority", "x-cancel-on-ha-failover"].iter().find(foreign) {
            return Err(Exception::precondition(format!(
                "invalid arg '{key}' for {what} of queue type rabbit_stream_queue"
            )));
        }
        if prefetch == 0 {
            let text = format!("consumer prefetch count is not set for '{what}'");
            return Err(Exception::precondition(text));
        }
        if consume.no_ack {
            return Err(not_supported("automatic acknowledgement", &what));
        }
        if prefetch_all != 0 {
            let text = format!("{what} does not support global qos");
            return Err(Exception::new(ReplyCode::NOT_IMPLEMENTED, text));
        }
        let start = Start::parse(arguments.get("x-stream-offset"), self.now_ms).map_err(|why| {
            Exception::precondition(format!("invalid arg 'x-stream-offset' for {what}: {why}"))
        })?;
        Ok(Cursor::new(stream.start(start), Filter::parse(arguments).map(Arc::new)))
    }

    /// Refuses what makes no sense for a stream.
    ///
    /// # Errors
    /// If the queue is one.
    pub(crate) fn refuse_stream(&self, key: QueueKey, method: &str) -> Result<(), Exception> {
        match self.queues.get(key) {
            Some(queue) if queue.stream.is_some() => {
                Err(not_supported(method, &resource("queue", &queue.name, &queue.vhost)))
            }
            _ => Ok(()),
        }
    }

    /// Hands out the messages of a stream to those who take them. True when it stopped only to let others have
    /// their turn.
    pub(super) fn dispatch_stream(&mut self, key: QueueKey, mut stream: Box<Stream>) -> bool {
        let mut count = 0;
        while count < DELIVERIES_PER_TURN
            && let Some(consumer) = stream.next_ready()
        {
            count += self.feed(key, &mut stream, consumer);
        }
        let more = stream.has_ready();
        if let Some(queue) = self.queues.get_mut(key) {
            queue.stream = Some(stream);
        }
        more
    }

    /// Gives a consumer what it takes, up to a limit; what that cost.
    fn feed(&mut self, key: QueueKey, stream: &mut Stream, consumer: ConsumerKey) -> usize {
        let Some(mut cursor) = stream.cursors.remove(&consumer) else { return 1 };
        let mut count = 0;
        let stopped = loop {
            if DELIVERIES_IN_A_ROW <= count {
                break Stopped::Enough;
            }
            if !self.can_take(consumer) {
                break Stopped::Full;
            }
            let Some((chunk, at)) = cursor.current() else {
                let place = match cursor.offset() {
                    Some(offset) => stream.find(offset),
                    None => stream.disk(),
                };
                match place {
                    Place::Chunk(chunk) => cursor.enter(chunk),
                    Place::AtEnd => break Stopped::AtEnd,
                    Place::Disk(shared) => break Stopped::Reads(shared),
                }
                continue;
            };
            count += 1;
            let Some(record) = chunk.records.get(at) else { break Stopped::Enough };
            cursor.advance(record.offset);
            let wanted = cursor.filter.as_ref();
            if wanted.is_none_or(|filter| filter.matches(record.filter_value())) {
                let content = chunk.records.content(&record);
                let shown = (record.exchange, record.routing_key, &content);
                self.deliver(key, consumer, stream.delivered(), Some(shown));
            }
        };
        if matches!(stopped, Stopped::Full) && HELD_BYTES_MAX < self.streams.held.bytes() {
            cursor.let_go();
        }
        stream.cursors.insert(consumer, cursor);
        match stopped {
            Stopped::Enough => stream.wake(consumer),
            Stopped::Full => {}
            Stopped::AtEnd => stream.wait(consumer),
            Stopped::Reads(shared) => {
                if let Some((number, read)) = stream.read(consumer, shared) {
                    self.read_stream((key, number), read);
                }
            }
        }
        count.max(1)
    }

    fn read_stream(&mut self, token: crate::stream::Token, read: crate::stream::Read) {
        let streams = &mut self.streams;
        if streams.reads.is_none() {
            let wake = streams.wake.clone();
            let wake = move || {
                if let Some(wake) = &wake {
                    wake();
                }
            };
            match Reads::start(Box::new(wake)) {
                Ok(reads) => streams.reads = Some(reads),
                Err(error) => tracing::error!(%error, "cannot start a thread to read streams"),
            }
        }
        if let Some(reads) = &mut streams.reads {
            reads.ask(token, read);
        }
    }
}

/// Why a consumer gets no more for now.
enum Stopped {
    Enough,
    Full,
    AtEnd,
    Reads(Arc<crate::stream::Shared>),
}

fn not_supported(what: &str, queue: &str) -> Exception {
    let text = format!("{what} not supported by stream queues {queue}");
    Exception::new(ReplyCode::NOT_IMPLEMENTED, text)
}

/// Whether a queue with these arguments is a stream.
pub(super) fn is_stream(arguments: &FieldTable) -> bool {
    arguments.get("x-queue-type").and_then(|value| value.as_str()) == Some("stream")
}
