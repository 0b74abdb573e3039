//! How scenarios run, and small things that many of them need.

use std::fmt::Display;

use warren_reactor::{AnyError, Deferred, Failure, Resolver, UnhandledFailures};

pub(crate) use crate::compared::{list, yes};

/// Runs a scenario without a hub.
pub(crate) fn here(scenario: fn()) {
    scenario();
}

/// Runs a scenario on a hub, as its main fiber.
pub(crate) fn on_hub(scenario: fn()) {
    warren_hub::run(scenario);
}

/// A callback that says what it receives, and passes it on.
pub(crate) fn step<T: Display>(name: &'static str) -> impl FnOnce(T) -> Result<T, Failure> {
    move |value| {
        say!("{name} {value}");
        Ok(value)
    }
}

/// An errback that does so.
pub(crate) fn failed<T>(name: &'static str) -> impl FnOnce(Failure) -> Result<T, Failure> {
    move |failure| {
        say!("{name} {}", show(&failure));
        Err(failure)
    }
}

/// One for both.
pub(crate) fn both<T: Display>(
    name: &'static str,
) -> impl FnOnce(Result<T, Failure>) -> Result<T, Failure> {
    move |result| match result {
        Ok(value) => step(name)(value),
        Err(failure) => self::failed(name)(failure),
    }
}

/// A callback of a chain of numbers that fails.
pub(crate) fn fail<T>(text: &'static str) -> impl FnOnce(T) -> Result<i64, Failure> {
    move |_| Err(bad(text))
}

/// A callback that gives this, whatever it receives.
pub(crate) fn give<T, R>(outcome: R) -> impl FnOnce(T) -> R {
    move |_| outcome
}

/// Python's `ValueError`.
pub(crate) fn bad(text: &'static str) -> Failure {
    AnyError::new(text).into()
}

/// A Deferred of a number.
pub(crate) fn deferred() -> (Deferred<i64>, Resolver<i64>) {
    Deferred::pending()
}

/// One with a canceller that says its name.
pub(crate) fn pending(name: &'static str) -> (Deferred<i64>, Resolver<i64>) {
    Deferred::pending_with_canceller(move || say!("cancels {name}"))
}

/// One whose canceller fires it.
pub(crate) fn fired_by_cancelling(fire: impl FnOnce(Resolver<i64>) + 'static) -> Deferred<i64> {
    use std::{cell::Cell, rc::Rc};
    let place = Rc::<Cell<Option<Resolver<i64>>>>::default();
    let own = place.clone();
    let (deferred, resolver) = Deferred::pending_with_canceller(move || fire(own.take().unwrap()));
    place.set(Some(resolver));
    deferred
}

/// Says what a Deferred has come to, and takes its failure.
pub(crate) fn end<T, E>(deferred: Deferred<T, E>)
where
    T: Display + 'static,
    E: Display + std::fmt::Debug + 'static,
{
    if !deferred.has_fired() {
        say!("waits");
    }
    let done = deferred.add_both(|result| {
        match result {
            Ok(value) => say!("value {value}"),
            Err(failure) => say!("failed {}", show(&failure)),
        }
        Ok(())
    });
    drop(done);
}

/// As Python shows it.
pub(crate) fn show<E: Display>(failure: &Failure<E>) -> String {
    match failure {
        Failure::TimedOut(_) => "timed out".into(),
        failure => failure.to_string(),
    }
}

/// Says what nobody has taken.
pub(crate) fn say_unhandled(unhandled: &UnhandledFailures) {
    let shown = unhandled.take().into_iter().map(|one| {
        let failure = one.failure().to_lowercase();
        let error = failure.strip_prefix("error(").and_then(|text| text.strip_suffix(')'));
        error.map_or(failure.clone(), str::to_owned)
    });
    say!("unhandled {}", list(shown));
}
