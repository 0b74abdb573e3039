//! Tasks that take their steps in turn.

use std::cell::Cell;
use std::rc::Rc;

use warren_reactor::{AnyError, Cooperator, Deferred, Failure, Resolver, TaskError};

use crate::said::{end, yes};

scenarios! { on_hub:
    tasks_take_turns
    a_task_is_paused
    a_task_is_stopped
    a_step_waits
    a_stopped_cooperator
}

/// One that takes one step in each turn.
fn one_by_one() -> Cooperator {
    Cooperator::with_steps(1)
}

/// Lets the loop turn so often.
fn turns(count: usize) {
    for _ in 0..count {
        let (turned, resolver) = Deferred::<(), AnyError>::pending();
        warren_hub::call_soon(move || resolver.callback(()));
        turned.wait().unwrap();
    }
}

fn letters(name: &'static str, count: usize) -> impl Iterator<Item = ()> {
    (0..count).map(move |number| say!("{name}{number}"))
}

/// Says how it ends, by the name that Twisted has for that.
fn ended(done: Deferred<(), TaskError>, name: &'static str) -> Deferred<&'static str, TaskError> {
    done.add_both(move |result| match result {
        Ok(()) => Ok(name),
        Err(Failure::Error(TaskError::Stopped)) => Ok("TaskStopped"),
        Err(Failure::Error(TaskError::CooperatorStopped)) => Ok("SchedulerStopped"),
        Err(failure) => Err(failure),
    })
}

fn tasks_take_turns() {
    let cooperator = one_by_one();
    let done = ended(cooperator.coiterate(letters("a", 3)), "a is done");
    drop(cooperator.coiterate(letters("b", 2)));
    turns(8);
    end(done);
}

fn a_task_is_paused() {
    let cooperator = one_by_one();
    let task = cooperator.cooperate(letters("a", 3));
    cooperator.cooperate(letters("b", 3));
    turns(1);
    task.pause().unwrap();
    turns(4);
    task.resume().unwrap();
    turns(4);
}

fn a_task_is_stopped() {
    let cooperator = one_by_one();
    let task = cooperator.cooperate(letters("a", 3));
    turns(1);
    let done = ended(task.when_done(), "done");
    task.stop().unwrap();
    turns(3);
    end(done);
}

fn a_step_waits() {
    let cooperator = one_by_one();
    let given = Rc::<Cell<Option<Resolver<()>>>>::default();
    let gives = given.clone();
    let mut step = 0;
    let steps = std::iter::from_fn(move || {
        step += 1;
        let (deferred, resolver) = Deferred::<(), AnyError>::pending();
        match step {
            1 => say!("first"),
            _ => {
                say!("second");
                return None;
            }
        }
        gives.set(Some(resolver));
        Some(deferred)
    });
    let done = ended(cooperator.coiterate(steps), "done");
    turns(3);
    say!("fired {}", yes(done.has_fired()));
    given.take().unwrap().callback(());
    turns(3);
    end(done);
}

fn a_stopped_cooperator() {
    let cooperator = one_by_one();
    let done = ended(cooperator.coiterate(letters("a", 3)), "done");
    turns(1);
    cooperator.stop();
    turns(2);
    end(done);
    end(ended(cooperator.coiterate(letters("b", 3)), "done"));
}
