//! Whether somebody has asked for a poll, between any number of wakers and one fiber.
//!
//! ```text
//!   waker                              fiber
//!   -----                              -----
//!   write the news                     lower the flag
//!   raise the flag                     poll: look at the news
//!   was it down? post a letter         is the flag up?
//!                                        yes: poll again    no: park, until a letter comes
//! ```
//! A waker that finds the flag up posts nothing: whoever raised it has posted, or is about to, and until the fiber lowers
//! the flag it is bound to poll once more.

use crate::shim::{AtomicBool, Ordering};

pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// True when it was down: then a letter has to be posted.
    pub(crate) fn raise(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Before a poll: what has been asked for so far is answered by it.
    pub(crate) fn lower(&self) {
        if self.0.load(Ordering::Relaxed) {
            // Acquires what those who raised it have written before.
            self.0.swap(false, Ordering::AcqRel);
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
