//! Callbacks that are told of one thing, once, and can be taken back until then.

use std::cell::RefCell;

/// A callback that can be taken back: see [`JoinHandle::unlink`](crate::JoinHandle::unlink) and
/// [`AsyncResult::unlink`](crate::sync::AsyncResult::unlink).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkId(u64);

/// The callbacks, of type `F`, in the order in which they were made.
pub(crate) struct Links<F>(RefCell<Inner<F>>);

struct Inner<F> {
    last: u64,
    links: Vec<(LinkId, F)>,
}

impl<F> Links<F> {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(Inner { last: 0, links: Vec::new() }))
    }

    pub(crate) fn add(&self, callback: F) -> LinkId {
        let mut inner = self.0.borrow_mut();
        inner.last += 1;
        let id = LinkId(inner.last);
        inner.links.push((id, callback));
        id
    }

    /// False when it has been called or removed before.
    pub(crate) fn remove(&self, link: LinkId) -> bool {
        let removed = {
            let links = &mut self.0.borrow_mut().links;
            let index = links.iter().position(|(id, _)| *id == link);
            index.map(|index| links.remove(index))
        };
        // Dropped after the borrow has ended: it may own anything.
        removed.is_some()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().links.is_empty()
    }

    /// Takes all, to be called.
    pub(crate) fn take(&self) -> impl Iterator<Item = F> + use<F> {
        let links = std::mem::take(&mut self.0.borrow_mut().links);
        links.into_iter().map(|(_, callback)| callback)
    }
}
