//! How results move along chains.
//!
//! ```text
//!   Resolver --> Source<T> --Sink--> Link<T, U> --Sink--> Link<U, V> <-- Deferred<V>
//!                  ^  chain: what is waited for  |          |
//!                  +--------------root-----------+----------+
//! ```
//! Each place where a result appears is a [`Node`] with a [`Slot`]. A link is one allocation: the callback, what it is
//! to be called with, and the slot for what it gives. One source and its links are what Twisted has as one Deferred;
//! they share the [`Chain`] in the source, which knows what a cancellation has to reach.
//!
//! A callback that gives a Deferred which has not fired makes the slot of that one forward to the link's own slot.
//! [`run`] goes from link to link in a loop, across such borders too, so the length of a chain costs no stack. Nor
//! does dropping one: a resolver that is dropped fires, and a link leaves its predecessor before it is called.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::rc::{Rc, Weak};
use std::task::Waker;

use warren_hub::{Panic, contain, is_running, no_wait};

use super::{Deferred, Failure, Repr, TAKEN, unhandled};

pub(super) type Settled<T, E> = Result<T, Failure<E>>;

/// A place where a result appears.
pub(super) trait Node<T, E> {
    fn slot(&self) -> &Slot<T, E>;
    fn chain(&self) -> &Chain;
    fn root(self: Rc<Self>) -> Rc<dyn Root>;
    /// Nobody will take the result any more: a failure is reported.
    fn abandon(&self);
}

/// A source of any type.
pub(super) trait Root {
    fn chain(&self) -> &Chain;
    /// Settles the source as cancelled, unless it is settled.
    fn settle_cancelled(self: Rc<Self>) -> Option<Rc<dyn Step>>;
}

/// A link that has what it is to be called with.
pub(super) trait Step {
    /// Calls it. Gives the link to be called next.
    fn step(self: Rc<Self>) -> Option<Rc<dyn Step>>;
}

/// A link that waits for a result.
pub(super) trait Sink<T, E> {
    fn receive(self: Rc<Self>, result: Settled<T, E>) -> Rc<dyn Step>;
}

pub(super) struct Slot<T, E>(Cell<State<T, E>>);

#[derive(Default)]
pub(super) enum State<T, E> {
    Pending,
    /// Polled by somebody.
    Polled(Waker),
    /// The next link takes the result.
    Linked(Rc<dyn Sink<T, E>>),
    /// A callback gave this one: its result is that node's.
    Forward(Rc<dyn Node<T, E>>),
    Fired(Settled<T, E>),
    /// The result has moved on.
    #[default]
    Passed,
}

/// What is common to a source and its links.
pub(super) struct Chain {
    waits_for: Cell<WaitsFor>,
    pub(super) created: &'static Location<'static>,
}

#[derive(Default)]
enum WaitsFor {
    /// A callback runs, or all are through.
    #[default]
    Nothing,
    Source(Option<Box<dyn FnOnce()>>),
    /// The source's canceller runs.
    Cancelling,
    /// A Deferred that a callback gave.
    Inner(Weak<dyn Root>),
}

/// Where a chain begins.
pub(super) struct Source<T, E: fmt::Debug> {
    slot: Slot<T, E>,
    chain: Chain,
}

struct Link<T, E, U, F: fmt::Debug, C> {
    work: Cell<Work<T, E, C>>,
    slot: Slot<U, F>,
    root: Rc<dyn Root>,
}

#[derive(Default)]
enum Work<T, E, C> {
    Waiting(C),
    Ready(C, Settled<T, E>),
    #[default]
    Done,
}

/// What a link gives.
pub(super) enum Next<T, E> {
    Now(Settled<T, E>),
    Later(Rc<dyn Node<T, E>>),
}

impl<T, E> From<Deferred<T, E>> for Next<T, E> {
    fn from(deferred: Deferred<T, E>) -> Self {
        match deferred.into_repr() {
            Repr::Value(value) => Self::Now(Ok(value)),
            Repr::Node(node) => match node.slot().take() {
                State::Fired(result) => Self::Now(result),
                state => {
                    node.slot().0.set(state);
                    Self::Later(node)
                }
            },
            Repr::Taken => panic!("{TAKEN}"),
        }
    }
}

impl<T, E> Slot<T, E> {
    pub(super) fn take(&self) -> State<T, E> {
        self.0.take()
    }

    pub(super) fn set(&self, state: State<T, E>) {
        self.0.set(state);
    }

    pub(super) fn has_fired(&self) -> bool {
        let state = self.take();
        let fired = matches!(state, State::Fired(_));
        self.set(state);
        fired
    }

