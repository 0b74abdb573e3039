//! Fibers that wait for the same thing, in the order in which they came.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Instant;

use crate::fiber::{Waiter, WaitsFor, Woke};
use crate::hub;

/// Most lists hold one waiter or none: the first has its place in the list itself, and costs no allocation.
#[derive(Default)]
pub(crate) struct WaitList {
    /// `None` only while `more` is empty.
    first: Cell<Option<Waiter>>,
    more: RefCell<VecDeque<Waiter>>,
}

impl WaitList {
    pub(crate) const fn new() -> Self {
        Self { first: Cell::new(None), more: RefCell::new(VecDeque::new()) }
    }

    /// Parks the running fiber at the end of the list until it is woken or `deadline` comes. A fiber that unwinds
    /// does not wait: for it, the time has run out.
    ///
    /// # Suspends
    /// Always, but for a fiber that unwinds.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Woke {
        self.wait_for(deadline, WaitsFor::Wake)
    }

    /// As [`wait`](Self::wait), with a word for reports.
    pub(crate) fn wait_for(&self, deadline: Option<Instant>, what: WaitsFor) -> Woke {
        self.park(|waiter| hub::park_for(waiter, deadline, what))
    }

    /// As [`wait`](Self::wait), also while the fiber unwinds: for waits that have no other way to end.
    pub(crate) fn wait_always(&self, deadline: Option<Instant>) -> Woke {
        self.park(|waiter| hub::park_always(waiter, deadline, WaitsFor::Wake))
    }

    fn park(&self, park: impl FnOnce(&Waiter) -> Woke) -> Woke {
        /// Leaves the list when the wait ends by a timeout, or by unwinding.
        struct Place<'a>(&'a WaitList, Waiter);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.delist(&self.1);
            }
        }
        let waiter = Waiter::current();
        self.enlist(waiter);
        let place = Place(self, waiter);
        let woke = park(&waiter);
        if woke == Woke::Notified {
            // Whoever woke us has taken us off.
            std::mem::forget(place);
        }
        woke
    }

    /// Puts a waiter at the end.
    pub(crate) fn enlist(&self, waiter: Waiter) {
        match self.first.get() {
            None => self.first.set(Some(waiter)),
            Some(_) => self.more.borrow_mut().push_back(waiter),
        }
    }

    /// Takes a waiter off, if it is still there.
    pub(crate) fn delist(&self, waiter: &Waiter) {
        if self.first.get().is_some_and(|first| first.is(waiter)) {
            self.pop();
            return;
        }
        let mut more = self.more.borrow_mut();
        if let Some(index) = more.iter().rposition(|other| other.is(waiter)) {
            more.remove(index);
        }
    }

    fn pop(&self) -> Option<Waiter> {
        let first = self.first.take()?;
        self.first.set(self.more.borrow_mut().pop_front());
        Some(first)
    }

    /// Wakes the first that still waits. False when none does.
    pub(crate) fn wake_one(&self) -> bool {
        while let Some(waiter) = self.pop() {
            if waiter.wake() {
                return true;
            }
        }
        false
    }

    pub(crate) fn wake_all(&self) {
        while let Some(waiter) = self.pop() {
            waiter.wake();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.get().is_none()
    }
}
