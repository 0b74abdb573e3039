//! An event on its way, and its name.

use std::any::{Any, TypeId, type_name};
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use super::handler::HandlerId;
use super::{EventQueue, WeakQueue};

/// What a handler is given: the payload, to which it dereferences, and the way the event takes.
pub struct Event<P> {
    name: Cow<'static, str>,
    payload: P,
    stopped: Cell<bool>,
    /// Which is being called.
    handler: Cell<HandlerId>,
    queue: WeakQueue,
}

impl<P> Event<P> {
    pub(super) fn new(name: Cow<'static, str>, payload: P, queue: WeakQueue) -> Self {
        Self { name, payload, stopped: Cell::default(), handler: Cell::default(), queue }
    }

    /// Under which name it was fired.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it carries.
    pub fn payload(&self) -> &P {
        &self.payload
    }

    /// No handler after this one is called.
    pub fn stop_propagation(&self) {
        self.stopped.set(true);
    }

    /// The handler that is being called: by this number it can remove itself.
    pub fn handler(&self) -> HandlerId {
        self.handler.get()
    }

    /// The queue. A handler that kept a clone of its own would keep the queue, and so itself, for ever.
    pub fn queue(&self) -> EventQueue {
        EventQueue(self.queue.upgrade().expect("the queue lends its events out while it lives"))
    }
}

impl<P> Deref for Event<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.payload
    }
}

impl<P: fmt::Debug> fmt::Debug for Event<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("name", &self.name)
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}

/// An [`Event`] with any payload.
pub(super) trait AnyEvent {
    fn name(&self) -> &str;
    fn payload(&self) -> TypeId;
    fn payload_name(&self) -> &'static str;
    fn is_stopped(&self) -> bool;
    fn set_handler(&self, id: HandlerId);
    fn as_any(&self) -> &dyn Any;
}

impl<P: 'static> AnyEvent for Event<P> {
    fn name(&self) -> &str {
        &self.name
    }

    fn payload(&self) -> TypeId {
        TypeId::of::<P>()
    }

    fn payload_name(&self) -> &'static str {
        type_name::<P>()
    }

    fn is_stopped(&self) -> bool {
        self.stopped.get()
    }

    fn set_handler(&self, id: HandlerId) {
        self.handler.set(id);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The name of an event with the type of its payload, so that the compiler keeps both together.
///
/// ```
/// use warren_reactor::events::{EventQueue, EventType};
///
/// const ON_SAVE: EventType<String> = EventType::new("on_save");
///
/// let events = EventQueue::new();
/// events.register(ON_SAVE, |path| assert_eq!(path.as_str(), "a.txt"))?;
/// assert_eq!(events.fire(ON_SAVE, "a.txt".into())?.called, 1);
/// # Ok::<(), warren_reactor::events::EventError>(())
/// ```
pub struct EventType<P> {
    name: &'static str,
    payload: PhantomData<fn(P)>,
}

impl<P> EventType<P> {
    /// An event of this name.
    pub const fn new(name: &'static str) -> Self {
        Self { name, payload: PhantomData }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.name
    }
}

impl<P> Clone for EventType<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for EventType<P> {}

impl<P> fmt::Debug for EventType<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventType({}: {})", self.name, type_name::<P>())
    }
}

/// What names events with a payload `P`: an [`EventType`], or a string, which names any.
pub trait EventName<P> {
    /// The name.
    fn into_name(self) -> Cow<'static, str>;
}

impl<P> EventName<P> for EventType<P> {
    fn into_name(self) -> Cow<'static, str> {
        self.name.into()
    }
}

impl<P> EventName<P> for &'static str {
    fn into_name(self) -> Cow<'static, str> {
        self.into()
    }
}

impl<P> EventName<P> for String {
    fn into_name(self) -> Cow<'static, str> {
        self.into()
    }
}
