//! Streams: queues that keep what was delivered. A log of messages, of which each consumer reads what it wants.
//!
//! ```text
//!   engine: Stream     append --> records of this turn --> Job::Append in the store's batch
//!      |                               |                          |  the store's thread: Writer, Log
//!      |                               v                          v
//!      |                    tail, in memory               streams/<queue>/<first offset>.seg, .idx
//!      |                               |                          |  the reading thread: Reader
//!      +-- consumers: Cursor <---------+--------------------------+  blocks of 64 KiB
//! ```
//! A message is read once it is on disk: an offset that a consumer has seen never belongs to another message
//! afterwards. Without a data directory the log is a list of chunks in memory.
//!
//! What a turn appends is one piece of memory: written to disk, and read by consumers at the tail. A delivery copies
//! nothing but what goes to the socket. A consumer holds one chunk at most, and none while it takes nothing and
//! memory is short.

mod chunk;
mod cursor;
pub mod index;
pub(crate) mod inspect;
mod log;
mod memory;
mod reader;
mod reads;
pub mod record;
mod segment;
pub(crate) mod settings;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use warren_amqp::properties::NO_PROPERTIES;

pub(crate) use chunk::{Chunk, Meter};
pub(crate) use cursor::Cursor;
pub(crate) use reader::{Found, From, Read};
pub(crate) use reads::{Reads, Token};
pub(crate) use shared::Shared;
pub(crate) use writer::{Job, Writer, new_stream};

use crate::message::{Content, Entry, Message};
use crate::queue::ConsumerKey;
use chunk::Records;
use memory::Memory;
use record::Record;
use settings::{Start, StreamSettings};

/// What is appended in one turn is cut into chunks of this.
const CHUNK_BYTES: usize = 256 * 1024;
/// Of what is on disk, so much of the end stays in memory while somebody consumes.
const TAIL_BYTES: usize = 512 * 1024;
/// Chunks that were read last: others may come by the same place.
const RECENT_CHUNKS: usize = 4;

/// Where the messages are.
enum Kept {
    Memory(Memory),
    Disk(Arc<Shared>),
}

/// What was appended in this turn.
#[derive(Default)]
struct Fresh {
    bytes: Vec<u8>,
    positions: Vec<u32>,
    filtered: bool,
}

/// Records to be written.
pub(crate) struct Sealed {
    pub(crate) records: Bytes,
    pub(crate) filtered: bool,
}

/// Where an offset is found.
pub(crate) enum Place {
    Chunk(Rc<Chunk>),
    /// Behind all that may be read.
    AtEnd,
    /// On disk: it has to be read.
    Disk(Arc<Shared>),
}

/// A stream as the engine sees it.
pub(crate) struct Stream {
    pub(crate) settings: StreamSettings,
    kept: Kept,
    /// The offset of the next message.
    next: u64,
    /// The time of the last message: time does not go back.
    last_ms: u64,
    fresh: Fresh,
    /// The offset after the last message that may be read.
    committed: u64,
    /// The end of a stream on disk: all that is not committed, and a bit more. Oldest first.
    tail: VecDeque<Rc<Chunk>>,
    tail_bytes: usize,
    /// Read from disk last; the last one last.
    recent: VecDeque<Rc<Chunk>>,
    pub(crate) cursors: FxHashMap<ConsumerKey, Cursor>,
    /// Consumers that may be able to go on.
    ready: VecDeque<ConsumerKey>,
    /// Consumers that have had everything.
    at_end: Vec<ConsumerKey>,
    /// Readings on their way, and who waits for them.
    reading: Vec<(u64, From, Vec<ConsumerKey>)>,
    last_reading: u64,
    /// On the engine's list of streams with something fresh.
    pub(crate) listed: bool,
    pub(crate) age_timer: bool,
    /// Stands for every delivery that is not yet acknowledged: that only gives credit back.
    delivered: Entry,
    meter: Meter,
}

impl Stream {
    pub(crate) fn in_memory(settings: StreamSettings) -> Self {
        Self::new(settings, Kept::Memory(Memory::default()), 0, 0)
    }

    pub(crate) fn on_disk(settings: StreamSettings, shared: Arc<Shared>) -> Self {
        let (next, last_ms) = (shared.next(), shared.last_ms());
        Self::new(settings, Kept::Disk(shared), next, last_ms)
    }

