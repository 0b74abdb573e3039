//! What happens at a time of its own. A timer that is no longer wanted finds nothing to do when it runs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Actor, Engine};
use crate::queue::QueueKey;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Timer {
    /// The head of a queue may have expired.
    Head(QueueKey),
    /// Messages that came back to a queue may have waited long enough.
    Retry(QueueKey),
    /// Nobody may have used a queue for too long.
    Unused(QueueKey),
    /// Somebody may take the dead letters of a queue now.
    Letters(QueueKey),
    /// Messages of a stream may have grown too old.
    StreamAge(QueueKey),
}

#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    timers: rustc_hash::FxHashMap<u64, Timer>,
    last: u64,
}

impl Timers {
    /// In milliseconds since 1970.
    pub(crate) fn at(&mut self, ms: u64, timer: Timer) {
        self.last += 1;
        self.heap.push(Reverse((ms, self.last)));
        self.timers.insert(self.last, timer);
    }

    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((ms, _))| *ms)
    }

    fn pop(&mut self, now_ms: u64) -> Option<Timer> {
        if now_ms < self.next_ms()? {
            return None;
        }
        let Reverse((_, number)) = self.heap.pop()?;
        self.timers.remove(&number)
    }
}

impl Engine {
    /// Does what is due.
    pub(crate) fn run_timers(&mut self) {
        self.set_actor(Actor::Internal);
        self.release_due();
        while let Some(timer) = self.timers.pop(self.now_ms) {
            match timer {
                Timer::Head(key) => {
                    // One that was set before an earlier one finds nothing to do.
                    if let Some(queue) = self.queues.get_mut(key)
                        && queue.head_timer_ms <= self.now_ms
                    {
                        queue.head_timer_ms = u64::MAX;
                        self.mark(key);
                    }
                }
                Timer::Retry(key) => self.end_waits(key),
                Timer::Unused(key) => self.expire_queue(key),
                Timer::Letters(key) => self.send_again(key),
                Timer::StreamAge(key) => self.check_stream_age(key),
            }
        }
    }

    /// How many timers there are.
    #[cfg(test)]
    pub(crate) fn timers(&self) -> usize {
        self.timers.timers.len()
    }

    /// Milliseconds until something is due.
    pub(crate) fn next_timer(&self) -> Option<u64> {
        let delayed = self.delayed.first().map(|(due_ms, _)| *due_ms);
        let next_ms = self.timers.next_ms().into_iter().chain(delayed).min()?;
        Some(next_ms.saturating_sub(self.now_ms))
    }

    /// Lets the head of a queue expire on time.
    pub(super) fn arm_head(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let ms = queue.next_expiry_ms();
        if ms < queue.head_timer_ms {
            queue.head_timer_ms = ms;
            self.timers.at(ms, Timer::Head(key));
        }
    }

    /// A queue is used, or its last consumer has gone: its time without use begins anew.
    pub(crate) fn touch(&mut self, key: QueueKey) {
        let now_ms = self.now_ms;
        let Some(queue) = self.queues.get_mut(key) else { return };
        let Some(expires_ms) = queue.settings.expires_ms else { return };
        queue.used_ms = now_ms;
        if !queue.unused_timer && queue.consumers.is_empty() {
            queue.unused_timer = true;
            self.timers.at(now_ms.saturating_add(expires_ms), Timer::Unused(key));
        }
    }

    fn expire_queue(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        queue.unused_timer = false;
        let Some(expires_ms) = queue.settings.expires_ms else { return };
        if !queue.consumers.is_empty() {
            return;
        }
        let over_ms = queue.used_ms.saturating_add(expires_ms);
        if over_ms <= self.now_ms {
            return self.remove_queue(key);
        }
        queue.unused_timer = true;
        self.timers.at(over_ms, Timer::Unused(key));
    }
}
