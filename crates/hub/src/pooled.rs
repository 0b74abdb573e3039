//! [`Pooled`]: an `Rc` whose memory is used again by the next one. A fiber's outcome is made and dropped with each
//! spawn, which the general allocator makes the most expensive part of it.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;

/// What fits in a block comes from the pool.
const BLOCK: Layout = match Layout::from_size_align(128, 16) {
    Ok(layout) => layout,
    Err(_) => panic!("16 is a power of two"),
};
/// Blocks kept for reuse by a thread: 128 KiB.
const FREE_MAX: usize = 1024;

/// Free blocks of this thread.
struct Pool(Vec<NonNull<u8>>);

impl Drop for Pool {
    fn drop(&mut self) {
        for block in self.0.drain(..) {
            // SAFETY: allocated by `take` with this layout, and in nobody's hands.
            unsafe { dealloc(block.as_ptr(), BLOCK) };
        }
    }
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool(Vec::new())) };
}

fn take(layout: Layout) -> NonNull<u8> {
    let pooled = || POOL.try_with(|pool| pool.borrow_mut().0.pop()).ok().flatten();
    if layout == BLOCK
        && let Some(block) = pooled()
    {
        return block;
    }
    // SAFETY: the layout has a size: it holds a count at least.
    let fresh = unsafe { alloc(layout) };
    NonNull::new(fresh).unwrap_or_else(|| handle_alloc_error(layout))
}

/// # Safety
/// `block` was taken with this layout, and nobody uses it any more.
unsafe fn give_back(block: NonNull<u8>, layout: Layout) {
    let kept = layout == BLOCK
        && POOL
            .try_with(|pool| {
                let free = &mut pool.borrow_mut().0;
                let room = free.len() < FREE_MAX;
                if room {
                    free.push(block);
                }
                room
            })
            .unwrap_or(false);
    if !kept {
        // SAFETY: as the caller says.
        unsafe { dealloc(block.as_ptr(), layout) };
    }
}

/// Pooled ownership of a value within a thread.
pub(crate) struct Pooled<T> {
    inner: NonNull<Inner<T>>,
    /// Neither `Send` nor `Sync`, and owns a `T`.
    _owns: PhantomData<Rc<T>>,
}

struct Inner<T> {
    count: Cell<usize>,
    value: T,
}

impl<T> Pooled<T> {
    const LAYOUT: Layout = {
        let own = Layout::new::<Inner<T>>();
        if own.size() <= BLOCK.size() && own.align() <= BLOCK.align() { BLOCK } else { own }
    };

    /// With the value that `make` gives: made after its memory is there, so that it need not be moved.
    pub(crate) fn new(make: impl FnOnce() -> T) -> Self {
        let inner = take(Self::LAYOUT).cast::<Inner<T>>();
        // SAFETY: the memory is fresh, and large and aligned enough for an `Inner<T>`. When `make` panics, it is leaked.
        unsafe { inner.write(Inner { count: Cell::new(1), value: make() }) };
        Self { inner, _owns: PhantomData }
    }

    fn inner(&self) -> &Inner<T> {
        // SAFETY: written in `new`, and dropped only with the last handle.
        unsafe { self.inner.as_ref() }
    }
}

impl<T> Clone for Pooled<T> {
    fn clone(&self) -> Self {
        let count = &self.inner().count;
        // Cannot overflow: each handle takes memory of its own, unless it is leaked, and then 2^64 of them were made.
        count.set(count.get() + 1);
        Self { inner: self.inner, _owns: PhantomData }
    }
}

impl<T> Drop for Pooled<T> {
    fn drop(&mut self) {
        let count = &self.inner().count;
        count.set(count.get() - 1);
        if count.get() > 0 {
            return;
        }
        // SAFETY: this was the last handle; the value is dropped once, and its memory not used after.
        unsafe {
            self.inner.drop_in_place();
            give_back(self.inner.cast(), Self::LAYOUT);
        }
    }
}

impl<T> Deref for Pooled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner().value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_handle_drops_the_value_once() {
        let counted = Rc::new(());
        for _ in 0..3 {
            let one = Pooled::new(|| (counted.clone(), 7));
            let other = one.clone();
            drop(one);
            assert_eq!((Rc::strong_count(&counted), other.1), (2, 7));
            drop(other);
            assert_eq!(Rc::strong_count(&counted), 1);
        }
    }

    #[test]
    fn values_of_every_size_have_memory_of_their_own() {
        #[repr(align(64))]
        struct Aligned([u8; 64]);
        let small: Vec<Pooled<u64>> = (0..2000).map(|n| Pooled::new(|| n)).collect();
        let large: Vec<Pooled<[u64; 100]>> = (0..100).map(|n| Pooled::new(|| [n; 100])).collect();
        let aligned = Pooled::new(|| Aligned([3; 64]));
        assert_eq!((&raw const aligned.0).addr() % 64, 0);
        assert!(small.iter().zip(0..).all(|(one, n)| **one == n));
        assert!(large.iter().zip(0..).all(|(one, n)| one.iter().all(|&item| item == n)));
        assert!(aligned.0.iter().all(|&byte| byte == 3));
        drop(small);
        let again: Vec<Pooled<u64>> = (0..2000).map(|n| Pooled::new(|| n)).collect();
        assert!(again.iter().zip(0..).all(|(one, n)| **one == n));
    }
}
