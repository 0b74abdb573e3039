//! Named events: handlers are registered under a name and called when an event of that name is fired, or posted to a
//! queue that the loop empties.
//!
//! ```
//! use std::cell::RefCell;
//! use std::rc::Rc;
//! use warren_reactor::events::{Event, EventQueue};
//!
//! struct Click {
//!     column: u16,
//! }
//!
//! let events = EventQueue::new();
//! let seen = Rc::<RefCell<Vec<u16>>>::default();
//! let columns = seen.clone();
//! events.register("on_click", move |click: &Event<Click>| columns.borrow_mut().push(click.column))?;
//! events.post("on_click", Click { column: 7 })?;
//! events.fire("on_click", Click { column: 8 })?;
//! assert_eq!(*seen.borrow(), [8], "posted events wait for their turn");
//! events.run();
//! assert_eq!(*seen.borrow(), [8, 7]);
//! # Ok::<(), warren_reactor::events::EventError>(())
//! ```
//!
//! - All events of one name carry the same type of payload, which the first handler decides. [`EventType`] ties the two together
//!   where they are declared, so that the compiler sees a mistake; a plain string leaves it to be found at run time.
//! - Handlers are called in the order of their [priorities](EventQueue::register_at), and then of their registration.
//!   [`Event::stop_propagation`] ends the row.
//! - A handler that panics or gives an error is [reported](EventQueue::on_failure), and the others are called.
//! - A handler may do anything: post, fire (up to a depth), register, remove itself or others. One that is registered
//!   meanwhile does not hear the event that is on its way; one that is removed before its turn neither.
//! - A queue runs events when it is told to ([`run`](EventQueue::run)), or [by the loop](EventQueue::on_loop), and holds
//!   a limited number of them. Other threads post through an [`EventPoster`].

mod error;
mod event;
mod handler;
mod poster;

use std::any::{TypeId, type_name};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use error::{EventError, EventFailure};
pub use event::{Event, EventName, EventType};
pub use handler::{Handled, HandlerId};
pub use poster::EventPoster;

use event::AnyEvent;
use handler::{Fault, Handler, Handlers};

use crate::time::call_soon;
use poster::Mailbox;

/// Events that may wait in a queue which was not told otherwise.
const WAITING_MAX: usize = 10_000;
/// Events fired from within handlers of one another. A stack has room for some hundred.
const DEPTH_MAX: usize = 32;

/// Handlers by the names of events, and the events that wait for them. Clones are the same queue, which goes with the
/// last of them: posters find it closed then. A handler should not hold one, but ask the [event](Event::queue).
#[derive(Clone)]
pub struct EventQueue(Rc<Inner>);

struct Inner {
    topics: RefCell<HashMap<Cow<'static, str>, Topic>>,
    waiting: RefCell<VecDeque<Box<dyn AnyEvent>>>,
    /// Those that wait here, and those on their way from other threads.
    count: Arc<AtomicUsize>,
    limit: usize,
    /// Handlers of how many events are on the stack.
    depth: Cell<usize>,
    last_handler: Cell<u64>,
    /// The loop empties the queue.
    on_loop: Cell<bool>,
    /// The loop has been asked to, and has not yet.
    scheduled: Cell<bool>,
    closed: Cell<bool>,
    on_failure: RefCell<Option<Rc<Report>>>,
    mailbox: Arc<Mailbox>,
}

type Report = dyn Fn(&EventFailure);

/// What is known under one name.
struct Topic {
    payload: TypeId,
    payload_name: &'static str,
    handlers: Handlers,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fired {
    /// Handlers that were called.
    pub called: usize,
    /// Those of them that panicked or gave an error.
    pub failed: usize,
    /// The handler that stopped the event's way to the others.
    pub stopped_by: Option<HandlerId>,
}

impl Default for EventQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl EventQueue {
    /// A queue for at most 10,000 events that wait.
    pub fn new() -> Self {
        Self::with_limit(WAITING_MAX)
    }

