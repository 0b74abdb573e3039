//! How scenarios run, and small things that many of them need.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use warren_hub::{JoinHandle, sleep, yield_now};

pub(crate) use crate::compared::{list, yes};

/// A wait that is over before [`LONG`] is.
pub(crate) const SHORT: Duration = Duration::from_millis(10);
pub(crate) const LONG: Duration = Duration::from_millis(30);
/// No scenario waits for that to the end.
pub(crate) const FOREVER: Duration = Duration::from_secs(60);

/// Runs a scenario on a hub, as its main fiber.
pub(crate) fn on_hub(scenario: fn()) {
    warren_hub::run(scenario);
}

/// Runs a scenario without a hub.
pub(crate) fn here(scenario: fn()) {
    scenario();
}

pub(crate) fn optional<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

/// gevent's `value`: of a killed fiber it is a `GreenletExit`.
pub(crate) fn value<T: Display + Clone + 'static>(fiber: &JoinHandle<T>) -> String {
    match fiber.value() {
        None if fiber.successful() => "killed".into(),
        value => optional(value),
    }
}

/// A fiber's body that says where it is and lets others run.
pub(crate) fn steps(name: &'static str, count: usize) -> impl FnOnce() + 'static {
    move || {
        for step in 0..count {
            say!("{name} {step}");
            yield_now();
        }
    }
}

/// A fiber's body that gives a value after a time.
pub(crate) fn after<T: 'static>(time: Duration, value: T) -> impl FnOnce() -> T + 'static {
    move || {
        sleep(time);
        value
    }
}

/// A fiber's body that fails: Python's exception is a panic.
pub(crate) fn fails<T>(message: &'static str) -> T {
    panic!("{message}")
}

/// Python's `finally`: says a line when it is dropped.
pub(crate) struct Finally(pub(crate) String);

impl Drop for Finally {
    fn drop(&mut self) {
        say!("{}", self.0);
    }
}

pub(crate) fn finally(line: impl Into<String>) -> Finally {
    Finally(line.into())
}

/// Python's bare `except`: whether something was raised.
pub(crate) fn swallow(body: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(body)).is_err()
}

/// Python's `except ValueError as error`: the text of a panic.
pub(crate) fn caught<T>(body: impl FnOnce() -> T) -> Option<String> {
    let payload = catch_unwind(AssertUnwindSafe(body)).err()?;
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
}