    fn new(settings: StreamSettings, kept: Kept, next: u64, last_ms: u64) -> Self {
        let message = Rc::new(Message {
            id: 0,
            exchange: "".into(),
            routing_key: "".into(),
            content: Content::new(NO_PROPERTIES.to_vec(), NO_PROPERTIES.len()),
            expires_ms: u64::MAX,
            published_ms: 0,
            stored: None,
            deduplicated: false,
        });
        let delivered = Entry {
            message,
            place: 0,
            position: 0,
            redelivered: false,
            priority: 0,
            delivery_count: 0,
            expires_ms: u64::MAX,
        };
        Self {
            settings,
            kept,
            next,
            last_ms,
            fresh: Fresh::default(),
            committed: next,
            tail: VecDeque::new(),
            tail_bytes: 0,
            recent: VecDeque::new(),
            cursors: FxHashMap::default(),
            ready: VecDeque::new(),
            at_end: Vec::new(),
            reading: Vec::new(),
            last_reading: 0,
            listed: false,
            age_timer: false,
            delivered,
            meter: Meter::default(),
        }
    }

    /// What stands for a delivery in its channel's books.
    pub(crate) fn delivered(&self) -> Entry {
        self.delivered.clone()
    }

    /// The offset of the oldest message.
    pub(crate) fn first(&self) -> u64 {
        match &self.kept {
            Kept::Memory(memory) => memory.first(),
            Kept::Disk(shared) => shared.first(),
        }
    }

    /// How many messages there are.
    pub(crate) fn len(&self) -> usize {
        self.next.saturating_sub(self.first()) as usize
    }

    pub(crate) fn is_on_disk(&self) -> bool {
        matches!(self.kept, Kept::Disk(_))
    }

    /// When the last message of the oldest segment came; 0 when there is none.
    pub(crate) fn oldest_ms(&self) -> u64 {
        match &self.kept {
            Kept::Memory(memory) => memory.oldest_ms(),
            Kept::Disk(shared) => shared.oldest_ms(),
        }
    }

    /// Appends a message. Full chunks are handed out, to be written.
    pub(crate) fn append(&mut self, message: &Message, now_ms: u64) -> Option<Sealed> {
        let time_ms = self.last_ms.max(now_ms);
        let position = self.fresh.bytes.len();
        let record = Record {
            offset: self.next,
            time_ms,
            exchange: &message.exchange,
            routing_key: &message.routing_key,
            properties: message.content.properties(),
            body: message.content.body(),
        };
        let filtered = record.filter_value().is_some();
        if let Err(error) = record::encode_with_offset(&mut self.fresh.bytes, &record) {
            // They were validated when they came in.
            tracing::error!(%error, "a message with properties that cannot be read is not kept");
            return None;
        }
        self.fresh.positions.push(position as u32);
        self.fresh.filtered |= filtered;
        self.last_ms = time_ms;
        self.next += 1;
        if CHUNK_BYTES <= self.fresh.bytes.len() { self.seal() } else { None }
    }

    /// Ends what was appended in this turn. Given out to be written, if there is something; in memory it is there
    /// to be read at once.
    pub(crate) fn seal(&mut self) -> Option<Sealed> {
        if self.fresh.positions.is_empty() {
            return None;
        }
        let Fresh { bytes, positions, filtered } = std::mem::take(&mut self.fresh);
        let records = Bytes::from(bytes);
        let chunk = Chunk::new(Records::new(records.clone(), positions, self.next), &self.meter);
        match &mut self.kept {
            Kept::Memory(memory) => {
                memory.push(chunk, self.last_ms, &self.settings);
                self.commit(self.next);
                None
            }
            Kept::Disk(_) => {
                self.tail_bytes += records.len();
                self.tail.push_back(chunk);
                Some(Sealed { records, filtered })
            }
        }
    }

    /// The offset after the last message.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Everything up to this offset may be read.
    pub(crate) fn commit(&mut self, next: u64) {
        self.committed = self.committed.max(next);
        for consumer in std::mem::take(&mut self.at_end) {
            if let Some(cursor) = self.cursors.get_mut(&consumer) {
                cursor.at_end = false;
                cursor.queue(consumer, &mut self.ready);
            }
        }
        self.trim();
    }

    /// Lets go what need not be in memory.
    fn trim(&mut self) {
        let keep = if self.cursors.is_empty() { 0 } else { TAIL_BYTES };
        while let Some(oldest) = self.tail.front()
            && oldest.records.next() <= self.committed
            && keep < self.tail_bytes
        {
            self.tail_bytes -= oldest.records.bytes().len();
            self.tail.pop_front();
        }
    }

    /// Clears away what is too much or too old, in memory.
    pub(crate) fn retain(&mut self, now_ms: u64) {
        if let Kept::Memory(memory) = &mut self.kept {
            memory.retain(now_ms, &self.settings);
        }
    }