    /// A queue for at most `limit` events that wait; what is posted above that is refused.
    pub fn with_limit(limit: usize) -> Self {
        let count = Arc::<AtomicUsize>::default();
        Self(Rc::new(Inner {
            topics: RefCell::default(),
            waiting: RefCell::default(),
            count: count.clone(),
            limit,
            depth: Cell::default(),
            last_handler: Cell::default(),
            on_loop: Cell::default(),
            scheduled: Cell::default(),
            closed: Cell::default(),
            on_failure: RefCell::default(),
            mailbox: Arc::new(Mailbox::new(count, limit)),
        }))
    }

    /// Has the loop of this thread empty the queue: what is posted during a turn is dispatched in the next one.
    ///
    /// # Panics
    /// When no hub runs on this thread, and no test's clock.
    pub fn on_loop(self) -> Self {
        // Asks for the loop now: a panic at the first event would come from far away.
        let _ = crate::now();
        self.0.on_loop.set(true);
        self.0.schedule();
        self
    }

    /// Calls `handler` for each event `name` from now on, after those that are registered already.
    ///
    /// What `handler` gives may be nothing, or a `Result`, whose error is reported. It may be called again while it
    /// runs, if it fires the same event; hence `Fn`. [`register_mut`](Self::register_mut) takes one that must not be.
    ///
    /// # Errors
    /// [`EventError::OtherPayload`]: the name is known with another type of payload. [`EventError::Closed`].
    pub fn register<P: 'static, R: Handled>(
        &self,
        name: impl EventName<P>,
        handler: impl Fn(&Event<P>) -> R + 'static,
    ) -> Result<HandlerId, EventError> {
        self.register_at(name, 0, handler)
    }

