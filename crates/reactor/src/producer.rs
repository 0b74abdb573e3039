//! Producers and consumers: how what makes bytes and what takes them keep step (Twisted's `IProducer`, `IConsumer`).
//!
//! A *push* producer (streaming) writes on its own account, until it is paused, and again when it is resumed. A *pull*
//! producer writes one piece each time it is resumed.

use std::cell::Cell;
use std::rc::Rc;

use warren_hub::contain;

use crate::transport::WriteLimits;

/// Makes bytes for a [`Consumer`]. Calls come from the loop and must not wait.
pub trait Producer {
    /// A push producer goes on; a pull producer writes one piece, now or later.
    fn resume_producing(&self);

    /// A push producer writes no more until it is resumed. Never called on a pull producer.
    fn pause_producing(&self) {}

    /// The consumer is gone: nothing will be taken any more. No other call follows.
    fn stop_producing(&self);
}

/// Takes bytes from a [`Producer`].
pub trait Consumer {
    /// Lets `producer` hear when to go on: above the high-water mark a push producer (`streaming`) is paused, at the
    /// low-water mark it is resumed; a pull producer is resumed when nothing waits, once for each time it writes. A consumer that
    /// takes nothing more, for it is being closed or is gone, calls `stop_producing` at once.
    ///
    /// # Panics
    /// When one is registered already.
    fn register_producer(&self, producer: Rc<dyn Producer>, streaming: bool);

    /// The producer has finished. A close that was asked for meanwhile is obeyed now.
    fn unregister_producer(&self);

    /// Takes bytes.
    fn write(&self, data: &[u8]);
}

/// Who has been registered.
pub(crate) struct Registered {
    producer: Rc<dyn Producer>,
    pub(crate) streaming: bool,
    /// A push producer has been told to pause; a pull producer has been asked and has not written yet.
    waits: Cell<bool>,
}

impl Registered {
    pub(crate) fn new(producer: Rc<dyn Producer>, streaming: bool) -> Rc<Self> {
        Rc::new(Self { producer, streaming, waits: Cell::new(false) })
    }

    /// The consumer has been written to.
    pub(crate) fn wrote(&self) {
        if !self.streaming {
            self.waits.set(false);
        }
    }

    /// So many bytes wait at the consumer. True when the producer was told so.
    pub(crate) fn settle(&self, waiting: usize, limits: WriteLimits) -> bool {
        let waits = self.waits.get();
        if !self.streaming {
            if waiting != 0 || waits {
                return false;
            }
            self.waits.set(true);
            self.tell(|producer| producer.resume_producing());
        } else if !waits && limits.high_bytes < waiting {
            self.waits.set(true);
            self.tell(|producer| producer.pause_producing());
        } else if waits && waiting <= limits.low_bytes {
            self.waits.set(false);
            self.tell(|producer| producer.resume_producing());
        } else {
            return false;
        }
        true
    }

    /// Calls the producer. Its panic is logged and harms nobody else.
    pub(crate) fn tell(&self, call: impl FnOnce(&dyn Producer)) {
        let _ = contain("a producer", || call(self.producer.as_ref()));
    }
}
