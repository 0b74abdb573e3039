//! Events, results, semaphores, locks, queues: what gevent's documentation says of them, and what becomes of what
//! is handed to a fiber that does not come to take it.

mod event;
mod kill;
mod lock;
mod model;
mod queue;
mod rwlock;
mod semaphore;
#[path = "../support/mod.rs"]
mod support;
mod wait;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use support::run;
use warren_hub::{JoinHandle, spawn, yield_now};

/// Long enough for a wait to be over, when nothing else ends it.
const SHORT: Duration = Duration::from_millis(2);
/// So long that a test that waits for it has failed.
const LONG: Duration = Duration::from_secs(60);

/// What happened, in order.
type Log<T> = Rc<RefCell<Vec<T>>>;

/// Starts a fiber that uses something shared, and lets it run until it waits.
fn start<S: 'static, T: 'static>(
    shared: &Rc<S>,
    body: impl FnOnce(Rc<S>) -> T + 'static,
) -> JoinHandle<T> {
    let shared = shared.clone();
    let handle = spawn(move || body(shared));
    yield_now();
    handle
}