    /// As [`register`](Self::register), before all handlers of a lower priority and after those of the same. The others
    /// have priority 0.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn register_at<P: 'static, R: Handled>(
        &self,
        name: impl EventName<P>,
        priority: i32,
        handler: impl Fn(&Event<P>) -> R + 'static,
    ) -> Result<HandlerId, EventError> {
        let call = move |event: &Event<P>| handler(event).into_result().map_err(Fault::Error);
        self.add(name, |id| Handler::new(id, priority, false, call))
    }

    /// As [`register`](Self::register), for a handler with a state of its own.
    ///
    /// When the handler fires its own event, it is not called again but counts as failed for that one.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn register_mut<P: 'static, R: Handled>(
        &self,
        name: impl EventName<P>,
        handler: impl FnMut(&Event<P>) -> R + 'static,
    ) -> Result<HandlerId, EventError> {
        let handler = RefCell::new(handler);
        let call = move |event: &Event<P>| {
            let mut handler = handler.try_borrow_mut().map_err(|_| Fault::Nested)?;
            handler(event).into_result().map_err(Fault::Error)
        };
        self.add(name, |id| Handler::new(id, 0, false, call))
    }

    /// As [`register`](Self::register), for the next such event only.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn register_once<P: 'static, R: Handled>(
        &self,
        name: impl EventName<P>,
        handler: impl FnOnce(&Event<P>) -> R + 'static,
    ) -> Result<HandlerId, EventError> {
        let handler = Cell::new(Some(handler));
        let call = move |event: &Event<P>| match handler.take() {
            Some(handler) => handler(event).into_result().map_err(Fault::Error),
            // It is removed before it is called.
            None => Ok(()),
        };
        self.add(name, |id| Handler::new(id, 0, true, call))
    }

    fn add<P: 'static>(
        &self,
        name: impl EventName<P>,
        handler: impl FnOnce(HandlerId) -> Handler,
    ) -> Result<HandlerId, EventError> {
        let name = name.into_name();
        self.0.check::<P>(&name)?;
        let id = HandlerId(self.0.last_handler.get() + 1);
        self.0.last_handler.set(id.0);
        let mut topics = self.0.topics.borrow_mut();
        let topic = topics.entry(name).or_insert_with(Topic::of::<P>);
        topic.handlers.add(handler(id));
        Ok(id)
    }

    /// Removes a handler, also in the middle of an event. False when there is none of this number any more.
    pub fn unregister(&self, id: HandlerId) -> bool {
        let mut topics = self.0.topics.borrow_mut();
        let removed = topics.values_mut().find_map(|topic| topic.handlers.remove(id));
        drop(topics);
        // Dropped outside the borrow: what it holds may use the queue.
        removed.is_some()
    }

    /// How many handlers `name` has.
    pub fn handlers(&self, name: &str) -> usize {
        self.0.topics.borrow().get(name).map_or(0, |topic| topic.handlers.len())
    }

    /// Calls the handlers of `name` now, before those of events that wait. An event that has none is gone.
    ///
    /// # Errors
    /// [`EventError::OtherPayload`]; [`EventError::TooDeep`] when handlers have fired events from within one another 32
    /// times, which looks like a circle; [`EventError::Closed`]. Errors of handlers are not among them.
    pub fn fire<P: 'static>(
        &self,
        name: impl EventName<P>,
        payload: P,
    ) -> Result<Fired, EventError> {
        let name = name.into_name();
        self.0.check::<P>(&name)?;
        self.0.dispatch(&Event::new(name, payload, Rc::downgrade(&self.0)))
    }

    /// Lets the event wait for its turn, behind those that wait already.
    ///
    /// # Errors
    /// [`EventError::Full`], [`EventError::OtherPayload`], [`EventError::Closed`]. The payload is dropped.
    pub fn post<P: 'static>(&self, name: impl EventName<P>, payload: P) -> Result<(), EventError> {
        let name = name.into_name();
        self.0.check::<P>(&name)?;
        poster::reserve(&self.0.count, self.0.limit, &name)?;
        let event = Event::new(name, payload, Rc::downgrade(&self.0));
        self.0.waiting.borrow_mut().push_back(Box::new(event));
        self.0.schedule();
        Ok(())
    }

    /// What posts from other threads. For a queue that is run [by the loop](Self::on_loop), ask after that was said.
    ///
    /// # Panics
    /// When no hub runs on this thread, and the queue is run [by the loop](Self::on_loop).
    pub fn poster(&self) -> EventPoster {
        EventPoster::new(&self.0)
    }

    /// Dispatches the events that wait, those too that handlers post meanwhile, until none is left. Gives their number.
    pub fn run(&self) -> usize {
        let mut count = 0;
        loop {
            match self.run_waiting() {
                0 => return count,
                more => count += more,
            }
        }
    }

    /// Dispatches the events that wait now, and leaves for later what handlers post. Gives their number.
    pub fn run_waiting(&self) -> usize {
        self.0.fetch();
        let count = self.0.waiting.borrow().len();
        for done in 0..count {
            let event = self.0.waiting.borrow_mut().pop_front();
            // A handler may have run the queue itself, or closed it.
            let Some(event) = event else { return done };
            poster::release(&self.0.count);
            if let Err(error) = self.0.dispatch(&*event) {
                self.0.report(EventFailure::lost(event.name(), &error));
            }
        }
        count
    }

    /// How many events wait, with those that other threads have posted.
    pub fn len(&self) -> usize {
        self.0.count.load(Ordering::SeqCst)
    }

    /// Whether no event waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many events may wait.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Calls `report` with each failure of a handler, and for events that turn out to carry the wrong type of payload when
    /// nobody can be told any more, instead of logging them. A panic in `report` is logged.
    pub fn on_failure(&self, report: impl Fn(&EventFailure) + 'static) {
        let before = self.0.on_failure.replace(Some(Rc::new(report)));
        drop(before);
    }

    /// Forgets handlers and waiting events, and refuses all that comes. An event on its way reaches no further handler.
    pub fn close(&self) {
        self.0.close();
    }
}

