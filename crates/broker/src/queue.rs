//! Queues: messages in order, and the consumers that share them.

mod duplicates;
mod levels;
mod ready;
pub(crate) mod retries;
pub(crate) mod settings;

use std::collections::VecDeque;
use std::rc::Rc;

use compact_str::CompactString;
use warren_amqp::{FieldTable, RawProperties};

use crate::channel::ChannelKey;
use crate::connection::ConnectionKey;
use crate::exchange::Incoming;
use crate::message::{Content, Entry, Message};
use crate::policy::Target;
pub(crate) use crate::queue::duplicates::Duplicates;
pub(crate) use crate::queue::levels::Levels;
pub(crate) use crate::queue::ready::Ready;
use crate::queue::retries::Retries;
use crate::queue::settings::{Overflow, Settings};
use crate::store::pages::Logged;
use crate::store::{Mark, RecoveredPlace};
use crate::stream::Stream;
use crate::table::Key;
use crate::vhost::VhostRef;

pub(crate) type QueueKey = Key<Queue>;
pub(crate) type ConsumerKey = Key<Consumer>;

/// A channel's wish for a queue's messages.
pub(crate) struct Consumer {
    pub(crate) tag: CompactString,
    pub(crate) queue: QueueKey,
    pub(crate) channel: ChannelKey,
    pub(crate) no_ack: bool,
    pub(crate) exclusive: bool,
    /// Messages it may hold unacknowledged; 0: any number.
    pub(crate) prefetch: u32,
    pub(crate) unacked: u32,
    /// Those of a higher one are served first.
    pub(crate) priority: i64,
    /// How long it may hold a message, in milliseconds.
    pub(crate) timeout_ms: Option<u64>,
}

impl Consumer {
    pub(crate) fn has_room(&self) -> bool {
        self.no_ack || self.prefetch == 0 || self.unacked < self.prefetch
    }
}

pub(crate) struct Queue {
    /// The store's name for it; never used again.
    pub(crate) id: u64,
    pub(crate) vhost: VhostRef,
    pub(crate) name: CompactString,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    /// The connection that owns it, if it is exclusive.
    pub(crate) owner: Option<ConnectionKey>,
    pub(crate) arguments: FieldTable,
    pub(crate) settings: Settings,
    /// What comes in may be refused or dropped, or push others out.
    pub(crate) limited: bool,
    /// It holds equal messages once.
    pub(crate) duplicates: Option<Box<Duplicates>>,
    /// When it was used last, in milliseconds since 1970; kept only if it expires unused.
    pub(crate) used_ms: u64,
    pub(crate) unused_timer: bool,
    /// The earliest time at which its head is looked at.
    pub(crate) head_timer_ms: u64,
    /// A queue that keeps what was delivered; nothing is ever ready then.
    pub(crate) stream: Option<Box<Stream>>,
    /// What waits for a consumer.
    pub(crate) ready: Levels,
    /// What came back and waits until it is ready again.
    pub(crate) retries: Option<Box<Retries>>,
    /// Dead letters that nobody has taken yet, those under way among them: how many, and their bytes.
    pub(crate) staying: (u64, u64),
    next_position: u64,
    pub(crate) consumers: VecDeque<ConsumerKey>,
    pub(crate) had_consumer: bool,
    /// Its consumers are not all of the same priority.
    pub(crate) has_priorities: bool,
    /// On the engine's list of queues to dispatch.
    pub(crate) dirty: bool,
    /// The last routing that chose it, to be chosen once only.
    pub(crate) routed: u64,
    /// Bindings that lead here.
    pub(crate) bindings: Incoming,
    /// Messages up to this place may have been delivered.
    pub(crate) delivered: u64,
    /// What the store has been told of that, before it was so.
    pub(crate) mark: Mark,
}

impl Queue {
    /// What a policy must be for, to hold for it.
    pub(crate) fn target(&self) -> Target {
        match self.arguments.get("x-queue-type").and_then(|value| value.as_str()) {
            Some("quorum") => Target::QuorumQueue,
            Some("stream") => Target::Stream,
            _ => Target::ClassicQueue,
        }
    }

    pub(crate) fn new(id: u64, vhost: &VhostRef, name: &str) -> Self {
        Self {
            id,
            vhost: vhost.clone(),
            name: name.into(),
            durable: false,
            auto_delete: false,
            owner: None,
            arguments: FieldTable::new(),
            settings: Settings::default(),
            limited: false,
            duplicates: None,
            used_ms: 0,
            unused_timer: false,
            head_timer_ms: u64::MAX,
            stream: None,
            ready: Levels::default(),
            retries: None,
            staying: (0, 0),
            next_position: 0,
            consumers: VecDeque::new(),
            had_consumer: false,
            has_priorities: false,
            dirty: false,
            routed: 0,
            bindings: Incoming::default(),
            delivered: 0,
            mark: Mark::default(),
        }
    }

    /// Appends a message, for which the store has this place here; 0: none.
    pub(crate) fn push(&mut self, message: Rc<Message>, place: u64) {
        let entry = self.next_entry(message, false);
        self.ready.push(Entry { place, ..entry });
    }

    /// Appends a message of before a restart that stays on disk until it is wanted, while nothing else is ready.
    pub(crate) fn recover(&mut self, place: &RecoveredPlace, now_ms: u64) {
        let published_ms = match place.published_ms {
            // No queue had a time to live then: what one has now begins now.
            0 => now_ms,
            published_ms => published_ms,
        };
        let position = self.next_position;
        self.next_position += 1;
        self.ready.push_recovered(Logged {
            position,
            place: place.place,
            message: place.message,
            spot: place.spot,
            body_bytes: place.body_bytes,
            redelivered: place.redelivered,
            priority: place.priority.min(self.settings.priority_max),
            delivery_count: place.delivery_count,
            expires_ms: self.settings.expires_ms(place.expires_ms, published_ms),
        });
        self.note_delivered(place);
    }

