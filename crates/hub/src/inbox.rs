//! How other threads reach a hub: a queue, and a bell that is rung only when the hub sleeps.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_queue::SegQueue;

use crate::driver::Bell;
use crate::remote_join::{self, RemoteJoin};

/// Run on the loop of the hub it is posted to.
pub(crate) type Letter = Box<dyn FnOnce() + Send>;

pub(crate) struct Inbox {
    letters: SegQueue<Letter>,
    /// Set while the hub waits, or is about to, in the kernel. Whoever clears it rings the bell.
    sleeping: AtomicBool,
    closed: AtomicBool,
    bell: Bell,
}

impl Inbox {
    pub(crate) fn new(bell: Bell) -> Self {
        Self {
            letters: SegQueue::new(),
            sleeping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            bell,
        }
    }

    fn post(&self, letter: Letter) -> Result<(), HubGone> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(HubGone);
        }
        self.letters.push(letter);
        // Sequentially consistent with `sleep`: either we see that the hub sleeps, or it sees the letter.
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.bell.ring();
        }
        Ok(())
    }

    /// The hub is about to wait. False when letters have come: it must not.
    pub(crate) fn sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        if self.letters.is_empty() {
            return true;
        }
        self.awake();
        false
    }

    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }

    /// The bell was heard.
    pub(crate) fn rung(&self) {
        self.bell.rung();
    }

    /// Hands over the letters that are there now.
    pub(crate) fn drain(&self, mut each: impl FnMut(Letter)) {
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

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        while self.letters.pop().is_some() {}
    }
}

/// The hub has ended, and takes nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hub has ended")]
pub struct HubGone;

/// Another thread's way to a hub. A hub that nothing else can wake waits on while handles exist.
#[derive(Clone)]
pub struct HubHandle(Arc<Inbox>);

impl HubHandle {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        Self(inbox)
    }

    pub(crate) fn reaches(&self, inbox: &Arc<Inbox>) -> bool {
        Arc::ptr_eq(&self.0, inbox)
    }

    /// Runs `callback` on the hub's loop, which must not be made to wait. Letters of one sender arrive in
    /// order.
    ///
    /// # Errors
    /// [`HubGone`] when the hub has ended. One that ends before it reads the letter drops it.
    pub fn post(&self, callback: impl FnOnce() + Send + 'static) -> Result<(), HubGone> {
        self.0.post(Box::new(callback))
    }

    /// Starts a fiber on the hub.
    ///
    /// # Errors
    /// [`HubGone`] when the hub has ended.
    pub fn spawn<T: Send + 'static>(
        &self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> Result<RemoteJoin<T>, HubGone> {
        let (join, body) = remote_join::remote(body);
        self.post(move || crate::spawn::spawn_raw(body))?;
        Ok(join)
    }
}

impl fmt::Debug for HubHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubHandle")
    }
}
