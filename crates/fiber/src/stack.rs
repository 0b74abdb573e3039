//! Stacks for coroutines, taken from a pool and given back.
//!
//! ```text
//! chunk (one mapping):  | guard | stack ......^ | guard | stack ......^ | ...
//!                       slot 0                  slot 1       base (top), coloured
//! ```
//! Memory is reserved in chunks of sixteen slots of one size and touched page by page as a stack
//! grows down, so a parked coroutine costs the pages it used and not its size. The lowest page of each
//! slot is a guard: running over the end of a stack is a segmentation fault, never silent damage. Above a
//! stack's top lies who owns it ([`Owner`]), in the page that the stack touches first.
//! Stacks are reused last in, first out, while their pages are warm.
//!
//! Invariant: a [`Stack`] keeps its pool alive, so memory is unmapped only when the pool and every stack
//! of it are gone. Leaking a suspended coroutine leaks its chunk; it never dangles.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use corosensei::stack::{STACK_ALIGNMENT, StackPointer};
use rustix::io;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// Slots mapped at once. More saves mappings, fewer saves address space.
const CHUNK_SLOTS: usize = 16;
/// The guard at the low end of a slot: one page where pages have 4 KiB; the kernel rounds it up to a whole
/// page where they are larger.
const GUARD_BYTES: usize = 4096;
/// Tops of neighbouring stacks are shifted by a cache line each, so that they do not all compete for
/// the same cache sets.
const COLOUR_BYTES: usize = 64;
/// After so many neighbours the shift starts again.
const COLOURS: usize = 32;
const _: () = assert!(COLOUR_BYTES.is_multiple_of(STACK_ALIGNMENT));
/// Room for the [`Owner`] above the top of a stack.
const OWNER_BYTES: usize = 64;
const _: () = assert!(size_of::<Option<Owner>>() <= OWNER_BYTES);
const _: () = assert!(OWNER_BYTES.is_multiple_of(STACK_ALIGNMENT));

/// How large a stack is. Address space, not memory: only touched pages cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StackSize {
    /// 64 KiB: enough for small callbacks in release builds.
    Small,
    /// 256 KiB: the default; fits a TLS handshake or a panic with a backtrace.
    #[default]
    Normal,
    /// 1 MiB: deep recursion in debug builds.
    Large,
    /// 8 MiB: what a thread's main stack has.
    Huge,
}

impl StackSize {
    /// The size in bytes, guard included.
    pub const fn bytes(self) -> usize {
        match self {
            StackSize::Small => 64 << 10,
            StackSize::Normal => 256 << 10,
            StackSize::Large => 1 << 20,
            StackSize::Huge => 8 << 20,
        }
    }

    /// The smallest class with at least `bytes` bytes; `None` beyond 8 MiB.
    pub fn at_least(bytes: usize) -> Option<StackSize> {
        let classes = [StackSize::Small, StackSize::Normal, StackSize::Large, StackSize::Huge];
        classes.into_iter().find(|class| bytes <= class.bytes())
    }

    const fn index(self) -> usize {
        self as usize
    }
}

/// What a pool holds, for diagnostics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackStats {
    /// Stacks in use.
    pub live: usize,
    /// Stacks mapped and free for reuse.
    pub free: usize,
}

/// A pool of stacks. Cheap to clone; all clones are one pool.
#[derive(Clone, Debug, Default)]
pub struct StackPool(Rc<Pool>);

#[derive(Debug, Default)]
struct Pool {
    /// Lowest addresses of free slots, one list per class; the last freed is the first taken.
    free: [RefCell<Vec<usize>>; 4],
    /// Every mapping: lowest address and length.
    chunks: RefCell<Vec<(usize, usize)>>,
    live: Cell<usize>,
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

    /// Takes a stack, a used one when there is one.
    ///
    /// # Errors
    /// What the kernel answers when there is no more address space or too many mappings (`ENOMEM`).
    pub fn take(&self, size: StackSize) -> io::Result<Stack> {
        let free = &self.0.free[size.index()];
        let low = loop {
            if let Some(low) = free.borrow_mut().pop() {
                break low;
            }
            self.0.grow(size)?;
        };
        self.0.live.set(self.0.live.get() + 1);
        let stack = Stack { pool: Rc::clone(&self.0), low, size };
        // The one before is gone, and its name with it.
        stack.write_owner(None);
        Ok(stack)
    }

    /// How many stacks are in use, and how many wait for reuse.
    pub fn stats(&self) -> StackStats {
        let free = self.0.free.iter().map(|list| list.borrow().len()).sum();
        StackStats { live: self.0.live.get(), free }
    }
}

impl Pool {
    /// Maps another chunk and puts its slots on the free list.
    fn grow(&self, size: StackSize) -> io::Result<()> {
        let bytes = size.bytes() * CHUNK_SLOTS;
        // SAFETY: a fresh private mapping at an address of the kernel's choice overlaps nothing.
        let chunk = unsafe {
            mmap_anonymous(
                ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK,
            )
        }?;
        let low = chunk.addr();
        self.chunks.borrow_mut().push((chunk.expose_provenance(), bytes));
        for slot in 0..CHUNK_SLOTS {
            let guard = chunk.wrapping_byte_add(slot * size.bytes());
            // SAFETY: the page lies in the mapping made above, and no stack uses it yet. On failure the
            // mapping stays in `chunks`, and only slots that have their guard are handed out.
            unsafe { mprotect(guard, GUARD_BYTES, MprotectFlags::empty()) }?;
            self.free[size.index()].borrow_mut().push(low + slot * size.bytes());
        }
        // The lowest address first, so that neighbours in time are neighbours in memory.
        self.free[size.index()].borrow_mut().reverse();
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (low, bytes) in self.chunks.get_mut().drain(..) {
            // SAFETY: each stack holds an `Rc` of this pool, so none is left; the chunk was mapped by
            // `grow` with this very address and length and is unmapped once.
            let unmapped = unsafe { munmap(ptr::with_exposed_provenance_mut(low), bytes) };
            debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
        }
    }
}

