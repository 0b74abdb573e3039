//! Producers and consumers: how what makes bytes and what takes them keep step (Twisted's `IProducer`, `IConsumer`).
//!
//! A *push* producer (streaming) writes on its own account, until it is paused, and again when it is resumed. A *pull*
//! producer writes one piece each time it is resumed.

use std::rc::Rc;

use warren_hub::contain;

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
    /// low-water mark it is resumed; a pull producer is resumed whenever nothing waits. A consumer that is gone calls
    /// `stop_producing` at once.
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
#[derive(Clone)]
pub(crate) struct Registered {
    pub(crate) producer: Rc<dyn Producer>,
    pub(crate) streaming: bool,
}

impl Registered {
    /// Calls the producer. Its panic is logged and harms nobody else.
    pub(crate) fn tell(&self, call: impl FnOnce(&dyn Producer)) {
        let _ = contain("a producer", || call(self.producer.as_ref()));
    }
}
