//! Many Deferreds as one: [`DeferredList`], [`gather_results`], [`race`].

use std::cell::{Cell, RefCell};
use std::error::Error as StdError;
use std::fmt;
use std::rc::Rc;

use super::{Canceller, Deferred, Failure, Resolver, Settled};

/// Waits for several Deferreds (Twisted's `DeferredList`): for [`all`](Self::all), for the first value, for the first
/// failure. Cancelling what this gives cancels each that has not fired.
///
/// ```
/// use warren_reactor::{AnyError, Deferred, DeferredList};
///
/// let list = DeferredList::new([
///     Deferred::<i32>::succeed(1),
///     Deferred::fail(AnyError::new("no")),
/// ]);
/// let results = list.all().wait().unwrap();
/// assert_eq!(*results[0].as_ref().unwrap(), 1);
/// assert_eq!(results[1].as_ref().unwrap_err().to_string(), "no");
/// ```
#[must_use = "say what to wait for"]
#[derive(Debug)]
pub struct DeferredList<T, E = super::AnyError> {
    deferreds: Vec<Deferred<T, E>>,
    consume_errors: bool,
}

/// The first of several to fail.
#[derive(Debug)]
pub struct FirstError<E = super::AnyError> {
    /// How it has failed.
    pub failure: Failure<E>,
    /// Which, by its place in the list.
    pub index: usize,
}

impl<E: fmt::Display> fmt::Display for FirstError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the Deferred with index {} has failed: {}", self.index, self.failure)
    }
}

impl<E: fmt::Debug + fmt::Display> StdError for FirstError<E> {}

/// All have failed; in the order of the list.
#[derive(Debug)]
pub struct FailureGroup<E = super::AnyError>(pub Vec<Failure<E>>);

impl<E: fmt::Display> fmt::Display for FailureGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "all {} have failed", self.0.len())?;
        let separators = std::iter::once(": ").chain(std::iter::repeat("; "));
        for (separator, failure) in separators.zip(&self.0) {
            write!(f, "{separator}{failure}")?;
        }
        Ok(())
    }
}

impl<E: fmt::Debug + fmt::Display> StdError for FailureGroup<E> {}

impl<T: 'static, E: fmt::Debug + 'static> DeferredList<T, E> {
    /// Of these.
    pub fn new(deferreds: impl IntoIterator<Item = Deferred<T, E>>) -> Self {
        Self { deferreds: deferreds.into_iter().collect(), consume_errors: false }
    }

    /// Failures that come after the list has fired are forgotten, and not reported as unhandled.
    pub fn consume_errors(mut self) -> Self {
        self.consume_errors = true;
        self
    }

    /// Fires when all have, with what each gave, in the order of the list. It does not fail: the failures are in the
    /// results.
    #[track_caller]
    pub fn all(self) -> Deferred<Vec<Result<T, Failure<E>>>, E> {
        let finish = |results: Vec<Settled<T, E>>| Ok(results);
        self.collect(|result, _| Ok(result), finish)
    }

    /// Fires with the first value and its index; when all have failed, with the failures as an error. Not for an
    /// empty list, as Twisted has it: then it fails with an empty [`FailureGroup`].
    #[track_caller]
    pub fn fire_on_one_callback(self) -> Deferred<(T, usize), FailureGroup<E>> {
        let each = |result, index| match result {
            Ok(value) => Err(Ok((value, index))),
            Err(failure) => Ok(failure),
        };
        self.collect(each, |failures| Err(FailureGroup(failures).into()))
    }

    /// Fires with the values when all have succeeded, and fails with the first failure.
    #[track_caller]
    pub fn fire_on_one_errback(self) -> Deferred<Vec<T>, FirstError<E>> {
        let each = |result: Settled<T, E>, index| {
            result.map_err(|failure| Err(FirstError { failure, index }.into()))
        };
        self.collect(each, Ok)
    }

