//! Delayed retry: a message that comes back waits before it is delivered again.
//!
//! ```text
//!   consumer --reject, nack--> waits (exchange/schedule.rs) --due--> ready, at its old place
//! ```
//! The names and the rule are RabbitMQ's: `min * count`, but not more than `max`, where `count` is how often the
//! message has come back; to wait or not depends on whether its consumer failed, or returned it untried. What waits
//! is counted as ready and limits count it; a purge takes it along. In the log stands until when it waits.

use serde_json::{Map, Value};
use warren_amqp::{FieldTable, FieldValue};

use super::Queue;
use crate::exchange::schedule::Schedule;
use crate::message::Entry;

/// Messages that become ready in one go. Then others have their turn.
const RELEASED_MAX: usize = 4096;

/// How long messages wait that come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Those whose consumer failed: rejected them, or died.
    failed: bool,
    /// Those that were returned.
    returned: bool,
    min_ms: u64,
    max_ms: u64,
}

impl Retry {
    /// `None` when nothing waits. For the type the argument holds, for numbers the smaller one.
    pub(super) fn new(arguments: &FieldTable, policy: &Map<String, Value>) -> Option<Self> {
        let argument = arguments.get("x-delayed-retry-type").and_then(FieldValue::as_str);
        let kind = argument.or_else(|| policy.get("delayed-retry-type").and_then(Value::as_str))?;
        let (failed, returned) = match kind {
            "all" => (true, true),
            "failed" => (true, false),
            "returned" => (false, true),
            _ => return None,
        };
        let least = |key: &str| {
            let argument = arguments.get(&format!("x-{key}")).and_then(FieldValue::as_i64);
            let policy = policy.get(key).and_then(Value::as_i64);
            argument.into_iter().chain(policy).min().and_then(|ms| u64::try_from(ms).ok())
        };
        let min_ms = least("delayed-retry-min").filter(|ms| *ms != 0)?;
        let max_ms = least("delayed-retry-max").unwrap_or(min_ms);
        Some(Self { failed, returned, min_ms, max_ms })
    }

    /// How long a message waits that has come back for the `count`th time; 0: it does not.
    pub(crate) fn delay_ms(&self, failed: bool, count: u32) -> u64 {
        let waits = if failed { self.failed } else { self.returned };
        if waits { self.min_ms.saturating_mul(count.into()).min(self.max_ms) } else { 0 }
    }
}

/// The messages of a queue that wait.
pub(crate) struct Retries {
    /// While they wait, their `expires_ms` is when they are due.
    schedule: Schedule,
    /// For when the engine has set a timer, in milliseconds since 1970; `u64::MAX`: it has set none.
    pub(crate) timer_ms: u64,
}

impl Queue {
    /// Lets a message that has come back wait until `due_ms`.
    pub(crate) fn wait(&mut self, entry: Entry, due_ms: u64) {
        let pages = self.ready.pages();
        let retries = self.retries.get_or_insert_with(|| {
            let mut schedule = Schedule::default();
            schedule.page_to(pages);
            Box::new(Retries { schedule, timer_ms: u64::MAX })
        });
        retries.schedule.put(Entry { expires_ms: due_ms, ..entry });
    }

    /// When the first that waits is due.
    pub(crate) fn next_retry_ms(&self) -> Option<u64> {
        self.retries.as_ref()?.schedule.next_ms()
    }