/// Whose stack it is: what the report of an overflow says.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "kept for whoever looks into a process that has overflown a stack")]
pub struct Owner {
    kind: &'static str,
    id: u64,
    name: Option<NonNull<str>>,
    made_at: &'static Location<'static>,
}

impl Owner {
    /// `kind` is the noun the report begins with, such as "fiber"; `id` its number, 0 when it has none;
    /// `made_at` where the program asked for it.
    pub const fn new(kind: &'static str, id: u64, made_at: &'static Location<'static>) -> Self {
        Self { kind, id, name: None, made_at }
    }

    /// With a name, which [`Stack::set_owner`] wants to stay where it is.
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(NonNull::from(name)), ..self }
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
        let colour = (self.low / self.size.bytes()) % COLOURS * COLOUR_BYTES;
        self.low + self.size.bytes() - OWNER_BYTES - colour
    }

    /// The lowest address that may be used. Below lies the guard.
    pub fn limit(&self) -> usize {
        self.low + GUARD_BYTES
    }

    /// Notes whose stack it is, for the report of an overflow. Costs no memory: it is kept in the page of the
    /// stack that is touched first anyway.
    ///
    /// # Safety
    /// The owner's name stays valid until the stack is dropped or has another owner.
    pub unsafe fn set_owner(&self, owner: Owner) {
        self.write_owner(Some(owner));
    }

    fn write_owner(&self, owner: Option<Owner>) {
        let place = ptr::with_exposed_provenance_mut::<Option<Owner>>(self.top());
        // SAFETY: the `OWNER_BYTES` above the top belong to this slot, are mapped and writable, and no stack
        // reaches them; a multiple of 16 is aligned enough.
        unsafe { place.write(owner) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.pool.live.set(self.pool.live.get() - 1);
        self.pool.free[self.size.index()].borrow_mut().push(self.low);
    }
}

// SAFETY: the slot is exclusively ours until dropped, mapped readable and writable above its guard page,
// far larger than `MIN_STACK_SIZE` after the colour is taken off, and both ends are aligned: slots are
// multiples of 64 KiB apart in a page-aligned mapping, colours multiples of the alignment.
unsafe impl corosensei::stack::Stack for Stack {
    fn base(&self) -> StackPointer {
        NonZeroUsize::new(self.top()).expect("a mapping is not at zero")
    }

    fn limit(&self) -> StackPointer {
        NonZeroUsize::new(self.low).expect("a mapping is not at zero")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_stack_given_back_is_the_next_taken() {
        let pool = StackPool::default();
        let first = pool.take(StackSize::Normal).unwrap();
        let second = pool.take(StackSize::Normal).unwrap();
        let low = first.limit();
        assert_ne!(low, second.limit());
        drop(first);
        assert_eq!(pool.take(StackSize::Normal).unwrap().limit(), low);
        assert_eq!(pool.stats().live, 1, "only `second` is still out");
    }

    #[test]
    fn live_stacks_never_overlap_and_keep_their_size() {
        let pool = StackPool::default();
        let sizes = [StackSize::Small, StackSize::Normal, StackSize::Large, StackSize::Huge];
        let stacks: Vec<Stack> =
            (0..200).map(|index| pool.take(sizes[index % sizes.len()]).unwrap()).collect();
        let mut spans: Vec<(usize, usize)> =
            stacks.iter().map(|stack| (stack.limit(), stack.top())).collect();
        spans.sort_unstable();
        for pair in spans.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{pair:x?} overlap");
        }
        for stack in &stacks {
            let usable = stack.top() - stack.limit();
            let lost = GUARD_BYTES + OWNER_BYTES + COLOURS * COLOUR_BYTES;
            assert!(stack.size().bytes() - lost <= usable);
            assert_eq!(stack.top() % STACK_ALIGNMENT, 0);
        }
    }

    #[test]
    fn a_stack_outlives_the_handle_of_its_pool() {
        let pool = StackPool::default();
        let stack = pool.take(StackSize::Small).unwrap();
        drop(pool);
        let top = ptr::with_exposed_provenance_mut::<u8>(stack.top() - 1);
        // SAFETY: the byte below `top` belongs to `stack`, which nothing runs on.
        unsafe {
            top.write_volatile(7);
            assert_eq!(top.read_volatile(), 7);
        }
    }

    #[test]
    fn classes_are_found_by_size() {
        assert_eq!(StackSize::at_least(0), Some(StackSize::Small));
        assert_eq!(StackSize::at_least(64 << 10), Some(StackSize::Small));
        assert_eq!(StackSize::at_least((64 << 10) + 1), Some(StackSize::Normal));
        assert_eq!(StackSize::at_least((8 << 20) + 1), None);
    }
}
