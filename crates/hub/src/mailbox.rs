//! Letters for one reader, who is to be woken only when it sleeps.
//!
//! ```text
//!   writer                          reader
//!   ------                          ------
//!   push the letter                 sleeping = true
//!   sleeping was true?              any letter?
//!     yes: sleeping = false,          yes: sleeping = false, read it
//!          ring the bell              no:  wait for the bell
//! ```
//! All of it is sequentially consistent: either the writer finds the reader asleep, or the reader finds the letter.
//! Ringing costs a system call, so only the first of many writers does.

use crate::shim::{AtomicBool, Ordering, SegQueue};

pub(crate) struct Mailbox<L> {
    letters: SegQueue<L>,
    /// Set while the reader waits for the bell, or is about to. Whoever clears it rings.
    sleeping: AtomicBool,
    closed: AtomicBool,
}

impl<L> Mailbox<L> {
    pub(crate) fn new() -> Self {
        Self {
            letters: SegQueue::new(),
            sleeping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Adds a letter, and has `ring` called if the reader sleeps. False when the mailbox is closed: the letter is
    /// dropped, as is one that the reader does not come to read.
    pub(crate) fn post(&self, letter: L, ring: impl FnOnce()) -> bool {
        if self.closed.load(Ordering::SeqCst) {
            return false;
        }
        self.letters.push(letter);
        if self.sleeping.swap(false, Ordering::SeqCst) {
            ring();
        }
        if self.closed.load(Ordering::SeqCst) {
            // It was closed meanwhile, perhaps just before the push: nobody else would drop the letter.
            self.discard();
        }
        true
    }

    /// The reader is about to wait. False when letters have come: it must not.
    pub(crate) fn sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        if self.letters.is_empty() {
            return true;
        }
        self.awake();
        false
    }

    /// The reader does not wait any more.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// Hands over the letters that are there now.
    pub(crate) fn drain(&self, mut each: impl FnMut(L)) {
        for _ in 0..self.letters.len() {
            match self.letters.pop() {
                Some(letter) => each(letter),
                None => return,
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// Takes no more letters, and drops those that are there.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.discard();
    }

    fn discard(&self) {
        while self.letters.pop().is_some() {}
    }
}
