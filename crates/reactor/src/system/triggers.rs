//! What is called when the reactor starts and stops, in three phases.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use super::{SystemEvent, TriggerPhase};
use crate::completion::{Completion, complete};
use crate::deferred::{Deferred, Failure, Resolver};

/// The triggers of all events.
#[derive(Default)]
pub(super) struct Triggers {
    events: RefCell<HashMap<SystemEvent, [Vec<Trigger>; 3]>>,
    last: Cell<u64>,
}

struct Trigger {
    number: u64,
    call: Box<dyn FnOnce() -> Deferred<()>>,
}

/// Names a trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerId {
    event: SystemEvent,
    phase: TriggerPhase,
    number: u64,
}

/// How an event went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fired {
    pub(super) failed: usize,
    /// Those that were not through in time.
    pub(super) late: usize,
}

impl Triggers {
    pub(super) fn add<R: Completion>(
        &self,
        phase: TriggerPhase,
        event: SystemEvent,
        callable: impl FnOnce() -> R + 'static,
    ) -> TriggerId {
        let number = self.last.get() + 1;
        self.last.set(number);
        let trigger = Trigger { number, call: Box::new(move || complete(callable)) };
        let mut events = self.events.borrow_mut();
        events.entry(event.clone()).or_default()[phase as usize].push(trigger);
        TriggerId { event, phase, number }
    }

    /// As [`add`](Self::add), before all that were added already.
    pub(super) fn add_first(
        &self,
        phase: TriggerPhase,
        event: SystemEvent,
        callable: impl FnOnce() + 'static,
    ) {
        self.add(phase, event.clone(), callable);
        if let Some(phases) = self.events.borrow_mut().get_mut(&event) {
            phases[phase as usize].rotate_right(1);
        }
    }

    /// False when it was removed or called before.
    pub(super) fn remove(&self, id: &TriggerId) -> bool {
        let mut events = self.events.borrow_mut();
        let Some(phases) = events.get_mut(&id.event) else { return false };
        let triggers = &mut phases[id.phase as usize];
        let place = triggers.iter().position(|trigger| trigger.number == id.number);
        let removed = place.map(|place| triggers.remove(place));
        drop(events);
        // Dropped outside the borrow: what it holds may use the reactor.
        removed.is_some()
    }

    /// Calls the triggers of `event`, and waits for those of the first phase before it goes on with the others; for
    /// `limit` at most, after which what they gave is cancelled. Fires when the last has been called.
    pub(super) fn fire(
        self: &Rc<Self>,
        event: &SystemEvent,
        limit: Option<Duration>,
    ) -> Deferred<Fired> {
        let (deferred, resolver) = Deferred::pending();
        let firing = Rc::new(Firing {
            triggers: self.clone(),
            event: event.clone(),
            fired: Cell::default(),
            // One for the loop below.
            open: Cell::new(1),
            resolver: Cell::new(Some(resolver)),
        });
        while let Some(trigger) = self.next(event, TriggerPhase::Before) {
            let mut through = (trigger.call)();
            if let (Some(limit), false) = (limit, through.has_fired()) {
                through = through.add_timeout(limit);
            }
            firing.open.set(firing.open.get() + 1);
            let firing = firing.clone();
            drop(through.add_both(move |result| {
                firing.ended(TriggerPhase::Before, result);
                firing.close();
                Ok(())
            }));
        }
        firing.close();
        deferred
    }

    fn next(&self, event: &SystemEvent, phase: TriggerPhase) -> Option<Trigger> {
        let mut events = self.events.borrow_mut();
        let triggers = &mut events.get_mut(event)?[phase as usize];
        (!triggers.is_empty()).then(|| triggers.remove(0))
    }
}

/// An event on its way through the phases.
struct Firing {
    triggers: Rc<Triggers>,
    event: SystemEvent,
    fired: Cell<Fired>,
    /// Triggers of the first phase that are not through.
    open: Cell<usize>,
    resolver: Cell<Option<Resolver<Fired>>>,
}

impl Firing {
    fn close(self: &Rc<Self>) {
        self.open.set(self.open.get() - 1);
        if self.open.get() > 0 {
            return;
        }
        for phase in [TriggerPhase::During, TriggerPhase::After] {
            while let Some(trigger) = self.triggers.next(&self.event, phase) {
                let firing = self.clone();
                let ended = move |result| {
                    firing.ended(phase, result);
                    Ok(())
                };
                drop((trigger.call)().add_both(ended));
            }
        }
        if let Some(resolver) = self.resolver.take() {
            resolver.callback(self.fired.get());
        }
    }

    fn ended(&self, phase: TriggerPhase, result: Result<(), Failure>) {
        let Err(failure) = result else { return };
        let mut fired = self.fired.get();
        fired.failed += 1;
        fired.late += usize::from(failure.is_timed_out());
        self.fired.set(fired);
        tracing::error!(%failure, ?phase, event = %self.event, "a trigger of a system event has failed");
    }
}
