//! Fibers that wait for the same thing, in the order in which they came.
//!
//! A list is two numbers: the nodes of all lists of a thread are kept together, linked both ways. So to wait
//! allocates nothing once a thread has seen that many wait at once, and to leave a list is as cheap from its
//! middle as from its end.
//!
//! ```text
//!              wake_one, wake_all                  the fiber runs
//!   Listed ------------------------> Notified ----------------------> (gone)
//!     |  |                                                              ^ ^
//!     |  +-- wake_one, but it was woken otherwise --> Passed -----------+ |
//!     +----- timed out, or killed: it leaves by itself -------------------+
//! ```
//! A node lives until its fiber comes back, so that the fiber learns whether it was *notified*. What a
//! notification hands over (a permit, a turn) must be passed on when the fiber unwinds instead of using it: see
//! [`WaitList::wait_or`].

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::fiber::{Waiter, WaitsFor, Woke};
use crate::hub;
use crate::wait::Member;

/// No node.
const NONE: u32 = u32::MAX;

thread_local! {
    static NODES: RefCell<Slab<Node>> = const { RefCell::new(Slab::new()) };
}

struct Node {
    who: Who,
    /// What the list's owner wants to know of it.
    tag: u32,
    before: u32,
    after: u32,
    state: State,
}

enum Who {
    /// A fiber that waits for this list only.
    Waiter(Waiter),
    /// One of several things that a fiber waits for.
    Member(Member),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Listed,
    Notified,
    Passed,
}

/// See the module. Public because a sealed trait gives it, and nobody outside can name it.
pub struct WaitList {
    first: Cell<u32>,
    last: Cell<u32>,
}

impl Default for WaitList {
    fn default() -> Self {
        Self::new()
    }
}

impl WaitList {
    pub(crate) const fn new() -> Self {
        Self { first: Cell::new(NONE), last: Cell::new(NONE) }
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
        self.park(0, |waiter| hub::park_for(waiter, deadline, what), |_| ())
    }

    /// As [`wait`](Self::wait), also while the fiber unwinds: for waits that have no other way to end.
    pub(crate) fn wait_always(&self, deadline: Option<Instant>) -> Woke {
        self.park(0, |waiter| hub::park_always(waiter, deadline, WaitsFor::Wake), |_| ())
    }

    /// As [`wait_for`](Self::wait_for) with a deadline, and as [`wait_always`](Self::wait_always) without. When the wait ends
    /// otherwise than by a notification that the fiber goes on with, the place is given up and `abandoned` is called:
    /// with true when it had been notified (and unwinds all the same).
    pub(crate) fn wait_or(
        &self,
        tag: u32,
        deadline: Option<Instant>,
        what: WaitsFor,
        abandoned: impl FnOnce(bool),
    ) -> Woke {
        let park = |waiter: &Waiter| match deadline {
            None => hub::park_always(waiter, None, what),
            Some(_) => hub::park_for(waiter, deadline, what),
        };
        self.park(tag, park, abandoned)
    }

