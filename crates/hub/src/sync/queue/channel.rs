//! [`Channel`].

use super::BaseQueue;
use super::storage::{Fifo, Storage, sealed};

/// A queue that holds nothing: who puts an item waits until another fiber has taken it. gevent's `Channel`.
///
/// ```
/// use std::rc::Rc;
/// use warren_hub::{run, spawn, sync::Channel, yield_now};
///
/// run(|| {
///     let channel = Rc::new(Channel::new());
///     let putting = spawn({
///         let channel = channel.clone();
///         move || channel.put("hand to hand")
///     });
///     yield_now();
///     assert!(!putting.is_finished());
///     assert_eq!(channel.get(), Ok("hand to hand"));
///     putting.join().unwrap().unwrap();
/// });
/// ```
pub type Channel<T> = BaseQueue<Rendezvous<T>>;

/// Items on their way from hand to hand: see [`Channel`].
pub struct Rendezvous<T>(Fifo<T>);

impl<T> Channel<T> {
    /// A channel that nobody waits at.
    pub const fn new() -> Self {
        Self::with_storage(Rendezvous(Fifo::new()), 0)
    }
}

impl<T> Default for Rendezvous<T> {
    fn default() -> Self {
        Self(Fifo::new())
    }
}

impl<T> Storage for Rendezvous<T> {}

impl<T> sealed::Storage for Rendezvous<T> {
    type Item = T;
    const CAPACITY_MAX: usize = 0;

    fn push(&mut self, item: T) {
        self.0.push(item);
    }

    fn pop(&mut self) -> Option<T> {
        self.0.pop()
    }

    fn peek(&self) -> Option<&T> {
        self.0.peek()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}