    /// Puts those that are due back where they were. True if there were some.
    pub(crate) fn end_waits(&mut self, now_ms: u64) -> bool {
        let Some(retries) = &mut self.retries else { return false };
        let due = std::iter::from_fn(|| retries.schedule.pop_due(now_ms));
        let mut due: Vec<Entry> = due.take(RELEASED_MAX).collect();
        // The last first: each then goes to the front of the others.
        due.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.position));
        let any = !due.is_empty();
        for entry in due {
            let message = &entry.message;
            let expires_ms = self.settings.expires_ms(message.expires_ms, message.published_ms);
            self.ready.put_back(Entry { expires_ms, ..entry });
        }
        any
    }

    /// Lets what waits leave memory, but for the first few.
    pub(crate) fn page_out(&mut self) {
        self.ready.page_out();
        if let Some(retries) = &mut self.retries {
            retries.schedule.page_out();
        }
    }

    /// About what is in memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let waiting = self.retries.as_ref().map_or(0, |of| of.schedule.resident_bytes());
        self.ready.resident_bytes() + waiting
    }

    /// How many wait, and the bytes of their bodies.
    pub(super) fn waiting(&self) -> (u64, u64) {
        self.retries
            .as_ref()
            .map_or((0, 0), |retries| (retries.schedule.len() as u64, retries.schedule.bytes()))
    }

    /// Takes the one out that would be next.
    pub(super) fn pop_waiting(&mut self) -> Option<Entry> {
        self.retries.as_mut()?.schedule.pop_due(u64::MAX)
    }

    /// Takes everything out that is ready or waits, unread; the store's numbers of those that have one.
    pub(crate) fn clear(&mut self) -> Vec<u64> {
        let mut places = self.ready.clear();
        if let Some(mut retries) = self.retries.take() {
            places.append(&mut retries.schedule.clear());
        }
        places
    }

    /// Takes everything out that is ready or waits.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Entry> + use<> {
        let mut retries = self.retries.take();
        let waiting = std::iter::from_fn(move || retries.as_mut()?.schedule.pop_due(u64::MAX));
        self.ready.drain().chain(waiting)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use warren_amqp::FieldTable;

    use super::Retry;

    fn retry(kind: &str, arguments: FieldTable, policy: Value) -> Option<Retry> {
        let Value::Object(policy) = policy else { panic!("no object") };
        let arguments = match kind {
            "" => arguments,
            kind => arguments.with("x-delayed-retry-type", kind),
        };
        Retry::new(&arguments, &policy)
    }

    fn times(min: i32, max: i32) -> FieldTable {
        FieldTable::new().with("x-delayed-retry-min", min).with("x-delayed-retry-max", max)
    }

    #[track_caller]
    fn check(retry: Retry, failed: bool, want: [u64; 4]) {
        assert_eq!([1, 2, 3, u32::MAX].map(|count| retry.delay_ms(failed, count)), want);
    }

    #[test]
    fn the_wait_grows_with_each_return_up_to_the_most() {
        let all = retry("all", times(100, 250), json!({})).unwrap();
        check(all, true, [100, 200, 250, 250]);
        check(all, false, [100, 200, 250, 250]);
        check(retry("failed", times(100, 250), json!({})).unwrap(), true, [100, 200, 250, 250]);
        check(retry("failed", times(100, 250), json!({})).unwrap(), false, [0; 4]);
        check(retry("returned", times(100, 250), json!({})).unwrap(), true, [0; 4]);
        check(retry("returned", times(100, 250), json!({})).unwrap(), false, [100, 200, 250, 250]);
        // Without a most, the least is it.
        let flat = FieldTable::new().with("x-delayed-retry-min", 7);
        check(retry("all", flat, json!({})).unwrap(), true, [7; 4]);
        let long = times(100, 250).with("x-delayed-retry-min", i64::MAX);
        let long = long.with("x-delayed-retry-max", i64::MAX);
        check(retry("all", long, json!({})).unwrap(), true, [100, 200, 250, 250]);
    }

    #[test]
    fn policies_ask_for_it_too() {
        let policy = json!({
            "delayed-retry-type": "all", "delayed-retry-min": 10, "delayed-retry-max": 15,
        });
        check(retry("", FieldTable::new(), policy.clone()).unwrap(), true, [10, 15, 15, 15]);
        check(retry("failed", times(5, 99), policy.clone()).unwrap(), true, [5, 10, 15, 15]);
        assert_eq!(retry("disabled", times(5, 99), policy), None);
        assert_eq!(retry("", times(5, 99), json!({})), None);
        assert_eq!(retry("all", FieldTable::new(), json!({})), None);
        assert_eq!(retry("all", times(0, 99), json!({})), None);
    }
}