    /// A result that is there is dropped, and reported if it is a failure.
    fn abandon(&self, chain: &Chain)
    where
        E: fmt::Debug,
    {
        match self.take() {
            State::Fired(Ok(_)) => self.set(State::Passed),
            State::Fired(Err(failure)) => {
                self.set(State::Passed);
                unhandled::report(&failure, chain.created);
            }
            state => self.set(state),
        }
    }

    /// Whether a result would be welcome.
    pub(super) fn is_open(&self) -> bool {
        let state = self.take();
        let open = !matches!(state, State::Fired(_) | State::Passed);
        self.set(state);
        open
    }
}

impl Chain {
    pub(super) fn is_cancelling(&self) -> bool {
        let waits_for = self.waits_for.take();
        let cancelling = matches!(waits_for, WaitsFor::Cancelling);
        self.waits_for.set(waits_for);
        cancelling
    }

    pub(super) fn set_canceller(&self, canceller: Box<dyn FnOnce()>) {
        let before = self.waits_for.take();
        self.waits_for.set(match before {
            WaitsFor::Source(_) => WaitsFor::Source(Some(canceller)),
            other => other,
        });
    }
}

impl<T: 'static, E: fmt::Debug + 'static> Source<T, E> {
    pub(super) fn pending(
        canceller: Option<Box<dyn FnOnce()>>,
        created: &'static Location<'static>,
    ) -> Rc<Self> {
        Self::new(State::Pending, WaitsFor::Source(canceller), created)
    }

    pub(super) fn fired(
        result: Settled<T, E>,
        created: &'static Location<'static>,
    ) -> Rc<dyn Node<T, E>> {
        Self::new(State::Fired(result), WaitsFor::Nothing, created)
    }

    fn new(
        state: State<T, E>,
        waits_for: WaitsFor,
        created: &'static Location<'static>,
    ) -> Rc<Self> {
        let chain = Chain { waits_for: Cell::new(waits_for), created };
        Rc::new(Self { slot: Slot(Cell::new(state)), chain })
    }
}

impl<T: 'static, E: fmt::Debug + 'static> Node<T, E> for Source<T, E> {
    fn slot(&self) -> &Slot<T, E> {
        &self.slot
    }

    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn root(self: Rc<Self>) -> Rc<dyn Root> {
        self
    }

    fn abandon(&self) {
        self.slot.abandon(&self.chain);
    }
}

impl<T: 'static, E: fmt::Debug + 'static> Root for Source<T, E> {
    fn chain(&self) -> &Chain {
        &self.chain
    }

    fn settle_cancelled(self: Rc<Self>) -> Option<Rc<dyn Step>> {
        settle(self, Err(Failure::Cancelled))
    }
}

impl<T, E, U, F, C> Node<U, F> for Link<T, E, U, F, C>
where
    U: 'static,
    F: fmt::Debug + 'static,
{
    fn slot(&self) -> &Slot<U, F> {
        &self.slot
    }

    fn chain(&self) -> &Chain {
        self.root.chain()
    }

    fn root(self: Rc<Self>) -> Rc<dyn Root> {
        self.root.clone()
    }

    fn abandon(&self) {
        self.slot.abandon(self.root.chain());
    }
}

impl<T, E, U, F, C> Sink<T, E> for Link<T, E, U, F, C>
where
    T: 'static,
    E: 'static,
    U: 'static,
    F: fmt::Debug + 'static,
    C: FnOnce(Settled<T, E>) -> Next<U, F> + 'static,
{
    fn receive(self: Rc<Self>, result: Settled<T, E>) -> Rc<dyn Step> {
        if let Work::Waiting(callback) = self.work.take() {
            self.work.set(Work::Ready(callback, result));
        }
        self
    }
}

impl<T, E, U, F, C> Step for Link<T, E, U, F, C>
where
    T: 'static,
    E: 'static,
    U: 'static,
    F: fmt::Debug + 'static,
    C: FnOnce(Settled<T, E>) -> Next<U, F> + 'static,
{
    fn step(self: Rc<Self>) -> Option<Rc<dyn Step>> {
        match self.work.take() {
            Work::Ready(callback, result) => {
                let next = call(callback, result);
                follow(self, next)
            }
            Work::Waiting(_) | Work::Done => None,
        }
    }
}

impl<T, E: fmt::Debug> Drop for Source<T, E> {
    fn drop(&mut self) {
        self.slot.abandon(&self.chain);
    }
}

impl<T, E, U, F: fmt::Debug, C> Drop for Link<T, E, U, F, C> {
    fn drop(&mut self) {
        self.slot.abandon(self.root.chain());
    }
}

