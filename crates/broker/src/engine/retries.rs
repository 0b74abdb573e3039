//! Messages that come back, and wait before they are delivered again: see [`crate::queue::retries`].

use super::Engine;
use super::timers::Timer;
use crate::queue::{Queue, QueueKey};

impl Engine {
    /// Sets a timer for the first message that waits in a queue.
    pub(super) fn arm_retry(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key) else { return };
        let Some(due_ms) = queue.next_retry_ms() else { return };
        if let Some(retries) = &mut queue.retries
            && due_ms < retries.timer_ms
        {
            // What is left of those that are due has its turn after the others.
            let due_ms = due_ms.max(self.now_ms + 1);
            retries.timer_ms = due_ms;
            self.timers.at(due_ms, Timer::Retry(key));
        }
    }

    /// Messages may have waited long enough.
    pub(super) fn end_waits(&mut self, key: QueueKey) {
        let now_ms = self.now_ms;
        let Some(Queue { retries: Some(retries), .. }) = self.queues.get_mut(key) else { return };
        if now_ms < retries.timer_ms {
            // An earlier timer has done it, and has set another one.
            return;
        }
        retries.timer_ms = u64::MAX;
        if self.queues.get_mut(key).is_some_and(|queue| queue.end_waits(now_ms)) {
            self.mark(key);
        }
        self.arm_retry(key);
    }
}
