//! How control goes from one greenlet to another.
//!
//! What lies on the way of a switch is inlined: after it the processor has guessed each return address wrong, so that
//! a level of calls costs more than all that is done in it.

use std::any::Any;
use std::mem;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::thread;

use corosensei::CoroutineResult;

use super::trace::{self, TraceEvent};
use super::{Greenlet, GreenletExit, Inner, State};
use crate::context;

/// How often a greenlet is told to end when its last handle is dropped, before its stack is given up.
const EXITS_MAX: usize = 16;

pub(super) enum Message<T> {
    Value(T),
    Throw(Box<dyn Any + Send>),
}

/// Whom the trampoline resumes next. `None`: the root.
pub(super) struct Hop<T: 'static> {
    target: Option<Greenlet<T>>,
    message: Message<T>,
}

/// What the target gets.
pub(super) struct Arrival<T: 'static> {
    message: Message<T>,
    /// Who sent it. Dropped by the target: if that was the last handle, the sender ends there, before the target
    /// goes on.
    from: Option<Greenlet<T>>,
}

/// Leaves the running greenlet, or the root, for `target`; returns what comes back.
#[inline(always)]
pub(super) fn hop<T: 'static>(target: Option<Greenlet<T>>, message: Message<T>) -> T {
    arrive(transfer(target, message))
}

/// In the target: takes in what was sent.
#[inline(always)]
pub(super) fn arrive<T: 'static>(arrival: Arrival<T>) -> T {
    let Arrival { message, from } = arrival;
    if trace::is_set() {
        tell_trace(&message, from.as_ref());
    }
    drop(from);
    match message {
        Message::Value(value) => value,
        // Not `panic!`: the hook has seen it when it was raised.
        Message::Throw(payload) => resume_unwind(payload),
    }
}

#[cold]
fn tell_trace<T: 'static>(message: &Message<T>, from: Option<&Greenlet<T>>) {
    let event = match message {
        Message::Value(_) => TraceEvent::Switch,
        // The end of a greenlet that nobody waits for: Python returns it.
        Message::Throw(payload)
            if payload.is::<GreenletExit>() && from.is_some_and(Greenlet::is_dead) =>
        {
            TraceEvent::Switch
        }
        Message::Throw(_) => TraceEvent::Throw,
    };
    let target = Greenlet::<T>::current().map(|target| target.id());
    trace::call(event, from.map(Greenlet::id), target);
}

#[inline(always)]
fn transfer<T: 'static>(target: Option<Greenlet<T>>, message: Message<T>) -> Arrival<T> {
    let target = target.and_then(Greenlet::living);
    let current = context::innermost::<Inner<T>>();
    let target_is = target.as_ref().map(|target| Rc::as_ptr(&target.0));
    if target_is == current.map(|current| current.as_ptr().cast_const()) {
        return Arrival { message, from: None };
    }
    // Told to the one who asks, and not to the root.
    let running = target.as_ref().is_some_and(|target| target.0.state.get() == State::Running);
    assert!(!running, "{RUNNING}");
    let Some(current) = current else { return bounce(Hop { target, message }) };
    // No handle is kept: a stack must not keep its own greenlet alive while that is suspended.
    // SAFETY: it runs, and so is kept by the trampoline.
    let yielder = unsafe { current.as_ref() }.yielder.get();
    // SAFETY: set when the greenlet started, to the yielder on its own stack; and it is running, since it is the
    // current one.
    unsafe { (*yielder).suspend(Hop { target, message }) }
}

const RUNNING: &str = "a greenlet that is running, further down on this stack or in a fiber that waits, cannot be switched to";

/// The trampoline: resumes one greenlet after the other until it is the root's turn.
#[inline(always)]
fn bounce<T: 'static>(hop: Hop<T>) -> Arrival<T> {
    context::at_root(|inside| {
        let Hop { mut target, mut message } = hop;
        let mut from = None;
        while let Some(greenlet) = target.and_then(Greenlet::living) {
            let state = greenlet.0.state.replace(State::Running);
            // A parent that runs elsewhere. What its child has sent is lost.
            assert!(state != State::Running, "{RUNNING}");
            let coroutine = greenlet.0.coroutine.get();
            let arrival = Arrival { message, from };
            let result = inside.run(&greenlet.0, || {
                // SAFETY: nobody else touches the coroutine of a running greenlet: whoever would resume it sees its
                // state, and its handle, held here, keeps it from being dropped.
                let coroutine = unsafe { &mut *coroutine }.as_mut();
                // It is alive. And it never panics: it catches everything at its root.
                coroutine.expect("only dead ones have none").resume(arrival)
            });
            (target, message) = match result {
                CoroutineResult::Yield(hop) => {
                    greenlet.0.state.set(State::Suspended);
                    (hop.target, hop.message)
                }
                CoroutineResult::Return(message) => {
                    greenlet.0.state.set(State::Dead);
                    // The stack goes back to its pool.
                    // SAFETY: it does not run any more, and nothing is borrowed from it.
                    unsafe { *coroutine = None };
                    (greenlet.parent(), quiet(&greenlet, message))
                }
            };
            from = Some(greenlet);
        }
        Arrival { message, from }
    })
}

/// A greenlet that was killed ends with a value.
fn quiet<T: 'static>(dead: &Greenlet<T>, message: Message<T>) -> Message<T> {
    // Also when it ended otherwise: then nobody wants it any more.
    let exit = dead.0.exit.take();
    match (message, exit) {
        (Message::Throw(payload), Some(value)) if payload.is::<GreenletExit>() => {
            Message::Value(value)
        }
        (message, _) => message,
    }
}

/// Ends a suspended greenlet whose last handle is being dropped. It unwinds at once, as the child of the code that
/// dropped it, whatever its parent was. It may catch the exit and store a handle of itself, and lives on.
#[cold]
pub(super) fn finish<T: 'static>(last: &Greenlet<T>) {
    for _ in 0..EXITS_MAX {
        // A second handle, so that those that are dropped on the way are not the last.
        let again = Greenlet(last.0.clone());
        let parent = last.0.parent.replace(Greenlet::current());
        let arrival = transfer(Some(again.clone()), Message::Throw(Box::new(GreenletExit)));
        if !last.is_dead() {
            let current = last.0.parent.replace(parent);
            drop(current);
        }
        let Arrival { message, from } = arrival;
        if trace::is_set() {
            tell_trace(&message, from.as_ref());
        }
        let ended = last.is_dead() && from.as_ref() == Some(&again);
        drop((from, again));
        match message {
            // What a greenlet ends with when nobody waits for it is of no use to anyone.
            Message::Value(_) => {}
            Message::Throw(payload) if ended && payload.is::<GreenletExit>() => {}
            // While unwinding it cannot go on; the hook has reported it.
            Message::Throw(_) if thread::panicking() => {}
            Message::Throw(payload) => resume_unwind(payload),
        }
        if last.is_dead() || 1 < Rc::strong_count(&last.0) {
            return;
        }
    }
    // A stack that is not unwound must not be used again. Whatever it borrows is `'static`.
    eprintln!(
        "{last:?} ignored GreenletExit {EXITS_MAX} times when it was dropped: its stack is lost"
    );
    mem::forget(Greenlet(last.0.clone()));
}