/// Calls `callback` with what `node` gives, at once if it is there.
pub(super) fn link<T, E, U, F, C>(node: Rc<dyn Node<T, E>>, callback: C) -> Rc<dyn Node<U, F>>
where
    T: 'static,
    E: 'static,
    U: 'static,
    F: fmt::Debug + 'static,
    C: FnOnce(Settled<T, E>) -> Next<U, F> + 'static,
{
    let root = node.clone().root();
    let slot = Slot(Cell::new(State::Pending));
    match node.slot().take() {
        State::Fired(result) => {
            let work = Cell::new(Work::Ready(callback, result));
            let link = Rc::new(Link { work, slot, root });
            run(Some(link.clone()));
            link
        }
        _ => {
            let work = Cell::new(Work::Waiting(callback));
            let link = Rc::new(Link { work, slot, root });
            node.slot().set(State::Linked(link.clone()));
            link
        }
    }
}

/// As [`link`], of a value that is there.
pub(super) fn call_in_place<T, E, U, F>(
    callback: impl FnOnce(Settled<T, E>) -> Next<U, F>,
    value: T,
) -> Next<U, F> {
    without_waits(|| call(callback, Ok(value)))
}

/// The result of `inner`, which is yet to come, will be `node`'s too.
pub(super) fn forward<T, E>(inner: &Rc<dyn Node<T, E>>, node: Rc<dyn Node<T, E>>) {
    if Rc::ptr_eq(&inner.clone().root(), &node.clone().root()) {
        // It would wait for itself.
        return fire(node, Err(Failure::Dropped));
    }
    inner.slot().set(State::Forward(node));
}

/// Gives `node` its result, and runs what waits for it. A result that comes too late is dropped.
pub(super) fn fire<T, E>(node: Rc<dyn Node<T, E>>, result: Settled<T, E>) {
    run(settle(node, result));
}

/// Ends what the chain of `root` waits for, which may be the source of another one.
pub(super) fn cancel(mut root: Rc<dyn Root>) {
    loop {
        match root.chain().waits_for.take() {
            WaitsFor::Nothing => return,
            WaitsFor::Cancelling => return root.chain().waits_for.set(WaitsFor::Cancelling),
            WaitsFor::Inner(inner) => {
                root.chain().waits_for.set(WaitsFor::Inner(inner.clone()));
                match inner.upgrade() {
                    Some(inner) => root = inner,
                    None => return,
                }
            }
            WaitsFor::Source(canceller) => {
                if let Some(canceller) = canceller {
                    root.chain().waits_for.set(WaitsFor::Cancelling);
                    // What has gone wrong is in the log.
                    let _ = without_waits(|| contain("a canceller", canceller));
                }
                return run(root.settle_cancelled());
            }
        }
    }
}

fn run(mut step: Option<Rc<dyn Step>>) {
    if step.is_some() {
        without_waits(|| {
            while let Some(link) = step.take() {
                step = link.step();
            }
        });
    }
}

fn settle<T, E>(mut node: Rc<dyn Node<T, E>>, result: Settled<T, E>) -> Option<Rc<dyn Step>> {
    loop {
        let state = node.slot().take();
        if matches!(state, State::Fired(_) | State::Passed) {
            // Somebody was first, as a cancellation is.
            node.slot().set(state);
            return None;
        }
        node.chain().waits_for.take();
        match state {
            State::Linked(link) => return Some(link.receive(result)),
            State::Forward(next) => node = next,
            State::Polled(waker) => {
                node.slot().set(State::Fired(result));
                waker.wake();
                return None;
            }
            State::Pending | State::Fired(_) | State::Passed => {
                node.slot().set(State::Fired(result));
                return None;
            }
        }
    }
}

/// `node` has what `next` is or will be.
fn follow<T, E>(node: Rc<dyn Node<T, E>>, next: Next<T, E>) -> Option<Rc<dyn Step>> {
    match next {
        Next::Now(result) => settle(node, result),
        Next::Later(inner) => {
            let root = inner.clone().root();
            node.chain().waits_for.set(WaitsFor::Inner(Rc::downgrade(&root)));
            inner.slot().set(State::Forward(node));
            None
        }
    }
}

/// A panic becomes a failure.
fn call<T, E, U, F>(
    callback: impl FnOnce(Settled<T, E>) -> Next<U, F>,
    result: Settled<T, E>,
) -> Next<U, F> {
    catch_unwind(AssertUnwindSafe(|| callback(result)))
        .unwrap_or_else(|payload| Next::Now(Err(Failure::Panicked(Panic::new(payload)))))
}

/// Callbacks must not wait wherever they are called from: the next time it may be the loop.
fn without_waits<R>(f: impl FnOnce() -> R) -> R {
    if is_running() { no_wait(f) } else { f() }
}
