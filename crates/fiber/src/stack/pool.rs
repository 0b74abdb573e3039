//! The pool and the stacks it lends.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::num::NonZeroUsize;
use std::rc::Rc;

use corosensei::stack::StackPointer;
#[cfg(feature = "valgrind")]
use corosensei::stack::valgrind::ValgrindStackRegistration;
use rustix::io::{self, Errno};

use super::guard::{limit_of, page_bytes};
use super::region::{Chunk, Slot, pointer};
use super::{GuardKind, Owner, StackSize};
use crate::overflow;

/// Slots of the first chunk of a size. Each further one has twice as many.
const CHUNK_SLOTS_MIN: usize = 16;
/// Slots of the largest chunks: a million stacks take some twenty.
const CHUNK_SLOTS_MAX: usize = 1 << 16;
/// The largest chunks.
const CHUNK_BYTES_MAX: usize = 16 << 30;

/// What a pool holds, for diagnostics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackStats {
    /// Stacks in use.
    pub live: usize,
    /// Stacks free for reuse.
    pub free: usize,
    /// Of the free ones, those whose memory was given back by [`StackPool::trim`].
    pub cold: usize,
    /// Bytes of address space reserved. Not memory.
    pub mapped: usize,
}

/// Why there is no stack.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no stack of {} KiB beside the {live} in use: {source}{}", .size.bytes() >> 10, Bound(*.limit))]
pub struct StackError {
    size: StackSize,
    live: usize,
    /// As [`limit`](super::limit) gives it for this pool's guards.
    limit: Option<usize>,
    source: Errno,
}

/// The part of the message that explains the limit.
struct Bound(Option<usize>);

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(limit) = self.0 else { return Ok(()) };
        write!(
            f,
            "; each takes two mappings where the kernel has no MADV_GUARD_INSTALL (Linux 6.13), so that about \
             {limit} fit in vm.max_map_count: raise it (sysctl), or use a newer kernel"
        )
    }
}

impl From<StackError> for std::io::Error {
    fn from(error: StackError) -> Self {
        std::io::Error::new(std::io::Error::from(error.source).kind(), error)
    }
}

/// A pool of stacks. Cheap to clone; all clones are one pool.
#[derive(Clone, Debug, Default)]
pub struct StackPool(pub(super) Rc<Pool>);

#[derive(Debug)]
pub(super) struct Pool {
    guard: GuardKind,
    /// By [`StackSize::index`].
    pub(super) classes: [Class; 4],
    /// Every mapping.
    chunks: RefCell<Vec<&'static Chunk>>,
    pub(super) live: Cell<usize>,
    /// Slots that valgrind knows to be stacks.
    #[cfg(feature = "valgrind")]
    registered: RefCell<Vec<ValgrindStackRegistration>>,
}

/// The stacks of one size.
#[derive(Debug, Default)]
pub(super) struct Class {
    /// Lowest addresses of free slots, all guarded; the last freed is the first taken.
    pub(super) free: RefCell<Vec<usize>>,
    /// So many at the front of `free` have no memory. May be more than there are: see [`Class::cold`].
    pub(super) cold: Cell<usize>,
    /// So many at the front of `free` are known not to be deep, as above.
    pub(super) shallow: Cell<usize>,
    /// The deepest use of a stack seen, in bytes.
    pub(super) deepest: Cell<usize>,
    /// Slots that were never used: from the first address on, up to the second.
    fresh: Cell<(usize, usize)>,
    /// Slots of the next chunk; 0 before the first.
    next_slots: Cell<usize>,
}

thread_local! {
    static LOCAL: StackPool = StackPool::default();
}

impl StackPool {
    /// This thread's pool.
    pub fn local() -> StackPool {
        // While the thread ends its pool may be gone; a fresh one is as good.
        LOCAL.try_with(Clone::clone).unwrap_or_default()
    }

    /// A pool whose stacks are guarded in this way: for tests of what happens on older kernels.
    pub fn with_guard(guard: GuardKind) -> StackPool {
        StackPool(Rc::new(Pool::new(guard)))
    }

    /// Takes a stack, a used one when there is one.
    ///
    /// # Errors
    /// What the kernel answers when there is no more address space or too many mappings (`ENOMEM`).
    #[inline]
    pub fn take(&self, size: StackSize) -> Result<Stack, StackError> {
        // Where pages have 64 KiB, the smallest size would be all guard.
        #[cfg(not(target_arch = "x86_64"))]
        let size = StackSize::at_least(4 * page_bytes()).map_or(size, |least| size.max(least));
        let free = self.0.classes[size.index()].free.borrow_mut().pop();
        let low = match free {
            Some(low) => low,
            None => self.0.fresh(size).map_err(|source| StackError {
                size,
                live: self.0.live.get(),
                limit: limit_of(self.0.guard),
                source,
            })?,
        };
        self.0.live.set(self.0.live.get() + 1);
        let stack = Stack { pool: Rc::clone(&self.0), low, size };
        // The one before is gone, and its name with it.
        // SAFETY: the slot is this stack's.
        unsafe { stack.slot().set_owner(None) };
        Ok(stack)
    }

    /// How many stacks are in use, and how many wait for reuse.
    pub fn stats(&self) -> StackStats {
        let pool = &*self.0;
        StackStats {
            live: pool.live.get(),
            free: pool.classes.iter().map(|class| class.free.borrow().len()).sum(),
            cold: pool.classes.iter().map(Class::cold).sum(),
            mapped: pool.chunks.borrow().iter().map(|chunk| chunk.bytes()).sum(),
        }
    }
}

