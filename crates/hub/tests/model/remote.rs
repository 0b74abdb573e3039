//! Waits that another thread ends. Each thread is a hub with one fiber: it reads its mailbox, and sleeps until its
//! bell rings when there is nothing in it.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::PoisonError;
use std::time::Instant;

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Arc, Condvar, Mutex};

use crate::mailbox::Mailbox;

/// Rings until it is heard, as an eventfd does.
#[derive(Default)]
pub(crate) struct Bell {
    rings: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rings.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.heard.notify_one();
    }

    pub(crate) fn wait(&self) {
        // Poisoned as soon as a thread was switched away from while it unwinds.
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        while !*rings {
            rings = self.heard.wait(rings).unwrap_or_else(PoisonError::into_inner);
        }
        *rings = false;
    }
}

struct Hub {
    letters: Mailbox<u64>,
    bell: Bell,
}

shuttle::thread_local! {
    static HUB: Arc<Hub> = Arc::new(Hub { letters: Mailbox::new(), bell: Bell::default() });
    static LAST_TICKET: Cell<u64> = Cell::new(0);
    static MAY_BE_KILLED: Cell<bool> = Cell::new(false);
}

/// What a kill unwinds with.
pub(crate) struct Killed;

/// Whether this thread may be killed from now on.
pub(crate) fn let_kill(may_be: bool) {
    MAY_BE_KILLED.with(|cell| cell.set(may_be));
}

/// Ends one wait; also when it is dropped.
pub(crate) struct Waker {
    hub: Arc<Hub>,
    ticket: u64,
}

impl Waker {
    pub(crate) fn wake(self) {}
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.hub.letters.post(self.ticket, || self.hub.bell.ring());
    }
}

/// A wait with a deadline may be over whenever the thread looks, and so may one that is killed.
pub(crate) fn wait_anywhere(deadline: Option<Instant>, arm: impl FnOnce(Waker)) {
    let hub = HUB.with(Arc::clone);
    let ticket = LAST_TICKET.with(|last| {
        last.set(last.get() + 1);
        last.get()
    });
    arm(Waker { hub: hub.clone(), ticket });
    let may_be_killed = MAY_BE_KILLED.with(Cell::get);
    loop {
        let mut woken = false;
        hub.letters.drain(|letter| woken |= letter == ticket);
        if may_be_killed && thread_rng().gen_bool(0.5) {
            resume_unwind(Box::new(Killed));
        }
        if woken || deadline.is_some() && thread_rng().gen_bool(0.5) {
            return;
        }
        if deadline.is_some() || may_be_killed {
            // The clock, or who kills, would wake it.
            shuttle::thread::yield_now();
        } else if hub.letters.sleep() {
            hub.bell.wait();
            hub.letters.awake();
        }
    }
}

pub(crate) fn may_wait() -> bool {
    true
}
