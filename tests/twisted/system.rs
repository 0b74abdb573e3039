//! Starting and stopping: the phases of system events.

use std::cell::Cell;
use std::rc::Rc;

use warren_reactor::{
    Completion, Deferred, Resolver, RunError, Runner, TriggerId, TriggerPhase,
    add_system_event_trigger, call_when_running, fire_system_event, is_running,
    remove_system_event_trigger, stop,
};

use crate::said::{bad, yes};

scenarios! { on_hub:
    phases
    when_running
    a_deferred_holds_up_the_next_phase
    a_failure_holds_up_nothing
    a_deferred_that_fails_holds_up_nothing
    later_phases_wait_for_nothing
    triggers_are_called_once
    removed
    added_and_removed_meanwhile
    what_is_refused
    stopped_while_it_starts
}

const PHASES: [(TriggerPhase, &str); 3] = [
    (TriggerPhase::Before, "before"),
    (TriggerPhase::During, "during"),
    (TriggerPhase::After, "after"),
];

fn saying(text: &str) -> impl FnOnce() + use<> {
    let text = text.to_owned();
    move || say!("{text} {}", yes(is_running()))
}

fn trigger(phase: TriggerPhase, event: &'static str, text: &str) -> TriggerId {
    add_system_event_trigger(phase, event, saying(text))
}

/// Starts, and turns until it has stopped.
fn go() {
    Runner::new().without_signals().run(|| Ok::<(), RunError>(())).unwrap();
}

fn fire(event: &'static str) {
    drop(fire_system_event(event));
}

fn stop_it() {
    stop().unwrap();
}

fn phases() {
    for event in ["shutdown", "startup"] {
        for (phase, name) in PHASES.into_iter().rev() {
            trigger(phase, event, &format!("{name} {event}"));
        }
    }
    trigger(TriggerPhase::Before, "startup", "before startup, too");
    call_when_running(stop_it);
    go();
}

fn when_running() {
    call_when_running(saying("first"));
    call_when_running(|| {
        call_when_running(saying("at once"));
        say!("second");
        stop_it();
    });
    trigger(TriggerPhase::After, "startup", "third");
    go();
}

/// A trigger that gives a Deferred, and what fires that.
fn holding(phase: TriggerPhase) -> Resolver<()> {
    let (deferred, resolver) = Deferred::pending();
    add_system_event_trigger(phase, "reload", move || deferred);
    resolver
}

fn a_deferred_holds_up_the_next_phase() {
    let (one, two) = (holding(TriggerPhase::Before), holding(TriggerPhase::Before));
    for (phase, name) in PHASES {
        trigger(phase, "reload", name);
    }
    fire("reload");
    say!("one");
    two.callback(());
    say!("two");
    one.callback(());
}

fn a_failure_holds_up_nothing() {
    fn fails() -> impl Completion {
        say!("bad");
        Err::<(), _>(bad("bad"))
    }
    for (phase, name) in PHASES {
        add_system_event_trigger(phase, "reload", fails);
        trigger(phase, "reload", name);
    }
    fire("reload");
}

fn a_deferred_that_fails_holds_up_nothing() {
    let given = holding(TriggerPhase::Before);
    trigger(TriggerPhase::During, "reload", "during");
    fire("reload");
    say!("fails");
    given.errback(bad("bad"));
}

fn later_phases_wait_for_nothing() {
    let _given = holding(TriggerPhase::During);
    trigger(TriggerPhase::After, "reload", "after");
    fire("reload");
}

fn triggers_are_called_once() {
    trigger(TriggerPhase::During, "reload", "during");
    for event in ["reload", "reload", "unknown"] {
        fire(event);
    }
}

fn removed() {
    trigger(TriggerPhase::During, "reload", "stays");
    let id = trigger(TriggerPhase::During, "reload", "never");
    remove_system_event_trigger(&id);
    if !remove_system_event_trigger(&id) {
        say!("not twice");
    }
    fire("reload");
}

fn added_and_removed_meanwhile() {
    let never = Rc::<Cell<Option<TriggerId>>>::default();
    let inside = never.clone();
    add_system_event_trigger(TriggerPhase::Before, "reload", move || {
        trigger(TriggerPhase::Before, "reload", "added before");
        trigger(TriggerPhase::After, "reload", "added after");
        remove_system_event_trigger(&inside.take().unwrap());
        say!("first");
    });
    never.set(Some(trigger(TriggerPhase::Before, "reload", "never")));
    fire("reload");
}

fn try_to_stop() {
    if stop().is_err() {
        say!("not running");
    }
}

fn try_to_run() {
    match Runner::new().without_signals().run(|| Ok::<(), RunError>(())) {
        Err(RunError::AlreadyRunning) => say!("already running"),
        Err(RunError::NotRestartable) => say!("not restartable"),
        other => say!("{other:?}"),
    }
}

fn what_is_refused() {
    try_to_stop();
    call_when_running(|| {
        try_to_run();
        try_to_stop();
        try_to_stop();
        say!("stopping");
    });
    add_system_event_trigger(TriggerPhase::Before, "shutdown", try_to_stop);
    go();
    try_to_stop();
    try_to_run();
}

fn stopped_while_it_starts() {
    add_system_event_trigger(TriggerPhase::Before, "startup", stop_it);
    for event in ["startup", "shutdown"] {
        trigger(TriggerPhase::After, event, &format!("after {event}"));
    }
    go();
}
