//! What protocols are told, noted in order, so that a scenario can wait for something and say it all at the end.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use warren_hub::sleep;

const PATIENCE: Duration = Duration::from_secs(20);

/// Clones note to the same list.
#[derive(Clone, Default)]
pub(crate) struct Heard(Rc<RefCell<Vec<String>>>);

impl Heard {
    pub(crate) fn put(&self, line: impl Into<String>) {
        self.0.borrow_mut().push(line.into());
    }

    /// Waits until the line has been noted.
    #[track_caller]
    pub(crate) fn until(&self, line: &str) {
        let began = Instant::now();
        while !self.has(line) {
            assert!(began.elapsed() < PATIENCE, "{line:?} is not told: {:?}", self.0.borrow());
            sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn has(&self, line: &str) -> bool {
        self.0.borrow().iter().any(|noted| noted == line)
    }

    /// Takes the last line, once there is one that begins with this, without its beginning.
    pub(crate) fn take_last(&self, beginning: &str) -> String {
        loop {
            let last = self.0.borrow().last().cloned().unwrap_or_default();
            if let Some(rest) = last.strip_prefix(beginning) {
                self.0.borrow_mut().pop();
                return rest.to_owned();
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// Says what was heard. Between neighbours that begin with one of `unordered` there is no order.
    pub(crate) fn say(&self, name: &str, unordered: &[&str]) {
        let mut run = Vec::new();
        for line in self.0.take() {
            if unordered.iter().any(|beginning| line.starts_with(beginning)) {
                run.push(line);
                continue;
            }
            say_sorted(name, &mut run);
            say!("{name} {line}");
        }
        say_sorted(name, &mut run);
    }
}

fn say_sorted(name: &str, lines: &mut Vec<String>) {
    lines.sort();
    for line in lines.drain(..) {
        say!("{name} {line}");
    }
}

/// Lets what is under way happen.
pub(crate) fn soon() {
    sleep(Duration::from_millis(50));
}
