//! The handlers of one event, in their order.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use warren_hub::contain;

use super::event::{AnyEvent, Event};

/// Names a handler of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandlerId(pub(super) u64);

impl fmt::Display for HandlerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "handler {}", self.0)
    }
}

/// What a handler may give: nothing, or a `Result`, whose error is reported.
pub trait Handled {
    /// The text of the error.
    ///
    /// # Errors
    /// When it is one.
    fn into_result(self) -> Result<(), String>;
}

impl Handled for () {
    fn into_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<T, E: fmt::Display> Handled for Result<T, E> {
    fn into_result(self) -> Result<(), String> {
        self.map(drop).map_err(|error| error.to_string())
    }
}

/// Why a call counts as failed.
pub(super) enum Fault {
    Error(String),
    Panic(String),
    /// It may not be called while it runs.
    Nested,
}

type Call = dyn Fn(&dyn AnyEvent) -> Result<(), Fault>;

pub(super) struct Handler {
    pub(super) id: HandlerId,
    priority: i32,
    /// It is removed before it is called.
    pub(super) once: bool,
    removed: Cell<bool>,
    call: Box<Call>,
}

impl Handler {
    pub(super) fn new<P: 'static>(
        id: HandlerId,
        priority: i32,
        once: bool,
        call: impl Fn(&Event<P>) -> Result<(), Fault> + 'static,
    ) -> Self {
        let call = Box::new(move |event: &dyn AnyEvent| match event.as_any().downcast_ref() {
            Some(event) => call(event),
            // The queue has compared the types.
            None => Ok(()),
        });
        Self { id, priority, once, removed: Cell::default(), call }
    }

    pub(super) fn is_removed(&self) -> bool {
        self.removed.get()
    }

    pub(super) fn call(&self, event: &dyn AnyEvent) -> Result<(), Fault> {
        contain("a handler of an event", || (self.call)(event))
            .unwrap_or_else(|text| Err(Fault::Panic(text)))
    }
}

/// Highest priority first, and then in the order of registration. An event on its way holds the list as it was: who
/// changes it meanwhile changes a copy.
#[derive(Default)]
pub(super) struct Handlers(Rc<Vec<Rc<Handler>>>);

impl Handlers {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn snapshot(&self) -> Rc<Vec<Rc<Handler>>> {
        self.0.clone()
    }

    pub(super) fn add(&mut self, handler: Handler) {
        let place = self.0.partition_point(|other| other.priority >= handler.priority);
        Rc::make_mut(&mut self.0).insert(place, Rc::new(handler));
    }

    pub(super) fn remove(&mut self, id: HandlerId) -> Option<Rc<Handler>> {
        let place = self.0.iter().position(|handler| handler.id == id)?;
        let handler = Rc::make_mut(&mut self.0).remove(place);
        handler.removed.set(true);
        Some(handler)
    }

    pub(super) fn mark_removed(&self) {
        self.0.iter().for_each(|handler| handler.removed.set(true));
    }
}
