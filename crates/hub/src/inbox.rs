//! How other threads reach a hub: a mailbox, and a bell that is rung only when the hub sleeps.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use crate::driver::Bell;
use crate::future::Signal;
use crate::mailbox::Mailbox;
use crate::remote_join::{self, RemoteJoin};

/// Opened on the loop of the hub it is posted to.
pub(crate) enum Letter {
    Call(Box<dyn FnOnce() + Send>),
    /// To the fiber that waits for a future; without an allocation of its own.
    Wake(Arc<Signal>),
}

impl Letter {
    pub(crate) fn open(self) {
        match self {
            Self::Call(callback) => callback(),
            Self::Wake(signal) => signal.arrived(),
        }
    }
}

pub(crate) struct Inbox {
    letters: Mailbox<Letter>,
    bell: Bell,
}

impl Inbox {
    pub(crate) fn new(bell: Bell) -> Self {
        Self { letters: Mailbox::new(), bell }
    }

    fn post(&self, letter: Letter) -> Result<(), HubGone> {
        if self.letters.post(letter, || self.bell.ring()) { Ok(()) } else { Err(HubGone) }
    }
}

impl Deref for Inbox {
    type Target = Mailbox<Letter>;

    fn deref(&self) -> &Mailbox<Letter> {
        &self.letters
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
        self.0.post(Letter::Call(Box::new(callback)))
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

    pub(crate) fn downgrade(&self) -> WeakHandle {
        WeakHandle(Arc::downgrade(&self.0))
    }
}

/// A way to a hub that does not keep it waiting.
pub(crate) struct WeakHandle(Weak<Inbox>);

impl WeakHandle {
    /// Tells the fiber of `signal`. A hub that has gone has no fiber that waits.
    pub(crate) fn wake(&self, signal: &Arc<Signal>) {
        if let Some(inbox) = self.0.upgrade() {
            let _ = inbox.post(Letter::Wake(signal.clone()));
        }
    }
}

impl fmt::Debug for HubHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubHandle")
    }
}
