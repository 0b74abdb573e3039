//! For those who stand beside a connection and not on it: they see what is written, and hold either direction up.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use super::Transport;
use crate::output::Output;

/// Who watches, and who holds up.
#[derive(Default)]
pub(super) struct Watched {
    /// How many hold the input up, besides the protocol itself.
    input_holds: Cell<u32>,
    output_holds: Cell<u32>,
    /// Nearly always nobody.
    watchers: RefCell<Option<Box<Watchers>>>,
}

#[derive(Default)]
struct Watchers {
    written: Vec<Rc<Written>>,
    sent: Vec<Rc<Sent>>,
}

type Written = dyn Fn(&[u8]);
type Sent = dyn Fn(usize);

impl Watched {
    /// Whether anybody watches the output or holds it up.
    pub(super) fn is_by_any(&self) -> bool {
        0 < self.output_holds.get() || self.watchers.borrow().is_some()
    }
}

impl Transport {
    /// Calls `watcher` with everything that is written from now on, when it is written: before TLS, and before any of
    /// it is sent. It must not write to this transport. Those who were there first are called first.
    pub fn watch_output(&self, watcher: impl Fn(&[u8]) + 'static) {
        let mut watchers = self.0.watched.watchers.borrow_mut();
        watchers.get_or_insert_default().written.push(Rc::new(watcher));
    }

    /// Calls `watcher` with the number of bytes whenever some are handed to the system. It must do nothing with this
    /// transport but to hold it up.
    pub(crate) fn watch_sent(&self, watcher: impl Fn(usize) + 'static) {
        let mut watchers = self.0.watched.watchers.borrow_mut();
        watchers.get_or_insert_default().sent.push(Rc::new(watcher));
    }

    /// Reads no more until [`release_input`](Self::release_input) has been called as often, whatever the protocol says.
    pub(crate) fn hold_input(&self) {
        let holds = &self.0.watched.input_holds;
        holds.set(holds.get() + 1);
    }

    pub(crate) fn release_input(&self) {
        let holds = &self.0.watched.input_holds;
        debug_assert!(0 < holds.get(), "nobody holds this input up");
        holds.set(holds.get().saturating_sub(1));
        if holds.get() == 0 && self.0.reading.get() {
            self.read_on();
        }
    }

    /// Sends nothing until [`release_output`](Self::release_output) has been called as often. What is written waits.
    pub(crate) fn hold_output(&self) {
        let holds = &self.0.watched.output_holds;
        holds.set(holds.get() + 1);
    }

    pub(crate) fn release_output(&self) {
        let holds = &self.0.watched.output_holds;
        debug_assert!(0 < holds.get(), "nobody holds this output up");
        holds.set(holds.get().saturating_sub(1));
        if holds.get() == 0 {
            self.schedule();
        }
    }

    /// Hands the system what it takes now.
    pub(super) fn send(&self, output: &mut Output) -> io::Result<()> {
        let before = output.len();
        let sent = self.0.medium.write(output);
        self.tell_sent(before - output.len());
        sent
    }

    pub(super) fn is_input_held(&self) -> bool {
        0 < self.0.watched.input_holds.get()
    }

    pub(super) fn is_output_held(&self) -> bool {
        0 < self.0.watched.output_holds.get()
    }

    pub(super) fn is_watched(&self) -> bool {
        self.0.watched.watchers.borrow().as_ref().is_some_and(|all| !all.written.is_empty())
    }

    pub(super) fn tell_written(&self, data: &[u8]) {
        self.tell_watchers(|watchers| &watchers.written, |watcher| watcher(data));
    }

    fn tell_sent(&self, bytes: usize) {
        if 0 < bytes {
            self.tell_watchers(|watchers| &watchers.sent, |watcher| watcher(bytes));
        }
    }

    fn tell_watchers<W: ?Sized>(&self, of: fn(&Watchers) -> &Vec<Rc<W>>, tell: impl Fn(&W)) {
        let mut next = 0;
        loop {
            // They may add another.
            let all = self.0.watched.watchers.borrow();
            let watcher = all.as_ref().and_then(|all| of(all).get(next).cloned());
            drop(all);
            let Some(watcher) = watcher else { return };
            tell(&watcher);
            next += 1;
        }
    }

    /// The connection is gone. What watchers hold may be this transport.
    pub(super) fn drop_watchers(&self) {
        let watchers = self.0.watched.watchers.take();
        drop(watchers);
    }
}