    fn park(
        &self,
        tag: u32,
        park: impl FnOnce(&Waiter) -> Woke,
        abandoned: impl FnOnce(bool),
    ) -> Woke {
        struct Waiting<'a, F: FnOnce(bool)> {
            place: Option<Place<'a>>,
            abandoned: Option<F>,
        }
        impl<F: FnOnce(bool)> Drop for Waiting<'_, F> {
            fn drop(&mut self) {
                let notified = self.place.take().is_some_and(Place::leave);
                if let Some(abandoned) = self.abandoned.take() {
                    abandoned(notified);
                }
            }
        }
        let waiter = Waiter::current();
        let place = Some(self.enlist(Who::Waiter(waiter), tag));
        let mut waiting = Waiting { place, abandoned: Some(abandoned) };
        park(&waiter);
        if waiting.place.take().is_some_and(Place::leave) {
            waiting.abandoned = None;
            return Woke::Notified;
        }
        Woke::TimedOut
    }

    /// Wakes the first that still waits. False when none does.
    pub(crate) fn wake_one(&self) -> bool {
        while !self.is_empty() {
            if self.wake_first() {
                return true;
            }
        }
        false
    }

    /// Takes the first off the list and wakes it. False when it was woken otherwise, and when there is none.
    pub(crate) fn wake_first(&self) -> bool {
        let first = self.first.get();
        if first == NONE {
            return false;
        }
        // Waking only makes a fiber ready: none runs, and nothing here is borrowed again.
        NODES.with_borrow_mut(|nodes| {
            self.unlink(nodes, first);
            nodes[first as usize].notify()
        })
    }

    pub(crate) fn wake_all(&self) {
        while !self.is_empty() {
            self.wake_first();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.get() == NONE
    }

    /// The tag of the first.
    pub(crate) fn first_tag(&self) -> Option<u32> {
        let first = self.first.get();
        (first != NONE).then(|| NODES.with_borrow(|nodes| nodes[first as usize].tag))
    }

    /// Puts one of several things that a fiber waits for at the end.
    pub(crate) fn enlist_member(&self, member: Member) -> Place<'_> {
        self.enlist(Who::Member(member), 0)
    }

    /// Puts a fiber that parks by itself, and may be in several lists, at the end.
    pub(crate) fn enlist_waiter(&self, waiter: Waiter) -> Place<'_> {
        self.enlist(Who::Waiter(waiter), 0)
    }

    fn enlist(&self, who: Who, tag: u32) -> Place<'_> {
        let before = self.last.get();
        let index = NODES.with_borrow_mut(|nodes| {
            let node = Node { who, tag, before, after: NONE, state: State::Listed };
            let index = u32::try_from(nodes.insert(node)).expect("fewer than 2^32 fibers wait");
            if let Some(before) = nodes.get_mut(before as usize) {
                before.after = index;
            }
            index
        });
        if before == NONE {
            self.first.set(index);
        }
        self.last.set(index);
        Place { list: self, index }
    }

    fn unlink(&self, nodes: &mut Slab<Node>, index: u32) {
        let Node { before, after, .. } = nodes[index as usize];
        match nodes.get_mut(before as usize) {
            Some(node) => node.after = after,
            None => self.first.set(after),
        }
        match nodes.get_mut(after as usize) {
            Some(node) => node.before = before,
            None => self.last.set(before),
        }
    }
}

impl Node {
    /// Wakes whom the node stands for, after it was taken off its list. False when it goes on already, for another
    /// reason; and for a member of a set, which takes nothing.
    fn notify(&mut self) -> bool {
        let woken = match &self.who {
            Who::Waiter(waiter) => waiter.wake(),
            Who::Member(member) => {
                member.complete();
                false
            }
        };
        self.state = if woken { State::Notified } else { State::Passed };
        woken
    }
}

/// A place in a list, given up when dropped.
pub(crate) struct Place<'a> {
    list: &'a WaitList,
    index: u32,
}

impl Place<'_> {
    /// Gives the place up, and tells whether it had been notified.
    fn leave(self) -> bool {
        let left = self.remove();
        std::mem::forget(self);
        left.state == State::Notified
    }

    fn remove(&self) -> Node {
        NODES.with_borrow_mut(|nodes| {
            if nodes[self.index as usize].state == State::Listed {
                self.list.unlink(nodes, self.index);
            }
            nodes.remove(self.index as usize)
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // Dropped after the borrow has ended: it may own anything.
        let node = self.remove();
        drop(node);
    }
}

/// When a wait of `timeout` that begins now is over; `None`: never, it is beyond what the clock counts.
/// On a thread without a hub, by the system's clock.
pub(crate) fn deadline(timeout: Duration) -> Option<Instant> {
    let now = hub::try_with(|hub| hub.driver.now());
    now.unwrap_or_else(Instant::now).checked_add(timeout)
}