#[cfg(test)]
impl StackPool {
    pub(super) fn chunk_lows(&self) -> impl Iterator<Item = usize> {
        self.0.chunks.borrow().iter().map(|chunk| chunk.low()).collect::<Vec<_>>().into_iter()
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new(GuardKind::detect())
    }
}

impl Pool {
    fn new(guard: GuardKind) -> Self {
        Self {
            guard,
            classes: Default::default(),
            chunks: RefCell::default(),
            live: Cell::new(0),
            #[cfg(feature = "valgrind")]
            registered: RefCell::default(),
        }
    }

    /// The next slot that was never used, guarded.
    #[cold]
    fn fresh(&self, size: StackSize) -> io::Result<usize> {
        let class = &self.classes[size.index()];
        if class.fresh.get().0 == class.fresh.get().1 {
            self.extend(class, size)?;
        }
        let (low, end) = class.fresh.get();
        // SAFETY: the page lies in a chunk of ours, and no stack uses it yet. On failure the slot stays fresh:
        // only slots that have their guard are handed out.
        unsafe { self.guard.put(pointer(low)) }?;
        class.fresh.set((low + size.bytes(), end));
        #[cfg(feature = "valgrind")]
        self.registered
            .borrow_mut()
            .push(ValgrindStackRegistration::new(pointer(low).cast(), size.bytes()));
        Ok(low)
    }

    /// Reserves another chunk, a smaller one when the kernel refuses.
    fn extend(&self, class: &Class, size: StackSize) -> io::Result<()> {
        overflow::watch();
        let mut slots = class.next_slots.get().max(CHUNK_SLOTS_MIN);
        let chunk = loop {
            match Chunk::map(size, slots) {
                Ok(chunk) => break chunk,
                Err(error) if slots == 1 => return Err(error),
                Err(_) => slots /= 2,
            }
        };
        self.chunks.borrow_mut().push(chunk);
        class.fresh.set((chunk.low(), chunk.low() + chunk.bytes()));
        class.next_slots.set((2 * slots).min(CHUNK_SLOTS_MAX).min(CHUNK_BYTES_MAX / size.bytes()));
        Ok(())
    }

    /// The slots of a size that were ever used.
    pub(super) fn used_slots(&self, size: StackSize) -> impl Iterator<Item = Slot> {
        let fresh = self.classes[size.index()].fresh.get();
        let chunks: Vec<(usize, usize)> = self
            .chunks
            .borrow()
            .iter()
            .filter(|chunk| chunk.slot_bytes() == size.bytes())
            .map(|chunk| (chunk.low(), chunk.low() + chunk.bytes()))
            // Only the last chunk of a size has fresh ones.
            .map(|(low, end)| if end == fresh.1 { (low, fresh.0) } else { (low, end) })
            .collect();
        let bytes = size.bytes();
        chunks.into_iter().flat_map(move |(low, end)| {
            (low..end).step_by(bytes).map(move |low| Slot { low, bytes })
        })
    }
}

impl Class {
    /// How many at the front of `free` have no memory.
    pub(super) fn cold(&self) -> usize {
        self.cold.get().min(self.free.borrow().len())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        #[cfg(feature = "valgrind")]
        self.registered.get_mut().clear();
        for chunk in self.chunks.get_mut().drain(..) {
            // SAFETY: each stack holds an `Rc` of this pool, so none is left; the list is drained, so the
            // chunk is forgotten.
            unsafe { chunk.unmap() };
        }
    }
}

/// A stack on loan from a [`StackPool`]; dropping it gives it back.
#[derive(Debug)]
pub struct Stack {
    pool: Rc<Pool>,
    /// The lowest address of the slot, where the guard lies.
    low: usize,
    size: StackSize,
}

impl Stack {
    /// The class it was taken from.
    pub fn size(&self) -> StackSize {
        self.size
    }

    /// The address where it begins, going down.
    pub fn top(&self) -> usize {
        self.slot().top()
    }

    /// The lowest address that may be used. Below lies the guard.
    pub fn limit(&self) -> usize {
        self.low + page_bytes()
    }

    /// Notes whose stack it is, for the report of an overflow. Costs no memory: it is kept in the page of the
    /// stack that is touched first anyway.
    ///
    /// # Safety
    /// The owner's name stays valid until the stack is dropped or has another owner.
    pub unsafe fn set_owner(&self, owner: Owner) {
        // SAFETY: the slot is this stack's.
        unsafe { self.slot().set_owner(Some(owner)) };
    }

    fn slot(&self) -> Slot {
        Slot { low: self.low, bytes: self.size.bytes() }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.pool.live.set(self.pool.live.get() - 1);
        let class = &self.pool.classes[self.size.index()];
        let mut free = class.free.borrow_mut();
        // What lies above the marks has been in use since.
        class.cold.set(class.cold.get().min(free.len()));
        class.shallow.set(class.shallow.get().min(free.len()));
        free.push(self.low);
    }
}

// SAFETY: the slot is exclusively ours until dropped, mapped readable and writable above its guard page,
// far larger than `MIN_STACK_SIZE` after colour and owner are taken off, and both ends are aligned: slots are
// multiples of 64 KiB apart in a page-aligned mapping, colours multiples of the alignment.
unsafe impl corosensei::stack::Stack for Stack {
    fn base(&self) -> StackPointer {
        NonZeroUsize::new(self.top()).expect("a mapping is not at zero")
    }

    fn limit(&self) -> StackPointer {
        NonZeroUsize::new(self.low).expect("a mapping is not at zero")
    }
}
