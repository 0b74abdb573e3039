//! The page at the low end of each stack that nobody may touch.
//!
//! Two kinds. `MADV_GUARD_INSTALL` marks a page within its mapping, so that any number of stacks is one mapping.
//! Kernels before Linux 6.13 lack it; there `mprotect` takes the page's rights away, which cuts the mapping in
//! two, and the number of mappings of a process is bounded by `vm.max_map_count`.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::io::{self, Errno};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// How stacks are guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuardKind {
    /// By `MADV_GUARD_INSTALL`, of Linux 6.13: as many stacks as memory allows.
    Install,
    /// By `mprotect`: two mappings a stack, see [`limit`].
    Protect,
}

/// The name of an environment variable: with the value `mprotect`, stacks are guarded as on a kernel before 6.13.
const FORCE_VARIABLE: &str = "WARREN_STACK_GUARD";

/// What [`GuardKind::detect`] found: 0 before, else one of the two below.
static DETECTED: AtomicU8 = AtomicU8::new(0);
const INSTALL: u8 = 1;
const PROTECT: u8 = 2;

impl GuardKind {
    /// The better one of those that this kernel has. Asked once per process. The environment variable
    /// `WARREN_STACK_GUARD=mprotect` forces the other, for tests.
    pub fn detect() -> GuardKind {
        match DETECTED.load(Ordering::Relaxed) {
            INSTALL => GuardKind::Install,
            PROTECT => GuardKind::Protect,
            _ => {
                let kind = Self::ask_kernel();
                let found = if kind == GuardKind::Install { INSTALL } else { PROTECT };
                DETECTED.store(found, Ordering::Relaxed);
                kind
            }
        }
    }

    fn ask_kernel() -> GuardKind {
        if std::env::var_os(FORCE_VARIABLE).is_some_and(|value| value == "mprotect") {
            return GuardKind::Protect;
        }
        let bytes = page_bytes();
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh private mapping at an address of the kernel's choice overlaps nothing.
        let Ok(page) =
            (unsafe { mmap_anonymous(ptr::null_mut(), bytes, access, MapFlags::PRIVATE) })
        else {
            return GuardKind::Protect;
        };
        let answer = install(page);
        // SAFETY: the page mapped above, which nobody else knows of.
        let _ = unsafe { munmap(page, bytes) };
        if answer.is_ok() { GuardKind::Install } else { GuardKind::Protect }
    }

    /// Makes the lowest page of the slot at `low` a guard.
    ///
    /// # Safety
    /// The page is the caller's own, in a private anonymous mapping, and nothing uses it.
    pub(super) unsafe fn put(self, low: *mut c_void) -> io::Result<()> {
        if self == GuardKind::Install {
            match install(low) {
                // The kernel refuses pages locked in memory (`mlockall`).
                Err(Errno::INVAL) => {}
                answer => return answer,
            }
        }
        // SAFETY: the caller's page, which nothing uses.
        unsafe { mprotect(low, page_bytes(), MprotectFlags::empty()) }
    }
}

/// `MADV_GUARD_INSTALL` on one page. The kernel empties the page: for our own unused pages only.
fn install(page: *mut c_void) -> io::Result<()> {
    /// `include/uapi/asm-generic/mman-common.h`; newer than the headers of the C library.
    const MADV_GUARD_INSTALL: libc::c_int = 102;
    loop {
        // SAFETY: both callers own the page, which lies in a private anonymous mapping and is not in use.
        let answer = unsafe { libc::madvise(page, page_bytes(), MADV_GUARD_INSTALL) };
        if answer == 0 {
            return Ok(());
        }
        let error = std::io::Error::last_os_error();
        match Errno::from_io_error(&error) {
            // Another thread was changing the page tables.
            Some(Errno::INTR | Errno::AGAIN) => {}
            Some(error) => return Err(error),
            None => return Err(Errno::NOMEM),
        }
    }
}

/// About how many stacks this process can have at a time, those in use included: where the kernel has no
/// [`GuardKind::Install`], half of what is left of `vm.max_map_count`. `None`: only memory and address space bound
/// them.
pub fn limit() -> Option<usize> {
    limit_of(GuardKind::detect())
}

pub(super) fn limit_of(kind: GuardKind) -> Option<usize> {
    /// What other mappings the process has and will have.
    const OTHERS: usize = 200;
    /// The kernel's default.
    const MAPPINGS_MAX: usize = 65_530;
    if kind == GuardKind::Install {
        return None;
    }
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    let mappings_max = text.and_then(|text| text.trim().parse().ok()).unwrap_or(MAPPINGS_MAX);
    Some(mappings_max.saturating_sub(OTHERS) / 2)
}

/// The size of a page: the size of a guard.
#[cfg(target_arch = "x86_64")]
pub(crate) const fn page_bytes() -> usize {
    4096
}

/// The size of a page: the size of a guard.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn page_bytes() -> usize {
    rustix::param::page_size()
}
