//! Giving memory back that stacks no longer need, and asking how deep they were used.
//!
//! The kernel knows which pages of a stack were touched (`mincore`), so neither a switch nor a call pays for
//! keeping track. Guards of either kind survive that the pages round them go.

use rustix::mm::{Advice, madvise};

use super::StackSize;
use super::guard::page_bytes;
use super::pool::{Class, StackPool};
use super::region::{Slot, pointer};

/// A free stack that was used deeper than this gives the rest back, though it is kept warm.
const WARM_BYTES: usize = 16 << 10;
/// Stacks trimmed in one call, for each size: some milliseconds.
const TRIM_MAX: usize = 4096;
/// Pages that `mincore` is asked about at once.
const WINDOW_PAGES: usize = 512;

impl StackPool {
    /// Gives memory of free stacks back to the system: all of it except for the `keep_warm` of each size that were
    /// used last, and what those used beyond 16 KiB. Address space stays reserved. For an idle moment: one
    /// call does a few thousand stacks at most. Returns how many it emptied; 0 means that nothing was left to do.
    pub fn trim(&self, keep_warm: usize) -> usize {
        let sizes = StackSize::ALL.into_iter();
        sizes.map(|size| self.0.classes[size.index()].trim(size, keep_warm)).sum()
    }

    /// How much of a stack of this size was ever used, in bytes: the deepest of all, rounded up to whole
    /// pages. Asks the kernel about each stack that was ever used, so it is for diagnostics. What a trimmed stack had
    /// used counts when trimming noticed it.
    pub fn deepest(&self, size: StackSize) -> usize {
        let class = &self.0.classes[size.index()];
        let depths = self.0.used_slots(size).map(depth);
        let deepest = depths.fold(class.deepest.get(), usize::max);
        class.deepest.set(deepest);
        deepest
    }
}

impl Class {
    fn trim(&self, size: StackSize, keep_warm: usize) -> usize {
        let mut free = self.free.borrow_mut();
        let cold = self.cold.get().min(free.len());
        let surplus = free.len().saturating_sub(keep_warm).clamp(cold, cold + TRIM_MAX);
        // Neighbours go in one call. The order among cold stacks is free to choose.
        let batch = &mut free[cold..surplus];
        batch.sort_unstable_by(|one, other| other.cmp(one));
        for run in batch.chunk_by(|above, below| *above == *below + size.bytes()) {
            let (Some(highest), Some(lowest)) = (run.first(), run.last()) else { continue };
            // With the guards of all but the lowest, which survive it.
            release(lowest + page_bytes(), highest + size.bytes());
        }
        self.cold.set(surplus);
        let shallow = self.shallow.get().clamp(surplus, free.len());
        let last = free.len().min(shallow + TRIM_MAX);
        for &low in &free[shallow..last] {
            let slot = Slot { low, bytes: size.bytes() };
            let used = depth(slot);
            self.deepest.set(self.deepest.get().max(used));
            if WARM_BYTES < used {
                release(low + page_bytes(), low + size.bytes() - WARM_BYTES);
            }
        }
        self.shallow.set(last);
        surplus - cold
    }
}

/// Gives the pages of free stacks back: they read as zeros when they are touched again.
fn release(low: usize, end: usize) {
    // SAFETY: both callers name memory of free slots, on which nothing runs and whose content nobody expects.
    let answer = unsafe { madvise(pointer(low), end - low, Advice::LinuxDontNeed) };
    // Locked memory is refused, and stays.
    debug_assert!(matches!(answer, Ok(()) | Err(rustix::io::Errno::INVAL)), "{answer:?}");
}

/// From the lowest page in memory to the end of the slot. What was swapped out counts as not used.
fn depth(slot: Slot) -> usize {
    let page = page_bytes();
    let end = slot.low + slot.bytes;
    let mut low = slot.low + page;
    let mut in_memory = [0_u8; WINDOW_PAGES];
    while low < end {
        let bytes = (end - low).min(WINDOW_PAGES * page);
        // SAFETY: the range is mapped, for the pool keeps its chunks; the answer is a byte for each page, and
        // there is room for as many.
        let answer = unsafe { libc::mincore(pointer(low), bytes, in_memory.as_mut_ptr()) };
        if answer != 0 {
            return 0;
        }
        if let Some(index) = in_memory[..bytes.div_ceil(page)].iter().position(|page| page & 1 != 0)
        {
            return end - (low + index * page);
        }
        low += bytes;
    }
    0
}
