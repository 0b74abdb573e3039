//! Long work in small steps, between which the loop turns: [`Cooperator`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use warren_hub::{Panic, hub_local};

use crate::completion::Completion;
use crate::deferred::{AnyError, Deferred, Failure, Resolver};
use crate::time::call_soon;

/// Steps of one turn. What takes part takes at most about a millisecond a step, so this is what others wait.
const STEPS_PER_TURN: usize = 16;

/// Lets tasks take their steps in turn, some in each turn of the loop. A task is an iterator: each of its items is a
/// step, which may be a [`Deferred`] or a fiber that the task waits for. Clones are the same cooperator.
///
/// A turn has 16 steps at most, whoever takes them, and not a span of time as in Twisted, so that it is the same in every
/// simulation and under a test's clock.
///
/// ```
/// use std::{cell::RefCell, rc::Rc, time::Duration};
/// use warren_reactor::{Cooperator, testing::Clock};
///
/// let clock = Clock::install();
/// let log = Rc::<RefCell<String>>::default();
/// let say = |word: &'static str| {
///     let log = log.clone();
///     (0..2).map(move |_| log.borrow_mut().push_str(word))
/// };
/// let cooperator = Cooperator::new();
/// let done = cooperator.coiterate(say("tick "));
/// let _also = cooperator.coiterate(say("tock "));
/// clock.advance(Duration::ZERO);
/// assert_eq!(*log.borrow(), "tick tock tick tock ");
/// assert!(done.wait().is_ok());
/// ```
#[derive(Clone)]
pub struct Cooperator(Rc<Inner>);

struct Inner {
    /// Tasks that can take a step, in the order of their turns.
    ready: RefCell<VecDeque<Rc<Task>>>,
    /// All tasks that have not finished, for `stop`.
    unfinished: RefCell<Vec<Rc<Task>>>,
    steps: usize,
    started: Cell<bool>,
    stopped: Cell<bool>,
    /// The loop has been asked for a turn.
    scheduled: Cell<bool>,
}

/// What a [`Cooperator`] works on. Clones are the same task.
#[derive(Clone)]
pub struct CooperativeTask {
    task: Rc<Task>,
    cooperator: Cooperator,
}

struct Task {
    step: RefCell<Box<dyn FnMut() -> Option<Deferred<()>>>>,
    /// How often it was paused.
    pauses: Cell<usize>,
    /// A step is not through.
    stepping: Cell<bool>,
    /// It is among those that can take a step.
    ready: Cell<bool>,
    end: RefCell<Option<TaskError>>,
    waiting: RefCell<Vec<Resolver<(), TaskError>>>,
}

/// Why something cannot be done with a task, or how it ended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// It has taken its last step.
    #[error("the task is done")]
    Done,
    /// [`CooperativeTask::stop`] was called.
    #[error("the task was stopped")]
    Stopped,
    /// A step has failed, or panicked.
    #[error("a step of the task has failed: {0}")]
    Failed(Rc<Failure>),
    /// [`Cooperator::stop`] was called.
    #[error("the cooperator was stopped, and its tasks with it")]
    CooperatorStopped,
    /// It was resumed more often than paused.
    #[error("the task was resumed, and is not paused")]
    NotPaused,
}

/// Works on `steps` with the cooperator of this hub.
///
/// # Panics
/// When no hub runs on this thread.
pub fn cooperate<R: Completion>(
    steps: impl IntoIterator<Item = R, IntoIter: 'static>,
) -> CooperativeTask {
    hub_local(Cooperator::new).cooperate(steps)
}

/// As [`cooperate`]; gives what [`CooperativeTask::when_done`] gives.
///
/// # Panics
/// When no hub runs on this thread.
pub fn coiterate<R: Completion>(
    steps: impl IntoIterator<Item = R, IntoIter: 'static>,
) -> Deferred<(), TaskError> {
    cooperate(steps).when_done()
}

impl Default for Cooperator {
    fn default() -> Self {
        Self::new()
    }
}

impl Cooperator {
    /// One that works from now on.
    pub fn new() -> Self {
        Self::with_steps(STEPS_PER_TURN)
    }

    /// As [`new`](Self::new), with another number of steps that all tasks together take in one turn.
    ///
    /// # Panics
    /// When `steps` is 0.
    pub fn with_steps(steps: usize) -> Self {
        assert!(steps > 0, "a cooperator has to take a step");
        Self(Rc::new(Inner {
            ready: RefCell::default(),
            unfinished: RefCell::default(),
            steps,
            started: Cell::new(true),
            stopped: Cell::default(),
            scheduled: Cell::default(),
        }))
    }

    /// Works on `steps`, beside what it works on already. The first step is taken in the next turn.
    ///
    /// # Panics
    /// When no hub runs on this thread, and no test's clock.
    pub fn cooperate<R: Completion>(
        &self,
        steps: impl IntoIterator<Item = R, IntoIter: 'static>,
    ) -> CooperativeTask {
        let mut steps = steps.into_iter();
        let task = Rc::new(Task {
            step: RefCell::new(Box::new(move || Some(steps.next()?.completed()))),
            pauses: Cell::default(),
            stepping: Cell::default(),
            ready: Cell::default(),
            end: RefCell::default(),
            waiting: RefCell::default(),
        });
        if self.0.stopped.get() {
            self.finish(&task, TaskError::CooperatorStopped);
        } else {
            self.0.unfinished.borrow_mut().push(task.clone());
            self.make_ready(&task);
        }
        CooperativeTask { task, cooperator: self.clone() }
    }

