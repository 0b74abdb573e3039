//! Waiting for the first, the first few, or all of several things: gevent's `wait` and `iwait`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::fiber::{Waiter, WaitsFor};
use crate::hub;
use crate::join::JoinHandle;
use crate::sync::{Place, WaitList, deadline};

pub(crate) use sealed::Completion;

/// What [`wait`] and [`iwait`] wait for: the end of a fiber ([`JoinHandle`](crate::JoinHandle)), an
/// [`Event`](crate::sync::Event) that is set, an [`AsyncResult`](crate::sync::AsyncResult) with an outcome, a
/// [`Semaphore`](crate::sync::Semaphore) with a free permit (which is not taken).
pub trait Waitable: Completion {}

impl<T: Completion + ?Sized> Waitable for T {}

mod sealed {
    use crate::sync::WaitList;

    pub trait Completion {
        fn is_complete(&self) -> bool;

        /// Woken, all at once, when it is complete.
        fn waiting(&self) -> &WaitList;
    }
}

impl<T: 'static> Completion for JoinHandle<T> {
    fn is_complete(&self) -> bool {
        self.is_finished()
    }

    fn waiting(&self) -> &WaitList {
        &self.outcome().waiting
    }
}

/// How long to wait, and for how many.
#[derive(Clone, Copy, Debug, Default)]
pub struct WaitOptions {
    /// How long at most; without bound when `None`.
    pub timeout: Option<Duration>,
    /// For how many of the objects; for all when `None`.
    pub count: Option<usize>,
}

/// Waits until the objects are complete, or as many of them as `options` say; gives their indices in the order in
/// which they became so. Fewer when the time runs out.
///
/// An object that was complete for a moment only (an event set and cleared) counts.
///
/// ```
/// use std::rc::Rc;
/// use warren_hub::{WaitOptions, run, spawn, sync::Event, wait};
///
/// run(|| {
///     let events = [Rc::new(Event::new()), Rc::new(Event::new())];
///     let second = events[1].clone();
///     spawn(move || second.set());
///     let first_of_both = WaitOptions { count: Some(1), ..WaitOptions::default() };
///     assert_eq!(wait(&[&*events[0], &*events[1]], first_of_both), [1]);
/// });
/// ```
///
/// # Suspends
/// Until then; not when enough of them are complete already.
pub fn wait(objects: &[&dyn Waitable], options: WaitOptions) -> Vec<usize> {
    iwait(objects, options).collect()
}

/// As [`wait`], one by one: the iterator gives the index of each object as it becomes complete, and ends when
/// all did, enough of them, or when the time is over, which counts from now.
///
/// # Suspends
/// Not here; each step of the iterator until one more object is complete.
pub fn iwait<'a>(objects: &[&'a dyn Waitable], options: WaitOptions) -> Iwait<'a> {
    let progress = Rc::new(Progress::default());
    let mut places = Vec::with_capacity(objects.len());
    for (index, object) in objects.iter().enumerate() {
        let member = Member { progress: progress.clone(), index };
        places.push(if object.is_complete() {
            member.complete();
            None
        } else {
            Some(object.waiting().enlist_member(member))
        });
    }
    Iwait {
        progress,
        left: options.count.unwrap_or(usize::MAX).min(places.len()),
        places,
        deadline: options.timeout.and_then(deadline),
    }
}

/// Steps through objects as they become complete: see [`iwait`].
pub struct Iwait<'a> {
    progress: Rc<Progress>,
    places: Vec<Option<Place<'a>>>,
    left: usize,
    deadline: Option<Instant>,
}

impl Iterator for Iwait<'_> {
    type Item = usize;

    /// # Suspends
    /// Until one more object is complete.
    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        let mut done = self.progress.next();
        if done.is_none() {
            let waiter = Waiter::current();
            self.progress.waiter.set(Some(waiter));
            hub::park_for(&waiter, self.deadline, WaitsFor::Any);
            self.progress.waiter.set(None);
            done = self.progress.next();
        }
        let Some(index) = done else {
            // The time is over.
            self.left = 0;
            return None;
        };
        self.left -= 1;
        self.places[index] = None;
        Some(index)
    }
}

impl fmt::Debug for Iwait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iwait").field("left", &self.left).finish_non_exhaustive()
    }
}

/// Which of several objects are complete, and who waits for more.
#[derive(Default)]
struct Progress {
    done: RefCell<VecDeque<usize>>,
    waiter: Cell<Option<Waiter>>,
}

impl Progress {
    fn next(&self) -> Option<usize> {
        self.done.borrow_mut().pop_front()
    }
}

/// One of several objects, in the list of those who wait for it.
pub(crate) struct Member {
    progress: Rc<Progress>,
    index: usize,
}

impl Member {
    pub(crate) fn complete(&self) {
        self.progress.done.borrow_mut().push_back(self.index);
        if let Some(waiter) = self.progress.waiter.take() {
            waiter.wake();
        }
    }
}