    /// Appends a message of before a restart that is in memory.
    pub(crate) fn recover_whole(
        &mut self,
        message: Rc<Message>,
        place: &RecoveredPlace,
        now_ms: u64,
    ) {
        if let Some(duplicates) = &mut self.duplicates {
            duplicates.recover(&message);
        }
        let entry = self.next_entry(message, place.redelivered);
        let entry = Entry { place: place.place, delivery_count: place.delivery_count, ..entry };
        if now_ms < place.due_ms {
            self.wait(entry, place.due_ms);
        } else {
            self.ready.push(entry);
        }
        self.note_delivered(place);
    }

    fn note_delivered(&mut self, place: &RecoveredPlace) {
        if place.redelivered {
            self.delivered = self.delivered.max(place.place);
        }
    }

    fn next_entry(&mut self, message: Rc<Message>, redelivered: bool) -> Entry {
        let position = self.next_position;
        self.next_position += 1;
        self.entry(message, position, redelivered)
    }

    /// A message as this queue sees it.
    pub(crate) fn entry(&self, message: Rc<Message>, position: u64, redelivered: bool) -> Entry {
        let expires_ms = self.settings.expires_ms(message.expires_ms, message.published_ms);
        let priority = match self.settings.priority_max {
            0 => 0,
            max => {
                let properties = RawProperties::new(message.content.properties());
                properties.priority().unwrap_or(0).min(max)
            }
        };
        Entry { message, place: 0, position, redelivered, priority, delivery_count: 0, expires_ms }
    }

    /// A message leaves by whatever way: an equal one may come.
    pub(crate) fn release(&mut self, message: &Message) {
        if message.deduplicated
            && let Some(duplicates) = &mut self.duplicates
        {
            duplicates.forget(message);
        }
    }

    /// Takes a message out if its time was over at `limit_ms` and nothing stands before it.
    pub(crate) fn pop_expired(&mut self, limit_ms: u64) -> Option<Entry> {
        self.ready.pop_expired(limit_ms)
    }

    /// When the next message expires; `u64::MAX`: none does.
    pub(crate) fn next_expiry_ms(&mut self) -> u64 {
        self.ready.next_expiry_ms()
    }

    pub(crate) fn pop(&mut self) -> Option<Entry> {
        self.ready.pop()
    }

    /// Takes out the message to drop, if there are too many.
    pub(crate) fn pop_surplus(&mut self) -> Option<Entry> {
        if self.has_surplus() { self.ready.pop().or_else(|| self.pop_waiting()) } else { None }
    }

    pub(crate) fn has_surplus(&self) -> bool {
        // What refuses keeps what it has, even when its limit shrinks below that.
        let (length, bytes) = self.waiting();
        self.settings.overflow == Overflow::DropHead
            && self.settings.is_over(self.ready.len() as u64 + length, self.ready.bytes() + bytes)
    }

    /// Whether one more message is one too many, and is to be refused for it.
    pub(crate) fn refuses(&self, message: &Content) -> bool {
        let (length, bytes) = self.waiting();
        self.settings.overflow != Overflow::DropHead
            && self.settings.is_over(
                self.ready.len() as u64 + length + self.staying.0 + 1,
                self.ready.bytes() + bytes + self.staying.1 + message.body().len() as u64,
            )
    }

    /// Puts an entry back where it was. Several are best put back last first.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        self.ready.put_back(entry);
    }

    /// Whether there is something to deliver now.
    pub(crate) fn has_ready(&self) -> bool {
        self.ready.len() != 0
    }

    /// Whether nothing is ready or waits. What a stream keeps does not count.
    pub(crate) fn is_empty(&self) -> bool {
        !self.has_ready() && self.waiting().0 == 0
    }

    /// Messages that are ready, or wait until they are ready again; all those of a stream.
    pub(crate) fn len(&self) -> usize {
        match &self.stream {
            None => self.ready.len() + self.waiting().0 as usize,
            Some(stream) => stream.len(),
        }
    }

    /// Consumers, as they are told when the queue is declared: those of a stream are not, as in RabbitMQ.
    pub(crate) fn consumers_told(&self) -> u32 {
        if self.stream.is_some() { 0 } else { self.consumers.len() as u32 }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::{Queue, VhostRef};
    use crate::message::{Content, Message};

    fn message(id: u64) -> Rc<Message> {
        let content = Content::new(vec![0, 0], 2);
        Rc::new(Message {
            id,
            exchange: "".into(),
            routing_key: "".into(),
            content,
            expires_ms: u64::MAX,
            published_ms: 0,
            stored: None,
            deduplicated: false,
        })
    }

    #[test]
    fn what_is_put_back_goes_to_its_old_place() {
        let mut queue = Queue::new(1, &VhostRef::nowhere(), "q");
        for id in 0..6 {
            queue.push(message(id), 0);
        }
        let mut taken: Vec<_> = (0..4).map(|_| queue.pop().unwrap()).collect();
        queue.put_back(taken.remove(2));
        queue.put_back(taken.remove(0));
        queue.put_back(taken.remove(1));
        queue.put_back(taken.remove(0));
        let order: Vec<u64> =
            std::iter::from_fn(|| queue.pop()).map(|entry| entry.message.id).collect();
        assert_eq!(order, [0, 1, 2, 3, 4, 5]);
    }
}
