//! Chunks of address space, and whose slot an address lies in.
//!
//! Every chunk of every pool of the process is in one list that is read without a lock: by the handler of an
//! overflow, which may do nothing else, and by [`grow`](crate::grow). Entries are never freed; one whose chunk is
//! gone is taken for the next chunk, so the list is as long as there were chunks at a time.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use rustix::io;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use super::StackSize;

/// One mapping, cut in slots of one size.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Lowest address. 0: free for another chunk; [`CLAIMED`]: about to be filled in.
    low: AtomicUsize,
    bytes: AtomicUsize,
    slot_bytes: AtomicUsize,
    /// Set before the entry is in the list, and never changed.
    next: *const Chunk,
}

const FREE: usize = 0;
const CLAIMED: usize = 1;

// SAFETY: `next` points to an entry that is never freed and is read only; the rest is atomic.
unsafe impl Sync for Chunk {}

static CHUNKS: AtomicPtr<Chunk> = AtomicPtr::new(ptr::null_mut());
/// Changes when a mapping goes: what was found out about an address before is worth nothing then.
static UNMAPPED: AtomicUsize = AtomicUsize::new(0);

/// A stack's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Lowest address, where the guard lies.
    pub(crate) low: usize,
    pub(crate) bytes: usize,
}

impl Chunk {
    /// Reserves `slots` slots. No memory is used until it is touched, nor promised: `MAP_NORESERVE`, which
    /// kernels that never overcommit ignore.
    pub(super) fn map(size: StackSize, slots: usize) -> io::Result<&'static Chunk> {
        let bytes = size.bytes() * slots;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::STACK;
        // SAFETY: a fresh private mapping at an address of the kernel's choice overlaps nothing.
        let low = unsafe { mmap_anonymous(ptr::null_mut(), bytes, access, flags) }?;
        // A huge page would make each stack cost 2 MiB. Kernels without them refuse, which is as good.
        // SAFETY: the mapping made above; the advice changes nothing that can be read.
        let _ = unsafe { madvise(low, bytes, Advice::LinuxNoHugepage) };
        let chunk = entry();
        chunk.bytes.store(bytes, Ordering::Relaxed);
        chunk.slot_bytes.store(size.bytes(), Ordering::Relaxed);
        chunk.low.store(low.expose_provenance(), Ordering::Release);
        Ok(chunk)
    }

    /// Lowest address.
    pub(super) fn low(&self) -> usize {
        self.low.load(Ordering::Relaxed)
    }

    /// Length.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Length of a slot.
    pub(super) fn slot_bytes(&self) -> usize {
        self.slot_bytes.load(Ordering::Relaxed)
    }

    /// Gives the address space back.
    ///
    /// # Safety
    /// No stack of this chunk is in use, and the caller forgets the chunk.
    pub(super) unsafe fn unmap(&self) {
        let (low, bytes) = (self.low(), self.bytes());
        self.low.store(CLAIMED, Ordering::Release);
        UNMAPPED.fetch_add(1, Ordering::Release);
        // Refused where neighbours have merged and there are too many mappings to cut one in two. Then the
        // addresses stay reserved, and their pages go with the process.
        // SAFETY: mapped by `map` with this address and length; nothing uses it any more, says the caller.
        let _ = unsafe { munmap(pointer(low), bytes) };
        self.low.store(FREE, Ordering::Release);
    }

    /// The slot around `address`, when that lies in this chunk.
    fn slot(&self, address: usize) -> Option<Slot> {
        let low = self.low.load(Ordering::Acquire);
        let bytes = self.bytes.load(Ordering::Relaxed);
        let slot_bytes = self.slot_bytes.load(Ordering::Relaxed);
        let offset = address.checked_sub(low)?;
        // Another thread may just now have given the entry to another chunk. Then none of it is ours, for
        // whoever runs on a stack keeps its chunk.
        let same = self.low.load(Ordering::Acquire) == low;
        if low <= CLAIMED || bytes <= offset || slot_bytes == 0 || !same {
            return None;
        }
        Some(Slot { low: low + offset / slot_bytes * slot_bytes, bytes: slot_bytes })
    }
}

/// A free entry of the list, claimed.
fn entry() -> &'static Chunk {
    for chunk in chunks() {
        let claim = chunk.low.compare_exchange(FREE, CLAIMED, Ordering::Acquire, Ordering::Relaxed);
        if claim.is_ok() {
            return chunk;
        }
    }
    let chunk = Box::leak(Box::new(Chunk {
        low: AtomicUsize::new(CLAIMED),
        bytes: AtomicUsize::new(0),
        slot_bytes: AtomicUsize::new(0),
        next: ptr::null(),
    }));
    let mut first = CHUNKS.load(Ordering::Acquire);
    loop {
        chunk.next = first;
        match CHUNKS.compare_exchange(first, chunk, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return chunk,
            Err(other) => first = other,
        }
    }
}

/// All entries of the list. Async-signal-safe.
fn chunks() -> impl Iterator<Item = &'static Chunk> {
    let mut next = CHUNKS.load(Ordering::Acquire).cast_const();
    std::iter::from_fn(move || {
        // SAFETY: null, or an entry that was published when its `next` was set, and is never freed.
        let chunk = unsafe { next.as_ref() }?;
        next = chunk.next;
        Some(chunk)
    })
}

/// The slot that `address` lies in, of whichever pool. Async-signal-safe.
pub(crate) fn find(address: usize) -> Option<Slot> {
    chunks().find_map(|chunk| chunk.slot(address))
}

/// A number that is another one as soon as [`find`] may answer otherwise about an address it knew.
pub(crate) fn generation() -> usize {
    UNMAPPED.load(Ordering::Acquire)
}

/// A pointer into a chunk.
pub(super) fn pointer(address: usize) -> *mut c_void {
    ptr::with_exposed_provenance_mut(address)
}