    /// As [`cooperate`](Self::cooperate); gives what [`CooperativeTask::when_done`] gives.
    ///
    /// # Panics
    /// As [`cooperate`](Self::cooperate).
    pub fn coiterate<R: Completion>(
        &self,
        steps: impl IntoIterator<Item = R, IntoIter: 'static>,
    ) -> Deferred<(), TaskError> {
        self.cooperate(steps).when_done()
    }

    /// Ends all tasks with [`TaskError::CooperatorStopped`], and those too that are added later.
    pub fn stop(&self) {
        self.0.stopped.set(true);
        self.0.started.set(false);
        let unfinished = self.0.unfinished.take();
        for task in unfinished {
            self.finish(&task, TaskError::CooperatorStopped);
        }
    }

    /// Works again after a [`stop`](Self::stop), for tasks that are added from now on.
    pub fn start(&self) {
        self.0.stopped.set(false);
        self.0.started.set(true);
    }

    /// Whether it works: it was not stopped.
    pub fn is_running(&self) -> bool {
        self.0.started.get()
    }

    fn make_ready(&self, task: &Rc<Task>) {
        if !task.ready.replace(true) {
            self.0.ready.borrow_mut().push_back(task.clone());
        }
        if !self.0.scheduled.replace(true) {
            let own = self.clone();
            call_soon(move || own.turn());
        }
    }

    fn turn(&self) {
        for _ in 0..self.0.steps {
            let task = self.0.ready.borrow_mut().pop_front();
            let Some(task) = task else { break };
            task.ready.set(false);
            if task.can_step() {
                self.step(&task);
            }
        }
        self.0.scheduled.set(false);
        let next = self.0.ready.borrow().front().cloned();
        if let Some(next) = next {
            self.make_ready(&next);
        }
    }

    fn step(&self, task: &Rc<Task>) {
        task.stepping.set(true);
        let stepped = catch_unwind(AssertUnwindSafe(|| (task.step.borrow_mut())()));
        let through = match stepped {
            Ok(Some(through)) => through,
            Ok(None) => return self.finish(task, TaskError::Done),
            Err(payload) => Deferred::fail(Failure::<AnyError>::Panicked(Panic::new(payload))),
        };
        let (own, task) = (self.clone(), task.clone());
        let through = through.add_both(move |result| {
            match result {
                Ok(()) => {
                    task.stepping.set(false);
                    own.go_on(&task);
                }
                Err(failure) => own.finish(&task, TaskError::Failed(Rc::new(failure))),
            }
            Ok(())
        });
        drop(through);
    }

    fn go_on(&self, task: &Rc<Task>) {
        if task.can_step() {
            self.make_ready(task);
        }
    }

    fn finish(&self, task: &Rc<Task>, end: TaskError) {
        if task.end.borrow().is_some() {
            return;
        }
        *task.end.borrow_mut() = Some(end.clone());
        self.0.unfinished.borrow_mut().retain(|other| !Rc::ptr_eq(other, task));
        // What it works on goes now, and not with the last handle; one that ends itself has it in use still.
        let steps = task
            .step
            .try_borrow_mut()
            .map(|mut step| std::mem::replace(&mut *step, Box::new(|| None)));
        drop(steps);
        let waiting = task.waiting.take();
        if let (TaskError::Failed(failure), true) = (&end, waiting.is_empty()) {
            // Nobody asked for it yet, and perhaps nobody will.
            tracing::error!(%failure, "a step of a cooperative task has failed");
        }
        waiting.into_iter().for_each(|resolver| end.tell(resolver));
    }
}

impl Task {
    fn can_step(&self) -> bool {
        self.pauses.get() == 0 && !self.stepping.get() && self.end.borrow().is_none()
    }
}

impl TaskError {
    fn tell(&self, resolver: Resolver<(), Self>) {
        match self {
            Self::Done => resolver.callback(()),
            end => resolver.errback(end.clone()),
        }
    }
}

impl CooperativeTask {
    /// Takes no step until it is resumed as often as it was paused.
    ///
    /// # Errors
    /// How it ended, if it has.
    pub fn pause(&self) -> Result<(), TaskError> {
        self.check()?;
        self.task.pauses.set(self.task.pauses.get() + 1);
        Ok(())
    }

    /// Takes one pause back.
    ///
    /// # Errors
    /// [`TaskError::NotPaused`]; how it ended, if it has.
    pub fn resume(&self) -> Result<(), TaskError> {
        self.check()?;
        let pauses = self.task.pauses.get().checked_sub(1).ok_or(TaskError::NotPaused)?;
        self.task.pauses.set(pauses);
        self.cooperator.go_on(&self.task);
        Ok(())
    }

    /// Ends it where it stands: it takes no further step.
    ///
    /// # Errors
    /// How it ended, if it has.
    pub fn stop(&self) -> Result<(), TaskError> {
        self.check()?;
        self.cooperator.finish(&self.task, TaskError::Stopped);
        Ok(())
    }

    /// Fires when the task has taken its last step, and fails when it ends in any other way. May be asked for any number
    /// of times.
    pub fn when_done(&self) -> Deferred<(), TaskError> {
        let (deferred, resolver) = Deferred::pending();
        match &*self.task.end.borrow() {
            Some(end) => end.tell(resolver),
            None => self.task.waiting.borrow_mut().push(resolver),
        }
        deferred
    }

    fn check(&self) -> Result<(), TaskError> {
        self.task.end.borrow().clone().map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Cooperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cooperator")
            .field("tasks", &self.0.unfinished.borrow().len())
            .field("running", &self.is_running())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CooperativeTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CooperativeTask")
            .field("end", &self.task.end.borrow())
            .finish_non_exhaustive()
    }
}
