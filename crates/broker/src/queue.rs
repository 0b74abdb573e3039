//! Queues: messages in order, and the consumers that share them.

mod ready;

use std::collections::VecDeque;
use std::rc::Rc;

use compact_str::CompactString;
use warren_amqp::FieldTable;

use crate::channel::ChannelKey;
use crate::connection::ConnectionKey;
use crate::exchange::{Binding, ExchangeKey};
use crate::message::{Entry, Message};
use crate::table::Key;
use ready::Ready;

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
}

impl Consumer {
    pub(crate) fn has_room(&self) -> bool {
        self.no_ack || self.prefetch == 0 || self.unacked < self.prefetch
    }
}

pub(crate) struct Queue {
    /// The store's name for it; never used again.
    pub(crate) id: u64,
    pub(crate) name: CompactString,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    /// The connection that owns it, if it is exclusive.
    pub(crate) owner: Option<ConnectionKey>,
    pub(crate) arguments: FieldTable,
    /// What waits for a consumer.
    pub(crate) ready: Ready,
    next_position: u64,
    pub(crate) consumers: VecDeque<ConsumerKey>,
    pub(crate) had_consumer: bool,
    /// On the engine's list of queues to dispatch.
    pub(crate) dirty: bool,
    /// The last routing that chose it, to be chosen once only.
    pub(crate) routed: u64,
    /// Bindings that lead here.
    pub(crate) bindings: Vec<(ExchangeKey, Rc<Binding>)>,
    /// The store has been told that messages up to this one may have been delivered.
    pub(crate) delivered: u64,
}

impl Queue {
    pub(crate) fn new(id: u64, name: &str) -> Self {
        Self {
            id,
            name: name.into(),
            durable: false,
            auto_delete: false,
            owner: None,
            arguments: FieldTable::new(),
            ready: Ready::default(),
            next_position: 0,
            consumers: VecDeque::new(),
            had_consumer: false,
            dirty: false,
            routed: 0,
            bindings: Vec::new(),
            delivered: 0,
        }
    }

    pub(crate) fn push(&mut self, message: Rc<Message>, redelivered: bool) {
        let position = self.next_position;
        self.next_position += 1;
        self.ready.push_back(Entry { message, position, redelivered });
    }

    /// Takes the first message out if its time was over at `limit_ms`.
    pub(crate) fn pop_expired(&mut self, limit_ms: u64) -> Option<Entry> {
        let first = self.ready.front()?;
        if first.message.expires_ms <= limit_ms { self.ready.pop_front() } else { None }
    }

    pub(crate) fn pop(&mut self) -> Option<Entry> {
        self.ready.pop_front()
    }

    /// Puts an entry back where it was. Several are best put back last first.
    pub(crate) fn put_back(&mut self, entry: Entry) {
        self.ready.put_back(entry);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Messages that are ready.
    pub(crate) fn len(&self) -> usize {
        self.ready.len()
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::Queue;
    use crate::message::{Content, Message};

    fn message(id: u64) -> Rc<Message> {
        let content = Content::new(vec![0, 0], 2);
        Rc::new(Message {
            id,
            exchange: "".into(),
            routing_key: "".into(),
            content,
            expires_ms: u64::MAX,
            stored: false,
        })
    }

    #[test]
    fn what_is_put_back_goes_to_its_old_place() {
        let mut queue = Queue::new(1, "q");
        for id in 0..6 {
            queue.push(message(id), false);
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
