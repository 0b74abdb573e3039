//! Events from other threads.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Event, EventError, EventName, Inner, WeakQueue};
use crate::home::{Ticket, keep};

/// Posts events to the queue of another thread. Clones post to the same one.
///
/// A queue that is run [by the loop](super::EventQueue::on_loop) wakes it; any other finds the events when it is run.
///
/// ```
/// use std::thread;
/// use warren_reactor::events::{EventQueue, EventType};
///
/// const ON_NUMBER: EventType<u32> = EventType::new("on_number");
///
/// let events = EventQueue::new();
/// events.register(ON_NUMBER, |number| assert_eq!(**number, 7))?;
/// let poster = events.poster();
/// thread::spawn(move || poster.post(ON_NUMBER, 7)).join().unwrap()?;
/// assert_eq!(events.run(), 1);
/// # Ok::<(), warren_reactor::events::EventError>(())
/// ```
#[derive(Clone)]
pub struct EventPoster {
    mailbox: Arc<Mailbox>,
    /// The way to the loop, for a queue that is run by it.
    bell: Option<Arc<Ticket<WeakQueue>>>,
}

impl EventPoster {
    pub(super) fn new(queue: &Rc<Inner>) -> Self {
        let bell = queue.on_loop.get().then(|| Arc::new(keep(Rc::downgrade(queue))));
        Self { mailbox: queue.mailbox.clone(), bell }
    }

    /// As [`EventQueue::post`](super::EventQueue::post). Events of one thread keep their order.
    ///
    /// # Errors
    /// [`EventError::Full`]; [`EventError::Closed`] also when the queue or its hub has gone. A payload of the wrong type
    /// is found only on the other side, and reported there.
    pub fn post<P: Send + 'static>(
        &self,
        name: impl EventName<P>,
        payload: P,
    ) -> Result<(), EventError> {
        let name = name.into_name();
        let mut state = self.mailbox.lock();
        if state.closed {
            return Err(EventError::Closed);
        }
        reserve(&self.mailbox.count, self.mailbox.limit, &name)?;
        state.letters.push_back(Box::new(Posted { name, payload }));
        drop(state);
        match &self.bell {
            Some(bell) if !self.mailbox.rung.swap(true, Ordering::SeqCst) => {
                let ring = |queue: WeakQueue| {
                    if let Some(queue) = queue.upgrade() {
                        queue.schedule();
                    }
                };
                bell.visit(ring).map_err(|_| EventError::Closed)
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for EventPoster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventPoster")
            .field("wakes_a_loop", &self.bell.is_some())
            .finish_non_exhaustive()
    }
}

/// Takes a place among the events that may wait.
pub(super) fn reserve(count: &AtomicUsize, limit: usize, name: &str) -> Result<(), EventError> {
    let room = |count| (count < limit).then_some(count + 1);
    match count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room) {
        Ok(_) => Ok(()),
        Err(_) => Err(EventError::Full { event: name.to_owned(), limit }),
    }
}

/// Gives a place back. The queue may have been closed meanwhile, and all places be free.
pub(super) fn release(count: &AtomicUsize) {
    let _ = count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| count.checked_sub(1));
}

/// Events on their way to the queue's thread, each with its place reserved.
pub(super) struct Mailbox {
    state: Mutex<State>,
    count: Arc<AtomicUsize>,
    limit: usize,
    /// The loop was told that there is something, and has not looked yet.
    rung: AtomicBool,
}

#[derive(Default)]
struct State {
    letters: VecDeque<Box<dyn Letter>>,
    closed: bool,
}

impl Mailbox {
    pub(super) fn new(count: Arc<AtomicUsize>, limit: usize) -> Self {
        Self { state: Mutex::default(), count, limit, rung: AtomicBool::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self) -> VecDeque<Box<dyn Letter>> {
        // Before it is looked into: who posts after that rings again.
        self.rung.store(false, Ordering::SeqCst);
        std::mem::take(&mut self.lock().letters)
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let letters = std::mem::take(&mut state.letters);
        drop(state);
        drop(letters);
    }
}

/// A [`Posted`] event with any payload.
pub(super) trait Letter: Send {
    fn name(&self) -> &str;
    /// Puts the event into the queue, in the place it has.
    fn open(self: Box<Self>, queue: &Rc<Inner>) -> Result<(), EventError>;
}

struct Posted<P> {
    name: Cow<'static, str>,
    payload: P,
}

impl<P: Send + 'static> Letter for Posted<P> {
    fn name(&self) -> &str {
        &self.name
    }

    fn open(self: Box<Self>, queue: &Rc<Inner>) -> Result<(), EventError> {
        queue.check::<P>(&self.name)?;
        let event = Event::new(self.name, self.payload, Rc::downgrade(queue));
        queue.waiting.borrow_mut().push_back(Box::new(event));
        Ok(())
    }
}