impl Inner {
    /// Whether an event of this name and payload may be handled.
    fn check<P: 'static>(&self, name: &str) -> Result<(), EventError> {
        if self.closed.get() {
            return Err(EventError::Closed);
        }
        match self.topics.borrow().get(name) {
            Some(topic) if topic.payload != TypeId::of::<P>() => Err(EventError::OtherPayload {
                event: name.to_owned(),
                known: topic.payload_name,
                given: type_name::<P>(),
            }),
            _ => Ok(()),
        }
    }

    /// Takes what other threads have posted.
    fn fetch(self: &Rc<Self>) {
        for letter in self.mailbox.take() {
            let name = letter.name().to_owned();
            if let Err(error) = letter.open(self) {
                poster::release(&self.count);
                self.report(EventFailure::lost(&name, &error));
            }
        }
    }

    /// Asks the loop to empty the queue, if it is to do that and something waits.
    fn schedule(self: &Rc<Self>) {
        if !self.on_loop.get()
            || self.count.load(Ordering::SeqCst) == 0
            || self.scheduled.replace(true)
        {
            return;
        }
        let queue = Rc::downgrade(self);
        call_soon(move || {
            let Some(queue) = queue.upgrade() else { return };
            queue.scheduled.set(false);
            EventQueue(queue.clone()).run_waiting();
            queue.schedule();
        });
    }

    fn dispatch(self: &Rc<Self>, event: &dyn AnyEvent) -> Result<Fired, EventError> {
        struct Level<'a>(&'a Cell<usize>);
        impl Drop for Level<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        if self.depth.get() == DEPTH_MAX {
            return Err(EventError::TooDeep {
                event: event.name().to_owned(),
                depth_max: DEPTH_MAX,
            });
        }
        self.depth.set(self.depth.get() + 1);
        let _level = Level(&self.depth);
        let handlers = match self.topics.borrow().get(event.name()) {
            // The type may have become known while the event waited.
            Some(topic) if topic.payload != event.payload() => {
                return Err(EventError::OtherPayload {
                    event: event.name().to_owned(),
                    known: topic.payload_name,
                    given: event.payload_name(),
                });
            }
            Some(topic) => topic.handlers.snapshot(),
            None => return Ok(Fired::default()),
        };
        let mut fired = Fired::default();
        for handler in &*handlers {
            if handler.is_removed() {
                continue;
            }
            if handler.once {
                EventQueue(self.clone()).unregister(handler.id);
            }
            fired.called += 1;
            event.set_handler(handler.id);
            if let Err(fault) = handler.call(event) {
                fired.failed += 1;
                self.report(EventFailure::of(event.name(), handler.id, fault));
            }
            if event.is_stopped() {
                fired.stopped_by = Some(handler.id);
                break;
            }
        }
        Ok(fired)
    }

    fn report(&self, failure: EventFailure) {
        let report = self.on_failure.borrow().clone();
        match report {
            Some(report) => drop(warren_hub::contain("a report of a failure", || report(&failure))),
            None => tracing::error!(%failure, "an event has failed"),
        }
    }

    fn close(&self) {
        self.closed.set(true);
        self.mailbox.close();
        let waiting = self.waiting.take();
        self.count.store(0, Ordering::SeqCst);
        let topics = self.topics.take();
        topics.values().for_each(|topic| topic.handlers.mark_removed());
        // Outside the borrows: what they hold may use the queue.
        drop((waiting, topics));
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}

impl Topic {
    fn of<P: 'static>() -> Self {
        Self {
            payload: TypeId::of::<P>(),
            payload_name: type_name::<P>(),
            handlers: Handlers::default(),
        }
    }
}

impl fmt::Debug for EventQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventQueue")
            .field("waiting", &self.len())
            .field("limit", &self.0.limit)
            .finish_non_exhaustive()
    }
}

/// The queue of an event or of a poster, if it is still there.
type WeakQueue = Weak<Inner>;
