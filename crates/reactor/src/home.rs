//! Values that stay on their hub while other threads decide what becomes of them.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::marker::PhantomData;

use warren_hub::{HubGone, HubHandle, contain, handle, hub_local};

/// Stands for a value on a hub, wherever the ticket goes. Dropped, it drops the value there.
pub(crate) struct Ticket<T> {
    hub: HubHandle,
    key: u64,
    /// Not needed any more: the value is on its way to someone.
    redeemed: bool,
    value: PhantomData<fn() -> T>,
}

/// The values of one hub, which drops them when it ends.
#[derive(Default)]
struct Cloakroom {
    last: Cell<u64>,
    values: RefCell<HashMap<u64, Box<dyn Any>>>,
}

/// Keeps `value` on the hub of this thread.
///
/// # Panics
/// When no hub runs on this thread.
pub(crate) fn keep<T: 'static>(value: T) -> Ticket<T> {
    let room = hub_local(Cloakroom::default);
    let key = room.last.get() + 1;
    room.last.set(key);
    room.values.borrow_mut().insert(key, Box::new(value));
    Ticket { hub: handle(), key, redeemed: false, value: PhantomData }
}

impl<T: 'static> Ticket<T> {
    /// Hands the value to `f`, on the loop of its hub, after all that this thread has sent there before.
    pub(crate) fn redeem(mut self, f: impl FnOnce(T) + Send + 'static) -> Result<(), HubGone> {
        self.redeemed = true;
        let key = self.key;
        self.hub.post(move || {
            let value = hub_local(Cloakroom::default).values.borrow_mut().remove(&key);
            if let Some(value) = value.and_then(|value| value.downcast().ok()) {
                // The loop must not end by it.
                let _ = contain("a call from another thread", || f(*value));
            }
        })
    }

    /// As [`redeem`](Self::redeem), with a clone of the value.
    pub(crate) fn visit(&self, f: impl FnOnce(T) + Send + 'static) -> Result<(), HubGone>
    where
        T: Clone,
    {
        let key = self.key;
        self.hub.post(move || {
            let room = hub_local(Cloakroom::default);
            let value =
                room.values.borrow().get(&key).and_then(|value| value.downcast_ref().cloned());
            if let Some(value) = value {
                let _ = contain("a call from another thread", || f(value));
            }
        })
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        let key = self.key;
        if !self.redeemed {
            // A hub that has gone has dropped its values.
            let _ = self.hub.post(move || {
                let value = hub_local(Cloakroom::default).values.borrow_mut().remove(&key);
                drop(value);
            });
        }
    }
}
