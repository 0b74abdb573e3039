//! Fibers that wait for the same thing, in the order in which they came.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Instant;

use crate::fiber::{Waiter, Woke};
use crate::hub;

#[derive(Default)]
pub(crate) struct WaitList(RefCell<VecDeque<Waiter>>);

impl WaitList {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(VecDeque::new()))
    }

    /// Parks the running fiber at the end of the list until it is woken or `deadline` comes.
    ///
    /// # Suspends
    /// Always.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Woke {
        /// Leaves the list when the wait ends by a timeout, or by unwinding.
        struct Place<'a>(&'a WaitList, &'a Waiter);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                let mut waiting = self.0.0.borrow_mut();
                if let Some(index) = waiting.iter().rposition(|other| other.is(self.1)) {
                    waiting.remove(index);
                }
            }
        }
        let waiter = Waiter::current();
        self.0.borrow_mut().push_back(waiter.clone());
        let place = Place(self, &waiter);
        let woke = hub::park(&waiter, deadline);
        if woke == Woke::Notified {
            // Whoever woke us has taken us off.
            std::mem::forget(place);
        }
        woke
    }

    /// Wakes the first that still waits. False when none does.
    pub(crate) fn wake_one(&self) -> bool {
        loop {
            let Some(waiter) = self.0.borrow_mut().pop_front() else { return false };
            if waiter.wake() {
                return true;
            }
        }
    }

    pub(crate) fn wake_all(&self) {
        for waiter in self.0.take() {
            waiter.wake();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}