    /// Calls `each` with every result: what it gives is kept, and `finish` makes the result of all kept ones; or it is
    /// the result of the list, at once.
    #[track_caller]
    fn collect<K: 'static, R: 'static, F: fmt::Debug + 'static>(
        self,
        each: impl Fn(Settled<T, E>, usize) -> Result<K, Settled<R, F>> + 'static,
        finish: impl FnOnce(Vec<K>) -> Settled<R, F> + 'static,
    ) -> Deferred<R, F> {
        let (all, resolver) = Deferred::pending();
        if self.deferreds.is_empty() {
            resolver.resolve(finish(Vec::new()));
            return all;
        }
        let cancellers = cancellers(&self.deferreds);
        resolver.on_cancel(move || cancellers.iter().for_each(Canceller::cancel));
        let count = self.deferreds.len();
        let list = Rc::new(Collecting {
            kept: RefCell::new((0..count).map(|_| None).collect()),
            missing: Cell::new(count),
            end: Cell::new(Some((resolver, finish))),
            each,
        });
        for (index, deferred) in self.deferreds.into_iter().enumerate() {
            let list = list.clone();
            let consume_errors = self.consume_errors;
            // What goes on down the chain is reported when this is dropped.
            drop(deferred.add_both(move |result| list.received(result, index, consume_errors)));
        }
        all
    }
}

/// A list that has not all its results.
struct Collecting<K, R, F, Each, Finish> {
    kept: RefCell<Vec<Option<K>>>,
    missing: Cell<usize>,
    /// Until it has fired.
    end: Cell<Option<(Resolver<R, F>, Finish)>>,
    each: Each,
}

impl<K, R, F, Each, Finish> Collecting<K, R, F, Each, Finish>
where
    Finish: FnOnce(Vec<K>) -> Settled<R, F>,
{
    fn received<T, E>(
        &self,
        result: Settled<T, E>,
        index: usize,
        consume_errors: bool,
    ) -> Settled<(), E>
    where
        Each: Fn(Settled<T, E>, usize) -> Result<K, Settled<R, F>>,
    {
        let Some((resolver, finish)) = self.end.take() else {
            return if consume_errors { Ok(()) } else { result.map(drop) };
        };
        match (self.each)(result, index) {
            Ok(kept) => {
                self.kept.borrow_mut()[index] = Some(kept);
                self.missing.set(self.missing.get() - 1);
                if self.missing.get() == 0 {
                    let kept = self.kept.take();
                    resolver.resolve(finish(kept.into_iter().flatten().collect()));
                } else {
                    self.end.set(Some((resolver, finish)));
                }
            }
            Err(result) => resolver.resolve(result),
        }
        Ok(())
    }
}

fn cancellers<T: 'static, E: fmt::Debug + 'static>(deferreds: &[Deferred<T, E>]) -> Vec<Canceller> {
    deferreds.iter().map(Deferred::canceller).collect()
}

/// All values, in this order, or the failure of the first that fails; what fails after that is forgotten. For the index of the
/// one that failed use [`DeferredList::fire_on_one_errback`].
///
/// ```
/// use warren_reactor::{Deferred, gather_results};
///
/// let (one, resolver) = Deferred::<i32>::pending();
/// let sum = gather_results([one, Deferred::succeed(2)])
///     .add_callback(|values| Ok(values.into_iter().sum::<i32>()));
/// resolver.callback(1);
/// assert_eq!(sum.wait().unwrap(), 3);
/// ```
#[track_caller]
pub fn gather_results<T: 'static, E: fmt::Debug + 'static>(
    deferreds: impl IntoIterator<Item = Deferred<T, E>>,
) -> Deferred<Vec<T>, E> {
    let list = DeferredList::new(deferreds).consume_errors();
    list.collect(|result, _| result.map_err(Err), Ok)
}

/// The index and the value of the first that succeeds; the others are cancelled. When all have failed it fails with their
/// failures.
///
/// ```
/// use warren_reactor::{Deferred, race};
///
/// let (slow, _resolver) = Deferred::<&str>::pending_with_canceller(|| println!("hang up"));
/// let first = race([slow, Deferred::succeed("fast")]);
/// assert_eq!(first.wait().unwrap(), (1, "fast"));
/// ```
#[track_caller]
pub fn race<T: 'static, E: fmt::Debug + 'static>(
    deferreds: impl IntoIterator<Item = Deferred<T, E>>,
) -> Deferred<(usize, T), FailureGroup<E>> {
    let list = DeferredList::new(deferreds).consume_errors();
    let cancellers = cancellers(&list.deferreds);
    let each = move |result, index| match result {
        Ok(value) => {
            let others = cancellers.iter().enumerate().filter(|(other, _)| *other != index);
            others.for_each(|(_, canceller)| canceller.cancel());
            Err(Ok((index, value)))
        }
        Err(failure) => Ok(failure),
    };
    list.collect(each, |failures| Err(FailureGroup(failures).into()))
}
