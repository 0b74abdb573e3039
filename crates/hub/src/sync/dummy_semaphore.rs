//! [`DummySemaphore`].

/// A semaphore that has always a permit, for code that can do with a bound or without. gevent's
/// `DummySemaphore`.
#[derive(Clone, Copy, Debug, Default)]
pub struct DummySemaphore;

impl DummySemaphore {
    /// Takes a permit, of which there are as many as are asked for. Never suspends.
    pub fn acquire(&self) {}

    /// Gives a permit back, which changes nothing.
    pub fn release(&self) {}

    /// Whether no permit is free: never.
    pub fn locked(&self) -> bool {
        false
    }
}
