//! What could be unsound, case by case: stacks, hubs and handles that meet where they are not expected, or when it is
//! too late. Most of these pass when nothing happens; AddressSanitizer and valgrind see more (`cargo xtask sanitize`).

mod child;
mod generators;
mod handles;
mod unwinding;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use warren_fiber::Generator;
use warren_hub::{call_soon, run, sync::Event};

/// Long enough to be killed in.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(1);

/// Calls a function when dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Counts itself out when dropped.
#[derive(Clone, Default)]
struct Count(Rc<Cell<usize>>);

impl Count {
    fn alive(&self) -> Alive {
        self.0.set(self.0.get() + 1);
        Alive(self.0.clone())
    }

    fn get(&self) -> usize {
        self.0.get()
    }
}

struct Alive(Rc<Cell<usize>>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Runs `f` on the loop, and waits for that.
fn on_the_loop(f: impl FnOnce() + 'static) {
    let done = Rc::new(Event::new());
    let told = done.clone();
    call_soon(move || {
        f();
        told.set();
    });
    done.wait();
}

/// A generator of the numbers from 0 on, run as far as the first.
fn numbers(alive: Alive) -> Generator<u32> {
    let mut numbers = Generator::new(move |g| {
        let _alive = alive;
        g.yield_from(0..);
    });
    numbers.next();
    numbers
}

/// The text of a caught panic.
fn text(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().copied().unwrap_or_default().to_owned(),
    }
}

#[test]
fn hubs_follow_each_other_on_a_thread() {
    let count = Count::default();
    for _ in 0..3 {
        let alive = count.alive();
        run(move || drop(alive));
    }
    assert_eq!(count.get(), 0);
}