    /// Where an offset is.
    pub(crate) fn find(&self, offset: u64) -> Place {
        if self.committed <= offset {
            return Place::AtEnd;
        }
        match &self.kept {
            Kept::Memory(memory) => memory.find(offset).map_or(Place::AtEnd, Place::Chunk),
            Kept::Disk(shared) => {
                let at = self.tail.partition_point(|chunk| chunk.records.next() <= offset);
                let has = |chunk: &&Rc<Chunk>| {
                    chunk.records.first() <= offset && offset < chunk.records.next()
                };
                let chunk = self.tail.get(at).filter(has);
                match chunk.or_else(|| self.recent.iter().rev().find(has)) {
                    Some(chunk) => Place::Chunk(chunk.clone()),
                    None => Place::Disk(shared.clone()),
                }
            }
        }
    }

    /// Where everything is, for who does not know an offset yet.
    pub(crate) fn disk(&self) -> Place {
        match &self.kept {
            Kept::Memory(_) => Place::AtEnd,
            Kept::Disk(shared) => Place::Disk(shared.clone()),
        }
    }

    /// Where a new consumer begins.
    pub(crate) fn start(&self, start: Start) -> From {
        let first = self.first();
        From::Offset(match start {
            Start::First => first,
            Start::Last => first.max(self.next.saturating_sub(1)),
            Start::Next => self.next,
            Start::Offset(offset) => offset,
            Start::FromEnd(count) => first.max(self.next.saturating_sub(count)),
            Start::Time(time_ms) if self.last_ms < time_ms => self.next,
            Start::Time(time_ms) => match &self.kept {
                Kept::Memory(memory) => memory.find_time(time_ms).unwrap_or(self.next),
                Kept::Disk(_) => return From::Time(time_ms),
            },
        })
    }

    pub(crate) fn add_cursor(&mut self, consumer: ConsumerKey, cursor: Cursor) {
        self.cursors.insert(consumer, cursor);
        self.wake(consumer);
    }

    pub(crate) fn remove_cursor(&mut self, consumer: ConsumerKey) {
        self.cursors.remove(&consumer);
        self.at_end.retain(|other| *other != consumer);
        if self.cursors.is_empty() {
            self.ready.clear();
            self.recent.clear();
            self.trim();
        }
    }

    /// A consumer may be able to go on.
    pub(crate) fn wake(&mut self, consumer: ConsumerKey) {
        if let Some(cursor) = self.cursors.get_mut(&consumer)
            && !cursor.reading
            && !cursor.at_end
        {
            cursor.queue(consumer, &mut self.ready);
        }
    }

    /// The consumer whose turn it is.
    pub(crate) fn next_ready(&mut self) -> Option<ConsumerKey> {
        loop {
            let consumer = self.ready.pop_front()?;
            if let Some(cursor) = self.cursors.get_mut(&consumer) {
                cursor.queued = false;
                return Some(consumer);
            }
        }
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A consumer has had everything, and waits for more.
    pub(crate) fn wait(&mut self, consumer: ConsumerKey) {
        if let Some(cursor) = self.cursors.get_mut(&consumer) {
            cursor.at_end = true;
            self.at_end.push(consumer);
        }
    }

    /// A consumer waits for a reading. The reading, if it is not on its way already.
    pub(crate) fn read(
        &mut self,
        consumer: ConsumerKey,
        shared: Arc<Shared>,
    ) -> Option<(u64, Read)> {
        let cursor = self.cursors.get_mut(&consumer)?;
        cursor.reading = true;
        let (from, filter) = (cursor.from, cursor.filter.clone());
        if filter.is_none()
            && let Some((.., waiting)) = self.reading.iter_mut().find(|(_, on_its_way, waiting)| {
                let unfiltered = |key| {
                    self.cursors.get(key).is_some_and(|cursor: &Cursor| cursor.filter.is_none())
                };
                *on_its_way == from && waiting.first().is_some_and(unfiltered)
            })
        {
            waiting.push(consumer);
            return None;
        }
        self.last_reading += 1;
        self.reading.push((self.last_reading, from, vec![consumer]));
        Some((self.last_reading, Read { shared, from, until: self.committed, filter }))
    }

    /// Something was read.
    pub(crate) fn was_read(&mut self, number: u64, found: Found, meter: &Meter) {
        let Some(at) = self.reading.iter().position(|(other, ..)| *other == number) else { return };
        let (.., consumers) = self.reading.swap_remove(at);
        let chunk = (found.records.len() > 0).then(|| Chunk::new(found.records, meter));
        if let Some(chunk) = &chunk
            && !self.cursors.is_empty()
        {
            if self.recent.len() == RECENT_CHUNKS {
                self.recent.pop_front();
            }
            self.recent.push_back(chunk.clone());
        }
        for consumer in consumers {
            let Some(cursor) = self.cursors.get_mut(&consumer) else { continue };
            cursor.reading = false;
            cursor.go_on(found.from, chunk.clone());
            cursor.queue(consumer, &mut self.ready);
        }
    }

    /// Nobody has come by for a while: what was read last goes.
    pub(crate) fn forget_recent(&mut self) {
        self.recent.clear();
    }
}
